//! How the registry changes: an entry is put in or taken out, made what the evidence says, and written into the agenda;
//! at the end of a call every list that reads differently has a new version.

use std::sync::Arc;
use std::time::Duration;

use super::effects::{Change, Event, Order, What};
use super::entry::{Entry, Verdict};
use super::record::{Cause, Record, State};
use super::service::Service;
use super::{Now, Registry, Rules};

impl Registry {
    /// Puts an entry in, or in the place of the one with its id.
    pub(super) fn put(&mut self, rules: &Rules, entry: Entry) {
        let record = entry.record.clone();
        let floor = self.floor;
        let service =
            { self.services.entry(record.name.clone()) }.or_insert_with(|| Service::new(floor));
        self.ids.insert(record.id.clone(), record.name.clone());
        let id = record.id.clone();
        self.effects.stirred.insert(record.name.clone());
        let shown = entry.shown;
        if let Some(former) = service.entries.insert(id.clone(), entry) {
            if shown && !former.record.reads_like(&record) {
                self.touched.insert(record.name.clone());
            }
            self.leave_address(&former.record);
        }
        let there = self.addresses.entry(record.address.clone()).or_default();
        there.push(id);
        debug_assert!(there.len() <= rules.lifecycle.max_instances);
    }

    fn leave_address(&mut self, record: &Record) {
        if let Some(there) = self.addresses.get_mut(&record.address) {
            there.retain(|id| *id != record.id);
            if there.is_empty() {
                self.addresses.remove(&record.address);
            }
        }
    }

    /// An address belongs to whoever registered last: others there that no longer beat were its former owners.
    pub(super) fn replace_silent(
        &mut self,
        rules: &Rules,
        record: &Record,
        heard: Duration,
        now: Now,
    ) {
        let there = self.addresses.get(&record.address);
        let former: Vec<_> = { there.into_iter().flatten() }
            .filter(|id| **id != record.id)
            .filter(|id| {
                let silent = |entry: &Entry| entry.age(heard) >= rules.lifecycle.suspect_after;
                self.entry(id).is_some_and(silent)
            })
            .cloned()
            .collect();
        for id in former {
            self.lose(&id, Cause::Replaced, now);
        }
    }

    /// Removes an instance by our own decision.
    pub(super) fn lose(&mut self, id: &str, cause: Cause, now: Now) {
        if let Some(entry) = self.remove(id) {
            let record = entry.record;
            let from = Some((entry.state, None));
            self.event(&record, What::Removed, cause, from, None, now);
            self.effects.removed.push(record);
        }
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<Entry> {
        let name = self.ids.remove(id)?;
        let service = self.services.get_mut(&name)?;
        let entry = service.entries.remove(id)?;
        self.effects.stirred.insert(name.clone());
        if entry.shown {
            service.shown -= 1;
            self.touched.insert(name);
        }
        self.agenda.remove(&(entry.due, entry.record.id.clone()));
        self.leave_address(&entry.record);
        Some(entry)
    }

    /// Makes one instance what the evidence says, orders its probe, and writes it into the agenda.
    pub(super) fn settle(&mut self, rules: &Rules, id: &Arc<str>, heard: Duration, now: Now) {
        let Some(name) = self.ids.get(id).cloned() else {
            return;
        };
        let Some(service) = self.services.get_mut(&name) else {
            return;
        };
        let users = service.users(rules, heard);
        let Some(entry) = service.entries.get_mut(id) else {
            return;
        };
        let (mut state, cause) = match entry.verdict(rules, users, heard) {
            Verdict::Remove(cause) => return self.lose(id, cause, now),
            Verdict::Be(state, cause) => (state, cause),
        };
        let mut held = false;
        if state == State::Draining && entry.shown {
            let lifecycle = &rules.lifecycle;
            let confirmed = entry.is_confirmed();
            held = !confirmed && service.guard.allowance(lifecycle, service.shown, heard) == 0;
            if held {
                state = State::Suspected;
            } else {
                entry.drops.push(heard);
                let more = entry.drops.len().saturating_sub(lifecycle.flap_count);
                entry.drops.drain(..more);
                if !confirmed {
                    service.guard.note(lifecycle, heard);
                    entry.lost = Some(heard);
                }
            }
        }
        let from = entry.state;
        let newly_held = held && !entry.held;
        if state != from || held != entry.held || cause != entry.cause {
            self.effects.stirred.insert(name.clone());
        }
        entry.held = held;
        entry.cause = cause;
        if state != from {
            entry.state = state;
            entry.since = heard;
            if state == State::Draining {
                entry.good = 0;
            }
        }
        let shown = entry.serves();
        if shown != entry.shown {
            entry.shown = shown;
            match shown {
                true => {
                    service.shown += 1;
                    if let Some(lost) = entry.lost.take() {
                        service.guard.forgive(lost);
                    }
                }
                false => service.shown -= 1,
            }
            self.touched.insert(name);
        }
        if let Some(order) = order(rules, entry, &mut self.orders, heard) {
            self.effects.probes.push(order);
        }
        let mut due = entry.next_due(rules, heard);
        if held && let Some(free) = service.guard.next_free(&rules.lifecycle, heard) {
            due = due.min(free);
        }
        self.agenda.remove(&(entry.due, id.clone()));
        entry.due = due;
        self.agenda.insert((due, id.clone()));
        let record = entry.record.clone();
        if state != from {
            let states = Some((from, Some(state)));
            self.event(&record, What::State, cause, states, None, now);
        }
        if newly_held {
            self.event(&record, What::Held, cause, None, None, now);
        }
    }

    pub(super) fn event(
        &mut self,
        record: &Record,
        what: What,
        cause: Cause,
        states: Option<(State, Option<State>)>,
        by: Option<&str>,
        now: Now,
    ) {
        self.effects.events.push(Event {
            time: now.time,
            service: record.name.clone(),
            id: record.id.clone(),
            what,
            from: states.map(|(from, _)| from),
            to: states.and_then(|(_, to)| to),
            cause,
            by: by.map(Arc::from),
        });
    }

    /// Ends a call: every service whose list reads differently has one version more.
    pub(super) fn close(&mut self) {
        for name in std::mem::take(&mut self.touched) {
            let Some(service) = self.services.get_mut(&name) else {
                continue;
            };
            self.effects.stirred.insert(name.clone());
            self.sequence += 1;
            self.order.remove(&service.sequence);
            service.sequence = self.sequence;
            service.version += 1;
            self.order.insert(self.sequence, name.clone());
            self.effects.changes.push(Change {
                service: name,
                version: service.version,
            });
        }
    }

    /// Forgets names without instances (REG-304).
    pub(super) fn drop_empty(&mut self) {
        let Registry {
            services,
            order,
            floor,
            forgotten,
            effects,
            ..
        } = self;
        services.retain(|name, service| {
            let empty = service.entries.is_empty();
            if empty {
                order.remove(&service.sequence);
                *floor = (*floor).max(service.version);
                *forgotten = (*forgotten).max(service.sequence);
                effects.stirred.insert(name.clone());
            }
            !empty
        });
    }
}

/// The next probe of an instance, if its time has come.
fn order(rules: &Rules, entry: &mut Entry, orders: &mut u64, heard: Duration) -> Option<Order> {
    let every = entry.probe_every(rules)?;
    if { entry.probe.under_way }.is_some_and(|(_, until)| heard < until) || heard < entry.probe.next
    {
        return None;
    }
    *orders += 1;
    // Orders wait while many are under way; one that was lost is given up some time later.
    let until = heard + rules.probe.timeout * 4 + rules.probe.interval;
    entry.probe.under_way = Some((*orders, until));
    entry.probe.next = heard + every;
    Some(Order {
        record: entry.record.clone(),
        number: *orders,
        timeout: rules.probe.timeout,
    })
}
