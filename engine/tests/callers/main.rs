//! Who may call, as clients, upstreams and operators see it: tokens checked with keys of the document and with keys that
//! an issuer publishes, rules about roles, ownership and addresses, and what becomes of both over reloads.

mod published;

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tollgate_engine::testing::client::Response;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::h2_client;
use tollgate_engine::testing::tokens::Signer;
use tollgate_engine::testing::upstream::Upstream;

const SECRET: &str = "a-secret-of-thirty-two-characters";

/// Claims of somebody whose token is good for an hour from now.
fn claims(subject: &str, roles: &[&str]) -> Value {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    json!({ "iss": "users", "aud": "shop", "sub": subject, "roles": roles, "exp": now.as_secs() + 3600 })
}

fn token(subject: &str, roles: &[&str]) -> String {
    Signer::secret(SECRET).token(&claims(subject, roles))
}

/// Routes for users, for their owners, for administrators and for everybody.
fn toml(upstream: &Upstream, keys: &str) -> String {
    let address = upstream.address();
    format!(
        r#"[[listener]]
name = "in"
bind = "127.0.0.1:0"
trusted_proxies = ["127.0.0.1/32"]

[[upstream]]
name = "app"
endpoints = ["{address}"]

[[jwt]]
name = "users"
issuer = "users"
audience = "shop"
grants = {{ seller = ["products:write"] }}
{keys}

[[route]]
name = "open"
match = {{ path = "/products" }}
upstream = "app"

[[route]]
name = "sell"
match = {{ path = "/products", methods = ["POST"] }}
upstream = "app"
filters = [{{ jwt = "users" }}, {{ allow = {{ permissions = ["products:write"] }} }}]

[[route]]
name = "maybe"
match = {{ path = "/maybe" }}
upstream = "app"
filters = [{{ jwt = {{ name = "users", token = "optional" }} }}]

[[route]]
name = "own"
match = {{ path = "/users/{{id}}" }}
upstream = "app"
filters = [
  {{ jwt = "users" }},
  {{ allow = {{ any_of = [{{ owner = {{ parameter = "id" }} }}, {{ roles = ["admin"] }}] }} }},
]

[[route]]
name = "office"
match = {{ path = "/office" }}
upstream = "app"
filters = [{{ allow = {{ cidr = ["10.0.0.0/8"] }} }}]

[[route]]
name = "either"
match = {{ path = "/either" }}
upstream = "app"
filters = [
  {{ jwt = {{ name = "users", token = "optional" }} }},
  {{ allow = {{ any_of = [{{ roles = ["admin"] }}, {{ cidr = ["10.0.0.0/8"] }}] }} }},
]
"#
    )
    .replace(
        "upstream = \"app\"\n",
        "upstream = \"app\"\ntimeout = \"60s\"\n",
    )
}

fn local() -> String {
    format!("keys = [{{ secret = \"{SECRET}\" }}]")
}

fn ask(gateway: &Gateway, line: &str, token: &str) -> Response {
    let field = format!("Authorization: Bearer {token}");
    gateway.client().request(line, &[&field])
}

#[test]
fn gw_901_a_token_that_holds_opens_the_route_and_upstreams_are_told_whose_it_is() {
    let upstream = Upstream::fixed("ok");
    let gateway = Gateway::start(&toml(&upstream, &local()));
    let answer = ask(
        &gateway,
        "POST /products",
        &token("u1", &["user", "seller"]),
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    let sent = upstream.request();
    for (name, value) in [
        ("x-user-id", Some("u1")),
        ("x-user-roles", Some("user,seller")),
        ("x-user-permissions", Some("products:write")),
        ("x-tenant-id", None),
    ] {
        assert_eq!(sent.header(name), value, "{name}");
    }
    assert!(
        sent.header("authorization").is_some(),
        "services check too (GW-909)"
    );
}

#[test]
fn hi_57_what_only_we_may_say_is_taken_from_clients_on_every_route() {
    let upstream = Upstream::fixed("ok");
    let gateway = Gateway::start(&toml(&upstream, &local()));
    let forged = ["X-User-Id: root", "X_User_Roles: admin", "X-Tenant-Id: t"];
    for line in ["GET /products", "GET /maybe"] {
        assert_eq!(
            gateway.client().request(line, &forged).status,
            200,
            "{line}"
        );
    }
    let token = format!("Authorization: Bearer {}", token("u1", &["user"]));
    let lines = [forged[0], &token];
    assert_eq!(gateway.client().request("GET /maybe", &lines).status, 200);
    let sent = upstream.requests();
    for request in &sent[..2] {
        for name in ["x-user-id", "x_user_roles", "x-user-roles", "x-tenant-id"] {
            assert_eq!(request.header(name), None, "{name}");
        }
    }
    assert_eq!(sent[2].all("x-user-id"), ["u1"]);
}

#[test]
fn every_refusal_has_its_code_its_challenge_and_its_count() {
    let upstream = Upstream::fixed("ok");
    let gateway = Gateway::start(&toml(&upstream, &local()));
    let signer = Signer::secret(SECRET);
    let mut old = claims("u1", &["seller"]);
    old["exp"] = json!(1000);
    let refused = |answer: Response, status, code: &str, challenge: Option<&str>| {
        assert_eq!((answer.status, &*answer.code()), (status, code));
        assert_eq!(answer.header("www-authenticate"), challenge, "{code}");
        assert!(!answer.text().contains("seller"), "{}", answer.text());
    };
    let line = "POST /products";
    let invalid = Some("Bearer error=\"invalid_token\"");
    refused(
        gateway.client().request(line, &[]),
        401,
        "token_required",
        Some("Bearer"),
    );
    let basic = gateway
        .client()
        .request(line, &["Authorization: Basic dTpw"]);
    refused(basic, 401, "token_required", Some("Bearer"));
    refused(ask(&gateway, line, "a.b.c"), 401, "invalid_token", invalid);
    let double = format!("Authorization: Bearer {}", token("u1", &["seller"]));
    let double = gateway.client().request(line, &[&double, &double]);
    refused(double, 401, "invalid_token", invalid);
    let expired = "Bearer error=\"invalid_token\", error_description=\"the token has expired\"";
    refused(
        ask(&gateway, line, &signer.token(&old)),
        401,
        "token_expired",
        Some(expired),
    );
    refused(
        ask(&gateway, line, &token("u1", &["user"])),
        403,
        "forbidden",
        None,
    );
    assert!(
        upstream.requests().is_empty(),
        "nothing was asked of the upstream"
    );
    gateway.wait_metrics(&[
        "errors_total{code=\"forbidden\"} 1\n",
        "jwt_tokens_total{jwt=\"users\",result=\"absent\"} 2\n",
        "jwt_tokens_total{jwt=\"users\",result=\"invalid\"} 2\n",
        "jwt_tokens_total{jwt=\"users\",result=\"expired\"} 1\n",
        "jwt_tokens_total{jwt=\"users\",result=\"verified\"} 1\n",
        "errors_total{code=\"token_required\"} 2\n",
    ]);
}

#[test]
fn gw_902_where_a_token_is_optional_one_that_does_not_hold_counts_as_absent() {
    let upstream = Upstream::fixed("ok");
    let gateway = Gateway::start(&toml(&upstream, &local()));
    for token in [
        "a.b.c",
        &Signer::secret("another-secret-of-32-characters!").token(&claims("u1", &[])),
    ] {
        assert_eq!(ask(&gateway, "GET /maybe", token).status, 200);
    }
    assert_eq!(ask(&gateway, "GET /maybe", &token("u1", &[])).status, 200);
    let told: Vec<_> = upstream
        .requests()
        .iter()
        .map(|one| one.header("x-user-id").map(str::to_owned))
        .collect();
    assert_eq!(told, [None, None, Some("u1".to_owned())]);
}

#[test]
fn gw_904_owners_and_administrators_get_in_and_the_path_is_read_as_it_is_sent() {
    let upstream = Upstream::fixed("ok");
    let gateway = Gateway::start(&toml(&upstream, &local()));
    for (path, subject, roles, status) in [
        ("/users/u1", "u1", &["user"][..], 200),
        ("/users/%751", "u1", &["user"], 200),
        ("/x/../users//u1", "u1", &["user"], 200),
        ("/users/u2", "u1", &["user"], 403),
        ("/users/U1", "u1", &["user"], 403),
        ("/users/u1", "u1 ", &["user"], 401),
        ("/users/u2", "root", &["admin"], 200),
        ("/users/u2", "root", &["administrator"], 403),
        ("/users/a%20b", "a b", &["user"], 200),
    ] {
        let answer = ask(&gateway, &format!("GET {path}"), &token(subject, roles));
        assert_eq!(answer.status, status, "{path} as {subject} {roles:?}");
    }
}

#[test]
fn addresses_are_those_behind_trusted_proxies_and_a_rule_about_callers_asks_for_a_token() {
    let upstream = Upstream::fixed("ok");
    let gateway = Gateway::start(&toml(&upstream, &local()));
    let from = |line: &str, address: &str| {
        let field = format!("X-Forwarded-For: {address}");
        gateway.client().request(line, &[&field])
    };
    assert_eq!(from("GET /office", "10.1.2.3").status, 200);
    let outside = from("GET /office", "192.0.2.1");
    assert_eq!((outside.status, &*outside.code()), (403, "forbidden"));
    assert_eq!(from("GET /either", "10.1.2.3").status, 200);
    let outside = from("GET /either", "192.0.2.1");
    assert_eq!((outside.status, &*outside.code()), (401, "token_required"));
    assert_eq!(
        ask(&gateway, "GET /either", &token("root", &["admin"])).status,
        200
    );
}

#[test]
fn hi_51_grpc_callers_are_told_unauthenticated_and_permission_denied() {
    let upstream = Upstream::fixed("ok");
    let gateway = Gateway::start(&toml(&upstream, &local()));
    let bearer = format!("Bearer {}", token("u1", &["user"]));
    for (authorization, status, code) in [
        ("Bearer x", "16", "invalid_token"),
        (&bearer, "7", "forbidden"),
    ] {
        let answer = h2_client::run(async {
            let sender = h2_client::connect(gateway.address()).await;
            let headers = [
                ("content-type", "application/grpc"),
                ("te", "trailers"),
                ("authorization", authorization),
            ];
            let request = h2_client::request("POST", "/products", &headers);
            let answer = h2_client::exchange(&sender, request, &[], None).await;
            answer.expect("an answer")
        });
        assert_eq!((answer.status, answer.grpc_status()), (200, Some(status)));
        let message = answer.header("grpc-message").unwrap_or_default();
        assert!(message.contains(code), "{message}");
    }
}

#[test]
fn a_token_is_verified_once_and_a_reload_without_its_key_ends_it_at_once() {
    let upstream = Upstream::fixed("ok");
    let gateway = Gateway::start(&toml(&upstream, &local()));
    let token = token("u1", &["seller"]);
    let mut client = gateway.client();
    let field = format!("Authorization: Bearer {token}");
    let mut status = || client.request("POST /products", &[&field]).status;
    assert_eq!([status(), status(), status()], [200; 3]);
    let metrics = gateway.metrics();
    assert!(metrics.contains("jwt_tokens_total{jwt=\"users\",result=\"verified\"} 1\n"));
    assert!(metrics.contains("jwt_tokens_total{jwt=\"users\",result=\"remembered\"} 2\n"));
    let other = "keys = [{ secret = \"another-secret-of-32-characters!\" }]";
    gateway
        .edit(&toml(&upstream, other))
        .expect("a good document");
    assert_eq!(status(), 401);
    gateway
        .edit(&toml(&upstream, &local()))
        .expect("a good document");
    assert_eq!(status(), 200);
}

#[test]
fn a_limit_for_each_caller_counts_by_what_the_token_says_and_not_by_what_a_client_does() {
    let upstream = Upstream::fixed("ok");
    let limited = "[[route]]\nname = \"limited\"\nmatch = { path = \"/limited\" }\nupstream = \"app\"\n\
                   filters = [{ jwt = \"users\" }, { rate_limit = { by = { header = \"x-user-id\" }, rate = \"1/h\", burst = 1 } }]\n";
    let gateway = Gateway::start(&format!("{}\n{limited}", toml(&upstream, &local())));
    for subject in ["u1", "u2"] {
        let field = format!("Authorization: Bearer {}", token(subject, &[]));
        let ask = |other: &str| {
            let lines = [&field, other];
            gateway.client().request("GET /limited", &lines).status
        };
        let asked = [ask("X-A: 1"), ask("X-User-Id: fresh"), ask("X_User_Id: u3")];
        assert_eq!(asked, [200, 429, 429], "{subject}");
    }
}
