//! A connection to a collector, kept from message to message: gRPC over HTTP/2, or a POST over HTTP/1. What it answers is
//! read with bounds, and only for whether the message is to be sent once more (as OTLP's specification has it).

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;
use tollgate_config::document::{At, UpstreamTls};
use tollgate_config::{Traces, UpstreamProtocol};

use super::otlp::rejected;
use crate::exchange::{grpc_code, grpc_status};
use crate::net::connect::{DialTls, dial};
use crate::net::stream::Stream;
use crate::net::tls::ClientTls;
use crate::transcode::frames::{self, Frames};
use crate::upstream::discovery::resolve;

/// Bytes of an answer.
const LARGEST: usize = 64 * 1024;
/// Of its head, and what may be on its way to us.
const WINDOW: u32 = 64 * 1024;
const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const AGENT: &str = concat!("tollgate/", env!("CARGO_PKG_VERSION"));

/// Why a message was not taken, for operators.
#[derive(Debug)]
pub(super) enum Said {
    /// Once more may help.
    Away(String),
    /// It will never be taken.
    Refused(String),
}

impl Said {
    fn away(why: impl std::fmt::Display) -> Said {
        Said::Away(why.to_string())
    }
}

pub(super) struct Link {
    wire: Wire,
    url: String,
    host: String,
    /// What reads and writes the connection; ends with it.
    driving: AbortHandle,
}

enum Wire {
    Grpc(SendRequest<Bytes>),
    Http(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

impl Link {
    pub(super) async fn connect(traces: &Traces) -> Result<Link, Said> {
        let url = &traces.otlp.url;
        let stream = reach(traces).await.map_err(Said::Away)?;
        let scheme = if url.encrypted { "https" } else { "http" };
        let (wire, driving, path) = match traces.otlp.over_http {
            false => {
                let (sender, connection) = h2::client::Builder::new()
                    .initial_window_size(WINDOW)
                    .initial_connection_window_size(WINDOW)
                    .max_header_list_size(WINDOW)
                    .enable_push(false)
                    .handshake::<_, Bytes>(stream)
                    .await
                    .map_err(Said::away)?;
                // Whoever waits for a stream of it is told when it ends.
                let driving = tokio::task::spawn_local(async move { drop(connection.await) });
                (Wire::Grpc(sender), driving, METHOD)
            }
            true => {
                let handshake = hyper::client::conn::http1::Builder::new()
                    .max_buf_size(LARGEST)
                    .handshake(TokioIo::new(stream))
                    .await;
                let (sender, connection) = handshake.map_err(Said::away)?;
                let driving = tokio::task::spawn_local(async move { drop(connection.await) });
                (Wire::Http(sender), driving, url.path.as_str())
            }
        };
        Ok(Link {
            url: match &wire {
                Wire::Grpc(_) => format!("{scheme}://{}{path}", url.address),
                Wire::Http(_) => path.to_owned(),
            },
            wire,
            host: url.address.clone(),
            driving: driving.abort_handle(),
        })
    }

    /// How many of the message's spans were rejected.
    pub(super) async fn tell(&mut self, message: &[u8]) -> Result<usize, Said> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header(header::USER_AGENT, AGENT);
        match &mut self.wire {
            Wire::Grpc(sender) => {
                let request = request
                    .header(header::CONTENT_TYPE, "application/grpc")
                    .header(header::TE, "trailers")
                    .body(())
                    .map_err(Said::away)?;
                call(sender, request, message).await
            }
            Wire::Http(sender) => {
                let request = request
                    .header(header::HOST, &self.host)
                    .header(header::CONTENT_TYPE, "application/x-protobuf")
                    .body(Full::new(Bytes::copy_from_slice(message)))
                    .map_err(Said::away)?;
                post(sender, request).await
            }
        }
    }
}

async fn reach(traces: &Traces) -> Result<Stream, String> {
    let url = &traces.otlp.url;
    let address = resolve(&url.address).await?;
    let tls = match url.encrypted {
        false => None,
        true => {
            // Read at every connection: a renewed authority needs no restart.
            let tls = UpstreamTls {
                ca: traces.ca.clone(),
                name: None,
                cert: None,
                key: None,
                at: At(None),
            };
            let protocol = match traces.otlp.over_http {
                false => UpstreamProtocol::Http2,
                true => UpstreamProtocol::Http1,
            };
            let tls = ClientTls::load(&tls, protocol).map_err(|error| error.to_string())?;
            Some(DialTls::of(&tls, &url.address).map_err(|error| error.to_string())?)
        }
    };
    let (stream, _) = { dial(address, tls.as_ref()).await }.map_err(|error| error.to_string())?;
    Ok(stream)
}

async fn call(
    sender: &mut SendRequest<Bytes>,
    request: Request<()>,
    message: &[u8],
) -> Result<usize, Said> {
    let mut ready = sender.clone().ready().await.map_err(Said::away)?;
    let (answer, mut body) = ready.send_request(request, false).map_err(Said::away)?;
    let mut frame = Vec::with_capacity(message.len() + frames::HEAD);
    let begun = frames::begin(&mut frame);
    frame.extend_from_slice(message);
    frames::finish(&mut frame, begun);
    body.send_data(frame.into(), true).map_err(Said::away)?;
    let (head, mut body) = answer.await.map_err(Said::away)?.into_parts();
    if head.status != StatusCode::OK {
        return Err(by_status(head.status));
    }
    if head.headers.contains_key("grpc-status") {
        return ended(&head.headers, 0);
    }
    let (mut frames, mut count, mut read) = (Frames::new(LARGEST), 0, 0);
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(Said::away)?;
        let taken = body.flow_control().release_capacity(piece.len());
        taken.map_err(Said::away)?;
        read += piece.len();
        if read > LARGEST {
            return Err(Said::away("its answer is too large"));
        }
        frames.push(piece);
        while let Some(message) = { frames.next() }.map_err(|error| Said::away(error.words()))? {
            count = rejected(&message);
        }
    }
    let trailers = body.trailers().await.map_err(Said::away)?;
    ended(&trailers.unwrap_or_default(), count)
}

/// By how the call ended.
fn ended(headers: &HeaderMap, rejected: usize) -> Result<usize, Said> {
    let Some(status) = grpc_status(headers) else {
        return Err(Said::away("the call ended without a status"));
    };
    let message = headers.get("grpc-message");
    let message = message.and_then(|message| message.to_str().ok());
    let words = format!(
        "grpc-status {status}, {}",
        message.map_or("without a message", shortened)
    );
    match status {
        grpc_code::OK => Ok(rejected),
        grpc_code::CANCELLED
        | grpc_code::DEADLINE_EXCEEDED
        | grpc_code::RESOURCE_EXHAUSTED
        | grpc_code::ABORTED
        | grpc_code::OUT_OF_RANGE
        | grpc_code::UNAVAILABLE
        | grpc_code::DATA_LOSS => Err(Said::Away(words)),
        _ => Err(Said::Refused(words)),
    }
}

fn shortened(text: &str) -> &str {
    text.get(..text.floor_char_boundary(120)).unwrap_or("")
}

fn by_status(status: StatusCode) -> Said {
    let words = format!("HTTP {}", status.as_u16());
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Said::Away(words),
        _ => Said::Refused(words),
    }
}

async fn post(
    sender: &mut hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<usize, Said> {
    sender.ready().await.map_err(Said::away)?;
    let answer = sender.send_request(request).await.map_err(Said::away)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LARGEST).collect().await;
    let body = body.map_err(Said::away)?.to_bytes();
    match status.is_success() {
        true => Ok(rejected(&body)),
        false => Err(by_status(status)),
    }
}
