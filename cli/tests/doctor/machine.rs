//! A clock that is wrong, and a port that somebody else has.

use super::*;

#[test]
fn a_clock_that_is_elsewhere_than_the_control_planes_is_told_with_its_side() {
    let ward = Ward::new();
    for (date, words) in [
        (now() + 7200, "ahead of this machine's"),
        (now() - 7200, "behind this machine's"),
    ] {
        let other = Scripted::answers(move || healthy(date), None);
        let url = format!("http://{}", other.address);
        let report = ward.doctor(&["--only", "machine", "--control", &url]);
        report.ends_with(2);
        let found = report.says("problem", &["the clock", words, "members refuse"]);
        assert!(
            found["next"]
                .as_str()
                .expect("a hint")
                .contains("time server")
        );
    }
}

#[test]
fn a_port_that_somebody_else_has_is_told_with_the_process_and_the_line() {
    let ward = Ward::new();
    let held = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = held.local_addr().expect("bound").to_string();
    ward.file(
        "gateway.toml",
        &format!(
            "[server]\nadmin = \"off\"\n\n[[listener]]\nname = \"public\"\nbind = \"{address}\"\n"
        ),
    );
    let report = ward.doctor(&["--only", "machine"]);
    report.ends_with(2);
    let own = format!("pid {}", std::process::id());
    let found = report.says("problem", &[&address, &own, "none of Tollgate's"]);
    assert_eq!(found["place"], "gateway.toml:4:1");
}

#[test]
fn an_address_that_this_machine_does_not_have_is_told() {
    let ward = Ward::new();
    // Of a network for documentation (RFC 5737): no machine has it.
    let text = "[[listener]]\nname = \"public\"\nbind = \"192.0.2.1:8000\"\n";
    ward.file("gateway.toml", text);
    let report = ward.doctor(&["--only", "machine"]);
    report.ends_with(2);
    report.says("problem", &["192.0.2.1:8000", "no interface"]);
}
