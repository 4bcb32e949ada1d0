//! Base64 (RFC 4648) in both alphabets, read to the letter: a text that another text also stands for is refused, so that
//! a token or a signature has one spelling.

/// Which letters, and whether a text is filled up to whole groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// `+` and `/`, with padding.
    Standard,
    /// `-` and `_`, without padding, as in tokens.
    Url,
}

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// `None` for anything but the one spelling of some bytes.
pub(super) fn read(text: &str, alphabet: Alphabet) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    let text = match alphabet {
        Alphabet::Url => text,
        Alphabet::Standard if !text.len().is_multiple_of(4) => return None,
        Alphabet::Standard => match text {
            [rest @ .., b'=', b'='] | [rest @ .., b'='] => rest,
            _ => text,
        },
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        let mut word = 0u32;
        for letter in group {
            word = word << 6 | value(*letter, alphabet)?;
        }
        let [_, a, b, c] = (word << (6 * (4 - group.len()))).to_be_bytes();
        match group.len() {
            4 => bytes.extend_from_slice(&[a, b, c]),
            3 if c == 0 => bytes.extend_from_slice(&[a, b]),
            2 if b == 0 && c == 0 => bytes.push(a),
            _ => return None,
        }
    }
    Some(bytes)
}

fn value(letter: u8, alphabet: Alphabet) -> Option<u32> {
    let letter = match (alphabet, letter) {
        (Alphabet::Url, b'-') => b'+',
        (Alphabet::Url, b'_') => b'/',
        (Alphabet::Url, b'+' | b'/') => return None,
        (_, other) => other,
    };
    let place = LETTERS.iter().position(|known| *known == letter)?;
    u32::try_from(place).ok()
}

/// In the standard alphabet.
pub(super) fn write(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let part = |at: usize| u32::from(group.get(at).copied().unwrap_or_default());
        let word = part(0) << 16 | part(1) << 8 | part(2);
        for place in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * place) & 63) as usize];
            let there = place <= group.len();
            text.push(if there { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_has_no_other_spelling() {
        for length in 0..40u8 {
            let bytes: Vec<u8> = (0..length).map(|at| at.wrapping_mul(97)).collect();
            let text = write(&bytes);
            assert_eq!(read(&text, Alphabet::Standard), Some(bytes.clone()));
            let url = text
                .trim_end_matches('=')
                .replace('+', "-")
                .replace('/', "_");
            assert_eq!(read(&url, Alphabet::Url), Some(bytes));
        }
        assert_eq!(write(b"fo"), "Zm8=");
        for text in [
            "Zg", "Zh==", "Zm9=", "Zg=", "Z===", "Zm9v\n", "Zm-v", "Zg==Zg==",
        ] {
            assert_eq!(read(text, Alphabet::Standard), None, "{text:?}");
        }
        for text in ["Zg==", "Zh", "Zm9", "a", "a+b/", " Zm9v", "Zm9v."] {
            assert_eq!(read(text, Alphabet::Url), None, "{text:?}");
        }
    }
}
