//! A worker's end: which exchanges are kept, and handing over what was written of them. On the request path, so it waits for
//! nobody.
//!
//! By callgrind, of the 44,000 instructions that a plain request takes in this program alone, spans are 490 at 2,300 requests a second:
//! 100 to note a try, 100 to decide, and some 1,200 for every exchange that is kept, which is at most 320 a second before the choice
//! begins. At ten times as many requests they are half of that.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use super::record::{self, Head, Tags};
use super::{RECENT, Spans};
use crate::exchange::trace::TraceContext;
use crate::telemetry::metrics::SpansDropped;

/// A worker hands over when it holds this much.
const FULL: usize = 8 * 1024;
/// While it cannot hand over it holds so many times as much, and drops the rest.
const HELD: usize = 4;
/// Exchanges between two ticks of a worker that are kept whatever they are, and as many that failed.
pub(super) const EACH_TICK: u32 = 32;
/// Of more than these, one trace in so many is kept.
pub(super) const ONE_IN: u8 = 64;

/// One worker's end; belongs to its thread.
#[derive(Debug)]
pub struct WorkerSpans {
    shared: Arc<Spans>,
    worker: usize,
    recent: Held,
    waiting: Held,
    /// Exchanges that may still be kept before the next tick: any, and those that failed.
    left: [u32; 2],
}

/// What was not handed over yet.
#[derive(Debug)]
struct Held {
    bytes: Vec<u8>,
    spans: usize,
    /// Bytes that are worth handing over.
    full: usize,
}

impl Held {
    fn new(full: usize) -> Self {
        Held {
            bytes: Vec::new(),
            spans: 0,
            full,
        }
    }

    fn is_full(&self) -> bool {
        self.bytes.len() >= self.full
    }

    fn has_room(&self) -> bool {
        self.bytes.len() < self.full * HELD
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(2 * self.full);
        self.spans = 0;
    }
}

/// For whom an exchange's spans are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub(super) recent: bool,
    pub(super) waiting: bool,
}

impl WorkerSpans {
    pub fn new(shared: Arc<Spans>, worker: usize) -> Self {
        // Of many workers each has a small share, which must hold several runs.
        let full = FULL.min(RECENT / shared.shelves.len().max(1) / (2 * HELD));
        WorkerSpans {
            shared,
            worker,
            recent: Held::new(full),
            waiting: Held::new(FULL),
            left: [EACH_TICK; 2],
        }
    }

    pub fn shared(&self) -> &Spans {
        &self.shared
    }

    /// Whether anybody will look at an exchange that has ended.
    #[inline]
    pub fn wants(&mut self, trace: &TraceContext, failed: bool) -> Option<Wanted> {
        let shared = &self.shared;
        let waiting = shared.exporting.load(Relaxed)
            && (trace.sampled() || failed && shared.always_on_error.load(Relaxed));
        let recent = take_one(&mut self.left[0])
            || failed && take_one(&mut self.left[1])
            || trace.trace_id[15].is_multiple_of(ONE_IN);
        (recent || waiting).then_some(Wanted { recent, waiting })
    }

    /// Writes one span of an exchange that is wanted.
    pub fn write(&mut self, wanted: Wanted, head: &Head, tags: impl FnOnce(&mut Tags<'_>)) {
        let waiting = wanted.waiting && self.waiting.has_room();
        if wanted.waiting && !waiting {
            self.shared.series.dropped(SpansDropped::QueueFull, 1);
        }
        let recent = wanted.recent && self.recent.has_room();
        let (first, other) = match (recent, waiting) {
            (true, true) => (&mut self.recent, Some(&mut self.waiting)),
            (true, false) => (&mut self.recent, None),
            (false, true) => (&mut self.waiting, None),
            (false, false) => return,
        };
        let begin = first.bytes.len();
        record::write(&mut first.bytes, head, tags);
        first.spans += 1;
        if let Some(other) = other {
            let one = first.bytes.get(begin..).unwrap_or_default();
            other.bytes.extend_from_slice(one);
            other.spans += 1;
        }
        if self.recent.is_full() || self.waiting.is_full() {
            self.flush();
        }
    }

    /// The worker's ticker calls this ten times a second.
    pub fn tick(&mut self) {
        self.left = [EACH_TICK; 2];
        self.flush();
    }

    /// Hands over what is there, unless somebody is looking at what was handed over before.
    pub fn flush(&mut self) {
        if self.recent.spans + self.waiting.spans == 0 {
            return;
        }
        let Some(Ok(mut shelf)) = self.shared.shelves.get(self.worker).map(Mutex::try_lock) else {
            return;
        };
        if self.recent.spans > 0 {
            shelf.recent.push(&self.recent.bytes, self.recent.spans);
        }
        let arrived = self.waiting.spans;
        if arrived > 0 {
            let lost = shelf.waiting.push(&self.waiting.bytes, arrived);
            self.shared.series.dropped(SpansDropped::QueueFull, lost);
            let before = self.shared.waiting.fetch_add(arrived, Relaxed);
            self.shared.waiting.fetch_sub(lost, Relaxed);
            if before + arrived >= self.shared.batch.load(Relaxed) {
                self.shared.batch_is_full.notify_one();
            }
        }
        drop(shelf);
        self.recent.clear();
        self.waiting.clear();
    }
}

fn take_one(left: &mut u32) -> bool {
    match left.checked_sub(1) {
        Some(rest) => {
            *left = rest;
            true
        }
        None => false,
    }
}
