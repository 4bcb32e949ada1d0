//! Which sagas this process drives, and waiting for the end of one, whoever drives it. Nothing here drives or decides.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use uuid::Uuid;

use super::{conductor::Conductor, sagas};
use crate::kit::refusal::Refusal;

/// Between two looks at a saga that somebody else drives, at first. It doubles.
const LOOK: Duration = Duration::from_millis(10);

/// The longest of these.
const LOOK_MOST: Duration = Duration::from_millis(250);

/// The tasks of this process. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Running(Arc<Mutex<HashMap<Uuid, Task>>>);

/// The lease that it drives under, and its end: the sender is with the task, whose end closes it.
type Task = (Uuid, watch::Receiver<()>);

impl Running {
    fn tasks(&self) -> MutexGuard<'_, HashMap<Uuid, Task>> {
        // Nothing that can panic is done with it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A task begins. What it gets is to be dropped when it ends.
    pub(super) fn begin(&self, order: Uuid, lease: Uuid) -> watch::Sender<()> {
        let (ended, end) = watch::channel(());
        self.tasks().insert(order, (lease, end));
        ended
    }

    /// A task has ended. One that lost its lease leaves the task alone that has the saga now.
    pub(super) fn end(&self, order: Uuid, lease: Uuid) {
        let mut tasks = self.tasks();
        if tasks.get(&order).is_some_and(|(held, _)| *held == lease) {
            tasks.remove(&order);
        }
    }

    /// Whether the order's saga is driven here.
    pub(super) fn has(&self, order: Uuid) -> bool {
        self.tasks().contains_key(&order)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.tasks().len()
    }

    fn of(&self, order: Uuid) -> Option<watch::Receiver<()>> {
        self.tasks().get(&order).map(|(_, end)| end.clone())
    }
}

impl Conductor {
    /// How many more sagas may be driven.
    pub(super) fn room(&self) -> usize {
        self.most.saturating_sub(self.running.count())
    }

    /// Whether there is room for one more.
    pub fn admit(&self) -> Result<(), Refusal> {
        if self.room() > 0 {
            return Ok(());
        }
        Err(Refusal::unavailable(
            "too many orders are under way; send it again",
            Duration::from_secs(1),
        ))
    }

    /// Waits until the order's saga has ended, whoever drives it, or the time is over.
    ///
    /// A task of ours says when it is through. Before it begins (its request is committed first, and may be found by its
    /// twin), when it halts, and while another process has the saga, only the table tells.
    pub async fn wait(&self, order: Uuid, within: Duration) {
        let ended = async {
            let mut pause = LOOK;
            loop {
                if let Some(mut end) = self.running.of(order) {
                    // Nothing is ever sent: it closes.
                    end.changed().await.ok();
                }
                // An error is told to whoever reads next, which is for the answer.
                if !sagas::is_open(&self.database, order).await.unwrap_or(false) {
                    return;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LOOK_MOST);
            }
        };
        tokio::time::timeout(within, ended).await.ok();
    }

    /// Waits until nothing is driven here any more, or the time is over. What is cut then is picked up at the next start.
    pub async fn rest(&self, within: Duration) {
        let ends: Vec<_> = self.running.tasks().values().cloned().collect();
        let all = async {
            for (_, mut end) in ends {
                end.changed().await.ok();
            }
        };
        tokio::time::timeout(within, all).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A task that was too slow for its lease, and ends after another one took the saga over in this same process.
    #[test]
    fn a_task_that_lost_its_saga_does_not_end_its_successor() {
        let (running, order) = (Running::default(), Uuid::new_v4());
        let [first, second] = [Uuid::new_v4(), Uuid::new_v4()];
        let _one = running.begin(order, first);
        let _other = running.begin(order, second);
        running.end(order, first);
        assert!(running.has(order), "the second still drives it");
        running.end(order, second);
        assert_eq!(running.count(), 0);
    }
}
