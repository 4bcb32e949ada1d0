//! `up --load`: a steady trickle of requests, so that status, metrics and logs have something to show. One thread,
//! one connection, one request after the other; it measures nothing but what it tells. For measuring there is `benches`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::table;

const PACE: Duration = Duration::from_millis(20);
const REPORT: Duration = Duration::from_secs(5);
const PATHS: [&str; 5] = [
    "/hello",
    "/catalog/items/1",
    "/orders/7",
    "/who",
    "/catalog/items",
];

/// What was asked since the last report.
#[derive(Default)]
struct Tally {
    answered: u64,
    failed: u64,
    slowest: Duration,
}

/// Begins; ends by itself when `stopping` turns true or nobody listens any more.
pub(super) fn start(authority: String, stopping: Arc<AtomicBool>) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name("load".into());
    // Not joined: it holds nothing that must be put away, and the process ends without it.
    thread.spawn(move || run(&authority, &stopping)).map(drop)
}

fn run(authority: &str, stopping: &AtomicBool) {
    let (mut tally, mut reported) = (Tally::default(), Instant::now());
    let mut client = None;
    for path in PATHS.iter().cycle() {
        if stopping.load(Ordering::Acquire) {
            return;
        }
        let began = Instant::now();
        let mut connected = match client.take() {
            Some(connected) => connected,
            None => match Client::connect(authority) {
                Ok(connected) => connected,
                Err(_) => return,
            },
        };
        match connected.send("GET", path, "") {
            Ok(answer) => {
                tally.answered += u64::from(answer.status == 200);
                tally.failed += u64::from(answer.status != 200);
                client = (!answer.last).then_some(connected);
            }
            Err(_) if stopping.load(Ordering::Acquire) => return,
            Err(_) => tally.failed += 1,
        }
        tally.slowest = tally.slowest.max(began.elapsed());
        if reported.elapsed() >= REPORT {
            table::print(&format!(
                "load: {} answered 200, {} not, slowest {} ms\n",
                tally.answered,
                tally.failed,
                tally.slowest.as_millis()
            ));
            (tally, reported) = (Tally::default(), Instant::now());
        }
        std::thread::sleep(PACE.saturating_sub(began.elapsed()));
    }
}
