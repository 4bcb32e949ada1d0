//! The world's own books: what must hold after every call, whatever it was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{List, SERVICES, World};
use crate::registry::{Cause, Effects, Outcome, State, What};

impl World {
    pub(super) fn books(
        &mut self,
        before: &BTreeMap<Arc<str>, List>,
        effects: &Effects,
        left: &[Arc<str>],
    ) {
        let seed = self.seed;
        let after = self.lists();
        let removals: BTreeMap<&Arc<str>, Cause> = { effects.events.iter() }
            .filter(|event| event.what == What::Removed)
            .map(|event| (&event.id, event.cause))
            .collect();
        // Nobody is gone without a line in the audit log; nobody who gave a sign is gone at all.
        for removed in &effects.removed {
            let cause = removals[&removed.id];
            assert_ne!(
                cause,
                Cause::Observed,
                "seed {seed}: nobody is removed by observation"
            );
            let truth = self.truths.remove(&removed.id).expect("known");
            let age = self.listened - truth.last_sign;
            let least = match cause {
                Cause::Replaced => self.rules.lifecycle.suspect_after,
                _ => self.rules.lifecycle.service_timeout,
            };
            assert!(
                age >= least.as_millis() as u64,
                "seed {seed}: {} removed by {cause} {age} ms after its last sign",
                removed.id
            );
        }
        let known: BTreeSet<&Arc<str>> = self.truths.keys().collect();
        let there: BTreeSet<&Arc<str>> = self.registry.ids.keys().collect();
        assert_eq!(
            known, there,
            "seed {seed}: somebody came or went without a word"
        );
        for name in SERVICES.map(Arc::<str>::from) {
            let none: List = (0, Vec::new());
            let was = before.get(&name).unwrap_or(&none);
            let is = after.get(&name).unwrap_or(&none);
            self.versions(&name, was, is, effects);
            self.shrunk(&name, was, is, left, &removals);
            if !after.contains_key(&name) {
                // A name that was dropped is forgotten, losses and all.
                self.losses.remove(&name);
            }
            if let Some(service) = self.registry.services.get(&name) {
                assert_eq!(service.shown, is.1.len(), "seed {seed}");
                for entry in service.entries.values() {
                    assert!(!entry.held || (entry.shown && entry.state == State::Suspected));
                    assert_eq!(entry.shown, entry.serves(), "seed {seed}");
                    assert!(
                        self.registry
                            .agenda
                            .contains(&(entry.due, entry.record.id.clone()))
                    );
                }
            }
            for (record, state) in &is.1 {
                assert!(
                    matches!(state, State::Active | State::Suspected),
                    "seed {seed}"
                );
                assert!(record.health.serves(), "seed {seed}");
            }
            assert!(
                is.1.is_sorted_by_key(|(record, _)| record.health as u8),
                "seed {seed}"
            );
        }
        assert_eq!(
            self.registry.agenda.len(),
            self.registry.ids.len(),
            "seed {seed}"
        );
        self.highest = self.highest.max(self.registry.highest_version());
    }

    /// One version more if, and only if, the list reads differently.
    fn versions(&self, name: &Arc<str>, was: &List, is: &List, effects: &Effects) {
        let seed = self.seed;
        let same = was.1.len() == is.1.len() && { was.1.iter().zip(&is.1) }
            .all(|((one, _), (other, _))| one.id == other.id && one.reads_like(other));
        let told: Vec<_> = { effects.changes.iter() }
            .filter(|change| change.service == *name)
            .collect();
        match told.as_slice() {
            [] => assert!(same, "seed {seed}: {name} changed and nobody was told"),
            [change] => {
                assert!(!same, "seed {seed}: {name} did not change");
                assert_eq!(change.version, is.0, "seed {seed}");
                if was.0 > 0 {
                    assert_eq!(is.0, was.0 + 1, "seed {seed}");
                }
                assert!(is.0 > was.0);
            }
            more => panic!("seed {seed}: told {} times", more.len()),
        }
    }

    /// Whoever left the list without a request or a confirmation counts against the share.
    fn shrunk(
        &mut self,
        name: &Arc<str>,
        was: &List,
        is: &List,
        left: &[Arc<str>],
        removals: &BTreeMap<&Arc<str>, Cause>,
    ) {
        let interval = self.rules.lifecycle.loss_interval.as_millis() as u64;
        let (seed, listened) = (self.seed, self.listened);
        let losses = self.losses.entry(name.clone()).or_default();
        losses.retain(|at| listened < at + interval);
        // Who came back is no loss.
        for (record, _) in &is.1 {
            let lost = self.truths.get_mut(&record.id).and_then(|t| t.lost.take());
            if let Some(at) = lost.and_then(|lost| losses.iter().position(|at| *at == lost)) {
                losses.remove(at);
            }
        }
        let before = losses.len();
        let size = was.1.len() + before;
        for (record, _) in &was.1 {
            if left.contains(&record.id) || is.1.iter().any(|(other, _)| other.id == record.id) {
                continue;
            }
            let confirmed = match self.truths.get(&record.id) {
                Some(truth) => truth.confirmed || truth.last_probe == Some(Outcome::Refused),
                None => removals.get(&record.id) == Some(&Cause::Replaced),
            };
            if !confirmed {
                losses.push(listened);
                if let Some(truth) = self.truths.get_mut(&record.id) {
                    truth.lost = Some(listened);
                }
            }
        }
        let most = ((size as f64 * self.rules.lifecycle.loss_share) as usize).max(1);
        assert!(
            losses.len() <= most || losses.len() == before,
            "seed {seed}: {name} lost {} of {size} at {listened}: {losses:?}\n{was:#?}\n{is:#?}",
            losses.len()
        );
    }
}
