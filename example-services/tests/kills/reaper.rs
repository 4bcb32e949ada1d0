//! Kills one service again and again: at the places of its plans, and between two of them at a random moment.

use std::{
    fmt,
    time::{Duration, Instant},
};

use fastrand::Rng;

use crate::support::shop::Service;

/// How long a place may not be passed before the service dies where it is.
const DULL: Duration = Duration::from_secs(3);

/// How often it died.
pub(crate) struct Tally {
    name: &'static str,
    at_places: usize,
    at_random: usize,
    missed: Vec<String>,
}

impl Tally {
    pub(crate) fn kills(&self) -> usize {
        self.at_places + self.at_random
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            at_places,
            at_random,
            missed,
        } = self;
        write!(
            out,
            "{name}: died at {at_places} marked places and {at_random} random moments; not passed in time: {missed:?}"
        )
    }
}

/// Does what the plans say. The service runs undisturbed when this is over.
pub(crate) fn reap(
    name: &'static str,
    mut service: Service,
    plans: Vec<String>,
    seed: u64,
) -> (Service, Tally) {
    let mut rng = Rng::with_seed(seed ^ name.len() as u64);
    let mut tally = Tally {
        name,
        at_places: 0,
        at_random: 0,
        missed: Vec::new(),
    };
    for plan in plans {
        // The one before runs for a moment, then dies wherever it is.
        let moment = Duration::from_millis(rng.u64(20..400));
        runs(&mut service, moment);
        service.kill();
        tally.at_random += 1;
        service.start(Some(&plan));
        if runs(&mut service, DULL) {
            service.kill();
            tally.at_random += 1;
            tally.missed.push(plan);
        } else {
            tally.at_places += 1;
        }
        service.start(None);
    }
    (service, tally)
}

/// Whether it still runs after this long. Looks again and again.
fn runs(service: &mut Service, span: Duration) -> bool {
    let end = Instant::now() + span;
    while Instant::now() < end {
        if service.is_dead() {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    true
}
