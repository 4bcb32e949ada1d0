//! Connections to the other control planes that share the store: one of HTTP/2 to each, in clear text or under TLS as their
//! URLs say, opened when somebody asks and left when it does not answer. What is asked, others decide.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tollgate_config::control_plane::StoreTls;
use tollgate_config::{At, UpstreamProtocol, UpstreamTls};
use tollgate_engine::net::tls::{ClientTls, TlsError};

/// For a connection, and for pages that are put together: they do not wait for long for those that are gone.
pub(super) const GLANCE: Duration = Duration::from_secs(1);
/// A connection that was cut without a word is noticed.
const PING: Duration = Duration::from_secs(2);

type Sender = SendRequest<Full<Bytes>>;

/// Open connections, by URL.
#[derive(Default)]
pub(crate) struct Peers {
    senders: Mutex<HashMap<Arc<str>, Sender>>,
    /// Read at every connection: a renewed certificate needs no restart.
    tls: Option<UpstreamTls>,
}

pub(super) enum Failed {
    /// It cannot have been read.
    Unsent(String),
    Unanswered(String),
}

impl Peers {
    /// `tls`: what the document says of others with https URLs. Its files must be good now.
    pub(crate) fn new(tls: Option<&StoreTls>) -> Result<Peers, TlsError> {
        let Some(tls) = tls else {
            return Ok(Peers::default());
        };
        let (cert, key) = tls.identity.clone().unzip();
        let tls = UpstreamTls {
            ca: Some(tls.ca.clone()),
            name: tls.name.clone(),
            cert,
            key,
            at: At(None),
        };
        ClientTls::load(&tls, UpstreamProtocol::Http2)?;
        Ok(Peers {
            senders: Mutex::default(),
            tls: Some(tls),
        })
    }

    pub(super) async fn ask(
        &self,
        url: &Arc<str>,
        mut request: http::Request<Full<Bytes>>,
        patience: Duration,
    ) -> Result<http::Response<Bytes>, Failed> {
        let target = format!("{url}{}", request.uri());
        *request.uri_mut() = target
            .parse()
            .map_err(|_| Failed::Unsent("its URL is none".to_owned()))?;
        let mut sender = self.sender(url).await?;
        let unanswered = |error: &dyn std::fmt::Display| Failed::Unanswered(error.to_string());
        let asking = async {
            let answer = sender
                .send_request(request)
                .await
                .map_err(|e| unanswered(&e))?;
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.map_err(|e| unanswered(&e))?.to_bytes();
            Ok(http::Response::from_parts(parts, body))
        };
        let answer = tokio::time::timeout(patience, asking).await;
        let answer = answer.unwrap_or_else(|late| Err(unanswered(&late)));
        if answer.is_err() {
            // It may be stopped, or cut off; the next request finds out with a connection of its own.
            self.senders
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(url);
        }
        answer
    }

    async fn sender(&self, url: &Arc<str>) -> Result<Sender, Failed> {
        let known = |senders: &HashMap<_, Sender>| {
            let sender = senders.get(url)?;
            (!sender.is_closed()).then(|| sender.clone())
        };
        if let Some(sender) = known(&self.senders.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(sender);
        }
        let opening = tokio::time::timeout(GLANCE, self.open(url));
        let opened = opening.await.unwrap_or_else(|late| Err(late.into()));
        let sender = opened.map_err(|error| Failed::Unsent(error.to_string()))?;
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.retain(|_, sender| !sender.is_closed());
        senders.insert(url.clone(), sender.clone());
        Ok(sender)
    }

    async fn open(&self, url: &str) -> io::Result<Sender> {
        let (encrypted, authority) = match url.strip_prefix("https://") {
            Some(authority) => (true, authority),
            None => (false, url.strip_prefix("http://").unwrap_or(url)),
        };
        let (host, address) = match authority.rsplit_once(':') {
            Some((host, _)) if !authority.ends_with(']') => (host, authority.to_owned()),
            _ => (
                authority,
                format!("{authority}:{}", if encrypted { 443 } else { 80 }),
            ),
        };
        let socket = TcpStream::connect(address).await?;
        // Small requests, and somebody waits for each.
        socket.set_nodelay(true)?;
        if encrypted {
            return speak(self.secured(host, socket).await?).await;
        }
        speak(socket).await
    }

    /// Shakes hands with a host.
    async fn secured(&self, host: &str, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let Some(named) = self.tls.clone() else {
            let why = "it is reached by https alone, and there is no `store.peers` here";
            return Err(io::Error::other(why));
        };
        let reading = move || ClientTls::load(&named, UpstreamProtocol::Http2);
        let tls = tokio::task::spawn_blocking(reading).await;
        let tls = tls.map_err(io::Error::other)?.map_err(io::Error::other)?;
        let name = tls.server_name(host).map_err(io::Error::other)?;
        let connector = TlsConnector::from(tls.config().clone());
        connector.connect(name, socket).await
    }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> io::Result<Sender> {
    let shaking = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .handshake(TokioIo::new(stream));
    let (sender, connection) = shaking.await.map_err(io::Error::other)?;
    // Ends when nobody has the sender any more, or with the peer.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}
