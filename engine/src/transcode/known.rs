//! Times, durations and field masks as JSON writes them, both ways. Exact to the nanosecond.

use std::fmt::Write as _;

/// The first and the last second that a timestamp may name: the years 0001 to 9999.
const FIRST: i64 = -62_135_596_800;
const LAST: i64 = 253_402_300_799;
/// The longest duration, in seconds: about 10,000 years.
const LONGEST: i64 = 315_576_000_000;

/// RFC 3339 to seconds since 1970 and nanoseconds.
pub(super) fn timestamp(text: &str) -> Option<(i64, i32)> {
    let bytes = text.as_bytes();
    let number = |from: usize, length: usize| -> Option<i64> {
        let digits = bytes.get(from..from + length)?;
        digits.iter().all(u8::is_ascii_digit).then_some(())?;
        text.get(from..from + length)?.parse().ok()
    };
    for (place, wanted) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')] {
        (bytes.get(place) == Some(&wanted)).then_some(())?;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (nanos, rest) = fraction(&text[19..])?;
    let shift = match rest.as_bytes() {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let at = text.len() - rest.len() + 1;
            let (hours, minutes) = (number(at, 2)?, number(at + 3, 2)?);
            (hours < 24 && minutes < 60).then_some(())?;
            let span = hours * 3600 + minutes * 60;
            if *sign == b'+' { -span } else { span }
        }
        _ => return None,
    };
    // Days since 1970 (Howard Hinnant's algorithm, eras of 400 years starting in March).
    let shifted = year - i64::from(month <= 2);
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second + shift;
    (FIRST..=LAST)
        .contains(&seconds)
        .then_some((seconds, nanos))
}

pub(super) fn written_timestamp(seconds: i64, nanos: i32) -> Option<String> {
    if !(FIRST..=LAST).contains(&seconds) || !(0..1_000_000_000).contains(&nanos) {
        return None;
    }
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let mut text = String::with_capacity(30);
    let _infallible = write!(
        text,
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
        second / 3600,
        second / 60 % 60,
        second % 60
    );
    write_fraction(&mut text, nanos);
    text.push('Z');
    Some(text)
}

/// `1.5s` to seconds and nanoseconds of one sign.
pub(super) fn duration(text: &str) -> Option<(i64, i32)> {
    let text = text.strip_suffix('s')?;
    let positive = text.strip_prefix('-').unwrap_or(text);
    let length = positive.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, rest) = positive.split_at(length);
    let (nanos, rest) = fraction(rest)?;
    if !rest.is_empty() {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    if seconds > LONGEST || seconds == LONGEST && nanos > 0 {
        return None;
    }
    Some(if positive.len() < text.len() {
        (-seconds, -nanos)
    } else {
        (seconds, nanos)
    })
}

pub(super) fn written_duration(seconds: i64, nanos: i32) -> Option<String> {
    let agree = seconds == 0 || nanos == 0 || (seconds < 0) == (nanos < 0);
    if !(-LONGEST..=LONGEST).contains(&seconds) || nanos.unsigned_abs() > 999_999_999 || !agree {
        return None;
    }
    let mut text = String::with_capacity(24);
    if seconds < 0 || nanos < 0 {
        text.push('-');
    }
    let _infallible = write!(text, "{}", seconds.unsigned_abs());
    write_fraction(&mut text, nanos.abs());
    text.push('s');
    Some(text)
}

/// `.5` at the beginning, as nanoseconds, and what stands behind it.
fn fraction(text: &str) -> Option<(i32, &str)> {
    let Some(rest) = text.strip_prefix('.') else {
        return Some((0, text));
    };
    let length = rest.bytes().take_while(u8::is_ascii_digit).count();
    if !(1..=9).contains(&length) {
        return None;
    }
    let (digits, rest) = rest.split_at(length);
    let value: i32 = digits.parse().ok()?;
    Some((value * 10i32.pow(9 - length as u32), rest))
}

/// No digits, or three, six or nine.
fn write_fraction(text: &mut String, nanos: i32) {
    let _infallible = match nanos {
        0 => Ok(()),
        _ if nanos % 1_000_000 == 0 => write!(text, ".{:03}", nanos / 1_000_000),
        _ if nanos % 1_000 == 0 => write!(text, ".{:06}", nanos / 1_000),
        _ => write!(text, ".{nanos:09}"),
    };
}

/// One path of a mask: `fooBar.baz` to `foo_bar.baz`.
pub(super) fn snake_path(path: &str) -> Option<String> {
    let mut snake = String::with_capacity(path.len() + 4);
    for letter in path.chars() {
        match letter {
            'A'..='Z' => {
                snake.push('_');
                snake.push(letter.to_ascii_lowercase());
            }
            // What had one could not be written back.
            '_' => return None,
            letter => snake.push(letter),
        }
    }
    (!snake.is_empty()).then_some(snake)
}

/// One path of a mask: `foo_bar.baz` to `fooBar.baz`; `None` when it would not come back.
pub(super) fn camel_path(path: &str) -> Option<String> {
    let camel = super::descriptor::camel(path);
    (snake_path(&camel).as_deref() == Some(path)).then_some(camel)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_in_every_zone_and_written_in_one() {
        for (text, seconds, nanos) in [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("1970-01-01T00:00:00.5Z", 0, 500_000_000),
            ("1969-12-31T23:59:59.999999999Z", -1, 999_999_999),
            ("2000-02-29T12:00:00+01:30", 951_820_200, 0),
            ("0001-01-01T00:00:00Z", FIRST, 0),
            ("9999-12-31T23:59:59Z", LAST, 0),
        ] {
            assert_eq!(timestamp(text), Some((seconds, nanos)), "{text}");
        }
        assert_eq!(
            written_timestamp(951_820_200, 120_000),
            Some("2000-02-29T10:30:00.000120Z".into())
        );
        for bad in [
            "",
            "2001-02-29T00:00:00Z",
            "2000-13-01T00:00:00Z",
            "2000-01-00T00:00:00Z",
            "2000-01-01T24:00:00Z",
            "2000-01-01T00:00:00",
            "2000-01-01 00:00:00Z",
            "2000-01-01T00:00:00.Z",
            "2000-01-01T00:00:00.1234567890Z",
            "2000-01-01T00:00:00+1:00",
            "0000-12-31T00:00:00Z",
            "9999-12-31T23:59:59-01:00",
            "2000-01-01T00:00:00zZ",
            "+200-01-01T00:00:00Z",
            "2000-01-01T00:00:00+24:00",
            "2000-01-01T00:00:\u{e4}Z",
        ] {
            assert_eq!(timestamp(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_keep_their_sign_and_their_bounds() {
        for (text, value) in [
            ("0s", (0, 0)),
            ("-0.5s", (0, -500_000_000)),
            ("1.000000001s", (1, 1)),
            ("315576000000s", (LONGEST, 0)),
        ] {
            assert_eq!(duration(text), Some(value), "{text}");
        }
        for bad in [
            "",
            "s",
            "1",
            "1m",
            "1.s",
            ".5s",
            "+1s",
            "--1s",
            "315576000001s",
            "315576000000.1s",
            "1e3s",
            "99999999999999999999s",
        ] {
            assert_eq!(duration(bad), None, "{bad}");
        }
        assert_eq!(written_duration(1, -1), None, "signs that differ");
        assert_eq!(written_duration(0, i32::MIN), None);
    }

    proptest! {
        #[test]
        fn times_and_durations_come_back(seconds in FIRST..=LAST, span in -LONGEST + 1..LONGEST, nanos in 0..1_000_000_000i32) {
            let text = written_timestamp(seconds, nanos).unwrap();
            prop_assert_eq!(timestamp(&text), Some((seconds, nanos)));
            let nanos = if span < 0 { -nanos } else { nanos };
            let text = written_duration(span, nanos).unwrap();
            prop_assert_eq!(duration(&text), Some((span, nanos)));
        }

        #[test]
        fn nothing_panics(text in "[-+0-9TZ:.s\u{e4}]{0,32}") {
            let _any = (timestamp(&text), duration(&text), snake_path(&text));
        }
    }
}
