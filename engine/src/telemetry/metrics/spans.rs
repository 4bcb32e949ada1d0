//! What became of the spans that a collector was to be told (OBS-110).

use super::cell::Shared;
use super::text::{Kind, Text};

/// Why spans never reached a collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpansDropped {
    /// The collector takes less than there is.
    QueueFull,
    /// The collector refused them for good.
    Refused,
    /// The process ended, or followed another document, before they were taken.
    Stopped,
}

const DROPPED: [(SpansDropped, &str); 3] = [
    (SpansDropped::QueueFull, "queue_full"),
    (SpansDropped::Refused, "refused"),
    (SpansDropped::Stopped, "stopped"),
];

#[derive(Debug, Default)]
pub struct SpanSeries {
    exported: Shared,
    dropped: [Shared; DROPPED.len()],
}

impl SpanSeries {
    pub(crate) fn exported(&self, spans: usize) {
        self.exported.add(spans as u64);
    }

    pub(crate) fn dropped(&self, why: SpansDropped, spans: usize) {
        if let Some(count) = self.dropped.get(why as usize) {
            count.add(spans as u64);
        }
    }

    pub(super) fn write(&self, text: &mut Text) {
        text.family(
            "spans_exported_total",
            Kind::Counter,
            "Spans that the collector took.",
        );
        text.sample(&[], self.exported.value());
        text.family(
            "spans_dropped_total",
            Kind::Counter,
            "Spans that were to be exported and never reached the collector, by the reason.",
        );
        for ((_, reason), count) in DROPPED.iter().zip(&self.dropped) {
            text.sample(&[("reason", reason)], count.value());
        }
    }
}
