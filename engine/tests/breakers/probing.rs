//! Half-open, and what a reload leaves as it was.

use tollgate_engine::testing::gateway::{Gateway, document};
use tollgate_engine::testing::journal::Gate;
use tollgate_engine::testing::upstream::Upstream;

use super::*;

#[test]
fn gw_406_half_open_lets_its_probes_through_and_no_more() {
    let (gate, failing) = (Gate::new(), Mood::default());
    failing.set(FAILING);
    let (theirs, state) = (gate.clone(), failing.clone());
    let upstream = Upstream::http1(move |conn| {
        while conn.read_request().is_some() {
            if state.now() == FAILING {
                conn.respond("503 Service Unavailable", &[], "");
            } else {
                theirs.wait();
                conn.respond("200 OK", &[], "");
            }
        }
    });
    let toml = |open_for: &str| {
        let keys = format!(
            "failures = 1\nvolume = 1\nopen_for = \"{open_for}\"\nprobes = 2\nsuccesses = 2"
        );
        document(upstream.address(), "", NO_RETRY, &breaker(&keys))
    };
    let gateway = Gateway::start(&toml("1ms"));
    assert_eq!(gateway.get("/").status, 503);
    failing.set(WELL);
    wait(&gateway, "the end of open_for", is("half_open"));
    let mut probes = vec![gateway.client()];
    probes[0].send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.wait("the first probe", |journal| journal.requests.len() == 2);
    // From here on, this round of probes has all the time it wants.
    gateway.edit(&toml("1h")).expect("valid");
    probes.push(gateway.client());
    probes[1].send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.wait("both probes", |journal| journal.requests.len() == 3);
    let refused = gateway.get("/");
    assert_eq!((refused.status, &*refused.code()), (503, "circuit_open"));
    assert_eq!(refused.problem()["setting"], "upstream.breaker.probes");
    assert_eq!(upstream.requests().len(), 3);

    // A client that leaves gives its probe's place back.
    probes.pop().expect("two").reset();
    wait(&gateway, "the place", |it| it["probes"]["under_way"] == 1);
    let mut third = gateway.client();
    third.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.wait("the third", |journal| journal.requests.len() == 4);
    gate.open();
    assert_eq!(third.read_response().status, 200);
    assert_eq!(probes[0].read_response().status, 200);
    wait(&gateway, "two successes", is("closed"));
}

#[test]
fn a_reload_keeps_the_state_and_new_settings_apply_at_once() {
    let (upstream, state) = moody(FAILING);
    let toml = |keys: &str| document(upstream.address(), "", NO_RETRY, &breaker(keys));
    let gateway = Gateway::start(&toml("failures = 3\nvolume = 2"));
    for _ in 0..2 {
        assert_eq!(gateway.get("/").status, 500);
    }
    gateway
        .edit(&toml("failures = 2\nvolume = 2"))
        .expect("valid");
    assert_eq!(of_app(&gateway)["failures_in_a_row"], 2);
    assert_eq!(gateway.get("/").status, 500);
    let open = of_app(&gateway);
    assert_eq!(
        (&open["state"], &open["trips"]),
        (&"open".into(), &1.into())
    );
    gateway
        .edit(&toml("failures = 9\nvolume = 9"))
        .expect("valid");
    assert_eq!(gateway.get("/").code(), "circuit_open");
    state.set(WELL);
    gateway
        .edit(&toml("failures = 9\nopen_for = \"1ms\"\nsuccesses = 1"))
        .expect("valid");
    wait(&gateway, "the new open_for", is("half_open"));
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(of_app(&gateway)["state"], "closed");
    let off = document(upstream.address(), "", NO_RETRY, "breaker = \"off\"");
    gateway.edit(&off).expect("valid");
    assert_eq!(of_app(&gateway)["state"], "off");
}
