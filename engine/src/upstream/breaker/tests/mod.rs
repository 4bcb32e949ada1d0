//! Each row of GW-402 by itself, and what an operator may do.

mod adaptive;
mod rising;
mod rows;
mod slow;
mod table;
mod threads;

use proptest::prelude::*;
use tollgate_config::{BreakerGrain, BreakerKind, Setting};

use super::*;

fn policy() -> Policy {
    Policy {
        volume: Setting::default_of(1),
        ..Policy::default()
    }
}

/// A moment on a whole second, so that rounding to milliseconds and seconds changes nothing.
fn base() -> Instant {
    let now = Instant::now();
    let beyond = Moment::from(now).0 % 1_000_000_000;
    now + Duration::from_nanos(1_000_000_000 - beyond)
}

/// A breaker with one worker, whose hands are on its clock.
struct Bench {
    breaker: Breaker,
    policy: Policy,
    now: Instant,
    changes: Vec<Change>,
}

impl Bench {
    fn new(policy: Policy) -> Self {
        Bench {
            breaker: Breaker::new(1),
            policy,
            now: base(),
            changes: Vec::new(),
        }
    }

    fn wait(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
    }

    fn admit(&mut self) -> Result<Permit, Refused> {
        let changes = &mut self.changes;
        self.breaker
            .admit(&self.policy, self.now, &mut |change| changes.push(change))
    }

    fn answer(&mut self, permit: &mut Permit, good: bool) {
        let changes = &mut self.changes;
        self.breaker
            .answered(&self.policy, 0, permit, good, self.now, &mut |change| {
                changes.push(change);
            });
    }

    fn belie(&mut self, permit: Permit) {
        let changes = &mut self.changes;
        self.breaker
            .belied(&self.policy, 0, permit, self.now, &mut |change| {
                changes.push(change);
            });
    }

    /// One try from beginning to end; false when it was refused.
    fn attempt(&mut self, good: bool) -> bool {
        let Ok(mut permit) = self.admit() else {
            return false;
        };
        self.answer(&mut permit, good);
        true
    }

    fn state(&self) -> &'static str {
        self.breaker.status(Some(&self.policy), self.now).state
    }

    /// Until it is open.
    fn trip(&mut self) {
        while self.attempt(false) {}
        assert_eq!(self.state(), "open");
    }
}

#[test]
fn gw_404_it_opens_with_the_failures_in_a_row_that_the_policy_names() {
    let mut bench = Bench::new(policy());
    for _ in 0..4 {
        assert!(bench.attempt(false));
    }
    assert_eq!(bench.state(), "closed");
    assert!(bench.attempt(false));
    assert_eq!(bench.state(), "open");
    let [change] = bench.changes[..] else {
        panic!("{:?}", bench.changes);
    };
    assert_eq!(change.reason, BreakerReason::Failures);
    let seen = change.evidence;
    assert_eq!((seen.failures_in_a_row, seen.tries, seen.failed), (5, 5, 5));
}

#[test]
fn gw_404_nothing_opens_below_the_volume() {
    let mut bench = Bench::new(Policy::default());
    for _ in 0..19 {
        assert!(bench.attempt(false));
    }
    assert_eq!(bench.state(), "closed");
    bench.wait(61_000);
    assert!(bench.attempt(false), "the window has passed");
    assert_eq!(bench.state(), "closed");
    for _ in 0..19 {
        assert!(bench.attempt(false));
    }
    assert_eq!(bench.state(), "open");
}

#[test]
fn gw_404_a_share_of_failures_opens_when_it_is_larger_than_the_policy_names() {
    let mut bench = Bench::new(Policy {
        error_rate: Setting::default_of(Some(0.5)),
        volume: Setting::default_of(10),
        ..policy()
    });
    for _ in 0..10 {
        assert!(bench.attempt(true) && bench.attempt(false));
    }
    assert_eq!(bench.state(), "closed", "half is not more than half");
    assert!(bench.attempt(false));
    assert_eq!(bench.state(), "open");
    assert_eq!(bench.changes[0].reason, BreakerReason::ErrorRate);
}

#[test]
fn gw_415_single_failures_between_successes_never_open() {
    let mut bench = Bench::new(policy());
    for turn in 0..10_000 {
        assert!(bench.attempt(turn % 2 == 0));
        bench.wait(3);
    }
    assert!(bench.changes.is_empty());
}

#[test]
fn gw_407_an_open_one_refuses_until_its_time_is_over_and_says_when_that_is() {
    let mut bench = Bench::new(policy());
    bench.trip();
    bench.wait(59_000);
    let refused = bench.admit().unwrap_err();
    assert_eq!(refused.retry_in, Duration::from_secs(1));
    assert_eq!(refused.reason, Some(BreakerReason::Failures));
    assert!(bench.breaker.refuses(&bench.policy, bench.now));
    bench.wait(1_000);
    assert!(!bench.breaker.refuses(&bench.policy, bench.now));
    assert!(bench.admit().unwrap().is_probe());
    assert_eq!(bench.state(), "half_open");
}

#[test]
fn gw_407_nobody_is_told_to_wait_longer_than_the_policy_says() {
    let mut bench = Bench::new(policy());
    bench.now += Duration::from_nanos(1);
    bench.trip();
    let refused = bench.admit().unwrap_err();
    assert_eq!(refused.retry_in, Duration::from_secs(60));
}

#[test]
fn gw_402_half_open_closes_after_its_successes_and_counts_begin_anew() {
    let mut bench = Bench::new(policy());
    bench.trip();
    bench.wait(60_000);
    for _ in 0..3 {
        assert_eq!(bench.state(), "half_open");
        assert!(bench.attempt(true));
    }
    assert_eq!(bench.state(), "closed");
    let status = bench.breaker.status(Some(&bench.policy), bench.now);
    assert_eq!((status.tries, status.failures_in_a_row), (0, 0));
    let told: Vec<_> = status.history.iter().map(|c| (c.to, c.reason)).collect();
    assert_eq!(
        told,
        [
            ("closed", "recovered"),
            ("half_open", "open_for"),
            ("open", "failures")
        ]
    );
}

#[test]
fn gw_402_a_probe_that_fails_opens_it_for_the_whole_time_again() {
    let mut bench = Bench::new(policy());
    bench.trip();
    bench.wait(60_000);
    assert!(bench.attempt(true) && bench.attempt(true) && bench.attempt(false));
    assert_eq!(bench.state(), "open");
    let refused = bench.admit().unwrap_err();
    assert_eq!(refused.retry_in, Duration::from_secs(60));
    assert_eq!(refused.reason, Some(BreakerReason::ProbeFailed));
}

#[test]
fn gw_406_half_open_lets_no_more_through_than_its_probes() {
    let mut bench = Bench::new(policy());
    bench.trip();
    bench.wait(60_000);
    let permits: Vec<_> = (0..10).map(|_| bench.admit().unwrap()).collect();
    let refused = bench.admit().unwrap_err();
    assert!(refused.probing && refused.retry_in <= Duration::from_secs(1));
    bench.answer(&mut { permits[0] }, true);
    assert!(bench.admit().is_err(), "in all, not only at once");
}

#[test]
fn gw_406_a_probe_whose_client_left_gives_its_place_back() {
    let mut bench = Bench::new(policy());
    bench.trip();
    bench.wait(60_000);
    for _ in 0..1000 {
        let permit = bench.admit().unwrap();
        bench.breaker.cancelled(permit);
    }
    for _ in 0..3 {
        assert!(bench.attempt(true));
    }
    assert_eq!(bench.state(), "closed");
}

#[test]
fn gw_406_probes_that_never_end_do_not_jam_it() {
    let mut bench = Bench::new(policy());
    bench.trip();
    bench.wait(60_000);
    let mut lost: Vec<_> = (0..10).map(|_| bench.admit().unwrap()).collect();
    assert!(bench.admit().is_err());
    bench.wait(60_000);
    for _ in 0..3 {
        assert!(bench.attempt(true));
    }
    assert_eq!(bench.state(), "closed");
    bench.answer(&mut lost[0], false);
    assert_eq!(
        bench.state(),
        "closed",
        "what comes from before is old news"
    );
}

#[test]
fn what_was_let_through_before_says_nothing_about_the_state_after() {
    let mut bench = Bench::new(policy());
    let mut old: Vec<_> = (0..8).map(|_| bench.admit().unwrap()).collect();
    bench.trip();
    bench.wait(60_000);
    let mut probe = bench.admit().unwrap();
    bench.answer(&mut old[0], false);
    bench.answer(&mut old[1], true);
    bench.breaker.cancelled(old[2]);
    bench.belie(old[3]);
    let status = bench.breaker.status(Some(&bench.policy), bench.now);
    let probes = status.probes.unwrap();
    assert_eq!((probes.under_way, probes.succeeded), (1, 0));
    bench.answer(&mut probe, true);
    assert!(bench.attempt(true) && bench.attempt(true));
    assert_eq!(bench.state(), "closed");
}

#[test]
fn gw_405_answers_that_break_off_one_after_another_open_it() {
    let mut bench = Bench::new(policy());
    for _ in 0..5 {
        let mut permit = bench.admit().unwrap();
        bench.answer(&mut permit, true);
        bench.wait(2_500);
        bench.belie(permit);
    }
    assert_eq!(bench.state(), "open");
    let seen = bench.changes[0].evidence;
    assert_eq!((seen.failures_in_a_row, seen.tries, seen.failed), (5, 5, 5));
}

#[test]
fn an_answer_that_breaks_off_after_others_succeeded_is_one_failure() {
    let mut bench = Bench::new(policy());
    for _ in 0..4 {
        assert!(bench.attempt(false));
    }
    let mut broken = bench.admit().unwrap();
    bench.answer(&mut broken, true);
    assert!(bench.attempt(true));
    bench.belie(broken);
    assert_eq!(bench.state(), "closed");
    let status = bench.breaker.status(Some(&bench.policy), bench.now);
    assert_eq!(
        (status.failures_in_a_row, status.tries, status.failed),
        (1, 6, 5)
    );
}

#[test]
fn a_changed_setting_applies_at_the_next_decision_and_nothing_is_forgotten() {
    let mut bench = Bench::new(policy());
    for _ in 0..4 {
        assert!(bench.attempt(false));
    }
    bench.policy.failures.value = 3;
    assert!(bench.attempt(false));
    assert_eq!(bench.state(), "open");
    bench.policy.open_for.value = Duration::from_secs(1);
    bench.wait(1_000);
    assert!(bench.attempt(true));
    bench.policy.successes.value = 1;
    assert!(bench.admit().is_ok());
    assert_eq!(bench.state(), "closed");
}

#[test]
fn an_operator_s_word_holds_until_it_expires() {
    let mut bench = Bench::new(policy());
    let hold = Hold {
        by: "ada".into(),
        why: "maintenance".into(),
    };
    let ten = Duration::from_secs(10);
    bench
        .breaker
        .hold(true, ten, hold.clone(), bench.now, &mut |_| {});
    let refused = bench.admit().unwrap_err();
    assert_eq!(refused.reason, Some(BreakerReason::Operator));
    assert_eq!(refused.retry_in, ten);
    let status = bench.breaker.status(Some(&bench.policy), bench.now);
    assert_eq!(status.held.map(|held| held.hold), Some(hold.clone()));
    bench.wait(10_000);
    assert_eq!(bench.state(), "half_open");
    assert!(bench.attempt(true) && bench.attempt(true) && bench.attempt(true));
    assert_eq!(bench.state(), "closed");
    bench.breaker.hold(false, ten, hold, bench.now, &mut |_| {});
    for _ in 0..100 {
        assert!(bench.attempt(false), "held closed, it never opens");
    }
    bench.wait(10_000);
    assert!(bench.attempt(false), "counts begin anew");
    assert_eq!(bench.state(), "closed");
    bench.trip();
}

#[test]
fn an_operator_s_word_can_be_taken_back() {
    let bench = Bench::new(policy());
    let (now, long) = (bench.now, Duration::from_secs(3600));
    bench.breaker.release(now, &mut |_| panic!("nothing held"));
    bench
        .breaker
        .hold(true, long, Hold::default(), now, &mut |_| {});
    bench.breaker.release(now, &mut |_| {});
    assert_eq!(bench.state(), "half_open");
    bench
        .breaker
        .hold(false, long, Hold::default(), now, &mut |_| {});
    bench.breaker.release(now, &mut |_| {});
    assert_eq!(bench.state(), "closed");
}

#[test]
fn counts_that_nobody_touched_for_a_million_turns_jam_nothing() {
    let mut bench = Bench::new(policy());
    bench.trip();
    bench.wait(60_000);
    assert!(bench.attempt(false));
    // An operator who opens and closes it all day: row and round of probes stay as they were.
    let mut word = bench.breaker.word();
    for _ in 0..1_200_000 {
        word = word.next(Kind::HeldOpen, bench.now.into());
    }
    let half_open = word.next(Kind::HalfOpen, bench.now.into());
    bench
        .breaker
        .state
        .word
        .store(half_open.0, Ordering::Release);
    for _ in 0..3 {
        assert!(bench.attempt(true));
    }
    assert_eq!(bench.state(), "closed");
    bench.trip();
}
