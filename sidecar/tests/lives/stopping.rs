//! The order of an end: the word is taken back, the door stays open for a while, closes, what is in flight finishes,
//! the application is told, and the way out closes last.

use tollgate_engine::testing::client::Client;
use tollgate_engine::testing::control_plane::ControlPlane;

use super::support::{FOREVER, Signal, Site, is_closed, until};
use super::{App, READY, heard, is_taken_back, with};

/// A way out that needs nobody else.
const ELSEWHERE: &str = "[[route]]\nmatch = { path = \"/elsewhere\" }\nrespond = { status = 200, body = \"elsewhere\" }\n";
/// Notes that it was told, and ends with 7.
const TOLD: &str =
    "trap 'echo told >> log; exit 7' TERM; echo started >> log; while :; do sleep 0.05; done";

#[test]
fn callers_that_have_not_heard_yet_are_served_until_the_lag_is_over_mesh_107() {
    let (app, control) = (App::new(true), ControlPlane::start());
    let server = format!("[server]\ndrain_lag = \"{FOREVER}\"\n");
    let more = with(&control) + &server;
    let site = Site::new(app.upstream.address(), READY, &more);
    let mut sidecar = site.exec(&[], TOLD);
    until("a registration", || heard(&control, "POST /register") > 0);
    site.hears("log", "started");
    let inbound = sidecar.listener("inbound");
    sidecar.tell(Signal::TERM);
    until("the word taken back", || is_taken_back(&control));
    for _ in 0..3 {
        assert_eq!(Client::connect(inbound).get("/late").status, 200);
    }
    assert_eq!(sidecar.ask("GET /health/ready").status, 503);
    assert!(!site.said("log").contains("told"), "it still serves");
    // Who asks twice does not want to wait.
    sidecar.tell(Signal::TERM);
    sidecar.ends_with(7);
    assert!(site.said("log").contains("told"));
}

#[test]
fn what_is_in_flight_finishes_before_the_application_is_told_and_the_way_out_is_open_mesh_107() {
    let (app, control) = (App::new(true), ControlPlane::start());
    let server = format!("[server]\ndrain = \"{FOREVER}\"\n");
    let more = with(&control) + ELSEWHERE + &server;
    let site = Site::new(app.upstream.address(), READY, &more);
    let mut sidecar = site.exec(&[], TOLD);
    until("a registration", || heard(&control, "POST /register") > 0);
    site.hears("log", "started");
    let (inbound, outbound) = (sidecar.listener("inbound"), sidecar.listener("outbound"));
    let mut slow = Client::connect(inbound);
    slow.send("GET /slow HTTP/1.1\r\nHost: orders\r\n\r\n");
    until("the request", || app.asked("/slow") == 1);
    sidecar.tell(Signal::TERM);
    until("the closed door", || is_closed(inbound));
    assert!(is_taken_back(&control), "first of all");
    assert!(!site.said("log").contains("told"), "a request is in flight");
    assert_eq!(
        Client::connect(outbound).get("/elsewhere").text(),
        "elsewhere"
    );
    app.gate.open();
    assert_eq!(slow.read_response().status, 200);
    site.hears("log", "told");
    sidecar.ends_with(7);
}

#[test]
fn a_sidecar_alone_finishes_what_is_in_flight_and_ends_mesh_107() {
    let app = App::new(true);
    let site = Site::new(app.upstream.address(), "", ELSEWHERE);
    let mut sidecar = site.run();
    let (inbound, outbound) = (sidecar.listener("inbound"), sidecar.listener("outbound"));
    let mut slow = Client::connect(inbound);
    slow.send("GET /slow HTTP/1.1\r\nHost: orders\r\n\r\n");
    until("the request", || app.asked("/slow") == 1);
    sidecar.tell(Signal::TERM);
    until("the closed door", || is_closed(inbound));
    assert_eq!(
        Client::connect(outbound).get("/elsewhere").text(),
        "elsewhere"
    );
    app.gate.open();
    assert_eq!(slow.read_response().status, 200);
    sidecar.ends_with(0);
    assert!(is_closed(outbound));
}

#[test]
fn what_does_not_finish_is_cut_and_told_by_the_exit_code() {
    let app = App::new(true);
    let site = Site::new(app.upstream.address(), "", "[server]\ndrain = \"100ms\"\n");
    let mut sidecar = site.run();
    let mut slow = Client::connect(sidecar.listener("inbound"));
    slow.send("GET /slow HTTP/1.1\r\nHost: orders\r\n\r\n");
    until("the request", || app.asked("/slow") == 1);
    sidecar.tell(Signal::INT);
    sidecar.ends_with(4);
}

#[test]
fn the_admin_address_ends_it_in_the_same_order_mesh_109() {
    let (app, control) = (App::new(true), ControlPlane::start());
    let site = Site::new(app.upstream.address(), READY, &with(&control));
    let mut sidecar = site.exec(&[], TOLD);
    until("a registration", || heard(&control, "POST /register") > 0);
    site.hears("log", "started");
    assert_eq!(sidecar.ask("POST /drain").status, 202);
    sidecar.ends_with(7);
    assert!(is_taken_back(&control));
}

#[test]
fn a_sidecar_alone_that_is_asked_to_drain_keeps_the_way_out_open_until_it_is_told_mesh_109() {
    let (app, control) = (App::new(true), ControlPlane::start());
    let more = with(&control) + ELSEWHERE;
    let site = Site::new(app.upstream.address(), READY, &more);
    let mut sidecar = site.run();
    until("a registration", || heard(&control, "POST /register") > 0);
    let (inbound, outbound) = (sidecar.listener("inbound"), sidecar.listener("outbound"));
    assert_eq!(sidecar.ask("POST /drain").status, 202);
    until("the closed door", || is_closed(inbound));
    assert!(is_taken_back(&control));
    sidecar.says("the way out is open");
    assert_eq!(
        Client::connect(outbound).get("/elsewhere").text(),
        "elsewhere"
    );
    sidecar.tell(Signal::TERM);
    sidecar.ends_with(0);
}
