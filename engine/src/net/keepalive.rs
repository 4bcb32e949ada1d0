//! Whether a silent peer still lives: the kernel asks, on every socket that we accepted or dialled (HI-39). A peer that
//! vanished without a word is found within two minutes.
//!
//! No `TCP_USER_TIMEOUT`: it would find a peer that owes an acknowledgement in two minutes, too, where the kernel by itself
//! sends again for a quarter of an hour; but it also cuts off a peer that lives, acknowledges, and does not read for so
//! long (`tcp_probe_timer` in Linux; tried). How long nothing may move is for the time-outs of the document to say.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// A silent peer is asked for a sign of life after this long…
const AFTER: Duration = Duration::from_secs(60);
/// …then this often…
const EVERY: Duration = Duration::from_secs(15);
/// …and is given up after so many questions without an answer: two minutes in all.
const RETRIES: u32 = 4;

pub(super) fn set(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(AFTER)
            .with_interval(EVERY)
            .with_retries(RETRIES),
    )
}

#[cfg(test)]
pub(super) fn assert_set(socket: SockRef<'_>) {
    assert!(socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), AFTER);
    assert_eq!(socket.tcp_keepalive_interval().unwrap(), EVERY);
    assert_eq!(socket.tcp_keepalive_retries().unwrap(), RETRIES);
    // A reader that pauses is not dead.
    assert_eq!(socket.tcp_user_timeout().unwrap(), None);
}
