//! Cuts a text into the parts that stand on their own: `[[route]]` with its `[route.retry]` is one block.
//!
//! Cutting is what makes a reload cheap (a block whose text is known is never parsed again) and what keeps a mistake
//! in one block from hiding those in the others. This is no parser: it knows strings, comments and brackets, just
//! enough to tell a header from anything else, and never refuses. A text that it cannot cut safely is read whole.
//!
//! A changed text is cut between its first and its last difference only (`recut`); what stands around them is neither
//! lexed nor hashed, but compared.

mod lexer;
#[cfg(test)]
mod tests;

use std::ops::Range;

use lexer::{Header, Lexer};

/// One part of a text, by its positions there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    section: Range<usize>,
    range: Range<usize>,
    /// Line of the header in the text, counted from 1.
    pub(crate) line: u32,
    /// The line of a key with more dots than any document needs. Such a block must not be parsed: a parser would nest
    /// a table for each of them, and a deep enough nest cannot be dropped without exhausting the stack.
    pub(crate) too_deep: Option<u32>,
    /// Counted among the sections that may come once.
    single: bool,
}

impl Block {
    /// First word of the header; empty for what stands before the first header.
    pub(crate) fn section<'a>(&self, text: &'a str) -> &'a str {
        &text[self.section.clone()]
    }

    /// From the header to the last line that is neither blank nor a comment.
    pub(crate) fn text<'a>(&self, text: &'a str) -> &'a str {
        &text[self.range.clone()]
    }

    pub(crate) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Whether this is what stands before the first header.
    pub(crate) fn is_preamble(&self, text: &str) -> bool {
        self.line == 1 && self.section.is_empty() && !self.text(text).trim_start().starts_with('[')
    }

    /// An empty one, to be filled.
    fn open(section: Range<usize>, at: usize, line: u32) -> Block {
        Block {
            section,
            range: at..at,
            line,
            too_deep: None,
            single: false,
        }
    }
}

/// Different words of sections that come once. Beyond that a text is nonsense, and looking for doubles in it is too.
const MOST_SINGLES: usize = 64;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Blocks(Blocks),
    /// Sub-tables stand away from what they belong to: only the whole text makes sense.
    Whole {
        too_deep: Option<u32>,
    },
}

impl Cut {
    pub(crate) fn into_blocks(self) -> Vec<Block> {
        match self {
            Cut::Blocks(blocks) => blocks.all,
            Cut::Whole { .. } => Vec::new(),
        }
    }
}

/// All blocks of a text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Blocks {
    pub(crate) all: Vec<Block>,
    /// Every string is closed and every single section counted: a block begins where it does whatever follows it.
    steady: bool,
}

/// `is_list` tells which sections are written `[[…]]`: those may come more than once.
pub(crate) fn cut(text: &str, is_list: impl Fn(&str) -> bool) -> Cut {
    let mut cutter = Cutter::new(text, is_list);
    cutter.run(|_| None::<()>);
    if cutter.whole {
        return Cut::Whole {
            too_deep: cutter.deepest,
        };
    }
    Cut::Blocks(Blocks {
        steady: cutter.is_steady(),
        all: cutter.blocks,
    })
}

/// What cutting again replaced: these blocks, by that many from the same position on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Replaced {
    pub(crate) at: usize,
    pub(crate) gone: Vec<Block>,
    pub(crate) new: usize,
}

/// Makes the blocks of the `former` text those of `text`. `None`, and nothing changed, when that takes a cut anew.
pub(crate) fn recut<'a>(
    former: &'a str,
    blocks: &mut Blocks,
    text: &'a str,
    is_list: impl Fn(&str) -> bool,
) -> Option<Replaced> {
    let known = &blocks.all;
    if !blocks.steady {
        return None;
    }
    let head = common_head(former.as_bytes(), text.as_bytes());
    let tail = common_head_reversed(&former.as_bytes()[head..], &text.as_bytes()[head..]);
    // A header whose line did not change is the same header: what stands before it did not change either.
    let mut front = known
        .partition_point(|block| block.range.start < head)
        .saturating_sub(1);
    let has_line = |block: &Block| former.as_bytes()[block.range.start..head].contains(&b'\n');
    if front > 0 && !has_line(&known[front]) {
        front -= 1;
    }
    let mut cutter = Cutter::new(text, is_list);
    if front > 0 {
        let (before, first) = (&known[front - 1], &known[front]);
        cutter.lexer = Lexer::new(text, first.range.start, first.line);
        cutter.open = Block::open(before.section.clone(), first.range.start, first.line);
        let singles = known[..front].iter().filter(|block| block.single);
        cutter.singles = singles.map(|block| block.section(text)).collect();
    }
    // From a block on that is known and followed by nothing new, everything goes as it went before.
    let back = cutter.run(|at| {
        let before = (at + tail >= text.len()).then(|| at + former.len() - text.len())?;
        let rest = known[front..].binary_search_by_key(&before, |block| block.range.start);
        rest.ok().map(|position| front + position)
    });
    let back = back.unwrap_or(known.len());
    for block in known[back..].iter().filter(|block| block.single) {
        cutter.single(block.section(former));
    }
    if cutter.whole || !cutter.is_steady() {
        return None;
    }
    let (at, line) = (cutter.open.range.start, cutter.open.line);
    let new = cutter.blocks;
    if let Some(first) = blocks.all.get(back) {
        let (from, from_line) = (first.range.start, first.line);
        if (from, from_line) != (at, line) {
            let byte = |byte: usize| byte - from + at;
            let range = |range: &Range<usize>| byte(range.start)..byte(range.end);
            let lines = |known: u32| known - from_line + line;
            for block in &mut blocks.all[back..] {
                block.section = range(&block.section);
                block.range = range(&block.range);
                block.line = lines(block.line);
                block.too_deep = block.too_deep.map(lines);
            }
        }
    }
    Some(Replaced {
        at: front,
        new: new.len(),
        gone: blocks.all.splice(front..back, new).collect(),
    })
}

/// Compared by pieces of this length, then by bytes.
const STRIDE: usize = 256;

fn common_head(a: &[u8], b: &[u8]) -> usize {
    let pieces = a.chunks_exact(STRIDE).zip(b.chunks_exact(STRIDE));
    let same = pieces.take_while(|(a, b)| a == b).count() * STRIDE;
    let bytes = a[same..].iter().zip(&b[same..]);
    same + bytes.take_while(|(a, b)| a == b).count()
}

fn common_head_reversed(a: &[u8], b: &[u8]) -> usize {
    let pieces = a.rchunks_exact(STRIDE).zip(b.rchunks_exact(STRIDE));
    let same = pieces.take_while(|(a, b)| a == b).count() * STRIDE;
    let bytes = a[..a.len() - same]
        .iter()
        .rev()
        .zip(b[..b.len() - same].iter().rev());
    same + bytes.take_while(|(a, b)| a == b).count()
}

struct Cutter<'a, L> {
    text: &'a str,
    is_list: L,
    lexer: Lexer<'a>,
    blocks: Vec<Block>,
    /// The block that the lexer is in.
    open: Block,
    singles: Vec<&'a str>,
    whole: bool,
    deepest: Option<u32>,
}

impl<'a, L: Fn(&str) -> bool> Cutter<'a, L> {
    fn new(text: &'a str, is_list: L) -> Cutter<'a, L> {
        Cutter {
            text,
            is_list,
            lexer: Lexer::new(text, 0, 1),
            blocks: Vec::new(),
            open: Block::open(0..0, 0, 1),
            singles: Vec::new(),
            whole: false,
            deepest: None,
        }
    }

    /// Cuts up to the end, or up to the block that `known` has something for.
    fn run<T>(&mut self, known: impl Fn(usize) -> Option<T>) -> Option<T> {
        loop {
            let (at, line) = (self.lexer.at, self.lexer.line);
            let header = self.lexer.header();
            if let Some(header) = &header {
                if !self.is_attached(header) {
                    self.close();
                    self.open = Block::open(header.section.clone(), at, line);
                    if self.lexer.open_ended == [false; 2]
                        && let Some(known) = known(at)
                    {
                        return Some(known);
                    }
                    let section = &self.text[header.section.clone()];
                    if (self.is_list)(section) {
                        self.whole |= header.dotted;
                    } else {
                        self.open.single = self.single(section);
                    }
                }
                self.lexer.depth = 0;
            }
            let Some(content) = self.lexer.finish_line() else {
                break;
            };
            if content || header.is_some() {
                self.open.range.end = self.lexer.at;
            }
        }
        self.close();
        None
    }

    fn is_attached(&self, header: &Header) -> bool {
        header.dotted && self.text[header.section.clone()] == self.text[self.open.section.clone()]
    }

    fn close(&mut self) {
        self.deepest = self.deepest.or(self.lexer.deep);
        self.open.too_deep = self.lexer.deep.take();
        if !self.open.range.is_empty() {
            self.blocks.push(self.open.clone());
        }
    }

    /// Counts a section that may come once.
    fn single(&mut self, section: &'a str) -> bool {
        if self.singles.contains(&section) {
            self.whole = true;
        }
        let counted = !self.whole && self.singles.len() < MOST_SINGLES;
        if counted {
            self.singles.push(section);
        }
        counted
    }

    fn is_steady(&self) -> bool {
        self.lexer.open_ended == [false; 2] && self.singles.len() < MOST_SINGLES
    }
}
