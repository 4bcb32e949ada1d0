//! Breakers from end to end: GW-401 to GW-415, HI-49. Time passes by itself here; tests wait until `/status` says that it
//! has, and never for a span.

mod grain;
mod opening;
mod operator;
mod outage;
mod probing;
mod slow;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::upstream::{Conn, Upstream};
use tollgate_engine::testing::waiting;

const NO_RETRY: &str = "retry = \"off\"";

/// What an upstream does with a request, to be changed while it runs.
#[derive(Clone, Default)]
struct Mood(Arc<AtomicUsize>);

const WELL: usize = 0;
const FAILING: usize = 1;
const CLOSING: usize = 2;
const MISSING: usize = 3;
const CUTTING: usize = 4;

impl Mood {
    fn set(&self, mood: usize) {
        self.0.store(mood, Ordering::SeqCst);
    }

    fn now(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    fn answer(&self, conn: &mut Conn) {
        while conn.read_request().is_some() {
            match self.now() {
                FAILING => conn.respond("500 Internal Server Error", &[], "no"),
                MISSING => conn.respond("404 Not Found", &[], "no"),
                CLOSING => return,
                CUTTING => {
                    conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
                    return;
                }
                _ => conn.respond("200 OK", &[], "yes"),
            };
        }
    }
}

fn moody(mood: usize) -> (Upstream, Mood) {
    let state = Mood::default();
    state.set(mood);
    let theirs = state.clone();
    (Upstream::http1(move |conn| theirs.answer(conn)), state)
}

fn breaker(keys: &str) -> String {
    format!("outlier = \"off\"\n[upstream.breaker]\n{keys}")
}

fn of_app(gateway: &Gateway) -> Value {
    gateway.get_status()["upstreams"][0]["breakers"][0].clone()
}

/// Waits until `/status` shows the breaker so.
fn wait(gateway: &Gateway, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    waiting::wait(what, || of_app(gateway), wanted)
}

fn is(state: &'static str) -> impl Fn(&Value) -> bool {
    move |breaker| breaker["state"] == state
}
