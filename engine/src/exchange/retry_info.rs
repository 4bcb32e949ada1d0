//! When to try again, in the words of gRPC: `google.rpc.RetryInfo` in `grpc-status-details-bin`, and the older
//! `grpc-retry-pushback-ms`. Three small messages, encoded by hand: nothing else of ours speaks protobuf.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::base64;

const TYPE: &[u8] = b"type.googleapis.com/google.rpc.RetryInfo";

/// Adds both fields.
pub(super) fn tell(headers: &mut HeaderMap, code: u8, message: &str, after: Duration) {
    // A client reads 32 bits (gRFC A6).
    let milliseconds = after.as_nanos().div_ceil(1_000_000).min(0x7fff_ffff);
    if let Ok(value) = HeaderValue::from_str(&milliseconds.to_string()) {
        headers.insert("grpc-retry-pushback-ms", value);
    }
    if let Ok(value) = HeaderValue::from_str(&base64::padded(&status(code, message, after))) {
        headers.insert("grpc-status-details-bin", value);
    }
}

/// `google.rpc.Status { code = 1, message = 2, details = 3: Any { type_url = 1, value = 2: RetryInfo {
/// retry_delay = 1: Duration { seconds = 1, nanos = 2 } } } }`
fn status(code: u8, message: &str, after: Duration) -> Vec<u8> {
    let mut delay = Vec::new();
    number(&mut delay, 1, after.as_secs());
    number(&mut delay, 2, after.subsec_nanos().into());
    let mut info = Vec::new();
    bytes(&mut info, 1, &delay);
    let mut any = Vec::new();
    bytes(&mut any, 1, TYPE);
    bytes(&mut any, 2, &info);
    let mut status = Vec::new();
    number(&mut status, 1, code.into());
    bytes(&mut status, 2, message.as_bytes());
    bytes(&mut status, 3, &any);
    status
}

/// A field of wire type 0; zero is left out, as protobuf has it.
fn number(out: &mut Vec<u8>, field: u8, value: u64) {
    if value > 0 {
        out.push(field << 3);
        varint(out, value);
    }
}

/// A field of wire type 2.
fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_what_protobuf_makes_of_it() {
        // As protoc 3 encodes it: code 8, message "m", RetryInfo of 300.5 s.
        let mut expected = vec![8, 8, 18, 1, b'm', 26, 55, 10, 40];
        expected.extend_from_slice(TYPE);
        expected.extend_from_slice(&[18, 11, 10, 9, 8, 0xac, 2, 16, 0x80, 0xca, 0xb5, 0xee, 1]);
        assert_eq!(status(8, "m", Duration::from_millis(300_500)), expected);
    }
}
