//! The report on paper: sections, their findings, and how many there are of each kind. As text, or as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::finding::{Finding, Verdict};

/// The findings of one section, and what there was nothing to look at.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) findings: Vec<Finding>,
    /// Why it is empty.
    pub(super) note: Option<String>,
}

pub(super) fn worst(sections: &[Section]) -> Verdict {
    let all = sections.iter().flat_map(|section| &section.findings);
    let worst = all.map(|finding| finding.verdict).max();
    worst.unwrap_or(Verdict::Ok)
}

fn count(sections: &[Section], verdict: Verdict) -> usize {
    let all = sections.iter().flat_map(|section| &section.findings);
    all.filter(|finding| finding.verdict == verdict).count()
}

pub(super) fn text(sections: &[Section]) -> String {
    let mut text = String::new();
    for section in sections {
        let _infallible = writeln!(text, "{}", section.name);
        if let Some(note) = &section.note {
            let _infallible = writeln!(text, "  {:8} {note}", "-");
        }
        for finding in &section.findings {
            write(&mut text, finding);
        }
        text.push('\n');
    }
    let [ok, unknown, warnings, problems] = [
        Verdict::Ok,
        Verdict::Unknown,
        Verdict::Warning,
        Verdict::Problem,
    ]
    .map(|verdict| count(sections, verdict));
    let _infallible = writeln!(
        text,
        "{problems} problem{}, {warnings} warning{}, {unknown} unknown, {ok} ok",
        s(problems),
        s(warnings)
    );
    text
}

fn s(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn write(text: &mut String, finding: &Finding) {
    let word = finding.verdict.word();
    let mut why = finding.why.lines();
    let first = why.next().unwrap_or_default();
    let _infallible = writeln!(text, "  {word:8} {}: {first}", finding.what);
    let mut more = |sign: &str, line: &str| {
        let _infallible = writeln!(text, "           {sign} {line}");
    };
    for line in why {
        more("|", line);
    }
    let cause = finding.place.as_ref();
    if let Some(place) = cause.filter(|_| finding.verdict != Verdict::Ok) {
        more("@", place);
    }
    for line in finding.next.iter().flat_map(|next| next.lines()) {
        more("=", line);
    }
}

pub(super) fn json(sections: &[Section]) -> Value {
    let shown = sections.iter().map(|section| {
        json!({ "section": section.name, "note": section.note, "findings": section.findings })
    });
    json!({
        "worst": worst(sections),
        "problems": count(sections, Verdict::Problem),
        "warnings": count(sections, Verdict::Warning),
        "unknown": count(sections, Verdict::Unknown),
        "ok": count(sections, Verdict::Ok),
        "sections": shown.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sections() -> Vec<Section> {
        let problem = Finding::problem("a.toml", "it is cut", "restore it");
        vec![
            Section {
                name: "files",
                findings: vec![
                    Finding::ok("b.toml", "good"),
                    problem.at(Some("a.toml:3".to_owned())),
                ],
                note: None,
            },
            Section {
                name: "machine",
                findings: Vec::new(),
                note: Some("nothing to look at".to_owned()),
            },
        ]
    }

    #[test]
    fn a_finding_says_what_why_where_and_what_next() {
        let wanted = "files\n  ok       b.toml: good\n  PROBLEM  a.toml: it is cut\n           @ a.toml:3\n           = restore it\n\n\
                      machine\n  -        nothing to look at\n\n1 problem, 0 warnings, 0 unknown, 1 ok\n";
        assert_eq!(text(&sections()), wanted);
        let value = json(&sections());
        assert_eq!(value["worst"], "problem");
        assert_eq!(value["sections"][0]["findings"][1]["place"], "a.toml:3");
    }

    #[test]
    fn the_worst_decides_the_exit_code() {
        assert_eq!(worst(&sections()).code(), 2);
        assert_eq!(worst(&sections()[1..]).code(), 0);
        assert_eq!(Verdict::Unknown.code(), 1);
    }
}
