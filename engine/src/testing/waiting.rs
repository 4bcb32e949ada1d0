//! Waiting for what nobody announces: look, and look again, under the one hard limit.
//!
//! For what another thread or process does in its own time: a page of the admin address, a line of a log, a file. What
//! announces itself has a wait of its own (`Upstream::wait`, `ControlPlane::wait`), which wakes up for it. Nothing here
//! waits for a time to pass, and a condition that never holds fails the test with what was seen last.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use super::PATIENCE;

/// Between two looks: the machine belongs to others, too.
const PAUSE: Duration = Duration::from_millis(2);

/// Looks until it is as wanted, and hands back what was seen.
#[track_caller]
pub fn wait<T: Debug>(
    what: &str,
    mut look: impl FnMut() -> T,
    mut wanted: impl FnMut(&T) -> bool,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // A look that began in time counts, however late it ends.
        let in_time = Instant::now() < deadline;
        let seen = look();
        if wanted(&seen) {
            return seen;
        }
        assert!(in_time, "waited for {what} in vain; seen last: {seen:#?}");
        std::thread::sleep(PAUSE);
    }
}

/// Looks until it holds.
#[track_caller]
pub fn until(what: &str, holds: impl FnMut() -> bool) {
    wait(what, holds, |held| *held);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_at_last_is_handed_back() {
        let mut looks = 0;
        let look = || {
            looks += 1;
            looks
        };
        assert_eq!(wait("the third look", look, |seen| *seen == 3), 3);
    }
}
