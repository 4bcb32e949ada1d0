//! A short text to its sections: cut, parsed, compared with the grammar. What belongs to a full document is kept as it
//! stands, and judged by whoever reads that.

use std::path::Path;
use std::sync::Arc;

use super::page::Origin;
use crate::cut::{Block, Cut, cut};
use crate::document::Place;
use crate::grammar::sections;
use crate::grammar::sidecar::TOP;
use crate::interpolate::{Environment, Interpolator};
use crate::loader::is_list;
use crate::nearest::nearest;
use crate::parse::{Node, Raw, parse};
use crate::report::{ItemReport, Report};
use crate::unit::short;
use crate::validate::{did_you_mean, validate};

/// A short text, each section as it was written.
pub(super) struct Short {
    pub(super) service: Table,
    pub(super) inbound: Table,
    pub(super) outbound: Table,
    pub(super) capture: Option<Table>,
    /// Sections of a full document, and what stands before the first header.
    pub(super) copied: Vec<Copied>,
}

/// A section of the short file. One that is not there has no keys, and the place of `[service]`.
pub(super) struct Table {
    node: Node,
    raw: Raw,
    /// Its header.
    pub(super) origin: Origin,
}

/// A key of a section: what it is, and how it was written.
#[derive(Clone, Copy)]
pub(super) struct Written<'a> {
    pub(super) node: &'a Node,
    pub(super) raw: &'a Raw,
    pub(super) origin: Origin,
}

/// A section of a full document.
pub(super) struct Copied {
    /// Empty for what stands before the first header.
    pub(super) section: String,
    pub(super) text: String,
    /// Comments right before it, and the line that the first of them stands on.
    pub(super) above: String,
    pub(super) origin: Origin,
    pub(super) raw: Raw,
}

impl Table {
    fn absent(origin: Origin) -> Table {
        Table {
            node: Node {
                value: crate::parse::Value::Table(Vec::new()),
                spot: (0, 1),
            },
            raw: Raw::default(),
            origin,
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<Written<'_>> {
        let node = self.node.get(key)?;
        Some(Written {
            node,
            raw: self.raw.get(key)?,
            origin: (self.origin.0.saturating_add(node.spot.0), node.spot.1),
        })
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.node.get(key)?.text()
    }

    /// Where the key stands, or the section.
    pub(super) fn at(&self, key: &str) -> Origin {
        self.get(key).map_or(self.origin, |written| written.origin)
    }

    /// As it was written, or as this.
    pub(super) fn raw_or<'a>(&'a self, key: &str, otherwise: &'a str) -> &'a str {
        self.raw.get(key).map_or(otherwise, |raw| &raw.text)
    }

    /// The tables of a list, each with its place.
    pub(super) fn tables(&self, key: &str) -> Vec<Table> {
        let Some(list) = self.get(key) else {
            return Vec::new();
        };
        let items = list.node.list().iter().zip(&list.raw.items);
        let table = |(node, raw): (&Node, &Raw)| {
            let line = self.origin.0.saturating_add(node.spot.0);
            // Its own positions count from the section that the list is a part of.
            Table {
                node: relative(node),
                raw: raw.clone(),
                origin: (line, node.spot.1),
            }
        };
        items.map(table).collect()
    }
}

/// The same with positions that count from its own line.
fn relative(node: &Node) -> Node {
    let (line, mut node) = (node.spot.0, node.clone());
    if let crate::parse::Value::Table(entries) = &mut node.value {
        for entry in entries {
            entry.spot.0 = entry.spot.0.saturating_sub(line);
            entry.node.spot.0 = entry.node.spot.0.saturating_sub(line);
        }
    }
    node
}

/// The sections; `None` when what is wrong leaves nothing to go by.
pub(super) fn read(
    name: &Arc<str>,
    text: &str,
    folder: &Path,
    environment: &Environment,
    report: &mut Report,
) -> Option<Short> {
    let before = report.count();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let blocks = match cut(text, is_list) {
        Cut::Blocks(blocks) => blocks.all,
        Cut::Whole { too_deep } => {
            whole(name, text, too_deep, report);
            return None;
        }
    };
    let (mut own, mut copied) = (Vec::new(), Vec::new());
    let mut ended = 0;
    for block in &blocks {
        let above = text.get(ended..block.range().start).unwrap_or_default();
        ended = block.range().end;
        let mut report = ItemReport {
            report,
            file: name,
            line: block.line,
        };
        match table(block, text, folder, environment, &mut report) {
            Some(Read::Own(section, table)) => own.push((section, table)),
            Some(Read::Full(block)) => copied.push(Copied {
                above: comments(above),
                ..block
            }),
            None => {}
        }
    }
    let service = take(&mut own, "service");
    if service.is_none() && report.count() == before {
        let place = Place {
            file: name.clone(),
            line: 1,
            column: 1,
        };
        report.add(
            "missing-section",
            Some(place),
            "`[service]` is missing: beside which application is this?",
            "write `[service]` with its `name` and its `app`, the address that it listens on",
        );
    }
    if report.count() != before {
        return None;
    }
    let service = service?;
    let origin = service.origin;
    Some(Short {
        inbound: take(&mut own, "inbound").unwrap_or_else(|| Table::absent(origin)),
        outbound: take(&mut own, "outbound").unwrap_or_else(|| Table::absent(origin)),
        capture: take(&mut own, "capture"),
        service,
        copied,
    })
}

fn take(own: &mut Vec<(&'static str, Table)>, name: &str) -> Option<Table> {
    let at = own.iter().position(|(known, _)| *known == name)?;
    Some(own.swap_remove(at).1)
}

/// The comments that end right above a section.
fn comments(between: &str) -> String {
    let lines: Vec<&str> = between.lines().collect();
    let from = { lines.iter() }
        .rposition(|line| !line.trim_start().starts_with('#'))
        .map_or(0, |at| at + 1);
    lines.get(from..).unwrap_or_default().join("\n")
}

enum Read {
    Own(&'static str, Table),
    Full(Copied),
}

fn table(
    block: &Block,
    text: &str,
    folder: &Path,
    environment: &Environment,
    report: &mut ItemReport<'_>,
) -> Option<Read> {
    let (section, text) = (block.section(text), block.text(text));
    if let Some(line) = block.too_deep {
        let hint = "no key of a document has more than three";
        let spot = (line.saturating_sub(report.line), 1);
        report.add("too-deep", spot, "a key has too many dots", hint);
        return None;
    }
    let parsed = match parse(text) {
        Ok(parsed) => parsed,
        Err(errors) => {
            for (spot, message) in errors {
                let hint = "correct the TOML here; see toml.io for its rules";
                report.add("syntax", spot, message, hint);
            }
            return None;
        }
    };
    let origin = (report.line.saturating_sub(1), 1);
    let value = parsed.top().find(|value| value.key == section);
    let Some(top) = TOP.iter().find(|top| top.name == section) else {
        if !section.is_empty() && !sections::TOP.iter().any(|top| top.name == section) {
            unknown(section, report);
            return None;
        }
        if let Some(own) = parsed
            .top()
            .find(|v| TOP.iter().any(|top| top.name == v.key))
        {
            not_a_section(own.key, own.spot, report);
            return None;
        }
        return Some(Read::Full(Copied {
            section: section.to_owned(),
            text: text.to_owned(),
            above: String::new(),
            origin,
            raw: value.map_or_else(Raw::default, |value| value.raw()),
        }));
    };
    let value = value.filter(|value| value.is_table());
    let Some((value, section)) = value.zip(top.section) else {
        not_a_section(top.name, (0, 1), report);
        return None;
    };
    let mut interpolator = Interpolator {
        environment,
        folder,
        given: None,
        uses: Vec::new(),
    };
    let node = value.node(0, &mut interpolator, report);
    validate(section, &node, report);
    let raw = value.raw();
    Some(Read::Own(top.name, Table { node, raw, origin }))
}

fn not_a_section(name: &str, spot: (u32, u32), report: &mut ItemReport<'_>) {
    report.add(
        "wrong-type",
        spot,
        format!("`{}` is not written as one section", short(name)),
        format!(
            "write `[{}]` on a line of its own, and its keys below",
            short(name)
        ),
    );
}

fn unknown(word: &str, report: &mut ItemReport<'_>) {
    let own = TOP.iter().map(|top| top.name);
    let full = sections::TOP.iter().filter(|top| top.section.is_some());
    let known: Vec<&str> = own.chain(full.map(|top| top.name)).collect();
    report.add(
        "unknown-section",
        (0, 1),
        format!("unknown section `{}`", short(word)),
        did_you_mean(nearest(word, known.iter().copied()), "sections", &known),
    );
}

/// What is wrong with a text that cannot be cut into sections.
fn whole(name: &Arc<str>, text: &str, too_deep: Option<u32>, report: &mut Report) {
    let mut report = ItemReport {
        report,
        file: name,
        line: 1,
    };
    if let Some(line) = too_deep {
        let hint = "no key of a document has more than three";
        let spot = (line.saturating_sub(1), 1);
        return report.add("too-deep", spot, "a key has too many dots", hint);
    }
    match parse(text) {
        Err(errors) => {
            for (spot, message) in errors {
                let hint = "correct the TOML here; see toml.io for its rules";
                report.add("syntax", spot, message, hint);
            }
        }
        Ok(_) => report.add(
            "not-in-one-piece",
            (0, 1),
            "a part of a section stands away from its section",
            "write what belongs to a section, such as `[service.metadata]`, right below it",
        ),
    }
}
