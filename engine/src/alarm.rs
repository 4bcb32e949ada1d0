//! One timer for a whole task: a connection or a stream waits for many deadlines in its life, one after another.
//!
//! Arming and disarming a runtime timer for each of them costs more than the waiting. An `Alarm` keeps one timer and
//! moves it only when a deadline is *earlier* than what is armed, or when the armed one fires too soon; a busy
//! keep-alive connection touches the timer once per time-out, not once per request. Nothing here knows what a
//! deadline is for.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::time::Sleep;

/// A lazily moved timer, owned by one task.
#[derive(Default)]
pub struct Alarm {
    sleep: RefCell<Option<Pin<Box<Sleep>>>>,
    /// Who is woken; a task polled through another waker re-registers.
    waker: RefCell<Option<Waker>>,
}

/// The deadline passed before the future was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

impl Alarm {
    /// Ready once `when` has passed; otherwise the task is woken at `when` or a little earlier.
    pub fn poll_at(&self, when: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let mut slot = self.sleep.borrow_mut();
        let sleep = slot.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(when.into())));
        if when < sleep.deadline().into_std() {
            sleep.as_mut().reset(when.into());
            self.waker.replace(None);
        } else if sleep.is_elapsed() {
            if Instant::now() >= when {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(when.into());
            self.waker.replace(None);
        }
        let mut waker = self.waker.borrow_mut();
        if waker
            .as_ref()
            .is_none_or(|known| !known.will_wake(cx.waker()))
        {
            if sleep.as_mut().poll(cx).is_ready() && Instant::now() >= when {
                return Poll::Ready(());
            }
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Runs `future` until it is done or `when` has passed; the future is polled first. Without a deadline it only
    /// runs the future. Dropping the returned future drops `future`.
    pub async fn until<F: Future>(
        &self,
        when: Option<Instant>,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            match when {
                Some(when) => self.poll_at(when, cx).map(|()| Err(Elapsed)),
                None => Poll::Pending,
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_earlier_deadline_moves_the_timer_and_a_later_one_waits_for_its_own() {
        let alarm = Alarm::default();
        let start = Instant::now();
        let far = alarm.until(
            Some(start + Duration::from_secs(3600)),
            std::future::ready(7),
        );
        assert_eq!(far.await, Ok(7));
        for millis in [20, 40] {
            let when = start + Duration::from_millis(millis);
            assert_eq!(
                alarm.until(Some(when), std::future::pending::<()>()).await,
                Err(Elapsed)
            );
            assert!(Instant::now() >= when);
        }
    }
}
