//! Compares nodes with the grammar and notes every difference: unknown keys, wrong types, texts that break their rule,
//! keys that are missing, contradict each other or are not available. What passes can be decoded without asking again.

use crate::grammar::{Key, Kind, Presence, Section};
use crate::nearest::nearest;
use crate::parse::{Entry, Node, Value};
use crate::report::{ItemReport, Report, Spot};
use crate::unit::short;

/// Compares a table. `spot` is where to point when something is missing.
pub(crate) fn validate(section: &'static Section, node: &Node, report: &mut ItemReport<'_>) {
    let entries = node.entries();
    for entry in entries {
        match section.key(&entry.key) {
            Some(key) => check(key, &key.kind, entry.spot, &entry.node, report),
            None if section.named.is_some() => named(section, entry, report),
            None => unknown(section, &entry.key, entry.spot, report),
        }
    }
    let has = |name: &str| entries.iter().find(|entry| entry.key == name);
    for key in section.keys {
        if matches!(key.presence, Presence::Required) && has(key.name).is_none() {
            report.add(
                "missing-key",
                node.spot,
                format!("`{}` is missing in {}", key.name, section.title),
                format!(
                    "write `{} = {}`: {}",
                    key.name,
                    key.kind.example(),
                    lower(key.doc)
                ),
            );
        }
    }
    for group in section.one_of {
        let found: Vec<_> = group.iter().filter_map(|name| has(name)).collect();
        let available = |name: &&str| {
            section
                .key(name)
                .is_some_and(|key| !matches!(key.kind, Kind::Later))
        };
        let names: Vec<&str> = group.iter().copied().filter(available).collect();
        match found.as_slice() {
            [_] => {}
            // An unknown key may be the one that was meant, and was already answered.
            [] if entries
                .iter()
                .any(|entry| section.key(&entry.key).is_none()) => {}
            [] => report.add(
                "exactly-one",
                node.spot,
                format!("{} needs {}", section.title, listed(&names, "or")),
                format!("write exactly one of {}", listed(&names, "and")),
            ),
            [first, more @ ..] => {
                for entry in more {
                    report.add(
                        "exactly-one",
                        entry.spot,
                        format!("`{}` and `{}` cannot stand together", first.key, entry.key),
                        format!("keep exactly one of {}", listed(&names, "and")),
                    );
                }
            }
        }
    }
    for group in section.rivals {
        let found: Vec<_> = group.iter().filter_map(|name| has(name)).collect();
        if let [first, second, ..] = found.as_slice() {
            report.add(
                "contradiction",
                second.spot,
                format!("`{}` and `{}` contradict each other", first.key, second.key),
                format!("keep one of {}", listed(group, "and")),
            );
        }
    }
    for (name, other) in section.needs {
        if let (Some(entry), None) = (has(name), has(other)) {
            report.add(
                "missing-key",
                entry.spot,
                format!("`{name}` says nothing without `{other}`"),
                format!("write `{other}` too, or take `{name}` out"),
            );
        }
    }
}

/// A key whose name is the writer's.
fn named(section: &'static Section, entry: &Entry, report: &mut ItemReport<'_>) {
    let Some((rule, kind)) = section.named else {
        return;
    };
    if let Err(fault) = (rule.check)(&entry.key) {
        report.fault(rule.code, entry.spot, fault);
    }
    let key = Key {
        name: section.title,
        kind: Kind::Text,
        presence: Presence::Optional,
        doc: section.doc,
    };
    check(&key, kind, entry.spot, &entry.node, report);
}

fn unknown(section: &Section, word: &str, spot: Spot, report: &mut ItemReport<'_>) {
    let known: Vec<&str> = section
        .keys
        .iter()
        .filter(|key| !matches!(key.kind, Kind::Later))
        .map(|key| key.name)
        .collect();
    let near = nearest(word, known.iter().copied());
    report.add(
        "unknown-key",
        spot,
        format!("unknown key `{}` in {}", short(word), section.title),
        did_you_mean(near, "keys", &known),
    );
}

/// The nearest known word, and all of them.
pub(crate) fn did_you_mean(near: Option<&str>, what: &str, known: &[&str]) -> String {
    let mut words: Vec<String> = known
        .iter()
        .take(20)
        .map(|word| format!("`{}`", short(word)))
        .collect();
    if known.len() > words.len() {
        words.push(format!("and {} more", known.len() - words.len()));
    }
    let all = if words.is_empty() {
        format!("there are no {what}")
    } else {
        format!("the {what} are {}", words.join(", "))
    };
    match near {
        Some(near) => format!("did you mean `{}`? {all}", short(near)),
        None => all,
    }
}

/// Whether the value has the shape that the kind wants, whatever it holds.
fn fits(kind: &Kind, node: &Node) -> bool {
    match (&node.value, kind) {
        (_, Kind::Either(kinds)) => kinds.iter().any(|kind| fits(kind, node)),
        (Value::Text(..), Kind::Text | Kind::Rule(_) | Kind::Word(_)) => true,
        (
            Value::Text(_, true),
            Kind::Count(..) | Kind::Share | Kind::Percent | Kind::Flag | Kind::Yes,
        ) => true,
        (Value::Integer(_), Kind::Count(..) | Kind::Share | Kind::Percent) => true,
        (Value::Float(_), Kind::Share | Kind::Percent) => true,
        (Value::Flag(_), Kind::Flag | Kind::Yes) => true,
        (Value::List(_), Kind::List(_)) => true,
        (Value::Table(_), Kind::Table(_) | Kind::Map(..)) => true,
        _ => false,
    }
}

fn check(key: &Key, kind: &'static Kind, key_spot: Spot, node: &Node, report: &mut ItemReport<'_>) {
    if matches!(node.value, Value::Refused) {
        return;
    }
    if matches!(kind, Kind::Later) {
        return not_available(key.name, key_spot, "take it out", report);
    }
    if !fits(kind, node) {
        return wrong_type(key, kind, node, report);
    }
    match (kind, &node.value) {
        (Kind::Either(kinds), _) => either(key, kinds, key_spot, node, report),
        (Kind::Rule(rule), Value::Text(text, interpolated)) => {
            if let Err(fault) = (rule.check)(text) {
                let message = if *interpolated {
                    format!("the interpolated `{}` is not {}", key.name, rule.words)
                } else {
                    fault.message
                };
                report.add(rule.code, node.spot, message, fault.hint);
            }
        }
        (Kind::Word(words), Value::Text(text, _)) if !words.contains(&text.as_str()) => {
            let near = nearest(text, words.iter().copied());
            let near = near.map_or(String::new(), |near| format!("did you mean \"{near}\"? "));
            report.add(
                "bad-value",
                node.spot,
                format!(
                    "`{}` must be {}, not {}",
                    key.name,
                    one_of(kind),
                    node.found()
                ),
                format!("{near}for example `{} = {}`", key.name, example(key)),
            );
        }
        (Kind::Count(least, most), _)
            if !node.count().is_some_and(|n| (*least..=*most).contains(&n)) =>
        {
            wrong_value(key, kind, node, report);
        }
        (Kind::Share, _) if !node.number().is_some_and(|n| (0.0..=1.0).contains(&n)) => {
            wrong_value(key, kind, node, report);
        }
        (Kind::Percent, _) if !node.number().is_some_and(|n| (0.0..=100.0).contains(&n)) => {
            wrong_value(key, kind, node, report);
        }
        (Kind::Flag, _) if node.flag().is_none() => wrong_value(key, kind, node, report),
        (Kind::Yes, _) if node.flag() != Some(true) => {
            report.add(
                "bad-value",
                node.spot,
                format!("`{}` can only be true", key.name),
                format!("write `{} = true`, or take it out", key.name),
            );
        }
        (Kind::List(kind), Value::List(nodes)) => {
            for node in nodes {
                check(key, kind, node.spot, node, report);
            }
        }
        (Kind::Map(rule, kind), Value::Table(entries)) => {
            for entry in entries {
                if let Err(fault) = (rule.check)(&entry.key) {
                    report.fault(rule.code, entry.spot, fault);
                }
                check(key, kind, entry.spot, &entry.node, report);
            }
        }
        (Kind::Table(section), _) => validate(section, node, report),
        _ => {}
    }
}

fn either(
    key: &Key,
    kinds: &'static [Kind],
    key_spot: Spot,
    node: &Node,
    report: &mut ItemReport<'_>,
) {
    let fitting: Vec<&'static Kind> = kinds.iter().filter(|kind| fits(kind, node)).collect();
    if let [only] = fitting.as_slice() {
        return check(key, only, key_spot, node, report);
    }
    let mut refusals = Vec::new();
    for kind in fitting {
        let mut trial = Report::default();
        let mut item = ItemReport {
            report: &mut trial,
            file: report.file,
            line: report.line,
        };
        check(key, kind, key_spot, node, &mut item);
        if trial.is_empty() {
            return;
        }
        refusals.push(trial);
    }
    // The first alternative has the most to say; the others are named.
    let words: Vec<String> = kinds
        .iter()
        .filter_map(|kind| match kind {
            Kind::Word(_) => Some(kind.words()),
            _ => None,
        })
        .collect();
    if let Some(first) = refusals.into_iter().next() {
        for problem in first.problems {
            let hint = problem.hint.unwrap_or_default();
            let hint = if words.is_empty() || hint.contains(&words.join(", ")) {
                hint
            } else {
                format!("{hint}; or {}", words.join(", "))
            };
            report
                .report
                .add(problem.code, problem.place, problem.message, hint);
        }
    }
}

fn not_available(name: &str, spot: Spot, hint: &str, report: &mut ItemReport<'_>) {
    report.add(
        "not-available",
        spot,
        format!("`{name}` is not available in this build"),
        hint,
    );
}

fn wrong_type(key: &Key, kind: &Kind, node: &Node, report: &mut ItemReport<'_>) {
    let hint = match (&node.value, kind) {
        (Value::Text(text, false), Kind::Count(..)) if text.parse::<u64>().is_ok() => {
            format!("write `{} = {text}`, without quotes", key.name)
        }
        (Value::Text(text, false), Kind::List(_)) => {
            format!("write `{} = [\"{}\"]`", key.name, short(text))
        }
        _ => format!("for example `{} = {}`", key.name, example(key)),
    };
    report.add(
        "wrong-type",
        node.spot,
        format!(
            "`{}` must be {}, not {}",
            key.name,
            one_of(kind),
            node.found()
        ),
        hint,
    );
}

fn wrong_value(key: &Key, kind: &Kind, node: &Node, report: &mut ItemReport<'_>) {
    report.add(
        "bad-value",
        node.spot,
        format!(
            "`{}` must be {}, not {}",
            key.name,
            kind.words(),
            node.found()
        ),
        format!("for example `{} = {}`", key.name, example(key)),
    );
}

fn one_of(kind: &Kind) -> String {
    match kind {
        Kind::Word(words) if words.len() > 1 => format!("one of {}", kind.words()),
        _ => kind.words(),
    }
}

/// The default where it can be written, else an example.
fn example(key: &Key) -> String {
    match key.presence {
        Presence::Default(value)
            if value.starts_with(|c: char| c.is_ascii_digit() || "\"[{".contains(c))
                && !value.contains(", or ")
                && !matches!(value, "{}" | "[]" | "\"\"") =>
        {
            value.to_owned()
        }
        _ => key.kind.example(),
    }
}

fn listed(names: &[&str], last: &str) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((end, front)) if !front.is_empty() => format!("{} {last} {end}", front.join(", ")),
        _ => quoted.join(", "),
    }
}

/// A sentence as the end of another.
fn lower(sentence: &str) -> String {
    let mut chars = sentence.trim_end_matches('.').chars();
    match (chars.next(), chars.as_str().chars().next()) {
        (Some(first), Some(second)) if second.is_lowercase() || second == ' ' => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => sentence.trim_end_matches('.').to_owned(),
    }
}
