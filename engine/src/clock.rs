//! The worker's clock: read when something was waited for, remembered for everything that follows in the same turn.
//!
//! Reading the clock costs as much as finding a route; a request needs the time a dozen times but only three of them
//! can differ: when it came, when the answer began, when it ended.

use std::cell::Cell;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

thread_local! {
    static RECENT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The time now.
pub fn now() -> Instant {
    let now = Instant::now();
    RECENT.set(Some(now));
    now
}

/// Seconds since 1970; 0 for what was before.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The time of this thread's last `now`: for stamps that may be late by what one turn takes.
pub fn recent() -> Instant {
    RECENT.get().unwrap_or_else(now)
}
