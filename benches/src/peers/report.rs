//! What was measured, as a Markdown table to read and as JSON to keep.

#![expect(
    clippy::let_underscore_must_use,
    reason = "writing to a string cannot fail"
)]

use std::fmt::{self, Write as _};
use std::fs;

use serde::Serialize;

use super::{Case, Found, Peer, Settings};
use crate::case::Words as _;
use crate::summary::median;

/// Everything that one run found.
#[derive(Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub settings: Settings,
    pub peers: Vec<Found>,
    /// Proxies that are not measured at all, each with the reason.
    pub missing: Vec<String>,
    cases: Vec<CaseReport>,
}

/// Where it was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    pub kernel: String,
    pub processor: String,
    pub cores: usize,
    /// Processes that wanted to run in the minute before: near zero, or every figure is too large.
    pub load_before: f64,
}

impl Machine {
    /// This machine.
    pub fn here() -> Machine {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let processors = read("/proc/cpuinfo");
        let model = processors
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Machine {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: model.map_or("unknown", |(_, name)| name.trim()).to_owned(),
            // All of the machine's, not those that this thread may use.
            cores: processors
                .lines()
                .filter(|line| line.starts_with("processor"))
                .count(),
            load_before: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(f64::NAN),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine {
            kernel,
            processor,
            cores,
            load_before,
        } = self;
        write!(
            f,
            "Machine: {processor}, {cores} cores, Linux {kernel}, load average {load_before} before."
        )
    }
}

/// One case: a row of each table.
#[derive(Debug, Serialize)]
pub(super) struct CaseReport {
    pub(super) case: Case,
    pub(super) title: String,
    pub(super) unit: &'static str,
    pub(super) rows: Vec<Row>,
    /// Figures that belong to no proxy but ours.
    pub(super) figures: Vec<Figure>,
}

/// One proxy in one case.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) peer: Peer,
    /// Why there is nothing else.
    pub(super) skipped: Option<String>,
    pub(super) rounds: Vec<Round>,
    pub(super) resident_at_start: u64,
    pub(super) resident_after: u64,
    pub(super) syscalls: Option<super::strace::Syscalls>,
}

impl Row {
    pub(super) fn new(peer: Peer) -> Row {
        Row {
            peer,
            skipped: None,
            rounds: Vec::new(),
            resident_at_start: 0,
            resident_after: 0,
            syscalls: None,
        }
    }

    pub(super) fn median(&self, of: impl Fn(&Round) -> f64) -> Option<f64> {
        median(self.rounds.iter().map(of))
    }
}

/// One proxy's share of one round.
#[derive(Debug, Clone, Serialize, Default)]
pub(super) struct Round {
    /// In the case's unit: what is compared.
    pub(super) cost: f64,
    pub(super) requests: u64,
    pub(super) bad: u64,
    pub(super) per_second: f64,
    /// Share of its core that the proxy used.
    pub(super) busy: f64,
    pub(super) switches_per_request: f64,
    pub(super) p50_micros: f64,
    pub(super) p99_micros: f64,
}

/// A named number with what it should be.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    /// The most that is good, where a goal is set.
    pub(super) goal: Option<f64>,
}

/// The most that Tollgate should cost as a share of a peer, where a goal is set.
fn goal(case: Case, peer: Peer) -> Option<f64> {
    match (case, peer) {
        (Case::Http1, Peer::Nginx) => Some(0.95),
        (Case::Http1, Peer::Haproxy) => Some(0.90),
        (Case::Http1, Peer::Envoy) => Some(0.24),
        (Case::Protected, Peer::Nginx) => Some(0.75),
        (Case::Protected, Peer::Haproxy) => Some(0.55),
        (Case::Protected, Peer::Envoy) => Some(0.25),
        (Case::Tls, Peer::Nginx) => Some(1.00),
        (Case::Transcode, Peer::Envoy) => Some(0.5),
        (Case::Http2, Peer::Haproxy) => Some(1.15),
        (Case::Http2, Peer::Envoy) => Some(0.28),
        (Case::LargeBody | Case::NewConnection, Peer::Nginx) => Some(1.05),
        _ => None,
    }
}

impl CaseReport {
    pub(super) fn new(case: Case, unit: &'static str) -> CaseReport {
        CaseReport {
            case,
            title: case.title(),
            unit,
            rows: Vec::new(),
            figures: Vec::new(),
        }
    }

    /// Tollgate's cost as a share of a peer's: within each round first, then the median.
    fn ratio(&self, peer: Peer) -> Option<f64> {
        let row = |peer| self.rows.iter().find(|row| row.peer == peer);
        let (ours, theirs) = (row(Peer::Tollgate)?, row(peer)?);
        median(
            ours.rounds
                .iter()
                .zip(&theirs.rounds)
                .map(|(ours, theirs)| ours.cost / theirs.cost),
        )
    }
}

impl Report {
    /// An empty report.
    pub fn new(settings: Settings, peers: Vec<Found>, missing: Vec<String>) -> Report {
        Report {
            machine: Machine::here(),
            settings,
            peers,
            missing,
            cases: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, case: CaseReport) {
        self.cases.push(case);
    }

    /// The whole report, to be read.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "{}", self.machine);
        let versions: Vec<String> = self
            .peers
            .iter()
            .map(|found| format!("{} {}", found.peer.title(), found.version))
            .collect();
        let _ = writeln!(text, "Versions: {}.", versions.join(", "));
        let Settings {
            rounds, seconds, ..
        } = self.settings;
        let _ = writeln!(
            text,
            "Medians of {rounds} rounds of {seconds} s for each proxy."
        );
        for missing in &self.missing {
            let _ = writeln!(text, "Not measured: {missing}.");
        }
        self.comparison(&mut text);
        self.details(&mut text);
        self.figures(&mut text);
        text
    }

    fn comparison(&self, text: &mut String) {
        if self.cases.iter().all(|case| case.rows.is_empty()) {
            return;
        }
        let titles = Peer::ALL.map(Peer::title).join(" | ");
        let _ = writeln!(
            text,
            "\n| case | unit | {titles} | ÷ nginx (goal) | ÷ HAProxy (goal) | ÷ Envoy (goal) |"
        );
        let _ = writeln!(text, "|---|---|--:|--:|--:|--:|--:|--:|--:|");
        for case in self.cases.iter().filter(|case| !case.rows.is_empty()) {
            let _ = write!(text, "| {} | {} |", case.case.name(), case.unit);
            for peer in Peer::ALL {
                let cost = case
                    .rows
                    .iter()
                    .find(|row| row.peer == peer)
                    .and_then(|row| row.median(|round| round.cost));
                let _ = write!(text, " {} |", cost.map_or("–".to_owned(), number));
            }
            for peer in [Peer::Nginx, Peer::Haproxy, Peer::Envoy] {
                let ratio = case
                    .ratio(peer)
                    .map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
                let goal =
                    goal(case.case, peer).map_or(String::new(), |goal| format!(" (≤ {goal:.2})"));
                let _ = write!(text, " {ratio}{goal} |");
            }
            text.push('\n');
        }
    }

    fn details(&self, text: &mut String) {
        if self.cases.iter().all(|case| case.rows.is_empty()) {
            return;
        }
        let _ = writeln!(
            text,
            "\n| case | proxy | cost: least–most | requests/s | core busy | switches/request | p50 µs | p99 µs | resident MiB: start, after | failed |"
        );
        let _ = writeln!(text, "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|");
        for (case, row) in self
            .cases
            .iter()
            .flat_map(|case| case.rows.iter().map(move |row| (case, row)))
        {
            let name = case.case.name();
            if let Some(reason) = &row.skipped {
                let _ = writeln!(
                    text,
                    "| {name} | {} | {reason} | | | | | | | |",
                    row.peer.title()
                );
                continue;
            }
            let median = |of: fn(&Round) -> f64| number(row.median(of).unwrap_or_default());
            let costs = || row.rounds.iter().map(|round| round.cost);
            let _ = writeln!(
                text,
                "| {name} | {} | {}–{} | {:.0} | {:.0} % | {} | {} | {} | {}, {} | {} |",
                row.peer.title(),
                number(costs().fold(f64::INFINITY, f64::min)),
                number(costs().fold(0.0, f64::max)),
                row.median(|round| round.per_second).unwrap_or_default(),
                row.median(|round| round.busy * 100.0).unwrap_or_default(),
                median(|round| round.switches_per_request),
                median(|round| round.p50_micros),
                median(|round| round.p99_micros),
                mebibytes(row.resident_at_start),
                mebibytes(row.resident_after),
                row.rounds.iter().map(|round| round.bad).sum::<u64>(),
            );
        }
        let traced = self
            .cases
            .iter()
            .flat_map(|case| case.rows.iter().map(move |row| (case, row)));
        let mut traced = traced
            .filter_map(|(case, row)| Some((case, row, row.syscalls.as_ref()?)))
            .peekable();
        if traced.peek().is_none() {
            return;
        }
        let _ = writeln!(
            text,
            "\n| case | proxy | system calls/request | on sockets | the most frequent |"
        );
        let _ = writeln!(text, "|---|---|--:|--:|---|");
        for (case, row, calls) in traced {
            let most: Vec<String> = calls
                .by_name
                .iter()
                .take(6)
                .map(|(name, count)| format!("{name} {count:.2}"))
                .collect();
            let _ = writeln!(
                text,
                "| {} | {} | {:.2} | {:.2} | {} |",
                case.case.name(),
                row.peer.title(),
                calls.total,
                calls.on_sockets,
                most.join(", ")
            );
        }
    }

    fn figures(&self, text: &mut String) {
        if self.cases.iter().all(|case| case.figures.is_empty()) {
            return;
        }
        let _ = writeln!(
            text,
            "\n| case | figure | value | goal |\n|---|---|--:|--:|"
        );
        for (case, figure) in self
            .cases
            .iter()
            .flat_map(|case| case.figures.iter().map(move |figure| (case, figure)))
        {
            let goal = figure.goal.map_or(String::new(), |goal| {
                format!("≤ {} {}", number(goal), figure.unit)
            });
            let value = format!("{} {}", number(figure.value), figure.unit);
            let _ = writeln!(
                text,
                "| {} | {} | {value} | {goal} |",
                case.case.name(),
                figure.name
            );
        }
    }
}

fn mebibytes(bytes: u64) -> String {
    number(bytes as f64 / f64::from(1 << 20))
}

/// Three significant digits are more than a run can promise.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ if value == value.trunc() => format!("{value}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_taken_within_each_round_before_the_median() {
        let row = |peer, costs: [f64; 3]| Row {
            rounds: costs
                .map(|cost| Round {
                    cost,
                    ..Round::default()
                })
                .to_vec(),
            ..Row::new(peer)
        };
        let mut case = CaseReport::new(Case::Http1, "µs");
        // The second round was slow for both: it says nothing about the ratio.
        case.rows = vec![
            row(Peer::Tollgate, [9.0, 18.0, 9.5]),
            row(Peer::Nginx, [10.0, 20.0, 10.0]),
        ];
        assert_eq!(case.ratio(Peer::Nginx), Some(0.9));
        assert_eq!(case.ratio(Peer::Envoy), None);
    }
}
