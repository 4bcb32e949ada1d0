//! Questions to one registry over one HTTP/2 connection, which is opened when it is needed and kept (REG-410). The only
//! file that knows sockets.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject as _;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

/// Bytes of an answer that are read: some ten thousand instances.
const ANSWER: usize = 4 * 1024 * 1024;

type Sender = SendRequest<Full<Bytes>>;

pub(crate) struct Wire {
    pub(crate) url: Uri,
    token: Option<header::HeaderValue>,
    tls: Option<TlsConnector>,
    timeout: Duration,
    open: Mutex<Option<Sender>>,
}

impl Wire {
    /// Says what is wrong with the token or the certificates.
    pub(crate) fn new(
        url: Uri,
        token: Option<&str>,
        ca: Option<&[u8]>,
        timeout: Duration,
    ) -> Result<Self, String> {
        let token = token.map(|token| {
            let mut value = header::HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|_| "the token has characters that a header cannot have")?;
            value.set_sensitive(true);
            Ok::<_, &str>(value)
        });
        let encrypted = url.scheme_str() == Some("https");
        Ok(Wire {
            tls: ca.filter(|_| encrypted).map(connector).transpose()?,
            token: token.transpose()?,
            url,
            timeout,
            open: Mutex::new(None),
        })
    }

    /// The status and the body, or why there are none.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), String> {
        let asking = async {
            let mut sender = self.sender().await?;
            let request = self.request(method, path, body)?;
            let answer = sender.send_request(request).await;
            let answer =
                answer.map_err(|error| format!("it did not answer: {}", causes(&error)))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER).collect().await;
            let body = body.map_err(|error| format!("its answer broke off: {error}"))?;
            Ok((status, body.to_bytes()))
        };
        let asked = tokio::time::timeout(self.timeout, asking).await;
        let asked = asked.unwrap_or_else(|_| Err(format!("no answer within {:?}", self.timeout)));
        if asked.is_err() {
            // What is wrong may be the connection.
            *self.open.lock().await = None;
        }
        asked.map_err(|why| format!("{}: {why}", self.url))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Request<Full<Bytes>>, String> {
        let mut parts = self.url.clone().into_parts();
        parts.path_and_query = Some(path.parse().map_err(|_| format!("`{path}` is no path"))?);
        let uri = Uri::from_parts(parts).map_err(|error| error.to_string())?;
        let mut request = Request::builder().method(method).uri(uri);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token);
        }
        request
            .body(Full::new(body.into()))
            .map_err(|error| error.to_string())
    }

    async fn sender(&self) -> Result<Sender, String> {
        let mut open = self.open.lock().await;
        if let Some(sender) = open.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let sender = self.connect().await?;
        *open = Some(sender.clone());
        Ok(sender)
    }

    async fn connect(&self) -> Result<Sender, String> {
        let host = self.url.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let port = self.url.port_u16();
        let port = port.unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let stream = TcpStream::connect((bare, port)).await;
        let stream = stream.map_err(|error| format!("cannot connect: {error}"))?;
        // Questions are small, and each is waited for.
        stream
            .set_nodelay(true)
            .map_err(|error| error.to_string())?;
        let Some(tls) = &self.tls else {
            return shake(stream).await;
        };
        let name = ServerName::try_from(bare.to_owned()).map_err(|error| error.to_string())?;
        let stream = tls.connect(name, stream).await;
        shake(stream.map_err(|error| format!("no TLS: {error}"))?).await
    }
}

async fn shake(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
) -> Result<Sender, String> {
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|error| format!("it speaks no HTTP/2: {error}"))?;
    // Ends with the last sender; whoever waits for a stream of it is told.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

fn connector(ca: &[u8]) -> Result<TlsConnector, String> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in rustls_pki_types::CertificateDer::pem_slice_iter(ca) {
        let certificate = certificate.map_err(|error| format!("`ca` is no PEM: {error}"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("`ca` has a certificate that cannot be used: {error}"))?;
    }
    if roots.is_empty() {
        return Err("`ca` has no certificate".to_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// An error with what led to it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// A name as a part of a path.
pub(crate) fn escaped(text: &str) -> String {
    let mut path = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                path.push(char::from(byte));
            }
            other => path.push_str(&format!("%{other:02X}")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_never_leaves_its_part_of_a_path() {
        assert_eq!(escaped("orders-1.a:7"), "orders-1.a:7");
        assert_eq!(escaped("a/../b?c#d é"), "a%2F..%2Fb%3Fc%23d%20%C3%A9");
    }
}
