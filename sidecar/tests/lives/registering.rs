//! An application is announced while it answers its readiness probe, and only then.

use tollgate_engine::testing::control_plane::ControlPlane;

use super::support::{Signal, Site, until};
use super::{App, READY, heard, is_taken_back, with};

#[test]
fn an_application_is_announced_when_it_is_ready_and_not_before_mesh_105() {
    let (app, control) = (App::new(false), ControlPlane::start());
    let site = Site::new(app.upstream.address(), READY, &with(&control));
    let mut sidecar = site.run();
    until("some probes", || app.asked("/ready") > 2);
    assert_eq!(
        heard(&control, "POST /register"),
        0,
        "nobody shall come yet"
    );
    let status: serde_json::Value =
        serde_json::from_slice(&sidecar.ask("GET /status").body).expect("JSON");
    let why = status["control_plane"]["registration"]["why_not"].to_string();
    assert!(why.contains("does not answer"), "{status}");
    app.ready(true);
    until("a registration", || heard(&control, "POST /register") > 0);
    let record = control.journal().registry[0].clone();
    let inbound = sidecar.listener("inbound");
    assert!(
        record.contains(&format!("\"{inbound}\"")),
        "where it really listens: {record}"
    );
    assert!(record.contains("\"name\":\"orders\""), "{record}");
    until("a beat", || heard(&control, "PUT /heartbeat/orders-") > 0);
}

#[test]
fn who_stops_answering_is_taken_back_and_announced_again_when_it_answers_mesh_105() {
    let (app, control) = (App::new(true), ControlPlane::start());
    let ready = "ready = { path = \"/ready\", interval = \"2s\" }";
    let site = Site::new(app.upstream.address(), ready, &with(&control));
    let mut sidecar = site.run();
    until("a registration", || heard(&control, "POST /register") > 0);
    app.ready(false);
    until("the word taken back", || is_taken_back(&control));
    sidecar.says("announced again when it does");
    let before = heard(&control, "POST /register");
    app.ready(true);
    until("another registration", || {
        heard(&control, "POST /register") > before
    });
    sidecar.tell(Signal::TERM);
    sidecar.ends_with(0);
    assert!(is_taken_back(&control));
}

#[test]
fn an_application_that_is_not_there_is_never_announced() {
    let control = ControlPlane::start();
    let nobody = tollgate_engine::testing::upstream::Upstream::nobody();
    let ready = "ready = { tcp = true, interval = \"50ms\" }";
    let site = Site::new(nobody, ready, &with(&control));
    let mut sidecar = site.run();
    sidecar.says("endpoint fails its probes");
    sidecar.tell(Signal::TERM);
    sidecar.ends_with(0);
    let calls = control.journal().registry;
    assert!(calls.is_empty(), "{calls:?}");
}
