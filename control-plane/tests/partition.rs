//! A network between gateways and the control plane that lends to them, which breaks and is mended (GW-315, CP-404). It is
//! made of namespaces, for which one must be root; elsewhere the test says that it is skipped.

#[path = "../../gateway/tests/netlab/mod.rs"]
mod netlab;
mod support;

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use netlab::{Network, SPOKES};
use support::sharing::{PATIENT, drain, sharing, toml};
use support::{Here, document, until};
use tollgate_engine::testing::gateway::Gateway;

/// Three gateways on spokes of their own, the control plane on the hub; one wire is cut, and mended.
#[test]
fn cp_404_a_partition_lets_nothing_through_that_was_not_leased() {
    let network = match Network::begin() {
        Ok(network) => network,
        Err(why) => return eprintln!("skipped: a partition: {why}"),
    };
    std::thread::scope(|scope| {
        let network = &network;
        let (told, address) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let plane = scope.spawn(move || {
            network.enter_hub();
            let folder = tempfile::tempdir().expect("a folder");
            let mut settings = document();
            settings.server.bind = ([0, 0, 0, 0], 0).into();
            settings.server.state_dir = Some(folder.path().to_owned());
            let plane = Here::start(settings);
            told.send(plane.address.port()).expect("awaited below");
            let _all_is_over = ended.recv();
        });
        let port = address.recv().expect("it serves");
        // What each spoke is told to do, and what it says.
        let spokes: Vec<_> = (1..=SPOKES)
            .map(|spoke| {
                let (order, orders) = mpsc::channel::<fn(&Gateway) -> u64>();
                let (answer, answers) = mpsc::channel();
                scope.spawn(move || {
                    network.enter(spoke);
                    let hub = SocketAddr::from(([198, 18, spoke as u8, 1], port));
                    // A wire that is cut says nothing: here the time-out must find out.
                    let toml = toml(&[hub], "\"route\"", "1/h", 300);
                    let gateway = Gateway::start(&toml.replace(PATIENT, "timeout = \"250ms\""));
                    for order in orders {
                        answer.send(order(&gateway)).expect("awaited below");
                    }
                });
                (order, answers)
            })
            .collect();
        let all = |what: fn(&Gateway) -> u64| -> Vec<u64> {
            for (order, _) in &spokes {
                order.send(what).expect("it lives");
            }
            let answers = spokes.iter().map(|(_, answers)| answers.recv());
            answers.map(|answer| answer.expect("it lives")).collect()
        };
        let one = |which: usize, what: fn(&Gateway) -> u64| -> u64 {
            spokes[which].0.send(what).expect("it lives");
            spokes[which].1.recv().expect("it lives")
        };
        let reached: fn(&Gateway) -> u64 = |gateway| {
            until("all meet", || {
                let told = sharing(gateway);
                told["reached"] == true && told["gateways"] == 3
            });
            0
        };
        all(reached);
        // Everybody takes one, so that everybody holds some, and nobody is on credit any more.
        let first: fn(&Gateway) -> u64 = |gateway| {
            let admitted = u64::from(gateway.get("/").status == 200);
            until("it holds tokens", || {
                sharing(gateway)["held"].as_u64() > Some(0)
            });
            admitted
        };
        let began = Instant::now();
        let mut admitted: u64 = all(first).iter().sum();
        assert_eq!(admitted, 3);
        network.change(1, "cut=1");
        // Tokens that nobody uses go back after two seconds, and then the next request begins on credit.
        let holds = began.elapsed() < Duration::from_secs(2);
        let began = Instant::now();
        one(0, |gateway| {
            until("it is cut off", || sharing(gateway)["reached"] == false);
            0
        });
        // On both sides of the cut: what was leased on one, what is left on the other.
        let apart = all(drain);
        admitted += apart.iter().sum::<u64>();
        assert!(
            apart[0] <= 11,
            "{apart:?}: a block of ten, and what an hour's third brings"
        );
        // And a lease is over after ten seconds.
        let in_time = holds && began.elapsed() < Duration::from_secs(9);
        let most = if in_time { 300 + 3 } else { 300 + 3 + 10 };
        assert!(admitted <= most, "{admitted}: {apart:?}");
        network.change(1, "cut=0");
        all(reached);
        // Nothing is lost either: what the cut one did not use is there for all.
        until("what was left", || {
            admitted += all(drain).iter().sum::<u64>();
            admitted >= 280
        });
        assert!(admitted <= most, "{admitted}");
        println!("a partition: {admitted} admitted of 300; {apart:?} while it was cut");
        drop((end, spokes));
        plane.join().expect("it ended well");
    });
}
