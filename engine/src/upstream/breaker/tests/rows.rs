//! Which rows of failures are an upstream's own, and which are a few endpoints'.

use std::sync::Arc;

use super::threads::together;
use super::*;

/// One failure at this endpoint of so many.
fn fail_at(bench: &mut Bench, endpoint: u32, endpoints: usize) {
    let mut permit = bench.admit().expect("closed");
    permit.went_to(endpoint, endpoints, std::iter::empty());
    bench.answer(&mut permit, false);
}

#[test]
fn hi_50_a_row_that_a_few_of_many_endpoints_make_opens_nothing() {
    for (endpoints, few) in [(2, 1), (3, 1), (10, 5), (64, 32), (1_000, 32)] {
        let mut bench = Bench::new(policy());
        for number in 0..4 * endpoints {
            fail_at(&mut bench, number % few, endpoints as usize);
        }
        assert_eq!(bench.state(), "closed", "{few} of {endpoints}");
        // One more than half of them, and it is the upstream.
        fail_at(&mut bench, few, endpoints as usize);
        assert_eq!(bench.state(), "open", "{few} of {endpoints}");
    }
}

#[test]
fn hi_50_a_success_ends_what_endpoints_had_a_part_in_a_row() {
    let mut bench = Bench::new(policy());
    for round in 0..50 {
        for number in 0..4 {
            fail_at(&mut bench, (round + number) % 4, 4);
        }
        assert!(bench.attempt(true));
    }
    for _ in 0..5 {
        fail_at(&mut bench, 1, 4);
    }
    assert_eq!(bench.state(), "closed", "one of four");
}

#[test]
fn hi_50_who_is_out_of_service_already_has_a_part_in_the_row() {
    let mut bench = Bench::new(policy());
    for number in 0..5 {
        assert_eq!(bench.state(), "closed", "{number}");
        let mut permit = bench.admit().expect("closed");
        // Two of three, one of them out and not asked any more.
        permit.went_to(1, 3, std::iter::once(2));
        bench.answer(&mut permit, false);
    }
    assert_eq!(bench.state(), "open");
}

#[test]
fn a_row_that_is_long_enough_for_everybody_opens_wherever_it_comes_from() {
    let mut bench = Bench::new(policy());
    for _ in 0..19 {
        fail_at(&mut bench, 7, 4);
    }
    assert_eq!(bench.state(), "closed");
    fail_at(&mut bench, 7, 4);
    assert_eq!(bench.state(), "open");
    // With one endpoint, every row is its own.
    let mut alone = Bench::new(policy());
    for _ in 0..5 {
        fail_at(&mut alone, 7, 1);
    }
    assert_eq!(alone.state(), "open");
}

/// Where failures at different endpoints begin a row together, one may be forgotten, but only until it fails again.
#[test]
fn hi_50_many_threads_open_it_when_all_endpoints_fail_and_never_when_half_do() {
    const THREADS: usize = 4;
    for endpoints in [4, 2] {
        for _ in 0..200 {
            let breaker = Arc::new(Breaker::new(THREADS));
            let (policy, now, shared) = (policy(), base(), breaker.clone());
            together(THREADS, move |worker| {
                for _ in 0..4 {
                    let Ok(mut permit) = shared.admit(&policy, now, &mut |_| {}) else {
                        return;
                    };
                    let number = u32::try_from(worker % endpoints).unwrap();
                    permit.went_to(number, 4, std::iter::empty());
                    shared.answered(&policy, worker, &mut permit, false, now, &mut |_| {});
                }
            });
            let mut bench = Bench::new(policy);
            bench.breaker = Arc::into_inner(breaker).unwrap();
            for number in 0..endpoints {
                if bench.state() == "closed" {
                    fail_at(&mut bench, u32::try_from(number).unwrap(), 4);
                }
            }
            let expected = if endpoints == 4 { "open" } else { "closed" };
            assert_eq!(bench.state(), expected);
        }
    }
}
