//! The processes: which there are, how each is started and stopped, and how somebody knows that the others know.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tollgate_engine::testing::client::Client;
use tollgate_engine::testing::store::free;
use tollgate_engine::testing::waiting::{until, wait};
use tollgate_example_services::contracts;

use crate::people::{self, Bought, ask};

/// Of each service.
pub(crate) const INSTANCES: usize = 2;
/// A service, its name for health checks of gRPC, and whom it calls.
const SERVICES: [(&str, &str, &[&str]); 4] = [
    ("users", "users.v1.UsersService", &[]),
    ("products", "products.v1.ProductsService", &[]),
    ("payments", "payments.v1.PaymentsService", &[]),
    (
        "orders",
        "orders.v1.OrdersService",
        &["users", "products", "payments"],
    ),
];
/// The documents of `config/shop` that make the edge, beside the upstreams.
const FLEET: [&str; 5] = ["routes", "api", "api-v1", "callers", "access"];
/// No machine is so slow.
const OUT_OF_REACH: &str = "60s";

/// A process; told to end when dropped.
struct Process {
    child: Child,
    name: String,
}

/// One instance of a service beside its sidecar.
struct Pod {
    service: &'static str,
    calls: &'static [&'static str],
    folder: PathBuf,
    http: SocketAddr,
    inbound: SocketAddr,
    admin: SocketAddr,
    /// The application's words on its command line.
    words: Vec<String>,
    process: Option<Process>,
}

pub(crate) struct Town {
    pub(crate) edge: SocketAddr,
    edge_admin: SocketAddr,
    control: SocketAddr,
    // In the order in which they end.
    gateway: Option<Process>,
    pods: Vec<Pod>,
    control_plane: Option<Process>,
    folder: TempDir,
}

impl Town {
    /// Everything is there, and everybody knows everybody.
    pub(crate) fn start() -> Town {
        let mut town = Town {
            edge: free(),
            edge_admin: free(),
            control: free(),
            gateway: None,
            pods: Vec::new(),
            control_plane: None,
            folder: tempfile::tempdir().expect("the folder for temporary files"),
        };
        town.write_fleet();
        town.start_control_plane();
        for instance in 0..INSTANCES {
            for (service, health, calls) in SERVICES {
                let mut pod = town.pod(instance, service, health, calls);
                pod.start();
                town.pods.push(pod);
            }
        }
        town.write_gateway();
        town.gateway = Some(town.gateway("run"));
        for number in 0..town.pods.len() {
            town.all_know(number);
        }
        town
    }

    pub(crate) fn restart_control_plane(&mut self) {
        let control_plane = self.control_plane.take().expect("it runs");
        assert!(control_plane.stop().success());
        self.start_control_plane();
    }

    /// Stops one instance of every service, each with its sidecar, and starts it again.
    pub(crate) fn restart(&mut self, instance: usize) {
        let number = |place| instance * SERVICES.len() + place;
        let places = 0..SERVICES.len();
        std::thread::scope(|scope| {
            for pod in &mut self.pods[number(0)..number(SERVICES.len())] {
                scope.spawn(|| {
                    let ended = pod.process.take().expect("it runs").stop();
                    assert!(ended.success(), "{}: {ended}", pod.service);
                    pod.start();
                });
            }
        });
        places.for_each(|place| self.all_know(number(place)));
    }

    /// Another process takes the gateway's sockets over.
    pub(crate) fn upgrade_gateway(&mut self) {
        let next = self.gateway("upgrade");
        let before = self.gateway.replace(next).expect("it runs");
        assert!(before.ends().success());
    }

    /// Every order was confirmed, paid and taken from the shelf, and the services say the same.
    pub(crate) fn agrees(&self, bought: &Bought) {
        let (edge, token) = (self.edge, &*bought.token);
        assert!(bought.orders.len() > 1, "too few orders to say anything");
        for order in &bought.orders {
            let line = format!("GET /orders/{order}");
            let _confirmed = wait(
                "an order to be confirmed",
                || ask(edge, token, &line, None),
                |told| { told.as_ref() }.is_ok_and(|order| order["status"] == "CONFIRMED"),
            );
        }
        let mut expected = bought.shelf.clone();
        for (product, count) in &bought.pieces {
            *expected.entry(product.clone()).or_default() -= count;
        }
        assert_eq!(people::shelf(edge, token), expected);

        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let since = since.expect("after 1970").as_secs();
        for pod in self.pods.iter().filter(|pod| pod.service == "orders") {
            // Begins with what happened in the minutes before it was started, and goes on from there.
            let told = wait(
                "a comparison of all that was bought",
                || get(pod.http, "/consistency").unwrap_or_default(),
                |told| told["to"].as_str().is_some_and(|to| seconds(to) >= since),
            );
            assert_eq!(told["consistent"], true, "{told}");
        }
    }
}

impl Town {
    fn write_fleet(&self) {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/shop");
        for folder in ["fleet", "data", "log"] {
            fs::create_dir(self.path(folder)).expect("the test's own folder");
        }
        let write = |name: &str, text: String| {
            fs::write(self.path(name), text).expect("the test's own folder");
        };
        for name in FLEET {
            let text = fs::read_to_string(sample.join(format!("{name}.toml"))).expect("a sample");
            write(&format!("fleet/{name}.toml"), patient(&text));
        }
        let upstreams = include_str!("../../src/up/upstreams.toml.in");
        let upstreams =
            upstreams.replace("mesh     = true", "mesh = true\nconnect_timeout = \"10s\"");
        write("fleet/upstreams.toml", upstreams);
        write(
            "control-plane.toml",
            format!(
                include_str!("../../src/up/control-plane.toml.in"),
                control = self.control
            ),
        );
        let descriptors = contracts::DESCRIPTORS;
        fs::write(self.path("shop.binpb"), descriptors).expect("the test's own folder");
    }

    fn write_gateway(&self) {
        self.invite("gateway", self.folder.path());
        let text = format!(
            include_str!("../../src/up/gateway.toml.in"),
            listen = self.edge,
            admin = self.edge_admin,
            control = format!("http://{}", self.control),
            users = self.pods[0].http,
        );
        fs::write(
            self.path("gateway.toml"),
            text.replace("\"10s\"", "\"60s\""),
        )
        .expect("the test's own folder");
    }

    fn start_control_plane(&mut self) {
        let document = self.path("control-plane.toml");
        let mut command = tollgate(self.folder.path());
        command.args(["part", "control-plane"]).arg(document);
        self.control_plane = Some(Process::start("control-plane", command, &self.path("log")));
        answers(self.control, "/health/ready");
    }

    /// A new gateway that serves; `run`, or `upgrade` in the place of the one that is there.
    fn gateway(&self, how: &str) -> Process {
        let mut command = tollgate(self.folder.path());
        command.args(["gateway", how, "gateway.toml"]);
        let process = Process::start(&format!("gateway-{how}"), command, &self.path("log"));
        // Both answer on one address while one takes over.
        until("the gateway to be ready", || {
            let status = get(self.edge_admin, "/status").unwrap_or_default();
            status["pid"] == process.child.id() && status["ready"] == true
        });
        process
    }

    /// A token that lets a member in once.
    fn invite(&self, service: &str, folder: &Path) {
        let body = json!({ "service": service }).to_string();
        let request = format!(
            "POST /identity/token HTTP/1.1\r\nHost: control\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut client = Client::connect(self.control);
        client.send(request);
        let answer = client.read_response();
        let told: Value = serde_json::from_slice(&answer.body).expect("JSON");
        let token = told["token"].as_str().expect("a token");
        fs::write(folder.join(format!("{service}.token")), token).expect("the test's own folder");
    }

    fn pod(
        &self,
        instance: usize,
        service: &'static str,
        health: &str,
        calls: &'static [&'static str],
    ) -> Pod {
        let folder = self.path(&format!("{service}-{instance}"));
        fs::create_dir(&folder).expect("the test's own folder");
        self.invite(service, &folder);
        let (inbound, admin, http, grpc) = (free(), free(), free(), free());
        let doors: Vec<_> = calls.iter().map(|other| (*other, free())).collect();
        let door = |(name, listen): &(&str, SocketAddr)| {
            format!("\n[[outbound.port]]\nlisten = \"{listen}\"\nservice = \"{name}\"\n")
        };
        let text = format!(
            include_str!("../../src/up/sidecar.toml.in"),
            name = service,
            grpc = health,
            app = grpc,
            inbound = inbound,
            outbound = free(),
            admin = admin,
            debug = http.port(),
            control = format!("http://{}", self.control),
            doors = doors.iter().map(door).collect::<String>(),
        );
        let text = text
            .replace("\"10s\"", "\"60s\"\ndrain_lag = \"2s\"")
            .replace(
                &format!("\"{service}-sidecar\""),
                &format!("\"{service}-{instance}\""),
            );
        fs::write(folder.join("sidecar.toml"), text).expect("the test's own folder");
        let data = |name: &str| self.path(&format!("data/{name}.db")).display().to_string();
        let mut words = vec![
            format!("--http={http}"),
            format!("--grpc={grpc}"),
            format!("--database=sqlite:{}", data(service)),
            format!("--database-patience={OUT_OF_REACH}"),
        ];
        let more: &[&str] = match service {
            // Hashing is not what is tested here.
            "users" => &[
                "--sample-data=true",
                "--password-memory=8",
                "--password-rounds=1",
            ],
            "products" => &["--sample-data=true"],
            "orders" => &[
                "--wait=60s",
                "--step-timeout=60s",
                "--payment-timeout=60s",
                "--verify-after=500ms",
                "--reconcile-every=2s",
                "--recover-every=1s",
            ],
            _ => &["--processor-timeout=60s"],
        };
        words.extend(more.iter().map(|word| (*word).to_owned()));
        if service == "payments" {
            words.push(format!("--processor=sqlite:{}", data("processor")));
        }
        words.extend(
            doors
                .iter()
                .map(|(other, door)| format!("--{other}=http://{door}")),
        );
        Pod {
            service,
            calls,
            folder,
            http,
            inbound,
            admin,
            words,
            process: None,
        }
    }

    /// Waits until an instance is announced, and all who call its service have heard of it.
    fn all_know(&self, number: usize) {
        let pod = &self.pods[number];
        until(&format!("{} to be announced", pod.name()), || {
            let status = get(pod.admin, "/status").unwrap_or_default();
            let registration = &status["control_plane"]["registration"];
            registration["id"].is_string() && registration["why_not"].is_null()
        });
        let callers = { self.pods.iter() }.filter(|other| other.calls.contains(&pod.service));
        let callers = callers.map(|other| other.admin).chain([self.edge_admin]);
        for caller in callers {
            wait(
                &format!("{} to be known at {caller}", pod.name()),
                || get(caller, "/status").unwrap_or_default()["upstreams"].take(),
                |upstreams| knows(upstreams, pod),
            );
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Whether one of these upstreams has this instance.
fn knows(upstreams: &Value, pod: &Pod) -> bool {
    let inbound = pod.inbound.to_string();
    let has = |upstream: &Value| {
        let mut endpoints = upstream["endpoints"].as_array().into_iter().flatten();
        endpoints.any(|endpoint| endpoint["address"] == *inbound)
    };
    upstreams.as_array().is_some_and(|all| all.iter().any(has))
}

impl Pod {
    fn name(&self) -> String {
        let name = self.folder.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Starts the sidecar, which starts the application; returns when both serve.
    fn start(&mut self) {
        let mut command = tollgate(&self.folder);
        command.args(["sidecar", "exec", "sidecar.toml", "--"]);
        command.arg(env!("CARGO_BIN_EXE_tollgate"));
        command.args(["part", self.service]).args(&self.words);
        let logs = self.folder.parent().expect("the test's folder").join("log");
        self.process = Some(Process::start(&self.name(), command, &logs));
        answers(self.http, "/health/ready");
        answers(self.admin, "/health/ready");
    }
}

impl Process {
    fn start(name: &str, mut command: Command, logs: &Path) -> Process {
        let mut log = File::options();
        let log = log.create(true).append(true).open(logs.join(name));
        let log = log.expect("the test's own folder");
        let child = command
            .stderr(log)
            .spawn()
            .expect("the program can be started");
        Process {
            child,
            name: name.to_owned(),
        }
    }

    /// Told to end as a supervisor does; how it ended.
    fn stop(mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it lives");
        self.wait()
    }

    /// Ends by itself.
    fn ends(mut self) -> ExitStatus {
        self.wait()
    }

    fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        until(&format!("the end of {}", self.name), || {
            ended = self.child.try_wait().expect("our child");
            ended.is_some()
        });
        ended.expect("waited for")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Twice: it need not wait for anybody. What it started, it ends.
            for _ in 0..2 {
                let _gone = kill_process(Pid::from_child(&self.child), Signal::TERM);
                std::thread::sleep(Duration::from_millis(50));
            }
            let _reaped = self.child.wait();
        }
    }
}

fn tollgate(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    let descriptors = folder.join("shop.binpb");
    command
        .current_dir(folder)
        .env("SHOP_DESCRIPTORS", descriptors)
        .env_remove("http_proxy")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// What a page says, as JSON; `None` when nobody answers well.
fn get(address: SocketAddr, page: &str) -> Option<Value> {
    let mut client = Client::try_connect(address).ok()?;
    let asked = format!("GET {page} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
    client.try_send(asked.as_bytes()).ok()?;
    let answer = client.try_response("GET").ok()?;
    let good = answer.status == 200 && answer.complete;
    good.then(|| serde_json::from_slice(&answer.body).unwrap_or_default())
}

fn answers(address: SocketAddr, page: &str) {
    until(&format!("{address}{page}"), || get(address, page).is_some());
}

/// A document in which no time-out is reached by a machine that stands still.
fn patient(text: &str) -> String {
    let line = |line: &str| match line.starts_with("timeout ") {
        true => format!("timeout = \"{OUT_OF_REACH}\"\n"),
        false => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// `2026-11-22T12:00:00.000Z` in seconds since 1970.
fn seconds(text: &str) -> u64 {
    let date = Command::new("date")
        .args(["-u", "+%s", "-d", text])
        .output();
    let date = String::from_utf8(date.expect("there is a date").stdout).unwrap_or_default();
    date.trim().parse().unwrap_or_default()
}
