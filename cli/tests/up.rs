//! `tollgate up` as a newcomer meets it: the real program, the requests it prints, an edit of its document, and the
//! end by a signal. Every wait has a condition and a limit; every port is free.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tollgate_engine::testing::PATIENCE;
use tollgate_engine::testing::upstream::Upstream;
use tollgate_engine::testing::waiting::until;

/// The program, running; killed when a test fails.
struct Up {
    child: Child,
    output: BufReader<ChildStdout>,
    printed: String,
}

impl Up {
    /// Starts on free ports and reads what it prints until it waits.
    fn start() -> Up {
        let any = "127.0.0.1:0";
        let mut child = tollgate(&["up", "--listen", any, "--admin", any, "--control", any])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut printed = String::new();
        while !printed.contains("Ctrl-C") {
            let read = output.read_line(&mut printed).unwrap();
            assert_ne!(read, 0, "it ended by itself\n{printed}");
        }
        Up {
            child,
            output,
            printed,
        }
    }

    /// The second word of a line such as `admin  http://…`.
    fn fact(&self, name: &str) -> String {
        self.printed
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|words| words.first() == Some(&name))
            .filter_map(|words| words.get(1).map(|&word| word.to_owned()))
            .next_back()
            .unwrap_or_else(|| panic!("no line for {name}\n{}", self.printed))
    }

    fn address(&self, name: &str) -> SocketAddr {
        let url = self.fact(name);
        url.strip_prefix("http://").unwrap().parse().unwrap()
    }

    fn document(&self) -> PathBuf {
        PathBuf::from(self.fact("documents")).join("upstreams.toml")
    }

    /// Reads on until it has said so.
    fn waits_for(&mut self, words: &str) {
        let from = self.printed.len();
        while !self.printed[from..].contains(words) {
            let read = self.output.read_line(&mut self.printed).unwrap();
            assert_ne!(read, 0, "it ended by itself\n{}", self.printed);
        }
    }

    /// The lines to try, from the first up to the one that follows these words.
    fn shopping(&self) -> String {
        let (_, tries) = self.printed.split_once("try, in this order").unwrap();
        let (shopping, _) = tries.split_once("a fixed answer").unwrap();
        let lines = shopping.lines().filter(|line| line.starts_with("    "));
        lines
            .map(|line| format!("{line}\necho; echo ==\n"))
            .collect()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What it printed at its end, and its exit code.
    fn end(mut self) -> (String, Option<i32>) {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        (rest, self.child.wait().unwrap().code())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            // Not killed: it has a folder to remove, and parts to end.
            self.signal(Signal::TERM);
        }
        drop(self.child.wait());
    }
}

fn tollgate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments);
    command
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8(text).unwrap()
}

/// A connection with one request written.
fn asked(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("host: {address}\r\nconnection: close\r\nx-api-key: test-key");
    let request = format!("GET {path} HTTP/1.1\r\n{head}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// Status and the whole answer as text.
fn get(address: SocketAddr, path: &str) -> (u16, String) {
    whole(asked(address, path))
}

fn whole(mut stream: TcpStream) -> (u16, String) {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    (status, text)
}

/// The shop answers this with 200. What its own time-outs end, of which the shortest is a second, is the machine's doing, and
/// asked again.
#[track_caller]
fn served(address: SocketAddr, path: &str) {
    until(&format!("{path} to be served"), || {
        let began = Instant::now();
        let (status, text) = get(address, path);
        let too_late = status == 504 && began.elapsed() >= Duration::from_secs(1);
        assert!(status == 200 || too_late, "{text}");
        status == 200
    });
}

fn folder_of(document: &Path) -> PathBuf {
    document.ancestors().nth(2).unwrap().to_owned()
}

/// What somebody sees who pastes the lines that it prints, one after the other (SHOP-810, ACC-101).
#[test]
fn the_printed_requests_work_in_their_order_and_sigterm_leaves_nothing_behind() {
    let up = Up::start();
    let folder = folder_of(&up.document());
    assert!(folder.is_dir());
    let pasted = Command::new("bash").args(["-c", &up.shopping()]).output();
    let pasted = said(&pasted.unwrap());
    let answers: Vec<&str> = pasted.split("==\n").map(str::trim).collect();
    let [
        sign_up,
        sign_in,
        browse,
        order,
        orders,
        wrong,
        refused,
        stream,
        ..,
    ] = answers[..]
    else {
        panic!("{pasted}");
    };
    assert!(
        sign_up.contains("me@shop.example") && sign_up.contains("user_id"),
        "{sign_up}"
    );
    assert_eq!(sign_in.split('.').count(), 3, "a token: {sign_in}");
    assert!(browse.contains("kettle"), "{browse}");
    let order: serde_json::Value = serde_json::from_str(order).expect(order);
    let order = &order["data"];
    assert_eq!(order["status"], "CONFIRMED", "{order}");
    let id = order["order_id"].as_str().unwrap();
    assert!(orders.contains(id), "{orders}");
    assert!(
        wrong.contains("items[0].product_id") && wrong.contains("400"),
        "{wrong}"
    );
    assert!(
        refused.contains("401") && refused.contains("403"),
        "{refused}"
    );
    assert!(stream.lines().count() >= 10, "{stream}");
    // All of it went from member to member, and nobody was refused (MESH-302, MESH-504, SHOP-103).
    let control = up.fact("control");
    until("the map shows who called whom", || {
        let told = tollgate(&["edges", "--json", "--control", &control]).output();
        let told: serde_json::Value = serde_json::from_slice(&told.unwrap().stdout).unwrap();
        let edges = told["edges"].as_array().expect("edges");
        let calls = |source: &str, destination: &str| {
            let name = |end: &serde_json::Value, name: &str| {
                end.as_str().is_some_and(|text| text.ends_with(name))
            };
            edges.iter().any(|edge| {
                name(&edge["source"], source) && name(&edge["destination"], destination)
            })
        };
        calls("gateway", "users")
            && calls("gateway", "orders")
            && ["users", "products", "payments"]
                .iter()
                .all(|other| calls("orders", other))
    });
    diagnosed(&up, sign_in, order);
    up.signal(Signal::TERM);
    let (rest, code) = up.end();
    assert!(rest.contains("cut 0"), "{rest}");
    assert_eq!(code, Some(0), "{rest}");
    assert!(!folder.exists(), "{} is left behind", folder.display());
}

/// What the control plane tells at this page, once it is as wanted. Whoever is asked may be late, and is asked again.
#[track_caller]
fn until_told(
    control: &str,
    words: &[&str],
    wanted: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    let mut told = serde_json::Value::Null;
    until(&words.join(" "), || {
        let output = tollgate(&[words, &["--json", "--control", control]].concat()).output();
        told = serde_json::from_slice(&output.unwrap().stdout).unwrap_or_default();
        wanted(&told)
    });
    told
}

/// Breaks an order, and asks why; and asks for the one that went well (CP-303, CP-304, SHOP-512, OBS-109).
fn diagnosed(up: &Up, token: &str, order: &serde_json::Value) {
    let control = up.fact("control");
    let id = order["order_id"].as_str().unwrap();
    until_told(&control, &["diagnose", "saga", id], |saga| {
        saga["outcome"] == "completed" && saga["well"] == true
    });
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let refused = declined(up, token, &order["items"][0]["product_id"], trace);
    assert!(
        refused.contains("PAYMENT_FAILED") && refused.contains(trace),
        "{refused}"
    );
    let request = ["diagnose", "request", trace];
    let told = until_told(&control, &request, |told| {
        let told_by = |service: &str| {
            let coverage = told["completeness"]["coverage"].as_array();
            let mut coverage = coverage.into_iter().flatten();
            coverage.any(|one| one["service"] == service)
        };
        let all = ["gateway", "orders", "users", "products", "payments"];
        all.into_iter().all(told_by)
            && told["saga"]["well"] == true
            && told["completeness"]["complete"] == true
            && told["silent"] == serde_json::json!([])
    });
    assert_eq!(told["saga"]["failed_step"], "ProcessPayment", "{told:#}");
    let with = told["logs"]["with"].to_string();
    assert!(
        with.contains("orders") && with.contains("payments"),
        "{told:#}"
    );
    let saga = told["saga"]["saga_id"].as_str().unwrap();
    until("the same in words", || {
        let words = tollgate(&[&request[..], &["--control", &control]].concat()).output();
        let words = said(&words.unwrap());
        let parts = ["root cause", "PAYMENT_FAILED", "ProcessPayment", saga];
        parts.iter().all(|part| words.contains(part))
    });
    until_told(&control, &["sagas", "failed"], |failed| {
        failed["sagas"][0]["saga_id"] == saga
    });
    until_told(&control, &["diagnose", "saga", saga], |told| {
        told["outcome"] == "compensated" && told["well"] == true
    });
    until_told(&control, &["traces"], |told| {
        told["traces"].as_array().is_some_and(|all| !all.is_empty())
    });
    let page = format!("{control}/debug/metrics/services");
    until("breakers of all", || {
        let page = Command::new("curl").args(["-s", &page]).output().unwrap();
        let serving: serde_json::Value = serde_json::from_slice(&page.stdout).unwrap_or_default();
        let services = serving["services"].as_array();
        let mut services = services.into_iter().flatten();
        services.any(|one| one["name"] == "payments" && one["breakers"]["state"] == "closed")
    });
}

/// An order whose payment is refused, and what the client is told.
fn declined(up: &Up, token: &str, product: &serde_json::Value, trace: &str) -> String {
    let body = serde_json::json!({
        "items": [{ "product_id": product, "quantity": 1 }],
        "payment_method": "card", "payment_token": "declined",
        "shipping_address": { "street": "1 Main St", "city": "Springfield", "state": "IL", "zip_code": "62701",
            "country": "USA" },
    });
    let fields = [
        "x-api-key: test-key".to_owned(),
        format!("authorization: Bearer {token}"),
        format!("traceparent: 00-{trace}-00f067aa0ba902b7-01"),
    ];
    let mut curl = Command::new("curl");
    curl.args(["-s", &format!("{}/orders", up.fact("gateway"))]);
    for field in &fields {
        curl.args(["-H", field]);
    }
    said(&curl.args(["--json", &body.to_string()]).output().unwrap())
}

#[test]
fn an_edit_of_the_documents_is_served_and_a_mistake_is_not() {
    let mut up = Up::start();
    let (gateway, document) = (up.address("gateway"), up.document());
    let text = std::fs::read_to_string(&document).unwrap();
    let edited = text.replace("this is tollgate", "this was edited");
    std::fs::write(&document, edited).unwrap();
    until("the edit is served", || {
        get(gateway, "/hello").1.contains("this was edited")
    });
    up.waits_for("revision 2 is served: upstreams.toml");
    let mistaken = text.replace("name     = \"orders\"", "name     = \"order\"");
    std::fs::write(&document, mistaken).unwrap();
    up.waits_for("refused, and nothing has changed: routes.toml:");
    assert!(get(gateway, "/hello").1.contains("this was edited"));
}

/// The process of a part.
fn pid_of(part: &str, up: &Up) -> Pid {
    let ours = up.child.id().to_string();
    let mut asked = Command::new("pgrep");
    asked.args(["-P", &ours, "-f", &format!("part {part} ")]);
    let found = String::from_utf8(asked.output().unwrap().stdout).unwrap();
    Pid::from_raw(found.trim().parse().unwrap()).unwrap()
}

#[test]
fn parts_that_are_killed_are_named_and_started_again_and_no_request_fails() {
    let mut up = Up::start();
    let gateway = up.address("gateway");
    kill_process(pid_of("control-plane", &up), Signal::KILL).unwrap();
    for _ in 0..5 {
        // CP-401
        served(gateway, "/products?limit=1");
    }
    up.waits_for("control-plane ended by itself (signal: 9 (SIGKILL))");
    up.waits_for("control-plane is started again");
    let control = up.fact("control");
    // What was registered and what was written is still there.
    until("all services are known", || {
        let services = tollgate(&["services", "--control", &control])
            .output()
            .unwrap();
        let told = said(&services);
        ["users-", "products-", "orders-", "payments-"]
            .iter()
            .all(|name| told.contains(name))
    });
    kill_process(pid_of("products", &up), Signal::KILL).unwrap();
    up.waits_for("products is started again");
    until("it is reached again", || {
        get(gateway, "/products?limit=1").0 == 200
    });
    kill_process(pid_of("gateway", &up), Signal::KILL).unwrap();
    up.waits_for("gateway is started again");
    // Said once it is one of the parts again, which are ended in their order.
    up.waits_for("  gateway ");
    until("it serves where it served", || {
        TcpStream::connect(gateway).is_ok() && get(gateway, "/hello").0 == 200
    });
    up.signal(Signal::TERM);
    let (rest, code) = up.end();
    assert_eq!(code, Some(0), "{rest}");
}

#[test]
fn an_end_while_a_part_is_being_started_again_is_an_end_like_any_other() {
    let mut up = Up::start();
    let folder = folder_of(&up.document());
    kill_process(pid_of("products", &up), Signal::KILL).unwrap();
    // Said before it is started.
    up.waits_for("products is started again");
    up.signal(Signal::TERM);
    let (rest, code) = up.end();
    assert_eq!(code, Some(0), "{rest}");
    assert!(!folder.exists(), "{} is left behind", folder.display());
}

#[test]
fn status_and_explain_ask_the_running_gateway() {
    let up = Up::start();
    let admin = format!("http://{}", up.address("admin"));
    let status = tollgate(&["status", "--admin", &admin]).output().unwrap();
    assert!(status.status.success());
    let told = said(&status);
    for expected in [
        "ready",
        "generation",
        "public",
        "products",
        "orders",
        "healthy",
    ] {
        assert!(told.contains(expected), "{expected}\n{told}");
    }
    let json = tollgate(&["status", "--json", "--admin", &admin])
        .output()
        .unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["ready"], true);
    let url = format!("{}/orders/7", up.fact("gateway"));
    let explain = [
        "explain", "--live", "--admin", &admin, "GET", &url, "-H", "x-a: 1",
    ];
    let told = said(&tollgate(&explain).output().unwrap());
    for expected in [
        "upstream orders",
        "route.timeout = 10s",
        "routes.toml:",
        "/orders/*",
    ] {
        assert!(told.contains(expected), "{expected}\n{told}");
    }
}

/// Nothing is wrong with what is well, and every part of it was looked at.
#[test]
fn a_doctor_finds_nothing_wrong_with_a_system_that_is_well() {
    let up = Up::start();
    let folder = folder_of(&up.document());
    let documents = [
        "control-plane",
        "gateway",
        "orders-sidecar",
        "payments-sidecar",
    ]
    .map(|part| folder.join(format!("{part}.toml")).display().to_string());
    let (admin, control) = (up.fact("admin"), up.fact("control"));
    let named = [
        "--admin",
        &admin,
        "--control",
        &control,
        "--service",
        "orders",
    ];
    let limits = ["--timeout", "5m"];
    let sections = ["--only", "files,control-plane,data-planes,identity,service"];
    let documents = documents.each_ref().map(String::as_str);
    let words = [&["doctor"], &documents[..], &named, &limits, &sections].concat();
    // A node may be on its way to a revision, and a machine that stands still let a probe fail.
    let mut told = String::new();
    until("a doctor finds nothing", || {
        let output = tollgate(&words).output().unwrap();
        told = said(&output);
        // What was told is on disk a moment later.
        output.status.code() == Some(0) && told.contains("default/gateway calls orders")
    });
    for expected in [
        "control-plane.toml: good",
        "has it open",
        "orders-sidecar/last_good: whole",
        "5 nodes follow it, and run what they were told",
        "svc/orders, good for another",
        "on the wire: spiffe://",
        "key 1 signs",
        "it is default/orders by its certificate",
        "default/gateway calls orders: rules that let calls of it pass: gateway-orders",
        "0 problems, 0 warnings, 0 unknown",
    ] {
        assert!(told.contains(expected), "{expected}\n{told}");
    }
    let machine = [
        "doctor",
        documents[2],
        "--only",
        "machine",
        "--timeout",
        "5m",
    ];
    let told = said(&tollgate(&machine).output().unwrap());
    assert!(
        told.contains("0 problems") && told.contains("(tollgate) listens there"),
        "{told}"
    );
    // And who follows, with what.
    let nodes = said(
        &tollgate(&["nodes", "--control", &control])
            .output()
            .unwrap(),
    );
    let lives = ["1 d 0 h", "23 h"].iter().any(|life| nodes.contains(life));
    assert!(nodes.contains("CERTIFICATE") && lives, "{nodes}");
}

#[test]
fn breakers_are_shown_and_held_by_hand() {
    let up = Up::start();
    let (gateway, admin) = (
        up.address("gateway"),
        format!("http://{}", up.address("admin")),
    );
    let breakers = |arguments: &[&str]| {
        let arguments = [&["breakers", "--admin", &admin], arguments].concat();
        let output = tollgate(&arguments).output().unwrap();
        (output.status.success(), said(&output))
    };
    let (fine, told) = breakers(&[]);
    assert!(
        fine && told.contains("products") && told.contains("closed"),
        "{told}"
    );
    let (fine, told) = breakers(&["open", "products", "--for", "1h", "--why", "drill"]);
    assert!(fine, "{told}");
    for expected in ["held", "drill", "ends in", "operator"] {
        assert!(told.contains(expected), "{expected}\n{told}");
    }
    assert!(get(gateway, "/products").1.contains("CIRCUIT_OPEN"));
    // Others are left alone.
    served(gateway, "/hello");
    let (fine, told) = breakers(&["close", "products"]);
    assert!(fine, "{told}");
    served(gateway, "/products");
    let (fine, told) = breakers(&["--json"]);
    let json: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert!(fine && json["breakers"].is_array(), "{told}");
    let (fine, told) = breakers(&["open", "nobody"]);
    assert!(!fine && told.contains("no upstream nobody"), "{told}");
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let any = "127.0.0.1:0";
    let output = tollgate(&["up", "--listen", &address, "--admin", any, "--control", any])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let told = said(&output);
    assert!(told.contains(&format!("{address} is in use")), "{told}");
    assert!(told.contains("--listen 127.0.0.1:0"), "{told}");
}

#[test]
fn an_admin_address_that_does_not_answer_is_named() {
    let free = Upstream::nobody();
    let output = tollgate(&["status", "--admin", &format!("http://{free}")])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("does not answer"));
}
