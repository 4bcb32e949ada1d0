//! The commands as an operator types them: what they print, and the codes they exit with.

mod support;

use std::ffi::OsStr;
use std::process::Command;
use std::time::Instant;

use support::{PROGRAM, Process, Signal, Site, answering, document, finish, line_of, tell, until};
use tollgate_engine::testing::PATIENCE;
use tollgate_engine::testing::client::Client;
use tollgate_engine::testing::upstream::Upstream;

/// The document of the first page of the documentation.
fn ten_lines(upstream: &Upstream) -> String {
    format!(
        "[[listener]]\nbind = \"127.0.0.1:0\"\n\n[[route]]\nmatch    = {{ path = \"/*\" }}\nupstream = \"app\"\n\n[[upstream]]\nname      = \"app\"\nendpoints = [\"{}\"]\n",
        upstream.address()
    )
}

#[test]
fn the_ten_line_document_serves() {
    let upstream = Upstream::fixed("hello");
    let site = Site::with(&ten_lines(&upstream));
    let gateway = site.run();
    let response = Client::connect(gateway.listener("127.0.0.1:0")).get("/any/where?x=1");
    assert_eq!((response.status, &*response.text()), (200, "hello"));
    assert_eq!(upstream.request().target(), "/any/where?x=1");
    assert_eq!(gateway.ask("GET /health/live").status, 200);
    assert_eq!(gateway.ask("GET /health/ready").status, 200);
    gateway.stop().assert_nothing_cut();
}

#[test]
fn run_to_needs_no_document() {
    let upstream = Upstream::fixed("hello");
    let site = Site::new();
    let (to, listen) = (
        format!("http://{}", upstream.address()),
        format!("{}:0", site.address()),
    );
    let gateway = Process::start(["run", "--to", &to, "--listen", &listen]);
    let line = gateway.wait_for_line("serving ");
    let address = line.rsplit(' ').next().unwrap_or_default();
    let response =
        Client::connect(address.parse().expect("the line ends with the address")).get("/a");
    assert_eq!(response.text(), "hello");
    gateway.stop().assert_nothing_cut();
}

#[test]
fn hi_61_a_bad_document_exits_with_2_and_tells_every_problem_with_its_line() {
    let toml = "[[listener]]\nname = \"in\"\nbnd = \"127.0.0.1:0\"\n\n[[route]]\nmatch = { path = \"/*\" }\nupstream = \"nowhere\"\ntimeout = \"5 parsecs\"\n";
    let site = Site::with(toml);
    for command in ["run", "check"] {
        let ended = site.command(&[command], &[]);
        assert_eq!(ended.code, Some(2), "{command}: {ended:?}");
        for text in ["bnd", "nowhere", "parsecs"] {
            let place = format!("gateway.toml:{}:", line_of(toml, text));
            let told = ended
                .stderr
                .lines()
                .any(|line| line.contains(&place) && line.contains(text));
            assert!(told, "{command}: no {place} … {text} in {ended:?}");
        }
        assert!(ended.stderr.contains("did you mean `bind`?"), "{ended:?}");
    }
}

#[test]
fn a_document_that_is_not_there_exits_with_2_and_its_name() {
    let site = Site::new();
    for command in ["run", "check", "upgrade"] {
        let ended = site.command(&[command], &[]);
        assert_eq!(ended.code, Some(2), "{command}: {ended:?}");
        assert!(
            ended.stderr.contains("gateway.toml"),
            "{command}: {ended:?}"
        );
    }
}

#[test]
fn hi_64_an_address_in_use_exits_with_3_and_the_listeners_name() {
    let upstream = Upstream::fixed("hello");
    let site = Site::new();
    let holder = std::net::TcpListener::bind((site.address(), 0)).expect("loopback");
    let taken = holder.local_addr().expect("bound").to_string();
    let toml = document(upstream.address(), "", "").replace("127.0.0.1:0", &taken);
    site.edit(&toml);
    let ended = site.command(&["run"], &[]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(
        ended.stderr.contains("listener in") && ended.stderr.contains(&taken),
        "{ended:?}"
    );
    site.write(&format!(
        "{}\n[server]\nadmin = \"{taken}\"\n",
        document(upstream.address(), "", "")
    ));
    let ended = site.command(&["run"], &[]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(
        ended.stderr.contains("admin") && ended.stderr.contains(&taken),
        "{ended:?}"
    );
}

#[test]
fn hi_64_a_second_gateway_on_the_same_port_is_refused_and_the_first_serves_on() {
    let upstream = Upstream::fixed("hello");
    let (site, other) = (Site::new(), Site::new());
    let toml =
        document(upstream.address(), "", "").replace("127.0.0.1:0", &site.free_port().to_string());
    site.edit(&toml);
    other.edit(&toml);
    let gateway = site.run();
    let ended = other.command(&["run"], &[]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    for _ in 0..20 {
        assert_eq!(gateway.get("/").text(), "hello");
    }
}

#[test]
fn check_counts_a_good_document_and_a_failing_test_exits_with_2_and_its_line() {
    let upstream = Upstream::fixed("hello");
    let test = |route: &str| {
        format!(
            "[[test]]\nrequest = {{ method = \"GET\", path = \"/a\" }}\nexpect = {{ route = \"{route}\" }}\n"
        )
    };
    let site = Site::with(&document(upstream.address(), "", &test("all")));
    let ended = site.command(&["check"], &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended
            .stdout
            .contains("1 listeners, 1 routes, 1 upstreams, 1 tests passed"),
        "{ended:?}"
    );
    let toml = document(upstream.address(), "", &(test("all") + &test("other")));
    let toml = format!(
        "{toml}\n{}",
        answering("/other", "x").replace("\"/other\"\nmatch", "\"other\"\nmatch")
    );
    site.edit(&toml);
    for command in ["check", "run"] {
        let ended = site.command(&[command], &[]);
        assert_eq!(ended.code, Some(2), "{command}: {ended:?}");
        let first = line_of(&toml, "route = \"other\"");
        let told =
            (first - 2..=first).any(|line| ended.stderr.contains(&format!("gateway.toml:{line}")));
        assert!(told, "{command}: the line is told: {ended:?}");
    }
}

#[test]
fn explain_tells_the_route_and_every_timer_with_its_line() {
    let upstream = Upstream::fixed("hello");
    let toml = document(
        upstream.address(),
        "timeout = \"7s\"",
        &answering("/fixed", "x"),
    );
    let site = Site::with(&toml);
    let ended = site.command(&["explain"], &["GET", "/a/b?c=d"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let told = |start: &str, part: &str| {
        let found = ended
            .stdout
            .lines()
            .any(|line| line.trim_start().starts_with(start) && line.contains(part));
        assert!(found, "no line {start} … {part}: {ended:?}");
    };
    told("route", "all");
    told("upstream", "app 100 %");
    told(
        "timer      route.timeout = 7s",
        &format!("gateway.toml:{}", line_of(&toml, "timeout = \"7s\"")),
    );
    told("timer      route.idle_timeout = ", "(default)");
    told("timer      listener.header_timeout = 10s", "(default)");
    told("timer      upstream.connect_timeout = ", "(default)");

    let ended = site.command(&["explain", "--json"], &["GET", "http://a.example/fixed"]);
    let told: serde_json::Value =
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    assert_eq!(told["route"], "/fixed", "{told}");
    assert_eq!(told["host"], "a.example", "{told}");
    let ended = site.command(&["explain"], &["GET", "/%zz"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("bad_path"), "{ended:?}");
}

#[test]
fn schema_is_valid_json_that_knows_the_sections() {
    let ended = finish(Command::new(PROGRAM).arg("schema"));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let schema: serde_json::Value =
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    for section in ["server", "listener", "route", "upstream", "test"] {
        assert!(
            schema["properties"][section].is_object(),
            "no {section} in the schema"
        );
    }
}

#[test]
fn a_wrong_command_line_exits_with_2_and_says_how_it_is_written() {
    for arguments in [&["rnu"][..], &["run"], &["explain", "a.toml"], &[]] {
        let ended = finish(Command::new(PROGRAM).args(arguments));
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
        assert!(
            ended.stderr.contains("Usage: tollgate-gateway"),
            "{arguments:?}: {ended:?}"
        );
    }
}

#[test]
fn hi_65_after_kill_9_a_start_serves_at_once_on_the_same_address() {
    let upstream = Upstream::fixed("hello");
    let site = Site::new();
    let address = site.free_port();
    site.edit(&document(upstream.address(), "", "").replace("127.0.0.1:0", &address.to_string()));
    let first = site.run();
    let mut kept = first.client();
    assert_eq!(kept.get("/").text(), "hello");
    first.signal(Signal::KILL);
    assert_eq!(first.end().code, None);
    let begun = Instant::now();
    let second = Process::start([OsStr::new("run"), site.file().as_os_str()]);
    until("the first connection", || {
        std::net::TcpStream::connect_timeout(&address, PATIENCE).is_ok()
    });
    assert_eq!(Client::connect(address).get("/").text(), "hello");
    tell(&format!(
        "first answer {:.1} ms after kill -9 and start",
        begun.elapsed().as_secs_f64() * 1000.0
    ));
    second.serving().stop().assert_nothing_cut();
}

#[test]
fn gw_315_a_store_that_is_away_is_warned_of_once_however_often_it_is_tried() {
    let upstream = Upstream::fixed("ok");
    let site = Site::new();
    let more = format!(
        "[limits]\nstore = \"redis://:hush-hush@{}\"\n\n[[limit]]\nname = \"all\"\nby = \"route\"\nrate = \"100/s\"\nshared = true\n",
        site.free_port()
    );
    let route = "filters = [{ rate_limit = \"all\" }]";
    let site = Site::with(&document(upstream.address(), route, &more));
    let gateway = site.run();
    assert_eq!(gateway.get("/").status, 200);
    until("it was tried again", || {
        gateway.status()["sharing"]["errors"].as_u64() >= Some(4)
    });
    gateway.wait_for_line("is away");
    let said = gateway.said();
    let warnings = said.lines().filter(|line| line.contains("is away"));
    assert_eq!(warnings.count(), 1, "{said}");
    assert!(!said.contains("hush-hush"), "{said}");
    gateway.stop().assert_nothing_cut();
}
