//! Members whose certificates are over, not begun, or signed by somebody else; and everything at once.

use std::time::{Duration, SystemTime};

use tollgate_config::control_plane::{ControlPlane, Tls};
use tollgate_control_plane::{Options, Running, start};
use tollgate_engine::testing::certificates::{Authority, Pair};
use tollgate_engine::testing::members::{Members, Wish, server};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// A document of the service orders with these files and a door at this address.
fn member(ward: &Ward, members: &Members, pair: &Pair, door: &str, more: &str) {
    let files = members.write("orders", pair);
    let text = format!(
        "{}[server]\nadmin = \"off\"\n\n[[listener]]\nname = \"inbound\"\nbind = \"{door}\"\nmesh = \"strict\"\n\n{more}",
        files.section("orders")
    );
    ward.file("gateway.toml", &text);
}

/// A door of the mesh that shows this to everybody.
fn door(pair: &Pair) -> String {
    let config = server(pair, &[&rustls::version::TLS13], &[b"h2"]);
    let door = Scripted::answers(String::new, Some(Arc::new(config)));
    door.address.to_string()
}

fn control(tls: Option<Tls>) -> Running {
    let mut document = ControlPlane::default();
    document.server.bind = ([127, 0, 0, 1], 0).into();
    document.server.state_dir = None;
    document.server.tls = tls;
    start(document, Options::default()).expect("it starts")
}

#[test]
fn mesh_304_an_expired_certificate_is_told_on_disk_and_on_the_wire_since_when_and_what_to_do() {
    let ward = Ward::new();
    let members = Members::new();
    let expired = members.expired("orders");
    member(&ward, &members, &expired, &door(&expired), "");
    let report = ward.doctor(&["--only", "identity"]);
    report.ends_with(2);
    for place in ["kept", "on the wire"] {
        let found = report.says("problem", &[place, "expired 1 h", "svc/orders"]);
        assert!(
            found["next"]
                .as_str()
                .expect("a hint")
                .contains("new certificate")
        );
    }
    // Its authority is the right one, and that is not said to be wrong.
    assert!(!report.report.to_string().contains("signed by"));
}

#[test]
fn a_certificate_that_has_not_begun_is_a_clock_that_is_wrong() {
    let ward = Ward::new();
    let members = Members::new();
    let early = members.not_yet_valid("orders");
    let ahead = Scripted::answers(|| healthy(now() + 24 * 3600), None);
    let more = format!("[control_plane]\nurls = [\"http://{}\"]\n", ahead.address);
    member(&ward, &members, &early, &door(&early), &more);
    let report = ward.doctor(&["--only", "identity"]);
    report.ends_with(2);
    report.says(
        "problem",
        &["valid only in", "clock", "ahead of this machine's"],
    );
}

#[test]
fn a_life_that_is_nearly_over_should_have_been_renewed() {
    let ward = Ward::new();
    let members = Members::new();
    let late = members.sign(&Wish {
        from: SystemTime::now() - 100 * HOUR,
        until: SystemTime::now() + 3 * HOUR,
        ..members.wish("orders")
    });
    member(&ward, &members, &late, &door(&late), "");
    let report = ward.doctor(&["--only", "identity"]);
    report.ends_with(1);
    report.says("warning", &["kept", "should have been renewed by now"]);
}

#[test]
fn what_a_door_shows_is_compared_with_what_is_kept_and_trusted() {
    let ward = Ward::new();
    let (members, strangers) = (Members::new(), Members::new());
    let stranger = strangers.issue("orders");
    member(
        &ward,
        &members,
        &members.issue("orders"),
        &door(&stranger),
        "",
    );
    let report = ward.doctor(&["--only", "identity"]);
    report.ends_with(2);
    report.says("ok", &["kept", "good for another"]);
    report.says(
        "warning",
        &[
            "on the wire",
            "another certificate than the one that is kept",
        ],
    );
    report.says("problem", &["on the wire", "refuses it"]);
}

#[test]
fn mesh_304_whom_a_member_trusts_is_compared_with_the_control_planes_authority() {
    let ward = Ward::new();
    // The same domain, and somebody else's keys.
    let members = Members::of("tollgate.local");
    let running = control(None);
    let pair = members.issue("orders");
    let more = format!("[control_plane]\nurls = [\"http://{}\"]\n", running.address);
    member(&ward, &members, &pair, &door(&pair), &more);
    let report = ward.doctor(&["--only", "identity"]);
    report.ends_with(2);
    report.says(
        "problem",
        &["none of the authorities that it trusts", "over the feed"],
    );
    report.says(
        "problem",
        &["members that follow", "refuse it", "different authorities"],
    );
    report.says("ok", &["the authority", "key 1 signs"]);
    running.stop();
    running.wait();
}

#[test]
fn where_everything_has_expired_everything_is_still_told() {
    let ward = Ward::new();
    let members = Members::new();
    let expired = members.expired("orders");
    let begins = SystemTime::now() - 48 * HOUR;
    let site = Authority::new().issue_between(&["127.0.0.1"], begins, begins + HOUR);
    let files = site.write(ward.folder.path(), "cp").expect("written");
    let running = control(Some(Tls {
        cert: files.cert,
        key: files.key,
        client_ca: None,
    }));
    let more = format!(
        "[control_plane]\nurls = [\"https://{}\"]\n",
        running.address
    );
    member(&ward, &members, &expired, &door(&expired), &more);
    let report = ward.doctor(&[
        "--only",
        "machine,control-plane,identity,service",
        "--service",
        "orders",
    ]);
    report.ends_with(2);
    report.says("problem", &["(TLS)", "expired 1 d 23 h ago"]);
    report.says("ok", &["TLS, not verified", "ready"]);
    report.says("problem", &["kept", "expired"]);
    report.says("problem", &["on the wire", "expired"]);
    // What can still be known is known.
    report.says("ok", &["the clock", "the same time"]);
    report.says("problem", &["it is of the trust domain `mesh.test`"]);
    report.says("problem", &["no instance of `orders` is registered"]);
    running.stop();
    running.wait();
}
