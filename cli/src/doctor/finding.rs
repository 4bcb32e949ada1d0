//! What was found: one sentence of what was looked at, how it is, why, what to do next, and which line of a document is the
//! cause. Says nothing of how it was looked at.

use serde::Serialize;
use tollgate_config::Problem;

/// From the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Ok,
    /// It could not be looked at.
    Unknown,
    /// It works, and somebody should know.
    Warning,
    Problem,
}

impl Verdict {
    /// What is printed before the finding.
    pub(super) fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Unknown => "unknown",
            Verdict::Warning => "warning",
            Verdict::Problem => "PROBLEM",
        }
    }

    /// The exit code of a report whose worst finding this is.
    pub(super) fn code(self) -> u8 {
        match self {
            Verdict::Ok => 0,
            Verdict::Unknown | Verdict::Warning => 1,
            Verdict::Problem => 2,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    /// What was looked at.
    pub(super) what: String,
    /// How it is, and why.
    pub(super) why: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
    /// `FILE:LINE` of the setting that is the cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) place: Option<String>,
}

impl Finding {
    pub(super) fn ok(what: impl Into<String>, why: impl Into<String>) -> Finding {
        Finding {
            verdict: Verdict::Ok,
            what: what.into(),
            why: why.into(),
            next: None,
            place: None,
        }
    }

    pub(super) fn unknown(
        what: impl Into<String>,
        why: impl Into<String>,
        next: impl Into<String>,
    ) -> Finding {
        Finding::not_ok(Verdict::Unknown, what, why, next)
    }

    pub(super) fn warning(
        what: impl Into<String>,
        why: impl Into<String>,
        next: impl Into<String>,
    ) -> Finding {
        Finding::not_ok(Verdict::Warning, what, why, next)
    }

    pub(super) fn problem(
        what: impl Into<String>,
        why: impl Into<String>,
        next: impl Into<String>,
    ) -> Finding {
        Finding::not_ok(Verdict::Problem, what, why, next)
    }

    fn not_ok(
        verdict: Verdict,
        what: impl Into<String>,
        why: impl Into<String>,
        next: impl Into<String>,
    ) -> Finding {
        let next: String = next.into();
        Finding {
            verdict,
            next: Some(next).filter(|next| !next.is_empty()),
            ..Finding::ok(what, why)
        }
    }

    /// In the words of whoever read a document.
    pub(super) fn told(verdict: Verdict, what: &str, problem: &Problem) -> Finding {
        let hint = problem.hint.clone().unwrap_or_default();
        let found = Finding::not_ok(verdict, what, &problem.message, hint);
        found.at(problem.place.as_ref().map(ToString::to_string))
    }

    /// The line that is the cause.
    pub(super) fn at(mut self, place: Option<String>) -> Finding {
        self.place = place.or(self.place);
        self
    }

    /// With what else is known of the cause.
    pub(super) fn because(mut self, more: Option<String>) -> Finding {
        if let Some(more) = more {
            self.why = format!("{}; {more}", self.why);
        }
        self
    }
}
