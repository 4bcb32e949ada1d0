//! The gateway and its endpoints with a bad network between them (HI-50, GW-504, GW-506, GW-705).
//!
//! "With 5 % packet loss, 100 ms delay, a black hole or a slow one of three: success ≥ 99.9 % with retries,
//! amplification ≤ 1.1 ×." Both are counted. The network is made of namespaces and a program of ours, for which one must
//! be root; elsewhere these tests say that they are skipped.

mod netlab;
mod support;

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use netlab::{Network, SPOKES};
use support::{Site, tell};
use tollgate_engine::testing::demand::{Count, Witness, demand, errors, percentile};
use tollgate_engine::testing::upstream::Upstream;

/// Before the network turns bad.
const BEFORE: u64 = 200;
/// From one turn of the network to the next.
const TURN: u64 = 150;
/// In all; a thousandth of them may fail.
const REQUESTS: u64 = 2_000;

/// A machine that holds a process up for so long is no machine to judge a network on …
const STILL: Duration = Duration::from_millis(200);
/// … and is given so many rounds to be one.
const ROUNDS: u32 = 5;
const AS_AT_FIRST: &str = "loss=0 delay=0 cut=0";

/// A try is given up after a second, as long as a connection may take by default.
fn toml(endpoints: &[SocketAddr]) -> String {
    let endpoints: Vec<_> = endpoints.iter().map(|one| format!("\"{one}\"")).collect();
    format!(
        "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"app\"\n\
         timeout = \"8s\"\nretry = {{ per_try_timeout = \"1s\" }}\n\n\
         [[upstream]]\nname = \"app\"\nendpoints = [{}]\n",
        endpoints.join(", ")
    )
}

/// What each wire becomes.
type Turn = [&'static str; SPOKES];

/// An endpoint on each spoke, the gateway and its clients on the hub. In the midst of it the wires turn bad, or one thing
/// after the other.
fn survives(name: &str, turns: &[Turn]) {
    let network = match Network::begin() {
        Ok(network) => network,
        Err(why) => return tell(&format!("skipped: {name}: {why}")),
    };
    std::thread::scope(|scope| {
        let (told, addresses) = mpsc::channel();
        let mut ends = Vec::new();
        for spoke in 1..=SPOKES {
            let (end, ended) = mpsc::channel::<()>();
            ends.push(end);
            let (told, network) = (told.clone(), &network);
            scope.spawn(move || {
                network.enter(spoke);
                let endpoint = Upstream::http1_on(Network::address(spoke), |conn| {
                    while conn.read_request().is_some() {
                        conn.respond("200 OK", &[], "ok");
                    }
                });
                told.send((spoke, endpoint.address()))
                    .expect("awaited below");
                let _all_is_over = ended.recv();
            });
        }
        let mut addresses: Vec<_> = addresses.iter().take(SPOKES).collect();
        addresses.sort_unstable();
        let addresses: Vec<_> = addresses.into_iter().map(|(_, address)| address).collect();
        let (network, addresses) = (&network, addresses);
        let here = scope.spawn(move || {
            network.enter_hub();
            ask(name, network, turns, &addresses);
        });
        let outcome = here.join();
        drop(ends);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Plays it again where the machine stood still: a network of programs stands still with it, and then no try comes in time.
fn ask(name: &str, network: &Network, turns: &[Turn], addresses: &[SocketAddr]) {
    for round in 1.. {
        let witness = Witness::begin();
        let counts = ask_once(name, network, turns, addresses);
        let held_up = witness.end();
        let survived = counts.failed.len() as u64 * 1_000 <= counts.requests
            && counts.retries * 10 <= counts.requests;
        if survived {
            return;
        }
        tell(&format!("{name}: round {round}, held up for {held_up:?}"));
        assert!(
            held_up > STILL && round < ROUNDS,
            "{name}: {} retries of {} requests, {:#?} failed; held up for {held_up:?}",
            counts.retries,
            counts.requests,
            counts.failed
        );
        for wire in 1..=SPOKES {
            network.change(wire, AS_AT_FIRST);
        }
    }
}

struct Counts {
    requests: u64,
    retries: u64,
    failed: Vec<String>,
}

fn ask_once(name: &str, network: &Network, turns: &[Turn], addresses: &[SocketAddr]) -> Counts {
    let site = Site::with(&toml(addresses));
    let gateway = site.run();
    let seen = demand(gateway.address(), "", &Count::default(), |number| {
        let turn = number.checked_sub(BEFORE).filter(|since| since % TURN == 0);
        let turn = turn.and_then(|since| turns.get(usize::try_from(since / TURN).ok()?));
        for (wire, words) in turn.into_iter().flatten().enumerate() {
            network.change(wire + 1, words);
        }
        number <= REQUESTS
    });
    let retries = retries(&gateway.ask("GET /metrics").text());
    let failed = errors(&seen);
    let frames: Vec<_> = (1..=SPOKES).map(|spoke| network.frames(spoke)).collect();
    let requests = seen.len() as u64;
    tell(&format!(
        "{name}: {requests} requests, {} failed, {retries} tried again ({:.3} ×), p99 {:?}; frames and lost: {frames:?}",
        failed.len(),
        (requests + retries) as f64 / requests as f64,
        percentile(&seen, 99),
    ));
    assert!(requests >= REQUESTS, "{requests}");
    Counts {
        requests,
        retries,
        failed,
    }
}

/// All that were tried again, for whatever reason.
fn retries(metrics: &str) -> u64 {
    let lines = metrics
        .lines()
        .filter(|line| line.starts_with("retries_total{"));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

#[test]
fn hi_50_gw_504_one_frame_in_twenty_lost_each_way_is_survived() {
    survives("5 % loss", &[["loss=0.05"; SPOKES]]);
}

#[test]
fn hi_50_gw_504_a_tenth_of_a_second_each_way_is_survived() {
    survives("100 ms delay", &[["delay=0.1"; SPOKES]]);
}

#[test]
fn hi_50_gw_504_a_black_hole_in_place_of_one_of_three_is_survived() {
    survives("a black hole", &[["cut=1", "cut=0", "cut=0"]]);
}

#[test]
fn hi_50_gw_504_a_slow_one_of_three_is_survived() {
    survives(
        "a slow one of three",
        &[["delay=0.4", "delay=0", "delay=0"]],
    );
}

#[test]
fn hi_50_gw_504_loss_and_delay_together_are_survived() {
    survives(
        "5 % loss and 50 ms delay",
        &[["loss=0.05 delay=0.05"; SPOKES]],
    );
}

/// Away and back again, ten times, each for as long as most ejections do not last.
#[test]
fn hi_50_gw_504_a_flapping_one_of_three_is_survived() {
    let (away, back) = (["cut=1", "cut=0", "cut=0"], ["cut=0"; SPOKES]);
    let turns: Vec<Turn> = (0..5).flat_map(|_| [away, back]).collect();
    survives("a flapping one of three", &turns);
}
