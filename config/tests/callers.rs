//! Mistakes about who may call and what browsers are told: each with its code, its line and a next step.

use std::path::Path;

use tollgate_config::{Cors, Filter, Loader, OriginPattern, Problem};

const SECRET: &str = "keys = [{ secret = \"a-secret-of-thirty-two-characters\" }]";

/// A document with these filters on its one route, on line 6, and this behind it, from line 9.
fn document(filters: &str, more: &str) -> String {
    format!(
        "[[listener]]\nbind = \"127.0.0.1:0\"\n[[route]]\nmatch = {{ path = \"/users/{{id}}\" }}\nupstream = \"app\"\n\
         filters = [{filters}]\n[[upstream]]\nname = \"app\"\nendpoints = [\"127.0.0.1:9000\"]\n{more}\n"
    )
}

/// A `[[jwt]]` named `users` that begins on line 10.
fn jwt(keys: &str) -> String {
    format!("[[jwt]]\nname = \"users\"\nissuer = \"i\"\naudience = \"a\"\n{keys}")
}

fn problems(text: &str) -> Vec<Problem> {
    let loaded =
        Loader::with_environment(|_| None).load_text("t.toml", text, Path::new("/nowhere"));
    loaded.map_or_else(|problems| problems.0, |_| Vec::new())
}

#[track_caller]
fn one(text: &str, code: &str, line: u32, words: &str) {
    let found = problems(text);
    let [problem] = found.as_slice() else {
        panic!("{} problems in:\n{text}\n{found:#?}", found.len());
    };
    let place = problem.place.as_ref().expect("a place");
    assert_eq!((problem.code, place.line), (code, line), "{problem}");
    let told = format!(
        "{} {}",
        problem.message,
        problem.hint.as_deref().unwrap_or_default()
    );
    assert!(told.contains(words), "`{words}` is not in: {told}");
}

#[test]
fn an_issuer_needs_a_key_that_can_be_one_and_an_audience() {
    assert_eq!(problems(&document("{ jwt = \"users\" }", &jwt(SECRET))), []);
    let cases = [
        (jwt(""), "no-key", 10, "jwks"),
        (jwt("keys = []"), "no-key", 10, "jwks"),
        (
            jwt("keys = [{ secret = \"short\" }]"),
            "bad-key",
            10,
            "32 bytes",
        ),
        (
            jwt(
                "keys = [{ secret = \"a-secret-of-thirty-two-characters\", algorithm = \"HS512\" }]",
            ),
            "bad-key",
            10,
            "64 bytes",
        ),
        (
            jwt(
                "keys = [{ secret = \"a-secret-of-thirty-two-characters\", algorithm = \"RS256\" }]",
            ),
            "contradiction",
            10,
            "RS256",
        ),
        (
            jwt("keys = [{ file = \"/no/such/key.pem\" }]"),
            "missing-file",
            14,
            "/no/such/key.pem",
        ),
        (jwt("jwks = \"ftp://a/b\""), "bad-target", 14, "https://"),
        (
            jwt("jwks = \"https://u:p@a/b\""),
            "bad-target",
            14,
            "user name",
        ),
        (
            jwt("jwks = \"https://a/b c\""),
            "bad-target",
            14,
            "no URL has",
        ),
        (
            jwt("jwks = { url = \"http://a/b\", ca = \"x.pem\" }"),
            "contradiction",
            14,
            "without TLS",
        ),
        (jwt(SECRET).replace("\"a\"", "[]"), "no-audience", 13, "off"),
        (
            jwt(&format!("{SECRET}\nheaders = {{ host = \"sub\" }}")),
            "bad-header",
            15,
            "rewrite",
        ),
        (
            format!("{0}\n{0}", jwt(SECRET)),
            "duplicate-name",
            15,
            "another `name`",
        ),
    ];
    for (more, code, line, words) in cases {
        let text = document("", &more);
        let found: Vec<Problem> = problems(&text);
        // A missing file is told where it is named and where it is read.
        if code == "missing-file" {
            assert!(
                found.iter().all(|problem| problem.code == code),
                "{found:#?}"
            );
            continue;
        }
        one(&text, code, line, words);
    }
}

#[test]
fn secrets_are_neither_told_nor_shown_nor_kept_as_text() {
    let typo =
        jwt("keys = [{ secret = \"a-secret-of-thirty-two-characters\", algoritm = \"HS256\" }]");
    let told = format!("{:?}", problems(&document("", &typo)));
    assert!(
        told.contains("algoritm") && !told.contains("thirty-two"),
        "{told}"
    );
    let mut loader = Loader::with_environment(|_| None);
    let text = document("", &jwt(SECRET));
    for _ in 0..2 {
        let loaded = loader.load_text("t.toml", &text, Path::new("/"));
        let told = format!("{:?}", loaded.expect("valid").jwts);
        assert!(!told.contains("thirty-two"), "{told}");
    }
}

#[test]
fn filters_name_what_is_there_and_ask_for_what_is_known() {
    let issuer = jwt(SECRET);
    let roles = "{ allow = { roles = [\"admin\"] } }";
    let cases = [
        ("{ jwt = \"user\" }", "unknown-jwt", "did you mean `users`?"),
        (
            "{ jwt = \"users\" }, { jwt = \"users\" }",
            "contradiction",
            "two filters",
        ),
        (
            "{ cors = {} }, { cors = {} }",
            "contradiction",
            "two filters",
        ),
        (roles, "no-caller", "role admin"),
        (
            &format!("{roles}, {{ jwt = \"users\" }}"),
            "no-caller",
            "before it",
        ),
        ("{ allow = {} }", "missing-key", "says nothing"),
        ("{ allow = { any_of = [] } }", "missing-key", "says nothing"),
        (
            "{ allow = { cidr = [\"10.0.0.0/8\"], any_of = [{}] } }",
            "missing-key",
            "says nothing",
        ),
        (
            "{ allow = { cidr = [] } }",
            "missing-key",
            "`cidr` is empty",
        ),
        (
            "{ jwt = \"users\" }, { allow = { owner = { parameter = \"user\" } } }",
            "unknown-capture",
            "does not capture",
        ),
    ];
    for (filters, code, words) in cases {
        one(&document(filters, &issuer), code, 6, words);
    }
    let fine = "{ cors = {} }, { jwt = { name = \"users\", token = \"optional\" } }, \
                { allow = { any_of = [{ owner = { parameter = \"id\" } }, { roles = [\"admin\"] }] } }, { security_headers = {} }";
    assert_eq!(problems(&document(fine, &issuer)), []);
    assert_eq!(
        problems(&document("{ allow = { cidr = [\"10.0.0.0/8\"] } }", "")),
        []
    );
}

#[test]
fn gw_805_origins_are_written_as_browsers_send_them_and_everybody_is_nobody_with_credentials() {
    let cors = |keys: &str| document(&format!("{{ cors = {{ {keys} }} }}"), "");
    let cases = [
        ("origins = [\"*\"]", "contradiction", "credentials = false"),
        (
            "origins = [\"null\"]",
            "contradiction",
            "credentials = false",
        ),
        (
            "origins = [\"shop.example\"]",
            "bad-origin",
            "is not an origin",
        ),
        (
            "origins = [\"https://shop.example/\"]",
            "bad-origin",
            "slash at the end",
        ),
        (
            "origins = [\"https://Shop.example\"]",
            "bad-origin",
            "lower case",
        ),
        (
            "origins = [\"https://shop.example:443\"]",
            "bad-origin",
            "own port",
        ),
        (
            "origins = [\"https://*\"]",
            "bad-origin",
            "is not an origin",
        ),
        (
            "origins = [\"https://a.*.example\"]",
            "bad-origin",
            "is not an origin",
        ),
        ("methods = [\"G ET\"]", "bad-method", ""),
    ];
    for (keys, code, words) in cases {
        one(&cors(keys), code, 6, words);
    }
    for keys in [
        "origins = [\"*\"], credentials = false",
        "origins = [\"https://*.shop.example\", \"http://localhost:3000\", \"capacitor://localhost\"]",
    ] {
        assert_eq!(problems(&cors(keys)), [], "{keys}");
    }
    let loaded = Loader::new()
        .load_text("t.toml", &cors(""), Path::new("/"))
        .expect("valid");
    let Filter::Cors(Cors {
        origins,
        credentials,
        max_age,
        methods,
        ..
    }) = &loaded.routes[0].filters[0].value
    else {
        panic!("another filter");
    };
    assert_eq!(
        *origins,
        [OriginPattern::Exact("http://localhost:3000".to_owned())]
    );
    assert_eq!((*credentials, *max_age, methods.len()), (true, 600, 5));
}

#[test]
fn keys_that_come_in_the_clear_from_elsewhere_are_worth_a_warning() {
    for (url, warned) in [
        ("http://keys.example/a", true),
        ("http://10.0.0.1:80/a", true),
        ("https://keys.example/a", false),
        ("http://127.0.0.1:7001/a", false),
        ("http://[::1]:7001/a", false),
        ("http://localhost/a", false),
    ] {
        let text = document("", &jwt(&format!("jwks = \"{url}\"")));
        let loaded = Loader::new().load_text("t.toml", &text, Path::new("/"));
        let warnings = tollgate_config::warnings(&loaded.expect("valid"));
        let told = { warnings.iter() }.any(|one| one.code == "keys-in-the-clear");
        assert_eq!(told, warned, "{url}");
    }
}

#[test]
fn the_sample_is_a_document() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("callers.toml");
    let loaded = Loader::new().load(&path).expect("valid");
    assert_eq!(
        (loaded.jwts.len(), loaded.routes.len(), loaded.tests.len()),
        (1, 4, 2)
    );
}

/// An `[[access]]` that begins on line 10.
fn access(keys: &str) -> String {
    format!("[[access]]\nname = \"orders-pay\"\n{keys}")
}

#[test]
fn a_rule_of_access_says_who_may_call_what_and_everything_else_is_refused_mesh_402() {
    let good = [
        "from = \"*\"",
        "from = [\"orders\", \"shop/web\", \"attic/*\"]\nto = \"shop/payments\"\nmethods = [\"GET\"]\npath = [\"/a/{b}\", \"/c/*\"]",
        "from = \"orders\"\nto = \"payments\"\ngrpc = [\"a.v1.B/Get\", \"a.v1.C/*\"]",
        "from = \"orders\"\nroles = [\"support\"]\nclaims = { tenant = [\"a\", \"b\"], region = \"eu\" }",
    ];
    for keys in good {
        let text = document("{ access = \"audit\" }", &access(keys));
        assert_eq!(problems(&text), [], "{keys}");
    }
    let cases = [
        (access(""), "missing-key", 10, "from"),
        (
            access("from = []"),
            "missing-key",
            12,
            "nobody or everybody",
        ),
        (access("from = \"a b\""), "bad-name", 12, "shop/orders"),
        (access("from = \"*/orders\""), "bad-name", 12, "shop/orders"),
        (
            access("from = \"orders\"\nto = \"a/b/c\""),
            "bad-name",
            13,
            "shop/orders",
        ),
        (
            access("from = \"orders\"\ngrpc = \"a.v1.B\""),
            "bad-name",
            13,
            "a.v1.B` is not a gRPC method",
        ),
        (
            access("from = \"orders\"\ngrpc = \"a.v1.B/*\"\npath = \"/a\""),
            "contradiction",
            13,
            "path",
        ),
        (
            access("from = \"orders\"\npath = \"/a//b\""),
            "bad-pattern",
            13,
            "normal form",
        ),
        (
            access("from = \"orders\"\nfor = \"payments\""),
            "unknown-key",
            13,
            "from",
        ),
        (
            format!("{0}\n{0}", access("from = \"orders\"")),
            "duplicate-name",
            13,
            "another `name`",
        ),
    ];
    for (more, code, line, words) in cases {
        one(&document("", &more), code, line, words);
    }
    let twice = document("{ access = \"audit\" }, { access = \"enforce\" }", "");
    one(&twice, "contradiction", 6, "two filters `access`");
    let mode = document("{ access = \"on\" }", "");
    one(&mode, "bad-value", 6, "enforce");
}

#[test]
fn a_label_of_all_series_has_a_name_that_a_series_may_have_mesh_501() {
    let labels = |labels: &str| document("", &format!("[telemetry]\nlabels = {{ {labels} }}"));
    assert_eq!(problems(&labels("proxy = \"sidecar\"")), []);
    for name in ["le", "job", "__name__", "\"a-b\"", "\"1a\""] {
        one(&labels(&format!("{name} = \"x\"")), "bad-name", 11, "proxy");
    }
}
