//! `x-request-id`: one word that names a request in every log line and in error answers (OBS-111).
//!
//! A caller's id is taken over when it is harmless wherever it will be printed; otherwise one is made from the
//! caller's generator. It is a name, not a secret.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::exchange::trace::write_hex;

const NAME: HeaderName = HeaderName::from_static("x-request-id");
const LENGTH: usize = 128;

/// 1 to 128 characters that need no escape in a header, in JSON or in a shell's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The caller's id if it sent exactly one and it is valid, otherwise 32 hexadecimal digits.
    pub fn from_headers(headers: &HeaderMap, random: impl FnMut() -> u64) -> Self {
        let mut lines = headers.get_all(&NAME).iter();
        if let (Some(line), None) = (lines.next(), lines.next())
            && is_valid(line.as_bytes())
        {
            return RequestId(line.clone());
        }
        Self::make(random)
    }

    /// 32 hexadecimal digits.
    pub fn make(mut random: impl FnMut() -> u64) -> Self {
        let id = (u128::from(random()) << 64) | u128::from(random());
        let mut text = [0; 32];
        write_hex(&id.to_be_bytes(), &mut text);
        RequestId(
            HeaderValue::from_maybe_shared(Bytes::copy_from_slice(&text))
                .expect("digits are a valid value"),
        )
    }

    pub fn as_str(&self) -> &str {
        self.0
            .to_str()
            .expect("checked or made of visible characters")
    }

    /// Sets the header, in place of any that are there.
    pub fn write_into(&self, headers: &mut HeaderMap) {
        headers.insert(NAME, self.0.clone());
    }
}

fn is_valid(id: &[u8]) -> bool {
    (1..=LENGTH).contains(&id.len())
        && id
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~:/+=@#!$*,;|".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(values: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                NAME,
                HeaderValue::from_bytes(value.as_bytes()).expect("a value"),
            );
        }
        let id = RequestId::from_headers(&headers, || 0x0123_4567_89ab_cdef);
        id.write_into(&mut headers);
        assert_eq!(headers.get_all(NAME).iter().count(), 1);
        assert_eq!(headers[NAME], id.as_str());
        id.as_str().to_owned()
    }

    const NEW: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_valid_id_is_taken_over() {
        for id in [
            "a",
            "3f2c9c1e-8a7b-4c55-9d3b-0a1b2c3d4e5f",
            "Root=1-67891233-abcdef012345678912345678",
        ] {
            assert_eq!(made(&[id]), id);
        }
        assert_eq!(made(&[&"x".repeat(128)]), "x".repeat(128));
    }

    /// OBS-111: length and characters are checked.
    #[test]
    fn an_id_that_is_absent_doubled_too_long_or_could_harm_a_log_is_replaced() {
        assert_eq!(made(&[]), NEW);
        assert_eq!(made(&["a", "b"]), NEW);
        for id in [
            "",
            "a b",
            "a\tb",
            "a\"b",
            "a\\b",
            "<a>",
            "{{a}}",
            "ä",
            &"x".repeat(129),
        ] {
            assert_eq!(made(&[id]), NEW, "{id:?}");
        }
    }
}
