//! When each request is due, and who sends it.
//!
//! Closed loop: at once. Open loop: a dispatcher hands out tickets at fixed moments, in order, to whichever connection is
//! free; a ticket that finds none waits, and its request's latency counts from the ticket's moment all the same.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::{Arrivals, Live, Plan};

/// The moments of an open loop: evenly spaced from its start, never shifted by what happens meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    start: Instant,
    per_second: f64,
}

impl Schedule {
    /// `per_second` must be above zero.
    pub fn new(start: Instant, per_second: f64) -> Schedule {
        assert!(per_second > 0.0, "an open loop needs a rate");
        Schedule { start, per_second }
    }

    /// When request `number` is due. Computed from the start each time, so that no rounding adds up.
    pub fn due(&self, number: u64) -> Instant {
        self.start + Duration::from_secs_f64(number as f64 / self.per_second)
    }
}

/// The right, and the duty, to send one request. Dropping it says that the request is over.
#[derive(Debug)]
pub(super) struct Ticket {
    /// Latency counts from here.
    pub(super) from: Instant,
    in_flight: Rc<Cell<u64>>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.in_flight.set(self.in_flight.get() - 1);
    }
}

pub(super) struct Pace {
    per_second: Option<f64>,
    /// Tickets left to hand out; `None` = without end.
    left: Cell<Option<u64>>,
    due: RefCell<VecDeque<Instant>>,
    /// The dispatcher has handed out its last ticket.
    done: Cell<bool>,
    wake: Notify,
    in_flight: Rc<Cell<u64>>,
}

impl Pace {
    pub(super) fn new(plan: &Plan) -> Pace {
        Pace {
            per_second: match plan.arrivals {
                Arrivals::Closed => None,
                Arrivals::Open { per_second } => Some(per_second),
            },
            left: Cell::new((plan.requests > 0).then_some(plan.requests)),
            due: RefCell::default(),
            done: Cell::new(false),
            wake: Notify::new(),
            in_flight: Rc::default(),
        }
    }

    /// Requests that were started and are not over.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.get()
    }

    pub(super) fn wake_all(&self) {
        self.wake.notify_waiters();
    }

    pub(super) async fn next(&self, live: &Live) -> Option<Ticket> {
        if self.per_second.is_none() {
            return self.take().then(|| self.ticket(Instant::now()));
        }
        loop {
            // One thread and no await in between: nothing is missed between the look and the wait.
            let due = self.due.borrow_mut().pop_front();
            if let Some(from) = due {
                return Some(self.ticket(from));
            }
            if self.done.get() || live.stop.load(std::sync::atomic::Ordering::Relaxed) {
                return None;
            }
            self.wake.notified().await;
        }
    }

    fn ticket(&self, from: Instant) -> Ticket {
        self.in_flight.set(self.in_flight.get() + 1);
        Ticket {
            from,
            in_flight: self.in_flight.clone(),
        }
    }

    /// Takes one from what is left.
    fn take(&self) -> bool {
        match self.left.get() {
            None => true,
            Some(0) => false,
            Some(left) => {
                self.left.set(Some(left - 1));
                true
            }
        }
    }

    /// Hands out tickets when they are due, until the end of the run. Returns at once in a closed loop.
    pub(super) async fn dispatch(&self, live: &Live) {
        let Some(per_second) = self.per_second else {
            return;
        };
        let timer = match Timer::new() {
            Ok(timer) => timer,
            Err(error) => {
                eprintln!("no timer for an open loop: {error}");
                return live.stop();
            }
        };
        let schedule = Schedule::new(Instant::now(), per_second);
        let mut number = 0;
        while !live.stop.load(std::sync::atomic::Ordering::Relaxed) {
            let due = schedule.due(number);
            if let Some(early) = due
                .checked_duration_since(Instant::now())
                .filter(|early| !early.is_zero())
            {
                if timer.sleep(early).await.is_err() {
                    tokio::time::sleep(early).await;
                }
                continue;
            }
            if !self.take() {
                break;
            }
            self.due.borrow_mut().push_back(due);
            self.wake.notify_one();
            number += 1;
        }
        self.done.set(true);
        self.wake_all();
    }
}

/// Sleeps by the nanosecond. The runtime's own timers go by the millisecond, which would be the larger part of many of
/// the latencies that are to be measured.
#[derive(Debug)]
pub struct Timer {
    fd: AsyncFd<rustix::fd::OwnedFd>,
}

impl Timer {
    #[expect(
        deprecated,
        reason = "its successor is unsafe code; the doubt is about descriptors that change hands, and this one is owned"
    )]
    pub fn new() -> io::Result<Timer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Timer {
            fd: AsyncFd::new(rustix::time::timerfd_create(
                TimerfdClockId::Monotonic,
                flags,
            )?)?,
        })
    }

    /// Waits until then, or not at all.
    pub async fn until(&self, due: Instant) -> io::Result<()> {
        let early = due.saturating_duration_since(Instant::now());
        match early.is_zero() {
            true => Ok(()),
            false => self.sleep(early).await,
        }
    }

    async fn sleep(&self, time: Duration) -> io::Result<()> {
        let value = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().max(1).into(),
        };
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: value,
        };
        rustix::time::timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.fd.readable().await?;
            let mut expirations = [0u8; 8];
            match ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut expirations)?)) {
                Ok(read) => return read.map(drop),
                Err(_would_block) => continue,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Protocol;
    use crate::summary::Recorder;

    fn plan(per_second: f64, requests: u64) -> Plan {
        Plan {
            to: ([127, 0, 0, 1], 1).into(),
            host: "localhost".into(),
            paths: vec!["/".into()],
            headers: Vec::new(),
            protocol: Protocol::KeepAlive,
            tls: false,
            connections: 1,
            expect_body: 0,
            arrivals: Arrivals::Open { per_second },
            requests,
            duration: None,
        }
    }

    #[test]
    fn moments_are_evenly_spaced_and_do_not_drift() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 3.0);
        assert_eq!(schedule.due(0), start);
        let late = schedule.due(3_000_000) - start;
        assert!(
            late.abs_diff(Duration::from_secs(1_000_000)) < Duration::from_micros(1),
            "{late:?}"
        );
    }

    /// A server that stalls for a second under 100 requests a second has made a hundred requests wait, not one.
    #[test]
    fn a_stall_is_charged_to_every_request_that_was_due_in_it() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 100.0);
        let mut recorder = Recorder::default();
        // One connection, 1 ms an answer, except that nothing is answered in the first second.
        let mut free = start + Duration::from_secs(1);
        for number in 0..200 {
            let due = schedule.due(number);
            let done = free.max(due) + Duration::from_millis(1);
            recorder.answered(200, done - due);
            free = done;
        }
        let latency = recorder.summary(Duration::from_secs(2)).latency_micros;
        // 100 requests were due in the stall: half of all waited, evenly between a second and nothing.
        assert!(latency.p90 > 750_000.0, "p90 {}", latency.p90);
        assert!(latency.max > 1_000_000.0, "max {}", latency.max);
    }

    #[test]
    fn tickets_keep_their_moment_while_no_connection_is_free() {
        crate::thread::runtime().unwrap().block_on(async {
            let live = Live::default();
            let pace = Pace::new(&plan(10_000.0, 50));
            // Nobody takes a ticket until all are out.
            pace.dispatch(&live).await;
            let mut last: Option<Instant> = None;
            let mut taken = 0;
            while let Some(ticket) = pace.next(&live).await {
                if let Some(last) = last {
                    let gap = ticket.from - last;
                    assert!(
                        gap.abs_diff(Duration::from_micros(100)) < Duration::from_nanos(10),
                        "{gap:?}"
                    );
                }
                last = Some(ticket.from);
                taken += 1;
                assert_eq!(pace.in_flight(), 1);
            }
            assert_eq!((taken, pace.in_flight()), (50, 0));
        });
    }
}
