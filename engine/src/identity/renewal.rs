//! When a certificate is asked for, and with what proof. Pure: the clock and chance are arguments.
//!
//! A certificate is renewed when six tenths of its life are over, by the wall clock or by the time that passed, so that
//! a clock that jumps back makes nobody late and one that jumps forward makes nobody ask in a circle. A join token is
//! used only where there is no certificate that lasts: it is good once.

use std::time::Duration;

/// Of a life, when to renew; each member a little sooner or later than that.
const SHARE: f64 = 0.6;
const SPREAD: f64 = 0.05;
/// The first pause after a failure; doubles with every one.
const BASE: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// Clocks are looked at at least so often: one that is set wakes nobody.
const LOOK: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Renewal {
    life: Option<Life>,
    failures: u32,
    /// No asking before, in time that passed.
    rests_until: Option<Duration>,
    /// The authority did not want to renew what we have.
    is_refused: bool,
}

#[derive(Debug)]
struct Life {
    until: u64,
    renew_at: u64,
    renew_after: Duration,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// Seconds since 1970, as the machine's clock says.
    pub wall: u64,
    /// Since a moment of our own; never runs backwards.
    pub mono: Duration,
}

/// What could prove who we are, besides a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proofs {
    None,
    /// A join token.
    Once,
    /// A token of a platform, which is good as often as it is asked for.
    Again,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Wait(Duration),
    /// With the certificate that there is.
    Renew,
    /// With a token.
    Join,
    /// There is nothing to ask with.
    Stuck,
}

impl Renewal {
    /// There is a certificate with these times. `chance` is from 0 up to 1.
    pub(super) fn has(&mut self, from: u64, until: u64, now: Now, chance: f64) {
        let life = until.saturating_sub(from);
        let share = SHARE + SPREAD * (2.0 * chance.clamp(0.0, 1.0) - 1.0);
        // Seconds of a life are exact in a float, and the product is not negative.
        let renew_at = from.saturating_add((life as f64 * share) as u64);
        let after = renew_at.saturating_sub(now.wall.max(from));
        self.life = Some(Life {
            until,
            renew_at,
            renew_after: now.mono.saturating_add(Duration::from_secs(after)),
        });
        self.is_refused = false;
        if now.wall < renew_at {
            self.failures = 0;
            self.rests_until = None;
        } else {
            // By our clock it is old already: to ask at once would be to ask in a circle.
            self.rest(now, chance);
        }
    }

    /// Nothing came of an asking. `refused`: the authority said no.
    pub(super) fn failed(&mut self, refused: bool, now: Now, chance: f64) {
        self.is_refused = refused && self.life.is_some();
        self.rest(now, chance);
    }

    fn rest(&mut self, now: Now, chance: f64) {
        let most = BASE.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let pause = most.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0));
        self.rests_until = Some(now.mono.saturating_add(pause));
    }

    pub(super) fn is_expired(&self, now: Now) -> bool {
        self.life
            .as_ref()
            .is_some_and(|life| now.wall >= life.until)
    }

    /// What to do now.
    pub(super) fn step(&self, now: Now, proofs: Proofs) -> Step {
        let rest = { self.rests_until }.map_or(Duration::ZERO, |by| by.saturating_sub(now.mono));
        if !rest.is_zero() {
            return Step::Wait(rest.min(LOOK));
        }
        let Some(life) = &self.life else {
            return match proofs {
                Proofs::None => Step::Stuck,
                Proofs::Once | Proofs::Again => Step::Join,
            };
        };
        if now.wall >= life.until && proofs != Proofs::None {
            return Step::Join;
        }
        if now.wall >= life.renew_at || now.mono >= life.renew_after {
            return match proofs {
                Proofs::Again if self.is_refused => Step::Join,
                _ => Step::Renew,
            };
        }
        let by_wall = Duration::from_secs(life.renew_at - now.wall);
        let by_mono = life.renew_after.saturating_sub(now.mono);
        Step::Wait(by_wall.min(by_mono).min(LOOK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;
    const BEGIN: u64 = 1_800_000_000;

    fn at(wall: u64, mono: u64) -> Now {
        Now {
            wall,
            mono: Duration::from_secs(mono),
        }
    }

    /// Got at `BEGIN`, for a day.
    fn with_certificate() -> Renewal {
        let mut renewal = Renewal::default();
        renewal.has(BEGIN, BEGIN + DAY, at(BEGIN, 0), 0.5);
        renewal
    }

    #[test]
    fn what_is_done_when_mesh_304() {
        use Proofs::{Again, None, Once};
        let six = DAY * 6 / 10;
        // Wall clock and time that passed since it came; what could prove; what is done. `Wait` of any length.
        let wait = Step::Wait(Duration::ZERO);
        for (what, wall, mono, proofs, step) in [
            ("just got", BEGIN, 0, Once, wait),
            ("not yet six tenths", BEGIN + six - 1, six - 1, Once, wait),
            ("six tenths", BEGIN + six, six, Once, Step::Renew),
            (
                "the same without a token",
                BEGIN + six,
                six,
                None,
                Step::Renew,
            ),
            (
                "the same of a platform",
                BEGIN + six,
                six,
                Again,
                Step::Renew,
            ),
            (
                "the clock jumped forward",
                BEGIN + six,
                5,
                Once,
                Step::Renew,
            ),
            (
                "the clock jumped back",
                BEGIN - 9 * DAY,
                six,
                Once,
                Step::Renew,
            ),
            (
                "back, and little time passed",
                BEGIN - 9 * DAY,
                5,
                Once,
                wait,
            ),
            ("expired", BEGIN + DAY, DAY, Once, Step::Join),
            ("expired by a jump", BEGIN + 900 * DAY, 1, Again, Step::Join),
            (
                "expired without a token",
                BEGIN + DAY,
                DAY,
                None,
                Step::Renew,
            ),
        ] {
            let done = with_certificate().step(at(wall, mono), proofs);
            match (done, step) {
                (Step::Wait(pause), Step::Wait(_)) => {
                    assert!(!pause.is_zero() && pause <= LOOK, "{what}: {pause:?}");
                }
                (done, step) => assert_eq!(done, step, "{what}"),
            }
        }
        assert_eq!(Renewal::default().step(at(BEGIN, 0), Once), Step::Join);
        assert_eq!(Renewal::default().step(at(BEGIN, 0), None), Step::Stuck);
    }

    #[test]
    fn pauses_grow_to_a_bound_and_end_with_success() {
        let mut renewal = with_certificate();
        let mut now = at(BEGIN + DAY * 7 / 10, DAY * 7 / 10);
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            assert_eq!(renewal.step(now, Proofs::Once), Step::Renew);
            renewal.failed(false, now, 1.0);
            let mut rested = Duration::ZERO;
            while let Step::Wait(pause) = renewal.step(now, Proofs::Once) {
                rested += pause;
                now.mono += pause;
            }
            assert!(
                rested >= last && rested <= LONGEST,
                "{rested:?} after {last:?}"
            );
            last = rested;
        }
        assert_eq!(last, LONGEST);
        renewal.has(now.wall, now.wall + DAY, now, 0.5);
        assert!(matches!(renewal.step(now, Proofs::Once), Step::Wait(_)));
        assert_eq!(renewal.failures, 0);
    }

    #[test]
    fn who_is_refused_a_renewal_shows_a_token_only_if_it_is_good_again() {
        let now = at(BEGIN + DAY * 7 / 10, DAY * 7 / 10);
        let later = at(now.wall + 60, DAY * 7 / 10 + 60);
        let mut renewal = with_certificate();
        renewal.failed(true, now, 0.5);
        assert_eq!(renewal.step(later, Proofs::Again), Step::Join);
        assert_eq!(renewal.step(later, Proofs::Once), Step::Renew);
    }

    #[test]
    fn a_certificate_that_is_old_by_our_clock_when_it_comes_is_not_asked_for_in_a_circle() {
        let mut renewal = Renewal::default();
        let mut now = at(BEGIN + 400 * DAY, 0);
        let mut asked = 0;
        while now.mono < Duration::from_secs(3600) {
            match renewal.step(now, Proofs::Again) {
                Step::Wait(pause) => now.mono += pause,
                _ => {
                    asked += 1;
                    renewal.has(BEGIN, BEGIN + DAY, now, 0.5);
                }
            }
        }
        assert!((10..200).contains(&asked), "asked {asked} times in an hour");
    }

    /// Random lives, jumps of the clock and an authority that is away now and then: nobody asks more often than the
    /// pauses allow, a token is never shown while a certificate lasts, and nobody runs out of a life whose authority was
    /// there.
    #[test]
    fn a_simulation_with_clocks_that_jump_mesh_304() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut skew, mut mono) = (0i64, 0u64);
            let mut renewal = Renewal::default();
            // By true time, which `mono` counts.
            let mut good_until = 0u64;
            let mut asked = 0u32;
            let lasts = 100 + random.u64(..DAY);
            while mono < 20 * lasts {
                let wall = BEGIN.saturating_add(mono).saturating_add_signed(skew);
                let now = at(wall, mono);
                let step = renewal.step(now, Proofs::Once);
                match step {
                    Step::Wait(pause) => mono += pause.as_secs().max(1),
                    Step::Stuck => unreachable!("there is a token"),
                    Step::Renew | Step::Join => {
                        asked += 1;
                        if step == Step::Join {
                            assert!(good_until == 0 || renewal.is_expired(now));
                        }
                        if random.u8(..) < 40 {
                            renewal.failed(false, now, random.f64());
                        } else {
                            good_until = mono + lasts;
                            let from = BEGIN + mono;
                            renewal.has(from, from + lasts, now, random.f64());
                        }
                    }
                }
                if skew == 0 && good_until > 0 && lasts > 4000 {
                    assert!(mono < good_until, "seed {seed}: ran out at {mono}");
                }
                if random.u16(..) < 20 {
                    skew = match random.u8(..4) {
                        0 => random.i64(-1_000_000..1_000_000),
                        _ => 0,
                    };
                }
            }
            let most = 20 * lasts / 25 + 100;
            assert!(u64::from(asked) < most, "seed {seed}: asked {asked} times");
        }
    }
}
