//! Bytes from one plain socket to another without a copy of them here: the kernel moves its own pages by way of a pipe. Two
//! system calls for each portion instead of two copies, so it is for portions that are large (`docs/benchmarks.md`).
//!
//! Pipes are lent by the worker like pieces, while bytes move; one that holds bytes belongs to its direction.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Asked of the kernel; it may give less.
const SIZE: usize = 256 * 1024;
/// Pipes that a worker keeps while nobody needs them.
const SPARE: usize = 8;

thread_local! {
    static PIPES: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

pub(super) struct Pipe {
    from: OwnedFd,
    into: OwnedFd,
    held: usize,
}

impl Pipe {
    /// `None`: there is no file descriptor left for one.
    pub(super) fn lend() -> Option<Pipe> {
        if let Some(pipe) = PIPES.with_borrow_mut(Vec::pop) {
            return Some(pipe);
        }
        let (from, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // A user has so many pages for pipes; beyond, they keep the size that they have.
        let _smaller_will_do = fcntl_setpipe_size(&into, SIZE);
        Some(Pipe {
            from,
            into,
            held: 0,
        })
    }

    /// Only an empty pipe is lent again.
    pub(super) fn give_back(self) {
        if self.held > 0 {
            return;
        }
        // Where the thread's own memory is gone already, the pipe goes, too.
        let _ending = PIPES.try_with(|pipes| {
            let mut pipes = pipes.borrow_mut();
            if pipes.len() < SPARE {
                pipes.push(self);
            }
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Fills an empty pipe; zero means the peer will send no more.
    pub(super) fn poll_fill(
        &mut self,
        source: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(source.poll_read_ready(cx))?;
            let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
            let moved = source.try_io(Interest::READABLE, || {
                Ok(splice(source, None, &self.into, None, SIZE, flags)?)
            });
            match moved {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(count) => {
                    self.held += count;
                    return Poll::Ready(Ok(count));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Moves some of what it holds on.
    pub(super) fn poll_empty(
        &mut self,
        sink: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(sink.poll_write_ready(cx))?;
            let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
            let moved = sink.try_io(Interest::WRITABLE, || {
                Ok(splice(&self.from, None, sink, None, self.held, flags)?)
            });
            match moved {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    self.held = self.held.saturating_sub(count);
                    return Poll::Ready(Ok(count));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}
