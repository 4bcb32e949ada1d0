//! Amounts of money: whole minor units in an `i64`, exact decimal text outside. There is no binary fraction anywhere
//! (DEC-26), and arithmetic that would overflow says so.

use std::fmt;

/// An amount in hundredths of the installation's currency (SHOP-301: two decimals).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money(i64);

/// The most that `decimal(10,2)` holds.
const MOST: i64 = 9_999_999_999;

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// From hundredths, as stores keep it.
    pub const fn from_minor(minor: i64) -> Self {
        Self(minor)
    }

    /// In hundredths.
    pub const fn minor(self) -> i64 {
        self.0
    }

    /// Reads `12`, `12.5` or `12.34`, not negative, below 100 million. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "00"));
        let digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return Err("is not a decimal number such as 19.99");
        }
        if fraction.len() > 2 {
            return Err("has more than two decimals");
        }
        if whole.len() > 8 {
            return Err("is more than 99999999.99");
        }
        let number = |part: &str| {
            part.bytes()
                .fold(0i64, |sum, byte| sum * 10 + i64::from(byte - b'0'))
        };
        let cents = number(fraction) * if fraction.len() == 1 { 10 } else { 1 };
        Ok(Self(number(whole) * 100 + cents))
    }

    /// The sum, unless it is more than can be kept.
    pub fn plus(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).and_then(Self::within)
    }

    /// The difference, unless it is below nothing.
    pub fn minus(self, other: Self) -> Option<Self> {
        self.0
            .checked_sub(other.0)
            .filter(|minor| *minor >= 0)
            .map(Self)
    }

    /// So many of it.
    pub fn times(self, count: i64) -> Option<Self> {
        self.0.checked_mul(count).and_then(Self::within)
    }

    /// A share in hundredths of a percent (875 is 8.75 %), rounded half up to a whole hundredth.
    pub fn share(self, basis_points: u32) -> Option<Self> {
        let exact = i128::from(self.0) * i128::from(basis_points);
        i64::try_from((exact + 5_000).div_euclid(10_000))
            .ok()
            .and_then(Self::within)
    }

    fn within(minor: i64) -> Option<Self> {
        (-MOST..=MOST).contains(&minor).then_some(Self(minor))
    }
}

impl fmt::Display for Money {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let minor = self.0.unsigned_abs();
        write!(out, "{sign}{}.{:02}", minor / 100, minor % 100)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_plain_decimals_with_two_places_are_money() {
        assert_eq!(Money::parse("19.99"), Ok(Money(1999)));
        assert_eq!(Money::parse("5"), Ok(Money(500)));
        assert_eq!(Money::parse("5.5"), Ok(Money(550)));
        for bad in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "1,5",
            " 1",
            "1.234",
            "100000000",
            "٣",
            "0x1",
            "NaN",
        ] {
            assert!(Money::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn shares_are_rounded_half_up() {
        assert_eq!(Money(1000).share(875), Some(Money(88)));
        assert_eq!(Money(1).share(5000), Some(Money(1)));
        assert_eq!(Money(1).share(4999), Some(Money(0)));
    }

    #[test]
    fn sums_that_cannot_be_kept_are_none() {
        assert_eq!(Money(MOST).plus(Money(1)), None);
        assert_eq!(Money(MOST).times(i64::MAX), None);
        assert_eq!(Money(1).minus(Money(2)), None);
    }

    proptest! {
        /// DEC-26: what is written reads back as the same amount.
        #[test]
        fn text_and_amount_are_the_same(minor in 0..=MOST) {
            prop_assert_eq!(Money::parse(&Money(minor).to_string()), Ok(Money(minor)));
        }
    }
}
