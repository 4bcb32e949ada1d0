//! A server for the sample services: HTTP/1.1 with lengths, keep-alive and event streams, and nothing more. It is
//! written by hand so that what stands behind the gateway is a stranger to it: none of the gateway's code is used.
//!
//! Everything is bounded; a request that is not understood is answered once and its connection closed.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const LARGEST_HEAD: usize = 16 * 1024;
const LARGEST_BODY: usize = 64 * 1024;

/// One request, its body included.
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) body: Vec<u8>,
    close: bool,
}

/// What a service answers.
pub(super) enum Reply {
    Json(u16, String),
    /// Server-sent events, one at each interval, until the client or this process ends.
    Events(Duration, fn(u64) -> String),
}

/// A service: a request in, an answer out.
pub(super) trait Service {
    fn answer(&self, asked: &Asked) -> impl Future<Output = Reply>;
}

/// Serves until the future is dropped. Event streams end when `stopping` turns true.
pub(super) async fn serve<S: Service + 'static>(
    listener: TcpListener,
    service: S,
    stopping: watch::Receiver<bool>,
) {
    let service = Rc::new(service);
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (service, stopping) = (service.clone(), stopping.clone());
        // Ends with its socket, or with the runtime of the sample services.
        tokio::task::spawn_local(async move {
            let connection = Connection {
                socket,
                read: Vec::new(),
                stopping,
                events: Cell::new(0),
            };
            // Who hangs up in the middle is nobody's problem.
            drop(connection.run(&*service).await);
        });
    }
}

struct Connection {
    socket: TcpStream,
    read: Vec<u8>,
    stopping: watch::Receiver<bool>,
    events: Cell<u64>,
}

/// Why a request is not answered by the service: a status and its reason.
type Refusal = (u16, &'static str);

impl Connection {
    async fn run(mut self, service: &impl Service) -> io::Result<()> {
        self.socket.set_nodelay(true)?;
        loop {
            let asked = match self.next().await? {
                None => return Ok(()),
                Some(Err((status, why))) => {
                    let body = format!("{{\"error\":\"{why}\"}}\n");
                    return self.write(status, &body, true, true).await;
                }
                Some(Ok(asked)) => asked,
            };
            match service.answer(&asked).await {
                Reply::Json(status, body) => {
                    let body = format!("{body}\n");
                    self.write(status, &body, asked.close, asked.method != "HEAD")
                        .await?;
                    if asked.close {
                        return Ok(());
                    }
                }
                Reply::Events(interval, event) => return self.stream(interval, event).await,
            }
        }
    }

    /// The next request; `None` when the other side has ended.
    async fn next(&mut self) -> io::Result<Option<Result<Asked, Refusal>>> {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if self.read.len() > LARGEST_HEAD {
                return Ok(Some(Err((431, "the head is too large"))));
            }
            if self.socket.read_buf(&mut self.read).await? == 0 {
                return Ok(None);
            }
        };
        let head = String::from_utf8_lossy(self.read.get(..end).unwrap_or_default()).into_owned();
        self.read.drain(..end + 4);
        let (mut asked, length) = match parse(&head) {
            Ok(parsed) => parsed,
            Err(refusal) => return Ok(Some(Err(refusal))),
        };
        while self.read.len() < length {
            if self.socket.read_buf(&mut self.read).await? == 0 {
                return Ok(None);
            }
        }
        asked.body = self.read.drain(..length).collect();
        Ok(Some(Ok(asked)))
    }

    async fn write(&mut self, status: u16, body: &str, close: bool, whole: bool) -> io::Result<()> {
        let mut text = format!(
            "HTTP/1.1 {status} {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{}\r\n",
            reason(status),
            body.len(),
            if close { "connection: close\r\n" } else { "" }
        );
        if whole {
            text.push_str(body);
        }
        self.socket.write_all(text.as_bytes()).await
    }

    async fn stream(mut self, interval: Duration, event: fn(u64) -> String) -> io::Result<()> {
        self.socket
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\ntransfer-encoding: chunked\r\n\r\n")
            .await?;
        let mut ticks = tokio::time::interval(interval);
        let mut scratch = [0; 64];
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let number = self.events.get() + 1;
                    self.events.set(number);
                    let event = format!("id: {number}\ndata: {}\n\n", event(number));
                    let chunk = format!("{:x}\r\n{event}\r\n", event.len());
                    self.socket.write_all(chunk.as_bytes()).await?;
                }
                // Nothing more is expected; reading tells when the client has gone.
                read = self.socket.read(&mut scratch) => {
                    if read? == 0 {
                        return Ok(());
                    }
                }
                _ = self.stopping.wait_for(|stopping| *stopping) => {
                    return self.socket.write_all(b"0\r\n\r\n").await;
                }
            }
        }
    }
}

/// A head without its last empty line, as a request without its body and the length of that body.
fn parse(head: &str) -> Result<(Asked, usize), Refusal> {
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1")) = (words.next(), words.next(), words.next())
    else {
        return Err((400, "only HTTP/1.1 is spoken here"));
    };
    let (mut length, mut close) = (0, false);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            return Err((400, "a header field has no colon"));
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            length = value
                .parse()
                .map_err(|_| (400, "the length is no number"))?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err((411, "send a content-length"));
        } else if name.eq_ignore_ascii_case("connection") {
            close = value.eq_ignore_ascii_case("close");
        }
    }
    if length > LARGEST_BODY {
        return Err((413, "the body is larger than 64 KiB"));
    }
    let path = target.split('?').next().unwrap_or_default();
    let asked = Asked {
        method: method.to_owned(),
        path: path.to_owned(),
        body: Vec::new(),
        close,
    };
    Ok((asked, length))
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        411 => "Length Required",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        _ => "Service Unavailable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_tells_path_length_and_whether_it_is_the_last() {
        let (asked, length) =
            parse("POST /orders?x=1 HTTP/1.1\r\nContent-Length: 5\r\nConnection: close").unwrap();
        assert_eq!((asked.method.as_str(), length), ("POST", 5));
        assert_eq!((asked.path.as_str(), asked.close), ("/orders", true));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let refused = |head: &str| parse(head).err().map(|(status, _)| status);
        assert_eq!(refused("GET / HTTP/1.0"), Some(400));
        assert_eq!(
            refused("POST / HTTP/1.1\r\ntransfer-encoding: chunked"),
            Some(411)
        );
        assert_eq!(
            refused("POST / HTTP/1.1\r\ncontent-length: 999999"),
            Some(413)
        );
    }
}
