//! The end of a connection on which we had the last word while the client may still be sending.
//!
//! A socket that is closed with bytes unread is reset, and a reset may destroy what we said last on its way (RFC 9112
//! section 9.6; the same holds for a GOAWAY). So our side is closed first, and what still comes is read and dropped:
//! so much and so long, and no more.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(super) const TIME: Duration = Duration::from_secs(2);
const BYTES: usize = 8 << 20;

/// Ready when the client has ended its side too, or sent too much; `dropped` begins at zero.
pub(super) fn poll(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    dropped: &mut usize,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let _shows_at_the_read = ready!(Pin::new(&mut *stream).poll_shutdown(cx));
    let mut scrap = [0; 8 * 1024];
    while *dropped <= BYTES {
        let mut read = ReadBuf::new(&mut scrap);
        match ready!(Pin::new(&mut *stream).poll_read(cx, &mut read)) {
            Ok(()) if !read.filled().is_empty() => *dropped += read.filled().len(),
            Ok(()) | Err(_) => break,
        }
    }
    Poll::Ready(())
}
