//! Every sample file loads, the reference page is what the grammar says, and a reload keeps what did not change.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tollgate_config::{Document, Loader};

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn load(text: &str) -> Document {
    let loaded = Loader::with_environment(|_| None).load_text("test.toml", text, Path::new(""));
    loaded.unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn every_sample_loads_without_a_problem() {
    let samples: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("the crate's folder")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let another_kind = [
                "Cargo.toml",
                "control-plane.toml",
                "control-plane-etcd.toml",
                "sidecar.toml",
            ];
            path.extension().is_some_and(|e| e == "toml")
                && !another_kind.iter().any(|name| path.ends_with(name))
        })
        .collect();
    assert!(!samples.is_empty());
    for sample in samples {
        let loaded = Loader::with_environment(|_| None).load(&sample);
        let document = loaded.unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(document.sources[0], sample);
    }
}

/// Run with `TOLLGATE_BLESS=1` to write the page anew.
#[test]
fn the_reference_page_is_what_the_grammar_says() {
    let page = folder().join("../docs/configuration.md");
    let wanted = tollgate_config::reference();
    if std::env::var_os("TOLLGATE_BLESS").is_some() {
        std::fs::create_dir_all(page.parent().expect("a folder")).expect("docs can be made");
        std::fs::write(&page, &wanted).expect("docs can be written");
    }
    let found = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/configuration.md is stale: run `TOLLGATE_BLESS=1 cargo test -p tollgate-config`"
    );
}

const SMALLEST: &str = r#"
[[listener]]
bind = "127.0.0.1:8000"

[[route]]
match    = { path = "/*" }
upstream = "app"

[[upstream]]
name      = "app"
endpoints = ["127.0.0.1:9000"]
"#;

#[test]
fn the_smallest_gateway_has_the_defaults_of_the_contract() {
    use std::time::Duration;
    use tollgate_config::*;
    let document = load(SMALLEST);
    let listener = &document.listeners[0];
    assert_eq!(listener.name, "127.0.0.1:8000");
    assert_eq!(*listener.max_connections, 20_000);
    assert_eq!(*listener.max_header_size, 64 << 10);
    assert_eq!(*listener.header_timeout, Duration::from_secs(10));
    assert_eq!(*listener.idle_timeout, Duration::from_secs(75));
    let route = &document.routes[0];
    assert_eq!(route.name, "/*");
    assert_eq!(*route.timeout, Some(Duration::from_secs(5)));
    assert_eq!(*route.idle_timeout, Some(Duration::from_secs(60)));
    assert_eq!(*route.max_body, None);
    let retry = route.retry.value.as_ref().expect("on by default");
    assert_eq!(
        (*retry.attempts, retry.on.len(), retry.max_replay),
        (2, 6, 64 << 10)
    );
    assert_eq!(
        (retry.backoff_base, retry.backoff_max),
        (Duration::from_millis(25), Duration::from_millis(250))
    );
    assert_eq!(retry.methods, RetryMethods::Idempotent);
    let upstream = &document.upstreams[0];
    assert_eq!(*upstream.connect_timeout, Duration::from_secs(1));
    assert_eq!(*upstream.idle_connections, 512);
    assert_eq!(upstream.balance, Balance::PeakEwma);
    assert_eq!(upstream.protocol, UpstreamProtocol::Http1);
    assert_eq!(upstream.outlier.as_ref().map(|o| *o.failures), Some(5));
    assert!(upstream.health.is_none());
    let breaker = upstream.breaker.as_ref().expect("on by default");
    assert_eq!(
        (*breaker.failures, *breaker.volume, *breaker.error_rate),
        (5, 20, None)
    );
    assert_eq!((*breaker.probes, *breaker.successes), (10, 3));
    assert_eq!(
        (*breaker.window, *breaker.open_for),
        (Duration::from_secs(60), Duration::from_secs(60))
    );
    let budget = upstream.retry_budget.as_ref().expect("on by default");
    assert_eq!((*budget.ratio, budget.floor.count), (0.2, 10));
    assert_eq!(*budget.window, Duration::from_secs(10));
    assert_eq!(document.server.drain, Duration::from_secs(30));
    assert_eq!(document.server.admin, Some(([127, 0, 0, 1], 9901).into()));
    assert_eq!(document.telemetry.access_log, AccessLog::Stdout);
}

/// OBS-110.
#[test]
fn a_collector_is_told_as_the_document_says() {
    let of = |keys: &str| {
        let traces = format!("{SMALLEST}\n[telemetry]\ntraces = {{ {keys} }}\n");
        load(&traces).telemetry.traces.expect("it was written")
    };
    let usual = of("otlp = \"http://127.0.0.1:4317\"");
    assert!(!usual.otlp.over_http && !usual.otlp.url.encrypted);
    assert_eq!(usual.otlp.url.address, "127.0.0.1:4317");
    assert_eq!((usual.sample, usual.always_on_error), (0.01, true));
    assert_eq!(
        (usual.batch_size, usual.batch_timeout),
        (512, std::time::Duration::from_secs(1))
    );
    assert_eq!((usual.service, usual.attributes), (None, Vec::new()));
    let other = of("otlp = \"https://c.example/v1/traces\", sample = 0.5, always_on_error = false");
    assert!(other.otlp.over_http && other.otlp.url.encrypted);
    assert_eq!(other.otlp.url.address, "c.example:443");
    assert_eq!((other.sample, other.always_on_error), (0.5, false));
}

#[test]
fn a_setting_knows_its_line_even_in_a_sub_table() {
    let text = format!(
        "# a comment\n{SMALLEST}\n[[route]]\nupstream = \"app\"\nmatch = {{ path = \"/a\" }}\n\n  [route.retry]\n  attempts = 7\n"
    );
    let document = load(&text);
    let route = &document.routes[1];
    let retry = route.retry.value.as_ref().expect("on");
    let place = route.place(retry.attempts.at).expect("was written");
    let line = text
        .lines()
        .position(|l| l.contains("attempts"))
        .expect("there")
        + 1;
    assert_eq!((place.line as usize, place.column), (line, 14));
    assert_eq!(route.place(route.timeout.at), None);
}

#[test]
fn a_reload_keeps_what_did_not_change_even_when_lines_move() {
    let mut loader = Loader::with_environment(|_| None);
    let mut load = |text: &str| {
        loader
            .load_text("test.toml", text, Path::new(""))
            .expect("valid")
    };
    let before = load(SMALLEST);
    let text = SMALLEST
        .replace("127.0.0.1:9000", "127.0.0.1:9001")
        .replace("[[route]]", "# moved\n\n[[route]]");
    let after = load(&text);
    assert!(Arc::ptr_eq(
        &before.listeners[0].value,
        &after.listeners[0].value
    ));
    assert!(Arc::ptr_eq(&before.routes[0].value, &after.routes[0].value));
    assert!(!Arc::ptr_eq(
        &before.upstreams[0].value,
        &after.upstreams[0].value
    ));
    assert_eq!(after.routes[0].line, before.routes[0].line + 2);
    assert_ne!(before.hash, after.hash);
    assert_eq!(before.hash, load(SMALLEST).hash);
}

#[test]
fn an_item_is_read_again_when_its_environment_changes() {
    use std::sync::Mutex;
    let port = Arc::new(Mutex::new("1".to_owned()));
    let seen = port.clone();
    let mut loader = Loader::with_environment(move |name| {
        (name == "PORT").then(|| seen.lock().expect("not poisoned").clone())
    });
    let text = SMALLEST.replace("127.0.0.1:9000", "127.0.0.1:${env:PORT}");
    let mut load = || {
        loader
            .load_text("test.toml", &text, Path::new(""))
            .expect("valid")
    };
    let first = load();
    let second = load();
    "2".clone_into(&mut port.lock().expect("not poisoned"));
    let third = load();
    assert!(Arc::ptr_eq(
        &first.upstreams[0].value,
        &second.upstreams[0].value
    ));
    assert!(!Arc::ptr_eq(
        &second.upstreams[0].value,
        &third.upstreams[0].value
    ));
    assert_eq!(first.hash, second.hash);
    assert_ne!(second.hash, third.hash);
}

#[test]
fn routes_without_a_name_get_different_ones() {
    let text = format!(
        "{SMALLEST}\n[[route]]\nmatch = {{ path = \"/*\", host = \"a.example\" }}\nupstream = \"app\"\n[[route]]\nmatch = {{ path = \"/*\", headers = {{ x = \"1\" }} }}\nupstream = \"app\"\n"
    );
    let mut loader = Loader::new();
    let first = loader
        .load_text("test.toml", &text, Path::new(""))
        .expect("valid");
    let names: Vec<&str> = first.routes.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["/*", "a.example/*", "/* #2"]);
    let second = loader
        .load_text("test.toml", &text, Path::new(""))
        .expect("valid");
    for (a, b) in first.routes.iter().zip(&second.routes) {
        assert!(Arc::ptr_eq(&a.value, &b.value), "{}", a.name);
    }
}

#[test]
fn included_files_belong_to_the_document() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("routes")).expect("made");
    let write =
        |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    write(
        "main.toml",
        &format!("include = [\"routes/*.toml\"]\n{SMALLEST}"),
    );
    write(
        "routes/a.toml",
        "[[route]]\nmatch = { path = \"/a\" }\nupstream = \"app\"\ninclude = 1\n"
            .replace("include = 1\n", "")
            .as_str(),
    );
    write(
        "routes/b.toml",
        "include = [\"../main.toml\"]\n[[route]]\nmatch = { path = \"/b\" }\nupstream = \"app\"\n",
    );
    let document = Loader::new()
        .load(&folder.path().join("main.toml"))
        .unwrap_or_else(|p| panic!("{p}"));
    let names: Vec<&str> = document.routes.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["/*", "/a", "/b"]);
    assert_eq!(document.sources.len(), 3);
    assert!(document.routes[1].file.ends_with("a.toml"));
}

#[test]
fn a_text_with_inline_lists_is_read_whole() {
    let document = load(
        "listener = [{ bind = \"127.0.0.1:0\" }]\nroute = [\n  { upstream = \"app\", timeout = \"1s\" },\n]\nserver.workers = 3\n[[upstream]]\nname = \"app\"\nendpoints = [\"127.0.0.1:1\"]\n",
    );
    assert_eq!(document.server.workers, Some(3));
    let route = &document.routes[0];
    let place = route.place(route.timeout.at).expect("was written");
    assert_eq!((route.line, place.line), (3, 3));
    // A sub-table that stands away from its item.
    let document = load(&SMALLEST.replace(
        "[[upstream]]",
        "[server]\n[route.retry]\nattempts = 9\n[[upstream]]",
    ));
    assert_eq!(
        *document.routes[0]
            .retry
            .value
            .as_ref()
            .expect("on")
            .attempts,
        9
    );
}

/// The cost is printed, not judged: machines differ. Run with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn what_one_changed_route_of_five_thousand_costs() {
    let routes = |changed: &str| -> String {
        (0..5000)
            .map(|n| {
                let timeout = if n == 2500 { changed } else { "3s" };
                format!(
                    "\n# route {n}\n[[route]]\nname = \"route-{n}\"\nmatch = {{ host = \"api.example.com\", path = \"/service-{n}/{{id}}\", methods = [\"GET\"] }}\nupstream = \"app\"\ntimeout = \"{timeout}\"\n"
                )
            })
            .collect()
    };
    let mut loader = Loader::new();
    for round in 0..6 {
        let text = format!("{SMALLEST}{}", routes(&format!("{}s", round + 5)));
        let begin = std::time::Instant::now();
        let document = loader
            .load_text("test.toml", &text, Path::new(""))
            .expect("valid");
        println!(
            "{} routes, {} bytes: {:?}",
            document.routes.len(),
            text.len(),
            begin.elapsed()
        );
    }
}

#[test]
fn gw_403_a_breaker_and_a_budget_are_read_as_written_and_can_be_switched_off() {
    use std::time::Duration;
    let document = load(&format!(
        "{SMALLEST}\n  [upstream.breaker]\n  grain = \"operation\"\n  kind = \"adaptive\"\n  failures = 2\n  error_rate = 0.5\n  window = \"10s\"\n  open_for = \"1s\"\n\n  [upstream.retry_budget]\n  ratio = 0\n  floor = \"5/m\"\n"
    ));
    let upstream = &document.upstreams[0];
    let breaker = upstream.breaker.as_ref().expect("on");
    assert_eq!((*breaker.failures, *breaker.volume), (2, 20));
    assert_eq!(breaker.grain, tollgate_config::BreakerGrain::Operation);
    assert_eq!(*breaker.kind, tollgate_config::BreakerKind::Adaptive);
    assert_eq!(*breaker.error_rate, Some(0.5));
    assert!(upstream.place(breaker.failures.at).is_some());
    assert!(upstream.place(breaker.volume.at).is_none());
    let budget = upstream.retry_budget.as_ref().expect("on");
    assert_eq!((*budget.ratio, budget.floor.count), (0.0, 5));
    assert_eq!(budget.floor.per, Duration::from_secs(60));
    let document = load(&format!(
        "{SMALLEST}breaker = \"off\"\nretry_budget = \"off\"\n"
    ));
    assert!(document.upstreams[0].breaker.is_none());
    assert!(document.upstreams[0].retry_budget.is_none());
}

#[test]
fn hedges_are_off_until_they_are_written_and_read_as_written() {
    use std::time::Duration;
    use tollgate_config::{BreakerKind, Hedge, HedgeAfter};
    let hedge = |keys: &str| {
        let text = SMALLEST.replace(
            "upstream = \"app\"\n",
            &format!("upstream = \"app\"\nretry = {{ {keys} }}\n"),
        );
        load(&text).routes[0].hedge()
    };
    let ten = Duration::from_millis(10);
    let usual = |least| {
        Some(Hedge {
            after: HedgeAfter::P95,
            least,
        })
    };
    assert_eq!(hedge("attempts = 1"), None);
    assert_eq!(hedge("hedge = \"off\""), None);
    assert_eq!(hedge("hedge = {}"), usual(ten));
    assert_eq!(
        hedge("hedge = { after = \"p95\", least = \"1s\" }"),
        usual(ten * 100)
    );
    let fixed = hedge("preset = \"read\", hedge = { after = \"30ms\" }").expect("on");
    assert_eq!(fixed.after, HedgeAfter::Fixed(ten * 3));
    let document = load(&format!(
        "{SMALLEST}breaker = {{ kind = \"percentile\", slow_after = \"200ms\" }}\n"
    ));
    let breaker = document.upstreams[0].breaker.expect("on");
    assert_eq!(*breaker.kind, BreakerKind::Percentile);
    assert_eq!((*breaker.slow_after, *breaker.slow_share), (ten * 20, 0.05));
}

#[test]
fn gw_503_a_preset_changes_defaults_and_what_is_written_wins() {
    use std::time::Duration;
    use tollgate_config::RetryMethods;
    let retry = |keys: &str| {
        let text = SMALLEST.replace(
            "upstream = \"app\"\n",
            &format!("upstream = \"app\"\nretry = {{ {keys} }}\n"),
        );
        load(&text).routes[0].retry.value.clone()
    };
    let read = retry("preset = \"read\"").expect("on");
    assert_eq!(
        (*read.attempts, read.methods),
        (3, RetryMethods::Idempotent)
    );
    assert_eq!(read.backoff_base, Duration::from_millis(100));
    let write = retry("preset = \"write\"").expect("on");
    assert_eq!((*write.attempts, write.methods), (1, RetryMethods::Keyed));
    let more = retry("preset = \"write\", attempts = 4").expect("on");
    assert_eq!((*more.attempts, more.methods), (4, RetryMethods::Keyed));
    assert!(retry("preset = \"critical\"").is_none());
}

#[test]
fn gw_604_times_that_can_never_run_out_are_warned_of_and_not_refused() {
    let document = load(SMALLEST);
    assert_eq!(tollgate_config::warnings(&document), []);
    let text = SMALLEST
        .replace(
            "upstream = \"app\"\n",
            "upstream = \"app\"\ntimeout = \"2s\"\nretry = { per_try_timeout = \"3s\" }\n",
        )
        .replace(
            "name      = \"app\"\n",
            "name      = \"app\"\nconnect_timeout = \"2s\"\nmax_in_flight = 5\nqueue = { timeout = \"4s\" }\n",
        );
    let document = load(&text);
    let warnings = tollgate_config::warnings(&document);
    let words: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 3, "{words:?}");
    assert!(warnings.iter().all(|one| one.code == "time-out-ladder"));
    assert!(words[0].contains("one try may take 3s"), "{words:?}");
    assert!(words[1].contains("may wait 4s for its turn"), "{words:?}");
    assert!(words[2].contains("may take 2s to connect"), "{words:?}");
}

#[test]
fn tiers_that_are_not_written_are_the_shipped_ones_gw_303() {
    let document = load(
        "[[listener]]\nbind = \"127.0.0.1:0\"\n\n[tiers.free]\nrate = \"7/s\"\n\n[tiers.gold]\nrate = \"9/s\"\nburst = 4\nmonthly_quota = 5\n",
    );
    let all: Vec<_> = document
        .all_tiers()
        .map(|tier| {
            let rate = tier.rate.value.to_string();
            (tier.name, rate, tier.burst.value, tier.monthly_quota.value)
        })
        .collect();
    let expected = [
        ("free", "7/s", 7, None),
        ("gold", "9/s", 4, Some(5)),
        ("anonymous", "10/m", 20, Some(1000)),
        ("professional", "1000/m", 2000, Some(1_000_000)),
        ("enterprise", "10000/m", 20_000, None),
    ];
    let expected =
        expected.map(|(name, rate, burst, quota)| (name.to_owned(), rate.to_owned(), burst, quota));
    assert_eq!(all, expected);
    let gold = &document.tiers[1];
    let place = gold.place(gold.burst.at).expect("written");
    assert_eq!(place.line, 9);
}

#[test]
fn quotas_without_a_folder_for_state_are_worth_a_warning() {
    let used = "[[listener]]\nbind = \"127.0.0.1:0\"\n\n[[route]]\nrespond = { status = 200 }\nfilters = [{ rate_limit = \"tiers\" }]\n";
    let warned = |text: &str| {
        let warnings = tollgate_config::warnings(&load(text));
        warnings.iter().map(|w| w.code).collect::<Vec<_>>()
    };
    assert_eq!(warned(used), ["quota-not-kept"]);
    assert_eq!(
        warned(&format!("{used}[server]\nstate_dir = \"x\"\n")),
        [""; 0]
    );
    let unused = used.replace("filters", "# filters");
    assert_eq!(warned(&unused), [""; 0]);
}

#[test]
fn mesh_102_a_listener_for_bytes_has_a_way_with_the_defaults_of_one() {
    use std::time::Duration;
    use tollgate_config::*;
    let text = SMALLEST.replace(
        "bind = \"127.0.0.1:8000\"",
        "bind = \"127.0.0.1:8000\"\nprotocol = \"detect\"\nforward = \"app\"",
    );
    let document = load(&text);
    let listener = &document.listeners[0];
    assert_eq!(listener.protocol, ListenerProtocol::Detect);
    assert_eq!(*listener.detect_timeout, Duration::from_millis(500));
    assert!(!*listener.capture);
    let way = listener.forward.as_ref().expect("it forwards");
    assert!(matches!(&way.action, Action::Upstream(name) if **name == "app"));
    assert_eq!(*way.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(*way.timeout, None);
    assert!(way.retry.value.is_some());
    let off = text.replace("forward =", "relay_idle_timeout = \"off\"\nforward =");
    let way = load(&off).listeners[0]
        .forward
        .clone()
        .expect("it forwards");
    assert_eq!(*way.idle_timeout, None);
}
