//! Clocks: ours, that of whoever answers, and what stands in certificates. Seconds since 1970.

use std::time::SystemTime;

use tollgate_engine::clock::{http_date, unix_seconds};

use crate::table::span;

pub(super) fn now() -> u64 {
    unix_seconds(SystemTime::now())
}

/// A span as people say it.
pub(super) fn span_words(seconds: u64) -> String {
    span(seconds)
}

/// A date as HTTP writes it (RFC 9110, section 5.6.7), in the one form that is sent today.
pub(super) fn of_date(text: &str) -> Option<u64> {
    let mut words = text.split_ascii_whitespace().skip(1);
    let day: u64 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let year: u64 = words.next()?.parse().ok()?;
    let mut clock = words
        .next()?
        .split(':')
        .map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if !(1970..=9999).contains(&year) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second;
    // A day or a month that there is not comes back as another one.
    let same = second == 60 || http_date(seconds).get(5..) == text.get(5..);
    same.then_some(seconds)
}

/// Since 1970.
fn days(year: u64, month: &str, day: u64) -> Option<u64> {
    const MONTHS: [(&str, u64); 12] = [
        ("Jan", 31),
        ("Feb", 28),
        ("Mar", 31),
        ("Apr", 30),
        ("May", 31),
        ("Jun", 30),
        ("Jul", 31),
        ("Aug", 31),
        ("Sep", 30),
        ("Oct", 31),
        ("Nov", 30),
        ("Dec", 31),
    ];
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let years: u64 = (1970..year).map(|year| 365 + u64::from(leap(year))).sum();
    let number = MONTHS.iter().position(|(name, _)| *name == month)?;
    let months: u64 = MONTHS.iter().take(number).map(|(_, days)| days).sum();
    let leap_day = u64::from(number > 1 && leap(year));
    Some(years + months + leap_day + day.checked_sub(1)?)
}

/// How far somebody's clock is from ours, and on which side. What the answer's way took, and the second that its date does not
/// tell, are no difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Skew {
    None,
    Ahead(u64),
    Behind(u64),
}

/// `date` was read between `before` and `after`.
pub(super) fn skew(before: u64, date: u64, after: u64) -> Skew {
    if date > after {
        Skew::Ahead(date - after)
    } else if date + 1 < before {
        Skew::Behind(before - date - 1)
    } else {
        Skew::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_as_they_are_written() {
        for seconds in [0, 68_169_600, 951_782_400, 1_732_276_800, 253_402_300_799] {
            assert_eq!(of_date(&http_date(seconds)), Some(seconds));
        }
        for bad in [
            "",
            "Sun",
            "Sun, 31 Feb 2026 00:00:00 GMT",
            "Sun, 01 Jan 99999999999 00:00:00 GMT",
            "Sun, 00 Jan 2026 00:00:00 GMT",
            "Sun, 01 Jan 2026 99:00:00 GMT",
        ] {
            assert_eq!(of_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_the_way_took_is_no_skew() {
        assert_eq!(skew(100, 99, 107), Skew::None);
        assert_eq!(skew(100, 107, 107), Skew::None);
        assert_eq!(skew(100, 167, 107), Skew::Ahead(60));
        assert_eq!(skew(100, 39, 107), Skew::Behind(60));
    }
}
