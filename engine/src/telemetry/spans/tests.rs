use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;
use tollgate_config::span::SpanKind;

use super::worker::{EACH_TICK, ONE_IN};
use super::*;
use crate::exchange::trace::TraceContext;

const BOTH: Wanted = Wanted {
    recent: true,
    waiting: true,
};
const RECENT_ALONE: Wanted = Wanted {
    recent: true,
    waiting: false,
};

fn head(number: u64) -> Head {
    let started = Instant::now();
    Head {
        trace_id: (u128::from(number) << 64 | 1).to_be_bytes(),
        span_id: number.max(1).to_be_bytes(),
        parent: (number > 0).then_some([7; 8]),
        kind: SpanKind::Client,
        failed: number.is_multiple_of(2),
        started,
        ended: started + Duration::from_micros(number),
    }
}

fn context(trace_id: [u8; 16], sampled: bool) -> TraceContext {
    let mut context = TraceContext::begin(|| 1);
    context.trace_id = trace_id;
    if sampled {
        context.sample();
    }
    context
}

fn spans(workers: usize) -> Arc<Spans> {
    Arc::new(Spans::new(workers, Arc::default()))
}

/// A trace that no rule about ids chooses.
const USUAL: [u8; 16] = [1; 16];

#[test]
fn what_was_written_is_read() {
    let mut bytes = Vec::new();
    let socket: SocketAddr = "10.0.0.2:80".parse().unwrap();
    let six: SocketAddr = "[2001:db8::1]:443".parse().unwrap();
    for number in 0..3 {
        record::write(&mut bytes, &head(number), |tags| {
            tags.text(Tag::Upstream, "app");
            tags.number(Tag::Attempt, number);
            tags.socket(Tag::Endpoint, if number == 0 { socket } else { six });
            tags.address(Tag::Client, six.ip());
            tags.text(Tag::Fallback, "");
        });
    }
    let records: Vec<_> = read(&bytes).collect();
    assert_eq!(records.len(), 3);
    for (number, record) in (0..).zip(&records) {
        let head = head(number);
        assert_eq!(
            (record.trace_id, record.span_id),
            (head.trace_id, head.span_id)
        );
        assert_eq!((record.parent, record.failed), (head.parent, head.failed));
        assert_eq!(
            (record.kind, record.nanoseconds),
            (head.kind, number * 1000)
        );
        assert_eq!(record.operation(), "app");
        let tags: Vec<_> = record.tags().collect();
        let endpoint = if number == 0 { socket } else { six };
        assert_eq!(
            tags,
            [
                (Tag::Upstream, Value::Text("app")),
                (Tag::Attempt, Value::Number(number)),
                (Tag::Endpoint, Value::Socket(endpoint)),
                (Tag::Client, Value::Address(six.ip())),
            ]
        );
    }
}

/// HI-59: no client fills what is kept.
#[test]
fn long_texts_are_cut_between_letters() {
    let mut bytes = Vec::new();
    let long = "é".repeat(5000);
    record::write(&mut bytes, &head(1), |tags| tags.text(Tag::Path, &long));
    assert!(bytes.len() < 400);
    let record = read(&bytes).next().expect("one");
    assert_eq!(record.operation(), "é".repeat(127));
}

proptest! {
    #[test]
    fn no_bytes_are_too_odd_to_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for record in read(&bytes) {
            let _read = record.tags().count();
        }
    }
}

#[test]
fn what_is_kept_is_bounded_and_the_newest_stays() {
    for workers in [1, 3, 64] {
        let shared = spans(workers);
        for worker in 0..workers {
            let mut own = WorkerSpans::new(shared.clone(), worker);
            for number in 0..20_000 / workers as u64 {
                let trace = |tags: &mut Tags<'_>| tags.text(Tag::Path, "/orders/of/somebody");
                own.write(BOTH, &head(number), trace);
            }
            own.flush();
            let shelf = lock(&shared.shelves[worker]);
            let sum = |runs: Vec<Box<[u8]>>| runs.iter().map(|run| run.len()).sum::<usize>();
            assert!(sum(shelf.recent.copy()) <= RECENT / workers);
            assert!(sum(shelf.waiting.copy()) <= WAITING / workers);
            let last = shelf.recent.copy();
            let last = last.last().and_then(|run| read(run).last());
            let number = last.map(|record| u64::from_be_bytes(record.span_id));
            assert_eq!(number, Some(20_000 / workers as u64 - 1));
        }
        let waiting = shared.waiting.load(Relaxed);
        let taken = shared.take_waiting();
        let taken: usize = taken.iter().map(|run| read(run).count()).sum();
        assert_eq!((taken, shared.waiting.load(Relaxed)), (waiting, 0));
    }
}

#[test]
fn a_worker_never_waits_for_somebody_who_looks() {
    let shared = spans(1);
    let mut own = WorkerSpans::new(shared.clone(), 0);
    {
        let _looks = lock(&shared.shelves[0]);
        own.write(RECENT_ALONE, &head(3), |_| {});
        own.flush();
    }
    assert_eq!(shared.recent(10).len(), 0);
    own.flush();
    assert_eq!(shared.recent(10).len(), 1);
}

#[test]
fn of_many_exchanges_few_are_kept_and_of_those_that_fail_as_many_more() {
    let mut own = WorkerSpans::new(spans(1), 0);
    let mut kept = |failed: bool, times: u32| {
        (0..times)
            .filter(|_| own.wants(&context(USUAL, false), failed).is_some())
            .count()
    };
    assert_eq!(kept(false, 1000), EACH_TICK as usize);
    assert_eq!(kept(true, 1000), EACH_TICK as usize);
    assert_eq!(kept(true, 1000), 0);
    // The same traces at every hop.
    let mut chosen = USUAL;
    chosen[15] = ONE_IN;
    assert!(own.wants(&context(chosen, false), false).is_some());
    own.tick();
    assert!(own.wants(&context(USUAL, false), false).is_some());
}

/// OBS-108.
#[test]
fn a_share_of_traces_is_the_same_for_everybody_who_decides() {
    let mut random = fastrand::Rng::with_seed(7);
    let ids: Vec<[u8; 16]> = (0..10_000).map(|_| random.u128(..).to_be_bytes()).collect();
    let below = |share: f64| ids.iter().filter(|id| drawn(id) < threshold(share)).count();
    assert_eq!((below(0.0), below(1.0)), (0, ids.len()));
    assert!((900..1100).contains(&below(0.1)), "{}", below(0.1));
    let mut last = [0xff; 16];
    assert!(drawn(&last) < threshold(1.0));
    last[..9].fill(0);
    assert!(drawn(&last) < threshold(1.0), "only the random part counts");
}

/// OBS-107: told in the time of day, whatever moments are.
#[test]
fn a_span_says_when_it_was() {
    let (head, mut bytes) = (head(1500), Vec::new());
    record::write(&mut bytes, &head, |tags| tags.text(Tag::Route, "all"));
    let wall = Wall {
        now: UNIX_EPOCH + Duration::from_secs(1000),
        moment: (head.started + Duration::from_secs(1)).into(),
    };
    let record = read(&bytes).next().expect("one");
    let span = wall.tell(&record, "edge");
    assert_eq!((span.start_us, span.duration_us), (999_000_000, 1500));
    assert_eq!((&*span.operation, &*span.service), ("all", "edge"));
    assert_eq!(span.trace_id, "00000000000005dc0000000000000001");
    assert_eq!(span.parent_id.as_deref(), Some("0707070707070707"));
}

#[test]
fn a_trace_is_found_by_its_digits_alone() {
    let shared = spans(1);
    let mut own = WorkerSpans::new(shared.clone(), 0);
    for number in [1, 1, 2] {
        own.write(RECENT_ALONE, &head(number), |_| {});
    }
    own.flush();
    assert_eq!(shared.of("00000000000000010000000000000001").len(), 2);
    for digits in ["", "00", "0000000000000001000000000000000x"] {
        assert!(shared.of(digits).is_empty());
    }
}
