//! The chunked coding (RFC 9112 section 7.1), read strictly and bounded.
//!
//! A pure state machine over bytes that have arrived. Extensions are checked and dropped, never forwarded; trailers
//! that could change how a message is framed, routed or trusted are dropped.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use memchr::memchr;

use super::head::parse_field;

/// Longest chunk-size line with its extension.
const MAX_SIZE_LINE: usize = 256 + 18;
/// All extensions of one body together.
const MAX_EXTENSIONS: usize = 16 * 1024;
const MAX_TRAILERS: usize = 16 * 1024;
const MAX_TRAILER_FIELDS: usize = 64;

/// Where we are inside a chunked body.
#[derive(Debug, Default)]
pub struct Chunked {
    state: State,
    extensions: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    /// Bytes of the chunk still to come; never zero.
    Data(u64),
    DataEnd,
    Trailers,
}

/// What came out of the bytes at hand.
#[derive(Debug)]
pub enum Item {
    /// More bytes are needed.
    Wait,
    Data(Bytes),
    /// The body is complete.
    End(Option<HeaderMap>),
}

/// The coding is broken; nothing behind this point can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl Chunked {
    /// Takes what it can from `bytes`.
    pub fn decode(&mut self, bytes: &mut BytesMut) -> Result<Item, Malformed> {
        loop {
            match self.state {
                State::Size => {
                    let Some(end) = memchr(b'\n', bytes) else {
                        // One more than the line may have: its CR has come, its LF has not.
                        return if bytes.len() > MAX_SIZE_LINE + 1 || !starts_like_a_size(bytes) {
                            Err(Malformed)
                        } else {
                            Ok(Item::Wait)
                        };
                    };
                    let line = bytes
                        .get(..end)
                        .and_then(|line| line.strip_suffix(b"\r"))
                        .ok_or(Malformed)?;
                    let (size, extension) = size_line(line)?;
                    self.extensions += extension;
                    if self.extensions > MAX_EXTENSIONS {
                        return Err(Malformed);
                    }
                    bytes.advance(end + 1);
                    self.state = if size == 0 {
                        State::Trailers
                    } else {
                        State::Data(size)
                    };
                }
                State::Data(left) => {
                    if bytes.is_empty() {
                        return Ok(Item::Wait);
                    }
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let data = bytes.split_to(take).freeze();
                    let left = left - take as u64;
                    self.state = if left == 0 {
                        State::DataEnd
                    } else {
                        State::Data(left)
                    };
                    return Ok(Item::Data(data));
                }
                State::DataEnd => match bytes.as_ref() {
                    [b'\r', b'\n', ..] => {
                        bytes.advance(2);
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok(Item::Wait),
                    _ => return Err(Malformed),
                },
                State::Trailers => return trailers(bytes),
            }
        }
    }

    /// Bytes that are known to follow as data, for choosing a read size.
    pub fn expected(&self) -> u64 {
        match self.state {
            State::Data(left) => left,
            _ => 0,
        }
    }
}

fn starts_like_a_size(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(u8::is_ascii_hexdigit)
}

/// The size, and how many bytes of extension followed it.
fn size_line(line: &[u8]) -> Result<(u64, usize), Malformed> {
    if line.len() > MAX_SIZE_LINE {
        return Err(Malformed);
    }
    let digits = line
        .iter()
        .position(|b| !b.is_ascii_hexdigit())
        .unwrap_or(line.len());
    let (number, extension) = line.split_at(digits);
    if number.is_empty() || number.len() > 16 {
        return Err(Malformed);
    }
    let size = number.iter().try_fold(0u64, |sum, digit| {
        let digit = (*digit as char).to_digit(16)?;
        sum.checked_mul(16)?.checked_add(u64::from(digit))
    });
    let size = size.filter(|size| *size < 1 << 63).ok_or(Malformed)?;
    let well_formed = extension.is_empty()
        || extension[0] == b';' && extension.iter().all(|b| (0x20..0x7f).contains(b));
    if well_formed {
        Ok((size, extension.len()))
    } else {
        Err(Malformed)
    }
}

fn trailers(bytes: &mut BytesMut) -> Result<Item, Malformed> {
    if bytes.starts_with(b"\r\n") {
        bytes.advance(2);
        return Ok(Item::End(None));
    }
    let Some(end) = super::head::end_of_head(bytes, 0) else {
        let mut bare = bytes.iter().enumerate().filter(|(_, b)| **b == b'\n');
        let torn = bare.any(|(at, _)| at == 0 || bytes[at - 1] != b'\r');
        return if torn || bytes.len() > MAX_TRAILERS {
            Err(Malformed)
        } else {
            Ok(Item::Wait)
        };
    };
    if end > MAX_TRAILERS {
        return Err(Malformed);
    }
    let block = bytes.split_to(end);
    let mut fields = HeaderMap::new();
    // Every line but the last, which is empty, ends in CR LF and in nothing less.
    let lines = block.get(..end - 3).unwrap_or_default();
    for (count, line) in lines.split(|b| *b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").ok_or(Malformed)?;
        if count == MAX_TRAILER_FIELDS {
            return Err(Malformed);
        }
        let (name, value) = parse_field(line).map_err(|_| Malformed)?;
        let value = HeaderValue::from_bytes(value).map_err(|_| Malformed)?;
        if may_be_trailer(name.as_str()) {
            fields.append(name, value);
        }
    }
    Ok(Item::End((!fields.is_empty()).then_some(fields)))
}

/// RFC 9110 section 6.5.1: nothing that frames, routes, authenticates or modifies may come after the body.
pub fn may_be_trailer(name: &str) -> bool {
    !matches!(
        name,
        "content-length"
            | "transfer-encoding"
            | "trailer"
            | "te"
            | "host"
            | "connection"
            | "keep-alive"
            | "upgrade"
            | "expect"
            | "content-type"
            | "content-encoding"
            | "content-range"
            | "authorization"
            | "proxy-authorization"
            | "proxy-authenticate"
            | "proxy-connection"
            | "www-authenticate"
            | "cookie"
            | "set-cookie"
            | "cache-control"
            | "max-forwards"
            | "range"
            | "forwarded"
            | "via"
            | "traceparent"
            | "tracestate"
            | "x-request-id"
    ) && !name.starts_with("x-forwarded-")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes a whole body, fed in pieces of `step` bytes.
    fn decode(text: &[u8], step: usize) -> Result<(Vec<u8>, Option<HeaderMap>, usize), Malformed> {
        let mut chunked = Chunked::default();
        let (mut buffer, mut body) = (BytesMut::new(), Vec::new());
        for piece in text.chunks(step) {
            buffer.extend_from_slice(piece);
            loop {
                match chunked.decode(&mut buffer)? {
                    Item::Wait => break,
                    Item::Data(data) => body.extend_from_slice(&data),
                    Item::End(trailers) => return Ok((body, trailers, buffer.len())),
                }
            }
        }
        Err(Malformed)
    }

    #[test]
    fn a_body_is_the_same_however_it_is_cut() {
        let text = b"5;a=\"b\"\r\nhello\r\n1\r\n!\r\n0\r\nx-sum: 1\r\nHost: evil\r\n\r\n";
        for step in 1..text.len() {
            let (body, trailers, _) = decode(text, step).expect("valid");
            assert_eq!(body, b"hello!");
            let trailers = trailers.expect("one trailer");
            assert_eq!(trailers["x-sum"], "1");
            assert!(!trailers.contains_key("host"), "HI-12");
        }
    }

    /// HI-9, HI-10, HI-11.
    #[test]
    fn every_malformed_chunk_is_refused() {
        for text in [
            "+5\r\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "5_\r\nhello\r\n0\r\n\r\n",
            " 5\r\nhello\r\n0\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            "\r\nhello",
            "10000000000000000\r\n",
            "ffffffffffffffff\r\n",
            "5\r\nhelloXX0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5\r\nhello\r0\r\n\r\n",
            "5;a=\x01\r\nhello\r\n0\r\n\r\n",
            "5;a=\"\r\"\r\nhello\r\n0\r\n\r\n",
            "0\r\nbad name: 1\r\n\r\n",
            "0\r\nx: 1\n\r\n",
            "0\r\nx: 1\ny: 2\r\n\r\n",
        ] {
            for step in [1, 3, 1000] {
                assert!(decode(text.as_bytes(), step).is_err(), "{text:?}");
            }
        }
        let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(400));
        assert!(decode(long.as_bytes(), 1000).is_err());
        let many = format!(
            "{}0\r\n\r\n",
            format!("1;{}\r\nx\r\n", "a".repeat(200)).repeat(100)
        );
        assert!(decode(many.as_bytes(), 1000).is_err());
    }
}
