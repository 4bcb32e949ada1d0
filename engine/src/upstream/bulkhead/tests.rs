//! The bulkhead through its front door, and many threads at once.

use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use fastrand::Rng;
use proptest::prelude::*;
use tollgate_config::Priority::{self, Critical, Default as Ordinary, Sheddable};

use super::*;
use crate::testing::PATIENCE;

pub(super) fn rules(limit: u32, length: usize) -> Rules {
    Rules {
        limit: MaxInFlight::Fixed(limit),
        length,
        patience: Duration::from_millis(100),
    }
}

fn permit(bulkhead: &Arc<Bulkhead>, rules: &Rules) -> Option<Permit> {
    match bulkhead.enter(rules, Ordinary, Instant::now()) {
        Entry::Permit(permit) => Some(permit),
        Entry::Wait(_) | Entry::Full => None,
    }
}

fn wait(bulkhead: &Arc<Bulkhead>, rules: &Rules, priority: Priority) -> Wait {
    match bulkhead.enter(rules, priority, Instant::now()) {
        Entry::Wait(wait) => wait,
        other => panic!("it should wait: {other:?}"),
    }
}

fn look(wait: &mut Wait) -> Poll<Result<Permit, Shed>> {
    pin!(wait).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn as_many_get_in_as_the_limit_says_and_one_more_for_each_that_leaves() {
    let bulkhead = Arc::<Bulkhead>::default();
    let rules = rules(3, 0);
    let mut permits: Vec<_> = (0..3).map(|_| permit(&bulkhead, &rules).unwrap()).collect();
    assert!(permit(&bulkhead, &rules).is_none());
    permits.pop();
    permits.push(permit(&bulkhead, &rules).unwrap());
    assert!(permit(&bulkhead, &rules).is_none());
    drop(permits);
    assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (0, 0));
    assert_eq!(bulkhead.status(&rules).refused.default, 2);
}

#[test]
fn a_permit_that_is_given_back_goes_to_the_most_important_who_waits() {
    let bulkhead = Arc::<Bulkhead>::default();
    let rules = rules(1, 10);
    let first = permit(&bulkhead, &rules).unwrap();
    let mut sheddable = wait(&bulkhead, &rules, Sheddable);
    let mut ordinary = wait(&bulkhead, &rules, Ordinary);
    let mut critical = wait(&bulkhead, &rules, Critical);
    assert!(look(&mut critical).is_pending());
    drop(first);
    assert!(look(&mut ordinary).is_pending());
    let Poll::Ready(Ok(permit)) = look(&mut critical) else {
        panic!("the critical one is next");
    };
    assert!(
        permit_is_refused(&bulkhead, &rules),
        "nobody overtakes who waits"
    );
    drop(permit);
    assert!(look(&mut sheddable).is_pending());
    assert!(look(&mut ordinary).is_ready());
}

fn permit_is_refused(bulkhead: &Arc<Bulkhead>, rules: &Rules) -> bool {
    permit(bulkhead, rules).is_none()
}

#[test]
fn a_full_queue_sheds_the_least_important_for_a_more_important_one_and_refuses_its_equals() {
    let bulkhead = Arc::<Bulkhead>::default();
    let rules = rules(1, 2);
    let first = permit(&bulkhead, &rules).unwrap();
    let mut sheddable = wait(&bulkhead, &rules, Sheddable);
    let mut ordinary = wait(&bulkhead, &rules, Ordinary);
    assert!(matches!(
        bulkhead.enter(&rules, Sheddable, Instant::now()),
        Entry::Full
    ));
    let mut critical = wait(&bulkhead, &rules, Critical);
    assert_eq!(
        look(&mut sheddable).map(Result::err),
        Poll::Ready(Some(Shed))
    );
    assert!(look(&mut ordinary).is_pending());
    drop(sheddable);
    let status = bulkhead.status(&rules);
    assert_eq!((status.shed.sheddable, status.refused.sheddable), (1, 1));
    drop(first);
    assert!(look(&mut critical).is_ready());
    assert!(look(&mut ordinary).is_ready(), "the permit was dropped");
    assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (0, 0));
}

#[test]
fn a_permit_on_its_way_to_one_who_left_goes_to_the_next() {
    let bulkhead = Arc::<Bulkhead>::default();
    let rules = rules(1, 10);
    let first = permit(&bulkhead, &rules).unwrap();
    let gone = wait(&bulkhead, &rules, Ordinary);
    let mut next = wait(&bulkhead, &rules, Ordinary);
    drop(first);
    assert!(look(&mut next).is_pending());
    drop(gone);
    assert!(look(&mut next).is_ready());
    assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (0, 0));
}

#[test]
fn who_was_shed_and_leaves_before_it_heard_of_it_gives_back_nothing() {
    let bulkhead = Arc::<Bulkhead>::default();
    let rules = rules(1, 1);
    let _first = permit(&bulkhead, &rules).unwrap();
    let shed = wait(&bulkhead, &rules, Sheddable);
    let _critical = wait(&bulkhead, &rules, Critical);
    drop(shed);
    assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (1, 1));
}

#[test]
fn a_changed_limit_holds_for_the_next_who_asks_and_for_all_who_wait() {
    let bulkhead = Arc::<Bulkhead>::default();
    let _permits = [(); 2].map(|()| permit(&bulkhead, &rules(2, 10)).unwrap());
    let mut early = wait(&bulkhead, &rules(2, 10), Ordinary);
    let mut late = wait(&bulkhead, &rules(4, 10), Ordinary);
    let held = (look(&mut early), look(&mut late));
    assert!(matches!(held, (Poll::Ready(Ok(_)), Poll::Ready(Ok(_)))));
    assert!(permit_is_refused(&bulkhead, &rules(3, 0)));
    drop(held);
    assert!(permit(&bulkhead, &rules(3, 0)).is_some());
}

#[test]
fn who_waited_too_long_is_counted_by_priority() {
    let bulkhead = Arc::<Bulkhead>::default();
    let rules = rules(1, 10);
    let first = permit(&bulkhead, &rules).unwrap();
    wait(&bulkhead, &rules, Sheddable).expire();
    drop(wait(&bulkhead, &rules, Sheddable));
    let status = bulkhead.status(&rules);
    assert_eq!((status.expired.sheddable, status.waiting.sheddable), (1, 0));
    drop(first);
    assert_eq!(bulkhead.in_flight(), 0);
}

/// What may happen, one thing after another.
#[derive(Debug, Clone)]
enum Event {
    Enter {
        priority: u8,
        limit: u32,
        length: usize,
    },
    Leave {
        which: usize,
    },
    GiveUp {
        which: usize,
    },
    Look {
        which: usize,
    },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => (0u8..3, 1u32..4, 0usize..5)
            .prop_map(|(priority, limit, length)| Event::Enter { priority, limit, length }),
        2 => (0usize..8).prop_map(|which| Event::Leave { which }),
        1 => (0usize..8).prop_map(|which| Event::GiveUp { which }),
        2 => (0usize..8).prop_map(|which| Event::Look { which }),
    ];
    prop::collection::vec(event, 0..80)
}

proptest! {
    #[test]
    fn whatever_happens_counts_are_exact_and_no_permit_is_free_while_somebody_waits(events in events()) {
        let bulkhead = Arc::<Bulkhead>::default();
        let now = Instant::now();
        let (mut permits, mut waits) = (Vec::new(), Vec::<Wait>::new());
        for (step, event) in events.into_iter().enumerate() {
            match event {
                Event::Enter { priority, limit, length } => {
                    let priority = [Critical, Ordinary, Sheddable][usize::from(priority)];
                    let now = now + Duration::from_millis(37 * step as u64);
                    let before = bulkhead.in_flight();
                    match bulkhead.enter(&rules(limit, length), priority, now) {
                        Entry::Permit(permit) => {
                            prop_assert!(before < limit);
                            permits.push(permit);
                        }
                        Entry::Wait(wait) => waits.push(wait),
                        Entry::Full => {}
                    }
                }
                Event::Leave { which } if which < permits.len() => drop(permits.swap_remove(which)),
                Event::GiveUp { which } if which < waits.len() => drop(waits.swap_remove(which)),
                Event::Look { which } if which < waits.len() => {
                    match look(&mut waits[which]) {
                        Poll::Ready(Ok(permit)) => {
                            permits.push(permit);
                            drop(waits.swap_remove(which));
                        }
                        Poll::Ready(Err(Shed)) => drop(waits.swap_remove(which)),
                        Poll::Pending => {}
                    }
                }
                Event::Leave { .. } | Event::GiveUp { .. } | Event::Look { .. } => {}
            }
            let on_their_way = waits
                .iter()
                .filter(|wait| wait.verdict() == Some(Ok(())))
                .count();
            let in_line = waits.iter().filter(|wait| wait.verdict().is_none()).count();
            prop_assert_eq!(bulkhead.in_flight() as usize, permits.len() + on_their_way);
            prop_assert_eq!(bulkhead.waiting() as usize, in_line);
            let in_force = bulkhead.limit_of(&bulkhead.line.lock().unwrap());
            prop_assert!(in_line == 0 || bulkhead.in_flight() >= in_force);
        }
        drop((permits, waits));
        prop_assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (0, 0));
    }
}

/// Wakes a thread that sleeps in `park`.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits as a worker would, but gives up after so many wake-ups.
fn block_on(mut wait: Wait) -> Result<Permit, Shed> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let begun = Instant::now();
    loop {
        if let Poll::Ready(result) = pin!(&mut wait).poll(&mut Context::from_waker(&waker)) {
            return result;
        }
        thread::park_timeout(PATIENCE);
        assert!(begun.elapsed() < PATIENCE, "a wake-up was lost");
    }
}

/// Several threads enter, wait, are shed, give up and leave. The limit is never exceeded, and nobody waits for ever: a
/// lost wake-up would fail here.
#[test]
fn many_threads_never_exceed_the_limit_and_nobody_is_forgotten() {
    const THREADS: u64 = 6;
    const ROUNDS: u32 = 20_000;
    for (limit, length) in [(1, 8), (2, 3), (4, 1)] {
        let bulkhead = Arc::<Bulkhead>::default();
        let inside = AtomicU32::new(0);
        let most = AtomicU32::new(0);
        let served = AtomicU64::new(0);
        let lost = AtomicUsize::new(0);
        thread::scope(|scope| {
            for seed in 0..THREADS {
                let (bulkhead, inside, most, served, lost) =
                    (&bulkhead, &inside, &most, &served, &lost);
                scope.spawn(move || {
                    let mut chance = Rng::with_seed(seed);
                    let rules = rules(limit, length);
                    for _ in 0..ROUNDS {
                        let priority = [Critical, Ordinary, Sheddable][chance.usize(0..3)];
                        let permit = match bulkhead.enter(&rules, priority, Instant::now()) {
                            Entry::Permit(permit) => permit,
                            Entry::Wait(wait) if chance.u8(0..8) == 0 => {
                                drop(wait);
                                continue;
                            }
                            Entry::Wait(wait) => match block_on(wait) {
                                Ok(permit) => permit,
                                Err(Shed) => {
                                    lost.fetch_add(1, Ordering::Relaxed);
                                    continue;
                                }
                            },
                            Entry::Full => continue,
                        };
                        let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        if chance.u8(0..4) == 0 {
                            thread::yield_now();
                        }
                        inside.fetch_sub(1, Ordering::SeqCst);
                        served.fetch_add(1, Ordering::Relaxed);
                        drop(permit);
                    }
                });
            }
        });
        assert!(most.into_inner() <= limit);
        assert!(served.into_inner() > 0);
        assert_eq!((bulkhead.in_flight(), bulkhead.waiting()), (0, 0));
        let status = bulkhead.status(&rules(limit, length));
        let shed = status.shed.default + status.shed.sheddable;
        // Some of those who were shed gave up before they heard of it.
        assert!(lost.into_inner() as u64 <= shed);
    }
}

#[test]
fn of_many_at_once_exactly_as_many_get_in_as_the_limit_says() {
    const THREADS: usize = 8;
    for round in 0..200 {
        let bulkhead = Arc::<Bulkhead>::default();
        let rules = rules(5, 0);
        let barrier = std::sync::Barrier::new(THREADS);
        let permits: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        (0..3)
                            .filter_map(|_| permit(&bulkhead, &rules))
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(permits.len(), 5, "round {round}");
    }
}
