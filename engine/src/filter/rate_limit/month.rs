//! A month's count in one word, and the calendar it needs (GW-310): UTC, proleptic Gregorian. Pure arithmetic, as in
//! `bucket`; a word of another month counts as nothing.

const COUNT: u32 = 44;
const COUNTS: u64 = (1 << COUNT) - 1;

/// A calendar month: years since 0 × 12 + month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month(u64);

impl Month {
    /// The month of a Unix time.
    pub fn of(unix: u64) -> Self {
        // Days from 0000-03-01, in eras of 400 years (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
        let days = unix / 86_400 + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day_of_year = day - (365 * year + year / 4 - year / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        Month((era * 400 + year) * 12 + from_march + 2)
    }

    pub fn next(self) -> Self {
        Month(self.0 + 1)
    }

    /// The Unix time of its first second.
    pub fn begins(self) -> u64 {
        let from_march = self.0 - 2;
        let (year, month) = (from_march / 12, from_march % 12);
        let day_of_year = (153 * month + 2) / 5;
        let days = 365 * year + year / 4 - year / 100 + year / 400 + day_of_year;
        days.saturating_sub(719_468) * 86_400
    }
}

/// Nothing counted yet.
pub(super) fn none(month: Month) -> u64 {
    month.0 << COUNT
}

/// What was counted in this month.
pub(super) fn count(word: u64, month: Month) -> u64 {
    if word >> COUNT == month.0 {
        word & COUNTS
    } else {
        0
    }
}

/// Counts one more, unless the quota is used up.
pub(super) fn add(word: u64, month: Month, quota: u64) -> Option<u64> {
    let counted = count(word, month);
    (counted < quota.min(COUNTS)).then(|| none(month) | (counted + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gw_310_months_begin_when_the_calendar_says() {
        for (month, begins, last) in [
            ("January 1970", 0, 2_678_399),
            ("February 2000", 949_363_200, 951_868_799),
            ("February 2023", 1_675_209_600, 1_677_628_799),
            ("December 2026", 1_796_083_200, 1_798_761_599),
            ("February 2100", 4_105_123_200, 4_107_542_399),
        ] {
            assert_eq!(Month::of(begins).begins(), begins, "{month}");
            assert_eq!(Month::of(last).begins(), begins, "{month}");
            assert_eq!(Month::of(begins).next().begins(), last + 1, "{month}");
            assert_eq!(Month::of(last + 1), Month::of(begins).next(), "{month}");
        }
    }

    #[test]
    fn gw_310_a_quota_is_used_up_once_a_month() {
        let (now, next) = (Month::of(1_796_083_200), Month::of(1_798_761_600));
        let mut word = none(now);
        for counted in 0..3 {
            assert_eq!(count(word, now), counted);
            word = add(word, now, 3).expect("there is some left");
        }
        assert_eq!(add(word, now, 3), None);
        assert!(add(word, now, 4).is_some());
        assert_eq!((count(word, now), count(word, next)), (3, 0));
        assert_eq!(add(word, next, 3).map(|word| count(word, next)), Some(1));
    }
}
