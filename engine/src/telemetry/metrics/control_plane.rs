//! Series of the feed: whether a control plane is followed, at which revision, and what became of its changes. Absent
//! from the page as long as the document names none.

use super::cell::Shared;
use super::text::{Kind, Text};

#[derive(Debug, Default)]
pub struct ControlPlaneSeries {
    named: Shared,
    connected: Shared,
    revision: Shared,
    applied: Shared,
    refused: Shared,
    services: Shared,
    breaks: Shared,
    registered: Shared,
    unsaved: Shared,
}

impl ControlPlaneSeries {
    /// The document names a control plane.
    pub fn on(&self) {
        self.named.set(1);
    }

    pub fn off(&self) {
        self.named.set(0);
        self.connected.set(0);
    }

    pub fn connected(&self, connected: bool) {
        self.connected.set(u64::from(connected));
        self.breaks.add(u64::from(!connected));
    }

    pub fn serves(&self, revision: u64) {
        self.revision.set(revision);
    }

    /// A batch serves.
    pub fn applied(&self, revision: u64) {
        self.serves(revision);
        self.applied.add(1);
    }

    pub fn refused(&self) {
        self.refused.add(1);
    }

    /// Instances of services came or went.
    pub fn services(&self) {
        self.services.add(1);
    }

    /// Whether the control plane has the instance that we announce.
    pub fn registered(&self, registered: bool) {
        self.registered.set(u64::from(registered));
    }

    /// The last good configuration could not be written.
    pub fn unsaved(&self) {
        self.unsaved.add(1);
    }

    pub(super) fn write(&self, text: &mut Text) {
        if self.named.value() == 0 {
            return;
        }
        text.family(
            "control_plane_connected",
            Kind::Gauge,
            "1 while a control plane is followed.",
        );
        text.sample(&[], self.connected.value());
        text.family(
            "control_plane_revision",
            Kind::Gauge,
            "The control plane's revision that serves.",
        );
        text.sample(&[], self.revision.value());
        text.family(
            "control_plane_changes_total",
            Kind::Counter,
            "Batches of documents by what became of them.",
        );
        text.sample(&[("result", "applied")], self.applied.value());
        text.sample(&[("result", "refused")], self.refused.value());
        text.family(
            "control_plane_service_changes_total",
            Kind::Counter,
            "Times that instances of services came or went.",
        );
        text.sample(&[], self.services.value());
        text.family(
            "control_plane_breaks_total",
            Kind::Counter,
            "Connections to control planes that ended or were not made.",
        );
        text.sample(&[], self.breaks.value());
        text.family(
            "control_plane_registered",
            Kind::Gauge,
            "1 while the control plane has the instance that is announced.",
        );
        text.sample(&[], self.registered.value());
        text.family(
            "last_good_failures_total",
            Kind::Counter,
            "Times that the last good configuration could not be written.",
        );
        text.sample(&[], self.unsaved.value());
    }
}
