//! The signals of this process: those that end it, and those that are somebody else's to understand. From here on none
//! of them ends the process by itself.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::task::Poll;

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::sync::watch;

/// What somebody outside wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// An end, and the signal that said so.
    Stop(Signal),
    Other(Signal),
}

pub(crate) struct Signals {
    streams: Vec<(Signal, Stream)>,
    /// How often an end was asked for after the first time. Whoever waits holds the other end.
    hurry: watch::Sender<u32>,
}

/// Whether somebody is in a hurry.
#[derive(Clone)]
pub(crate) struct Hurry {
    count: watch::Receiver<u32>,
    /// So often was no hurry yet.
    patient: u32,
}

const STOP: [Signal; 2] = [Signal::TERM, Signal::INT];
const OTHER: [Signal; 5] = [
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
];

impl Signals {
    pub(crate) fn new() -> io::Result<Signals> {
        let all = STOP.iter().chain(&OTHER).map(|which| {
            let kind = SignalKind::from_raw(which.as_raw());
            Ok((*which, signal(kind)?))
        });
        Ok(Signals {
            streams: all.collect::<io::Result<_>>()?,
            hurry: watch::Sender::new(0),
        })
    }

    /// The next one; an end goes first. May be dropped and called again, and nothing is lost.
    pub(crate) async fn next(&mut self) -> Wish {
        poll_fn(|cx| {
            for (which, stream) in &mut self.streams {
                if let Poll::Ready(Some(())) = stream.poll_recv(cx) {
                    return Poll::Ready(match STOP.contains(which) {
                        true => Wish::Stop(*which),
                        false => Wish::Other(*which),
                    });
                }
            }
            Poll::Pending
        })
        .await
    }

    pub(crate) fn hurry(&self) -> Hurry {
        Hurry {
            count: self.hurry.subscribe(),
            patient: 0,
        }
    }

    /// Hears what comes while an end is on its way: who asks once more is in a hurry.
    pub(crate) async fn listen(&mut self, other: impl Fn(Signal)) -> Infallible {
        loop {
            match self.next().await {
                Wish::Stop(_) => self
                    .hurry
                    .send_modify(|count| *count = count.saturating_add(1)),
                Wish::Other(signal) => other(signal),
            }
        }
    }
}

impl Hurry {
    pub(crate) fn is_on(&self) -> bool {
        *self.count.borrow() > self.patient
    }

    /// Waits for this, or for a hurry.
    pub(crate) async fn or<T>(&self, waiting: impl Future<Output = T>) -> Option<T> {
        let (mut count, patient) = (self.count.clone(), self.patient);
        tokio::select! {
            biased;
            Ok(_) = count.wait_for(|count| *count > patient) => None,
            done = waiting => Some(done),
        }
    }

    /// Only who asks after this is in a hurry.
    pub(crate) fn afresh(&self) -> Hurry {
        Hurry {
            count: self.count.clone(),
            patient: *self.count.borrow(),
        }
    }
}
