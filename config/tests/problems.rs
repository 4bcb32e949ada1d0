//! Every kind of problem: its code, its line and a hint that tells the next step (HI-62: bad configuration is refused
//! whole, with a reason).

use std::path::Path;

use tollgate_config::{Loader, Problem};

/// What a fragment under test does not hold itself.
const LISTENER: &str = "[[listener]]\nbind = \"127.0.0.1:0\"\n";
const ROUTE: &str = "[[route]]\nmatch = { path = \"/*\" }\nupstream = \"app\"\n";
const UPSTREAM: &str = "[[upstream]]\nname = \"app\"\nendpoints = [\"127.0.0.1:9000\"]\n";

fn problems(text: &str) -> Vec<Problem> {
    let loaded =
        Loader::with_environment(|_| None).load_text("test.toml", text, Path::new("/nowhere"));
    loaded.map_or_else(|problems| problems.0, |_| Vec::new())
}

/// The whole of a document around `text`: what `text` does not hold itself is added below it.
fn around(text: &str) -> String {
    let mut whole = text.to_owned();
    for (header, part) in [
        ("[[listener", LISTENER),
        ("[[route", ROUTE),
        ("[[upstream", UPSTREAM),
    ] {
        if !text.contains(header) {
            whole.push('\n');
            whole.push_str(part);
        }
    }
    whole
}

/// Asserts that `text` has exactly one problem.
#[track_caller]
fn one(text: &str, code: &str, line: u32, hint: &str) {
    let found = problems(&around(text));
    let [problem] = found.as_slice() else {
        panic!("{} problems in:\n{text}\n{found:#?}", found.len());
    };
    let place = problem
        .place
        .as_ref()
        .unwrap_or_else(|| panic!("no place: {problem}"));
    assert_eq!((problem.code, place.line), (code, line), "{problem}");
    let words = problem.hint.as_deref().unwrap_or_default();
    assert!(
        words.contains(hint),
        "`{hint}` is not in the hint of: {problem}"
    );
    let shown = problem
        .text
        .as_deref()
        .unwrap_or_else(|| panic!("no text: {problem}"));
    assert_eq!(around(text).lines().nth(line as usize - 1), Some(shown));
}

fn route(key: &str) -> String {
    format!("[[route]]\nmatch = {{ path = \"/a/{{id}}\" }}\n{key}\n")
}

fn upstream(key: &str) -> String {
    format!("[[upstream]]\nname = \"app\"\nendpoints = [\"127.0.0.1:9000\"]\n{key}\n")
}

fn listener(key: &str) -> String {
    format!("[[listener]]\nbind = \"127.0.0.1:0\"\n{key}\n")
}

fn line_of(text: &str, part: &str) -> u32 {
    let before = text.find(part).expect("it is there");
    text[..before].matches('\n').count() as u32 + 1
}

#[test]
fn a_document_without_problems_has_none() {
    assert_eq!(problems(&around("")), []);
}

#[test]
fn words_that_nobody_knows_get_the_nearest_known_one() {
    one(
        &upstream("blance = \"random\""),
        "unknown-key",
        4,
        "did you mean `balance`? the keys are",
    );
    one(
        &upstream("[upstream.outlier]\nfailurs = 1"),
        "unknown-key",
        5,
        "did you mean `failures`?",
    );
    one("[[rout]]\n", "unknown-section", 1, "did you mean `route`?");
    one("inclde = []\n", "unknown-key", 1, "did you mean `include`?");
    one(
        &route("upstream = \"ap\""),
        "unknown-upstream",
        3,
        "did you mean `app`?",
    );
    one(
        "[[route]]\nmatch = { listener = \"pubic\" }\nupstream = \"app\"\n[[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"",
        "unknown-listener",
        2,
        "did you mean `public`?",
    );
    one(
        "[[test]]\nrequest = { path = \"/\" }\nexpect = { route = \"/**\" }",
        "unknown-route",
        3,
        "did you mean `/*`?",
    );
    one(
        "[[test]]\nrequest = { path = \"/\" }\nexpect = { upstream = \"b\" }",
        "unknown-upstream",
        3,
        "the upstreams are `app`",
    );
    one(
        &upstream("balance = \"randon\""),
        "bad-value",
        4,
        "did you mean \"random\"?",
    );
}

#[test]
fn wrong_types_and_values_are_told_what_to_write() {
    one(
        &upstream("idle_connections = \"5\""),
        "wrong-type",
        4,
        "idle_connections = 5",
    );
    one(
        &upstream("connect_timeout = 5"),
        "wrong-type",
        4,
        "connect_timeout = \"1s\"",
    );
    one(
        &upstream("connect_timeout = \"5\""),
        "bad-duration",
        4,
        "\"5s\"",
    );
    one(
        &upstream("connect_timeout = \"0s\""),
        "bad-duration",
        4,
        "\"1ms\"",
    );
    one(
        &route("upstream = \"app\"\ntimeout = \"5sec\""),
        "bad-duration",
        4,
        "or \"off\"",
    );
    one(
        &route("upstream = \"app\"\nmax_body = \"5MB\""),
        "bad-size",
        4,
        "\"5MiB\"",
    );
    one(
        &listener("max_connections = 0"),
        "bad-value",
        3,
        "max_connections = 20000",
    );
    one(
        &listener("max_connections = 99999999999999999999"),
        "wrong-type",
        3,
        "9223372036854775807",
    );
    one(
        &listener("max_header_size = \"1B\""),
        "bad-size",
        3,
        "\"1KiB\"",
    );
    one(
        &listener("trusted_proxies = [\"10.0.0.0/40\"]"),
        "bad-address",
        3,
        "10.0.0.0/8",
    );
    one(
        "[[listener]]\nbind = \"localhost:8000\"",
        "bad-address",
        2,
        "\"127.0.0.1:8000\"",
    );
    one(
        "[[upstream]]\nname = \"app\"\nendpoints = [\"http://a:1/x\"]",
        "bad-address",
        3,
        "\"a:1\"",
    );
    one(
        "[[upstream]]\nname = \"app\"\nendpoints = [\"a\"]",
        "bad-address",
        3,
        "\"a:80\"",
    );
    one(
        "[[upstream]]\nname = \"app\"\ndns = \"a\"",
        "bad-address",
        3,
        "srv = true",
    );
    one(
        "[[route]]\nmatch = { host = \"a.b:80\" }\nupstream = \"app\"",
        "bad-host",
        2,
        "\"a.b\"",
    );
    one(
        "[[route]]\nmatch = { path = \"/a//b\" }\nupstream = \"app\"",
        "bad-pattern",
        2,
        "`/a/b`",
    );
    one(
        "[[route]]\nmatch = { path_regex = \"(\" }\nupstream = \"app\"",
        "bad-regex",
        2,
        "whole text",
    );
    one(
        "[[route]]\nmatch = { methods = [\"G T\"] }\nupstream = \"app\"",
        "bad-method",
        2,
        "\"GET\"",
    );
    one(
        "[[route]]\nmatch = { headers = { \"a b\" = \"1\" } }\nupstream = \"app\"",
        "bad-header",
        2,
        "x-user-id",
    );
    one(
        "[[route]]\nmatch = { headers = { a = { present = false } } }\nupstream = \"app\"",
        "bad-value",
        2,
        "present = true",
    );
    one(
        &route("respond = { headers = { a = \"x\\ny\" } }"),
        "bad-header",
        3,
        "line ends",
    );
    one(
        &route(
            "upstream = \"app\"\nfilters = [{ set_headers = { request = { content-length = \"1\" } } }]",
        ),
        "bad-header",
        4,
        "leave it out",
    );
    one(
        &route("upstream = \"app\"\nretry = { on = [\"404\"] }"),
        "bad-reason",
        4,
        "\"500\" to \"599\"",
    );
    one(
        &route("redirect = { to = \"x\" }"),
        "bad-target",
        3,
        "\"/new/{id}\"",
    );
    one(
        "[telemetry]\naccess_log = { sample = 2 }",
        "bad-value",
        2,
        "sample = 1.0",
    );
    one(
        "[test]\nrequest = { path = \"/\" }\nexpect = { status = 200 }",
        "wrong-type",
        1,
        "[[test]]",
    );
    one("[[server]]\nworkers = 1", "wrong-type", 1, "[server]");
    one(
        "[[test]]\nrequest = { path = \"x\" }\nexpect = { status = 200 }",
        "bad-path",
        2,
        "begin it with `/`",
    );
}

#[test]
fn what_is_missing_or_too_much_is_named() {
    one(
        "[[listener]]\nname = \"a\"",
        "missing-key",
        1,
        "bind = \"127.0.0.1:8000\"",
    );
    one(
        &listener("tls = { cert = \"a.pem\" }"),
        "missing-key",
        3,
        "key",
    );
    one(&listener("tls = []"), "missing-key", 3, "clear text");
    one(
        &route(""),
        "exactly-one",
        1,
        "`upstream`, `split`, `respond` and `redirect`",
    );
    one(
        &route("upstream = \"app\"\nrespond = {}"),
        "exactly-one",
        4,
        "keep exactly one",
    );
    one(
        "[[upstream]]\nname = \"app\"",
        "exactly-one",
        1,
        "`endpoints`, `dns` and `service`",
    );
    one(
        "[[upstream]]\nname = \"app\"\nendpoints = []",
        "no-endpoints",
        3,
        "at least one",
    );
    one(
        &route("upstream = \"app\"\nsticky = { client = true }"),
        "missing-key",
        4,
        "`split`",
    );
    let text = upstream("tls = { cert = \"no.pem\" }");
    let codes: Vec<&str> = problems(&around(&text)).iter().map(|p| p.code).collect();
    assert_eq!(codes, ["missing-file", "missing-key"]);
    one(
        "[[route]]\nmatch = { path = \"/a\", path_regex = \"/a\" }\nupstream = \"app\"",
        "contradiction",
        2,
        "keep one of",
    );
    one(
        &route("upstream = \"app\"\nrewrite = { path = \"/b\", strip_prefix = \"/a\" }"),
        "contradiction",
        4,
        "keep one of",
    );
    one(
        &route("upstream = \"app\"\nretry = { backoff = { base = \"1s\" } }"),
        "contradiction",
        4,
        "`max`",
    );
    one(
        &upstream("max_in_flight = \"of\""),
        "bad-value",
        4,
        "max_in_flight = \"off\"",
    );
}

#[test]
fn a_bulkhead_that_contradicts_itself_is_refused() {
    one(
        &upstream("queue = { length = 1 }"),
        "missing-key",
        4,
        "max_in_flight",
    );
    let off = upstream("max_in_flight = \"off\"\nqueue = { length = 1 }");
    one(&off, "contradiction", 5, "give `max_in_flight` a number");
    let found = problems(&around(&off));
    assert!(found[0].message.contains(":4"), "{}", found[0]);
    one(
        &upstream("max_in_flight = { least = 9, most = 8 }"),
        "contradiction",
        4,
        "make `most` at least as large",
    );
    one(&upstream("max_in_flight = 0"), "bad-value", 4, "");
    one(
        &upstream("max_in_flight = 5\nqueue = { length = 0 }"),
        "bad-value",
        5,
        "length = 100",
    );
    one(
        &upstream("max_in_flight = 5\nqueue = { timeout = \"0s\" }"),
        "bad-duration",
        5,
        "",
    );
    one(
        &upstream("max_in_flight = \"adaptve\""),
        "bad-value",
        4,
        "adaptive",
    );
    one(
        &upstream("outlier = { deviation = 1.5 }"),
        "bad-value",
        4,
        "",
    );
}

#[test]
fn what_is_written_of_hedges_and_of_slow_answers_must_be_able_to_do_something() {
    let hedge = |keys: &str| route(&format!("upstream = \"app\"\nretry = {{ hedge = {keys} }}"));
    one(
        &hedge("{ after = \"20ms\", least = \"10ms\" }"),
        "contradiction",
        4,
        "take one of the two out",
    );
    one(&hedge("{ after = \"p50\" }"), "bad-duration", 4, "");
    one(&hedge("{ after = \"0s\" }"), "bad-duration", 4, "");
    one(&hedge("\"on\""), "bad-value", 4, "\"off\"");
    let breaker = |keys: &str| upstream(&format!("breaker = {{ {keys} }}"));
    one(
        &breaker("slow_after = \"1s\""),
        "contradiction",
        4,
        "kind = \"percentile\"",
    );
    one(
        &breaker("kind = \"percentile\", slow_share = 1.0"),
        "contradiction",
        4,
        "below 1.0",
    );
    one(
        &breaker("kind = \"percentil\""),
        "bad-value",
        4,
        "percentile",
    );
}

#[test]
fn an_adaptive_time_out_needs_room_below_its_ceiling() {
    let route = |keys: &str| route(&format!("upstream = \"app\"\n{keys}"));
    one(
        &route("timeout = \"off\"\nadaptive_timeout = {}"),
        "contradiction",
        5,
        "give `timeout` a value",
    );
    let tight = route("adaptive_timeout = { least = \"2s\" }\ntimeout = \"2s\"");
    one(&tight, "contradiction", 4, "shorter than `timeout`");
    assert!(problems(&around(&tight))[0].message.contains(":5"));
    one(
        &route("adaptive_timeout = { least = \"6s\" }"),
        "contradiction",
        4,
        "shorter than `timeout`",
    );
    one(
        &route("adaptive_timeout = \"on\""),
        "bad-value",
        4,
        "\"off\"",
    );
}

#[test]
fn a_fallback_that_cannot_be_is_refused() {
    let fallback = |keys: &str| route(&format!("upstream = \"app\"\n[route.fallback]\n{keys}"));
    one(
        &fallback("upstream = \"ap\""),
        "unknown-upstream",
        5,
        "did you mean `app`?",
    );
    one(
        &fallback("upstream = \"app\""),
        "contradiction",
        5,
        "another",
    );
    one(
        &fallback("respond = {}\non = [\"slow\"]"),
        "bad-reason",
        6,
        "\"timeout\"",
    );
    let own = route("respond = {}\n[route.fallback]\nrespond = {}");
    one(&own, "contradiction", 4, "take `fallback` out");
    assert!(problems(&around(&own))[0].message.contains(":3"));
}

#[test]
fn settings_of_breakers_budgets_and_retries_that_contradict_each_other_are_named_with_both_lines() {
    let both = |toml: &str, line: u32, words: &str| {
        let found = problems(toml);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].code, "contradiction", "{found:?}");
        assert_eq!(
            found[0].place.as_ref().map(|place| place.line),
            Some(line),
            "{found:?}"
        );
        assert!(found[0].message.contains(words), "{found:?}");
    };
    let toml = upstream("[upstream.breaker]\nprobes = 2\nsuccesses = 3");
    let line = line_of(&around(&toml), "successes");
    let probes = format!(":{}", line - 1);
    both(&around(&toml), line, &probes);
    let toml = around(&upstream("[upstream.breaker]\nprobes = 2"));
    both(&toml, line_of(&toml, "probes"), "could never close");
    let toml = around(&upstream("[upstream.breaker]\nerror_rate = 1.0"));
    both(&toml, line_of(&toml, "error_rate"), "never opens");
    let toml = around(&route(
        "upstream = \"app\"\n[route.retry]\npreset = \"critical\"\nattempts = 3",
    ));
    let line = line_of(&toml, "attempts");
    both(&toml, line, &format!(":{}", line - 1));
    let toml = around(&route("upstream = \"app\"\nretry = { on = [] }"));
    both(&toml, line_of(&toml, "on = ["), "names nothing");
}

#[test]
fn absurd_numbers_of_breakers_and_budgets_are_refused() {
    for (keys, code) in [
        ("[upstream.breaker]\nfailures = 0", "bad-value"),
        ("[upstream.breaker]\nfailures = -1", "bad-value"),
        ("[upstream.breaker]\nvolume = 0", "bad-value"),
        ("[upstream.breaker]\nwindow = \"61s\"", "bad-duration"),
        ("[upstream.breaker]\nwindow = \"500ms\"", "bad-duration"),
        ("[upstream.breaker]\nopen_for = \"0s\"", "bad-duration"),
        ("[upstream.breaker]\ngrain = \"client\"", "bad-value"),
        ("[upstream.breaker]\nkind = \"error_class\"", "bad-value"),
        ("[upstream.breaker]\nerror_rate = 1.5", "bad-value"),
        ("[upstream.breaker]\nerror_rate = -0.1", "bad-value"),
        ("[upstream.retry_budget]\nratio = 1.5", "bad-value"),
        ("[upstream.retry_budget]\nratio = -0.2", "bad-value"),
        ("[upstream.retry_budget]\nfloor = \"-1/s\"", "bad-rate"),
        ("[upstream.retry_budget]\nfloor = \"10\"", "bad-rate"),
        ("[upstream.retry_budget]\nwindow = \"1h\"", "bad-duration"),
    ] {
        let found = problems(&around(&upstream(keys)));
        assert_eq!(found.len(), 1, "{keys}: {found:?}");
        assert_eq!(found[0].code, code, "{keys}: {found:?}");
        assert!(found[0].hint.is_some(), "{keys}: {found:?}");
    }
}

#[test]
fn what_this_build_cannot_do_is_refused_and_not_ignored() {
    one(
        "[[limit]]\nname = \"a\"\nby = { claim = \"sub\" }\nrate = \"1/s\"",
        "not-available",
        3,
        "take it out",
    );
    one(
        &listener("proxy_protocol = true"),
        "not-available",
        3,
        "take it out",
    );
    one(
        &route("upstream = \"app\"\nfilters = [{ allow = { peers = [\"a\"] } }]"),
        "not-available",
        4,
        "take it out",
    );
    assert_eq!(
        problems(&around(&upstream(
            "breaker = \"off\"\nretry_budget = \"off\"\nmax_in_flight = \"off\""
        ))),
        []
    );
}

/// GW-201: from a file or from the upstream, and one of the two.
#[test]
fn descriptors_come_from_one_place() {
    let filter = |keys: &str| {
        let filters = format!("upstream = \"app\"\nfilters = [{{ transcode = {{ {keys} }} }}]");
        format!("{}{UPSTREAM}protocol = \"http2\"\n", route(&filters))
    };
    for (keys, code, hint) in [
        ("convention = true", "missing-key", "reflection = true"),
        ("reflection = false", "missing-key", "reflection = true"),
        (
            "reflection = true, descriptors = \"a\"",
            "contradiction",
            "take `descriptors` or",
        ),
        (
            "descriptors = \"a\", refresh = \"1m\"",
            "contradiction",
            "take `refresh` out",
        ),
        (
            "reflection = true, refresh = \"999ms\"",
            "bad-duration",
            "\"1s\"",
        ),
    ] {
        let found = problems(&around(&filter(keys)));
        let found = found.iter().find(|problem| problem.code == code);
        let found = found.unwrap_or_else(|| panic!("{keys}"));
        assert_eq!(found.place.as_ref().map(|place| place.line), Some(4));
        assert!(found.hint.as_deref().unwrap_or_default().contains(hint));
    }
    assert_eq!(problems(&around(&filter("reflection = true"))), []);
}

#[test]
fn a_fault_must_do_something_that_can_be_done() {
    let fault = |text: &str| {
        route(&format!(
            "upstream = \"app\"\nfilters = [{{ fault = {{ {text} }} }}]"
        ))
    };
    for (text, code, hint) in [
        ("", "missing-key", "abort = 503"),
        ("percent = 5", "missing-key", "delay = \"200ms\""),
        ("headers = { x = \"1\" }", "missing-key", "or both"),
        ("abort = 200", "bad-value", "abort = 400"),
        ("abort = 600", "bad-value", "abort = 400"),
        ("abort = \"rest\"", "bad-value", "reset"),
        ("delay = \"0s\"", "bad-duration", "1ms"),
        ("delay = 200", "wrong-type", "\"5s\""),
        ("abort = 503, percent = 101", "bad-value", "percent = 100"),
        ("abort = 503, percent = -0.1", "bad-value", "percent = 100"),
        (
            "abort = 503, percent = \"5\"",
            "wrong-type",
            "percent = 100",
        ),
        ("abort = 503, percent = nan", "bad-value", "percent = 100"),
        ("abort = 503, header = {}", "unknown-key", "headers"),
    ] {
        one(&fault(text), code, 4, hint);
    }
    for good in [
        "delay = \"200ms\"",
        "abort = 503, percent = 0.01",
        "abort = \"reset\", percent = 0",
        "delay = \"1s\", abort = 429, headers = { x-a = { regex = \"a+\" }, x-b = { present = true } }",
    ] {
        assert_eq!(problems(&around(&fault(good))), [], "{good}");
    }
}

#[test]
fn what_cannot_be_true_of_the_whole_document_is_seen() {
    one(
        "[[listener]]\nname = \"a\"\nbind = \"127.0.0.1:0\"\n[[listener]]\nname = \"a\"\nbind = \"127.0.0.1:0\"",
        "duplicate-name",
        4,
        "another `name`",
    );
    one(
        "[[listener]]\nname = \"a\"\nbind = \"127.0.0.1:1\"\n[[listener]]\nbind = \"127.0.0.1:1\"",
        "duplicate-bind",
        4,
        "another address",
    );
    one(
        "[server]\nadmin = \"127.0.0.1:1\"\n[[listener]]\nbind = \"127.0.0.1:1\"",
        "duplicate-bind",
        3,
        "another address",
    );
    one(
        &format!("{UPSTREAM}{UPSTREAM}"),
        "duplicate-name",
        4,
        "another `name`",
    );
    one(
        "[[route]]\nname = \"a\"\nmatch = { path = \"/{x}\", methods = [\"A\", \"B\"] }\nupstream = \"app\"\n[[route]]\nname = \"b\"\nmatch = { path = \"/{y}\", methods = [\"B\", \"A\"] }\nupstream = \"app\"",
        "unreachable-route",
        7,
        "let their matches differ",
    );
    one(
        &route("upstream = \"app\"\nrewrite = { path = \"/{od}\" }"),
        "unknown-capture",
        4,
        "did you mean `id`?",
    );
    one(
        &route("upstream = \"app\"\nrewrite = { path = \"/b/*\" }"),
        "unknown-capture",
        4,
        "end the match's path with `/*`",
    );
    one(
        &route("redirect = { to = \"/{x}{path}{query}\" }"),
        "unknown-capture",
        3,
        "the captures are `id`",
    );
    one(
        &route("upstream = \"app\"\nrewrite = { strip_prefix = \"/b\" }"),
        "prefix-mismatch",
        4,
        "whole literal segments",
    );
    one(
        &route("split = [{ upstream = \"app\", weight = 0 }]"),
        "no-weight",
        3,
        "above 0",
    );
    one(&route("split = []"), "no-weight", 3, "upstream = \"a\"");
    one(
        &upstream("health = { tcp = true, interval = \"1s\", timeout = \"2s\" }"),
        "health-timeout",
        4,
        "at most as long",
    );
    one(
        &upstream("health = { grpc = \"a\" }"),
        "needs-http2",
        4,
        "protocol = \"http2\"",
    );
    one(
        &upstream("tls = { ca = \"no.pem\" }"),
        "missing-file",
        4,
        "correct the path",
    );
}

#[test]
fn a_client_certificate_needs_an_authority() {
    let text =
        listener("tls = { cert = \"no.pem\", key = \"no.key\", client_auth = \"required\" }");
    let codes: Vec<&str> = problems(&around(&text)).iter().map(|p| p.code).collect();
    assert_eq!(codes, ["missing-file", "missing-file", "missing-key"]);
}

#[test]
fn a_document_without_a_listener_is_refused() {
    let found = problems(&format!("{ROUTE}{UPSTREAM}"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].code, "no-listener");
    assert!(
        found[0]
            .hint
            .as_deref()
            .is_some_and(|h| h.contains("[[listener]]"))
    );
}

#[test]
fn references_that_lead_nowhere_have_a_line() {
    one(
        &upstream("zone = 1").replace("zone = 1", "protocol = \"${env:NO}\""),
        "unset-variable",
        4,
        "${env:NO:-default}",
    );
    one(
        &upstream("protocol = \"${NO}\""),
        "bad-reference",
        4,
        "`${env:NAME}`",
    );
    one(
        &upstream("protocol = \"${file:no}\""),
        "missing-file",
        4,
        "relative to the file",
    );
    one(
        "include = [\"no.toml\"]\n",
        "missing-file",
        1,
        "relative to the file",
    );
    one(
        "include = [\"no/*.toml\"]\n",
        "missing-file",
        1,
        "relative to this file",
    );
    one(
        "include = [\"*/no.toml\"]\n",
        "missing-file",
        1,
        "relative to this file",
    );
}

/// An interpolated text may be a secret.
#[test]
fn a_problem_never_quotes_what_a_reference_put_in() {
    let text = around(&upstream(
        "connect_timeout = \"${env:SECRET}\"\nbalance = \"${env:SECRET}\"\nmax_connections = \"${env:SECRET}\"",
    ));
    let loaded = Loader::with_environment(|_| Some("hunter2".to_owned())).load_text(
        "test.toml",
        &text,
        Path::new(""),
    );
    let shown = loaded.expect_err("three are wrong").to_string();
    assert!(
        shown.contains("3 problems") && !shown.contains("hunter2"),
        "{shown}"
    );
}

#[test]
fn a_mistake_of_syntax_hides_no_other_problem() {
    let text = "[[listener]]\nbind = \"127.0.0.1:0\n\n[[route]]\nmatch = { path = \"/a\"\nupstream = \"app\"\n\n[[upstream]]\nname = \"app\"\nendpoints = [\"a:1\"]\nblance = 1\n\n[[route]]\nupstream = \"ap\"\n";
    let found: Vec<(&str, u32)> = problems(text)
        .iter()
        .map(|p| (p.code, p.place.as_ref().map_or(0, |place| place.line)))
        .collect();
    let has = |code: &str, line: u32| found.contains(&(code, line));
    assert!(
        has("syntax", 2) && has("unknown-key", 11) && has("unknown-upstream", 14),
        "{found:?}"
    );
    assert!(
        found
            .iter()
            .any(|(code, line)| *code == "syntax" && (5..=6).contains(line)),
        "{found:?}"
    );
    assert!(found.is_sorted_by_key(|(_, line)| *line), "{found:?}");
}

#[test]
fn names_that_a_broken_item_defines_are_not_called_unknown() {
    let found = problems(
        "[[listener]]\nbind = \"127.0.0.1:0\"\n[[route]]\nupstream = \"app\"\n[[upstream]]\nname = \"app\"\nendpoints = [\n",
    );
    assert!(found.iter().all(|p| p.code == "syntax"), "{found:?}");
    let found = problems(
        "[[listener]]\nbind = \"127.0.0.1:0\"\n[[route]]\nupstream = \"app\"\n[[upstream]]\nname = \"app\"\n",
    );
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_name_defined_twice_names_both_files() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(
        folder.path().join("a.toml"),
        format!("include = [\"b.toml\"]\n{LISTENER}{ROUTE}{UPSTREAM}"),
    )
    .expect("written");
    std::fs::write(folder.path().join("b.toml"), UPSTREAM).expect("written");
    let refused = Loader::new()
        .load(&folder.path().join("a.toml"))
        .expect_err("twice");
    let problem = &refused.0[0];
    assert_eq!(problem.code, "duplicate-name");
    assert!(
        problem
            .place
            .as_ref()
            .is_some_and(|p| p.file.ends_with("b.toml") && p.line == 1)
    );
    assert!(problem.message.contains("a.toml:7:1"), "{problem}");
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_without_a_line() {
    let refused = Loader::new()
        .load(Path::new("/no/such/file.toml"))
        .expect_err("missing");
    assert_eq!((refused.0.len(), refused.0[0].code), (1, "missing-file"));
}

fn limit(key: &str) -> String {
    format!("[[limit]]\nname = \"login\"\nby = \"client_ip\"\n{key}\n")
}

#[test]
fn limits_that_mean_nothing_are_refused_with_what_to_write() {
    one(&limit("rate = \"0/s\""), "bad-rate", 4, "1/h");
    one(&limit("rate = \"-5/s\""), "bad-rate", 4, "100/s");
    one(&limit("rate = \"5/0s\""), "bad-rate", 4, "100/s");
    one(&limit("rate = \"1000001/s\""), "bad-rate", 4, "1000000/s");
    one(&limit("rate = \"2000/1ms\""), "bad-rate", 4, "1000000/s");
    one(&limit("rate = \"5/s\"\nburst = 0"), "bad-value", 5, "burst");
    one(
        &limit("rate = \"5/s\"\nburst = 10000001"),
        "bad-value",
        5,
        "burst",
    );
    one(
        &limit("rate = \"1/24h\"\nburst = 1000"),
        "absurd-limit",
        5,
        "a higher `rate`",
    );
    one(&limit("burst = 5"), "missing-key", 1, "rate");
    one(
        "[[limit]]\nname = \"tiers\"\nby = \"route\"\nrate = \"5/s\"",
        "reserved-name",
        2,
        "another name",
    );
    one(
        "[[limit]]\nname = \"a\"\nby = \"client\"\nrate = \"5/s\"",
        "bad-value",
        3,
        "client_ip",
    );
    one(
        "[tiers.free]\nrate = \"100/m\"\nmonthly_quota = 0",
        "bad-value",
        3,
        "monthly_quota",
    );
    one("[tiers.free]\nburst = 7", "missing-key", 1, "rate");
    one(
        "[tiers.free]\nrate = \"1/s\"\nx = 1",
        "unknown-key",
        3,
        "`burst`",
    );
}

#[test]
fn a_shared_limit_needs_a_store_and_a_bad_store_is_told_without_its_text() {
    let shared = "[[limit]]\nname = \"a\"\nby = \"route\"\nrate = \"1/s\"\nshared = true\n";
    one(shared, "no-store", 1, "store = ");
    let limits = |text: &str| format!("[limits]\n{text}\n{shared}");
    assert_eq!(problems(&around(&limits("store = \"redis://a\""))), []);
    for (text, code, line, hint) in [
        ("store = \"a:1\"", "bad-store", 1, "redis://"),
        ("store = \"redis://:hush@a:x\"", "bad-store", 1, "rediss"),
        ("timeout = \"1s\"", "no-control-plane", 1, "urls = "),
        (
            "store = \"control-plane\"",
            "no-control-plane",
            1,
            "urls = ",
        ),
        (
            "store = \"redis://a\"\nca = \"ca.pem\"",
            "contradiction",
            3,
            "rediss",
        ),
        (
            "store = \"redis://a\"\novershoot = 1.5",
            "bad-value",
            3,
            "0.1",
        ),
        ("store = \"redis://a\"\ngateways = 0", "bad-value", 3, "1"),
        (
            "store = \"redis://a\"\ntimeout = \"0s\"",
            "bad-duration",
            3,
            "1ms",
        ),
        (
            "store = \"redis://a\"\nurl = \"b\"",
            "unknown-key",
            3,
            "store",
        ),
    ] {
        one(&limits(text), code, line, hint);
    }
    let told = format!(
        "{:?}",
        problems(&around(&limits("store = \"redis://:hush@a:x\"")))
    );
    assert!(!told.contains("hush"), "{told}");
}

#[test]
fn a_limit_is_shared_through_the_control_plane_without_another_word() {
    let shared = "[[limit]]\nname = \"a\"\nby = \"route\"\nrate = \"1/s\"\nshared = true\n";
    let plane = "[control_plane]\nurls = [\"http://127.0.0.1:1\"]\n";
    for good in [
        "",
        "[limits]\nstore = \"control-plane\"\n",
        "[limits]\novershoot = 0.02\n",
        "[limits]\nstore = \"redis://a\"\n",
    ] {
        assert_eq!(problems(&around(&format!("{good}{plane}{shared}"))), []);
    }
    let ca = format!("[limits]\nca = \"ca.pem\"\n{plane}{shared}");
    one(&ca, "contradiction", 2, "[control_plane]");
}

#[test]
fn names_of_limits_and_tiers_must_be_known_and_be_there_once() {
    let twice = limit("rate = \"5/s\"").repeat(2);
    one(&twice, "duplicate-name", 5, "another `name`");
    let unknown = format!(
        "{}{}",
        route("upstream = \"app\"\nfilters = [{ rate_limit = \"logn\" }]"),
        limit("rate = \"5/15m\"")
    );
    one(&unknown, "unknown-limit", 4, "did you mean `login`?");
    one(
        "[[api_key]]\nkey = \"0123456789\"\nclient = \"a\"\ntier = \"fre\"",
        "unknown-tier",
        4,
        "did you mean `free`?",
    );
    one(
        &route("upstream = \"app\"\nfilters = [{ api_key = \"required\" }]"),
        "no-key",
        4,
        "[[api_key]]",
    );
    one(
        "[[limit]]\nname = \"a\"\nby = \"api_key\"\nrate = \"5/s\"",
        "no-key",
        1,
        "client_ip",
    );
}

#[test]
fn a_key_stands_once_has_one_tier_and_is_never_told() {
    let key = |key: &str, client: &str, tier: &str| {
        format!("[[api_key]]\nkey = \"{key}\"\nclient = \"{client}\"\ntier = \"{tier}\"\n")
    };
    one(
        &(key("0123456789", "a", "free") + &key("0123456789", "b", "free")),
        "duplicate-key",
        5,
        "of its own",
    );
    one(
        &(key("0123456789", "a", "free") + &key("9876543210", "a", "professional")),
        "contradiction",
        5,
        "one tier",
    );
    one(&key("short", "a", "free"), "bad-key", 1, "openssl rand");
    let text = around(&(key("0123456789", "a", "free") + &key("0123456789", "b", "fre")));
    let told = format!("{:?}", problems(&text));
    assert!(!told.contains("0123456789"), "{told}");
    let loaded = Loader::new().load_text(
        "t.toml",
        &around(&key("0123456789", "a", "free")),
        Path::new(""),
    );
    let told = format!("{:?}", loaded.expect("valid").api_keys);
    assert!(!told.contains("0123456789"), "{told}");
}

#[test]
fn an_upstream_for_any_service_says_how_they_are_learned_and_needs_somebody_who_knows_them() {
    let control = "[control_plane]\nurls = [\"http://127.0.0.1:1\"]\n";
    let any = "[[upstream]]\nname = \"app\"\nservice = \"*\"\n";
    let fine = around(&format!("{any}learn = {{ forget = \"1h\" }}\n{control}"));
    assert_eq!(problems(&fine).len(), 0, "{:?}", problems(&fine));
    one(any, "no-control-plane", 3, "urls = ");
    let always = any.replace('*', "orders");
    one(
        &format!("{always}learn = {{ timeout = \"1s\" }}\n{control}"),
        "contradiction",
        4,
        "service = \"*\"",
    );
    one(
        &format!("{any}{control}[[upstream]]\nname = \"app:orders\"\nservice = \"orders\"\n"),
        "duplicate-name",
        6,
        "another `name`",
    );
}

#[test]
fn who_speaks_with_members_must_be_one_mesh_305() {
    let identity = "[identity]\nservice = \"orders\"\nkubernetes_token = \"/run/token\"\n";
    let plane = "[control_plane]\nurls = [\"http://127.0.0.1:1\"]\n";
    let listener = |keys: &str| format!("[[listener]]\nbind = \"127.0.0.1:0\"\n{keys}\n");
    let upstream = |keys: &str| format!("[[upstream]]\nname = \"app\"\n{keys}\n");
    let member = format!("{identity}{plane}");
    for good in [
        listener("mesh = \"strict\""),
        listener("mesh = \"permissive\""),
        listener("mesh = \"off\"\ntls = []").replace("tls = []", ""),
        upstream("service = \"orders\"\nmesh = true"),
        upstream("endpoints = [\"127.0.0.1:1\"]\nmesh = \"payments\""),
        upstream("dns = \"a:1\"\nmesh = \"other/payments\""),
        upstream(
            "service = \"orders\"\nmesh = true\nprotocol = \"auto\"\nhealth = { grpc = \"a\" }",
        ),
    ] {
        assert_eq!(problems(&around(&format!("{member}{good}"))), [], "{good}");
    }
    one(
        &listener("mesh = \"strict\""),
        "no-identity",
        3,
        "[identity]",
    );
    let named = upstream("endpoints = [\"127.0.0.1:1\"]\nmesh = \"a\"");
    one(&named, "no-identity", 4, "[identity]");
    one(&listener("mesh = \"on\""), "bad-value", 3, "");
    let true_of_what = upstream("endpoints = [\"127.0.0.1:1\"]\nmesh = true");
    one(
        &format!("{true_of_what}{member}"),
        "missing-key",
        4,
        "mesh = \"orders\"",
    );
    let spaced = upstream("service = \"a b\"\nmesh = true");
    one(&format!("{spaced}{member}"), "bad-identity", 3, "letters");
    let odd = upstream("endpoints = [\"127.0.0.1:1\"]\nmesh = \"a/b/c\"");
    one(&format!("{odd}{member}"), "bad-identity", 4, "letters");
    let both = upstream("endpoints = [\"127.0.0.1:1\"]\ntls = {}\nmesh = \"a\"");
    one(&format!("{both}{member}"), "contradiction", 5, "take one");
}

#[test]
fn a_member_must_be_able_to_have_a_certificate_mesh_307() {
    let plane = "[control_plane]\nurls = [\"http://127.0.0.1:1\"]\n";
    let identity = |keys: &str| format!("[identity]\nservice = \"orders\"\n{keys}\n");
    let platform = identity("kubernetes_token = \"/run/token\"");
    one(&platform, "no-authority", 1, "[control_plane]");
    one(
        &format!("{}{plane}", identity("")),
        "no-proof",
        1,
        "tollgate identity token",
    );
    // What an earlier process was given renews itself.
    let kept = format!("[server]\nstate_dir = \"s\"\n{}{plane}", identity(""));
    assert_eq!(problems(&around(&kept)), []);
    let open = identity("token = \"hunter2-hunter2-hunter2\"");
    let told = problems(&around(&format!("{open}{plane}")));
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].code, "token-in-the-open");
    assert!(!format!("{told:?}").contains("hunter2"));
    let half = format!(
        "{}{plane}",
        identity("cert = \"a.pem\"\nkubernetes_token = \"t\"")
    );
    let codes: Vec<&str> = problems(&around(&half))
        .iter()
        .map(|one| one.code)
        .collect();
    assert!(
        codes.contains(&"contradiction") || codes.len() > 1,
        "{codes:?}"
    );
    let files = identity("cert = \"a.pem\"\nkey = \"a.key\"\nca = \"ca.pem\"");
    let missing = problems(&around(&files));
    assert_eq!(missing.len(), 3, "{missing:#?}");
    assert!(missing.iter().all(|one| one.code == "missing-file"));
    one(
        &format!("[identity]\nservice = \"a/b\"\nkubernetes_token = \"t\"\n{plane}"),
        "bad-identity",
        2,
        "letters",
    );
}

#[test]
fn mesh_102_keys_about_bytes_fit_together() {
    let needs = "write `forward";
    one(&listener("protocol = \"tcp\""), "missing-key", 3, needs);
    one(&listener("protocol = \"detect\""), "missing-key", 3, needs);
    for protocol in ["auto", "http1", "http2"] {
        one(
            &listener(&format!("protocol = \"{protocol}\"\nforward = \"app\"")),
            "contradiction",
            4,
            "`protocol = \"tcp\"` or `protocol = \"detect\"`",
        );
    }
    one(
        &listener("protocol = \"tcp\"\nforward = \"ap\""),
        "unknown-upstream",
        4,
        "did you mean `app`?",
    );
    one(
        &listener("protocol = \"tcp\"\nforward = \"app\"\ndetect_timeout = \"1s\""),
        "contradiction",
        5,
        "`protocol = \"detect\"`",
    );
    one(
        &listener("relay_idle_timeout = \"1s\""),
        "missing-key",
        3,
        "forward",
    );
    one(
        &format!(
            "[[route]]\nmatch = {{ listener = \"in\" }}\nupstream = \"app\"\n{}",
            "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\nforward = \"app\""
        ),
        "never-http",
        2,
        "name another listener",
    );
}

#[test]
fn mesh_101_where_connections_were_going_is_known_to_who_captures_them() {
    let original = "[[upstream]]\nname = \"app\"\nendpoints = \"original\"\n";
    one(original, "no-capture", 3, "`capture = true`");
    let captures = format!("{}{original}", listener("capture = true"));
    assert_eq!(problems(&around(&captures)), []);
    for key in [
        "balance = \"random\"",
        "breaker = { failures = 3 }",
        "outlier = { failures = 3 }",
        "health = { tcp = true }",
    ] {
        let name = key.split(' ').next().expect("a key");
        let hint = format!("take `{name}` out");
        one(&format!("{captures}{key}\n"), "contradiction", 7, &hint);
    }
    assert_eq!(
        problems(&around(&format!("{captures}breaker = \"off\"\n"))),
        []
    );
    one(
        &upstream("").replace("[\"127.0.0.1:9000\"]", "\"origin\""),
        "bad-value",
        3,
        "\"original\"",
    );
}
