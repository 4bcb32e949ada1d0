//! HTTP/1.1 as the generator speaks it: one write for a request, a small strict reading of the answer, two socket calls a
//! request when the answer is small.
//!
//! It understands `content-length`, `chunked` and an end by close; anything else is a protocol failure, counted.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::chunks::Chunks;
use super::{Plan, Shared};
use crate::summary::Failure;

/// A byte stream, clear or TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite {}
impl<T: AsyncRead + AsyncWrite> Stream for T {}

pub(super) type Connection = Pin<Box<dyn Stream>>;

/// After a refused connection, so that a dead server is asked a hundred times a second and not a hundred thousand times.
const AFTER_REFUSAL: Duration = Duration::from_millis(10);

async fn connect(shared: &Shared) -> io::Result<Connection> {
    let stream = TcpStream::connect(shared.plan.to).await?;
    stream.set_nodelay(true)?;
    Ok(match &shared.connector {
        None => Box::pin(stream),
        Some(connector) => {
            Box::pin(super::http2::secured(connector, stream, &shared.plan.host).await?)
        }
    })
}

/// The bytes of each path's request.
fn requests(plan: &Plan, close: bool) -> Vec<Vec<u8>> {
    let mut rest = format!("host: {}\r\n", plan.host);
    for (name, value) in &plan.headers {
        rest.push_str(&format!("{name}: {value}\r\n"));
    }
    if close {
        rest.push_str("connection: close\r\n");
    }
    plan.paths
        .iter()
        .map(|path| format!("GET {path} HTTP/1.1\r\n{rest}\r\n").into_bytes())
        .collect()
}

/// Keeps one connection busy until the run is over.
pub(super) async fn keep_alive(shared: Rc<Shared>, number: usize) {
    let requests = requests(&shared.plan, false);
    let mut next = number;
    let mut buffer = Buffer::default();
    let mut open: Option<Connection> = None;
    while let Some(ticket) = shared.next().await {
        let fresh = open.is_none();
        let mut stream = match open.take() {
            Some(stream) => stream,
            None => match connect(&shared).await {
                Ok(stream) => stream,
                Err(_) => {
                    shared.failed(Failure::Connect);
                    drop(ticket);
                    tokio::time::sleep(AFTER_REFUSAL).await;
                    continue;
                }
            },
        };
        let request = &requests[next % requests.len()];
        next += 1;
        let mut answer = exchange(&mut stream, request, &mut buffer).await;
        if !fresh && matches!(answer, Err(Broken::Unanswered)) {
            // The server may close an idle connection at any moment, and a client tries again on a fresh one.
            shared.recorder.borrow_mut().reconnected();
            match connect(&shared).await {
                Ok(again) => stream = again,
                Err(_) => {
                    shared.failed(Failure::Connect);
                    continue;
                }
            }
            answer = exchange(&mut stream, request, &mut buffer).await;
        }
        match answer {
            Ok(answer) => {
                shared.answered(answer.status, answer.body, ticket.from.elapsed());
                if !answer.close {
                    open = Some(stream);
                }
            }
            Err(broken) => shared.failed(broken.failure()),
        }
    }
}

/// Opens a connection for every request until the run is over. The server closes first, as `connection: close` asks, so
/// that no port of this side is kept waiting.
pub(super) async fn new_connections(shared: Rc<Shared>, number: usize) {
    let requests = requests(&shared.plan, true);
    let mut next = number;
    let mut buffer = Buffer::default();
    while let Some(ticket) = shared.next().await {
        let request = &requests[next % requests.len()];
        next += 1;
        let Ok(mut stream) = connect(&shared).await else {
            shared.failed(Failure::Connect);
            drop(ticket);
            tokio::time::sleep(AFTER_REFUSAL).await;
            continue;
        };
        match exchange(&mut stream, request, &mut buffer).await {
            Ok(answer) => {
                shared.answered(answer.status, answer.body, ticket.from.elapsed());
                let mut end = [0u8; 64];
                // Whatever comes after a complete answer is the close that was asked for.
                drop(stream.read(&mut end).await);
            }
            Err(broken) => shared.failed(broken.failure()),
        }
    }
}

/// An answer that is complete.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: usize,
    pub(super) close: bool,
}

/// How an exchange can end without one.
#[derive(Debug)]
pub(super) enum Broken {
    /// The connection ended before a byte of the answer.
    Unanswered,
    Closed,
    Protocol,
}

impl Broken {
    pub(super) fn failure(&self) -> Failure {
        match self {
            Broken::Unanswered | Broken::Closed => Failure::Closed,
            Broken::Protocol => Failure::Protocol,
        }
    }
}

/// Where an answer is read into, used again for the next.
pub(super) struct Buffer {
    pub(super) bytes: Vec<u8>,
    /// Keep the head's and the body's bytes, too.
    pub(super) keep: bool,
    pub(super) head: Vec<u8>,
    pub(super) kept: Vec<u8>,
}

impl Default for Buffer {
    fn default() -> Self {
        // A socket buffer of a large body is emptied with few calls; a small answer is one call either way.
        Buffer {
            bytes: vec![0; 64 << 10],
            keep: false,
            head: Vec::new(),
            kept: Vec::new(),
        }
    }
}

pub(super) async fn exchange(
    stream: &mut Connection,
    request: &[u8],
    buffer: &mut Buffer,
) -> Result<Answer, Broken> {
    stream
        .write_all(request)
        .await
        .map_err(|_| Broken::Unanswered)?;
    stream.flush().await.map_err(|_| Broken::Unanswered)?;
    read_answer(stream, buffer).await
}

enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

async fn read_answer(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Buffer,
) -> Result<Answer, Broken> {
    let mut filled = 0;
    let (head, status, framing, close) = loop {
        let read = match stream.read(&mut buffer.bytes[filled..]).await {
            Ok(0) | Err(_) if filled == 0 => return Err(Broken::Unanswered),
            Ok(0) | Err(_) => return Err(Broken::Closed),
            Ok(read) => read,
        };
        filled += read;
        match parse_head(&buffer.bytes[..filled])? {
            Some(head) => break head,
            None if filled == buffer.bytes.len() => return Err(Broken::Protocol),
            None => {}
        }
    };
    if buffer.keep {
        buffer.head = buffer.bytes[..head].to_vec();
        buffer.kept.clear();
    }
    let mut answer = Answer {
        status,
        body: 0,
        close,
    };
    let mut chunks = Chunks::default();
    let mut from = head;
    loop {
        let piece = &buffer.bytes[from..filled];
        let done = match framing {
            Framing::Length(length) => {
                answer.body += piece.len();
                if answer.body > length {
                    return Err(Broken::Protocol);
                }
                if buffer.keep {
                    buffer.kept.extend_from_slice(piece);
                }
                answer.body == length
            }
            Framing::Chunked => {
                let done = chunks.feed(piece, buffer.keep.then_some(&mut buffer.kept))?;
                answer.body = chunks.body;
                done
            }
            Framing::UntilClose => {
                answer.body += piece.len();
                if buffer.keep {
                    buffer.kept.extend_from_slice(piece);
                }
                false
            }
        };
        if done {
            return Ok(answer);
        }
        from = 0;
        filled = match stream.read(&mut buffer.bytes).await {
            Ok(0) if matches!(framing, Framing::UntilClose) => {
                answer.close = true;
                return Ok(answer);
            }
            Ok(0) | Err(_) => return Err(Broken::Closed),
            Ok(read) => read,
        };
    }
}

type Head = (usize, u16, Framing, bool);

fn parse_head(bytes: &[u8]) -> Result<Option<Head>, Broken> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Broken::Protocol),
    };
    let status = response.code.ok_or(Broken::Protocol)?;
    let mut framing = if matches!(status, 204 | 304) {
        Framing::Length(0)
    } else {
        Framing::UntilClose
    };
    let mut close = false;
    for header in response.headers.iter() {
        let value = header.value;
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(value).map_err(|_| Broken::Protocol)?;
            framing = Framing::Length(text.trim().parse().map_err(|_| Broken::Protocol)?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            framing = if value.eq_ignore_ascii_case(b"chunked") {
                Framing::Chunked
            } else {
                return Err(Broken::Protocol);
            };
        } else if header.name.eq_ignore_ascii_case("connection") {
            close = value.eq_ignore_ascii_case(b"close");
        }
    }
    Ok(Some((head, status, framing, close)))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answer(bytes: &'static [u8]) -> Result<(u16, usize, bool, Vec<u8>), Broken> {
        let mut buffer = Buffer {
            keep: true,
            ..Buffer::default()
        };
        let mut reader = tokio::io::BufReader::with_capacity(3, bytes);
        let answer = read_answer(&mut reader, &mut buffer).await?;
        Ok((answer.status, answer.body, answer.close, buffer.kept))
    }

    #[tokio::test]
    async fn answers_are_read_in_each_framing_and_in_pieces() {
        let length = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
            .await
            .unwrap();
        assert_eq!(length, (200, 5, false, b"hello".to_vec()));
        let chunked =
            answer(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\na: b\r\n\r\n").await;
        assert_eq!(chunked.unwrap(), (200, 5, false, b"hello".to_vec()));
        let close = answer(b"HTTP/1.1 503 no\r\nconnection: close\r\n\r\nhello")
            .await
            .unwrap();
        assert_eq!(close, (503, 5, true, b"hello".to_vec()));
    }

    #[tokio::test]
    async fn an_answer_that_ends_early_is_told_from_no_answer() {
        assert!(matches!(answer(b"").await, Err(Broken::Unanswered)));
        assert!(matches!(
            answer(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell").await,
            Err(Broken::Closed)
        ));
        assert!(matches!(
            answer(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n").await,
            Err(Broken::Protocol)
        ));
    }
}
