//! Clients that ask at a pace, as those do who know nothing of each other, whatever becomes of their requests; and a
//! witness of how long the machine held this process up meanwhile.
//!
//! Requests are numbered, so that a test can count in requests what is promised in time at this pace. The pause
//! between two requests is the load itself, and no test waits for it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::client::Client;
use super::journal::lock;

/// Requests a second, all clients together: the pace at which the issue of protection states its bounds.
pub const RATE: u32 = 200;
/// Enough that requests which hang do not keep the others back.
pub const CLIENTS: u64 = 32;
/// How often the witness looks at the clock.
const LOOK: Duration = Duration::from_millis(5);

/// The number of the request that was begun last; what upstreams see can be dated by it.
pub type Count = Arc<AtomicU64>;

/// One request, as its client saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Counted from 1.
    pub number: u64,
    pub status: u16,
    /// The stable word of an answer of the gateway's own.
    pub code: String,
    pub took: Duration,
}

/// Asks for `PATH/NUMBER` at the pace; `goes_on` is told each number before that request is begun, and each client ends with
/// the first that it refuses. Connections are kept. Answers are handed back in the order of their numbers; a request without one fails the
/// test.
pub fn demand(
    address: SocketAddr,
    path: &str,
    begun: &Count,
    goes_on: impl Fn(u64) -> bool + Sync,
) -> Vec<Seen> {
    let (next, start) = (AtomicU64::new(1), Instant::now());
    let seen = Mutex::new(Vec::new());
    let client = || {
        let mut client = Client::connect(address);
        loop {
            let number = next.fetch_add(1, Ordering::SeqCst);
            let due = start + Duration::from_secs(number) / RATE;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if !goes_on(number) {
                return;
            }
            begun.fetch_max(number, Ordering::SeqCst);
            let began = Instant::now();
            let answer = client.get(&format!("{path}/{number}"));
            let took = began.elapsed();
            if !answer.keeps_alive() {
                client = Client::connect(address);
            }
            let own = answer.header("content-type") == Some("application/problem+json");
            let code = if own { answer.code() } else { String::new() };
            lock(&seen).push(Seen {
                number,
                status: answer.status,
                code,
                took,
            });
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(client);
        }
    });
    let mut seen = std::mem::take(&mut *lock(&seen));
    seen.sort_by_key(|one: &Seen| one.number);
    seen
}

/// The answers that are no 200, with their words.
pub fn errors(seen: &[Seen]) -> Vec<String> {
    let failed = seen.iter().filter(|one| one.status != 200);
    failed
        .map(|one| format!("{}: {} {}", one.number, one.status, one.code))
        .collect()
}

/// The time within which so many of a hundred were answered.
pub fn percentile(seen: &[Seen], of_100: usize) -> Duration {
    let mut took: Vec<Duration> = seen.iter().map(|one| one.took).collect();
    took.sort_unstable();
    let place = took.len() * of_100 / 100;
    took.get(place).copied().unwrap_or_default()
}

/// Knows the longest time for which the machine held this process up.
pub struct Witness {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Witness {
    /// Looks until it is asked.
    pub fn begin() -> Witness {
        let over = Arc::new(AtomicBool::new(false));
        let theirs = over.clone();
        let thread = std::thread::spawn(move || {
            let (mut longest, mut last) = (Duration::ZERO, Instant::now());
            while !theirs.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK);
                let now = Instant::now();
                longest = longest.max((now - last).saturating_sub(LOOK));
                last = now;
            }
            longest
        });
        Witness { over, thread }
    }

    pub fn end(self) -> Duration {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("it only looks")
    }
}
