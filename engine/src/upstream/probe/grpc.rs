//! The gRPC probe: `grpc.health.v1.Health/Check`, and SERVING is well. Its two messages have one field each, so they
//! are written and read by hand; what an endpoint sends is bounded and never trusted.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::http::{AGENT, alongside};
use super::{AsyncReadWrite, broken, unwritable};

/// An answer needs seven bytes.
const LONGEST_ANSWER: usize = 4096;

pub(super) async fn check(
    stream: Box<dyn AsyncReadWrite>,
    authority: &str,
    service: &str,
) -> Result<(), String> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, AGENT)
        .body(Full::new(question(service)))
        .map_err(unwritable)?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(broken)?;
    alongside(connection, async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let (head, mut body) = response.into_parts();
        if !head.status.is_success() {
            return Err(format!("answered {}", head.status.as_u16()));
        }
        let (answer, trailers) = read(&mut body).await?;
        match grpc_status(&trailers).or_else(|| grpc_status(&head.headers)) {
            Some("0") => judge(&answer),
            Some(code) => Err(format!("answered grpc-status {code}")),
            None => Err("answered without grpc-status".into()),
        }
    })
    .await
}

async fn read(body: &mut Incoming) -> Result<(BytesMut, HeaderMap), String> {
    let mut answer = BytesMut::new();
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.frame().await {
        match frame.map_err(broken)?.into_data() {
            Ok(data) if answer.len() + data.len() > LONGEST_ANSWER => {
                return Err("the answer is too long".into());
            }
            Ok(data) => answer.put(data),
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    Ok((answer, trailers))
}

fn grpc_status(headers: &HeaderMap) -> Option<&str> {
    headers.get("grpc-status")?.to_str().ok()
}

/// `HealthCheckRequest { string service = 1 }` with the five bytes that precede every message: not compressed, length.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        put_varint(&mut message, service.len());
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put(message);
    framed.freeze()
}

fn put_varint(to: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        to.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    to.put_u8(value as u8);
}

fn judge(answer: &[u8]) -> Result<(), String> {
    match serving_status(answer) {
        Some(1) => Ok(()),
        Some(0) => Err("answered UNKNOWN".into()),
        Some(2) => Err("answered NOT_SERVING".into()),
        Some(3) => Err("answered SERVICE_UNKNOWN".into()),
        _ => Err("the answer is no HealthCheckResponse".into()),
    }
}

/// The status in `HealthCheckResponse { ServingStatus status = 1 }`; absent means 0. Unknown fields are skipped, and
/// anything malformed is `None`.
fn serving_status(framed: &[u8]) -> Option<u64> {
    let (&compressed, rest) = framed.split_first()?;
    let (length, mut message) = rest.split_first_chunk::<4>()?;
    if compressed != 0 || u32::from_be_bytes(*length) as usize != message.len() {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let tag = take_varint(&mut message)?;
        match tag & 7 {
            0 => {
                let value = take_varint(&mut message)?;
                if tag >> 3 == 1 {
                    status = value;
                }
            }
            1 => message = message.get(8..)?,
            2 => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_question_names_the_service() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = question(&"s".repeat(300));
        assert_eq!(&long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn the_status_is_found_among_unknown_fields() {
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(serving_status(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(
            serving_status(&[0, 0, 0, 0, 6, 0x12, 2, 9, 9, 8, 2]),
            Some(2)
        );
        assert_eq!(
            serving_status(&[0, 0, 0, 0, 3, 8, 1]),
            None,
            "shorter than it says"
        );
        assert_eq!(serving_status(&[1, 0, 0, 0, 2, 8, 1]), None, "compressed");
    }

    proptest! {
        #[test]
        fn no_answer_of_any_bytes_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..40), framed: bool) {
            if framed && bytes.len() >= 5 {
                let length = (bytes.len() - 5) as u8;
                bytes[..5].copy_from_slice(&[0, 0, 0, 0, length]);
            }
            drop(judge(&bytes));
        }
    }
}
