//! Revisions: who changed what, and when. Each holds the blocks that it changed, as they were before and after, so that
//! any kept revision can be told from, compared with and returned to. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tollgate_config::feed::{Block, Blocks, Put};

/// Where a change came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The folder.
    Files,
    Api,
    Rollback,
}

/// One block that a revision changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub id: Arc<str>,
    pub before: Option<Arc<Block>>,
    pub after: Option<Arc<Block>>,
}

/// What became of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    Added,
    Changed,
    Removed,
    /// Stands in another line; the same text.
    Moved,
}

impl Change {
    pub fn what(&self) -> What {
        match (&self.before, &self.after) {
            (None, _) => What::Added,
            (_, None) => What::Removed,
            (Some(a), Some(b)) if a.text == b.text && a.uses == b.uses => What::Moved,
            _ => What::Changed,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    pub number: u64,
    /// Milliseconds since 1970.
    pub time: u64,
    pub by: String,
    pub note: String,
    pub origin: Origin,
    pub changes: Vec<Change>,
}

/// As it is kept.
#[derive(Serialize, Deserialize)]
struct Written {
    revision: u64,
    time: u64,
    by: String,
    note: String,
    origin: Origin,
    changes: Vec<(Option<Put>, Option<Put>)>,
}

impl Revision {
    pub(crate) fn write(&self) -> String {
        let put = |block: &Option<Arc<Block>>| block.as_ref().map(|block| block.to_put());
        let changes = self.changes.iter();
        let written = Written {
            revision: self.number,
            time: self.time,
            by: self.by.clone(),
            note: self.note.clone(),
            origin: self.origin,
            changes: changes.map(|c| (put(&c.before), put(&c.after))).collect(),
        };
        // Strings and numbers.
        serde_json::to_string(&written).unwrap_or_default()
    }

    pub(crate) fn read(text: &str) -> Result<Revision, String> {
        let written: Written = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let block = |put: Option<Put>| put.map(|put| Arc::new(Block::new(put)));
        let changes = written.changes.into_iter().filter_map(|(before, after)| {
            let (before, after) = (block(before), block(after));
            let id = after.as_ref().or(before.as_ref())?.id.clone();
            Some(Change { id, before, after })
        });
        Ok(Revision {
            number: written.revision,
            time: written.time,
            by: written.by,
            note: written.note,
            origin: written.origin,
            changes: changes.collect(),
        })
    }
}

/// The latest revisions, oldest first, without a gap.
#[derive(Debug, Clone, Default)]
pub struct History {
    kept: VecDeque<Arc<Revision>>,
}

impl History {
    pub fn push(&mut self, revision: Arc<Revision>, keep: usize) {
        if let Some(last) = self.kept.back()
            && last.number + 1 != revision.number
        {
            self.kept.clear();
        }
        self.kept.push_back(revision);
        while self.kept.len() > keep {
            self.kept.pop_front();
        }
    }

    /// Newest first.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Revision>> {
        self.kept.iter().rev()
    }

    pub fn get(&self, number: u64) -> Option<&Arc<Revision>> {
        self.kept.iter().find(|revision| revision.number == number)
    }

    /// The oldest revision whose blocks are still known: the one before the first that is kept, which is nothing at
    /// all when that is the first there ever was.
    pub fn oldest(&self) -> u64 {
        self.kept.front().map_or(0, |first| first.number - 1)
    }

    pub fn newest(&self) -> u64 {
        self.kept.back().map_or(0, |last| last.number)
    }

    fn knows(&self, number: u64) -> bool {
        (self.oldest()..=self.newest()).contains(&number)
    }

    /// What makes revision `to` of revision `from`, in the order of ids.
    pub fn difference(&self, from: u64, to: u64) -> Option<Vec<Change>> {
        if !self.knows(from) || !self.knows(to) {
            return None;
        }
        let (low, high) = (from.min(to), from.max(to));
        let mut folded: BTreeMap<Arc<str>, Change> = BTreeMap::new();
        let span = self.kept.iter();
        for revision in span.filter(|one| one.number > low && one.number <= high) {
            for change in &revision.changes {
                match folded.get_mut(&change.id) {
                    Some(known) => known.after.clone_from(&change.after),
                    None => {
                        folded.insert(change.id.clone(), change.clone());
                    }
                }
            }
        }
        let changed = folded.into_values().filter(|one| one.before != one.after);
        Some(if from <= to {
            changed.collect()
        } else {
            let back = |one: Change| Change {
                id: one.id,
                before: one.after,
                after: one.before,
            };
            changed.map(back).collect()
        })
    }
}

/// Does to the blocks what the changes say.
pub fn follow(blocks: &mut Blocks, changes: &[Change]) {
    for change in changes {
        match &change.after {
            Some(after) => blocks.put(after.to_put()),
            None => {
                blocks.remove(&change.id);
            }
        }
    }
}

/// What makes `after` of `before`, in the order of the document.
pub fn compare(before: &Blocks, after: &Blocks) -> Vec<Change> {
    let former = before.list();
    let gone = { former.iter() }
        .filter(|block| after.get(&block.id).is_none())
        .map(|block| Change {
            id: block.id.clone(),
            before: Some(block.clone()),
            after: None,
        })
        .collect::<Vec<_>>();
    let list = after.list();
    let there = list.iter().filter_map(|block| {
        let known = before.get(&block.id);
        if known.is_some_and(|known| Arc::ptr_eq(known, block) || known == block) {
            return None;
        }
        Some(Change {
            id: block.id.clone(),
            before: known.cloned(),
            after: Some(block.clone()),
        })
    });
    gone.into_iter().chain(there).collect()
}
