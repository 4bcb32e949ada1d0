//! Quantities as people write them: `"250ms"`, `"64KiB"`, `"100/s"`. Never a bare number, so nobody has to remember
//! which unit a key has. Nothing here knows which key a quantity is for.

use std::fmt;
use std::time::Duration;

use crate::problem::Fault;

/// The longest duration that a document may hold: nothing waits longer, and adding it to a clock cannot overflow.
pub const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// So many in each span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub count: u64,
    pub per: Duration,
}

/// As a person would write it, in the largest unit that is exact.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.per.as_millis();
        let (count, unit) = [(3_600_000, "h"), (60_000, "m"), (1000, "s")]
            .into_iter()
            .find(|(size, _)| ms.is_multiple_of(*size))
            .map_or((ms, "ms"), |(size, unit)| (ms / size, unit));
        match count {
            1 => write!(f, "{}/{unit}", self.count),
            _ => write!(f, "{}/{count}{unit}", self.count),
        }
    }
}

/// Reads `"250ms"`, `"2s"`, `"1m"` or `"1h"`.
pub fn duration(text: &str) -> Result<Duration, Fault> {
    let hint = "write a whole number and a unit: \"250ms\", \"2s\", \"1m\" or \"1h\"";
    let (count, unit) = split(text)
        .ok_or_else(|| Fault::new(format!("`{}` is not a duration", short(text)), hint))?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" => {
            return Err(Fault::new(
                format!("`{text}` has no unit"),
                format!("write \"{text}s\" for seconds or \"{text}ms\" for milliseconds"),
            ));
        }
        other => {
            return Err(Fault::new(
                format!("`{}` is not a unit of time", short(other)),
                "the units are ms, s, m and h",
            ));
        }
    };
    count
        .checked_mul(milliseconds)
        .map(Duration::from_millis)
        .filter(|d| *d <= LONGEST)
        .ok_or_else(|| {
            Fault::new(
                format!("`{text}` is longer than a year"),
                "write at most \"8784h\"",
            )
        })
}

/// Reads `"512B"`, `"64KiB"`, `"1MiB"` or `"1GiB"`, as bytes.
pub fn size(text: &str) -> Result<u64, Fault> {
    let hint = "write a whole number and a unit: \"512B\", \"64KiB\", \"1MiB\" or \"1GiB\"";
    let (count, unit) =
        split(text).ok_or_else(|| Fault::new(format!("`{}` is not a size", short(text)), hint))?;
    let shift = match unit {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "" => {
            return Err(Fault::new(
                format!("`{text}` has no unit"),
                format!("write \"{text}B\" for bytes or \"{text}KiB\" for units of 1024 bytes"),
            ));
        }
        other => {
            let meant = match other.to_ascii_lowercase().as_str() {
                "k" | "kb" | "kib" => Some("KiB"),
                "m" | "mb" | "mib" => Some("MiB"),
                "g" | "gb" | "gib" => Some("GiB"),
                "b" | "byte" | "bytes" => Some("B"),
                _ => None,
            };
            let hint = meant.map_or("the units are B, KiB, MiB and GiB".to_owned(), |unit| {
                format!("write \"{count}{unit}\"; the units are B, KiB, MiB and GiB")
            });
            return Err(Fault::new(
                format!("`{}` is not a unit of size", short(other)),
                hint,
            ));
        }
    };
    // 2^53 bytes is what JSON readers can still count, and far more than any machine has.
    count
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes <= 1 << 53)
        .ok_or_else(|| Fault::new(format!("`{text}` is too large"), hint))
}

/// Reads `"100/s"`, `"1000/m"` or `"5/15m"`.
pub fn rate(text: &str) -> Result<Rate, Fault> {
    let fault = || {
        Fault::new(
            format!("`{}` is not a rate", short(text)),
            "write a whole number, a slash and a span of time: \"100/s\", \"1000/m\" or \"5/15m\"",
        )
    };
    let (count, span) = text.split_once('/').ok_or_else(fault)?;
    let count = whole(count).ok_or_else(fault)?;
    let per = if span.starts_with(|c: char| c.is_ascii_digit()) {
        duration(span)?
    } else {
        duration(&format!("1{span}")).map_err(|_| fault())?
    };
    if per.is_zero() {
        return Err(fault());
    }
    Ok(Rate { count, per })
}

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (count, unit) = text.split_at(digits);
    let unit_is_word = unit.bytes().all(|b| b.is_ascii_alphabetic());
    Some((whole(count)?, unit)).filter(|_| unit_is_word)
}

fn whole(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// At most 60 characters of something that stands in a document, for a message.
pub(crate) fn short(text: &str) -> String {
    if text.chars().count() <= 60 {
        text.to_owned()
    } else {
        text.chars().take(60).chain(['…']).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_sizes_and_rates_are_read_as_written() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(size("64KiB"), Ok(65536));
        assert_eq!(size("512B"), Ok(512));
        let per = Duration::from_secs(900);
        assert_eq!(rate("5/15m"), Ok(Rate { count: 5, per }));
        let per = Duration::from_secs(1);
        assert_eq!(rate("100/s"), Ok(Rate { count: 100, per }));
    }

    #[test]
    fn a_rate_is_told_as_it_was_written() {
        for text in ["100/s", "1000/m", "5/15m", "7/250ms", "1/24h", "3/h"] {
            assert_eq!(rate(text).expect("valid").to_string(), text);
        }
    }

    #[test]
    fn a_bad_unit_is_answered_with_the_good_one() {
        assert!(duration("5").unwrap_err().hint.contains("\"5s\""));
        assert!(
            duration("5sec")
                .unwrap_err()
                .hint
                .contains("ms, s, m and h")
        );
        assert!(size("64KB").unwrap_err().hint.contains("\"64KiB\""));
        for bad in [
            "",
            "s",
            "-1s",
            "1.5s",
            "99999999999999999999s",
            "9999999h",
            "1 s",
            "１s",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        for bad in ["", "B", "1TiB", "99999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        for bad in ["", "5", "/s", "5/", "5/0s", "x/s", "5/x"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
