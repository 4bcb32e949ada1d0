//! The blocks that a feed has told, in the order of a document: by file, line and id. One change costs a search, not a
//! walk; a list of all of them costs an owner's count each, and shares every text.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use foldhash::quality::FixedState;

use super::{Kind, Put, Use};

/// A `Put` as it is kept.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    pub id: Arc<str>,
    pub kind: Kind,
    pub file: Arc<str>,
    pub line: u32,
    pub text: Box<str>,
    pub uses: Box<[Use]>,
    /// Two of 64 bits over all of the above.
    pub(crate) digest: [u64; 2],
}

impl Block {
    pub fn new(put: Put) -> Block {
        let file = Arc::from(put.file.as_str());
        Block::in_file(put, file)
    }

    fn in_file(put: Put, file: Arc<str>) -> Block {
        let digest = [11, 12].map(|seed| {
            FixedState::with_seed(seed)
                .hash_one((&put.id, &put.file, put.line, &put.text, &put.uses))
        });
        Block {
            id: put.id.into(),
            kind: put.kind,
            file,
            line: put.line,
            text: put.text.into(),
            uses: put.uses.into(),
            digest,
        }
    }

    /// As it travels.
    pub fn to_put(&self) -> Put {
        Put {
            id: self.id.to_string(),
            kind: self.kind,
            file: self.file.to_string(),
            line: self.line,
            text: self.text.to_string(),
            uses: self.uses.to_vec(),
        }
    }

    /// Bytes that it takes, about.
    pub fn weight(&self) -> usize {
        let uses = self.uses.iter();
        let uses: usize = uses.map(|u| u.reference.len() + u.value.len() + 64).sum();
        self.id.len() + self.text.len() + uses + 256
    }
}

type Key = (Arc<str>, u32, Arc<str>);

/// All blocks, each id once.
#[derive(Debug, Default, Clone)]
pub struct Blocks {
    ordered: BTreeMap<Key, Arc<Block>>,
    places: HashMap<Arc<str>, Key, RandomState>,
    /// Many blocks stand in few files.
    files: HashSet<Arc<str>, RandomState>,
    weight: usize,
}

impl Blocks {
    /// Adds a block, or replaces the one of that id. A block that says the same stays the same `Arc`.
    pub fn put(&mut self, put: Put) {
        let file = match self.files.get(put.file.as_str()) {
            Some(known) => known.clone(),
            None => {
                let new: Arc<str> = Arc::from(put.file.as_str());
                self.files.insert(new.clone());
                new
            }
        };
        let block = Block::in_file(put, file);
        if let Some(known) = self.get(&block.id) {
            if **known == block {
                return;
            }
            let id = known.id.clone();
            self.remove(&id);
        }
        self.weight += block.weight();
        let key = (block.file.clone(), block.line, block.id.clone());
        self.places.insert(block.id.clone(), key.clone());
        self.ordered.insert(key, Arc::new(block));
    }

    /// Whether there was one.
    pub fn remove(&mut self, id: &str) -> bool {
        let Some(key) = self.places.remove(id) else {
            return false;
        };
        if let Some(gone) = self.ordered.remove(&key) {
            self.weight -= gone.weight();
        }
        if self.ordered.is_empty() {
            self.files.clear();
        }
        true
    }

    pub fn get(&self, id: &str) -> Option<&Arc<Block>> {
        self.ordered.get(self.places.get(id)?)
    }

    /// Forgets every block that `keep` does not want.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        let gone: Vec<Arc<str>> = { self.places.keys() }
            .filter(|id| !keep(id))
            .cloned()
            .collect();
        for id in gone {
            self.remove(&id);
        }
    }

    pub fn len(&self) -> usize {
        self.ordered.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ordered.is_empty()
    }

    /// Bytes that all of them take, about.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// All of them, in order, for the loader.
    pub fn list(&self) -> Arc<[Arc<Block>]> {
        self.ordered.values().cloned().collect()
    }
}
