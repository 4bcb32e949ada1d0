//! What becomes of an HTTP/2 request whose answer was there before its body: a 404, a 413, a redirect for an upload.
//!
//! The answer is whole, so the stream may be reset with NO_ERROR (RFC 9113, 8.1). A reset in the same flight as the
//! answer makes clients that are busy sending report a broken stream instead of the answer (curl 7.88 among them;
//! HI-47). So the stream is held open a moment longer. What still arrives is dropped and costs nothing but the
//! stream's place among those that the client may have open.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use h2::RecvStream;
use tokio::runtime::Handle;

/// Long enough for a client to read an answer that has arrived.
const LINGER: Duration = Duration::from_millis(500);

/// Holds the stream open for a moment, unless the client has ended or reset it. Only on a worker: anywhere else, and
/// when the worker ends, the stream is just let go.
pub(super) fn linger(stream: &mut RecvStream) {
    if stream.is_end_stream() || Handle::try_current().is_err() {
        return;
    }
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        match stream.poll_data(&mut cx) {
            Poll::Ready(Some(Ok(data))) => {
                let _closed_streams_need_no_window =
                    stream.flow_control().release_capacity(data.len());
            }
            Poll::Ready(Some(Err(_)) | None) => return,
            Poll::Pending => break,
        }
    }
    // Any handle of a stream keeps it from being reset; without its reader, data is dropped as it comes.
    let handle = stream.flow_control().clone();
    tokio::task::spawn_local(async move {
        tokio::time::sleep(LINGER).await;
        drop(handle);
    });
}
