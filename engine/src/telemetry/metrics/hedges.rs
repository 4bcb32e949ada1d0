//! The part of the metrics page that tells of hedges.

use std::sync::Arc;

use super::closed::{HedgeResult, Unhedged};
use super::text::{Kind, Text};
use super::upstream::UpstreamSeries as Series;

/// Of upstreams that had an answer that was late for a route that hedges.
pub(super) fn write(upstreams: &[(String, Arc<Series>)], text: &mut Text) {
    let results = 0..HedgeResult::COUNT;
    let reasons = 0..Unhedged::COUNT;
    let hedged: Vec<_> = upstreams
        .iter()
        .filter(|(_, upstream)| {
            let sent: i64 = results.clone().map(|index| upstream.hedges(index)).sum();
            let unsent: i64 = reasons
                .clone()
                .map(|index| upstream.unsent_hedges(index))
                .sum();
            sent + unsent > 0
        })
        .collect();
    text.family(
        "hedges_total",
        Kind::Counter,
        "Second tries beside a late first one, by what came of them.",
    );
    for (name, upstream) in &hedged {
        for (index, word) in HedgeResult::WORDS.iter().enumerate() {
            text.sample(
                &[("upstream", name), ("result", word)],
                upstream.hedges(index),
            );
        }
    }
    text.family(
        "hedges_unsent_total",
        Kind::Counter,
        "Late first tries without a second, by why.",
    );
    for (name, upstream) in &hedged {
        for (index, word) in Unhedged::WORDS.iter().enumerate() {
            text.sample(
                &[("upstream", name), ("reason", word)],
                upstream.unsent_hedges(index),
            );
        }
    }
    text.family(
        "hedge_wait_seconds",
        Kind::Histogram,
        "From when an answer was late until a good one came: with a second try, and without one in the control group.",
    );
    for (name, upstream) in &hedged {
        for (hedged, word) in [(false, "no"), (true, "yes")] {
            let waits = upstream.late_answers(hedged);
            if waits.count() > 0 {
                waits.write_durations(text, &[("upstream", name), ("hedged", word)]);
            }
        }
    }
}
