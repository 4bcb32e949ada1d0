//! The short file of a sidecar: what it stands for, and that whatever is told of that points at the lines which a
//! person wrote.

use std::path::Path;
use std::time::Duration;

use tollgate_config::problem::Problem;
use tollgate_config::sidecar::{Capture, User, capture, reference, schema, written_out};
use tollgate_config::{
    Announced, Document, EndpointSource, ListenerProtocol, Loader, Probe, UpstreamProtocol,
};

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(text: &str) -> Result<Document, Vec<Problem>> {
    let environment = |name: &str| (name == "PORT").then(|| "9003".to_owned());
    let mut loader = Loader::with_environment(environment).short();
    { loader.load_text("sidecar.toml", text, Path::new("")) }.map_err(|problems| problems.0)
}

#[track_caller]
fn good(text: &str) -> Document {
    read(text).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn out(text: &str) -> String {
    let written = written_out("sidecar.toml", text, Path::new("")).expect("a good text");
    written.expect("a short one")
}

/// One problem, where it points, and what is shown of the text.
#[track_caller]
fn one(text: &str, code: &str, line: &str, hint: &str) {
    let problems = read(text).expect_err("refused");
    let [problem] = problems.as_slice() else {
        panic!("{} problems: {problems:#?}", problems.len());
    };
    assert_eq!(problem.code, code, "{problem}");
    let place = problem.place.as_ref().expect("a place");
    assert_eq!(&*place.file, "sidecar.toml", "{problem}");
    let wanted = text.lines().position(|known| known == line);
    assert_eq!(
        place.line as usize,
        wanted.expect("in the text") + 1,
        "{problem}"
    );
    assert_eq!(problem.text.as_deref(), Some(line), "{problem}");
    let words = problem.hint.as_deref().unwrap_or_default();
    assert!(words.contains(hint), "`{hint}` is not in: {problem}");
}

/// That a text has these parts, one after the other.
#[track_caller]
fn in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let Some((_, behind)) = rest.split_once(part) else {
            panic!("there is no\n{part}\nin the rest of\n{text}");
        };
        rest = behind;
    }
}

const SMALLEST: &str = "[service]\nname = \"orders\"\napp = \"127.0.0.1:9003\"\n";

#[test]
fn the_sample_loads_and_stands_for_a_full_document_that_loads_too() {
    let path = folder().join("sidecar.toml");
    let load = |short: bool| {
        let loader = Loader::with_environment(|_| None);
        let mut loader = if short { loader.short() } else { loader };
        loader.load(&path)
    };
    let document = load(true).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(document.sources[0], path);
    let problems = load(false).expect_err("a gateway is told otherwise");
    assert!(problems.0.iter().any(|p| p.code == "unknown-section"));
    let text = std::fs::read_to_string(&path).expect("the sample");
    let full = out(&text);
    let again = Loader::with_environment(|_| None).load_text("full.toml", &full, Path::new(""));
    let again = again.unwrap_or_else(|problems| panic!("{problems}\n{full}"));
    assert_eq!(again.routes.len(), document.routes.len());
    assert_eq!(again.upstreams.len(), document.upstreams.len());
}

/// Run with `TOLLGATE_BLESS=1` to write the page anew.
#[test]
fn the_reference_page_is_what_the_grammar_says() {
    let page = folder().join("../docs/sidecar-configuration.md");
    let wanted = reference();
    if std::env::var_os("TOLLGATE_BLESS").is_some() {
        std::fs::write(&page, &wanted).expect("docs can be written");
    }
    let found = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/sidecar-configuration.md is stale: run `TOLLGATE_BLESS=1 cargo test -p tollgate-config`"
    );
    let schema = schema();
    for name in [
        "service",
        "inbound",
        "outbound",
        "capture",
        "route",
        "control_plane",
    ] {
        assert!(schema["properties"][name].is_object(), "{name}");
    }
}

#[test]
fn the_smallest_file_stands_for_two_doors_and_an_application() {
    let document = good(SMALLEST);
    let names: Vec<_> = document
        .listeners
        .iter()
        .map(|l| (l.name.as_str(), l.bind))
        .collect();
    let address = |text: &str| text.parse().expect("an address");
    assert_eq!(
        names,
        [
            ("inbound", address("0.0.0.0:15006")),
            ("outbound", address("127.0.0.1:15001"))
        ]
    );
    assert_eq!(document.server.admin, Some(address("127.0.0.1:15000")));
    assert_eq!(
        document.server.state_dir.as_deref(),
        Some(Path::new("sidecar-state/orders"))
    );
    let app = &document.upstreams[0];
    assert_eq!(app.name, "app");
    let EndpointSource::Static(endpoints) = &app.endpoints else {
        panic!("{:?}", app.endpoints);
    };
    assert_eq!(endpoints[0].address, "127.0.0.1:9003");
    let health = app
        .health
        .as_ref()
        .expect("it is asked whether it is ready");
    assert_eq!(
        (&health.probe, health.interval),
        (&Probe::Tcp, Duration::from_secs(1))
    );
    assert!(app.breaker.is_none() && app.outlier.is_none());
    assert!(document.routes[0].retry.is_none() && document.routes[0].timeout.is_none());
    assert!(document.control_plane.is_none());
}

#[test]
fn what_is_written_is_what_is_served_mesh_101_105() {
    let document = good(
        "[service]\nname = \"orders\"\nport = 9003\nprotocol = \"http2\"\nready = { grpc = \"o.Orders\", interval = \"3s\" }\n\
         metadata = { version = \"1.2.3\" }\n\n[control_plane]\nurls = [\"http://127.0.0.1:8080\"]\nnode = \"here\"\n\n\
         [inbound]\nbind = \"127.0.0.1:0\"\nlimit = \"10/s\"\n\n[outbound]\nservices = [\"products\"]\n\n\
         [[outbound.port]]\nlisten = \"127.0.0.1:0\"\nservice = \"products\"\n\n\
         [[outbound.port]]\nlisten = \"127.0.0.1:1\"\nservice = \"users\"\n",
    );
    let control_plane = document.control_plane.as_ref().expect("it was named");
    assert_eq!(control_plane.node.as_deref(), Some("here"));
    let register = control_plane.register.as_ref().expect("it is announced");
    assert_eq!(register.name, "orders");
    assert_eq!(register.address, Announced::Listener("inbound".to_owned()));
    assert_eq!(register.upstream.as_deref(), Some("app"));
    let metadata = [("protocol", "tcp"), ("version", "1.2.3")];
    let mut found = register.metadata.clone();
    found.sort();
    assert_eq!(found, metadata.map(|(k, v)| (k.to_owned(), v.to_owned())));
    let app = &document.upstreams[0];
    assert_eq!(app.protocol, UpstreamProtocol::Http2);
    let health = app.health.as_ref().expect("asked");
    let grpc = Probe::Grpc {
        service: "o.Orders".to_owned(),
    };
    assert_eq!(
        (&health.probe, health.interval),
        (&grpc, Duration::from_secs(3))
    );
    assert_eq!(document.routes[0].filters.len(), 1);
    let services: Vec<_> = document.upstreams[1..]
        .iter()
        .map(|u| u.name.as_str())
        .filter(|name| *name != "mesh")
        .collect();
    assert_eq!(
        services,
        ["outbound-products", "outbound-users"],
        "each once"
    );
    let doors: Vec<_> = document.listeners.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(
        doors,
        ["inbound", "outbound", "outbound-products", "outbound-users"]
    );
}

#[test]
fn an_application_with_a_path_is_asked_by_the_control_plane_too() {
    let register = |service: &str| {
        let text =
            format!("{SMALLEST}{service}\n[control_plane]\nurls = [\"http://127.0.0.1:8080\"]\n");
        let document = good(&text);
        document
            .control_plane
            .and_then(|c| c.register)
            .expect("announced")
    };
    let plain = register("ready = \"/ready\"\naddress = \"orders.internal:7000\"\n");
    assert_eq!(plain.health, "/ready");
    assert_eq!(plain.metadata, []);
    assert_eq!(
        plain.address,
        Announced::Address("orders.internal:7000".to_owned())
    );
    let table = register("ready = { path = \"/up\" }\n");
    assert_eq!((table.health.as_str(), table.metadata.len()), ("/up", 0));
    let own = register("metadata = { protocol = \"grpc\" }\n");
    assert_eq!(own.metadata, [("protocol".to_owned(), "grpc".to_owned())]);
}

#[test]
fn the_full_document_is_written_out_with_the_words_of_the_short_one() {
    let text = "# ours\n[service]\nname = \"orders\"\napp = \"127.0.0.1:${env:NOBODY_SETS_THIS:-9003}\"\n\n# whom we ask\n[control_plane]\n\
                # nearest first\nurls = [\n  \"http://127.0.0.1:8080\",\n]\n\n# gone\n[[route]]\n\
                match = { listener = \"outbound\", host = \"old\" }  # since May\nrespond = { status = 410 }\n";
    in_order(
        &out(text),
        &[
            "# What sidecar.toml stands for, written out.\n\n\
             [server]\nadmin = \"127.0.0.1:15000\"\nstate_dir = \"sidecar-state/orders\"\n\n\
             # whom we ask\n[control_plane]\n\
             register = { name = \"orders\", listener = \"inbound\", upstream = \"app\", metadata = { protocol = \"tcp\" } }\n",
            "# nearest first\nurls = [\n  \"http://127.0.0.1:8080\",\n]\n\n\
             # Others come in here, and reach the application.\n[[listener]]\nname = \"inbound\"\nbind = \"0.0.0.0:15006\"\n\n\
             [[route]]\nname = \"inbound\"\nmatch = { listener = \"inbound\" }\nupstream = \"app\"\n\
             timeout = \"off\"  # the caller's sidecar waits, and tries again elsewhere\nretry = \"off\"\n\n\
             # The application.\n[[upstream]]\nname = \"app\"\nendpoints = [\"127.0.0.1:${env:NOBODY_SETS_THIS:-9003}\"]\n\
             breaker = \"off\"  # there is no other to go to: callers judge for themselves\noutlier = \"off\"\n\
             health = { tcp = true, interval = \"1s\" }\n\n\
             # The application goes out here, and reaches others by their names.\n[[listener]]\nname = \"outbound\"\n\
             bind = \"127.0.0.1:15001\"\n\n",
            "# gone\n[[route]]\nmatch = { listener = \"outbound\", host = \"old\" }  # since May\nrespond = { status = 410 }\n",
        ],
    );
    let full = "[[listener]]\nbind = \"127.0.0.1:0\"\n";
    let written = written_out("full.toml", full, Path::new("")).expect("good");
    assert_eq!(written, None, "a full document stands for itself");
}

#[test]
fn what_is_told_of_the_full_document_points_at_the_short_one() {
    let text = "\n\n[service]\nname = \"orders\"\n  app = \"127.0.0.1:9003\"\nready = \"/ready\"\n\n[outbound]\n\
                services = [\n  \"a\",\n  \"b\",\n]\n\n[control_plane]\nurls = [\"http://127.0.0.1:8080\"]\n\n\
                [[upstream]]\nname = \"mine\"\nendpoints = [\"127.0.0.1:1\"]\nconnect_timeout = \"3s\"\n";
    let document = good(text);
    let line = |part: &str| {
        let at = text.lines().position(|line| line.contains(part));
        u32::try_from(at.expect("in the text") + 1).expect("small")
    };
    let upstream = |name: &str| {
        let found = document.upstreams.iter().find(|item| item.name == name);
        found.unwrap_or_else(|| panic!("no {name}"))
    };
    assert_eq!(upstream("app").begins().line, line("[service]"));
    assert_eq!(upstream("outbound-b").begins().line, line("  \"b\","));
    let mine = upstream("mine");
    assert_eq!(mine.begins().line, line("[[upstream]]"));
    let place = mine.place(mine.connect_timeout.at).expect("it was written");
    assert_eq!((place.line, place.column), (line("connect_timeout"), 19));
    let inbound = &document.routes[0];
    let place = inbound
        .place(inbound.timeout.at)
        .expect("it is written out");
    assert_eq!(place.line, line("[service]"), "what implies it");
}

#[test]
fn a_mistake_is_told_with_the_line_that_it_was_made_on() {
    let with = |more: &str| format!("{SMALLEST}{more}");
    one(
        &with("prot = \"tcp\"\n"),
        "unknown-key",
        "prot = \"tcp\"",
        "did you mean `port`?",
    );
    one(
        &with("[inbond]\n"),
        "unknown-section",
        "[inbond]",
        "did you mean `inbound`?",
    );
    one(
        &with("[inbound]\nbind = \"here\"\n"),
        "bad-address",
        "bind = \"here\"",
        "",
    );
    one(
        &with("protocol = \"htp2\"\n"),
        "bad-value",
        "protocol = \"htp2\"",
        "did you mean \"http2\"?",
    );
    one(
        &with("[outbound]\nservices = [\"Orders\"]\n"),
        "bad-name",
        "services = [\"Orders\"]",
        "lower-case",
    );
    one(
        &with("[[outbound.port]]\nlisten = \"127.0.0.1:1\"\n"),
        "missing-key",
        "[[outbound.port]]",
        "service",
    );
    one(
        &with("[inbound]\n[inbound] # again\n"),
        "syntax",
        "[inbound] # again",
        "",
    );
    one(
        &with("[outbound]\nbind = 1 2\n"),
        "syntax",
        "bind = 1 2",
        "toml.io",
    );
    one(
        "[inbound]\nlimit = \"1/s\"\n",
        "missing-section",
        "[inbound]",
        "[service]",
    );
    one(
        "[service]\nname = \"orders\"\n",
        "exactly-one",
        "[service]",
        "`app`",
    );
    // What only the full document can tell.
    one(
        &with("[control_plane]\nurls = []\n"),
        "no-url",
        "urls = []",
        "at least one",
    );
    one(
        &with("\n[[route]]\nmatch = { path = \"/a\" }\nupstream = \"ap\"\n"),
        "unknown-upstream",
        "upstream = \"ap\"",
        "did you mean `app`?",
    );
    one(
        &with("ready = { path = \"/a\", timeout = \"2s\" }\n"),
        "health-timeout",
        "ready = { path = \"/a\", timeout = \"2s\" }",
        "at most as long",
    );
    one(
        &with("[inbound]\nbind = \"127.0.0.1:15001\"\n"),
        "duplicate-bind",
        "[service]",
        "",
    );
    one(
        &with("[outbound]\nservices = [\"a\"]\n"),
        "no-control-plane",
        "services = [\"a\"]",
        "",
    );
}

#[test]
fn what_cannot_be_together_is_refused_with_a_way_out() {
    let with = |more: &str| format!("{SMALLEST}{more}");
    one(
        &with("[inbound]\nmesh = \"strict\"\n"),
        "mesh-without-identity",
        "mesh = \"strict\"",
        "[identity]",
    );
    one(
        &with("[inbound]\naccess = \"enforce\"\n"),
        "access-without-mesh",
        "access = \"enforce\"",
        "mesh",
    );
    one(
        &with("[inbound]\nbind = \"0.0.0.0:9003\"\n"),
        "loop",
        "app = \"127.0.0.1:9003\"",
        "the application listens on",
    );
}

#[test]
fn a_part_that_stands_away_from_its_section_is_refused_with_words() {
    let text = format!("{SMALLEST}[inbound]\n[service.metadata]\nversion = \"1\"\n");
    let problems = read(&text).expect_err("refused");
    assert_eq!(problems[0].code, "not-in-one-piece");
    let text = format!("{SMALLEST}[service.metadata]\nversion = \"1\"\n[inbound]\n");
    assert!(
        out(&format!("{text}[control_plane]\nurls = [\"http://a:1\"]\n"))
            .contains("{ version = \"1\", protocol")
    );
    one(
        "service.name = \"a\"\n[inbound]\n",
        "wrong-type",
        "service.name = \"a\"",
        "`[service]`",
    );
}

const MEMBER: &str = "[identity]\ntoken = \"${file:join.token}\"\n";

#[test]
fn a_member_speaks_with_members_and_proves_who_it_is_mesh_305() {
    let text = format!(
        "{SMALLEST}\n[control_plane]\nurls = [\"http://127.0.0.1:8080\"]\n\n{MEMBER}\n[outbound]\nservices = [\"a\"]\n"
    );
    in_order(
        &out(&text),
        &[
            "metadata = { protocol = \"tcp\" }",
            "[identity]\nservice = \"orders\"\ntoken = \"${file:join.token}\"\n",
            "name = \"inbound\"\nbind = \"0.0.0.0:15006\"\nmesh = \"strict\"\n",
            "name = \"outbound-a\"\nservice = \"a\"\nmesh = true\nprotocol = \"auto\"\n",
        ],
    );
    let with = |keys: &str| out(&format!("{text}\n[inbound]\n{keys}\n"));
    let permissive = with("mesh = \"permissive\"\naccess = \"enforce\"");
    in_order(
        &permissive,
        &[
            "mesh = \"permissive\"\n",
            "filters = [{ access = \"enforce\" }]\n",
        ],
    );
    let limited = with("access = \"audit\"\nlimit = \"9/s\"");
    let filters =
        "filters = [{ access = \"audit\" }, { rate_limit = { by = \"route\", rate = \"9/s\" } }]\n";
    in_order(&limited, &[filters]);
    let off = with("mesh = \"off\"");
    assert!(
        !off.contains("mesh = true") && !off.contains("strict"),
        "{off}"
    );
    // Who says it otherwise means it.
    let own = text.replace("token =", "service = \"other\"\ntoken =");
    assert_eq!(out(&own).matches("service = \"orders\"").count(), 0);
}

#[test]
fn bytes_go_to_an_application_that_speaks_no_http_mesh_102() {
    let document = good(&format!("{SMALLEST}protocol = \"tcp\"\n"));
    let inbound = &document.listeners[0];
    assert_eq!(inbound.protocol, ListenerProtocol::Tcp);
    assert!(document.routes.is_empty(), "bytes have no requests");
    let document = good(&format!("{SMALLEST}protocol = \"detect\"\n"));
    assert_eq!(document.listeners[0].protocol, ListenerProtocol::Detect);
    assert_eq!(document.routes.len(), 1);
    let document = good(&format!(
        "{SMALLEST}[control_plane]\nurls = [\"http://127.0.0.1:8080\"]\n\
         [[outbound.port]]\nlisten = \"127.0.0.1:5432\"\nservice = \"database\"\nprotocol = \"tcp\"\n"
    ));
    let door = document
        .listeners
        .iter()
        .find(|l| l.name == "outbound-database");
    assert_eq!(door.expect("a door").protocol, ListenerProtocol::Tcp);
    one(
        &format!("{SMALLEST}protocol = \"tcp\"\n[inbound]\nlimit = \"1/s\"\n"),
        "contradiction",
        "limit = \"1/s\"",
        "service.protocol",
    );
}

#[test]
fn what_is_redirected_goes_where_it_was_going_unless_it_is_for_a_service_mesh_101() {
    let text = format!(
        "{SMALLEST}[control_plane]\nurls = [\"http://127.0.0.1:8080\"]\n[outbound]\nservices = [\"a\"]\n[capture]\n"
    );
    let document = good(&text);
    let doors: Vec<_> = { document.listeners.iter() }
        .map(|l| (l.name.as_str(), l.bind.to_string(), *l.capture))
        .collect();
    let door = |name, bind: &str| (name, bind.to_owned(), true);
    assert_eq!(
        doors,
        [
            door("inbound", "[::]:15006"),
            door("outbound", "127.0.0.1:15001"),
            door("outbound6", "[::1]:15001"),
        ]
    );
    let routes: Vec<_> = document.routes.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(routes, ["inbound", "outbound-a", "outbound"]);
    let off = good(&text.replace("[capture]", "[capture]\nenabled = false"));
    assert!(off.listeners.iter().all(|l| !*l.capture));
}

#[test]
fn secrets_are_neither_written_out_nor_shown() {
    let text = format!(
        "{SMALLEST}\n[control_plane]\nurls = [\"http://127.0.0.1:8080\"]\ntoken = \"${{env:PORT}}9999999999999999\"\n"
    );
    good(&text);
    assert!(out(&text).contains("token = \"${env:PORT}9999999999999999\""));
}

#[test]
fn a_reload_sees_what_changed_in_the_short_file() {
    let mut loader = Loader::with_environment(|_| None).short();
    let mut load = |text: &str| loader.load_text("sidecar.toml", text, Path::new(""));
    let before = load(SMALLEST).expect("good");
    assert_eq!(load(SMALLEST).expect("good").hash, before.hash);
    let after = load(&SMALLEST.replace("9003", "9004")).expect("good");
    assert_ne!(after.hash, before.hash);
    let problems = load("[service]\n").expect_err("refused");
    assert!(problems.0.iter().all(|p| p.place.is_some()), "{problems}");
    assert_eq!(load(SMALLEST).expect("good").hash, before.hash);
}

#[test]
fn what_the_kernel_shall_redirect_is_read_from_the_same_file_mesh_101() {
    let text = format!(
        "{SMALLEST}[inbound]\nbind = \"0.0.0.0:16\"\n[capture]\nuser = \"tollgate\"\nexclude_inbound = [22]\n\
         exclude_outbound = [53, 443]\nexclude_cidrs = [\"10.0.0.0/8\"]\n"
    );
    let wanted = Capture {
        inbound_port: 16,
        outbound_port: 15001,
        user: Some(User::Name("tollgate".to_owned())),
        exclude_inbound: vec![22],
        exclude_outbound: vec![53, 443],
        exclude_cidrs: vec![tollgate_config::Cidr {
            address: [10, 0, 0, 0].into(),
            prefix: 8,
        }],
    };
    let read = |text: &str| capture("sidecar.toml", text, Path::new(""));
    assert_eq!(read(&text), Ok(Some(wanted)));
    assert_eq!(
        read(&text.replace("[capture]", "[capture]\nenabled = false")),
        Ok(None)
    );
    assert_eq!(read(SMALLEST), Ok(None));
    let number = read(&text.replace("\"tollgate\"", "1337")).expect("good");
    assert_eq!(number.and_then(|c| c.user), Some(User::Number(1337)));
    assert!(read(&text.replace(":16\"", ":0\"")).is_err());
}

#[test]
fn no_text_at_all_is_too_much() {
    for text in [
        "[service]",
        "[service",
        "[service]\nname=",
        "[service]\nready = { }",
        "[service.x.y.z.a.b.c.d.e.f]\n",
        "service = 1\n[inbound]\n",
        "[[service]]\n",
        "[service]\nname = \"a\"\napp = \"b:1\"\n[outbound]\nport = [1]\n",
        "[service]\nname = \"a\"\napp = \"b:1\"\n[outbound]\nport = 1\n",
        "[capture]\nexclude_inbound = [0, 70000, \"a\"]\n",
        "[service]\nname = \"\"\napp = \"\"\nmetadata = { a = 1 }\n",
        "\u{feff}[service]\r\nname = \"a\"\r\nprotocol = \"x\"\r\n",
    ] {
        assert!(read(text).is_err(), "{text}");
        assert!(
            !matches!(written_out("a", text, Path::new("")), Ok(Some(_))),
            "{text}"
        );
    }
}

#[test]
fn what_a_registration_names_must_be_there_and_be_asked_mesh_105() {
    let full = |register: &str, upstream: &str| {
        format!(
            "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n[[upstream]]\nname = \"app\"\nendpoints = [\"127.0.0.1:1\"]\n{upstream}\n\
             [control_plane]\nurls = [\"http://127.0.0.1:8080\"]\nregister = {{ name = \"a\", {register} }}\n"
        )
    };
    let asked = "health = { tcp = true }";
    good(&full("listener = \"in\", upstream = \"app\"", asked));
    let section = "[control_plane]";
    let wrong = full("listener = \"inn\"", asked);
    one(&wrong, "unknown-listener", section, "did you mean `in`?");
    let wrong = full("address = \"a:1\", upstream = \"ap\"", asked);
    one(&wrong, "unknown-upstream", section, "did you mean `app`?");
    let wrong = full("address = \"a:1\", upstream = \"app\"", "");
    one(&wrong, "no-probe", section, "[upstream.health]");
}

/// MESH-502: a sidecar's spans are those of the service that it stands for.
#[test]
fn a_short_file_keeps_its_telemetry_and_a_sidecar_has_its_services_name() {
    let text = "[service]\nname = \"orders\"\napp = \"127.0.0.1:9003\"\n\n[control_plane]\nurls = [\"http://127.0.0.1:9000\"]\n\n\
                [telemetry]\ntraces = { otlp = \"http://127.0.0.1:4317\", sample = 0.5 }\n";
    let document = good(text);
    let traces = document.telemetry.traces.as_ref().expect("it is kept");
    assert_eq!((traces.sample, traces.always_on_error), (0.5, true));
    assert_eq!(document.service_name(), Some("orders"));
}

#[test]
fn what_is_said_of_a_whole_section_names_its_own_line() {
    let short = "[service]\nname = \"a\"\napp = \"127.0.0.1:1\"\n\n\
                 [control_plane]\nurls = [\"http://127.0.0.1:8080\"]\ntoken = \"hunter2-hunter2-hunter2\"\n";
    one(short, "token-in-the-open", "[control_plane]", "${env:NAME}");
}
