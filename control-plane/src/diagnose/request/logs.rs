//! The lines that services logged for one request: who logged and who did not, which lines lack an id, and what went wrong
//! more than once (CP-303).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Facts, Told};

/// Lines that are shown.
const MOST_SHOWN: usize = 50;
/// Issues and patterns that are told.
const MOST: usize = 50;
/// Bytes of what a line tells besides its message.
const LONGEST: usize = 1_200;

/// One line of a service's log.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogLine {
    pub timestamp: String,
    /// `debug`, `info`, `warn` or `error`.
    pub level: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saga_id: Option<String>,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub error: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub fields: Value,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Logs {
    /// Services that logged something for this request.
    pub with: Vec<String>,
    /// Those that had a part in it, or could have been asked, and logged nothing.
    pub without: Vec<String>,
    pub issues: Vec<Issue>,
    pub error_patterns: Vec<Pattern>,
    /// The latest warnings and errors.
    pub lines: Vec<ServiceLine>,
}

/// Lines that cannot be found by what they lack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Issue {
    /// `missing_trace_id`, `wrong_trace_id` or `missing_span_id`.
    pub issue: &'static str,
    pub service: String,
    pub lines: usize,
    pub impact: &'static str,
    pub suggestion: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pattern {
    pub pattern: String,
    pub services: Vec<String>,
    pub frequency: usize,
    /// `high` for errors, `medium` for warnings.
    pub severity: &'static str,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServiceLine {
    pub service: String,
    #[serde(flatten)]
    pub line: LogLine,
}

impl LogLine {
    /// What may be shown of it.
    pub fn bounded(mut self) -> LogLine {
        for value in [&mut self.error, &mut self.fields] {
            // A line is for reading: what is longer is looked up in the log itself.
            if value.to_string().len() > LONGEST {
                *value = Value::String("(longer than is shown)".to_owned());
            }
        }
        self
    }

    /// Its message, with the error that it tells.
    pub(super) fn words(&self) -> String {
        let details = &self.error["details"];
        let error = details.as_str().or(self.error.as_str());
        let reason = self.fields["reason"].as_str();
        match error.or(reason) {
            Some(why) => format!("{}: {why}", self.message),
            None => self.message.clone(),
        }
    }
}

/// Whether it has no line either.
pub(super) fn is_empty(told: &Told) -> bool {
    told.log.as_ref().is_none_or(|log| log.lines.is_empty())
}

pub(super) fn logs(facts: &Facts) -> Logs {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut lines: Vec<(&str, &LogLine)> = Vec::new();
    for log in { facts.told.iter() }.filter_map(|one| one.log.as_ref()) {
        *counts.entry(&log.service).or_default() += log.lines.len();
        lines.extend(log.lines.iter().map(|line| (&*log.service, line)));
    }
    // Those that took part, as their spans say, and keep no log that can be asked.
    for span in { facts.told.iter() }.flat_map(|one| &one.spans) {
        let known = facts.services.contains_key(&span.service);
        if known {
            counts.entry(&span.service).or_default();
        }
    }
    let took_part: BTreeSet<&str> = { facts.told.iter() }
        .flat_map(|one| &one.spans)
        .map(|span| &*span.service)
        .collect();
    let names = |wanted: &dyn Fn(&str, usize) -> bool| -> Vec<String> {
        { counts.iter() }
            .filter(|(service, count)| wanted(service, **count))
            .map(|(service, _)| (*service).to_owned())
            .collect()
    };
    Logs {
        with: names(&|_, count| count > 0),
        without: names(&|service, count| count == 0 && took_part.contains(service)),
        issues: issues(facts, &lines),
        error_patterns: patterns(&lines),
        lines: shown(&lines),
    }
}

fn issues(facts: &Facts, lines: &[(&str, &LogLine)]) -> Vec<Issue> {
    let mut found: BTreeMap<(&'static str, &str), usize> = BTreeMap::new();
    for (service, line) in lines {
        let issue = match (line.trace_id.as_deref(), line.span_id.as_deref()) {
            (None | Some(""), _) => "missing_trace_id",
            (Some(id), _) if id != facts.trace_id => "wrong_trace_id",
            (_, None | Some("")) => "missing_span_id",
            _ => continue,
        };
        *found.entry((issue, service)).or_default() += 1;
    }
    let told = found.into_iter().map(|((issue, service), lines)| {
        let (impact, suggestion) = match issue {
            "missing_trace_id" => (
                "these lines are about the same order or saga, and no search for the trace finds them",
                "write them within the request's context, also in work that goes on after the answer",
            ),
            "wrong_trace_id" => (
                "these lines are found under another request",
                "look for work that keeps the context of an earlier request, such as a shared task or a cached client",
            ),
            _ => (
                "it is not known which step of the service wrote these lines",
                "write the id of the current span beside that of the trace",
            ),
        };
        Issue {
            issue,
            service: service.to_owned(),
            lines,
            impact,
            suggestion,
        }
    });
    told.take(MOST).collect()
}

fn is_bad(line: &LogLine) -> bool {
    matches!(line.level.as_str(), "warn" | "error")
}

fn patterns(lines: &[(&str, &LogLine)]) -> Vec<Pattern> {
    let mut found: BTreeMap<String, (BTreeSet<&str>, usize, bool)> = BTreeMap::new();
    for (service, line) in lines.iter().filter(|(_, line)| is_bad(line)) {
        let (services, count, worst) = found.entry(line.words()).or_default();
        services.insert(service);
        *count += 1;
        *worst |= line.level == "error";
    }
    let mut told: Vec<Pattern> = { found.into_iter() }
        .map(|(pattern, (services, frequency, worst))| Pattern {
            pattern,
            services: services.into_iter().map(str::to_owned).collect(),
            frequency,
            severity: if worst { "high" } else { "medium" },
        })
        .collect();
    told.sort_by_key(|one| (one.severity != "high", std::cmp::Reverse(one.frequency)));
    told.truncate(MOST);
    told
}

fn shown(lines: &[(&str, &LogLine)]) -> Vec<ServiceLine> {
    let mut bad: Vec<_> = lines.iter().filter(|(_, line)| is_bad(line)).collect();
    bad.sort_by(|(_, a), (_, b)| a.timestamp.cmp(&b.timestamp));
    let old = bad.len().saturating_sub(MOST_SHOWN);
    let shown = bad
        .into_iter()
        .skip(old)
        .map(|(service, line)| ServiceLine {
            service: (*service).to_owned(),
            line: (*line).clone(),
        });
    shown.collect()
}
