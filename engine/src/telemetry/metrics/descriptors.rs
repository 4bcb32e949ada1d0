//! How it stands with the descriptors that upstreams tell of themselves, by upstream.

use super::cell::Shared;
use super::text::{Kind, Text};
use super::{Metrics, living};

/// An upstream's resolved handle. Written by the control thread alone.
#[derive(Debug, Default)]
pub struct DescriptorSeries {
    fetches: Shared,
    failures: Shared,
    /// In seconds since 1970; 0: never.
    since: Shared,
}

impl DescriptorSeries {
    /// It was asked, and told its descriptors at this time, or did not.
    pub fn asked(&self, told: Option<u64>) {
        match told {
            Some(now) => self.since.set(now),
            None => self.failures.add(1),
        }
        self.fetches.add(1);
    }

    pub fn fetches(&self) -> u64 {
        self.fetches.value()
    }
}

pub(super) fn write(metrics: &Metrics, text: &mut Text) {
    type Value = fn(&DescriptorSeries) -> u64;
    let upstreams = living(&mut metrics.names().descriptors);
    let families: [(&str, Kind, &str, Value); 3] = [
        (
            "descriptor_fetches_total",
            Kind::Counter,
            "Questions for an upstream's descriptors.",
            |series| series.fetches.value(),
        ),
        (
            "descriptor_fetch_failures_total",
            Kind::Counter,
            "Questions for an upstream's descriptors that brought none; those before stay.",
            |series| series.failures.value(),
        ),
        (
            "descriptor_last_fetch_timestamp_seconds",
            Kind::Gauge,
            "When an upstream last told its descriptors; 0: never.",
            |series| series.since.value(),
        ),
    ];
    for (family, kind, help, value) in families {
        text.family(family, kind, help);
        for (upstream, series) in &upstreams {
            text.sample(&[("upstream", upstream)], value(series));
        }
    }
}
