//! Numbers, base64 and the like: from text to the wire. What JSON writes, what a path captured and what a query says all
//! come through here, so that they mean the same.

use super::json::Reader;
use super::schema::Kind;
use super::wire;

/// Writes one value without its tag. `None`: the text is no value of this kind. Not for texts, bytes, enums and messages.
pub(super) fn numeric(out: &mut Vec<u8>, kind: Kind, text: &str) -> Option<()> {
    match kind {
        Kind::Double => out.extend_from_slice(&double(text)?.to_le_bytes()),
        Kind::Float => {
            let value = match double(text)? {
                odd if !odd.is_finite() => odd as f32,
                _ => text.parse::<f32>().ok().filter(|value| value.is_finite())?,
            };
            out.extend_from_slice(&value.to_le_bytes());
        }
        Kind::Int64 => wire::varint(out, i64::try_from(integer(text)?).ok()? as u64),
        Kind::Uint64 => wire::varint(out, u64::try_from(integer(text)?).ok()?),
        Kind::Int32 => wire::varint(out, i64::from(i32::try_from(integer(text)?).ok()?) as u64),
        Kind::Uint32 => wire::varint(out, u64::from(u32::try_from(integer(text)?).ok()?)),
        Kind::Fixed64 => out.extend_from_slice(&u64::try_from(integer(text)?).ok()?.to_le_bytes()),
        Kind::Fixed32 => out.extend_from_slice(&u32::try_from(integer(text)?).ok()?.to_le_bytes()),
        Kind::Sfixed64 => out.extend_from_slice(&i64::try_from(integer(text)?).ok()?.to_le_bytes()),
        Kind::Sfixed32 => out.extend_from_slice(&i32::try_from(integer(text)?).ok()?.to_le_bytes()),
        Kind::Sint64 => wire::varint(out, wire::zigzag(i64::try_from(integer(text)?).ok()?)),
        Kind::Sint32 => wire::varint(
            out,
            wire::zigzag(i32::try_from(integer(text)?).ok()?.into()),
        ),
        Kind::Bool => match text {
            "true" => out.push(1),
            "false" => out.push(0),
            _ => return None,
        },
        Kind::String | Kind::Bytes | Kind::Message(_) | Kind::Enum(_) => return None,
    }
    Some(())
}

pub(super) fn double(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => {
            is_number(text).then_some(())?;
            text.parse().ok().filter(|value: &f64| value.is_finite())
        }
    }
}

fn is_number(text: &str) -> bool {
    let Ok(mut reader) = Reader::new(text.as_bytes()) else {
        return false;
    };
    let starts = matches!(text.as_bytes().first(), Some(b'-' | b'0'..=b'9'));
    starts
        && reader
            .number()
            .is_ok_and(|number| number.len() == text.len())
}

/// A whole number, also when it is written as `1e3` or `1.0`; exact, so never by way of a float.
pub(super) fn integer(text: &str) -> Option<i128> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits.len() <= 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let magnitude: i128 = if plain {
        (digits == "0" || !digits.starts_with('0')).then_some(())?;
        digits.parse().ok()?
    } else {
        is_number(text).then_some(())?;
        decimal(digits)?
    };
    Some(if digits.len() < text.len() {
        -magnitude
    } else {
        magnitude
    })
}

/// A number of JSON without its sign, if it is whole and not beyond 20 digits.
fn decimal(text: &str) -> Option<i128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent),
        None => (text, "0"),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits: String = [whole, fraction].concat();
    let digits_before = digits.len();
    digits.truncate(digits.trim_end_matches('0').len());
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    let exponent: i64 = exponent.parse().ok()?;
    let zeros = exponent
        .checked_sub(fraction.len() as i64)?
        .checked_add((digits_before - digits.len()) as i64)?;
    let zeros = u32::try_from(zeros).ok()?;
    if significant.len() + zeros as usize > 20 {
        return None;
    }
    let value: i128 = significant.parse().ok()?;
    Some(value * 10i128.pow(zeros))
}

/// Base64 in either alphabet, with or without padding. `None`: it is none.
pub(super) fn base64(out: &mut Vec<u8>, text: &str) -> Option<()> {
    let text = text.as_bytes();
    let bare = match text {
        [bare @ .., b'=', b'='] | [bare @ .., b'='] => bare,
        _ => text,
    };
    let mut word = 0u32;
    for (place, letter) in bare.iter().enumerate() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        word = word << 6 | u32::from(value);
        if place % 4 == 3 {
            out.extend_from_slice(&[(word >> 16) as u8, (word >> 8) as u8, word as u8]);
            word = 0;
        }
    }
    match bare.len() % 4 {
        1 => return None,
        2 => out.push((word >> 4) as u8),
        3 => out.extend_from_slice(&[(word >> 10) as u8, (word >> 2) as u8]),
        _ => {}
    }
    Some(())
}

/// `%41` and, in queries and forms, `+`. `None`: an escape is none, or what comes out is not UTF-8.
pub(super) fn unescaped(text: &str, plus: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, behind @ ..] = rest {
        rest = behind;
        match byte {
            b'%' => {
                let [high, low, behind @ ..] = rest else {
                    return None;
                };
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                bytes.push((digit(high)? << 4 | digit(low)?) as u8);
                rest = behind;
            }
            b'+' if plus => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_numbers_are_read_exactly_however_they_are_written() {
        for (text, value) in [
            ("0", 0),
            ("-0", 0),
            ("-0.0", 0),
            ("1.0", 1),
            ("1e3", 1000),
            ("1.5e1", 15),
            ("100e-2", 1),
            ("0e999999999", 0),
            ("18446744073709551615", u64::MAX.into()),
            ("-9223372036854775808", i64::MIN.into()),
            ("9007199254740993", 9_007_199_254_740_993),
            ("9007199254740993.0", 9_007_199_254_740_993),
        ] {
            assert_eq!(integer(text), Some(value), "{text}");
        }
        for odd in [
            "",
            "-",
            "1.5",
            "1e-1",
            "01",
            "+1",
            " 1",
            "1 ",
            "0x1",
            "1e999999999",
            "1e99999999999999999999",
            "NaN",
            "1_0",
        ] {
            assert_eq!(integer(odd), None, "{odd}");
        }
    }

    #[test]
    fn numbers_beyond_their_kind_are_none() {
        let mut out = Vec::new();
        for (kind, text) in [
            (Kind::Int32, "2147483648"),
            (Kind::Int32, "-2147483649"),
            (Kind::Uint32, "4294967296"),
            (Kind::Uint32, "-1"),
            (Kind::Int64, "9223372036854775808"),
            (Kind::Uint64, "18446744073709551616"),
            (Kind::Float, "3.5e38"),
            (Kind::Double, "1e309"),
            (Kind::Double, "inf"),
            (Kind::Double, ".5"),
            (Kind::Bool, "1"),
        ] {
            assert_eq!(numeric(&mut out, kind, text), None, "{kind:?} {text}");
        }
    }

    proptest! {
        #[test]
        fn base64_comes_back_in_every_spelling(bytes: Vec<u8>) {
            let padded = crate::exchange::base64::padded(&bytes);
            let url = padded.replace('+', "-").replace('/', "_");
            for text in [&*padded, padded.trim_end_matches('='), &*url, url.trim_end_matches('=')] {
                let mut out = Vec::new();
                prop_assert_eq!(base64(&mut out, text), Some(()));
                prop_assert_eq!(&out, &bytes);
            }
        }

        #[test]
        fn nothing_panics(text: String) {
            let _any = (integer(&text), double(&text), base64(&mut Vec::new(), &text), unescaped(&text, true));
        }
    }
}
