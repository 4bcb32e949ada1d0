//! A socket of a command, in clear text or under TLS. What is trusted and shown, the engine knows; here it is spoken, in
//! the blocking way of a tool that waits for one answer.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use rustls::{ClientConnection, StreamOwned};
use tollgate_engine::net::tls::ClientTls;
use tollgate_engine::net::tls::look::Unverified;

#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    /// For `doctor` alone: nobody knows who is at the other end, so nothing secret is ever written.
    Unverified(Box<Unverified<TcpStream>>),
}

impl Stream {
    /// Shakes hands with the one behind `authority` (`host:port`).
    pub(crate) fn secured(
        tls: &ClientTls,
        authority: &str,
        socket: TcpStream,
    ) -> io::Result<Stream> {
        let host = authority
            .rsplit_once(':')
            .map_or(authority, |(host, _)| host);
        let name = tls.server_name(host).map_err(io::Error::other)?;
        let connection =
            ClientConnection::new(tls.config().clone(), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, socket);
        // Here, so that what is wrong with a certificate is said before anything is sent.
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Stream::Tls(Box::new(stream)))
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
            Stream::Unverified(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
            Stream::Unverified(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(socket) => socket.flush(),
            Stream::Tls(stream) => stream.flush(),
            Stream::Unverified(stream) => stream.flush(),
        }
    }
}
