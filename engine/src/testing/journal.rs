//! What an upstream has seen, and the doors that its scripts wait at.
//!
//! Every request that arrives at a scripted upstream is written down here, and so is whatever a strict reader of HTTP/1
//! would not accept: a gateway must never send that, whatever it was sent itself.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::PATIENCE;

/// A door that a script waits at until the test opens it; open doors stay open.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn new() -> Gate {
        Gate::default()
    }

    pub fn open(&self) {
        *lock(&self.0.0) = true;
        self.0.1.notify_all();
    }

    /// Whether it is open, or opens before so much time has passed.
    pub fn opens_within(&self, within: Duration) -> bool {
        let waited = self
            .0
            .1
            .wait_timeout_while(lock(&self.0.0), within, |open| !*open);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    pub fn wait(&self) {
        let (closed, limit) = (lock(&self.0.0), PATIENCE * 2);
        let (open, _) = self
            .0
            .1
            .wait_timeout_while(closed, limit, |open| !*open)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(*open, "nobody opened the gate");
    }
}

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which connection, counted from 1.
    pub connection: usize,
    /// Request line and fields with the blank line, as they came.
    pub head: String,
    /// Without its framing.
    pub body: Vec<u8>,
    pub trailers: Vec<String>,
    /// True once the body has been read to its framed end.
    pub complete: bool,
    pub(super) position: usize,
}

impl Request {
    pub fn line(&self) -> &str {
        self.head.split("\r\n").next().unwrap_or_default()
    }

    pub fn method(&self) -> &str {
        self.line().split(' ').next().unwrap_or_default()
    }

    pub fn target(&self) -> &str {
        self.line().split(' ').nth(1).unwrap_or_default()
    }

    /// The only value of a header; fails the test when there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(
            values.len() <= 1,
            "{name} arrived {} times: {values:?}",
            values.len()
        );
        values.first().copied()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let fields = self
            .head
            .split("\r\n")
            .skip(1)
            .filter_map(|line| line.split_once(':'));
        fields
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }
}

/// What has happened at an upstream so far.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    /// Connections accepted.
    pub connections: usize,
    /// Connections whose script has ended and whose socket is closed.
    pub ended: usize,
    pub requests: Vec<Request>,
    /// Every byte read, by connection.
    pub received: Vec<Vec<u8>>,
    /// What a strict reader refuses.
    pub violations: Vec<String>,
}

impl Journal {
    pub fn complete(&self) -> Vec<&Request> {
        self.requests
            .iter()
            .filter(|request| request.complete)
            .collect()
    }
}

/// What a strict reader would refuse in a request head.
pub(super) fn head_violation(head: &[u8]) -> Option<&'static str> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    if words.len() != 3 || words[2] != "HTTP/1.1" || words[0].is_empty() {
        return Some("a request line not of the form METHOD TARGET HTTP/1.1");
    }
    let (mut hosts, mut lengths, mut codings) = (0, 0, 0);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            return Some("a field without a colon");
        };
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(token) {
            return Some("a field name that is no token");
        }
        if value.bytes().any(|b| b != b'\t' && (b < 0x20 || b == 0x7f)) {
            return Some("a control character in a value");
        }
        match &*name.to_ascii_lowercase() {
            "host" => hosts += 1,
            "content-length" => {
                lengths += 1;
                let digits = value.trim();
                if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return Some("a bad length");
                }
            }
            "transfer-encoding" => {
                codings += 1;
                if !value.trim().eq_ignore_ascii_case("chunked") {
                    return Some("a transfer coding other than chunked");
                }
            }
            _ => {}
        }
    }
    match (hosts, lengths, codings) {
        (1, 0 | 1, 0) | (1, 0, 1) => None,
        (1, _, _) => Some("two framings"),
        _ => Some("not exactly one host"),
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
