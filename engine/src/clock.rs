//! The worker's clock: read when something was waited for, remembered for everything that follows in the same turn.
//!
//! Reading the clock costs as much as finding a route; a request needs the time a dozen times but only three of them
//! can differ: when it came, when the answer began, when it ended.

use std::cell::Cell;
use std::fmt::Write as _;
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

/// A time as RFC 9110 section 5.6.7 writes it: for `Date`, and for people.
pub fn http_date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let days = seconds / 86_400;
    // Days to a civil date (Howard Hinnant's algorithm, eras of 400 years starting in March).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 2
    } else {
        month_from_march - 10
    };
    let year = year_of_era + era * 400 + u64::from(month < 2);
    let mut text = String::with_capacity(29);
    let _infallible = write!(
        text,
        "{}, {day:02} {} {year} {:02}:{:02}:{:02} GMT",
        DAYS[(days % 7) as usize],
        MONTHS[(month % 12) as usize],
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60
    );
    text
}
