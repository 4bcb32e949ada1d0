//! Limits over several gateways without a database: the control plane lends (GW-315, CP-404). Real gateways, the real
//! program, and kills; `partition.rs` has a network that breaks. Bounds are on what is counted; where a rate is in them,
//! by the time that the test itself measured around what it did.

mod support;

use std::net::SocketAddr;
use std::time::Instant;

use serde_json::Value;
use support::sharing::{
    drain, drain_to, overload, sharing, three, toml, until_all, until_all_meet,
};
use support::{Caller, Here, Process, document, until, wait};
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::store::free;

/// The program with a folder of its own, at an address that stays the same when it is started again.
struct Plane {
    folder: tempfile::TempDir,
    process: Option<Process>,
    address: SocketAddr,
}

impl Plane {
    fn start() -> Plane {
        let mut plane = Plane {
            folder: tempfile::tempdir().expect("a folder"),
            process: None,
            address: free(),
        };
        let (file, address) = (plane.folder.path().join("cp.toml"), plane.address);
        let text = format!("server = {{ bind = \"{address}\", state_dir = \"state\" }}\n");
        std::fs::write(file, text).expect("written");
        plane.again();
        plane
    }

    fn again(&mut self) {
        self.process = Some(Process::run(&self.folder.path().join("cp.toml")));
    }

    /// As `kill -9` does.
    fn kill(&mut self) {
        drop(self.process.take());
    }

    fn leases(&self) -> Value {
        Caller::to(self.address).json("GET /leases", "", 200)
    }
}

/// Kills it while it knows all gateways, which they go by then. It forgets whoever is silent for a few seconds, also where the
/// machine was.
fn kill_while_all_meet(plane: &mut Plane, gateways: &[Gateway]) {
    until("a kill while all meet", || {
        plane.kill();
        until_all(gateways, "it is away", |told| told["reached"] == false);
        let known = sharing(&gateways[0])["gateways"] == gateways.len();
        if !known {
            plane.again();
            until_all_meet(gateways);
        }
        known
    });
}

#[test]
fn gw_315_three_gateways_admit_one_limit_together_without_a_database() {
    let plane = Here::start(document());
    let gateways = three(&toml(&[plane.address], "\"route\"", "200/s", 100));
    until_all_meet(&gateways);
    let (admitted, seconds) = overload(&gateways, 700, 1);
    // The limit, and a block of 100 x 0.1 / 3 tokens for each.
    let most = 100.0 + 200.0 * seconds + 9.0 + 1.0;
    assert!(
        admitted as f64 <= most,
        "{admitted} > {most} in {seconds} s"
    );
    let limit = most - 10.0;
    println!(
        "admitted {admitted} in {seconds:.3} s: limit {limit:.0}, {:+.2} %",
        (admitted as f64 / limit - 1.0) * 100.0
    );
    let metrics = plane.caller().ask("GET /metrics", "").text();
    let questions =
        { metrics.lines() }.find_map(|line| line.strip_prefix("lease_questions_total "));
    println!(
        "questions since the start: {}",
        questions.unwrap_or_default()
    );
    // Who asks as much gets about as much.
    for gateway in &gateways {
        let status = gateway.get_status();
        let own = status["limits"][0]["tiers"][0]["admitted"].as_u64();
        assert!(
            own.is_some_and(|own| own > admitted / 10),
            "{own:?} of {admitted}"
        );
        assert_eq!(status["limits"][0]["leased"], true);
    }
    // Operators see who lends and what is held, at both ends.
    let told = sharing(&gateways[0]);
    let lender = format!("control-plane http://{}", plane.address);
    assert_eq!(told["store"], lender.as_str());
    assert!(told["held"].is_u64() && told["clients"] == 1, "{told}");
    let metrics = gateways[0].metrics();
    assert!(
        metrics.contains("shared_limit_store_reached 1\n"),
        "{metrics}"
    );
    let leases = wait(
        "three gateways that are heard",
        || plane.caller().json("GET /leases", "", 200),
        |leases| leases["gateways"].as_array().map(Vec::len) == Some(3),
    );
    assert_eq!(leases["limits"][0]["limit"], "all");
    assert_eq!(leases["limits"][0]["rate"], "200/s");
    wait(
        "three gateways and one key in the figures",
        || plane.caller().ask("GET /metrics", "").text(),
        |metrics| metrics.contains("lease_gateways 3\n") && metrics.contains("lease_keys 1\n"),
    );
}

#[test]
fn gw_315_a_client_has_one_bucket_whichever_gateway_it_asks() {
    let plane = Plane::start();
    let gateways = three(&toml(&[plane.address], "\"client_ip\"", "1/h", 20));
    until_all_meet(&gateways);
    // The first takes all there is; the others meet a client of whom they know nothing.
    let admitted = drain_to(&gateways, 20);
    assert!((20..=23).contains(&admitted), "{admitted}");
}

#[test]
fn cp_404_a_control_plane_that_is_killed_leaves_shares_and_returns_without_a_second_burst() {
    let mut plane = Plane::start();
    let gateways = three(&toml(&[plane.address], "\"route\"", "1/h", 60));
    until_all_meet(&gateways);
    // All but what was not asked for.
    let mut admitted = drain_to(&gateways[..1], 50);
    assert!(admitted <= 62, "{admitted}");
    for _ in 0..3 {
        kill_while_all_meet(&mut plane, &gateways);
        let told = sharing(&gateways[0]);
        assert!(told["reason"].is_string(), "{told}");
        admitted += gateways.iter().map(drain).sum::<u64>();
        plane.again();
        until_all_meet(&gateways);
        admitted += gateways.iter().map(drain).sum::<u64>();
    }
    // The burst, a block for each, a token that each may have begun; whatever was killed in between.
    let most = 60 + 3 * 2 + 3 + 1;
    assert!(admitted <= most, "{admitted} > {most}");
    let errors = sharing(&gateways[0])["errors"].as_u64();
    assert!(errors.is_some_and(|errors| errors > 0), "{errors:?}");
}

#[test]
fn gw_315_gateways_that_are_cut_off_serve_their_share_and_come_back_by_themselves() {
    let mut plane = Plane::start();
    let gateways = three(&toml(&[plane.address], "\"route\"", "90/s", 60));
    until_all_meet(&gateways);
    let began = Instant::now();
    kill_while_all_meet(&mut plane, &gateways);
    let (alone, _) = overload(&gateways, 150, 20);
    let away = began.elapsed().as_secs_f64();
    // Each begins with a block on credit; nothing of the burst is anybody's own.
    let shares = 60.0 + 90.0 * away + 6.0 + 3.0;
    assert!(alone as f64 <= shares, "{alone} > {shares} in {away} s");
    let own = "shared_limit_tokens_total{limit=\"all\",from=\"own_share\"}";
    assert!(gateways[0].metrics().contains(own));
    plane.again();
    until_all_meet(&gateways);
    // Empty at first: from here on the rate, and what they hold.
    let (after, last) = overload(&gateways, 200, 1);
    let most = 90.0 * (last + 3.0) + 6.0 + 3.0 + 1.0;
    assert!(after as f64 <= most, "{after} > {most} in {last} s");
}

#[test]
fn cp_404_what_a_gateway_held_that_died_goes_back() {
    let plane = Plane::start();
    let toml = toml(&[plane.address], "\"route\"", "1/h", 60);
    let mut gateways = vec![Gateway::start(&toml), Gateway::start(&toml)];
    until_all_meet(&gateways);
    let (dies, lives) = (gateways.remove(0), gateways.remove(0));
    assert_eq!(dies.get("/").status, 200);
    until("it holds tokens", || {
        plane.leases()["limits"][0]["held"].as_u64() > Some(0)
    });
    drop(dies);
    until("it is missed", || {
        plane.leases()["gateways"].as_array().map(Vec::len) == Some(1)
    });
    assert_eq!(plane.leases()["limits"][0]["held"], 0);
    let admitted = drain_to(&[lives], 58);
    assert!(admitted <= 60, "{admitted}: all but what was used");
}

#[test]
fn another_control_plane_stands_in_and_hands_out_no_second_burst() {
    let (mut first, second) = (Plane::start(), Plane::start());
    let urls = [first.address, second.address];
    let gateways = three(&toml(&urls, "\"route\"", "1/h", 60));
    until_all_meet(&gateways);
    let mut admitted = drain_to(&gateways[..1], 50);
    first.kill();
    let lender = format!("control-plane http://{}", second.address);
    until_all(&gateways, "the other one lends", |told| {
        told["reached"] == true && told["gateways"] == 3 && told["store"] == lender.as_str()
    });
    admitted += gateways.iter().map(drain).sum::<u64>();
    assert!(admitted <= 70, "{admitted}");
}

#[test]
fn hi_59_clients_that_are_made_up_do_not_fill_the_control_plane() {
    let plane = Here::start(document());
    let toml = toml(&[plane.address], "{ header = \"x-user\" }", "1/h", 20);
    let gateways = [Gateway::start(&toml)];
    until_all_meet(&gateways);
    let mut client = gateways[0].client();
    let began = Instant::now();
    for number in 0..5000 {
        let user = format!("X-User: made-up-{number}");
        assert_eq!(client.request("GET /", &[&user]).status, 200);
    }
    let most = 1000.0 * (began.elapsed().as_secs_f64() + 1.0) + 1.0;
    let leases = plane.caller().json("GET /leases", "", 200);
    let keys = leases["limits"][0]["keys"].as_f64().expect("a number");
    assert!(keys <= most, "{keys} > {most}");
    assert!(!leases.to_string().contains("made-up"));
}

#[test]
fn a_question_that_is_wrong_is_refused_with_its_fields() {
    let plane = Here::start(document());
    let mut caller = plane.caller();
    let slice = r#""limits":[{"limit":"all","rate":"1/s","burst":BURST,"asks":[{"key":"a1","want":3,"held":0}]}]"#;
    let question = |node: &str, burst: &str| {
        format!(
            r#"{{"node":"{node}","instance":"i",{}}}"#,
            slice.replace("BURST", burst)
        )
    };
    let wrong = caller.json("POST /leases", &question("", "0"), 400);
    assert_eq!(wrong["code"], "bad_request");
    assert_eq!(wrong["errors"][0]["field"], "node");
    assert_eq!(wrong["errors"][1]["field"], "limits.burst");
    caller.json("POST /leases", "[]", 400);
    caller.json(
        "POST /leases",
        &question("n", "5").replace("1/s", "0/s"),
        400,
    );
    let good = caller.json("POST /leases", &question("n", "5"), 200);
    assert_eq!(
        (&good["known"], &good["gateways"]),
        (&false.into(), &1.into())
    );
    assert!(good["grants"][0][0]["tokens"].is_u64(), "{good}");
}
