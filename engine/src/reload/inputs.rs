//! What the one writer has to go by: the file, and the blocks of the feed. Keeps the latest of each, and what of each
//! serves: a half that is refused never holds up the other. No I/O but the loader's.

use std::sync::Arc;

use tollgate_config::feed::Block;
use tollgate_config::{Document, Loader, Problems};

pub type List = Arc<[Arc<Block>]>;

/// A file and the blocks to join with it.
#[derive(Clone)]
pub struct Pair {
    pub file: Arc<Document>,
    /// `None`: no control plane has told anything yet.
    pub blocks: Option<List>,
}

/// Which half is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    File,
    Feed,
}

pub struct Inputs {
    latest: Pair,
    served: Pair,
}

impl Inputs {
    /// This serves.
    pub fn new(served: Pair) -> Inputs {
        Inputs {
            latest: served.clone(),
            served,
        }
    }

    pub fn file(&mut self, file: Document) {
        self.latest.file = Arc::new(file);
    }

    pub fn blocks(&mut self, blocks: List) {
        self.latest.blocks = Some(blocks);
    }

    /// What may serve next, the best first: the latest of both, or the new half with what serves of the other.
    pub fn candidates(&self, changed: Changed) -> Vec<Pair> {
        let latest = self.latest.clone();
        let other = match changed {
            Changed::File => Pair {
                file: latest.file.clone(),
                blocks: self.served.blocks.clone(),
            },
            Changed::Feed => Pair {
                file: self.served.file.clone(),
                blocks: latest.blocks.clone(),
            },
        };
        if same(&latest, &other) {
            return vec![latest];
        }
        vec![latest, other]
    }

    pub fn serves(&mut self, pair: Pair) {
        self.served = pair;
    }

    pub fn served(&self) -> &Pair {
        &self.served
    }
}

impl Pair {
    pub fn document(&self, loader: &mut Loader) -> Result<Document, Problems> {
        match &self.blocks {
            Some(blocks) if self.file.control_plane.is_some() => loader.join(&self.file, blocks),
            _ => Ok(Document::clone(&self.file)),
        }
    }

    /// Whether this is all that there should be: the file alone when it names no control plane; the control plane's
    /// word, however old; or routes of the file's own to begin with.
    pub fn is_complete(&self) -> bool {
        self.file.control_plane.is_none() || self.blocks.is_some() || !self.file.routes.is_empty()
    }
}

fn same(one: &Pair, other: &Pair) -> bool {
    Arc::ptr_eq(&one.file, &other.file)
        && match (&one.blocks, &other.blocks) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn file(body: &str) -> Document {
        let text = format!("[[listener]]\nbind = \"127.0.0.1:0\"\n{body}");
        Loader::new()
            .load_text("g.toml", &text, Path::new("/"))
            .expect("valid")
    }

    const ASKS: &str = "[control_plane]\nurls = [\"http://127.0.0.1:1\"]\n";

    #[test]
    fn a_refused_half_does_not_hold_up_the_other() {
        let begin = Pair {
            file: Arc::new(file(ASKS)),
            blocks: Some(Arc::from([])),
        };
        let mut inputs = Inputs::new(begin.clone());
        assert_eq!(inputs.candidates(Changed::Feed).len(), 1);
        // A file that is refused, and then blocks: first both, then the blocks with the file that serves.
        inputs.file(file(&format!(
            "{ASKS}[[route]]\nmatch = {{ path = \"/\" }}\nrespond = {{ status = 200 }}\n"
        )));
        assert_eq!(inputs.candidates(Changed::File).len(), 1);
        let blocks: List = Arc::from([]);
        inputs.blocks(blocks.clone());
        let candidates = inputs.candidates(Changed::Feed);
        assert_eq!(candidates.len(), 2);
        assert_eq!(candidates[0].file.routes.len(), 1);
        assert!(Arc::ptr_eq(&candidates[1].file, &begin.file));
        let of = |pair: &Pair| {
            pair.blocks
                .as_ref()
                .map(|list| Arc::as_ptr(list).cast::<()>())
        };
        assert_eq!(of(&candidates[1]), Some(Arc::as_ptr(&blocks).cast()));
        // And the other way round.
        let candidates = inputs.candidates(Changed::File);
        assert_eq!(of(&candidates[1]), of(&begin));
    }

    #[test]
    fn cp_106_complete_is_the_control_planes_word_or_a_route_to_begin_with() {
        let pair = |body: &str, blocks: Option<List>| Pair {
            file: Arc::new(file(body)),
            blocks,
        };
        let route =
            format!("{ASKS}[[route]]\nmatch = {{ path = \"/\" }}\nrespond = {{ status = 200 }}\n");
        assert!(pair("", None).is_complete());
        assert!(!pair(ASKS, None).is_complete());
        assert!(pair(ASKS, Some(Arc::from([]))).is_complete());
        assert!(pair(&route, None).is_complete());
    }
}
