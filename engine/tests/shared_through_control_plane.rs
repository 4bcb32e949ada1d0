//! Limits that are shared through a control plane that is none, lies or hangs (GW-315, HI-66): the gateway serves its
//! share and says why. With a real one: control-plane/tests/leases.rs.

use std::time::Instant;

use tollgate_engine::testing::PATIENCE;
use tollgate_engine::testing::control_plane::ControlPlane;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::waiting::wait;

fn toml(plane: &ControlPlane) -> String {
    format!(
        "[control_plane]\nurls = [\"http://{}\"]\n\n\
         [[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n\n\
         [[route]]\nname = \"here\"\nmatch = {{ path = \"/*\" }}\nrespond = {{ status = 200, body = \"here\" }}\n\
         filters = [{{ rate_limit = \"all\" }}]\n\n\
         [limits]\ntimeout = \"200ms\"\n\n\
         [[limit]]\nname = \"all\"\nby = \"route\"\nrate = \"60/s\"\nburst = 60\nshared = true\n",
        plane.address()
    )
}

fn until(gateway: &Gateway, what: &str, holds: impl Fn(&serde_json::Value) -> bool) {
    wait(what, || gateway.get_status()["sharing"].clone(), holds);
}

/// So many requests are admitted, with whatever is refused between them.
fn admits(gateway: &Gateway, count: usize) {
    let (mut client, began) = (gateway.client(), Instant::now());
    let mut admitted = 0;
    while admitted < count {
        match client.get("/").status {
            200 => admitted += 1,
            status => assert_eq!(status, 429),
        }
        assert!(began.elapsed() < PATIENCE, "too little is admitted");
    }
}

const GREETING: &str = r#"{"epoch":"e","known":true,"gateways":3,"grants":[]}"#;

#[test]
fn gw_315_a_control_plane_that_does_not_lend_is_told_and_its_share_is_served() {
    let plane = ControlPlane::start();
    let gateway = Gateway::start(&toml(&plane));
    for (status, text, told) in [
        (404, "no such page", "it answered 404: no such page"),
        (503, r#"{"code":"leases_full"}"#, "leases_full"),
        (200, "", "what answers does not lend"),
        (200, "[]", "what answers does not lend"),
        (
            200,
            r#"{"epoch":"e","known":true,"gateways":0,"grants":[]}"#,
            "does not fit",
        ),
        (
            200,
            r#"{"epoch":"","known":true,"gateways":1,"grants":[]}"#,
            "does not fit",
        ),
        (200, &" ".repeat(300_000), "too long"),
    ] {
        plane.answer_leases(status, text);
        until(&gateway, told, |sharing| {
            let reason = sharing["reason"].as_str().unwrap_or_default();
            sharing["reached"] == false && reason.contains(told)
        });
        admits(&gateway, 10);
    }
    // It greets well, and its grants do not fit.
    plane.answer_leases(200, GREETING);
    until(&gateway, "a greeting is believed", |told| {
        told["gateways"] == 3
    });
    admits(&gateway, 10);
    until(&gateway, "what does not fit is not", |told| {
        let reason = told["reason"].as_str().unwrap_or_default();
        reason.contains("does not fit")
    });
    admits(&gateway, 10);
    // What it grants beyond what was wanted is not believed.
    let grants = r#"[[{"tokens":18446744073709551615,"left":-9223372036854775808}]]"#;
    plane.answer_leases(200, GREETING.replace("[]", grants));
    admits(&gateway, 10);
}

#[test]
fn gw_315_a_control_plane_that_hangs_delays_no_request() {
    let plane = ControlPlane::start();
    plane.answer_leases(200, GREETING);
    let gateway = Gateway::start(&toml(&plane));
    until(&gateway, "it greets", |told| told["gateways"] == 3);
    plane.silent(true);
    plane.hang_up();
    until(&gateway, "it is away", |told| told["reached"] == false);
    until(&gateway, "why is told", |told| {
        let reason = told["reason"].as_str().unwrap_or_default();
        reason.ends_with("no answer within 200 ms")
    });
    admits(&gateway, 30);
    assert_eq!(
        gateway.get_status()["sharing"]["gateways"],
        3,
        "as was last known"
    );
}
