//! What this data plane did for each request, as spans (MESH-502, OBS-107): those of the last while, for whoever asks, and
//! those that a collector is to be told.
//!
//! A worker writes the spans of an exchange when its books close, all at once, into memory of its own, and hands that over
//! ten times a second, by a lock that it tries and never waits for. So a span ends exactly once, and an exchange that nobody
//! will look at costs a decision. Which exchanges are kept: every one while there are few; of many, those that failed, as far
//! as there is room, and those whose trace id says so, which is the same choice at every hop.
//!
//! Never in a span: query strings, headers other than `User-Agent`, bodies (OBS-205). Everything is bounded by bytes, and
//! nothing is allocated before the first span.

mod record;
mod ring;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, watch};
use tollgate_config::span::{MOST_SPANS, Span, SpanStatus};
use tollgate_config::{Document, Traces};

use super::log;
use crate::exchange::trace::{TraceContext, write_hex};
use crate::moment::Moment;
pub(crate) use record::read;
pub use record::{Head, Record, Tag, Tags, Value};
use ring::Ring;

/// Bytes of recent spans, of all workers together.
const RECENT: usize = 256 * 1024;
/// Bytes of spans that wait for the exporter, of all workers together.
const WAITING: usize = 1024 * 1024;
/// A worker hands over when it holds this much.
const FULL: usize = 8 * 1024;
/// While it cannot hand over it holds so many times as much, and drops the rest.
const HELD: usize = 4;
/// Exchanges between two ticks of a worker that are kept whatever they are, and as many that failed.
const EACH_TICK: u32 = 32;
/// Of more than these, one trace in so many is kept.
const ONE_IN: u8 = 64;

/// Why spans never reached a collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// The collector takes less than there is.
    QueueFull,
    /// The collector refused them for good.
    Refused,
    /// The process ended before they were taken.
    Stopped,
}

impl Dropped {
    pub const ALL: [(Dropped, &'static str); 3] = [
        (Dropped::QueueFull, "queue_full"),
        (Dropped::Refused, "refused"),
        (Dropped::Stopped, "stopped"),
    ];
}

/// The spans of this process. One exists, shared by all threads.
#[derive(Debug)]
pub struct Spans {
    /// Who did it all.
    service: Mutex<Arc<str>>,
    /// Who is told, for the exporter.
    traces: watch::Sender<Option<Traces>>,
    /// Traces that begin here and whose id is below this are sampled.
    sampled_below: AtomicU64,
    exporting: AtomicBool,
    /// What failed is exported whether or not its trace is sampled.
    always_on_error: AtomicBool,
    shelves: Box<[Mutex<Shelf>]>,
    /// Spans that wait for the exporter, and how many make it look before its time.
    waiting: AtomicUsize,
    batch: AtomicUsize,
    pub(crate) batch_is_full: Notify,
    exported: AtomicU64,
    dropped: [AtomicU64; Dropped::ALL.len()],
}

/// What one worker has handed over.
#[derive(Debug)]
struct Shelf {
    recent: Ring,
    /// For the exporter.
    waiting: Ring,
}

impl Spans {
    pub fn new(workers: usize) -> Self {
        let shelf = || {
            Mutex::new(Shelf {
                recent: Ring::new(RECENT / workers.max(1)),
                waiting: Ring::new(WAITING / workers.max(1)),
            })
        };
        Spans {
            service: Mutex::new(log::service().into()),
            traces: watch::Sender::new(None),
            sampled_below: AtomicU64::new(0),
            exporting: AtomicBool::new(false),
            always_on_error: AtomicBool::new(false),
            shelves: (0..workers).map(|_| shelf()).collect(),
            waiting: AtomicUsize::new(0),
            batch: AtomicUsize::new(usize::MAX),
            batch_is_full: Notify::new(),
            exported: AtomicU64::new(0),
            dropped: Default::default(),
        }
    }

    /// The latest spans, the newest first.
    pub fn recent(&self, limit: usize) -> Vec<Span> {
        let limit = limit.min(MOST_SPANS);
        let mut spans = self.select(|_| true);
        spans.sort_by_key(|span| std::cmp::Reverse(span.start_us));
        spans.truncate(limit);
        spans
    }

    /// What is known of one trace, by its 32 digits, the first span first.
    pub fn of(&self, trace_id: &str) -> Vec<Span> {
        let mut spans = self.select(|record| {
            let mut digits = [0; 32];
            write_hex(&record.trace_id, &mut digits);
            trace_id.as_bytes() == digits
        });
        spans.sort_by_key(|span| span.start_us);
        spans.truncate(MOST_SPANS);
        spans
    }

    /// Records as this document says from now on.
    pub(crate) fn follow(&self, document: &Document) {
        let traces = document.telemetry.traces.as_ref();
        let service = { traces.and_then(|traces| traces.service.as_deref()) }
            .or_else(|| document.service_name())
            .unwrap_or_else(|| log::service());
        *lock(&self.service) = service.into();
        let below = traces.map_or(0, |traces| threshold(traces.sample));
        self.sampled_below.store(below, Relaxed);
        let on_error = traces.is_some_and(|traces| traces.always_on_error);
        self.always_on_error.store(on_error, Relaxed);
        let batch = traces.map_or(usize::MAX, |traces| traces.batch_size);
        self.batch.store(batch, Relaxed);
        self.exporting.store(traces.is_some(), Relaxed);
        self.traces.send_if_modified(|known| {
            let changes = known.as_ref() != traces;
            if changes {
                *known = traces.cloned();
            }
            changes
        });
    }

    /// Who is to be told, as long as it stays so.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Traces>> {
        self.traces.subscribe()
    }

    /// Whose spans these are.
    pub fn service(&self) -> Arc<str> {
        lock(&self.service).clone()
    }

    /// Whether a trace that begins here is to be recorded by everybody.
    #[inline]
    pub fn samples(&self, trace_id: &[u8; 16]) -> bool {
        drawn(trace_id) < self.sampled_below.load(Relaxed)
    }

    /// Everything that waits for the exporter, as runs of bytes.
    pub(crate) fn take_waiting(&self) -> Vec<Box<[u8]>> {
        let mut taken = Vec::new();
        for shelf in &self.shelves {
            let mut shelf = lock(shelf);
            let (runs, spans) = shelf.waiting.take();
            taken.extend(runs);
            self.waiting.fetch_sub(spans, Relaxed);
        }
        taken
    }

    pub(crate) fn exported(&self, spans: usize) {
        self.exported.fetch_add(spans as u64, Relaxed);
    }

    pub(crate) fn drop_spans(&self, why: Dropped, spans: usize) {
        if let Some(count) = self.dropped.get(why as usize) {
            count.fetch_add(spans as u64, Relaxed);
        }
    }

    /// Spans that a collector took, ever.
    pub fn exported_total(&self) -> u64 {
        self.exported.load(Relaxed)
    }

    /// Spans that never reached one, by the reason.
    pub fn dropped_total(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Dropped::ALL.iter().map(|(why, word)| {
            let count = self.dropped.get(*why as usize);
            (*word, count.map_or(0, |count| count.load(Relaxed)))
        })
    }

    fn select(&self, wanted: impl Fn(&Record<'_>) -> bool) -> Vec<Span> {
        let (wall, service) = (Wall::now(), self.service());
        let mut spans = Vec::new();
        for shelf in &self.shelves {
            // Copied under the lock, and looked at without it: a worker that meets it keeps what it has until later.
            let runs = lock(shelf).recent.copy();
            let records = runs.iter().flat_map(|run| read(run));
            spans.extend(records.filter(&wanted).map(|one| wall.tell(&one, &service)));
        }
        spans
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The part of a trace id that is random by the letter of the standard: its last 56 bits. Everybody who compares it with a
/// share decides alike.
fn drawn(trace_id: &[u8; 16]) -> u64 {
    u128::from_be_bytes(*trace_id) as u64 & (u64::MAX >> 8)
}

fn threshold(share: f64) -> u64 {
    const ALL: f64 = (1u64 << 56) as f64;
    (share.clamp(0.0, 1.0) * ALL) as u64
}

/// What the clock on the wall said at a moment: spans know moments alone, and are told in the time of the reader's day.
pub(crate) struct Wall {
    now: SystemTime,
    moment: Moment,
}

impl Wall {
    pub(crate) fn now() -> Self {
        Wall {
            now: SystemTime::now(),
            moment: Instant::now().into(),
        }
    }

    /// Nanoseconds since 1970.
    pub(crate) fn nanoseconds(&self, moment: Moment) -> u64 {
        let now = { self.now.duration_since(UNIX_EPOCH) }.map_or(0, |since| {
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        });
        now.saturating_sub(self.moment.since(moment))
    }

    fn tell(&self, record: &Record<'_>, service: &str) -> Span {
        let tags = record.tags();
        Span {
            trace_id: digits(&record.trace_id),
            span_id: digits(&record.span_id),
            parent_id: record.parent.as_ref().map(|parent| digits(parent)),
            service: service.to_owned(),
            operation: record.operation().to_owned(),
            kind: record.kind,
            start_us: self.nanoseconds(record.started) / 1000,
            duration_us: record.nanoseconds / 1000,
            status: match record.failed {
                true => SpanStatus::Error,
                false => SpanStatus::Ok,
            },
            tags: tags
                .map(|(tag, value)| (tag.word().to_owned(), value.to_string()))
                .collect::<BTreeMap<_, _>>(),
        }
    }
}

fn digits(bytes: &[u8]) -> String {
    let mut text = vec![b'0'; bytes.len() * 2];
    write_hex(bytes, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

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
    recent: bool,
    waiting: bool,
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
            || trace.trace_id[15] % ONE_IN == 0;
        (recent || waiting).then_some(Wanted { recent, waiting })
    }

    /// Writes one span of an exchange that is wanted.
    pub fn write(&mut self, wanted: Wanted, head: &Head, tags: impl FnOnce(&mut Tags<'_>)) {
        let waiting = wanted.waiting && self.waiting.has_room();
        if wanted.waiting && !waiting {
            self.shared.drop_spans(Dropped::QueueFull, 1);
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
            self.shared.drop_spans(Dropped::QueueFull, lost);
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
