//! Whether a silent peer still lives: the kernel asks, on every socket that we accepted or dialled (HI-39). A peer that
//! vanished without a word is found within two minutes, whether it owes us an acknowledgement or nothing at all.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// A silent peer is asked for a sign of life after this long…
const AFTER: Duration = Duration::from_secs(60);
/// …then this often…
const EVERY: Duration = Duration::from_secs(15);
/// …and is given up after so many questions without an answer: two minutes in all.
const RETRIES: u32 = 4;
/// What was sent and not acknowledged for so long never will be. While something is unacknowledged the kernel asks nobody
/// and only sends it again, by itself for a quarter of an hour.
const UNACKNOWLEDGED: Duration = Duration::from_secs(120);

pub(super) fn set(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(AFTER)
            .with_interval(EVERY)
            .with_retries(RETRIES),
    )?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}

#[cfg(test)]
pub(super) fn assert_set(socket: SockRef<'_>) {
    assert!(socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), AFTER);
    assert_eq!(socket.tcp_keepalive_interval().unwrap(), EVERY);
    assert_eq!(socket.tcp_keepalive_retries().unwrap(), RETRIES);
    assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED));
}
