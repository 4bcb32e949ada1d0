//! Which services may call, end to end: whole data planes with certificates, rules at the one that is called, and what
//! callers, metrics and the log are told (MESH-207, MESH-401 to MESH-403, MESH-501 to MESH-504).

use std::net::SocketAddr;
use std::time::Instant;

use serde_json::Value;
use tollgate_engine::testing::PATIENCE;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::h2_client;
use tollgate_engine::testing::http2::Http2Upstream;
use tollgate_engine::testing::members::Members;
use tollgate_engine::testing::upstream::Upstream;

const RULES: &str = r#"
[[access]]
name = "orders-pay"
from = ["orders"]
to   = "payments"
methods = ["POST"]
path = "/pay/*"

[[access]]
name = "everybody-looks"
from = "*"
methods = ["GET"]
path = "/prices"

[[access]]
name = "about-others"
from = ["users"]
to   = "products"
"#;

/// The data plane of payments: members come in, and rules say to what.
fn callee(members: &Members, mesh: &str, filter: &str, app: SocketAddr, more: &str) -> Gateway {
    Gateway::start(&callee_document(members, mesh, filter, app, more))
}

fn callee_document(
    members: &Members,
    mesh: &str,
    filter: &str,
    app: SocketAddr,
    more: &str,
) -> String {
    let identity = members.folder_for("payments").section("payments");
    format!(
        "{identity}[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\nmesh = \"{mesh}\"\n\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"app\"\nretry = \"off\"\n\
         filters = [{filter}]\n\n\
         [[upstream]]\nname = \"app\"\nendpoints = [\"{app}\"]\n{more}\n"
    )
}

/// The data plane of a service that calls payments.
fn caller(members: &Members, service: &str, payments: &Gateway, protocol: &str) -> Gateway {
    let identity = members.folder_for(service).section(service);
    let at = payments.address();
    Gateway::start(&format!(
        "{identity}[[listener]]\nname = \"out\"\nbind = \"127.0.0.1:0\"\n\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"payments\"\nretry = \"off\"\n\n\
         [[upstream]]\nname = \"payments\"\nendpoints = [\"{at}\"]\nmesh = \"payments\"\nprotocol = \"{protocol}\"\n\
         connect_timeout = \"30s\"\noutlier = \"off\"\nbreaker = \"off\"\n"
    ))
}

/// Waits for a sample of a page of metrics.
fn counted(gateway: &Gateway, sample: &str) {
    let begun = Instant::now();
    loop {
        let page = gateway.metrics();
        if page.lines().any(|line| line == sample) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "no {sample} in\n{page}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// The first access line that says this.
fn logged(gateway: &Gateway, says: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(gateway.folder().join("access.log")).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        if let Some(line) = lines.into_iter().find(|line: &Value| says(line)) {
            return line;
        }
        assert!(begun.elapsed() < PATIENCE, "no such line in {text}");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

const ENFORCE: &str = "{ access = \"enforce\" }";
/// Nothing is written of what is usual, so what is there is always written.
const LOG: &str = "[telemetry]\naccess_log = { to = \"access.log\", sample = 0.0 }\n";

#[test]
fn only_who_a_rule_names_comes_through_and_others_are_told_the_rule_mesh_401_mesh_402_mesh_403() {
    let members = Members::new();
    let app = Upstream::fixed("paid");
    let payments = callee(
        &members,
        "strict",
        ENFORCE,
        app.address(),
        &format!("{RULES}{LOG}"),
    );
    let orders = caller(&members, "orders", &payments, "http1");
    let users = caller(&members, "users", &payments, "http1");
    let pay = |gateway: &Gateway| {
        let mut client = gateway.client();
        client.request("POST /pay/7", &["Content-Length: 0"])
    };
    let paid = pay(&orders);
    assert_eq!((paid.status, paid.text().as_str()), (200, "paid"));
    let refused = pay(&users);
    assert_eq!(refused.status, 403);
    let problem = refused.problem();
    assert_eq!(problem["code"], "access_denied");
    assert_eq!(
        (&problem["setting"], &problem["value"]),
        (&"access".into(), &"orders-pay".into())
    );
    let detail = problem["detail"].as_str().expect("a sentence");
    assert!(
        detail.contains("default/users POST /pay/7 of default/payments"),
        "{detail}"
    );
    assert_eq!(users.get("/prices").status, 200);
    assert_eq!(orders.get("/pay/7").status, 403);
    assert_eq!(app.requests().len(), 2, "what was refused was never sent");
    counted(&payments, "access_allowed_total{rule=\"orders-pay\"} 1");
    let refusals = "access_refused_total{source=\"default/users\",destination=\"default/payments\",rule=\"orders-pay\",mode=\"enforce\"} 1";
    counted(&payments, refusals);
    let line = logged(&payments, |line| line["source"] == "default/users");
    assert_eq!(line["destination"], "default/payments");
    assert_eq!(line["peer"], members.id("users").as_str());
    assert_eq!(line["access"]["verdict"], "refused");
    assert_eq!(line["access"]["rule"], "orders-pay");
    assert_eq!(line["error"]["code"], "access_denied");
    // No line of what was allowed: the sample leaves it out.
    let text = std::fs::read_to_string(payments.folder().join("access.log")).expect("there");
    assert!(!text.contains("\"allowed\""), "{text}");
}

#[test]
fn a_caller_without_a_certificate_is_refused_everything_and_told_nothing_of_rules_mesh_401() {
    let members = Members::new();
    let app = Upstream::fixed("open");
    let payments = callee(&members, "permissive", ENFORCE, app.address(), RULES);
    let refused = payments.get("/prices");
    assert_eq!(refused.status, 403);
    let problem = refused.problem();
    assert_eq!(problem["code"], "access_denied");
    assert_eq!(problem["detail"], Value::Null);
    assert_eq!(problem["value"], "enforce");
    assert!(app.requests().is_empty());
    let refusals = "access_refused_total{source=\"unknown\",destination=\"default/payments\",rule=\"everybody-looks\",mode=\"enforce\"} 1";
    counted(&payments, refusals);
}

#[test]
fn an_audit_lets_everything_pass_and_says_what_it_would_refuse_mesh_403() {
    let members = Members::new();
    let app = Upstream::fixed("open");
    let audit = "{ access = \"audit\" }";
    let payments = callee(
        &members,
        "permissive",
        audit,
        app.address(),
        &format!("{RULES}{LOG}"),
    );
    let users = caller(&members, "users", &payments, "http1");
    assert_eq!(users.get("/pay/7").status, 200);
    assert_eq!(payments.get("/nowhere").status, 200);
    let refusals = |source: &str, rule: &str| {
        format!(
            "access_refused_total{{source=\"{source}\",destination=\"default/payments\",rule=\"{rule}\",mode=\"audit\"}} 1"
        )
    };
    counted(&payments, &refusals("default/users", "none"));
    counted(&payments, &refusals("unknown", "none"));
    let line = logged(&payments, |line| line["source"] == "default/users");
    assert_eq!(line["access"]["verdict"], "would_refuse");
    assert_eq!(line["status"], 200);
    assert_eq!(line["error"], Value::Null);
}

#[test]
fn a_grpc_caller_hears_permission_denied_and_the_rule_mesh_403() {
    let members = Members::new();
    let app = Http2Upstream::echo();
    let rules = "protocol = \"http2\"\n[[access]]\nname = \"orders-echo\"\nfrom = \"orders\"\ngrpc = \"echo.Echo/Unary\"\n";
    let payments = callee(&members, "strict", ENFORCE, app.address(), rules);
    let orders = caller(&members, "orders", &payments, "http2");
    let users = caller(&members, "users", &payments, "http2");
    let call = |gateway: &Gateway, method: &str| {
        let headers = [("content-type", "application/grpc"), ("te", "trailers")];
        let request = h2_client::request("POST", &format!("/echo.Echo/{method}"), &headers);
        let at = gateway.address();
        h2_client::run(async move {
            let sender = h2_client::connect(at).await;
            let message = h2_client::message(b"one");
            let answer = h2_client::exchange(&sender, request, &[&message], None).await;
            let answer = answer.expect("an answer");
            let told = answer.headers.get("grpc-message");
            let told = told.map(|told| told.to_str().expect("text").to_owned());
            (answer.status, answer.grpc_status().map(str::to_owned), told)
        })
    };
    assert_eq!(call(&orders, "Unary").1.as_deref(), Some("0"));
    let (status, code, told) = call(&users, "Unary");
    assert_eq!((status, code.as_deref()), (200, Some("7")));
    assert!(told.expect("words").contains("rule `orders-echo`"));
    assert_eq!(call(&orders, "Stream").1.as_deref(), Some("7"));
    let refused = "mesh_requests_total{source=\"default/users\",destination=\"default/payments\",direction=\"inbound\",class=\"4xx\"} 1";
    counted(&payments, refused);
}

#[test]
fn changed_rules_hold_from_the_next_request_on_on_connections_that_are_open() {
    let members = Members::new();
    let app = Upstream::fixed("paid");
    let document = |rules: &str| callee_document(&members, "strict", ENFORCE, app.address(), rules);
    let payments = Gateway::start(&document(RULES));
    let users = caller(&members, "users", &payments, "http1");
    let mut client = users.client();
    assert_eq!(client.get("/pay/7").status, 403);
    let wider = RULES.replace("from = [\"orders\"]", "from = [\"orders\", \"users\"]");
    let wider = wider.replace("methods = [\"POST\"]", "");
    payments.edit(&document(&wider)).expect("good rules");
    assert_eq!(client.get("/pay/7").status, 200);
    payments.edit(&document(RULES)).expect("good rules");
    assert_eq!(client.get("/pay/7").status, 403);
}

#[test]
fn each_caller_has_a_bucket_of_its_own_and_all_without_a_certificate_share_one_mesh_207() {
    let members = Members::new();
    let app = Upstream::fixed("ok");
    let limit = "{ rate_limit = { by = \"caller\", rate = \"1/h\", burst = 2 } }";
    let payments = callee(&members, "permissive", limit, app.address(), "");
    let orders = caller(&members, "orders", &payments, "http1");
    let users = caller(&members, "users", &payments, "http1");
    let statuses = |gateway: &Gateway| [(); 3].map(|()| gateway.get("/").status);
    assert_eq!(statuses(&orders), [200, 200, 429]);
    assert_eq!(statuses(&users), [200, 200, 429]);
    assert_eq!(statuses(&payments), [200, 200, 429]);
    assert_eq!(statuses(&orders), [429, 429, 429]);
}

#[test]
fn a_limit_on_the_way_out_protects_each_host_that_is_asked_mesh_207() {
    let app = Upstream::fixed("ok");
    let gateway = Gateway::start(&format!(
        "[[listener]]\nname = \"out\"\nbind = \"127.0.0.1:0\"\n\n[[route]]\nname = \"all\"\nupstream = \"app\"\n\
         filters = [{{ rate_limit = {{ by = \"host\", rate = \"1/h\", burst = 2 }} }}]\n\n\
         [[upstream]]\nname = \"app\"\nendpoints = [\"{}\"]\n",
        app.address()
    ));
    let ask = |host: &str| {
        let mut client = gateway.client();
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        client.read_response().status
    };
    assert_eq!(
        [ask("payments"), ask("Payments:8080"), ask("payments")],
        [200, 200, 429]
    );
    assert_eq!([ask("users"), ask("users"), ask("users")], [200, 200, 429]);
}

#[test]
fn both_ends_of_a_call_see_the_same_edge_mesh_501_mesh_503_mesh_504() {
    let members = Members::new();
    let app = Upstream::fixed("ok");
    let payments = callee(&members, "permissive", "", app.address(), "");
    let orders = caller(&members, "orders", &payments, "http1");
    assert_eq!(orders.get("/").status, 200);
    assert_eq!(payments.get("/").status, 200);
    let sample = |source: &str, direction: &str| {
        format!(
            "mesh_requests_total{{source=\"{source}\",destination=\"default/payments\",direction=\"{direction}\",class=\"2xx\"}} 1"
        )
    };
    counted(&orders, &sample("default/orders", "outbound"));
    counted(&payments, &sample("default/orders", "inbound"));
    counted(&payments, &sample("unknown", "inbound"));
    let edges = payments.ask("GET /edges");
    let edges: Value = serde_json::from_str(&edges.text()).expect("JSON");
    let of = |source: &str| {
        let mut edges = edges["edges"].as_array().expect("a list").iter();
        let edge = edges.find(|edge| edge["source"] == source);
        edge.unwrap_or_else(|| panic!("no {source}")).clone()
    };
    let edge = of("default/orders");
    assert_eq!(
        (&edge["destination"], &edge["direction"]),
        (&"default/payments".into(), &"inbound".into())
    );
    assert_eq!((&edge["requests"], &edge["errors"]), (&1.into(), &0.into()));
    assert!(
        edge["p99_ms"].is_number() && edge["last_seen_seconds"].is_number(),
        "{edge}"
    );
    assert_eq!(of("unknown")["requests"], 1);
}

#[test]
fn a_document_s_tests_hold_rules_to_their_word_and_explain_shows_them_in_order_mesh_402() {
    let members = Members::new();
    let app = Upstream::fixed("ok");
    let test = |caller: &str, service: &str, wanted: &str| {
        format!(
            "[[test]]\nrequest = {{ method = \"POST\", path = \"/pay/1?x\", caller = \"{caller}\"{service} }}\n\
             expect = {{ access = \"{wanted}\" }}\n"
        )
    };
    let good = [
        test("orders", "", "allowed"),
        test("users", "", "refused"),
        test("users", ", service = \"products\"", "allowed"),
        test("elsewhere/orders", "", "refused"),
        test(
            "elsewhere/orders",
            ", service = \"elsewhere/payments\"",
            "allowed",
        ),
    ];
    let more = format!("{RULES}{}", good.concat());
    let payments = callee(&members, "strict", ENFORCE, app.address(), &more);
    let bad = format!("{RULES}{}", test("users", "", "allowed"));
    let bad = callee_document(&members, "strict", ENFORCE, app.address(), &bad);
    let refusal = payments.edit(&bad).expect_err("a test fails");
    assert!(
        refusal.contains("expects access allowed, but gets refused for default/users"),
        "{refusal}"
    );
    let question = r#"{"method":"POST","url":"http://payments/pay/1","caller":"users"}"#;
    let lines = [
        "Host: admin".to_owned(),
        format!("Content-Length: {}", question.len()),
    ];
    let mut admin = tollgate_engine::testing::client::Client::connect(payments.admin());
    let head = format!(
        "POST /explain HTTP/1.1\r\n{}\r\n\r\n{question}",
        lines.join("\r\n")
    );
    let explained: Value =
        serde_json::from_str(&admin.send(head).read_response().text()).expect("JSON");
    let told: Vec<(&str, &str)> = { explained["access"].as_array().expect("a list").iter() }
        .map(|rule| {
            (
                rule["rule"].as_str().expect("a name"),
                rule["standing"].as_str().expect("a word"),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("orders-pay", "other_caller"),
            ("everybody-looks", "other_path")
        ]
    );
    assert!(
        explained["access"][0]["at"]
            .as_str()
            .expect("a place")
            .contains(":")
    );
    assert!(
        explained["filters"][0]
            .as_str()
            .expect("words")
            .contains("enforce, called by default/users")
    );
}

/// What stands in `config/shop/access.toml` is good, and its `[[test]]`s hold: payments begin with orders and nobody else.
#[test]
fn the_shop_s_call_map_is_what_its_tests_say_shop_103() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/shop/access.toml");
    let map = std::fs::read_to_string(path).expect("it is shipped");
    let prove = |map: &str| {
        let text = format!("[[listener]]\nbind = \"127.0.0.1:0\"\n{map}");
        let loaded = tollgate_config::Loader::with_environment(|_| None).load_text(
            "access.toml",
            &text,
            std::path::Path::new("/"),
        );
        let document = loaded.unwrap_or_else(|problems| panic!("{problems}"));
        tollgate_engine::snapshot::of(&document).map(|_| document.tests.len())
    };
    let tests = prove(&map).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(tests >= 19, "{tests}");
    // They notice a map that lets somebody else pay.
    let from = map
        .rfind("from = [\"orders\"]")
        .expect("the last rule of orders");
    let mut wider = map;
    wider.replace_range(from..from + 17, "from = [\"orders\", \"users\"]");
    let refused = prove(&wider).map(|_| ()).expect_err("a test fails");
    assert!(
        refused
            .to_string()
            .contains("gets allowed for default/users"),
        "{refused}"
    );
}

/// Answers every connection with its own bytes.
fn echoing() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            std::thread::spawn(move || {
                let mut writer = socket.try_clone().expect("a socket can be cloned");
                drop(std::io::copy(&mut socket, &mut writer));
            });
        }
    });
    address
}

#[test]
fn bytes_of_members_pass_where_a_rule_lets_them_ask_for_everything_mesh_402() {
    let members = Members::new();
    let document = |service: &str, listener: &str, upstream: &str| {
        let identity = members.folder_for(service).section(service);
        Gateway::start(&format!(
            "{identity}[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\nforward = \"to\"\n{listener}\n\n\
             [[upstream]]\nname = \"to\"\n{upstream}\noutlier = \"off\"\nbreaker = \"off\"\n{LOG}\n\
             [[access]]\nname = \"orders-all\"\nfrom = \"orders\"\nto = \"payments\"\n\n\
             [[access]]\nname = \"users-some\"\nfrom = \"users\"\nto = \"payments\"\npath = \"/*\"\n"
        ))
    };
    let callee = "mesh = \"strict\"\naccess = \"enforce\"";
    let app = format!("endpoints = [\"{}\"]", echoing());
    let payments = document("payments", callee, &app);
    let to = format!(
        "endpoints = [\"{}\"]\nmesh = \"payments\"\nconnect_timeout = \"30s\"",
        payments.address()
    );
    let said = |service: &str| {
        use std::io::{Read as _, Write as _};
        let gateway = document(service, "", &to);
        let mut socket = std::net::TcpStream::connect(gateway.address()).expect("it listens");
        let patience = socket.set_read_timeout(Some(PATIENCE));
        patience.expect("not zero");
        // What is refused may be gone before this is sent.
        drop(socket.write_all(b"hello"));
        let mut heard = [0; 5];
        let read = socket.read_exact(&mut heard);
        read.is_ok()
            .then(|| String::from_utf8_lossy(&heard).into_owned())
    };
    assert_eq!(said("orders").as_deref(), Some("hello"));
    assert_eq!(said("users"), None);
    counted(&payments, "access_allowed_total{rule=\"orders-all\"} 1");
    let refusals = "access_refused_total{source=\"default/users\",destination=\"default/payments\",rule=\"orders-all\",mode=\"enforce\"} 1";
    counted(&payments, refusals);
    let line = logged(&payments, |line| line["source"] == "default/users");
    assert_eq!(line["access"]["verdict"], "refused");
    assert_eq!(line["error"]["code"], "access_denied");
}
