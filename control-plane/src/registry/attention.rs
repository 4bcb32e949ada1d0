//! The registry's own time: it stands still while the registry itself was not listening. A process that was stopped for
//! five minutes, or starved, heard no heartbeat; that says nothing of the instances, and must not cost them their lease.

use std::time::Duration;

/// A point in time as the caller's clocks tell it. Ages come from `tick` alone (REG-410).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Of a clock that never goes back, since any beginning.
    pub tick: Duration,
    /// Milliseconds since 1970, to show to people. It may jump.
    pub time: u64,
}

/// Who listens is called at least every second; what is longer was not listened to.
const LONGEST_GAP: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Attention {
    started: bool,
    last: Duration,
    missed: Duration,
}

impl Attention {
    /// How long the registry has listened in all.
    pub(super) fn at(&self, now: Now) -> Duration {
        let tick = now.tick.max(self.last);
        tick.saturating_sub(self.missed + self.excess(tick))
    }

    pub(super) fn advance(&mut self, now: Now) -> Duration {
        let tick = now.tick.max(self.last);
        self.missed += self.excess(tick);
        self.last = tick;
        self.started = true;
        tick.saturating_sub(self.missed)
    }

    fn excess(&self, tick: Duration) -> Duration {
        match self.started {
            true => (tick - self.last).saturating_sub(LONGEST_GAP),
            false => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_nobody_listened_to_does_not_count() {
        let now = |seconds| Now {
            tick: Duration::from_secs(seconds),
            time: 0,
        };
        let seconds = Duration::from_secs;
        let mut attention = Attention::default();
        assert_eq!(attention.advance(now(1000)), seconds(1000));
        assert_eq!(attention.advance(now(1004)), seconds(1004));
        assert_eq!(attention.at(now(1304)), seconds(1009));
        assert_eq!(attention.advance(now(1304)), seconds(1009));
        assert_eq!(attention.advance(now(1305)), seconds(1010));
        // A caller who looked at the clock a little earlier than the last one.
        assert_eq!(attention.advance(now(1304)), seconds(1010));
    }
}
