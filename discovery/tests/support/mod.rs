//! A registry that says what a test wants, and counts what it is asked; and the real one, in this process.
#![allow(dead_code, unreachable_pub)] // every test file uses a part of it

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tollgate_config::KeyHash;
use tollgate_config::control_plane::{ControlPlane, Role, Token};
use tollgate_control_plane::{Options, Running, start};

/// Longer than any machine is busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

/// An address that nobody listens on, on a host of loopback that is this process's alone: a port of 127.0.0.1 that is free
/// now may be anybody's by the time it is used.
pub fn free() -> SocketAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let host = SocketAddr::from(([127, 127, high, low], 0));
    let listener = std::net::TcpListener::bind(host).unwrap();
    listener.local_addr().unwrap()
}

/// Waits until it holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let held = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(held.is_ok(), "never: {what}");
}

/// The real one. Keeps nothing; stops when dropped.
pub struct Real {
    running: Option<Running>,
    pub address: SocketAddr,
}

impl Real {
    pub fn start() -> Real {
        Real::start_at(([127, 0, 0, 1], 0).into())
    }

    pub fn start_at(bind: SocketAddr) -> Real {
        Real::of(ControlPlane::default(), bind)
    }

    /// One that wants a token: of these services, each with its own.
    pub fn guarded(services: &[(&str, &str)]) -> Real {
        let tokens = services.iter().map(|(service, token)| Token {
            name: (*service).to_owned(),
            role: Role::Service,
            hash: KeyHash::of(token.as_bytes()),
            service: Some((*service).to_owned()),
            node: None,
        });
        let document = ControlPlane {
            tokens: tokens.collect(),
            ..ControlPlane::default()
        };
        Real::of(document, ([127, 0, 0, 1], 0).into())
    }

    fn of(mut document: ControlPlane, bind: SocketAddr) -> Real {
        document.server.bind = bind;
        document.server.state_dir = None;
        // It has a runtime of its own, which cannot be made inside of the test's.
        let started = std::thread::spawn(|| start(document, Options::default())).join();
        let running = started.unwrap().unwrap_or_else(|error| panic!("{error}"));
        Real {
            address: running.address,
            running: Some(running),
        }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
            running.wait();
        }
    }
}

type Says = Arc<Mutex<(u16, String)>>;

/// Answers everything alike.
pub struct Fake {
    pub address: SocketAddr,
    says: Says,
    asked: Arc<Mutex<Vec<String>>>,
    tasks: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

impl Fake {
    pub async fn start(status: u16, body: &str) -> Fake {
        Self::start_with(status, body, None).await
    }

    pub async fn start_with(status: u16, body: &str, tls: Option<TlsAcceptor>) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let says = Says::new(Mutex::new((status, body.to_owned())));
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (saying, noting) = (says.clone(), asked.clone());
        let tasks = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (saying, noting, tls) = (saying.clone(), noting.clone(), tls.clone());
                open.spawn(async move {
                    match tls {
                        None => serve(stream, saying, noting).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, saying, noting).await;
                            }
                        }
                    }
                });
            }
        });
        Fake {
            address,
            says,
            asked,
            tasks,
        }
    }

    pub fn says(&self, status: u16, body: &str) {
        *self.says.lock().unwrap() = (status, body.to_owned());
    }

    /// Method, path and token of each question.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    says: Says,
    asked: Arc<Mutex<Vec<String>>>,
) {
    let answer = move |request: Request<Incoming>| {
        let token = request.headers().get("authorization");
        let token = token
            .and_then(|token| token.to_str().ok())
            .unwrap_or_default();
        let (method, path) = (request.method(), request.uri().path());
        let line = format!("{method} {path} {token}").trim_end().to_owned();
        asked.lock().unwrap().push(line);
        let (status, body) = says.lock().unwrap().clone();
        async move {
            Response::builder()
                .status(status)
                .body(Full::new(Bytes::from(body)))
        }
    };
    let service = hyper::service::service_fn(answer);
    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service);
    drop(serving.await);
}

/// A lookup's answer with these addresses.
pub fn list(addresses: &[&str]) -> String {
    let items: Vec<_> = { addresses.iter() }
        .map(|address| {
            format!(r#"{{"id":"id-{address}","name":"users","address":"{address}","health":"healthy","last_seen":"x"}}"#)
        })
        .collect();
    format!("[{}]", items.join(","))
}
