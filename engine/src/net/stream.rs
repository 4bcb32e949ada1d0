//! A socket, plain or under TLS, as one enum: never boxed behind a trait, so that a read on the hot path is a branch
//! and not a virtual call. Knows bytes only; deadlines belong to `Alarm`, meaning belongs to the codecs.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::tls::of_client;

/// One connection to a client or to an endpoint.
pub enum Stream {
    Plain(TcpStream),
    /// We are the TLS server.
    Server(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// We are the TLS client.
    Client(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Stream {
    pub fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Server(tls) => tls.get_ref().0,
            Stream::Client(tls) => tls.get_ref().0,
        }
    }

    /// The certificates that the other side showed.
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        match self {
            Stream::Plain(_) => None,
            Stream::Server(tls) => tls.get_ref().1.peer_certificates(),
            Stream::Client(tls) => tls.get_ref().1.peer_certificates(),
        }
    }

    pub fn is_tls(&self) -> bool {
        !matches!(self, Stream::Plain(_))
    }

    /// Reads into `buffer`; zero means the peer will send no more.
    pub fn poll_read_into(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut read = ReadBuf::new(buffer);
        ready!(Pin::new(self).poll_read(cx, &mut read))?;
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Whether a connection that owes us nothing has indeed sent nothing, not even its end. It asks what the poller has
    /// already seen, so a close that is still on its way is found by the next use; only after a read that filled its
    /// buffer to the brim, when the poller cannot know, does it cost a system call.
    pub fn is_quiet(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let socket = self.socket();
        socket.poll_read_ready(&mut cx).is_pending()
            || socket
                .try_read(&mut [0])
                .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Stream::Server(tls) => Pin::new(tls.as_mut()).poll_read(cx, buffer),
            // A member that refused us says so in the first bytes that are read.
            Stream::Client(tls) => {
                { Pin::new(tls.as_mut()).poll_read(cx, buffer) }.map_err(of_client)
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Stream::Server(tls) => Pin::new(tls.as_mut()).poll_write(cx, bytes),
            Stream::Client(tls) => Pin::new(tls.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, bytes),
            Stream::Server(tls) => Pin::new(tls.as_mut()).poll_write_vectored(cx, bytes),
            Stream::Client(tls) => Pin::new(tls.as_mut()).poll_write_vectored(cx, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Stream::Server(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
            Stream::Client(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Stream::Server(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
            Stream::Client(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
        }
    }
}
