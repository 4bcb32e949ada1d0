//! A gRPC service that answers as a test says: it reads a call, hands it to the test's script, and sends what that
//! returns, byte by byte. On the `h2` crate, on a thread of its own; it knows no messages.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use tokio::net::{TcpListener, TcpStream};

use super::h2_client::{message, runtime};
use super::journal::Gate;

/// A call as it arrived.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    /// Without their five bytes.
    pub messages: Vec<Vec<u8>>,
}

impl Call {
    pub fn header(&self, name: &str) -> Option<&str> {
        { self.headers.get(name) }.map(|value| value.to_str().expect("test headers are text"))
    }
}

/// What is sent back.
#[derive(Debug, Clone)]
pub struct Reply {
    pub head: Vec<(&'static str, String)>,
    pub pieces: Vec<Vec<u8>>,
    /// The gate is waited for behind so many pieces.
    pub gate_behind: Option<usize>,
    pub end: End,
}

#[derive(Debug, Clone)]
pub enum End {
    Trailers(Vec<(&'static str, String)>),
    /// Everything is in the head.
    Head,
    Reset,
    /// Without trailers.
    Cut,
    /// Never.
    Hang,
}

impl Reply {
    /// These messages, and all is well.
    pub fn ok(messages: &[Vec<u8>]) -> Reply {
        Reply {
            head: Vec::new(),
            pieces: messages.iter().map(|one| message(one)).collect(),
            gate_behind: None,
            end: End::Trailers(vec![("grpc-status", "0".to_owned())]),
        }
    }

    /// An error, in trailers only.
    pub fn error(status: u8, message: &str) -> Reply {
        Reply {
            head: vec![
                ("grpc-status", status.to_string()),
                ("grpc-message", message.to_owned()),
            ],
            pieces: Vec::new(),
            gate_behind: None,
            end: End::Head,
        }
    }
}

type Script = Arc<dyn Fn(&Call) -> Reply + Send + Sync>;

/// A listening service; gone when dropped. Methods whose name ends with `Talk` get each message back as it comes.
pub struct GrpcUpstream {
    address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
    gate: Gate,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl GrpcUpstream {
    pub fn start(script: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> GrpcUpstream {
        let (bound, address) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (calls, gate) = (Arc::new(Mutex::new(Vec::new())), Gate::new());
        let script: Script = Arc::new(script);
        let (theirs, their_gate) = (calls.clone(), gate.clone());
        let thread = thread::spawn(move || {
            runtime().block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
                let address = listener
                    .local_addr()
                    .expect("a bound socket has an address");
                let _asked = bound.send(address);
                let serve = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        let service = Service {
                            script: script.clone(),
                            calls: theirs.clone(),
                            gate: their_gate.clone(),
                        };
                        tokio::spawn(serve(stream, service));
                    }
                };
                tokio::select! { () = serve => {}, _ = stopped => {} }
            });
        });
        GrpcUpstream {
            address: address.recv().expect("the service's thread lives"),
            calls,
            gate,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn open_gate(&self) {
        self.gate.open();
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The only call that arrived.
    pub fn call(&self) -> Call {
        let mut calls = self.calls();
        assert_eq!(calls.len(), 1, "one call arrives: {calls:#?}");
        calls.remove(0)
    }
}

impl Drop for GrpcUpstream {
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

#[derive(Clone)]
struct Service {
    script: Script,
    calls: Arc<Mutex<Vec<Call>>>,
    gate: Gate,
}

async fn serve(stream: TcpStream, service: Service) {
    let _nodelay = stream.set_nodelay(true);
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond, service.clone()));
    }
}

async fn answer(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    service: Service,
) {
    let (parts, mut body) = request.into_parts();
    let mut call = Call {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        headers: parts.headers,
        messages: Vec::new(),
    };
    let head = |fields: &[(&'static str, String)]| {
        let builder = Response::builder().header("content-type", "application/grpc");
        let builder = fields.iter().fold(builder, |builder, (name, value)| {
            builder.header(*name, value)
        });
        builder.body(()).expect("a valid head")
    };
    let mut rest = Vec::new();
    if call.path.ends_with("Talk") {
        let Ok(mut send) = respond.send_response(head(&[]), false) else {
            return;
        };
        while let Some(Ok(piece)) = body.data().await {
            let _released = body.flow_control().release_capacity(piece.len());
            rest.extend_from_slice(&piece);
            let _sent = send.send_data(piece, false);
        }
        call.messages = unframed(&rest);
        service.note(call);
        let _sent = send.send_trailers(trailers(&[("grpc-status", "0".to_owned())]));
        return;
    }
    while let Some(Ok(piece)) = body.data().await {
        let _released = body.flow_control().release_capacity(piece.len());
        rest.extend_from_slice(&piece);
    }
    call.messages = unframed(&rest);
    service.note(call.clone());
    let reply = (service.script)(&call);
    let only_head = matches!(reply.end, End::Head);
    if let (End::Hang, true) = (&reply.end, reply.pieces.is_empty()) {
        return std::future::poll_fn(|cx| respond.poll_reset(cx).map(drop)).await;
    }
    let Ok(mut send) = respond.send_response(head(&reply.head), only_head) else {
        return;
    };
    for (place, piece) in reply.pieces.into_iter().enumerate() {
        if reply.gate_behind == Some(place) {
            let gate = service.gate.clone();
            let _waited = tokio::task::spawn_blocking(move || gate.wait()).await;
        }
        let _sent = send.send_data(piece.into(), false);
    }
    match reply.end {
        End::Trailers(fields) => {
            let _sent = send.send_trailers(trailers(&fields));
        }
        End::Head => {}
        End::Reset => send.send_reset(Reason::INTERNAL_ERROR),
        End::Cut => {
            let _sent = send.send_data(Bytes::new(), true);
        }
        End::Hang => {
            let _reason = std::future::poll_fn(|cx| send.poll_reset(cx)).await;
        }
    }
}

impl Service {
    fn note(&self, call: Call) {
        self.calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(call);
    }
}

fn trailers(fields: &[(&'static str, String)]) -> HeaderMap {
    { fields.iter() }
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_str(value).expect("test trailers are text"),
            )
        })
        .collect()
}

/// Whole messages; what is cut is left out.
fn unframed(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some(([_, length @ ..], rest)) = bytes.split_first_chunk::<5>() {
        let Some((message, behind)) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)
        else {
            break;
        };
        messages.push(message.to_vec());
        bytes = behind;
    }
    messages
}
