//! When to register, and when to beat. Pure: no clock and no chance. A beat that is not answered is tried again soon; an
//! id that is not known any more is registered at once; whoever does not answer is asked with growing pauses.

use std::time::{Duration, Instant};

/// Between two beats, when the control plane names no interval (REG-302).
const BEAT: Duration = Duration::from_secs(15);
/// No control plane can ask for more or fewer beats than these.
const LEAST_BEAT: Duration = Duration::from_secs(1);
const MOST_BEAT: Duration = Duration::from_secs(300);
/// Pauses after failures: the first, doubling, at most.
const BASE: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(10);
/// The share by which beats differ, up and down (REG-308).
const JITTER: f64 = 0.1;

#[derive(Debug)]
pub(super) struct Beats {
    /// The control plane said that it has us, and nothing else since.
    registered: bool,
    beat: Duration,
    failures: u32,
    due: Instant,
}

/// What is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Register,
    Beat,
}

impl Beats {
    pub(super) fn new(now: Instant) -> Beats {
        Beats {
            registered: false,
            beat: BEAT,
            failures: 0,
            due: now,
        }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    pub(super) fn act(&self) -> Act {
        if self.registered {
            Act::Beat
        } else {
            Act::Register
        }
    }

    /// A registration was taken; `beat` is what the control plane asks for. `random` is from 0 up to 1.
    pub(super) fn registered(&mut self, beat: Option<Duration>, now: Instant, random: f64) {
        self.registered = true;
        self.beat = beat.unwrap_or(BEAT).clamp(LEAST_BEAT, MOST_BEAT);
        self.kept(now, random);
    }

    /// A beat was taken.
    pub(super) fn kept(&mut self, now: Instant, random: f64) {
        self.failures = 0;
        let factor = 1.0 - JITTER + 2.0 * JITTER * random.clamp(0.0, 1.0);
        self.due = now + self.beat.mul_f64(factor);
    }

    /// The control plane does not know us (any more): it is told at once (REG-402).
    pub(super) fn unknown(&mut self, now: Instant) {
        self.registered = false;
        self.due = now;
    }

    /// No answer, or one that is no good.
    pub(super) fn failed(&mut self, now: Instant, random: f64) {
        let most = BASE.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        // Never at once: whoever answers at once that it will not have us would be asked without end.
        self.due = now + most.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(beats: &Beats, now: Instant) -> f64 {
        beats.due().duration_since(now).as_secs_f64()
    }

    #[test]
    fn reg_402_a_registration_is_tried_with_growing_pauses_and_again_when_it_is_unknown() {
        let now = Instant::now();
        let mut beats = Beats::new(now);
        assert_eq!((beats.act(), beats.due()), (Act::Register, now));
        let mut last = 0.0;
        for _ in 0..20 {
            beats.failed(now, 1.0);
            assert!(wait(&beats, now) >= last && wait(&beats, now) <= 10.0);
            last = wait(&beats, now);
        }
        assert_eq!(last, 10.0);
        beats.failed(now, 0.0);
        assert_eq!(wait(&beats, now), 5.0);
        beats.registered(Some(Duration::from_secs(20)), now, 0.5);
        assert_eq!((beats.act(), wait(&beats, now)), (Act::Beat, 20.0));
        beats.failed(now, 1.0);
        assert_eq!(
            (beats.act(), wait(&beats, now)),
            (Act::Beat, 0.25),
            "the lease may still hold"
        );
        beats.unknown(now);
        assert_eq!((beats.act(), beats.due()), (Act::Register, now));
    }

    #[test]
    fn reg_308_beats_differ_and_keep_to_bounds() {
        let now = Instant::now();
        let mut beats = Beats::new(now);
        beats.registered(None, now, 0.0);
        assert!((wait(&beats, now) - 13.5).abs() < 0.001);
        beats.kept(now, 1.0);
        assert!((wait(&beats, now) - 16.5).abs() < 0.001);
        for (asked, beat) in [(0, 1.0), (100_000, 300.0)] {
            beats.registered(Some(Duration::from_secs(asked)), now, 0.5);
            assert!((wait(&beats, now) - beat).abs() < 0.001);
        }
    }
}
