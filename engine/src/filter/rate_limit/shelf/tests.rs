//! The shelf alone: words are counters here, and a counter of zero tells nothing.

use std::sync::Barrier;
use std::sync::atomic::AtomicBool;

use super::*;

/// Counts up; what was not counted tells nothing.
struct Counter;

impl Meaning for Counter {
    fn fresh(&self, _: u8) -> u64 {
        0
    }
    fn worth(&self, word: u64, _: u8) -> u64 {
        word
    }
}

fn shelf(groups: usize) -> (Shelf, Arc<Budget>) {
    let budget = Arc::new(Budget::new(groups));
    (Shelf::new(budget.clone()), budget)
}

/// Well spread, and the same in every run.
fn key(number: u64) -> Key {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    Key::new(mixed ^ (mixed >> 32), 0)
}

fn count(shelf: &Shelf, key: Key) -> (u64, Placed) {
    shelf.change(key, &Counter, |word| (Some(word + 1), word + 1))
}

#[test]
fn a_key_keeps_its_word_among_fifty_thousand_others() {
    let (shelf, _) = shelf(100_000);
    for number in 0..50_000 {
        assert_eq!(count(&shelf, key(number)), (1, Placed::New));
    }
    for number in 0..50_000 {
        assert_eq!(count(&shelf, key(number)), (2, Placed::Known), "{number}");
        assert_eq!(shelf.read(key(number)), Some(2));
    }
    assert_eq!(shelf.len(), 50_000);
    let mut told = 0;
    shelf.each(|_, word| told += word);
    assert_eq!(told, 100_000);
}

#[test]
fn hi_59_keys_beyond_the_cap_take_the_places_of_those_that_tell_least() {
    let (shelf, budget) = shelf(64);
    for number in 0..100 {
        for _ in 0..50 {
            count(&shelf, key(number));
        }
    }
    let instead = (1000..101_000)
        .filter(|number| count(&shelf, key(*number)).1 == Placed::Instead)
        .count();
    assert!(instead > 90_000, "{instead}");
    assert!(shelf.len() <= 64 * PLACES, "{shelf:?}");
    assert!(!budget.take(1), "all memory is in use, and no more");
    // Those that tell most are still there.
    for number in 0..100 {
        assert_eq!(count(&shelf, key(number)), (51, Placed::Known));
    }
}

#[test]
fn hi_59_without_memory_keys_share_one_word() {
    let (shelf, _) = shelf(63);
    assert_eq!(count(&shelf, key(1)), (1, Placed::Common));
    assert_eq!(count(&shelf, key(2)), (2, Placed::Common));
    assert!(shelf.is_empty());
}

#[test]
fn gw_312_keys_that_tell_nothing_leave_and_memory_goes_back_with_the_shelf() {
    let (shelf, budget) = shelf(576);
    for number in 0..1000 {
        count(&shelf, key(number));
    }
    assert_eq!(shelf.sweep(|word, _| (word > 1).then_some(word)), 1000);
    assert_eq!((shelf.len(), shelf.read(key(7))), (0, None));
    assert_eq!(count(&shelf, key(7)), (1, Placed::New));
    drop(shelf);
    assert!(budget.take(576));
}

#[test]
fn a_sweep_may_tell_a_word_anew_and_a_class_follows_its_last_use() {
    let (shelf, _) = shelf(64);
    count(&shelf, key(1));
    count(&shelf, key(1).in_class(3));
    assert_eq!(shelf.len(), 1);
    assert_eq!(
        shelf.sweep(|word, class| Some(word * 10 + u64::from(class))),
        0
    );
    assert_eq!(shelf.read(key(1)), Some(23));
}

/// Nothing is counted twice or lost while keys come, are used and leave on several threads. Leaving keys are those that
/// count nothing, so the sum must come out exactly.
#[test]
fn gw_306_no_count_is_lost_while_keys_come_and_leave() {
    const EACH: u64 = 60_000;
    let (shelf, _) = shelf(64);
    let done = AtomicBool::new(false);
    let begin = Barrier::new(4);
    let total: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3u64)
            .map(|thread| {
                let (shelf, begin) = (&shelf, &begin);
                scope.spawn(move || {
                    begin.wait();
                    let mut counted = 0;
                    let mut state = thread + 1;
                    for _ in 0..EACH {
                        state = state
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        let key = key((state >> 33) % 150);
                        // Half of the calls take back what was counted, so that words become worthless and leave.
                        let up = state >> 63 == 0;
                        let (change, _) = shelf.change(key, &Counter, |word| match (up, word) {
                            (true, word) => (Some(word + 1), 1i64),
                            (false, 0) => (None, 0),
                            (false, word) => (Some(word - 1), -1),
                        });
                        counted += change;
                    }
                    counted
                })
            })
            .collect();
        scope.spawn(|| {
            begin.wait();
            while !done.load(Relaxed) {
                shelf.sweep(|word, _| (word > 0).then_some(word));
            }
        });
        let sum: i64 = threads
            .into_iter()
            .map(|thread| thread.join().expect("no thread fails"))
            .sum();
        done.store(true, Relaxed);
        u64::try_from(sum).expect("never below nothing")
    });
    let (mut told, mut keys) = (0, 0);
    shelf.each(|_, word| {
        told += word;
        keys += 1;
    });
    assert_eq!(told, total);
    assert_eq!(keys, shelf.len());
}

#[test]
fn gw_306_a_key_that_many_threads_see_first_has_one_word() {
    for round in 0..300 {
        let (shelf, _) = shelf(64);
        let begin = Barrier::new(3);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    begin.wait();
                    for _ in 0..5 {
                        count(&shelf, key(round));
                    }
                });
            }
        });
        assert_eq!((shelf.read(key(round)), shelf.len()), (Some(15), 1));
    }
}
