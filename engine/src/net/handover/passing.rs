//! File descriptors across a Unix socket, and who is at its other end.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net as unix;

use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::geteuid;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Descriptors per message. Linux allows 253.
pub(super) const BATCH: usize = 64;

/// Whether the process at the other end is ours: same user, or root.
pub(super) fn trusted(stream: BorrowedFd<'_>) -> io::Result<()> {
    let peer = socket_peercred(stream)?;
    if peer.uid == geteuid() || peer.uid.is_root() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!(
            "handover: process {} belongs to another user",
            peer.pid.as_raw_nonzero()
        ),
    ))
}

/// Sends at most `BATCH` descriptors with one byte to carry them.
pub(super) async fn send(stream: &UnixStream, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    stream
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            sendmsg(
                stream,
                &[IoSlice::new(b".")],
                &mut control,
                SendFlags::NOSIGNAL,
            )?;
            Ok(())
        })
        .await
}

/// Receives one message of descriptors; none at the end of the stream. They do not survive `exec`.
pub(super) fn receive(stream: &unix::UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let message = recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other(
            "handover: not all sockets could be received; raise the limit of open files",
        ));
    }
    Ok(fds)
}
