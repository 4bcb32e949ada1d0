//! The mass-loss guard: a service is never shrunk by more than a share of it per interval, unless somebody confirms
//! that the instances are gone. When a network fails between the registry and a thousand healthy instances, all of them
//! fall silent at once, and the registry is the one that must not believe it. A service always may lose one instance.

use std::collections::VecDeque;
use std::time::Duration;

use tollgate_config::control_plane::Registry as Lifecycle;

/// The unconfirmed losses of one service.
#[derive(Debug, Default)]
pub(super) struct Guard {
    /// When each happened, oldest first; bounded by what an interval admits.
    losses: VecDeque<Duration>,
}

impl Guard {
    /// How many more may leave now; `shown` are in lookups.
    pub(super) fn allowance(&self, lifecycle: &Lifecycle, shown: usize, heard: Duration) -> usize {
        let recent = { self.losses.iter() }
            .filter(|at| heard < **at + lifecycle.loss_interval)
            .count();
        // Both are far below 2^52, and the share is at most 1.
        let share = ((shown + recent) as f64 * lifecycle.loss_share) as usize;
        share.max(1).saturating_sub(recent)
    }

    pub(super) fn note(&mut self, lifecycle: &Lifecycle, heard: Duration) {
        while { self.losses.front() }.is_some_and(|at| heard >= *at + lifecycle.loss_interval) {
            self.losses.pop_front();
        }
        self.losses.push_back(heard);
    }

    /// One that was lost then came back: the service is not the smaller for it.
    pub(super) fn forgive(&mut self, lost: Duration) {
        if let Some(at) = self.losses.iter().position(|at| *at == lost) {
            self.losses.remove(at);
        }
    }

    /// When the next one may leave, if none may now.
    pub(super) fn next_free(&self, lifecycle: &Lifecycle, heard: Duration) -> Option<Duration> {
        let mut ends = self.losses.iter().map(|at| *at + lifecycle.loss_interval);
        ends.find(|end| *end > heard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_a_service_may_leave_in_an_interval_and_one_always_may() {
        let lifecycle = Lifecycle::default();
        let at = Duration::from_secs;
        let mut guard = Guard::default();
        assert_eq!(guard.allowance(&lifecycle, 1, at(0)), 1);
        assert_eq!(guard.allowance(&lifecycle, 10, at(0)), 3);
        guard.note(&lifecycle, at(0));
        guard.note(&lifecycle, at(1));
        assert_eq!(guard.allowance(&lifecycle, 8, at(2)), 1);
        guard.note(&lifecycle, at(2));
        assert_eq!(guard.allowance(&lifecycle, 7, at(59)), 0);
        assert_eq!(guard.next_free(&lifecycle, at(59)), Some(at(60)));
        assert_eq!(
            guard.allowance(&lifecycle, 7, at(60)),
            0,
            "2.7 of 9, and 2 are gone"
        );
        assert_eq!(guard.allowance(&lifecycle, 7, at(61)), 1);
    }
}
