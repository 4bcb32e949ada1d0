//! Dials an endpoint: TCP, then TLS, under one deadline that the caller holds over the whole of it. Nothing that an
//! endpoint sent before its handshake was complete is ever looked at.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls_pki_types::ServerName;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::keepalive;
use super::stream::Stream;
use super::tls::{ClientTls, Member, Side};

/// How to secure a connection to an endpoint.
#[derive(Clone)]
pub struct DialTls {
    pub config: Arc<rustls::ClientConfig>,
    pub name: ServerName<'static>,
    /// Endpoints are members of the mesh.
    pub member: Option<Arc<Member>>,
}

/// Connects. The second value tells whether ALPN chose HTTP/2.
pub async fn dial(address: SocketAddr, tls: Option<&DialTls>) -> io::Result<(Stream, bool)> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    keepalive::set(SockRef::from(&socket))?;
    match tls {
        None => Ok((Stream::Plain(socket), false)),
        Some(tls) => {
            let lacks = tls.member.as_ref().and_then(|member| member.lacks());
            let connected = match lacks {
                Some(refusal) => Err(io::Error::other(refusal)),
                None => {
                    let connector = TlsConnector::from(tls.config.clone());
                    connector.connect(tls.name.clone(), socket).await
                }
            };
            let stream = connected.map_err(|error| match &tls.member {
                Some(member) => io::Error::new(error.kind(), member.failed(Side::Client, &error)),
                None => error,
            })?;
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            Ok((Stream::Client(Box::new(stream)), http2))
        }
    }
}

impl DialTls {
    /// For HTTP with the endpoint written as `host:port`.
    pub fn of(tls: &ClientTls, endpoint: &str) -> io::Result<Self> {
        Self::with(tls, tls.config(), endpoint)
    }

    /// For a request that needs HTTP/1 of an endpoint that may speak either: nothing else is offered.
    pub fn for_http1(tls: &ClientTls, endpoint: &str) -> io::Result<Self> {
        Self::with(tls, tls.config_for_http1(), endpoint)
    }

    /// For bytes that are not HTTP; the endpoint is told so by ALPN, where it cares.
    pub fn for_bytes(tls: &ClientTls, endpoint: &str) -> io::Result<Self> {
        Self::with(tls, tls.config_for_bytes(), endpoint)
    }

    fn with(
        tls: &ClientTls,
        config: &Arc<rustls::ClientConfig>,
        endpoint: &str,
    ) -> io::Result<Self> {
        let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let name = tls
            .server_name(host)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
        Ok(DialTls {
            config: config.clone(),
            name,
            member: tls.mesh().cloned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HI-39.
    #[tokio::test]
    async fn a_dialled_connection_sends_at_once_and_is_kept_alive() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (stream, _) = dial(listener.local_addr().unwrap(), None).await.unwrap();
        assert!(stream.socket().nodelay().unwrap());
        keepalive::assert_set(SockRef::from(stream.socket()));
    }
}
