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
mod worker;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, watch};
use tollgate_config::span::{MOST_SPANS, Span, SpanStatus};
use tollgate_config::{Document, Traces};

use super::log;
use super::metrics::SpanSeries;
use crate::exchange::trace::write_hex;
use crate::moment::Moment;
pub(crate) use record::read;
pub use record::{Head, Record, Tag, Tags, Value};
use ring::Ring;
pub use worker::{Wanted, WorkerSpans};

/// Bytes of recent spans, of all workers together.
const RECENT: usize = 256 * 1024;
/// Bytes of spans that wait for the exporter, of all workers together.
const WAITING: usize = 1024 * 1024;
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
    series: Arc<SpanSeries>,
}

/// What one worker has handed over.
#[derive(Debug)]
struct Shelf {
    recent: Ring,
    /// For the exporter.
    waiting: Ring,
}

impl Spans {
    pub fn new(workers: usize, series: Arc<SpanSeries>) -> Self {
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
            series,
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

#[cfg(test)]
mod tests;
