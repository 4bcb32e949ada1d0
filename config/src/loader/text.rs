//! One text: its blocks, those that are remembered and those that must be read, or all of it when it cannot be cut.

use std::path::Path;
use std::sync::Arc;

use super::reading::{Here, Reading, hash};
use super::section::top;
use super::source::{Known, Source, Written};
use crate::cut::{Block, Cut};
use crate::document::Place;
use crate::grammar::sections;
use crate::interpolate::{Interpolator, Use, files_of};
use crate::nearest::nearest;
use crate::parse::{Node, Origins, Parsed, TopValue, parse_written};
use crate::sidecar;
use crate::unit;
use crate::validate::did_you_mean;

impl Reading<'_> {
    pub(super) fn one_text(&mut self, name: Arc<str>, mut text: String, folder: &Path) {
        if text.starts_with('\u{feff}') {
            text.drain(..'\u{feff}'.len_utf8());
        }
        // Only what was named is a short file; what it includes are parts of a full document.
        if self.short && self.sources.is_empty() && sidecar::is_short(&text) {
            return self.short_text(name, text, folder);
        }
        hash(&mut self.hashers, text.as_bytes());
        let mut source = self.memory.source(name, folder, text);
        // Taken out while both are needed.
        let mut known = std::mem::take(&mut source.known);
        match &source.cut {
            Cut::Whole { too_deep } => self.whole(&source, *too_deep),
            Cut::Blocks(blocks) => match blocks.all.as_slice() {
                [first, ..]
                    if first.is_preamble(&source.text) && !self.preamble(&source, first) =>
                {
                    let too_deep = blocks.all.iter().find_map(|block| block.too_deep);
                    self.whole(&source, too_deep);
                }
                blocks => self.blocks(&source, blocks, &mut known),
            },
        }
        source.known = known;
        self.sources.push(source);
    }

    /// Reads the full document that a short text stands for. Everything that is found points at the short one.
    fn short_text(&mut self, name: Arc<str>, text: String, folder: &Path) {
        let lowered = sidecar::lower(&name, &text, folder, self.environment, &mut self.report);
        let full = match &lowered {
            Some(lowered) => lowered.text.clone(),
            None => String::new(),
        };
        hash(&mut self.hashers, full.as_bytes());
        let mut source = self.memory.source(name, folder, full);
        source.written = Some(Written {
            text,
            origins: lowered.map_or_else(Vec::new, |lowered| lowered.origins),
        });
        match self.report.is_empty() {
            true => self.whole(&source, None),
            false => self.broken.everything(),
        }
        self.sources.push(source);
    }

    /// Reads what stands before the first header; `false` when it holds sections, so that the text must be read whole.
    fn preamble(&mut self, source: &Source, block: &Block) -> bool {
        let here = source.here(block.line);
        let text = block.text(&source.text);
        let Some(parsed) = self.parse(&here, text, None, block.too_deep) else {
            self.broken.everything();
            return true;
        };
        if parsed.top().any(|value| top(value.key).is_some()) {
            return false;
        }
        self.top_keys(&here, &parsed);
        true
    }

    /// Reads a text that cannot be cut.
    fn whole(&mut self, source: &Source, too_deep: Option<u32>) {
        self.whole = true;
        let here = source.here(1);
        match self.parse(&here, &source.text, source.origins(), too_deep) {
            Some(parsed) => {
                self.top_keys(&here, &parsed);
                for value in parsed.top() {
                    if let Some(top) = top(value.key) {
                        self.section(&here, top, &value, None);
                    }
                }
            }
            None => self.broken.everything(),
        }
    }

    /// Reads all blocks but the preamble.
    fn blocks(&mut self, source: &Source, blocks: &[Block], known: &mut [Option<Known>]) {
        self.routes.reserve(blocks.len());
        for (block, known) in blocks.iter().zip(known) {
            if !self.remembered(source, block, known) && !block.is_preamble(&source.text) {
                self.block(source, block, known);
            }
        }
    }

    /// Takes over what a block is known to be, or forgets it when it is no longer that.
    fn remembered(&mut self, source: &Source, block: &Block, known: &mut Option<Known>) -> bool {
        let Some(Known { decoded, uses }) = known else {
            return false;
        };
        if !uses.is_empty() {
            let interpolator = Interpolator {
                environment: self.environment,
                folder: &source.folder,
                given: None,
                uses: Vec::new(),
            };
            let same = |used: &Use| {
                interpolator
                    .look_up(&used.reference)
                    .is_ok_and(|value| value == used.value)
            };
            if !uses.iter().all(same) {
                known
                    .take()
                    .iter()
                    .for_each(|known| self.memory.forget(known));
                return false;
            }
            for used in uses.iter() {
                hash(&mut self.hashers, used.value.as_bytes());
            }
            self.watched.extend(files_of(uses, &source.folder));
        }
        self.take(decoded, &source.name, block.line);
        true
    }

    fn block(&mut self, source: &Source, block: &Block, known: &mut Option<Known>) {
        let here = source.here(block.line);
        let section = block.section(&source.text);
        let parsed = self.parse(&here, block.text(&source.text), None, block.too_deep);
        let Some(top) = top(section) else {
            // A header that is no header is the parser's to explain.
            if parsed.is_some() {
                self.unknown_section(section, here.place((0, 1)));
            }
            self.broken.everything();
            return;
        };
        let Some(parsed) = parsed else {
            self.broken.section(top.name);
            return;
        };
        match parsed.top().find(|value| value.key == top.name) {
            Some(value) => self.section(&here, top, &value, Some(known)),
            None => self.broken.section(top.name),
        }
    }

    pub(super) fn parse<'t>(
        &mut self,
        here: &Here<'_>,
        text: &'t str,
        origins: Option<&'t Origins>,
        too_deep: Option<u32>,
    ) -> Option<Parsed<'t>> {
        if let Some(line) = too_deep {
            let place = Place {
                file: here.name.clone(),
                // Counted from the start of the file by whoever cut it.
                line,
                column: 1,
            };
            self.report.add(
                "too-deep",
                Some(place),
                "a key has too many dots",
                "no key of a document has more than three",
            );
            return None;
        }
        match parse_written(text, origins) {
            Ok(parsed) => Some(parsed),
            Err(errors) => {
                for (spot, message) in errors {
                    let place = here.place(spot);
                    self.report.add(
                        "syntax",
                        Some(place),
                        message,
                        "correct the TOML here; see toml.io for its rules",
                    );
                }
                None
            }
        }
    }

    fn unknown_section(&mut self, word: &str, place: Place) {
        let known: Vec<&str> = sections::TOP
            .iter()
            .filter(|t| t.section.is_some())
            .map(|t| t.name)
            .collect();
        self.report.add(
            "unknown-section",
            Some(place),
            format!("unknown section `{}`", unit::short(word)),
            did_you_mean(nearest(word, known.iter().copied()), "sections", &known),
        );
    }

    /// The keys at the top level that are no sections.
    fn top_keys(&mut self, here: &Here<'_>, parsed: &Parsed<'_>) {
        for value in parsed.top().filter(|value| top(value.key).is_none()) {
            if value.key != "include" {
                let place = here.place(value.spot);
                if value.is_table()
                    || value
                        .items()
                        .is_some_and(|i| i.iter().any(TopValue::is_table))
                {
                    self.unknown_section(value.key, place);
                } else {
                    let known: Vec<&str> = sections::PREAMBLE.keys.iter().map(|k| k.name).collect();
                    self.report.add(
                        "unknown-key",
                        Some(place),
                        format!("unknown key `{}` at the top level", unit::short(value.key)),
                        did_you_mean(nearest(value.key, known.iter().copied()), "keys", &known),
                    );
                }
                continue;
            }
            let (node, _) = self.node(here, 0, value.key, &value, &sections::PREAMBLE);
            let patterns: &[Node] = match node.text() {
                Some(_) => &[],
                None => node.list(),
            };
            for pattern in patterns {
                if let Some(text) = pattern.text() {
                    self.include(here.folder, text, here.place(pattern.spot));
                }
            }
        }
    }
}
