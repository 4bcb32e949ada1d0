//! The bucket against its rules: exact counts over long spans, clocks that jump, settings that change, and every order
//! of concurrent takes.

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn pace(count: u64, per: Duration, burst: u64) -> Pace {
    Pace::new(Rate { count, per }, burst)
}

fn moment(nanoseconds: u64) -> Moment {
    // As in a process: the first moment is an hour after zero.
    Moment(3600 * SECOND + nanoseconds)
}

/// Takes at a moment; whether it was admitted.
fn take(pace: &Pace, word: &mut u64, at: u64) -> bool {
    let (next, taken) = pace.take(*word, moment(at));
    *word = next.unwrap_or(*word);
    taken.admitted
}

/// Admitted when it is asked `times` times in equal steps over `span`.
fn admitted(pace: &Pace, span: u64, times: u64) -> u64 {
    let mut word = pace.full(moment(0));
    (0..=times)
        .filter(|step| take(pace, &mut word, span / times * step))
        .count() as u64
}

#[test]
fn gw_305_an_hour_of_excess_admits_the_burst_and_what_came_back_and_nothing_else() {
    for (count, per, burst) in [
        (7, Duration::from_secs(1), 7),
        (5, Duration::from_secs(900), 5),
        (1, Duration::from_secs(7), 3),
        (1000, Duration::from_secs(60), 2000),
        (13, Duration::from_millis(700), 2),
        (333, Duration::from_secs(1), 100_000),
    ] {
        let pace = pace(count, per, burst);
        let hour = 3600 * SECOND;
        let expected = burst + hour * count / nanoseconds(per);
        let times = expected * 10;
        let span = hour / times * times;
        let expected = burst + span * count / nanoseconds(per);
        let got = admitted(&pace, span, times);
        assert!(
            got.abs_diff(expected) <= 1,
            "{count} in {per:?}, {burst}: {got} instead of {expected}"
        );
    }
}

#[test]
fn gw_305_the_highest_rate_is_exact_too() {
    let pace = pace(1_000_000, Duration::from_secs(1), 1);
    // Ten times as many as are allowed, for a fifth of a second.
    let got = admitted(&pace, SECOND / 5, 2_000_000);
    assert!(got.abs_diff(200_001) <= 1, "{got}");
}

#[test]
fn gw_308_a_refused_client_that_waits_as_told_is_admitted() {
    for (count, per, burst) in [
        (5, Duration::from_secs(900), 5),
        (7, Duration::from_secs(1), 7),
        (999_999, Duration::from_secs(1), 1),
    ] {
        let pace = pace(count, per, burst);
        let mut word = pace.full(moment(0));
        for _ in 0..burst {
            assert!(take(&pace, &mut word, 5));
        }
        let (_, refused) = pace.take(word, moment(6));
        assert!(!refused.admitted);
        assert_eq!(refused.remaining(), 0);
        let wait = nanoseconds(pace.until_one(refused)) + (1 << TICK);
        let one = nanoseconds(per) / count;
        assert!(wait <= one + 2 * (1 << TICK), "{wait} for {one}");
        assert!(!take(&pace, &mut word, 6 + one * 14 / 16));
        assert!(take(&pace, &mut word, 6 + wait));
    }
}

#[test]
fn hi_60_gw_307_a_clock_that_jumps_neither_opens_nor_jams() {
    let pace = pace(10, Duration::from_secs(1), 10);
    let hour = 3600 * SECOND;
    let mut word = pace.full(Moment(2 * hour));
    let at = |word: &mut u64, at: u64| {
        let (next, taken) = pace.take(*word, Moment(at));
        *word = next.unwrap_or(*word);
        taken
    };
    for _ in 0..10 {
        assert!(at(&mut word, 2 * hour).admitted);
    }
    // An hour back: nothing is given, and nothing was taken away.
    assert!(!at(&mut word, hour).admitted);
    assert!(!at(&mut word, 2 * hour).admitted);
    assert!(at(&mut word, 2 * hour + SECOND / 10 + 2048).admitted);
    // An hour forward: one bucket at most.
    let later = 3 * hour;
    let got = (0..100).filter(|_| at(&mut word, later).admitted).count();
    assert_eq!(got, 10);
    // And back again: the bucket goes on where it was.
    assert!(!at(&mut word, 2 * hour).admitted);
    assert!(at(&mut word, later + SECOND / 10 + 2048).admitted);
}

#[test]
fn gw_311_a_changed_limit_keeps_the_level_and_cuts_it_to_the_new_burst() {
    let free = pace(100, Duration::from_secs(60), 200);
    let mut word = free.full(moment(0));
    for _ in 0..150 {
        assert!(take(&free, &mut word, 0));
    }
    let slow = pace(1, Duration::from_secs(3600), 200);
    assert_eq!(slow.take(word, moment(0)).1.remaining(), 49);
    let fast = pace(10_000, Duration::from_secs(1), 500);
    assert_eq!(fast.take(word, moment(0)).1.remaining(), 49);
    let small = pace(100, Duration::from_secs(60), 20);
    assert_eq!(small.take(word, moment(0)).1.remaining(), 19);
}

#[test]
fn a_bucket_that_is_refreshed_lasts_beyond_the_stamp_s_range() {
    let slow = pace(1, Duration::from_secs(40 * 24 * 3600), 2);
    let mut word = slow.full(moment(0));
    assert!(take(&slow, &mut word, 0) && take(&slow, &mut word, 0));
    let hour = 3600 * SECOND;
    for hours in 1..39 * 24 {
        word = slow.refreshed(word, moment(hours * hour));
        assert!(!slow.take(word, moment(hours * hour)).1.admitted);
    }
    assert!(take(&slow, &mut word, 40 * 24 * hour + 2048));
}

proptest! {
    /// Whatever the order and distance of takes, the count is that of a bucket of rational numbers, to one token.
    #[test]
    fn a_bucket_admits_what_exact_arithmetic_admits(
        count in 1u64..100_000,
        per in 1u64..100_000,
        burst in 1u64..10_000,
        steps in proptest::collection::vec(0u64..200_000_000, 1..400),
    ) {
        prop_assume!(count * 1000 <= per * 1_000_000);
        let pace = pace(count, Duration::from_millis(per), burst);
        let per = u128::from(per) * 1_000_000;
        let mut word = pace.full(moment(0));
        let mut now = 0;
        // In tokens × per.
        let full = u128::from(burst) * per;
        let mut exact = full;
        let (mut got, mut expected) = (0i64, 0i64);
        for step in steps {
            now += step;
            exact = (exact + u128::from(step) * u128::from(count)).min(full);
            if take(&pace, &mut word, now) { got += 1 }
            if exact >= per { exact -= per; expected += 1 }
            prop_assert!((got - expected).abs() <= 1, "{got} {expected}");
        }
    }

    /// Levels never exceed the bucket, and no sequence of moments makes a take admit without a token.
    #[test]
    fn no_sequence_of_moments_gives_more_than_one_bucket_and_what_came_back(
        burst in 1u64..50,
        moments in proptest::collection::vec(0u64..7200, 1..200),
    ) {
        let pace = pace(1, Duration::from_secs(60), burst);
        let mut word = pace.full(moment(0));
        let mut latest = 0;
        let mut admitted = 0;
        for at in moments {
            latest = latest.max(at);
            if take(&pace, &mut word, at * SECOND) { admitted += 1 }
            prop_assert!(admitted <= burst + latest / 60 + 1);
            prop_assert!(pace.take(word, moment(at * SECOND)).1.remaining() <= burst);
        }
    }
}

/// Every order of the steps (load, then compare-and-swap, again when it failed) of three workers that take twice each.
#[test]
fn gw_306_in_every_order_of_concurrent_takes_exactly_what_was_there_is_admitted() {
    #[derive(Clone, Copy, PartialEq, Eq, Hash)]
    struct Worker {
        loaded: Option<u64>,
        left: u8,
        admitted: u64,
    }
    let worker = Worker {
        loaded: None,
        left: 2,
        admitted: 0,
    };
    for tokens in 1..=7 {
        let pace = pace(1, Duration::from_secs(3600), tokens);
        let mut seen = std::collections::HashSet::new();
        let mut open = vec![(pace.full(moment(0)), [worker; 3])];
        let mut ends = 0;
        while let Some((word, workers)) = open.pop() {
            if !seen.insert((word, workers)) {
                continue;
            }
            if workers.iter().all(|worker| worker.left == 0) {
                let admitted: u64 = workers.iter().map(|worker| worker.admitted).sum();
                assert_eq!(admitted, tokens.min(6));
                ends += 1;
            }
            for index in 0..workers.len() {
                let (mut word, mut workers) = (word, workers);
                let worker = &mut workers[index];
                match worker.loaded.take() {
                    _ if worker.left == 0 => continue,
                    None => worker.loaded = Some(word),
                    Some(loaded) => match pace.take(loaded, moment(0)) {
                        (None, _) => worker.left -= 1,
                        (Some(next), _) if loaded == word => {
                            word = next;
                            worker.left -= 1;
                            worker.admitted += 1;
                        }
                        // Lost the race: loads again.
                        (Some(_), _) => {}
                    },
                }
                open.push((word, workers));
            }
        }
        assert!(ends > 0 && seen.len() > 100, "{ends} of {}", seen.len());
    }
}
