//! Several things at once, each on a thread of its own, for a bounded time: whoever hangs holds nobody else up, and is missing
//! in the end. What hangs is left behind; the process ends soon.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

pub(super) type Job<T> = Box<dyn FnOnce() -> T + Send>;

/// What each of them came to, in their order; `None`: nothing in this time.
pub(super) fn all<T: Send + 'static>(jobs: Vec<Job<T>>, limit: Duration) -> Vec<Option<T>> {
    let began = Instant::now();
    let (done, came) = mpsc::channel();
    let mut results: Vec<Option<T>> = jobs.iter().map(|_| None).collect();
    for (number, job) in jobs.into_iter().enumerate() {
        let done = done.clone();
        let run = move || {
            // Whoever waits may have given up.
            let _nobody_waits = done.send((number, job()));
        };
        // Without a thread there is no result, as with one that hangs.
        let _no_thread = thread::Builder::new().spawn(run);
    }
    drop(done);
    while let Ok((number, result)) = came.recv_timeout(limit.saturating_sub(began.elapsed())) {
        if let Some(place) = results.get_mut(number) {
            *place = Some(result);
        }
    }
    results
}

/// One of them.
pub(super) fn one<T: Send + 'static>(
    limit: Duration,
    job: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    all(vec![Box::new(job) as Job<T>], limit).pop().flatten()
}

#[cfg(test)]
mod tests {
    use tollgate_engine::testing::PATIENCE;

    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        let jobs: Vec<Job<u32>> = vec![Box::new(|| 1), Box::new(|| 3)];
        assert_eq!(all(jobs, PATIENCE), [Some(1), Some(3)]);
    }

    #[test]
    fn whoever_hangs_is_missing_in_the_end() {
        let (_kept, never) = mpsc::channel::<()>();
        let hangs = move || never.recv();
        assert!(one(Duration::from_millis(1), hangs).is_none());
    }
}
