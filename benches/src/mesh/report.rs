//! What was measured: named figures with a value for each round and maker, as a table to read and as JSON to keep.

#![expect(
    clippy::let_underscore_must_use,
    reason = "writing to a string cannot fail"
)]

use std::fmt::Write as _;

use serde::Serialize;

use super::{Case, Settings};
use crate::case::Words as _;
use crate::peers::{Found, Machine, Peer};
use crate::summary::median;

/// The columns.
const MAKERS: [Peer; 3] = [Peer::Tollgate, Peer::Haproxy, Peer::Envoy];

/// Everything that one run found.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: Machine,
    settings: Settings,
    others: Vec<Found>,
    /// Who is not measured, each with the reason.
    missing: Vec<String>,
    cases: Vec<(Case, Figures)>,
}

/// Of one case, in the order in which they were named first.
#[derive(Debug, Default, Serialize)]
pub(super) struct Figures(Vec<Figure>);

/// A named number of each maker.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    name: &'static str,
    unit: &'static str,
    /// The most that is good for ours, where a goal is set.
    goal: Option<f64>,
    /// Rounds, or samples.
    values: Vec<(Peer, Vec<f64>)>,
}

impl Figures {
    pub(super) fn add(
        &mut self,
        (name, unit, goal): (&'static str, &'static str, Option<f64>),
        peer: Peer,
        value: f64,
    ) {
        let at = self.0.iter().position(|figure| figure.name == name);
        let at = at.unwrap_or_else(|| {
            self.0.push(Figure {
                name,
                unit,
                goal,
                values: Vec::new(),
            });
            self.0.len() - 1
        });
        let values = &mut self.0[at].values;
        match values.iter_mut().find(|(of, _)| *of == peer) {
            Some((_, values)) => values.push(value),
            None => values.push((peer, vec![value])),
        }
    }

    pub(super) fn list(&self) -> &[Figure] {
        &self.0
    }
}

impl Figure {
    fn of(&self, peer: Peer) -> Option<&[f64]> {
        let found = self.values.iter().find(|(of, _)| *of == peer);
        found.map(|(_, values)| values.as_slice())
    }

    fn median(&self, peer: Peer) -> Option<f64> {
        median(self.of(peer)?.iter().copied())
    }

    /// Ours as a share of a peer's: within each round first, then the median.
    fn ratio(&self, peer: Peer) -> Option<f64> {
        let (ours, theirs) = (self.of(Peer::Tollgate)?, self.of(peer)?);
        let ratio = median(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs));
        // Nothing cannot be a share of nothing.
        ratio.filter(|ratio| ratio.is_finite())
    }

    /// For who watches.
    pub(super) fn line(&self) -> String {
        let mut line = self.name.to_owned();
        for peer in MAKERS {
            if let Some(value) = self.median(peer) {
                let _ = write!(line, ", {} {} {}", peer.title(), number(value), self.unit);
            }
        }
        line
    }

    /// A line of the table.
    fn row(&self, case: Case, text: &mut String) {
        let _ = write!(text, "| {} | {} | {} |", case.name(), self.name, self.unit);
        for peer in MAKERS {
            let shown = self.median(peer).map_or("–".to_owned(), number);
            let _ = write!(text, " {shown} |");
        }
        for peer in [Peer::Haproxy, Peer::Envoy] {
            let shown =
                { self.ratio(peer) }.map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
            let _ = write!(text, " {shown} |");
        }
        let goal = { self.goal }.map_or(String::new(), |goal| format!("≤ {}", number(goal)));
        let values = self.of(Peer::Tollgate).unwrap_or_default().iter();
        let (least, most) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), one| {
                (least.min(*one), most.max(*one))
            });
        let range = match least <= most {
            true => format!("{}–{}", number(least), number(most)),
            false => String::new(),
        };
        let _ = writeln!(text, " {range} | {goal} |");
    }
}

impl Report {
    /// An empty report.
    pub fn new(settings: Settings, others: Vec<Found>, missing: Vec<String>) -> Report {
        Report {
            machine: Machine::here(),
            settings,
            others,
            missing,
            cases: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, case: Case, figures: Figures) {
        self.cases.push((case, figures));
    }

    /// The whole report, to be read.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "{}", self.machine);
        for found in &self.others {
            let _ = writeln!(text, "{} {}.", found.peer.title(), found.version);
        }
        for missing in &self.missing {
            let _ = writeln!(text, "Not measured: {missing}.");
        }
        let _ = writeln!(
            text,
            "Medians of {} rounds of {} s for each.\n",
            self.settings.rounds, self.settings.seconds
        );
        let _ = writeln!(
            text,
            "| case | figure | unit | Tollgate | HAProxy | Envoy | ÷ HAProxy | ÷ Envoy | Tollgate: least–most | goal |\n\
             |---|---|---|--:|--:|--:|--:|--:|--:|--:|"
        );
        for (case, figures) in &self.cases {
            for figure in figures.list() {
                figure.row(*case, &mut text);
            }
        }
        text
    }
}

/// Three significant digits are more than a run can promise.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ if value == value.trunc() => format!("{value}"),
        small if small < 1.0 => format!("{value:.3}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_collects_rounds_and_compares_within_each() {
        let mut figures = Figures::default();
        let cost = ("cost", "cores", Some(0.05));
        // The second round was slow for both: it says nothing about the ratio.
        for (ours, theirs) in [(1.0, 2.0), (3.0, 6.0), (1.2, 2.0)] {
            figures.add(cost, Peer::Tollgate, ours);
            figures.add(cost, Peer::Haproxy, theirs);
        }
        let mut text = String::new();
        assert_eq!(figures.list().len(), 1);
        figures.list()[0].row(Case::Hops, &mut text);
        assert_eq!(
            text,
            "| hops | cost | cores | 1.20 | 2 | – | 0.50 | – | 1–3 | ≤ 0.050 |\n"
        );
    }
}
