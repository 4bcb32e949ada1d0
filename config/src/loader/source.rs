//! One text of a document: its blocks, and what each of them was decoded to. When the text changes, what still stands
//! in it is kept by its place, without a look at the rest.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::cut::{Block, Blocks, Cut, Replaced, cut, recut};
use crate::document::{Access, ApiKey, Jwt, Limit, Listener, Route, Test, Tier, Upstream};
use crate::interpolate::Use;
use crate::parse::Origins;

use super::reading::Here;
use super::section::top;

/// A decoded item of any section.
pub(super) enum Decoded {
    Listener(Arc<Listener>),
    Route {
        route: Arc<Route>,
        /// It has a name of its own; a default name may have to give way to another.
        named: bool,
    },
    Upstream(Arc<Upstream>),
    Limit(Arc<Limit>),
    ApiKey(Arc<ApiKey>),
    Jwt(Arc<Jwt>),
    Access(Arc<Access>),
    Test(Arc<Test>),
    /// Of a feed only: those of a file stand in one section.
    Tiers(Vec<Arc<Tier>>),
}

/// What a block was decoded to, without a problem.
pub(super) struct Known {
    pub(super) decoded: Decoded,
    /// It holds as long as these say the same.
    pub(super) uses: Box<[Use]>,
}

/// A text that was read, kept until its problems can show their lines and the next load can be compared with it.
pub(super) struct Source {
    pub(super) name: Arc<str>,
    pub(super) folder: PathBuf,
    pub(super) text: String,
    pub(super) cut: Cut,
    /// For each block.
    pub(super) known: Vec<Option<Known>>,
    /// Of a text that was made from a shorter one: what somebody wrote, and where.
    pub(super) written: Option<Written>,
}

pub(super) struct Written {
    pub(super) text: String,
    /// For each line of the text that was made.
    pub(super) origins: Vec<(u32, Option<u32>)>,
}

impl Source {
    pub(super) fn new(name: Arc<str>, folder: PathBuf, text: String) -> Source {
        let mut source = Source {
            name,
            folder,
            text: String::new(),
            cut: Cut::Blocks(Blocks::default()),
            known: Vec::new(),
            written: None,
        };
        source.change(text);
        source
    }

    /// The same file with another text. Returns what was known of blocks that are gone.
    pub(super) fn change(&mut self, text: String) -> Vec<Known> {
        let former = std::mem::replace(&mut self.text, text);
        let replaced = match &mut self.cut {
            Cut::Blocks(blocks) => recut(&former, blocks, &self.text, is_list),
            Cut::Whole { .. } => None,
        };
        let Replaced { at, gone, new } = replaced.unwrap_or_else(|| {
            let gone = std::mem::replace(&mut self.cut, cut(&self.text, is_list)).into_blocks();
            Replaced {
                at: 0,
                gone,
                new: self.blocks().len(),
            }
        });
        let nothing = std::iter::repeat_with(|| None).take(new);
        let known: Vec<_> = self.known.splice(at..at + gone.len(), nothing).collect();
        // Between the first and the last difference a block may stand where another stood, or elsewhere.
        let mut by_text = HashMap::with_hasher(RandomState::default());
        let mut lost = Vec::new();
        for (block, known) in gone.iter().zip(known) {
            if let Some(known) = known {
                lost.extend(by_text.insert(block.text(&former), known));
            }
        }
        if let Cut::Blocks(blocks) = &self.cut {
            for (block, known) in blocks.all[at..at + new].iter().zip(&mut self.known[at..]) {
                *known = by_text.remove(block.text(&self.text));
            }
        }
        lost.extend(by_text.into_values());
        lost
    }

    /// Overwrites what may be secret; lines and positions stay. The next load finds it changed and reads it again.
    pub(super) fn forget_secrets(&mut self) {
        if let Some(written) = &mut self.written {
            let cut = cut(&written.text, is_list);
            written.text = without_secrets(std::mem::take(&mut written.text), &cut);
        }
        self.text = without_secrets(std::mem::take(&mut self.text), &self.cut);
    }

    /// What problems show lines of.
    pub(super) fn shown(&self) -> &str {
        self.written.as_ref().map_or(&self.text, |one| &one.text)
    }

    pub(super) fn origins(&self) -> Option<&Origins> {
        Some(&self.written.as_ref()?.origins)
    }

    pub(super) fn here(&self, first_line: u32) -> Here<'_> {
        Here {
            name: &self.name,
            folder: &self.folder,
            first_line,
            given: None,
        }
    }

    fn blocks(&self) -> &[Block] {
        match &self.cut {
            Cut::Blocks(blocks) => &blocks.all,
            Cut::Whole { .. } => &[],
        }
    }
}

pub(crate) fn is_list(section: &str) -> bool {
    top(section).is_some_and(|top| top.list)
}

fn without_secrets(text: String, cut: &Cut) -> String {
    let Cut::Blocks(blocks) = cut else {
        // It is never compared.
        return String::new();
    };
    let secret = |block: &&Block| matches!(block.section(&text), "api_key" | "jwt" | "limits");
    let ranges: Vec<_> = { blocks.all.iter().filter(secret) }
        .map(Block::range)
        .collect();
    if ranges.is_empty() {
        return text;
    }
    let mut bytes = text.into_bytes();
    for byte in ranges.into_iter().flatten() {
        if bytes[byte] != b'\n' {
            bytes[byte] = b'-';
        }
    }
    String::from_utf8(bytes).unwrap_or_default()
}
