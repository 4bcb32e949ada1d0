//! A file's document and the blocks of a feed become one document. What a block was decoded to is kept as long as it
//! says the same: of thousands of blocks only a changed one is read. Blocks are compared with those of the last time,
//! one owner with another; no file and no environment is read but the certificates that every check reads.

use std::collections::HashMap;
use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::memory::Memory;
use super::reading::{Here, Reading, hash};
use super::section::top;
use super::source::{Decoded, Known, is_list};
use super::{Loader, SHOWN, shortened};
use crate::cut::{Cut, cut};
use crate::decode;
use crate::document::{At, Document, Filter, Place, Route};
use crate::feed::{Block, Kind};
use crate::parse::TopValue;
use crate::problem::Problems;
use crate::report::ItemReport;
use crate::unit::short;

/// What is remembered from one join to the next.
#[derive(Default)]
pub(super) struct Joined {
    memory: Memory,
    /// In the order of the blocks.
    held: Vec<Held>,
    /// The file that the last join was with.
    file: Option<(String, u64)>,
    /// Its routes, whose names and matches are counted among the remembered ones.
    routes: Vec<Arc<Route>>,
}

/// A block and what it was decoded to, without a problem.
struct Held {
    block: Arc<Block>,
    known: Option<Known>,
}

pub(super) fn join(
    loader: &mut Loader,
    file: &Document,
    blocks: &[Arc<Block>],
) -> Result<Document, Problems> {
    let joined = &mut loader.joined;
    joined.meet(file);
    joined.hold(blocks);
    let mut held = std::mem::take(&mut joined.held);
    let mut reading = Reading::new(&*loader.environment, &mut joined.memory, loader.fleet);
    reading.listeners.clone_from(&file.listeners);
    reading.routes.clone_from(&file.routes);
    reading.upstreams.clone_from(&file.upstreams);
    reading.limits.clone_from(&file.limits);
    reading.api_keys.clone_from(&file.api_keys);
    reading.jwts.clone_from(&file.jwts);
    reading.tests.clone_from(&file.tests);
    let control_plane = file.control_plane.clone();
    reading.control_plane = control_plane.map(|one| (one.clone(), one.place));
    let identity = file.identity.clone();
    reading.identity = identity.map(|one| (one.clone(), one.place));
    reading.keeps_state = file.server.state_dir.is_some();
    let main = Place {
        file: file.sources.first().map_or_else(
            || Arc::from(""),
            |path| Arc::from(path.display().to_string()),
        ),
        line: 1,
        column: 1,
    };
    reading.sharing = file.sharing.clone().map(|sharing| (Some(sharing), main));
    if let Some(first) = file.tiers.first() {
        reading.tiers = Some((file.tiers.clone(), first.begins()));
    }
    reading.routes.reserve(held.len());
    hash(&mut reading.hashers, file.hash.as_bytes());
    for Held { block, known } in &mut held {
        for (hasher, digest) in reading.hashers.iter_mut().zip(block.digest) {
            hasher.write_u64(digest);
        }
        match known {
            Some(known) => reading.take(&known.decoded, &block.file, block.line),
            None => reading.feed_block(block, known),
        }
    }
    let result = finish(reading, file, &held);
    joined.held = held;
    result.map_err(|mut problems| {
        show_lines(&mut problems, &loader.memory, blocks);
        problems
    })
}

impl Joined {
    /// Counts the routes of this file instead of those of the file before it.
    fn meet(&mut self, file: &Document) {
        let now = (file.hash.clone(), file.keys);
        if self.file.as_ref() == Some(&now) {
            return;
        }
        for route in std::mem::take(&mut self.routes) {
            self.memory.forget_route(&route);
        }
        self.routes = file.routes.iter().map(|item| item.value.clone()).collect();
        for route in &self.routes {
            self.memory.learn_route(route);
        }
        self.memory.doubt();
        self.file = Some(now);
    }

    /// Holds these blocks, with what is still known of them.
    fn hold(&mut self, blocks: &[Arc<Block>]) {
        let same = |(held, block): &(&Held, &Arc<Block>)| Arc::ptr_eq(&held.block, block);
        let head = self.held.iter().zip(blocks).take_while(same).count();
        let rest = self.held[head..].iter().rev();
        let tail = rest
            .zip(blocks[head..].iter().rev())
            .take_while(same)
            .count();
        let gone = self.held.splice(
            head..self.held.len() - tail,
            blocks[head..blocks.len() - tail].iter().map(|block| Held {
                block: block.clone(),
                known: None,
            }),
        );
        let mut gone: HashMap<Arc<str>, Held, RandomState> = gone
            .filter(|held| held.known.is_some())
            .map(|held| (held.block.id.clone(), held))
            .collect();
        let new = self.held.len() - tail;
        for held in &mut self.held[head..new] {
            let (block, says_the_same) = (&held.block, |former: &Held| {
                let (former, block) = (&former.block, &held.block);
                (&former.file, &former.text, &former.uses)
                    == (&block.file, &block.text, &block.uses)
                    && former.kind == block.kind
            });
            if gone.get(&block.id).is_some_and(says_the_same) {
                held.known = gone.remove(&block.id).and_then(|former| former.known);
            }
        }
        for known in gone.into_values().filter_map(|held| held.known) {
            self.memory.forget(&known);
        }
    }
}

impl Reading<'_> {
    /// Reads a block that is not known.
    fn feed_block(&mut self, block: &Block, known: &mut Option<Known>) {
        let before = self.report.count();
        let begins = Place {
            file: block.file.clone(),
            line: block.line,
            column: 1,
        };
        let cut = cut(&block.text, is_list);
        let too_deep = match &cut {
            Cut::Whole { too_deep } => *too_deep,
            Cut::Blocks(blocks) => blocks.all.iter().find_map(|one| one.too_deep),
        };
        let one = match &cut {
            Cut::Blocks(blocks) => match blocks.all.as_slice() {
                [one] if !one.is_preamble(&block.text) => Some(one),
                _ => None,
            },
            Cut::Whole { .. } => None,
        };
        let here = Here {
            name: &block.file,
            // A path in it must be absolute.
            folder: Path::new(""),
            first_line: block.line.saturating_add(one.map_or(0, |one| one.line - 1)),
            given: Some(&block.uses),
        };
        let word = one.map_or("", |one| one.section(&block.text));
        if one.is_none() || word != block.kind.word() {
            // A mistake of syntax explains itself; anything else is the sender's.
            if too_deep.is_some() || self.parse(&here, &block.text, too_deep).is_some() {
                self.foreign(block, word, begins);
            }
            self.broken.section(block.kind.word());
            return;
        }
        let text = one.map_or("", |one| one.text(&block.text));
        // The cutter counts from the start of the text, a place from the start of the file.
        let too_deep = too_deep.map(|line| block.line.saturating_add(line - 1));
        let Some(parsed) = self.parse(&here, text, too_deep) else {
            self.broken.section(block.kind.word());
            return;
        };
        let value = parsed.top().find(|value| value.key == block.kind.word());
        let (Some(value), Some(top)) = (value, top(block.kind.word())) else {
            self.foreign(block, word, begins);
            return;
        };
        if block.kind == Kind::Tiers {
            self.feed_tiers(&here, &value, known);
        } else {
            self.section(&here, top, &value, Some(known));
        }
        if let Some(Known { decoded, .. }) = known {
            match decoded {
                Decoded::Upstream(upstream) => {
                    if let Some(tls) = &upstream.tls {
                        let paths = [&tls.ca, &tls.cert, &tls.key];
                        self.relative_paths(block, tls.at, paths.into_iter().flatten());
                    }
                }
                Decoded::Route { route, .. } => {
                    for filter in &route.filters {
                        if let Filter::Transcode(transcode) = &filter.value {
                            let descriptors = &transcode.descriptors;
                            self.relative_paths(
                                block,
                                descriptors.at,
                                std::iter::once(&descriptors.value),
                            );
                        }
                    }
                }
                _ => {}
            }
            if let Decoded::ApiKey(_) = decoded
                && value
                    .items()
                    .is_some_and(|items| items.iter().any(|item| item.has("key")))
            {
                self.report.add(
                    "key-in-the-open",
                    Some(here.place((0, 1))),
                    "a control plane must not send a key",
                    "it sends `hash` instead of `key`",
                );
            }
        }
        if self.report.count() > before
            && let Some(known) = known.take()
        {
            self.memory.forget(&known);
        }
    }

    /// A block that is not what its kind says.
    fn foreign(&mut self, block: &Block, word: &str, place: Place) {
        let what = match (Kind::of(word), word) {
            (_, "") => "is not one section".to_owned(),
            (None, _) => format!(
                "is of the section `{}`, which belongs to the node's own file",
                short(word)
            ),
            (Some(_), _) => format!(
                "says that it is of `{}` and is of `{word}`",
                block.kind.word()
            ),
        };
        let kinds: Vec<&str> = Kind::ALL.into_iter().map(Kind::word).collect();
        self.report.add(
            "bad-block",
            Some(place),
            format!("block `{}` {what}", short(&block.id)),
            format!(
                "a control plane sends one section at a time, of {}",
                kinds.join(", ")
            ),
        );
    }

    fn feed_tiers(&mut self, here: &Here<'_>, value: &TopValue<'_, '_>, known: &mut Option<Known>) {
        let section = top("tiers").and_then(|top| top.section);
        let (Some(section), true) = (section, value.is_table()) else {
            return;
        };
        let before = self.report.count();
        let (node, _) = self.node(here, 0, value.key, value, section);
        let mut report = ItemReport {
            report: &mut self.report,
            file: here.name,
            line: here.first_line,
        };
        let tiers = decode::tiers(&node, &mut report).into_iter().map(Arc::new);
        let decoded = Decoded::Tiers(tiers.collect());
        self.take(&decoded, here.name, here.first_line);
        if self.report.count() == before {
            *known = Some(Known {
                decoded,
                uses: Box::default(),
            });
        }
    }

    fn relative_paths<'p>(
        &mut self,
        block: &Block,
        at: At,
        paths: impl Iterator<Item = &'p PathBuf>,
    ) {
        for path in paths {
            if path.is_relative() {
                let (line, column) = at.0.unwrap_or((0, 1));
                let place = Place {
                    file: block.file.clone(),
                    line: block.line.saturating_add(line),
                    column,
                };
                self.report.add(
                    "relative-path",
                    Some(place),
                    format!("the path `{}` is not absolute", short(&path.display().to_string())),
                    "files of a control plane's document are the node's own; write where they are on every node",
                );
            }
        }
    }
}

fn finish(mut reading: Reading<'_>, file: &Document, held: &[Held]) -> Result<Document, Problems> {
    let known = reading.report.is_empty();
    if !known || !reading.memory.names_differ() {
        reading.name_routes();
    }
    let keys = reading.check();
    if !reading.report.is_empty() {
        let mut files: Vec<Arc<str>> = Vec::new();
        for name in held.iter().map(|held| &held.block.file) {
            if files.last() != Some(name) {
                files.push(name.clone());
            }
        }
        reading.memory.doubt();
        return Err(Problems(reading.report.finish(&files)));
    }
    reading
        .memory
        .end_good(Vec::new(), &reading.listeners, &reading.upstreams);
    let mut sources = file.sources.clone();
    for path in reading.watched {
        if !sources.contains(&path) {
            sources.push(path);
        }
    }
    let hashers = reading.hashers.iter();
    Ok(Document {
        server: file.server.clone(),
        control_plane: file.control_plane.clone(),
        identity: file.identity.clone(),
        listeners: reading.listeners,
        routes: reading.routes,
        upstreams: reading.upstreams,
        limits: reading.limits,
        tiers: reading.tiers.map_or_else(Vec::new, |(tiers, _)| tiers),
        api_keys: reading.api_keys,
        jwts: reading.jwts,
        errors: file.errors,
        tests: reading.tests,
        sharing: file.sharing.clone(),
        telemetry: file.telemetry.clone(),
        sources,
        hash: hashers.map(|h| format!("{:016x}", h.finish())).collect(),
        keys,
    })
}

/// Gives each problem the line that it is about, from the block or the file that it stands in.
fn show_lines(problems: &mut Problems, memory: &Memory, blocks: &[Arc<Block>]) {
    for problem in &mut problems.0 {
        let Some(place) = &problem.place else {
            continue;
        };
        let in_block = |block: &&Arc<Block>| {
            let lines = u32::try_from(block.text.lines().count()).unwrap_or(u32::MAX);
            block.file == place.file
                && (block.line..block.line.saturating_add(lines)).contains(&place.line)
        };
        let found = blocks.iter().find(in_block);
        let line = match found {
            Some(block) => line_of(&block.text, place.line - block.line),
            None => memory
                .text(&place.file)
                .and_then(|text| line_of(text, place.line.saturating_sub(1))),
        };
        if let Some(line) = line
            && usize::try_from(place.column).is_ok_and(|column| column <= SHOWN)
        {
            problem.text = Some(shortened(line));
        }
    }
}

fn line_of(text: &str, number: u32) -> Option<&str> {
    text.lines().nth(usize::try_from(number).ok()?)
}
