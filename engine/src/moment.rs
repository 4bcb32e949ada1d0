//! A point in time that fits into an atomic: nanoseconds since an epoch of this process. Memory that all workers share
//! is kept in moments; callers speak in `Instant`s. Nothing here reads a clock: the epoch is taken from the first
//! instant anybody hands in, less an hour, so that zero is long ago for everyone.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static EPOCH: OnceLock<Instant> = OnceLock::new();
const BEFORE_THE_FIRST: Duration = Duration::from_secs(3600);

/// Nanoseconds since this process's epoch; 584 years fit. Zero stands for "never" or "long ago".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Moment(pub(crate) u64);

impl Moment {
    pub(crate) const LONG_AGO: Moment = Moment(0);

    pub(crate) fn plus(self, span: Duration) -> Moment {
        Moment(self.0.saturating_add(nanoseconds(span)))
    }

    /// Nanoseconds from `earlier` to here; zero when it is not earlier (two cores may disagree by a little).
    pub(crate) fn since(self, earlier: Moment) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl From<Instant> for Moment {
    #[inline]
    fn from(instant: Instant) -> Self {
        let epoch = EPOCH.get_or_init(|| instant.checked_sub(BEFORE_THE_FIRST).unwrap_or(instant));
        Moment(nanoseconds(instant.saturating_duration_since(*epoch)))
    }
}

/// A duration as nanoseconds; what does not fit is as long as can be.
pub(crate) const fn nanoseconds(span: Duration) -> u64 {
    span.as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(span.subsec_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_keep_the_order_and_distance_of_instants() {
        let now = Instant::now();
        let later = now + Duration::from_millis(7);
        assert!(Moment::from(now) > Moment::LONG_AGO);
        assert_eq!(Moment::from(later).since(Moment::from(now)), 7_000_000);
        assert_eq!(Moment::from(now).since(Moment::from(later)), 0);
        assert_eq!(
            Moment::from(now).plus(Duration::from_millis(7)),
            Moment::from(later)
        );
    }
}
