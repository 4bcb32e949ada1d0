use std::path::Path;

use http::Method;
use tollgate_config::identity::SpiffeId;
use tollgate_config::{Document, Loader};

use super::*;
use crate::telemetry::metrics::Metrics;

const RULES: &str = r#"
[[access]]
name = "orders-pay"
from = ["orders"]
to   = "payments"
grpc = "payments.v1.PaymentsService/ProcessPayment"

[[access]]
name    = "look"
from    = ["gateway", "attic/*"]
to      = "payments"
methods = ["GET"]
path    = "/payments/{id}"

[[access]]
name   = "refund"
from   = ["gateway"]
to     = "payments"
methods = ["POST"]
path   = "/refunds/*"
roles  = ["support"]

[[access]]
name = "health"
from = "*"
path = "/health"

[[access]]
name = "all-of-users"
from = ["orders"]
to   = "users"
"#;

fn document(text: &str) -> Document {
    let listener = "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n";
    let text = format!("{listener}{text}");
    let loaded = Loader::with_environment(|_| None).load_text("mesh.toml", &text, Path::new("/"));
    loaded.unwrap_or_else(|problems| panic!("{problems}"))
}

fn rules(callee: &str) -> Arc<Access> {
    let callee = tollgate_config::member(callee).expect("a service");
    Access::compile(&document(RULES), Some(callee), None, &Metrics::new(1))
}

fn id(namespace: &str, service: &str) -> SpiffeId {
    SpiffeId::new("shop.example", namespace, service).expect("good names")
}

fn allowed<'a>(
    access: &'a Access,
    caller: Option<&SpiffeId>,
    method: Method,
    path: &str,
) -> Option<&'a str> {
    let call = Call {
        caller: caller.map(Call::names),
        method: &method,
        path,
        is_bytes: false,
        person: None,
    };
    let number = access.allows(&call)?;
    Some(access.rule(number).expect("it is there").item.name.as_str())
}

#[test]
fn a_caller_may_what_a_rule_lets_it_and_nothing_else_mesh_401_mesh_402() {
    let payments = rules("payments");
    let pay = "/payments.v1.PaymentsService/ProcessPayment";
    let ask = |caller: &SpiffeId, method, path: &str| {
        allowed(&payments, Some(caller), method, path).map(str::to_owned)
    };
    let name = |name: &str| Some(name.to_owned());
    let orders = id("default", "orders");
    assert_eq!(ask(&orders, Method::POST, pay), name("orders-pay"));
    assert_eq!(ask(&orders, Method::GET, pay), None, "calls are POST");
    let other = "/payments.v1.PaymentsService/RefundPayment";
    assert_eq!(ask(&orders, Method::POST, other), None);
    assert_eq!(ask(&orders, Method::POST, &format!("{pay}/x")), None);
    assert_eq!(ask(&orders, Method::GET, "/payments/1"), None);
    let gateway = id("default", "gateway");
    assert_eq!(ask(&gateway, Method::GET, "/payments/1"), name("look"));
    assert_eq!(ask(&gateway, Method::DELETE, "/payments/1"), None);
    assert_eq!(ask(&gateway, Method::POST, pay), None);
}

#[test]
fn a_name_alone_is_of_the_callees_namespace_mesh_402() {
    let ask = |callee: &str, caller: &SpiffeId| {
        let path = "/payments.v1.PaymentsService/ProcessPayment";
        allowed(&rules(callee), Some(caller), Method::POST, path).map(str::to_owned)
    };
    assert!(ask("default/payments", &id("default", "orders")).is_some());
    assert!(ask("default/payments", &id("attic", "orders")).is_none());
    assert!(ask("attic/payments", &id("attic", "orders")).is_some());
    assert!(ask("attic/payments", &id("default", "orders")).is_none());
    let payments = rules("payments");
    let web = id("attic", "web");
    let look = allowed(&payments, Some(&web), Method::GET, "/payments/1");
    assert_eq!(look, Some("look"), "all of a namespace");
}

#[test]
fn without_an_identity_nothing_is_allowed_not_even_what_every_member_may_mesh_401() {
    let payments = rules("payments");
    let stranger = id("default", "stranger");
    let health = |caller| allowed(&payments, caller, Method::GET, "/health");
    assert_eq!(health(Some(&stranger)), Some("health"));
    assert_eq!(health(None), None);
}

#[test]
fn a_node_has_the_rules_about_its_own_service_and_about_everybody() {
    let names = |access: &Access| -> Vec<String> {
        let rules = access.rules().iter();
        rules.map(|rule| rule.item.name.clone()).collect()
    };
    assert_eq!(names(&rules("users")), ["health", "all-of-users"]);
    assert_eq!(names(&rules("attic/products")), ["health"]);
    let nobody = Access::compile(&document(RULES), None, None, &Metrics::new(1));
    assert_eq!(names(&nobody), ["health"]);
}

#[test]
fn bytes_that_nobody_reads_are_let_through_by_rules_that_ask_for_nothing_else() {
    let bytes = |access: &Access, caller: Option<&SpiffeId>| {
        let call = Call {
            caller: caller.map(Call::names),
            method: &Method::CONNECT,
            path: "/",
            is_bytes: true,
            person: None,
        };
        access.allows(&call).is_some()
    };
    let users = rules("users");
    let orders = id("default", "orders");
    assert!(bytes(&users, Some(&orders)));
    assert!(!bytes(&users, Some(&id("default", "web"))));
    assert!(!bytes(&users, None));
    assert!(!bytes(&rules("payments"), Some(&orders)));
    // A path that is every path is still one that nobody can look at.
    let text = "[[access]]\nname = \"all\"\nfrom = \"*\"\npath = \"/*\"\n";
    let callee = Some(Member::new("default", "payments"));
    let all = Access::compile(&document(text), callee, None, &Metrics::new(1));
    assert!(!bytes(&all, Some(&orders)));
}

fn refusal(access: &Access, caller: Option<&SpiffeId>, method: Method, path: &str) -> Error {
    let text = "[[route]]\nname = \"all\"\nrespond = {}\nfilters = [{ access = \"enforce\" }]\n";
    let document = document(text);
    let route = &document.routes[0];
    let call = Call {
        caller: caller.map(Call::names),
        method: &method,
        path,
        is_bytes: false,
        person: None,
    };
    let mut met = Met::default();
    let at = route.filters[0].at;
    let asked = access.ask(&call, (AccessMode::Enforce, at), &mut met, route);
    let error = asked.expect_err("refused");
    assert!(matches!(met, Met::Refused(_, AccessMode::Enforce)));
    let mut met = Met::default();
    assert!(
        access
            .ask(&call, (AccessMode::Audit, at), &mut met, route)
            .is_ok()
    );
    assert!(matches!(met, Met::Refused(_, AccessMode::Audit)));
    error
}

fn body(error: &Error) -> serde_json::Value {
    let (status, _, body) = error.problem("r1");
    assert_eq!(status, 403);
    serde_json::from_slice(&body).expect("JSON")
}

#[test]
fn a_member_is_told_the_rule_that_comes_nearest_and_its_line_mesh_403() {
    let payments = rules("payments");
    let web = id("default", "web");
    let pay = "/payments.v1.PaymentsService/ProcessPayment";
    let error = refusal(&payments, Some(&web), Method::POST, pay);
    let told = body(&error);
    assert_eq!(told["code"], "access_denied");
    assert_eq!(told["setting"], "access");
    assert_eq!(told["value"], "orders-pay");
    assert_eq!(told["at"], "mesh.toml:5");
    let detail = told["detail"].as_str().expect("a sentence");
    assert!(detail.contains("default/web POST /payments.v1"), "{detail}");
    assert!(
        detail.contains("rule `orders-pay` is nearest: orders may POST"),
        "{detail}"
    );
    let grpc = error.grpc();
    assert_eq!(grpc["grpc-status"], "7");
    let message = grpc["grpc-message"].to_str().expect("text");
    assert!(message.contains("rule `orders-pay`"), "{message}");
    let other = refusal(&payments, Some(&web), Method::GET, "/nowhere");
    let told = body(&other);
    assert_eq!(told["setting"], "route.filters.access");
    assert!(
        told["detail"]
            .as_str()
            .expect("a sentence")
            .ends_with("none is about that")
    );
    // For the role, not for the caller.
    let gateway = id("default", "gateway");
    let error = refusal(&payments, Some(&gateway), Method::POST, "/refunds/1");
    assert_eq!(body(&error)["value"], "refund");
}

#[test]
fn who_is_no_member_is_told_no_rule_mesh_403() {
    let error = refusal(&rules("payments"), None, Method::POST, "/refunds/1");
    let told = body(&error);
    assert_eq!(told["detail"], serde_json::Value::Null);
    assert_eq!(
        (&told["setting"], &told["value"]),
        (&"route.filters.access".into(), &"enforce".into())
    );
    assert!(error.cause.expect("for the log").contains("no certificate"));
}

#[test]
fn a_path_of_any_length_makes_a_sentence_of_a_bounded_one() {
    let long = format!("/{}", "a".repeat(60_000));
    let web = id("default", "web");
    let error = refusal(&rules("payments"), Some(&web), Method::GET, &long);
    assert!(error.detail().expect("a sentence").len() < 600);
}

#[test]
fn the_same_rules_stay_the_same_and_others_are_made_anew() {
    let metrics = Metrics::new(1);
    let callee = || Some(Member::new("default", "payments"));
    let first = Access::compile(&document(RULES), callee(), None, &metrics);
    let again = Access::compile(&document(RULES), callee(), Some(&first), &metrics);
    assert!(Arc::ptr_eq(&first, &again));
    let moved = Access::compile(
        &document(&format!("\n{RULES}")),
        callee(),
        Some(&first),
        &metrics,
    );
    assert!(!Arc::ptr_eq(&first, &moved), "its lines are others");
    let other = Access::compile(&document(RULES), None, Some(&first), &metrics);
    assert!(!Arc::ptr_eq(&first, &other), "another callee");
}

/// Against a look at every rule, with names and paths that are often the same.
#[test]
fn the_index_finds_what_a_look_at_every_rule_finds() {
    let mut random = fastrand::Rng::with_seed(7);
    let services = ["a", "b", "c", "d"];
    let froms = ["a", "b", "y/a", "y/*", "*", "x/c"];
    let paths = ["/p", "/p/*", "/{q}", "/p/{q}/r"];
    for _ in 0..300 {
        let mut text = String::new();
        for number in 0..random.usize(0..8) {
            let from: Vec<String> = (0..random.usize(1..4))
                .map(|_| format!("{:?}", froms[random.usize(..froms.len())]))
                .collect();
            let path = paths[random.usize(..paths.len())];
            let methods = ["", "methods = [\"GET\"]", "methods = [\"POST\", \"GET\"]"];
            let _infallible = writeln!(
                text,
                "[[access]]\nname = \"{number}\"\nfrom = [{}]\npath = {path:?}\n{}",
                from.join(", "),
                methods[random.usize(..3)]
            );
        }
        let callee = Some(Member::new("x", "z"));
        let access = Access::compile(&document(&text), callee, None, &Metrics::new(1));
        for _ in 0..40 {
            let caller = (["x", "y"][random.usize(..2)], services[random.usize(..4)]);
            let call = Call {
                caller: Some(caller),
                method: &[Method::GET, Method::POST, Method::PUT][random.usize(..3)],
                path: ["/p", "/p/1", "/p/1/r", "/s", "/p/1/2"][random.usize(..5)],
                is_bytes: false,
                person: None,
            };
            let allows = |rule: &Rule| access.standing(rule, &call) == Standing::Allows;
            let expected = access.rules().iter().position(allows);
            let found = access.allows(&call).map(|number| number as usize);
            assert_eq!(
                found, expected,
                "{text}\n{caller:?} {} {}",
                call.method, call.path
            );
        }
    }
}
