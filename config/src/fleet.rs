//! A document of a fleet, cut into what a feed carries: each section with its place, its text as it was written, and
//! what its references stand for. What a block's text means, and whether all of them go together, is for
//! `Loader::blocks`, which is what nodes do, too.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use crate::cut::{self, Cut};
use crate::feed::{Block, Kind, MOST_TEXT, Put, Use};
use crate::grammar::sections;
use crate::interpolate::Interpolator;
use crate::nearest::nearest;
use crate::parse::{Node, TopValue, parse};
use crate::problem::Problems;
use crate::report::{ItemReport, Report};
use crate::unit::short;
use crate::validate::did_you_mean;

/// Where references are looked up.
pub struct Looks<'a> {
    pub environment: &'a (dyn Fn(&str) -> Option<String> + Send + 'static),
    /// Of `${file:…}`; a document that did not come from a folder has none.
    pub folder: Option<&'a Path>,
}

/// Cuts a document. `former`: blocks of the same document, by their texts; what still stands there is not parsed.
pub fn cut(
    name: &str,
    text: &str,
    looks: &Looks<'_>,
    former: &HashMap<&str, Arc<Block>>,
) -> Result<Vec<Put>, Problems> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut cutting = Cutting {
        name: Arc::from(name),
        looks,
        report: Report::default(),
        ids: HashSet::new(),
        puts: Vec::new(),
    };
    match cut::cut(text, |word| {
        sections::TOP.iter().any(|top| top.list && top.name == word)
    }) {
        Cut::Blocks(blocks) => {
            for block in &blocks.all {
                let own = block.text(text);
                if block.is_preamble(text) && own.trim().is_empty() {
                    continue;
                }
                match (former.get(own), block.too_deep) {
                    (_, Some(line)) => cutting.add("too-deep", line, "a key has too many dots"),
                    (Some(known), _) if known.uses.is_empty() => {
                        let word = known.id.split_once('#').map_or("", |(_, word)| word);
                        let word = word.rsplit_once('~').map_or(word, |(word, _)| word);
                        cutting.put(known.kind, word.to_owned(), block.line, own, Vec::new());
                    }
                    _ => cutting.block(block.section(text), block.line, own),
                }
            }
        }
        Cut::Whole { too_deep } => cutting.add(
            "bad-block",
            too_deep.unwrap_or(1),
            "a sub-table stands away from what it belongs to",
        ),
    }
    if cutting.report.is_empty() {
        return Ok(cutting.puts);
    }
    let mut problems = cutting.report.finish(std::slice::from_ref(&cutting.name));
    for problem in &mut problems {
        let line = problem.place.as_ref().map_or(0, |place| place.line);
        let line = usize::try_from(line).unwrap_or(0);
        let line = line.checked_sub(1).and_then(|at| text.lines().nth(at));
        // A key in the open stays where it was written.
        if problem.code != "key-in-the-open" {
            problem.text = line.filter(|text| text.len() < 1000).map(str::to_owned);
        }
    }
    Err(Problems(problems))
}

struct Cutting<'a> {
    name: Arc<str>,
    looks: &'a Looks<'a>,
    report: Report,
    ids: HashSet<String>,
    puts: Vec<Put>,
}

impl Cutting<'_> {
    fn add(&mut self, code: &'static str, line: u32, message: impl Into<String>) {
        let mut report = self.at(line);
        let hint = "write every section with its sub-tables together, such as `[[route]]` and then `[route.retry]`";
        report.add(code, (0, 1), message, hint);
    }

    fn at(&mut self, line: u32) -> ItemReport<'_> {
        ItemReport {
            report: &mut self.report,
            file: &self.name,
            line,
        }
    }

    fn block(&mut self, section: &str, line: u32, text: &str) {
        if text.len() > MOST_TEXT {
            self.add(
                "bad-block",
                line,
                format!("a section has more than {MOST_TEXT} bytes"),
            );
            return;
        }
        let parsed = match parse(text) {
            Ok(parsed) => parsed,
            Err(errors) => {
                for (spot, message) in errors {
                    let hint = "correct the TOML here; see toml.io for its rules";
                    self.at(line).add("syntax", spot, message, hint);
                }
                return;
            }
        };
        for value in parsed.top() {
            match Kind::of(value.key) {
                Some(kind) if value.key == section => self.value(kind, &value, line, text),
                _ => self.foreign(&value, line),
            }
        }
    }

    /// A section, or a key without one, that is not of a fleet.
    fn foreign(&mut self, value: &TopValue<'_, '_>, line: u32) {
        let kinds = Kind::ALL.map(Kind::word);
        let known = value.key == "include" || sections::TOP.iter().any(|top| top.name == value.key);
        let word = short(value.key);
        let (code, message, hint) = if known || Kind::of(value.key).is_some() {
            (
                "not-of-a-fleet",
                format!("`{word}` does not belong into a document of a fleet"),
                format!(
                    "write it into the node's own file; here stand {}",
                    kinds.join(", ")
                ),
            )
        } else {
            let near = nearest(value.key, kinds.iter().copied());
            (
                "unknown-section",
                format!("unknown section `{word}`"),
                did_you_mean(near, "sections", &kinds),
            )
        };
        self.at(line).add(code, value.spot, message, hint);
    }

    fn value(&mut self, kind: Kind, value: &TopValue<'_, '_>, line: u32, text: &str) {
        let looks = self.looks;
        let mut interpolator = Interpolator {
            environment: looks.environment,
            folder: looks.folder.unwrap_or(Path::new("")),
            given: None,
            uses: Vec::new(),
        };
        let mut report = ItemReport {
            report: &mut self.report,
            file: &self.name,
            line,
        };
        let before = report.report.count();
        let items = value.items();
        let node = match items.as_deref() {
            Some([item]) => item.node(0, &mut interpolator, &mut report),
            Some(_) => {
                let hint = "write each of them with a header of its own, such as `[[route]]`";
                report.add("bad-block", value.spot, "a section has several items", hint);
                return;
            }
            None => value.node(0, &mut interpolator, &mut report),
        };
        if looks.folder.is_none()
            && interpolator
                .uses
                .iter()
                .any(|one| one.reference.starts_with("file:"))
        {
            let hint = "write the value, use `${env:…}`, or let the document come from the control plane's folder";
            let message = "`${file:…}` is for documents that stand in the control plane's folder";
            report.add("bad-reference", (0, 1), message, hint);
        }
        if kind == Kind::ApiKey && node.get("key").is_some() {
            let hint = "write `hash` instead of `key`: a control plane keeps and sends no keys";
            report.add(
                "key-in-the-open",
                (0, 1),
                "a key stands here in the open",
                hint,
            );
        }
        if self.report.count() == before {
            let mut uses: Vec<Use> = Vec::new();
            for one in interpolator.uses {
                if uses.iter().all(|known| known.reference != one.reference) {
                    uses.push(one);
                }
            }
            self.put(kind, word(kind, &node), line, text, uses);
        }
    }

    fn put(&mut self, kind: Kind, word: String, line: u32, text: &str, uses: Vec<Use>) {
        // A name that comes twice is refused by whoever looks at all blocks; until then both need an id.
        let first = format!("{}#{word}", self.name);
        let mut id = first.clone();
        let mut count = 1;
        while !self.ids.insert(id.clone()) {
            count += 1;
            id = format!("{first}~{count}");
        }
        self.puts.push(Put {
            id,
            kind,
            file: self.name.to_string(),
            line,
            text: text.to_owned(),
            uses,
        });
    }
}

/// What a block is called: its kind, and its name or what stands for one.
fn word(kind: Kind, node: &Node) -> String {
    let text = |key: &str| node.get(key).and_then(Node::text);
    let name = match kind {
        Kind::Tiers => return kind.word().to_owned(),
        Kind::ApiKey => text("client").or(text("name")),
        Kind::Test => node
            .get("request")
            .and_then(|request| request.get("path")?.text()),
        _ => text("name"),
    };
    let name = name.map(str::to_owned).or_else(|| {
        let matches = node.get("match")?;
        let part = |key: &str| Some(matches.get(key)?.text()?.to_owned());
        let parts = [part("method"), part("host"), part("path")];
        Some(parts.into_iter().flatten().collect::<Vec<_>>().join(" "))
    });
    let name = name.unwrap_or_default().replace(char::is_control, " ");
    let short: String = name.replace('~', "-").chars().take(200).collect();
    format!("{}:{short}", kind.word())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, former: &HashMap<&str, Arc<Block>>) -> Result<Vec<Put>, Problems> {
        let environment = |name: &str| (name == "WHERE").then(|| "there".to_owned());
        let looks = Looks {
            environment: &environment,
            folder: None,
        };
        cut("a.toml", text, &looks, former)
    }

    const TEXT: &str = "# about\n\n[[route]]\nname = \"a\"\nmatch = { path = \"/a\" }\n\n# the second\n[[route]]\n\
        match = { path = \"/${env:WHERE}\", host = \"b.example\" }\n[route.retry]\nattempts = 1\n\n\
        [tiers]\n[[route]]\nname = \"a\"\n";

    #[test]
    fn sections_keep_their_text_place_and_what_their_references_stand_for() {
        let puts = of(TEXT, &HashMap::new()).expect("good");
        let told: Vec<_> = puts.iter().map(|put| (put.id.as_str(), put.line)).collect();
        let wanted = [
            ("a.toml#route:a", 3),
            ("a.toml#route:b.example /there", 8),
            ("a.toml#tiers", 13),
            ("a.toml#route:a~2", 14),
        ];
        assert_eq!(told, wanted);
        assert!(puts[1].text.ends_with("attempts = 1\n"));
        assert!(puts[1].text.contains("${env:WHERE}"), "as it was written");
        assert_eq!(puts[1].uses[0].value, "there");
    }

    #[test]
    fn what_is_known_is_cut_to_the_same() {
        let first = of(TEXT, &HashMap::new()).expect("good");
        let blocks: Vec<Arc<Block>> = { first.iter() }
            .map(|put| Arc::new(Block::new(put.clone())))
            .collect();
        let former = blocks
            .iter()
            .map(|block| (&*block.text, block.clone()))
            .collect();
        assert_eq!(of(TEXT, &former), Ok(first));
    }

    #[test]
    fn any_text_is_cut_or_refused() {
        let parts = [
            "[[route]]\n",
            "name = \"a\"\n",
            "[tiers]\n",
            "[route.retry]\n",
            "\"\"\"",
            "'",
            "a.b.c=1\n",
            "${",
            "\u{feff}",
            "é",
            "[[api_key]]\nkey=\"k\"\n",
            "[[",
            "{",
            "\n",
        ];
        let mut seed: u64 = 1;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..8 {
                seed = seed
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                text += parts[usize::try_from(seed >> 33).unwrap_or(0) % parts.len()];
            }
            let _either = of(&text, &HashMap::new());
        }
    }
}
