//! Who waits for a permit, and who of them is next: the more important first; among equals the one who has waited
//! longest, as long as the queue is what it should be, a place where bursts are smoothed out.
//!
//! A queue that has not been empty for as long as anybody may wait smooths nothing any more: it stands, and all it does
//! is to make everybody late. First come, first served would then serve each request just before its time is over, when
//! its caller is about to give up. So a standing queue serves the newest first: most are served at once, and those that
//! are lost are those that were lost anyway (adaptive LIFO; see docs/operations.md).
//!
//! Pure: `now` is an argument, and is needed by those who join only.

use std::collections::BTreeMap;

use tollgate_config::Priority;

use crate::upstream::moment::Moment;

/// Least important first.
const ASCENDING: [Priority; 3] = [Priority::Sheddable, Priority::Default, Priority::Critical];

#[derive(Debug)]
pub(super) struct Queue<W> {
    /// By priority, then in the order of coming.
    lanes: [BTreeMap<u64, W>; 3],
    len: usize,
    next: u64,
    /// When the first of an unbroken row of waiters came.
    busy_since: Moment,
    newest_first: bool,
}

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Queue {
            lanes: Default::default(),
            len: 0,
            next: 0,
            busy_since: Moment::LONG_AGO,
            newest_first: false,
        }
    }
}

impl<W> Queue<W> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// By priority.
    pub(super) fn lengths(&self) -> [u64; 3] {
        [0, 1, 2].map(|lane| self.lanes[lane].len() as u64)
    }

    /// Joins; the ticket is for leaving early. `patience` is how long one may wait, in nanoseconds.
    pub(super) fn push(
        &mut self,
        priority: Priority,
        waiter: W,
        now: Moment,
        patience: u64,
    ) -> u64 {
        if self.len == 0 {
            self.busy_since = now;
            self.newest_first = false;
        } else if now.since(self.busy_since) > patience {
            self.newest_first = true;
        }
        let ticket = self.next;
        self.next += 1;
        self.len += 1;
        self.lanes[priority as usize].insert(ticket, waiter);
        ticket
    }

    /// The next to be served.
    pub(super) fn pop(&mut self) -> Option<W> {
        let newest_first = self.newest_first;
        let lane = self.lanes.iter_mut().find(|lane| !lane.is_empty())?;
        let (_, waiter) = if newest_first {
            lane.pop_last()?
        } else {
            lane.pop_first()?
        };
        self.len -= 1;
        Some(waiter)
    }

    /// The one who would be served last of all those less important than `priority`.
    pub(super) fn displace(&mut self, priority: Priority) -> Option<(Priority, W)> {
        let newest_first = self.newest_first;
        let theirs = ASCENDING.into_iter().find(|&theirs| {
            theirs as usize > priority as usize && !self.lanes[theirs as usize].is_empty()
        })?;
        let lane = &mut self.lanes[theirs as usize];
        let (_, waiter) = if newest_first {
            lane.pop_first()?
        } else {
            lane.pop_last()?
        };
        self.len -= 1;
        Some((theirs, waiter))
    }

    /// Leaves early; `None` when it is not in line any more.
    pub(super) fn remove(&mut self, priority: Priority, ticket: u64) -> Option<W> {
        let waiter = self.lanes[priority as usize].remove(&ticket)?;
        self.len -= 1;
        Some(waiter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const PATIENCE: u64 = 100 * MS;

    fn at(ms: u64) -> Moment {
        Moment(3_600_000 * MS + ms * MS)
    }

    fn drained(queue: &mut Queue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn the_important_come_first_and_equals_in_the_order_of_coming() {
        let mut queue = Queue::default();
        for (priority, name) in [
            (Priority::Sheddable, "s1"),
            (Priority::Default, "d1"),
            (Priority::Critical, "c1"),
            (Priority::Default, "d2"),
            (Priority::Critical, "c2"),
        ] {
            queue.push(priority, name, at(0), PATIENCE);
        }
        assert_eq!(queue.lengths(), [2, 2, 1]);
        assert_eq!(drained(&mut queue), ["c1", "c2", "d1", "d2", "s1"]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn a_queue_that_stands_serves_the_newest_and_an_empty_one_begins_anew() {
        let mut queue = Queue::default();
        queue.push(Priority::Default, "first", at(0), PATIENCE);
        queue.push(Priority::Default, "second", at(99), PATIENCE);
        assert_eq!(queue.pop(), Some("first"), "a burst");
        queue.push(Priority::Default, "third", at(101), PATIENCE);
        queue.push(Priority::Critical, "important", at(101), PATIENCE);
        assert_eq!(drained(&mut queue), ["important", "third", "second"]);
        queue.push(Priority::Default, "fourth", at(102), PATIENCE);
        queue.push(Priority::Default, "fifth", at(103), PATIENCE);
        assert_eq!(drained(&mut queue), ["fourth", "fifth"]);
    }

    #[test]
    fn who_makes_room_is_the_least_important_that_would_be_served_last() {
        let mut queue = Queue::default();
        queue.push(Priority::Default, "d", at(0), PATIENCE);
        queue.push(Priority::Sheddable, "s1", at(0), PATIENCE);
        queue.push(Priority::Sheddable, "s2", at(0), PATIENCE);
        assert_eq!(queue.displace(Priority::Sheddable), None);
        let shed = [(); 3].map(|()| queue.displace(Priority::Critical).map(|(_, name)| name));
        assert_eq!(shed, [Some("s2"), Some("s1"), Some("d")]);
        assert_eq!(queue.displace(Priority::Critical), None);
        queue.push(Priority::Sheddable, "old", at(200), PATIENCE);
        queue.push(Priority::Sheddable, "new", at(400), PATIENCE);
        assert_eq!(
            queue.displace(Priority::Default),
            Some((Priority::Sheddable, "old")),
            "the queue stands, so the oldest would be last"
        );
    }

    #[test]
    fn who_left_is_not_served() {
        let mut queue = Queue::default();
        let ticket = queue.push(Priority::Default, "gone", at(0), PATIENCE);
        queue.push(Priority::Default, "here", at(0), PATIENCE);
        assert_eq!(queue.remove(Priority::Default, ticket), Some("gone"));
        assert_eq!(queue.remove(Priority::Default, ticket), None);
        assert_eq!(drained(&mut queue), ["here"]);
    }
}
