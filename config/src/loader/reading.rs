//! One load, from the first file to the finished document. Notes every problem on its way and stops at none.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foldhash::quality::{FixedState, FoldHasher};

use super::memory::{Decoded, Memory, RouteRead};
use super::{Source, include, with_lines};
use crate::check::{self, Broken, CheckedRoute, Checks};
use crate::cut::{Block, Cut, cut};
use crate::document::*;
use crate::grammar::{Section, Top, sections};
use crate::interpolate::{Environment, Interpolator, Use, files_of};
use crate::nearest::nearest;
use crate::parse::{Node, Parsed, TopValue, parse};
use crate::problem::Problems;
use crate::report::{ItemReport, Report};
use crate::validate::{did_you_mean, validate};
use crate::{decode, unit};

pub(super) struct Reading<'l> {
    pub(super) report: Report,
    environment: &'l Environment,
    memory: &'l mut Memory,
    sources: Vec<Source>,
    /// Everything that was read, in order, for whoever watches.
    watched: Vec<PathBuf>,
    /// Files that were read or wait to be read, by their real paths: a file belongs to a document once.
    seen: HashSet<PathBuf>,
    waiting: VecDeque<(PathBuf, Place)>,
    hashers: [FoldHasher<'static>; 2],
    server: Option<(Server, Place)>,
    telemetry: Option<(Telemetry, Place)>,
    listeners: Vec<Item<Listener>>,
    routes: Vec<(RouteRead, Arc<str>, u32)>,
    upstreams: Vec<Item<Upstream>>,
    tests: Vec<Item<Test>>,
    broken: Broken,
}

/// The text that is being read, and where it stands.
struct Here<'a> {
    name: &'a Arc<str>,
    folder: &'a Path,
    /// Line of the file that the parsed text begins on.
    first_line: u32,
}

impl<'l> Reading<'l> {
    pub(super) fn new(environment: &'l Environment, memory: &'l mut Memory) -> Reading<'l> {
        memory.begin();
        Reading {
            report: Report::default(),
            environment,
            memory,
            sources: Vec::new(),
            watched: Vec::new(),
            seen: HashSet::new(),
            waiting: VecDeque::new(),
            // Two of 64 bits: documents are compared with their own past, not with an enemy's.
            hashers: [1, 2].map(|seed| FixedState::with_seed(seed).build_hasher()),
            server: None,
            telemetry: None,
            listeners: Vec::new(),
            routes: Vec::new(),
            upstreams: Vec::new(),
            tests: Vec::new(),
            broken: Broken::default(),
        }
    }

    pub(super) fn file(&mut self, path: &Path, bytes: Vec<u8>) {
        self.watched.push(path.to_owned());
        self.seen.insert(real(path));
        let name: Arc<str> = Arc::from(path.display().to_string());
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        match String::from_utf8(bytes) {
            Ok(text) => self.text(name, text, folder),
            Err(error) => {
                let good = error.utf8_error().valid_up_to();
                let before = String::from_utf8_lossy(&error.as_bytes()[..good]).into_owned();
                let line = u32::try_from(before.matches('\n').count()).unwrap_or(u32::MAX);
                let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count());
                let place = Place {
                    file: name,
                    line: line.saturating_add(1),
                    column: u32::try_from(column).unwrap_or(u32::MAX).saturating_add(1),
                };
                self.report.add(
                    "not-utf8",
                    Some(place),
                    "the file is not UTF-8 text",
                    "save it as UTF-8",
                );
                self.broken.everything();
            }
        }
    }

    /// Reads a text, then what it includes.
    pub(super) fn text(&mut self, name: Arc<str>, text: String, folder: PathBuf) {
        self.one_text(name, text, &folder);
        while let Some((path, place)) = self.waiting.pop_front() {
            match include::read(&path, false) {
                Ok(bytes) => self.file(&path, bytes),
                Err(why) => {
                    self.report.add(
                        "missing-file",
                        Some(place),
                        format!("{} cannot be read: {why}", path.display()),
                        "correct the path; it is relative to the file that it stands in",
                    );
                    self.broken.everything();
                }
            }
        }
    }

    fn one_text(&mut self, name: Arc<str>, mut text: String, folder: &Path) {
        if text.starts_with('\u{feff}') {
            text.drain(..'\u{feff}'.len_utf8());
        }
        hash(&mut self.hashers, text.as_bytes());
        let is_list = |word: &str| top(word).is_some_and(|top| top.list);
        match cut(&text, is_list) {
            Cut::Whole { too_deep } => self.whole(&name, &text, folder, too_deep),
            Cut::Blocks(blocks) => {
                let mut rest = blocks.as_slice();
                let mut apart = true;
                if let [first, more @ ..] = rest
                    && first.section.is_empty()
                    && first.line == 1
                    && !first.text.trim_start().starts_with('[')
                {
                    apart = self.preamble(&name, folder, first);
                    rest = more;
                }
                if apart {
                    for block in rest {
                        self.block(&name, folder, block);
                    }
                } else {
                    let too_deep = blocks.iter().find_map(|b| b.too_deep);
                    self.whole(&name, &text, folder, too_deep);
                }
            }
        }
        self.sources.push(Source { name, text });
    }

    /// Reads what stands before the first header; `false` when it holds sections, so that the text must be read whole.
    fn preamble(&mut self, name: &Arc<str>, folder: &Path, block: &Block<'_>) -> bool {
        let here = Here {
            name,
            folder,
            first_line: block.line,
        };
        let Some(parsed) = self.parse(&here, block.text, block.too_deep) else {
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
    fn whole(&mut self, name: &Arc<str>, text: &str, folder: &Path, too_deep: Option<u32>) {
        let here = Here {
            name,
            folder,
            first_line: 1,
        };
        match self.parse(&here, text, too_deep) {
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

    fn block(&mut self, name: &Arc<str>, folder: &Path, block: &Block<'_>) {
        let here = Here {
            name,
            folder,
            first_line: block.line,
        };
        let place = here.place((0, 1));
        let Some(top) = top(block.section) else {
            // A header that is no header is the parser's to explain.
            let parsed = self.parse(&here, block.text, block.too_deep);
            if parsed.is_some() {
                self.unknown_section(block.section, place);
            }
            self.broken.everything();
            return;
        };
        if top.list
            && let Some((decoded, uses)) = self.memory.find(folder, block.text, self.environment)
        {
            for used in uses {
                hash(&mut self.hashers, used.value.as_bytes());
            }
            self.watched.extend(files_of(uses, folder));
            self.take(decoded, name.clone(), block.line);
            return;
        }
        let Some(parsed) = self.parse(&here, block.text, block.too_deep) else {
            self.broken.section(top.name);
            return;
        };
        match parsed.top().find(|value| value.key == top.name) {
            Some(value) => self.section(&here, top, &value, Some(block.text)),
            None => self.broken.section(top.name),
        }
    }

    fn parse<'t>(
        &mut self,
        here: &Here<'_>,
        text: &'t str,
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
        match parse(text) {
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

    fn include(&mut self, folder: &Path, pattern: &str, place: Place) {
        match include::expand(folder, pattern) {
            Ok(paths) => {
                for path in paths {
                    if self.seen.insert(real(&path)) {
                        self.waiting.push_back((path, place.clone()));
                    }
                }
            }
            Err(why) => {
                self.report.add(
                    "missing-file",
                    Some(place),
                    format!("`{}` includes nothing: {why}", unit::short(pattern)),
                    "correct the path; it is relative to this file",
                );
                self.broken.everything();
            }
        }
    }

    /// The node of a section's value or item, validated. At the top level the value is one key of `section`.
    fn node(
        &mut self,
        here: &Here<'_>,
        line: u32,
        key: &str,
        value: &TopValue<'_, '_>,
        section: &'static Section,
    ) -> (Node, Vec<Use>) {
        let mut interpolator = Interpolator {
            environment: self.environment,
            folder: here.folder,
            uses: Vec::new(),
        };
        let mut report = ItemReport {
            report: &mut self.report,
            file: here.name,
            line: here.first_line.saturating_add(line),
        };
        let node = value.node(line, &mut interpolator, &mut report);
        if std::ptr::eq(section, &sections::PREAMBLE) {
            let entry = crate::parse::Entry {
                key: key.to_owned(),
                spot: value.spot,
                node: node.clone(),
            };
            let table = Node {
                value: crate::parse::Value::Table(vec![entry]),
                spot: (0, 1),
            };
            validate(section, &table, &mut report);
        } else {
            validate(section, &node, &mut report);
        }
        self.watched.extend(interpolator.files());
        let uses = interpolator.uses;
        for used in &uses {
            hash(&mut self.hashers, used.value.as_bytes());
        }
        (node, uses)
    }

    /// Reads all items of a section's value. `text` is the block's, when it can be remembered by it.
    fn section(
        &mut self,
        here: &Here<'_>,
        top: &'static Top,
        value: &TopValue<'_, '_>,
        text: Option<&str>,
    ) {
        let Some(section) = top.section else {
            self.report.add(
                "not-available",
                Some(here.place(value.spot)),
                format!("`{}` is not available in this build", top.name),
                "take the section out",
            );
            return;
        };
        let items = match (top.list, value.items()) {
            (true, Some(items)) => items,
            (false, None) if value.is_table() => {
                let (node, _) = self.node(here, 0, value.key, value, section);
                self.single(here, top.name, &node, here.place(value.spot));
                return;
            }
            (_, items) => {
                let right = if top.list {
                    format!("[[{}]]", top.name)
                } else {
                    format!("[{}]", top.name)
                };
                self.report.add(
                    "wrong-type",
                    Some(here.place(value.spot)),
                    format!(
                        "`{}` is not written as {}",
                        top.name,
                        if top.list {
                            "a list of tables"
                        } else {
                            "one table"
                        }
                    ),
                    format!("write `{right}`"),
                );
                self.broken.section(top.name);
                if items.is_none() && value.is_table() {
                    // Its keys can still be compared.
                    let _ = self.node(here, value.spot.0, value.key, value, section);
                }
                return;
            }
        };
        for item in items {
            let before = self.report.problems.len();
            if !item.is_table() {
                self.report.add(
                    "wrong-type",
                    Some(here.place(item.spot)),
                    format!("`{}` must be a list of tables", top.name),
                    format!("write `[[{}]]`, with its keys below", top.name),
                );
                self.broken.section(top.name);
                continue;
            }
            let (node, uses) = self.node(here, item.spot.0, item.key, &item, section);
            let line = here.first_line.saturating_add(item.spot.0);
            let mut report = ItemReport {
                report: &mut self.report,
                file: here.name,
                line,
            };
            let decoded = decode_item(top.name, &node, here.folder, &mut report);
            match decoded {
                Some(decoded) => {
                    if let Some(text) = text
                        && self.report.problems.len() == before
                    {
                        self.memory.keep(here.folder, text, decoded.clone(), uses);
                    }
                    self.take(decoded, here.name.clone(), line);
                }
                None => match node
                    .get("name")
                    .or_else(|| node.get("bind"))
                    .and_then(Node::text)
                {
                    Some(name) => self.broken.name(top.name, name),
                    None => self.broken.section(top.name),
                },
            }
        }
    }

    fn single(&mut self, here: &Here<'_>, name: &'static str, node: &Node, place: Place) {
        let before = if name == "server" {
            let server = decode::server(node, here.folder);
            self.server
                .replace((server, place.clone()))
                .map(|(_, place)| place)
        } else {
            let telemetry = decode::telemetry(node, here.folder);
            self.telemetry
                .replace((telemetry, place.clone()))
                .map(|(_, place)| place)
        };
        if let Some(before) = before {
            self.report.add(
                "duplicate-name",
                Some(place),
                format!("`[{name}]` stands here and at {before}"),
                "keep one of the two",
            );
        }
    }

    fn take(&mut self, decoded: Decoded, file: Arc<str>, line: u32) {
        match decoded {
            Decoded::Route(read) => self.routes.push((read, file, line)),
            Decoded::Listener(value) => self.listeners.push(Item { value, file, line }),
            Decoded::Upstream(value) => self.upstreams.push(Item { value, file, line }),
            Decoded::Test(value) => self.tests.push(Item { value, file, line }),
        }
    }

    pub(super) fn finish(mut self) -> Result<Document, Problems> {
        let routes = self.named_routes();
        let unread = self.sources.is_empty();
        let mut keys = 0;
        let main = self.sources.first().map(|source| source.name.clone());
        if !unread {
            let mut checks = Checks {
                listeners: &self.listeners,
                routes: &routes,
                upstreams: &self.upstreams,
                tests: &self.tests,
                admin: self
                    .server
                    .as_ref()
                    .map(|(server, place)| (server.admin, place.clone())),
                broken: &self.broken,
                main: main.unwrap_or_else(|| Arc::from("")),
                report: &mut self.report,
                read: Vec::new(),
                keys: self.memory.keys.build_hasher(),
            };
            check::check(&mut checks);
            keys = checks.keys.finish();
            for (path, content) in checks.read {
                hash(&mut self.hashers, &content);
                self.watched.push(path);
            }
        }
        self.memory.end();
        if !self.report.is_empty() {
            return Err(with_lines(self.report, &self.sources));
        }
        let mut sources: Vec<PathBuf> = Vec::with_capacity(self.watched.len());
        let mut listed = HashSet::new();
        for path in self.watched {
            if listed.insert(path.clone()) {
                sources.push(path);
            }
        }
        let hash = self
            .hashers
            .iter()
            .map(|h| format!("{:016x}", h.finish()))
            .collect();
        Ok(Document {
            server: self
                .server
                .map_or_else(decode::default_server, |(server, _)| server),
            listeners: self.listeners,
            routes: routes.into_iter().map(|r| r.item).collect(),
            upstreams: self.upstreams,
            tests: self.tests,
            telemetry: self
                .telemetry
                .map_or_else(decode::default_telemetry, |(t, _)| t),
            sources,
            hash,
            keys,
        })
    }

    /// Routes with their final names: where two have the same default name, the later adds its host, then a number.
    fn named_routes(&mut self) -> Vec<CheckedRoute> {
        let mut taken: HashSet<String, foldhash::fast::RandomState> = HashSet::default();
        // Only a default name can give way, and only then are names compared here.
        let clash = self.routes.iter().any(|(read, ..)| !read.named) && {
            let mut names: HashSet<&str, foldhash::fast::RandomState> = HashSet::default();
            names.reserve(self.routes.len());
            !self
                .routes
                .iter()
                .all(|(read, ..)| names.insert(&read.route.name))
        };
        if clash {
            taken.extend(
                self.routes
                    .iter()
                    .filter(|(r, ..)| r.named)
                    .map(|(r, ..)| r.route.name.clone()),
            );
        }
        let mut routes = Vec::with_capacity(self.routes.len());
        for (read, file, line) in std::mem::take(&mut self.routes) {
            let mut value = read.route.clone();
            if clash && !read.named && !taken.insert(value.name.clone()) {
                let name = free_name(&value, |name| !taken.contains(name));
                taken.insert(name.clone());
                value = self.memory.rename(&read, name);
            }
            routes.push(CheckedRoute {
                item: Item { value, file, line },
                key: read.key,
            });
        }
        routes
    }
}

impl Here<'_> {
    fn place(&self, spot: (u32, u32)) -> Place {
        Place {
            file: self.name.clone(),
            line: self.first_line.saturating_add(spot.0),
            column: spot.1,
        }
    }
}

fn top(word: &str) -> Option<&'static Top> {
    sections::TOP.iter().find(|top| top.name == word)
}

fn hash(hashers: &mut [FoldHasher<'static>; 2], bytes: &[u8]) {
    for hasher in hashers {
        // The length first, so that two texts do not hash like another two with the same characters in all.
        hasher.write_usize(bytes.len());
        hasher.write(bytes);
    }
}

fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn decode_item(
    section: &str,
    node: &Node,
    folder: &Path,
    report: &mut ItemReport<'_>,
) -> Option<Decoded> {
    Some(match section {
        "listener" => Decoded::Listener(Arc::new(decode::listener(node, folder, report)?)),
        "upstream" => Decoded::Upstream(Arc::new(decode::upstream(node, folder, report)?)),
        "test" => Decoded::Test(Arc::new(decode::test(node)?)),
        _ => {
            let route = decode::route(node, report)?;
            Decoded::Route(RouteRead {
                named: node.get("name").is_some(),
                key: decode::match_key(&route.matches).into(),
                route: Arc::new(route),
            })
        }
    })
}

fn free_name(route: &Route, free: impl Fn(&str) -> bool) -> String {
    let host = route.matches.host.as_ref().map(|host| match host {
        HostPattern::Exact(name) => name.clone(),
        HostPattern::Wildcard(name) => format!("*.{name}"),
    });
    let base = match host {
        Some(host) => match route.name.split_once(" /") {
            Some((methods, path)) => format!("{methods} {host}/{path}"),
            None => format!("{host}{}", route.name),
        },
        None => route.name.clone(),
    };
    if free(&base) {
        return base;
    }
    let mut number = 2u32;
    loop {
        let name = format!("{base} #{number}");
        if free(&name) {
            return name;
        }
        number = number.saturating_add(1);
    }
}
