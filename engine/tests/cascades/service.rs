//! An endpoint whose mood can be changed, and that dates what arrives by the demand's count.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tollgate_engine::testing::upstream::{Conn, Upstream};

use tollgate_engine::testing::demand::Count;

/// What an endpoint does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Mood {
    Well,
    /// 503, at once.
    Refuses,
    /// The connection ends in place of an answer.
    Closes,
    /// Nothing, until whoever asked gives up.
    Stalls,
}

const MOODS: [Mood; 4] = [Mood::Well, Mood::Refuses, Mood::Closes, Mood::Stalls];

pub(crate) struct Service {
    upstream: Upstream,
    mood: Arc<AtomicUsize>,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
}

/// A request that arrived.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    /// Its own number.
    pub(crate) number: u64,
    /// Of the request that the clients had begun last.
    pub(crate) count: u64,
    pub(crate) when: Instant,
}

impl Service {
    pub(crate) fn start(count: &Count) -> Service {
        let mood = Arc::new(AtomicUsize::new(Mood::Well as usize));
        let arrivals = Arc::new(Mutex::new(Vec::new()));
        let (moods, book, count) = (mood.clone(), arrivals.clone(), count.clone());
        let upstream = Upstream::http1(move |conn| {
            while let Some(request) = conn.read_request() {
                let number = request.target().rsplit('/').next();
                let arrival = Arrival {
                    number: number.and_then(|word| word.parse().ok()).unwrap_or(0),
                    count: count.load(Ordering::SeqCst),
                    when: Instant::now(),
                };
                book.lock().unwrap().push(arrival);
                if !answer(conn, MOODS[moods.load(Ordering::SeqCst)]) {
                    return;
                }
            }
        });
        Service {
            upstream,
            mood,
            arrivals,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.upstream.address()
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.mood.store(mood as usize, Ordering::SeqCst);
    }

    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.lock().unwrap().clone()
    }
}

fn answer(conn: &mut Conn, mood: Mood) -> bool {
    match mood {
        Mood::Well => conn.respond("200 OK", &[], "ok"),
        Mood::Refuses => conn.respond("503 Service Unavailable", &[], "no"),
        Mood::Closes => false,
        Mood::Stalls => {
            conn.wait_closed();
            false
        }
    }
}

/// As a document lists them.
pub(crate) fn listed(services: &[Service]) -> String {
    let addresses: Vec<_> = services
        .iter()
        .map(|service| format!("\"{}\"", service.address()))
        .collect();
    addresses.join(", ")
}
