//! An upgrade over a stream of an HTTP/2 lane: extended CONNECT (RFC 8441), as members of a mesh pass WebSockets on.
//!
//! Whoever asked is told 101 when the endpoint agreed, as an HTTP/1 endpoint says it, with the proof that a WebSocket's
//! client waits for: HTTP/2 has neither key nor proof. An endpoint that cannot is not asked.

use aws_lc_rs::digest;
use h2::ext::Protocol;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::http2::{head_of, open, response_of, unanswered, unsent};
use super::{Failure, Sent};
use crate::exchange::body::Body;
use crate::exchange::error::{Code, Error};
use crate::exchange::headers::Sender;
use crate::exchange::{Request, Response, base64};
use crate::http1::head::is_token;
use crate::proxy::tunnel::End;
use crate::upstream::pool::Place;

/// What makes a proof of a key (RFC 6455 section 1.3).
const PROOF: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const WEBSOCKET: &str = "websocket";

pub(in crate::proxy) async fn over_extended(
    place: Place,
    secure: bool,
    sender: &Sender<'_>,
    request: &Request,
) -> Result<Sent, Failure> {
    let protocol = protocol(request).ok_or_else(|| refused("it asks for no one protocol"))?;
    if !place
        .takes_upgrades()
        .await
        .map_err(|error| unsent(&error))?
    {
        return Err(refused(
            "the endpoint speaks HTTP/2 and does not offer extended CONNECT (RFC 8441)",
        ));
    }
    let mut head = head_of(request, secure, sender)?;
    *head.method_mut() = Method::CONNECT;
    head.headers_mut().remove(header::SEC_WEBSOCKET_KEY);
    head.extensions_mut().insert(Protocol::from(&*protocol));
    let (answer, mut send) = open(&place, head, false).await?;
    let answer = answer.await.map_err(|error| unanswered(&place, &error))?;
    if !answer.status().is_success() {
        // It reads no more of us; should its stream have ended already, nobody needs to be told.
        let _ended = send.send_data(bytes::Bytes::new(), true);
        return Ok(Sent {
            response: response_of(answer, place),
            pump: None,
            tunnel: None,
            waited: None,
        });
    }
    let (parts, receive) = answer.into_parts();
    Ok(Sent {
        response: switched(parts.headers, &protocol, request),
        pump: None,
        tunnel: Some(End::Stream {
            receive,
            send,
            place: Some(place),
        }),
        waited: None,
    })
}

fn refused(why: &str) -> Failure {
    Failure::refused(Error::because(Code::UpgradeRefused, why))
}

/// What is asked for, as `:protocol` names it: of several the first, which the client likes best.
fn protocol(request: &Request) -> Option<String> {
    let first = request.upgrade.as_deref()?.split(',').next()?.trim();
    if first.eq_ignore_ascii_case(WEBSOCKET) {
        return Some(WEBSOCKET.to_owned());
    }
    (!first.is_empty() && first.bytes().all(is_token)).then(|| first.to_owned())
}

/// The answer of an endpoint that agreed, as HTTP/1 says it.
fn switched(mut headers: HeaderMap, protocol: &str, request: &Request) -> Response {
    let key = request.headers.get(header::SEC_WEBSOCKET_KEY);
    if let Some(key) = key.filter(|_| protocol == WEBSOCKET)
        && let Ok(proof) = HeaderValue::from_str(&proof(key.as_bytes()))
    {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, proof);
    }
    if let Ok(protocol) = HeaderValue::from_str(protocol) {
        headers.insert(header::UPGRADE, protocol);
    }
    let mut response = Response::new(StatusCode::SWITCHING_PROTOCOLS, headers, Body::Empty);
    response.is_http1 = true;
    response
}

fn proof(key: &[u8]) -> String {
    let text = [key, PROOF].concat();
    base64::padded(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &text).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_proved_as_rfc_6455_shows_it() {
        assert_eq!(
            proof(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn of_several_protocols_the_first_is_asked_for_and_a_websocket_in_small_letters() {
        for (asked, named) in [
            ("WebSocket", Some("websocket")),
            ("websocket, other", Some("websocket")),
            ("other", Some("other")),
            ("other/1", None),
            (" , websocket", None),
        ] {
            let mut request = Request::for_bytes();
            request.upgrade = Some(asked.to_owned());
            assert_eq!(protocol(&request).as_deref(), named, "{asked}");
        }
    }
}
