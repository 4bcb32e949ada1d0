//! Nodes that know what they call and nothing else (MESH-103, MESH-201, MESH-203): what a sidecar is told, when it learns
//! of more, and that others' changes are nothing to it.

use serde_json::json;
use tollgate_config::feed::{Line, WantsAnswer};
use tollgate_engine::testing::client::Client;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::upstream::Upstream;

use super::support::{Caller, Here, document, until};
use super::{applied, node};

/// A feed as lines, beats left out.
struct Lines {
    client: Client,
    rest: Vec<u8>,
}

impl Lines {
    fn open(control: &Here, listeners: &[&str], also: &[&str]) -> Lines {
        let mut client = Client::connect(control.address);
        let body = json!({
            "node": "box", "kind": "sidecar", "instance": "i-1", "version": "1", "services": "routed",
            "also": also, "listeners": listeners, "stands_for": "payments",
        })
        .to_string();
        client.send(format!(
            "POST /feed HTTP/1.1\r\nHost: cp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(client.read_head().status, 200);
        let mut lines = Lines {
            client,
            rest: Vec::new(),
        };
        assert!(matches!(lines.next().0, Line::Hello(_)));
        lines
    }

    /// The next line and its length.
    fn next(&mut self) -> (Line, usize) {
        loop {
            while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                match Line::read(&line).expect("a line") {
                    Line::Beat(_) => {}
                    other => return (other, line.len()),
                }
            }
            let chunk = self.client.read_chunk();
            self.rest.extend(chunk);
        }
    }

    /// The lines of a batch, in words, and how many bytes they have.
    fn batch(&mut self) -> (Vec<String>, usize) {
        let (first, mut size) = self.next();
        assert!(matches!(first, Line::Begin(_)), "{first:?}");
        let mut words = Vec::new();
        loop {
            let (line, length) = self.next();
            size += length;
            match line {
                Line::End(_) => return (words, size),
                other => words.push(word(&other)),
            }
        }
    }
}

fn word(line: &Line) -> String {
    match line {
        Line::Put(put) => put.id.clone(),
        Line::Remove(remove) => format!("-{}", remove.id),
        Line::Service(service) => format!("{}={}", service.name, service.instances.len()),
        other => format!("{other:?}"),
    }
}

fn register(caller: &mut Caller, name: &str, id: &str, address: &str, version: &str) {
    let record = json!({ "id": id, "name": name, "address": address, "health": "healthy",
        "metadata": { "version": version } });
    caller.register(&record.to_string());
}

/// What is said of a service: an upstream, and a route for its host at `outbound`.
fn policy(service: &str, route: &str) -> String {
    format!(
        "[[upstream]]\nname = \"{service}\"\nservice = \"{service}\"\n{route}\n\
         [[route]]\nname = \"{service}\"\nmatch = {{ host = \"{service}\", listener = \"outbound\" }}\nupstream = \"{service}\"\n\n"
    )
}

const EDGE: &str =
    "[[route]]\nname = \"edge\"\nmatch = { path = \"/edge\" }\nupstream = \"users\"\n\n";
const INBOUND: &str = "[[route]]\nname = \"inbound\"\nmatch = { path = \"/admin\", listener = \"inbound\" }\nrespond = { status = 403 }\n\n";

#[test]
fn a_sidecar_is_told_what_concerns_the_services_that_it_asked_for_and_nothing_else() {
    let control = Here::start(document());
    let mut caller = control.caller();
    let text = |users: &str| policy("orders", "") + &policy("users", users) + EDGE + INBOUND;
    applied(&mut caller, "shop.toml", &text(""));
    register(&mut caller, "orders", "o-1", "127.0.0.1:1", "1");
    register(&mut caller, "users", "u-1", "127.0.0.1:2", "1");
    let mut lines = Lines::open(&control, &["inbound", "outbound"], &[]);
    assert_eq!(lines.batch().0, ["shop.toml#route:inbound"]);
    let wants = |caller: &mut Caller, also: &[&str]| {
        let body = json!({ "instance": "i-1", "also": also }).to_string();
        let answer = caller.json("POST /nodes/box/wants", &body, 200);
        serde_json::from_value::<WantsAnswer>(answer)
            .expect("an answer")
            .unknown
    };
    assert_eq!(wants(&mut caller, &["orders", "nobody"]), ["nobody"]);
    let (told, _) = lines.batch();
    let orders = [
        "shop.toml#upstream:orders",
        "shop.toml#route:orders",
        "orders=1",
    ];
    assert_eq!(told, orders);
    assert_eq!(
        node(&mut caller, "box")["services"],
        json!(["orders", "nobody"])
    );
    // Policies and instances of others, and a route of the edge.
    applied(
        &mut caller,
        "shop.toml",
        &(text("protocol = \"http2\"") + &policy("carts", "")),
    );
    applied(
        &mut caller,
        "shop.toml",
        &text("protocol = \"auto\"").replace("/edge", "/edges"),
    );
    register(&mut caller, "users", "u-2", "127.0.0.1:3", "1");
    register(&mut caller, "carts", "c-1", "127.0.0.1:4", "1");
    // The next line of all is what it asked for.
    register(&mut caller, "orders", "o-2", "127.0.0.1:5", "1");
    assert_eq!(word(&lines.next().0), "orders=2");
    // What is wanted no longer is taken away, and what appears is told.
    assert_eq!(wants(&mut caller, &["nobody"]), ["nobody"]);
    assert_eq!(
        lines.batch().0,
        ["-shop.toml#upstream:orders", "-shop.toml#route:orders"]
    );
    register(&mut caller, "nobody", "n-1", "127.0.0.1:6", "1");
    assert_eq!(word(&lines.next().0), "nobody=1");
}

/// Bytes on the wire, which is what a node keeps, do not know how large the mesh is.
#[test]
fn a_sidecar_is_told_the_same_few_bytes_in_a_large_mesh_as_in_a_small_one() {
    let told = |others: usize| {
        let control = Here::start(document());
        let mut caller = control.caller();
        let text: String = (0..others)
            .map(|number| policy(&format!("s{number}"), ""))
            .collect();
        applied(&mut caller, "shop.toml", &(policy("orders", "") + &text));
        for number in 0..others {
            let name = format!("s{number}");
            register(&mut caller, &name, &name, "127.0.0.1:9", "1");
        }
        register(&mut caller, "orders", "o-1", "127.0.0.1:1", "1");
        let (lines, bytes) = Lines::open(&control, &["outbound"], &["orders"]).batch();
        assert_eq!(lines.len(), 3, "{lines:?}");
        bytes
    };
    // A version may have a digit more.
    assert!(told(500).abs_diff(told(0)) < 8);
}

#[test]
fn who_does_not_listen_wants_nothing_and_too_many_names_are_refused() {
    let control = Here::start(document());
    let mut caller = control.caller();
    let body = json!({ "instance": "i-1", "also": [] }).to_string();
    assert_eq!(
        caller.json("POST /nodes/box/wants", &body, 404)["code"],
        "unknown_node"
    );
    let mut lines = Lines::open(&control, &["outbound"], &[]);
    assert!(lines.batch().0.is_empty());
    let other = json!({ "instance": "i-2", "also": [] }).to_string();
    caller.json("POST /nodes/box/wants", &other, 404);
    for bad in [
        json!({ "instance": "i-1", "also": vec!["a"; 10_001] }),
        json!({ "instance": "i-1", "also": [""] }),
        json!({ "instance": "i-1", "also": ["a\nb"] }),
        json!({ "also": ["a"] }),
    ] {
        caller.json("POST /nodes/box/wants", &bad.to_string(), 400);
    }
    caller.json("POST /nodes/box/wants", &body, 200);
}

/// The first request of all goes by what is said of its service: the route came with it.
#[test]
fn the_first_call_of_a_sidecar_already_goes_by_the_route_for_its_service() {
    let control = Here::start(document());
    let mut caller = control.caller();
    let (stable, canary, users) = (
        Upstream::fixed("stable"),
        Upstream::fixed("canary"),
        Upstream::fixed("users"),
    );
    register(
        &mut caller,
        "orders",
        "o-1",
        &stable.address().to_string(),
        "1",
    );
    register(
        &mut caller,
        "orders",
        "o-2",
        &canary.address().to_string(),
        "2",
    );
    register(
        &mut caller,
        "users",
        "u-1",
        &users.address().to_string(),
        "1",
    );
    let text = "[[upstream]]\nname = \"orders-2\"\nservice = \"orders\"\nwith = { version = \"2\" }\n\n\
                [[route]]\nname = \"orders\"\nmatch = { host = \"orders\", listener = \"outbound\" }\nupstream = \"orders-2\"\n\n";
    applied(
        &mut caller,
        "shop.toml",
        &(text.to_owned() + &policy("users", "")),
    );
    let gateway = Gateway::start(&format!(
        "[[listener]]\nname = \"outbound\"\nbind = \"127.0.0.1:0\"\n\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"mesh\"\n\n\
         [[upstream]]\nname = \"mesh\"\nservice = \"*\"\nlearn = {{ timeout = \"60s\" }}\n\n\
         [server]\nworkers = 1\ndrain = \"2s\"\n\n\
         [control_plane]\nurls = [\"http://{}\"]\nnode = \"box\"\nkind = \"sidecar\"\n",
        control.address
    ));
    let call = |host: &str| {
        let mut client = gateway.client();
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        client.read_response().text()
    };
    for _ in 0..5 {
        assert_eq!(call("orders"), "canary");
    }
    let names = |gateway: &Gateway| -> Vec<String> {
        let status = gateway.get_status();
        let upstreams = status["upstreams"].as_array().expect("a list").iter();
        upstreams
            .map(|one| one["name"].as_str().expect("text").to_owned())
            .collect()
    };
    let mut known = names(&gateway);
    known.sort_unstable();
    assert_eq!(
        known,
        ["mesh", "mesh:orders", "orders-2"],
        "nothing of users"
    );
    assert_eq!(call("users"), "users");
    assert!(
        names(&gateway).contains(&"users".to_owned()),
        "the policy stands in for the template"
    );
    // Instances that come later are told on the same feed.
    caller.json("DELETE /services/o-2", "", 200);
    until("no canary", || call("orders") != "canary");
}
