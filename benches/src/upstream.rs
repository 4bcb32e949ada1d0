//! The server behind the proxies: one thread that answers every request from memory, as cheaply as a socket allows.
//!
//! A path that ends in `/1m` gets 1 MiB, one that ends in `/drip` (HTTP/1.1 only) a byte every 50 ms without end, any other
//! 1 KiB. HTTP/1.1 and clear-text HTTP/2 have an address each, so that
//! no byte is looked at twice to tell them apart. It trusts its clients and is no example of a careful server.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::thread::Pinned;

/// Bytes in the ordinary body.
pub const SMALL: usize = 1 << 10;
/// Bytes in the body of a path that ends in `/1m`.
pub const LARGE: usize = 1 << 20;
/// Bytes of `order` as JSON.
pub const ORDER_JSON: usize = 1012;
/// Between two bytes of a path that ends in `/drip`.
const DROP: Duration = Duration::from_millis(50);

/// A running upstream; dropping it stops it.
#[derive(Debug)]
pub struct Upstream {
    pub http1: SocketAddr,
    pub http2: SocketAddr,
    _thread: Pinned,
}

impl Upstream {
    /// Listens on the two addresses and answers on a thread of its own on `core`.
    pub fn start(
        http1: SocketAddr,
        http2: SocketAddr,
        core: Option<usize>,
    ) -> io::Result<Upstream> {
        let (one, two) = (
            std::net::TcpListener::bind(http1)?,
            std::net::TcpListener::bind(http2)?,
        );
        one.set_nonblocking(true)?;
        two.set_nonblocking(true)?;
        let (http1, http2) = (one.local_addr()?, two.local_addr()?);
        let thread = Pinned::run("upstream", core, move || async move {
            if let Err(error) = serve(one, two).await {
                eprintln!("the upstream stopped: {error}");
            }
        })?;
        Ok(Upstream {
            http1,
            http2,
            _thread: thread,
        })
    }
}

async fn serve(one: std::net::TcpListener, two: std::net::TcpListener) -> io::Result<()> {
    let (one, two) = (TcpListener::from_std(one)?, TcpListener::from_std(two)?);
    // Made once: an answer is a copy into the socket and nothing else.
    let bodies = Bodies::new();
    loop {
        let (stream, second) = tokio::select! {
            accepted = one.accept() => (accepted, false),
            accepted = two.accept() => (accepted, true),
        };
        let (stream, _) = match stream {
            Ok(accepted) => accepted,
            // Out of file descriptors, or a client that left again: the next accept may work.
            Err(_) => {
                tokio::task::yield_now().await;
                continue;
            }
        };
        stream.set_nodelay(true)?;
        let bodies = bodies.clone();
        // Owned by the runtime of this thread and gone with it; how a connection ends is its client's concern.
        tokio::task::spawn_local(async move {
            if second {
                drop(http2(stream, bodies).await)
            } else {
                drop(http1(stream, bodies).await)
            }
        });
    }
}

/// The same message for every call, and its status behind it.
fn grpc(order: &Bytes, respond: &mut h2::server::SendResponse<Bytes>) {
    let mut response = Response::new(());
    let kind = http::HeaderValue::from_static("application/grpc");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, kind);
    if let Ok(mut send) = respond.send_response(response, false) {
        drop(send.send_data(order.clone(), false));
        let ok = (
            http::HeaderName::from_static("grpc-status"),
            http::HeaderValue::from_static("0"),
        );
        drop(send.send_trailers(http::HeaderMap::from_iter([ok])));
    }
}

/// A message `shop.v1.Order` with eleven items, in a frame of gRPC.
pub fn order() -> Bytes {
    let field = |out: &mut Vec<u8>, number: u8, bytes: &[u8]| {
        out.extend_from_slice(&[number << 3 | 2, bytes.len() as u8]);
        out.extend_from_slice(bytes);
    };
    let mut order = Vec::new();
    field(&mut order, 1, b"order-0000007");
    let mut customer = Vec::new();
    field(&mut customer, 1, b"customer-42");
    field(&mut customer, 2, b"Ada Lovelace");
    field(&mut order, 2, &customer);
    for number in 0..11u8 {
        let mut item = Vec::new();
        field(
            &mut item,
            1,
            format!("product-{number:04}-of-the-catalog").as_bytes(),
        );
        // quantity 3, unit_price 129900
        item.extend_from_slice(&[2 << 3, 3, 3 << 3, 0xec, 0xf6, 0x07]);
        field(&mut order, 3, &item);
    }
    // state PAID; created_at 2026-01-31T12:00:00Z; total 4286700
    order.extend_from_slice(&[
        4 << 3,
        2,
        5 << 3 | 2,
        6,
        1 << 3,
        0xc0,
        0xdd,
        0xf7,
        0xcb,
        0x06,
        6 << 3,
        0xec,
        0xd1,
        0x85,
        0x02,
    ]);
    let mut framed = vec![0];
    framed.extend((order.len() as u32).to_be_bytes());
    framed.extend(order);
    framed.into()
}

#[derive(Clone)]
struct Bodies {
    small: Bytes,
    large: Bytes,
    order: Bytes,
    /// The same with an HTTP/1.1 head before them.
    small_answer: Bytes,
    large_answer: Bytes,
}

impl Bodies {
    fn new() -> Bodies {
        let answer = |body: &[u8]| {
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            Bytes::from([head.as_bytes(), body].concat())
        };
        let (small, large) = (vec![b'x'; SMALL], vec![b'x'; LARGE]);
        Bodies {
            small_answer: answer(&small),
            large_answer: answer(&large),
            small: small.into(),
            large: large.into(),
            order: order(),
        }
    }
}

async fn http1(mut stream: TcpStream, bodies: Bodies) -> io::Result<()> {
    let mut buffer = vec![0u8; 16 << 10];
    let (mut from, mut filled) = (0, 0);
    loop {
        let request = loop {
            if let Some(request) = Asked::parse(&buffer[from..filled]) {
                break request;
            }
            if from > 0 {
                buffer.copy_within(from..filled, 0);
                filled -= from;
                from = 0;
            }
            if filled == buffer.len() {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a request head above 16 KiB",
                ));
            }
            match stream.read(&mut buffer[filled..]).await? {
                0 => return Ok(()),
                n => filled += n,
            }
        };
        from += request.head;
        let mut body = request.body;
        loop {
            let here = body.min(filled - from);
            from += here;
            body -= here;
            if body == 0 {
                break;
            }
            from = 0;
            filled = stream.read(&mut buffer).await?;
            if filled == 0 {
                return Ok(());
            }
        }
        if from == filled {
            (from, filled) = (0, 0);
        }
        if request.drip {
            return drip(stream).await;
        }
        stream
            .write_all(if request.large {
                &bodies.large_answer
            } else {
                &bodies.small_answer
            })
            .await?;
        if request.close {
            return stream.shutdown().await;
        }
    }
}

/// A stream that only its client ends.
async fn drip(mut stream: TcpStream) -> io::Result<()> {
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        .await?;
    let mut drops = tokio::time::interval(DROP);
    loop {
        drops.tick().await;
        stream.write_all(b"1\r\nx\r\n").await?;
    }
}

/// What of a request matters here.
struct Asked {
    head: usize,
    body: usize,
    large: bool,
    drip: bool,
    close: bool,
}

impl Asked {
    fn parse(bytes: &[u8]) -> Option<Asked> {
        if bytes.is_empty() {
            return None;
        }
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        let Ok(httparse::Status::Complete(head)) = request.parse(bytes) else {
            return None;
        };
        let (large, drip) = (
            request.path.is_some_and(is_large),
            request.path.is_some_and(|path| path.ends_with("/drip")),
        );
        let mut asked = Asked {
            head,
            body: 0,
            large,
            drip,
            close: false,
        };
        for header in request.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") {
                asked.body = std::str::from_utf8(header.value)
                    .ok()?
                    .trim()
                    .parse()
                    .ok()?;
            } else if header.name.eq_ignore_ascii_case("connection") {
                asked.close = header.value.eq_ignore_ascii_case(b"close");
            }
        }
        Some(asked)
    }
}

fn is_large(path: &str) -> bool {
    path.ends_with("/1m")
}

async fn http2(stream: TcpStream, bodies: Bodies) -> Result<(), h2::Error> {
    let mut connection = h2::server::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        .max_concurrent_streams(1_000)
        .handshake::<_, Bytes>(stream)
        .await?;
    while let Some(accepted) = connection.accept().await {
        let (request, mut respond) = accepted?;
        let kind = request.headers().get(http::header::CONTENT_TYPE);
        if kind.is_some_and(|kind| kind == "application/grpc") {
            let (order, mut call) = (bodies.order.clone(), request.into_body());
            tokio::task::spawn_local(async move {
                // A call that is answered before it was read is reset, and thousands of those end a connection.
                while let Some(Ok(piece)) = call.data().await {
                    drop(call.flow_control().release_capacity(piece.len()));
                }
                grpc(&order, &mut respond);
            });
            continue;
        }
        let body = if is_large(request.uri().path()) {
            &bodies.large
        } else {
            &bodies.small
        };
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::OK;
        response.headers_mut().insert(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("text/plain"),
        );
        response
            .headers_mut()
            .insert(http::header::CONTENT_LENGTH, body.len().into());
        // A client that reset its stream meanwhile gets no answer; that is no reason to end the others.
        if let Ok(mut send) = respond.send_response(response, false) {
            drop(send.send_data(body.clone(), true));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_once_its_head_is_complete() {
        let head =
            b"POST /a/1m?x HTTP/1.1\r\nhost: a\r\nContent-Length: 5\r\nconnection: close\r\n\r\n";
        let asked = Asked::parse(&[head.as_slice(), b"hello"].concat()).unwrap();
        assert_eq!((asked.head, asked.body, asked.close), (head.len(), 5, true));
        assert!(Asked::parse(&head[..head.len() - 1]).is_none());
    }

    #[test]
    fn the_last_segment_chooses_the_body() {
        assert!(is_large("/1m") && is_large("/routes/7/1m"));
        assert!(!is_large("/1k") && !is_large("/1m/x"));
    }

    #[test]
    fn the_order_is_as_long_as_is_said() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/tests/protos");
        let mut compiler = protox::Compiler::new([folder]).unwrap();
        compiler
            .include_imports(true)
            .open_file("shop.proto")
            .unwrap();
        let set = compiler.encode_file_descriptor_set();
        let codec = tollgate_engine::testing::codec::Codec::new(&set, "shop.v1.Order");
        let json = codec.decode(&order()[5..]);
        assert_eq!(json.len(), ORDER_JSON, "{}", String::from_utf8_lossy(&json));
    }
}
