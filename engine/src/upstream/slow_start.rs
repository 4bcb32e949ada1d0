//! How much of its weight an endpoint gets while it is new or has just come back: little at first, all after ten
//! seconds. A cold process that is handed its full share at once fails, and is out again. Pure arithmetic.

use std::time::Duration;

use super::moment::{Moment, nanoseconds};

/// From its return until an endpoint has its whole share.
pub const RAMP: Duration = Duration::from_secs(10);
/// Somebody must be sent there, or nothing is ever learned.
const LEAST: f64 = 0.1;

/// The share at `now` of an endpoint that came back at `began`; 1 when that is long ago.
#[inline]
pub(super) fn share(began: Moment, now: Moment) -> f64 {
    let elapsed = now.since(began);
    if elapsed >= nanoseconds(RAMP) {
        return 1.0;
    }
    (elapsed as f64 / nanoseconds(RAMP) as f64).max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_from_a_tenth_to_all_within_the_ramp() {
        let began = Moment(nanoseconds(Duration::from_secs(100)));
        let after = |ms| share(began, began.plus(Duration::from_millis(ms)));
        assert_eq!(after(0), 0.1);
        assert_eq!(after(5000), 0.5);
        assert_eq!(after(10_000), 1.0);
        assert_eq!(share(began, Moment::LONG_AGO), 0.1, "before its return");
        assert_eq!(share(Moment::LONG_AGO, began), 1.0);
    }
}
