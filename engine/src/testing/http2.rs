//! An HTTP/2 upstream with manners, on the `h2` crate, on a thread and runtime of its own.
//!
//! The upstream echoes: whatever is not below `/echo.Echo/` is answered with the request as text, bytes below it are
//! echoed as a gRPC service would. It counts what was reset and why. The client for tests is in
//! `h2_client`.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Response};
use tokio::net::{TcpListener, TcpStream};

use super::PATIENCE;
use super::h2_client::runtime;
use super::journal::Gate;

/// One request as it arrived.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Which connection, counted from 1.
    pub connection: usize,
    pub method: String,
    /// Path and query.
    pub path: String,
    pub authority: Option<String>,
    /// The `:protocol` of an extended CONNECT.
    pub protocol: Option<String>,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
    /// The body came to its end.
    pub complete: bool,
    /// The stream was reset by the other side, or its connection ended; when that was noticed.
    pub reset: Option<Instant>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().expect("test headers are text"))
    }
}

#[derive(Debug, Clone, Default)]
pub struct Journal {
    pub connections: usize,
    pub requests: Vec<Seen>,
}

impl Journal {
    pub fn resets(&self) -> usize {
        self.requests
            .iter()
            .filter(|seen| seen.reset.is_some())
            .count()
    }
}

#[derive(Default)]
struct Shared {
    journal: Mutex<Journal>,
    changed: Condvar,
}

impl Shared {
    fn write<R>(&self, change: impl FnOnce(&mut Journal) -> R) -> R {
        let result = change(&mut self.journal.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
        result
    }
}

/// A listening HTTP/2 upstream; gone when dropped.
pub struct Http2Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    gate: Gate,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Http2Upstream {
    pub fn echo() -> Http2Upstream {
        Http2Upstream::start(true)
    }

    /// The same, but it offers no extended CONNECT.
    pub fn without_upgrades() -> Http2Upstream {
        Http2Upstream::start(false)
    }

    fn start(upgrades: bool) -> Http2Upstream {
        let (bound, address) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (shared, gate) = (Arc::new(Shared::default()), Gate::new());
        let (theirs, their_gate) = (shared.clone(), gate.clone());
        let thread = thread::spawn(move || {
            runtime().block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
                let _asked = bound.send(
                    listener
                        .local_addr()
                        .expect("a bound socket has an address"),
                );
                let serve = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        let number = theirs.write(|journal| {
                            journal.connections += 1;
                            journal.connections
                        });
                        let serving =
                            serve(stream, number, theirs.clone(), their_gate.clone(), upgrades);
                        tokio::spawn(serving);
                    }
                };
                tokio::select! { () = serve => {}, _ = stopped => {} }
            });
        });
        let address = address.recv().expect("the upstream's thread lives");
        Http2Upstream {
            address,
            shared,
            gate,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets `/echo.Echo/Gated` go on.
    pub fn open_gate(&self) {
        self.gate.open();
    }

    pub fn journal(&self) -> Journal {
        self.shared
            .journal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn requests(&self) -> Vec<Seen> {
        self.journal().requests
    }

    /// The only request that arrived.
    pub fn request(&self) -> Seen {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "one request arrives: {requests:#?}");
        requests.remove(0)
    }

    /// Waits until the journal is as wanted; fails the test with the journal when it never is.
    pub fn wait(&self, what: &str, wanted: impl Fn(&Journal) -> bool) -> Journal {
        let deadline = Instant::now() + PATIENCE;
        let mut journal = self
            .shared
            .journal
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while !wanted(&journal) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited for {what} in vain: {journal:#?}");
            let waited = self.shared.changed.wait_timeout(journal, left);
            journal = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        journal.clone()
    }
}

impl Drop for Http2Upstream {
    fn drop(&mut self) {
        self.gate.open();
        if let Some(stop) = self.stop.take() {
            let _gone = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

async fn serve(stream: TcpStream, number: usize, shared: Arc<Shared>, gate: Gate, upgrades: bool) {
    let _nodelay = stream.set_nodelay(true);
    let mut builder = h2::server::Builder::new();
    if upgrades {
        builder.enable_connect_protocol();
    }
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (parts, body) = request.into_parts();
        let seen = Seen {
            connection: number,
            method: parts.method.to_string(),
            path: parts
                .uri
                .path_and_query()
                .map(ToString::to_string)
                .unwrap_or_default(),
            authority: parts.uri.authority().map(ToString::to_string),
            protocol: parts
                .extensions
                .get::<h2::ext::Protocol>()
                .map(|protocol| protocol.as_str().to_owned()),
            headers: parts.headers,
            ..Seen::default()
        };
        let position = shared.write(|journal| {
            journal.requests.push(seen.clone());
            journal.requests.len() - 1
        });
        tokio::spawn(answer(
            seen,
            body,
            respond,
            Place {
                shared: shared.clone(),
                position,
                gate: gate.clone(),
            },
        ));
    }
}

/// Where one request stands in the journal.
struct Place {
    shared: Arc<Shared>,
    position: usize,
    gate: Gate,
}

impl Place {
    fn write(&self, change: impl FnOnce(&mut Seen)) {
        self.shared
            .write(|journal| change(&mut journal.requests[self.position]));
    }

    fn note_reset(&self) {
        self.write(|seen| seen.reset = seen.reset.or(Some(Instant::now())));
    }
}

async fn answer(seen: Seen, mut body: RecvStream, mut respond: SendResponse<Bytes>, place: Place) {
    let grpc = || Response::builder().header("content-type", "application/grpc");
    let head = |builder: http::response::Builder| builder.body(()).expect("a valid head");
    match &*seen.path {
        "/echo.Echo/Fail" => {
            read_all(&mut body, &place).await;
            let failure = grpc()
                .header("grpc-status", "5")
                .header("grpc-message", "no such thing");
            let _sent = respond.send_response(head(failure), true);
        }
        "/echo.Echo/Exhausted" => {
            read_all(&mut body, &place).await;
            if let Ok(mut send) = respond.send_response(head(grpc()), false) {
                let _sent = send.send_data(Bytes::from_static(b"some"), false);
                let mut trailers = status_zero();
                trailers.insert("grpc-status", http::HeaderValue::from_static("8"));
                let _sent = send.send_trailers(trailers);
            }
        }
        "/echo.Echo/FailLate" => {
            read_all(&mut body, &place).await;
            if let Ok(mut send) = respond.send_response(head(grpc()), false) {
                let _sent = send.send_data(Bytes::from_static(b"half"), false);
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("13"));
                let _sent = send.send_trailers(trailers);
            }
        }
        // The second of two tries that are made beside each other is answered.
        "/echo.Echo/Hang" | "/echo.Echo/HangFirst"
            if seen.path.ends_with("Hang") || seen.header("x-tollgate-attempt") == Some("1") =>
        {
            let _reason = poll_fn(|cx| respond.poll_reset(cx)).await;
            place.note_reset();
        }
        "/echo.Echo/Gated" => {
            read_all(&mut body, &place).await;
            let gate = place.gate.clone();
            let _waited = tokio::task::spawn_blocking(move || gate.wait()).await;
            if let Ok(mut send) = respond.send_response(head(grpc()), false) {
                let _sent = send.send_data(Bytes::from_static(b"gated"), false);
                let _sent = send.send_trailers(status_zero());
            }
        }
        "/echo.Echo/Refuse" => respond.send_reset(Reason::REFUSED_STREAM),
        "/echo.Echo/Reset" => {
            read_all(&mut body, &place).await;
            if let Ok(mut send) = respond.send_response(head(grpc()), false) {
                let _sent = send.send_data(Bytes::from_static(b"half"), false);
                send.send_reset(Reason::INTERNAL_ERROR);
            }
        }
        "/echo.Echo/Stream" => {
            let whole = read_all(&mut body, &place).await;
            if let Ok(mut send) = respond.send_response(head(grpc()), false) {
                for _ in 0..3 {
                    let _sent = send.send_data(whole.clone().into(), false);
                }
                let _sent = send.send_trailers(status_zero());
            }
        }
        path if path.starts_with("/echo.Echo/") || seen.protocol.is_some() => {
            let Ok(mut send) = respond.send_response(head(grpc()), false) else {
                return;
            };
            echo_as_it_comes(&mut body, &mut send, &place).await;
        }
        _ => {
            let whole = read_all(&mut body, &place).await;
            let mut text = format!("{} {} HTTP/2\r\n", seen.method, seen.path);
            for (name, value) in &seen.headers {
                text.push_str(&format!(
                    "{name}: {}\r\n",
                    String::from_utf8_lossy(value.as_bytes())
                ));
            }
            text.push_str(&format!("\r\n{}", String::from_utf8_lossy(&whole)));
            let trailers = place
                .shared
                .write(|journal| journal.requests[place.position].trailers.clone());
            let head = head(Response::builder().header("content-type", "text/plain"));
            if let Ok(mut send) = respond.send_response(head, false) {
                let _sent = send.send_data(text.into(), trailers.is_none());
                if let Some(trailers) = trailers {
                    let _sent = send.send_trailers(trailers);
                }
            }
        }
    }
}

async fn echo_as_it_comes(body: &mut RecvStream, send: &mut SendStream<Bytes>, place: &Place) {
    loop {
        let piece = tokio::select! {
            piece = body.data() => piece,
            _ = poll_fn(|cx| send.poll_reset(cx)) => return place.note_reset(),
        };
        match piece {
            Some(Ok(piece)) => {
                let _released = body.flow_control().release_capacity(piece.len());
                place.write(|seen| seen.body.extend_from_slice(&piece));
                let _sent = send.send_data(piece, false);
            }
            Some(Err(_)) => return place.note_reset(),
            None => break,
        }
    }
    let trailers = body.trailers().await.ok().flatten();
    place.write(|seen| (seen.complete, seen.trailers) = (true, trailers));
    let _sent = send.send_trailers(status_zero());
}

async fn read_all(body: &mut RecvStream, place: &Place) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(piece) = body.data().await {
        let Ok(piece) = piece else {
            place.note_reset();
            return whole;
        };
        let _released = body.flow_control().release_capacity(piece.len());
        whole.extend_from_slice(&piece);
        place.write(|seen| seen.body.extend_from_slice(&piece));
    }
    let trailers = body.trailers().await.ok().flatten();
    place.write(|seen| (seen.complete, seen.trailers) = (true, trailers));
    whole
}

fn status_zero() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    trailers.insert("x-trailer", http::HeaderValue::from_static("kept"));
    trailers
}
