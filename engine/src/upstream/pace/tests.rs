//! Answers of many kinds, one after another; chance is the test's.

use fastrand::Rng;
use proptest::prelude::*;

use super::*;

const LEAST: Duration = Duration::from_millis(1);
const MOST: Duration = Duration::from_secs(5);

/// How long answers take.
#[derive(Debug, Clone, Copy)]
enum Nature {
    /// Always so many milliseconds.
    Even(f64),
    /// From nothing to twice as many.
    Uniform(f64),
    /// Mostly quick, sometimes slow.
    Exponential(f64),
    /// One in a hundred takes ten times as long.
    Tail(f64),
    /// One in five takes ten times as long.
    TwoKinds(f64),
}

impl Nature {
    fn draw(self, chance: &mut Rng) -> Duration {
        let share = chance.f64();
        let ms = match self {
            Nature::Even(ms) => ms,
            Nature::Uniform(ms) => ms * 2.0 * share,
            Nature::Exponential(ms) => -ms * (1.0 - share).ln(),
            Nature::Tail(ms) => ms * if share < 0.01 { 10.0 } else { 1.0 },
            Nature::TwoKinds(ms) => ms * if share < 0.2 { 10.0 } else { 1.0 },
        };
        Duration::from_secs_f64(ms / 1e3)
    }
}

/// Makes so many tries, one after another; says how many were cut short.
fn tries(pace: &Pace, nature: Nature, count: u32, chance: &mut Rng) -> u32 {
    let mut cut = 0;
    for _ in 0..count {
        let takes = nature.draw(chance);
        let timeout = pace.timeout(LEAST, MOST).unwrap_or(MOST);
        assert!((LEAST..=MOST).contains(&timeout), "{timeout:?}");
        if takes <= timeout {
            pace.answered(takes);
        } else {
            pace.gave_up(timeout);
            cut += 1;
        }
    }
    cut
}

#[test]
fn nothing_is_normal_before_there_were_enough_answers() {
    let pace = Pace::default();
    for _ in 0..ENOUGH {
        assert_eq!(pace.timeout(LEAST, MOST), None);
        pace.answered(Duration::from_millis(10));
    }
    assert_eq!(pace.normal(), Some(Duration::from_millis(10)));
    assert_eq!(
        pace.timeout(LEAST, MOST),
        Some(Duration::from_millis(15)),
        "half as long again"
    );
}

#[test]
fn the_time_out_stays_between_its_bounds() {
    let pace = Pace::default();
    for _ in 0..ENOUGH {
        pace.answered(Duration::from_millis(10));
    }
    let ms = Duration::from_millis;
    assert_eq!(pace.timeout(ms(100), MOST), Some(ms(100)));
    assert_eq!(pace.timeout(LEAST, ms(15)), None, "the ceiling governs");
    assert_eq!(pace.timeout(LEAST, ms(16)), Some(ms(15)));
}

#[test]
fn of_ordinary_answers_one_in_a_hundred_is_cut_short_at_most() {
    for nature in [
        Nature::Even(10.0),
        Nature::Uniform(10.0),
        Nature::Exponential(10.0),
        Nature::Tail(10.0),
        Nature::TwoKinds(10.0),
    ] {
        for seed in 0..8 {
            let (pace, mut chance) = (Pace::default(), Rng::with_seed(seed));
            tries(&pace, nature, 20_000, &mut chance);
            let cut = tries(&pace, nature, 100_000, &mut chance);
            assert!(cut <= 1_100, "{nature:?}, seed {seed}: {cut} of 100,000");
        }
    }
}

#[test]
fn what_is_normal_is_where_one_in_a_hundred_is_slower() {
    for seed in 0..8 {
        let (pace, mut chance) = (Pace::default(), Rng::with_seed(seed));
        tries(&pace, Nature::Exponential(10.0), 20_000, &mut chance);
        let mut sum = 0.0;
        for _ in 0..100 {
            tries(&pace, Nature::Exponential(10.0), 500, &mut chance);
            sum += pace.normal().unwrap().as_secs_f64() * 10.0;
        }
        // ln 100 × 10 ms are 46 ms; the steps up are shortened, which lets it come out a little lower.
        assert!((36.0..50.0).contains(&sum), "seed {seed}: {sum} ms");
    }
}

#[test]
fn an_upstream_that_becomes_slower_for_good_loses_a_few_dozen_tries_and_no_more() {
    for times in [2.0, 10.0, 50.0, 200.0] {
        for seed in 0..8 {
            let (pace, mut chance) = (Pace::default(), Rng::with_seed(seed));
            tries(&pace, Nature::Uniform(10.0), 20_000, &mut chance);
            let cut = tries(&pace, Nature::Uniform(10.0 * times), 1_000, &mut chance);
            assert!(cut <= 70, "{times} times slower, seed {seed}: {cut}");
        }
    }
}

#[test]
fn many_that_are_given_up_together_move_it_no_further_than_they_waited() {
    let pace = Pace::default();
    for _ in 0..ENOUGH {
        pace.answered(Duration::from_millis(10));
    }
    for _ in 0..10_000 {
        pace.gave_up(Duration::from_millis(15));
    }
    assert_eq!(pace.normal(), Some(Duration::from_millis(15)));
    pace.gave_up(Duration::from_millis(3));
    assert_eq!(
        pace.normal(),
        Some(Duration::from_millis(15)),
        "who gave up early knows nothing"
    );
}

#[test]
fn after_a_stall_it_comes_down_again() {
    for seed in 0..4 {
        let (pace, mut chance) = (Pace::default(), Rng::with_seed(seed));
        tries(&pace, Nature::Uniform(10.0), 20_000, &mut chance);
        tries(&pace, Nature::Even(60_000.0), 1_000, &mut chance);
        assert_eq!(pace.timeout(LEAST, MOST), None, "the ceiling governs");
        let cut = tries(&pace, Nature::Uniform(10.0), 10_000, &mut chance);
        assert!(cut <= 20, "seed {seed}: {cut}");
        let normal = pace.normal().unwrap();
        assert!(
            normal < Duration::from_millis(40),
            "seed {seed}: {normal:?}"
        );
    }
}

#[test]
fn workers_that_move_it_at_once_keep_it_between_the_fastest_and_the_slowest() {
    let pace = Pace::default();
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let pace = &pace;
            scope.spawn(move || {
                tries(
                    pace,
                    Nature::Uniform(10.0),
                    50_000,
                    &mut Rng::with_seed(seed),
                )
            });
        }
    });
    let normal = pace.normal().unwrap();
    let expected = Duration::from_millis(15)..=Duration::from_millis(21);
    assert!(expected.contains(&normal), "{normal:?}");
}

#[test]
fn a_route_keeps_its_pace_for_as_long_as_anybody_knows_it() {
    let memory = PaceMemory::default();
    let pace = memory.of("a");
    assert!(Arc::ptr_eq(&pace, &memory.of("a")));
    assert!(!Arc::ptr_eq(&pace, &memory.of("b")));
    for n in 0..1000 {
        memory.of(&format!("gone {n}"));
    }
    assert!(memory.0.lock().unwrap().len() < 100);
    assert!(Arc::ptr_eq(&pace, &memory.of("a")));
}

proptest! {
    #[test]
    fn whatever_happens_it_lies_between_the_shortest_and_the_longest_time(
        times in prop::collection::vec((1u64..10_000_000_000, prop::bool::ANY), 100..400),
    ) {
        let pace = Pace::default();
        for (took, came) in &times {
            let took = Duration::from_nanos(*took);
            if *came { pace.answered(took) } else { pace.gave_up(took) }
            if let Some(timeout) = pace.timeout(LEAST, MOST) {
                prop_assert!((LEAST..MOST).contains(&timeout));
            }
        }
        let normal = pace.normal().unwrap();
        let longest = times.iter().map(|(took, _)| *took).max().unwrap();
        prop_assert!(normal <= Duration::from_nanos(longest));
        prop_assert!(normal > Duration::ZERO);
    }
}
