//! One comparison each.

use super::*;

fn tally(requests: u64, errors: u64) -> Tally {
    Tally {
        requests,
        errors,
        micros: requests * 1000,
        latency: vec![requests],
        ..Tally::default()
    }
}

fn sums(routes: &[(&str, Tally)]) -> Sums {
    let mut sums = Sums::default();
    for (name, tally) in routes {
        sums.total.add(tally);
        sums.routes.insert((*name).to_owned(), tally.clone());
    }
    sums
}

fn found(new: &Sums, before: &Sums, others: &Sums) -> Vec<(Figure, Option<String>)> {
    let found = judge(new, before, others, &Settings::default());
    found
        .into_iter()
        .map(|one| (one.figure, one.route))
        .collect()
}

#[test]
fn cp_109_an_error_rate_that_rose_is_found_with_its_route_and_told_in_words() {
    let before = sums(&[("a", tally(1000, 1)), ("b", tally(1000, 1))]);
    let others = sums(&[("a", tally(5000, 5)), ("b", tally(5000, 6))]);
    let new = sums(&[("a", tally(500, 150)), ("b", tally(500, 1))]);
    let all = judge(&new, &before, &others, &Settings::default());
    assert_eq!(all[0].route.as_deref(), Some("a"));
    assert!(!all[0].drastic);
    assert_eq!(
        all[0].to_string(),
        "answers of 500 and above on route `a`: 30.0 % of 500 requests, before 0.10 % of 1000, on the other nodes 0.10 % of 5000"
    );
    assert!(all[0].is_confirmed_by(10, 30) && !all[0].is_confirmed_by(1, 200));
}

#[test]
fn what_is_as_bad_elsewhere_or_always_was_is_not_the_revisions_doing() {
    let good = sums(&[("a", tally(1000, 0))]);
    let bad = sums(&[("a", tally(1000, 300))]);
    assert!(found(&bad, &good, &bad).is_empty(), "everywhere");
    assert!(found(&bad, &bad, &good).is_empty(), "always on these nodes");
    assert!(!found(&bad, &good, &good).is_empty());
    assert!(
        !found(&bad, &Sums::default(), &good).is_empty(),
        "one comparison is enough"
    );
}

#[test]
fn few_requests_and_small_rises_are_no_evidence() {
    let before = sums(&[("a", tally(10_000, 10))]);
    assert!(found(&sums(&[("a", tally(100, 2))]), &before, &before).is_empty());
    assert!(found(&sums(&[("a", tally(19, 19))]), &before, &before).is_empty());
    let many = sums(&[("a", tally(1_000_000, 6000))]);
    let before = sums(&[("a", tally(1_000_000, 1000))]);
    assert!(
        found(&many, &before, &before).is_empty(),
        "sure, but less than a point"
    );
}

#[test]
fn a_new_route_is_compared_with_all_that_there_was_and_a_new_fleet_with_reason() {
    let before = sums(&[("a", tally(1000, 0))]);
    let new = sums(&[("a", tally(1000, 0)), ("new", tally(100, 60))]);
    assert!(found(&new, &before, &before).contains(&(Figure::Errors, Some("new".to_owned()))));
    let nothing = Sums::default();
    assert!(!found(&sums(&[("a", tally(50, 40))]), &nothing, &nothing).is_empty());
    assert!(found(&sums(&[("a", tally(50, 20))]), &nothing, &nothing).is_empty());
}

#[test]
fn slow_answers_are_found_and_those_just_beyond_a_bound_are_not() {
    let at = |requests: u64, bucket: usize, millis: u64| {
        let mut latency = vec![0; bucket + 1];
        latency[bucket] = requests;
        sums(&[(
            "a",
            Tally {
                requests,
                micros: requests * millis * 1000,
                latency,
                ..Tally::default()
            },
        )])
    };
    let before = at(1000, 0, 4);
    let slow = judge(&at(200, 4, 80), &before, &before, &Settings::default());
    assert_eq!(slow[0].figure, Figure::Slow);
    assert_eq!(
        slow[0].to_string(),
        "slow answers (over 5 ms) on route `a`: 100.0 % of 200 requests, before 0 % of 1000, on the other nodes 0 % of 1000; on average 80.0 ms, was 4.0 ms"
    );
    assert!(found(&at(200, 1, 5), &at(1000, 0, 5), &Sums::default()).is_empty());
}

#[test]
fn refusals_count_apart_and_what_no_route_takes_is_named() {
    let refused = |requests, refused| Tally {
        refused,
        ..tally(requests, 0)
    };
    let before = sums(&[("a", tally(1000, 0)), ("none", refused(30, 30))]);
    let new = sums(&[("a", tally(500, 0)), ("none", refused(500, 500))]);
    let all = judge(&new, &before, &before, &Settings::default());
    assert_eq!(all[0].figure, Figure::Refusals);
    assert!(
        all[0].to_string().contains("all routes together"),
        "{}",
        all[0]
    );
}

#[test]
fn chance_alone_is_rarely_taken_for_worse() {
    // The same share on both sides, judged 40 times each while it grows: of 300 rollouts none may be sent back.
    let mut rng = fastrand::Rng::with_seed(1);
    let mut wrong = 0;
    for _ in 0..300 {
        let share = 0.2 * rng.f64();
        let mut draw = |requests: u64| {
            let errors = (0..requests).filter(|_| rng.f64() < share).count() as u64;
            tally(requests, errors)
        };
        let before = sums(&[("a", draw(1000)), ("b", draw(200))]);
        let (mut a, mut b, mut others) = (tally(0, 0), tally(0, 0), tally(0, 0));
        for _ in 0..40 {
            a.add(&draw(20));
            b.add(&draw(4));
            others.add(&draw(40));
            let new = sums(&[("a", a.clone()), ("b", b.clone())]);
            let others = sums(&[("a", others.clone())]);
            if !found(&new, &before, &others).is_empty() {
                wrong += 1;
                break;
            }
        }
    }
    assert!(wrong <= 1, "{wrong} of 300");
}
