//! An HTTP/2 client with manners, for tests: the `h2` crate, whole answers, and a hard limit on everything.
//!
//! Tests of HTTP/2 are plain functions that call `run` once; inside it they may await. What no honest client would
//! send is in `h2_raw`; the upstream is in `http2`.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use tokio::net::TcpStream;

use super::PATIENCE;

/// Runs a client's part of a test on a runtime of its own, under a hard limit.
pub fn run<F: Future>(part: F) -> F::Output {
    runtime().block_on(async {
        let limit = PATIENCE * 2;
        tokio::time::timeout(limit, part)
            .await
            .unwrap_or_else(|_| panic!("not done after {limit:?}"))
    })
}

pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be built")
}

/// An HTTP/2 connection whose driver runs on the current runtime until the handle is dropped.
pub async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address)
        .await
        .expect("the gateway accepts");
    stream
        .set_nodelay(true)
        .expect("a connected socket takes options");
    connect_on(stream).await
}

/// The same on a stream that is already there, such as one of TLS.
pub async fn connect_on<S>(stream: S) -> SendRequest<Bytes>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = h2::client::handshake(stream)
        .await
        .expect("the gateway speaks HTTP/2");
    tokio::spawn(async move {
        let _ended = connection.await;
    });
    sender.ready().await.expect("the connection is fresh")
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().expect("test headers are text"))
    }

    /// From the trailers, or from the head of a trailers-only answer.
    pub fn grpc_status(&self) -> Option<&str> {
        let value = self
            .trailers
            .as_ref()
            .and_then(|trailers| trailers.get("grpc-status"));
        value
            .or_else(|| self.headers.get("grpc-status"))
            .map(|value| value.to_str().expect("a number"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The stable word of one of the gateway's own answers.
    pub fn code(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let problem: serde_json::Value =
            serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        problem["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// A request of this method to `http://test.example` and the path, with these headers.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let builder = Request::builder()
        .method(method)
        .uri(format!("http://test.example{path}"));
    let builder = headers.iter().fold(builder, |builder, (name, value)| {
        builder.header(*name, *value)
    });
    builder.body(()).expect("a valid request")
}

/// Sends a request with a body in these pieces and maybe trailers, and reads the whole answer.
pub async fn exchange(
    sender: &SendRequest<Bytes>,
    request: Request<()>,
    pieces: &[&[u8]],
    trailers: Option<HeaderMap>,
) -> Result<Answer, h2::Error> {
    let mut sender = sender.clone().ready().await?;
    let ends = pieces.is_empty() && trailers.is_none();
    let (response, mut send) = sender.send_request(request, ends)?;
    for (index, piece) in pieces.iter().enumerate() {
        let last = index + 1 == pieces.len() && trailers.is_none();
        send.send_data(Bytes::copy_from_slice(piece), last)?;
    }
    if let Some(trailers) = trailers {
        send.send_trailers(trailers)?;
    }
    read_answer(response.await?).await
}

/// A request without a body.
pub async fn get(sender: &SendRequest<Bytes>, path: &str) -> Result<Answer, h2::Error> {
    exchange(sender, request("GET", path, &[]), &[], None).await
}

pub async fn read_answer(response: Response<RecvStream>) -> Result<Answer, h2::Error> {
    let (parts, mut stream) = response.into_parts();
    let mut body = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece?;
        stream.flow_control().release_capacity(piece.len())?;
        body.extend_from_slice(&piece);
    }
    let trailers = stream.trailers().await?;
    Ok(Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body,
        trailers,
    })
}

/// The next piece of a stream, within the usual patience.
pub async fn piece(stream: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let piece = tokio::time::timeout(PATIENCE, stream.data())
        .await
        .expect("a piece comes in time");
    if let Some(Ok(piece)) = &piece {
        let _released = stream.flow_control().release_capacity(piece.len());
    }
    piece
}

/// Lets the runtime work until this holds; the limit is that of `run`.
pub async fn poll_until(holds: impl Fn() -> bool) {
    let mut turn = tokio::time::interval(Duration::from_millis(1));
    while !holds() {
        poll_fn(|cx| turn.poll_tick(cx)).await;
    }
}

/// One gRPC message with its five bytes in front.
pub fn message(payload: &[u8]) -> Vec<u8> {
    let mut framed = vec![0];
    framed.extend((payload.len() as u32).to_be_bytes());
    framed.extend_from_slice(payload);
    framed
}

/// How long a cancelled call may take to reach the upstream (HI-51).
pub const CANCEL_LIMIT: Duration = Duration::from_millis(100);
