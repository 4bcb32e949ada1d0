//! Just enough JSON for log lines: strings that cannot break out of their line, numbers, identifiers, timestamps.
//!
//! Bytes in, bytes out, no allocation of its own. Control characters are escaped, C1 and DEL too, because lines end up
//! in terminals (HI-8); bytes that are not UTF-8 become the replacement character.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

const HEX: &[u8; 16] = b"0123456789abcdef";
/// Both digits of every byte.
const HEX_PAIRS: [[u8; 2]; 256] = {
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < pairs.len() {
        pairs[byte] = [HEX[byte >> 4], HEX[byte & 15]];
        byte += 1;
    }
    pairs
};

/// Whether every byte stands for itself in a string. Looks at all of them, without a way out in the middle: so the
/// compiler compares sixteen at a time.
fn is_plain(text: &[u8]) -> bool {
    text.iter().fold(true, |plain, byte| {
        plain & (*byte >= b' ') & (*byte < 0x7f) & (*byte != b'"') & (*byte != b'\\')
    })
}

/// A quoted string of any bytes.
pub(crate) fn string(buffer: &mut Vec<u8>, text: &[u8]) {
    buffer.push(b'"');
    if is_plain(text) {
        buffer.extend_from_slice(text);
    } else {
        for chunk in text.utf8_chunks() {
            escaped(buffer, chunk.valid());
            if !chunk.invalid().is_empty() {
                buffer.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    }
    buffer.push(b'"');
}

#[cold]
fn escaped(buffer: &mut Vec<u8>, text: &str) {
    for letter in text.chars() {
        match letter {
            '"' => buffer.extend_from_slice(b"\\\""),
            '\\' => buffer.extend_from_slice(b"\\\\"),
            '\n' => buffer.extend_from_slice(b"\\n"),
            '\r' => buffer.extend_from_slice(b"\\r"),
            '\t' => buffer.extend_from_slice(b"\\t"),
            // Line separators end a line for some readers, direction marks make one read as another.
            '\0'..='\x1f'
            | '\x7f'..='\u{9f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => {
                let code = letter as usize;
                let digit = |shift: usize| HEX[(code >> shift) & 15];
                buffer.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
            }
            other => buffer.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// A decimal number.
pub(crate) fn number(buffer: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    for place in digits.iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
        start -= 1;
        if value == 0 {
            break;
        }
    }
    buffer.extend_from_slice(digits.get(start..).unwrap_or_default());
}

/// `thousandths` as a decimal number with three places.
pub(crate) fn thousandths(buffer: &mut Vec<u8>, thousandths: u64) {
    number(buffer, thousandths / 1000);
    let rest = thousandths % 1000;
    buffer.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
}

fn digit(value: u64) -> u8 {
    b'0' + (value % 10) as u8
}

/// Two digits per byte, quoted.
pub(crate) fn hex<const N: usize>(buffer: &mut Vec<u8>, bytes: &[u8; N]) {
    buffer.push(b'"');
    buffer.extend_from_slice(
        bytes
            .map(|byte| HEX_PAIRS[usize::from(byte)])
            .as_flattened(),
    );
    buffer.push(b'"');
}

/// An address and a port, quoted.
pub(crate) fn socket(buffer: &mut Vec<u8>, socket: SocketAddr) {
    buffer.push(b'"');
    match socket {
        SocketAddr::V4(socket) => bare(buffer, IpAddr::V4(*socket.ip())),
        SocketAddr::V6(socket) => {
            buffer.push(b'[');
            write!(buffer, "{}", socket.ip()).expect("a Vec takes every write");
            buffer.push(b']');
        }
    }
    buffer.push(b':');
    number(buffer, u64::from(socket.port()));
    buffer.push(b'"');
}

/// An address, quoted.
pub(crate) fn address(buffer: &mut Vec<u8>, address: IpAddr) {
    buffer.push(b'"');
    bare(buffer, address);
    buffer.push(b'"');
}

fn bare(buffer: &mut Vec<u8>, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            for (index, part) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    buffer.push(b'.');
                }
                number(buffer, u64::from(part));
            }
        }
        IpAddr::V6(address) => write!(buffer, "{address}").expect("a Vec takes every write"),
    }
}

/// Writes timestamps such as `2026-11-21T04:40:51.007Z`; keeps the part that changes once a second.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// Seconds since 1970 that `text` stands for; `None` before the first.
    second: Option<u64>,
    /// Up to and including the seconds.
    text: Vec<u8>,
}

impl Clock {
    /// The time in quotes, to the millisecond, in UTC.
    pub(crate) fn write(&mut self, buffer: &mut Vec<u8>, now: SystemTime) {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            self.text.clear();
            seconds(&mut self.text, since.as_secs());
        }
        let millis = u64::from(since.subsec_millis());
        buffer.push(b'"');
        buffer.extend_from_slice(&self.text);
        buffer.extend_from_slice(&[
            b'.',
            digit(millis / 100),
            digit(millis / 10),
            digit(millis),
            b'Z',
            b'"',
        ]);
    }
}

/// Days to a date by the civil calendar: eras of 400 years that begin on the first of March.
fn seconds(buffer: &mut Vec<u8>, since: u64) {
    let days = since / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = year + era * 400 + carry;
    let (hour, minute, second) = (since / 3600 % 24, since / 60 % 60, since % 60);
    write!(
        buffer,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
    )
    .expect("a Vec takes every write");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut buffer = Vec::new();
        write(&mut buffer);
        String::from_utf8(buffer).expect("JSON is UTF-8")
    }

    /// HI-8.
    #[test]
    fn no_text_ends_a_line_or_reaches_a_terminal_s_controls() {
        let text = "a\"b\\c\r\nd\te\x1b[31m\x7f\u{9b}\u{2028}\u{202e}é";
        let line = written(|buffer| string(buffer, text.as_bytes()));
        assert!(
            !line
                .chars()
                .any(|letter| letter.is_control() || letter == '\u{2028}' || letter == '\u{202e}')
        );
        assert_eq!(
            serde_json::from_str::<String>(&line).expect("a JSON string"),
            text
        );
        let line = written(|buffer| string(buffer, b"a\xff\xc2\nb"));
        assert_eq!(
            serde_json::from_str::<String>(&line).expect("a JSON string"),
            "a\u{fffd}\u{fffd}\nb"
        );
    }

    #[test]
    fn numbers_and_addresses_are_written_in_full() {
        assert_eq!(written(|buffer| number(buffer, 0)), "0");
        assert_eq!(
            written(|buffer| number(buffer, u64::MAX)),
            u64::MAX.to_string()
        );
        assert_eq!(written(|buffer| thousandths(buffer, 12_034)), "12.034");
        assert_eq!(written(|buffer| hex(buffer, &[0, 0xaf])), "\"00af\"");
        for text in ["10.0.255.1", "2001:db8::1"] {
            let value = text.parse().expect("an address");
            assert_eq!(
                written(|buffer| address(buffer, value)),
                format!("\"{text}\"")
            );
        }
        for text in ["10.0.0.2:80", "[2001:db8::1]:65535"] {
            let value = text.parse().expect("a socket's address");
            assert_eq!(
                written(|buffer| socket(buffer, value)),
                format!("\"{text}\"")
            );
        }
        let mapped = "::ffff:10.0.0.1".parse().expect("an address");
        assert_eq!(written(|buffer| address(buffer, mapped)), "\"10.0.0.1\"");
    }

    #[test]
    fn timestamps_follow_the_calendar() {
        let mut clock = Clock::default();
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z"),
            (951_782_400_999, "2000-02-29T00:00:00.999Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_798_761_599_000, "2026-12-31T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            let now = UNIX_EPOCH + Duration::from_millis(millis);
            assert_eq!(
                written(|buffer| clock.write(buffer, now)),
                format!("\"{text}\"")
            );
        }
    }
}
