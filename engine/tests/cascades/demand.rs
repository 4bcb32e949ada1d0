//! Clients that ask at a pace, whatever becomes of their requests, and what they were answered.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tollgate_engine::testing::client::Client;

/// Requests a second, all clients together. The figure.
pub(crate) const RATE: u64 = 200;
/// Enough that requests which hang do not keep the others back.
const CLIENTS: usize = 24;
/// How often the witness looks at the clock.
const LOOK: Duration = Duration::from_millis(5);

/// The number of the request that was begun last; what upstreams see is dated by it.
pub(crate) type Count = Arc<AtomicU64>;

/// One request, as its client saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) number: u64,
    pub(crate) status: u16,
    /// The stable word of an answer of the gateway's own.
    pub(crate) code: String,
    pub(crate) took: Duration,
}

/// Asks for `PATH/NUMBER` at the pace, for numbers from 1, until `goes_on` refuses one; tells it each number before that
/// request is begun. Connections are kept. Answers are in the order of their numbers.
pub(crate) fn demand(
    address: SocketAddr,
    path: &str,
    begun: &Count,
    goes_on: impl Fn(u64) -> bool + Sync,
) -> Vec<Seen> {
    let (next, start) = (AtomicU64::new(1), Instant::now());
    let (seen, over) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = Client::connect(address);
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    let due = start + Duration::from_secs(number) / u32::try_from(RATE).unwrap();
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    if over.load(Ordering::SeqCst) || !goes_on(number) {
                        return over.store(true, Ordering::SeqCst);
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
                    let (status, answers) = (answer.status, &seen);
                    answers.lock().unwrap().push(Seen {
                        number,
                        status,
                        code,
                        took,
                    });
                }
            });
        }
    });
    let mut seen = seen.into_inner().unwrap();
    seen.sort_by_key(|one: &Seen| one.number);
    seen
}

/// The answers that are no 200, with their words.
pub(crate) fn errors(seen: &[Seen]) -> Vec<String> {
    let failed = seen.iter().filter(|one| one.status != 200);
    failed
        .map(|one| format!("{}: {} {}", one.number, one.status, one.code))
        .collect()
}

/// Knows the longest time for which the machine held this process up.
pub(crate) struct Witness {
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Duration>,
}

impl Witness {
    pub(crate) fn begin() -> Witness {
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

    pub(crate) fn end(self) -> Duration {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("it only looks")
    }
}
