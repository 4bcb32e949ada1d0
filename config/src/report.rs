//! Where problems are collected while a document is read. Reading never stops at the first: it notes what is wrong and
//! goes on. Bounded, so that a file of a million mistakes costs no more than one of a thousand.

use std::sync::Arc;

use crate::document::{At, Place};
use crate::problem::{Fault, Problem};

/// More than anybody reads. The rest is counted.
const MOST: usize = 1000;

/// A line and a column relative to an item; line 0 is the item's header line, columns count from 1.
pub(crate) type Spot = (u32, u32);

#[derive(Default)]
pub(crate) struct Report {
    pub(crate) problems: Vec<Problem>,
    unshown: usize,
}

impl Report {
    pub(crate) fn add(
        &mut self,
        code: &'static str,
        place: Option<Place>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        if self.problems.len() >= MOST {
            self.unshown += 1;
            return;
        }
        self.problems.push(Problem {
            code,
            place,
            message: message.into(),
            text: None,
            hint: Some(hint.into()),
        });
    }

    /// Whether looking for the nearest name is still worth its time.
    pub(crate) fn is_short(&self) -> bool {
        self.problems.len() < 100
    }

    /// How many were noted, with those that are not shown.
    pub(crate) fn count(&self) -> usize {
        self.problems.len() + self.unshown
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// All problems in the order of `files` and of their lines.
    pub(crate) fn finish(mut self, files: &[Arc<str>]) -> Vec<Problem> {
        let order = |problem: &Problem| {
            problem.place.as_ref().map(|place| {
                let file = files.iter().position(|f| *f == place.file);
                (file.unwrap_or(usize::MAX), place.line, place.column)
            })
        };
        self.problems.sort_by_key(order);
        if self.unshown > 0 {
            self.problems.push(Problem {
                code: "too-many-problems",
                place: None,
                message: format!("{} more problems are not shown", self.unshown),
                text: None,
                hint: Some("correct the first ones and check again".to_owned()),
            });
        }
        self.problems
    }
}

/// The report of one item: knows where the item stands, so that what reads it needs relative spots only.
pub(crate) struct ItemReport<'a> {
    pub(crate) report: &'a mut Report,
    pub(crate) file: &'a Arc<str>,
    pub(crate) line: u32,
}

impl ItemReport<'_> {
    pub(crate) fn add(
        &mut self,
        code: &'static str,
        spot: Spot,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let place = Place {
            file: self.file.clone(),
            line: self.line.saturating_add(spot.0),
            column: spot.1,
        };
        self.report.add(code, Some(place), message, hint);
    }

    /// Where the other side of a contradiction stands, to be put behind its name: ` at FILE:LINE`, or that it is the
    /// default.
    pub(crate) fn written_at(&self, at: At) -> String {
        match at.0 {
            Some((line, _)) => format!(" at {}:{}", self.file, self.line.saturating_add(line)),
            None => " by default".to_owned(),
        }
    }

    pub(crate) fn fault(&mut self, code: &'static str, spot: Spot, fault: Fault) {
        self.add(code, spot, fault.message, fault.hint);
    }
}
