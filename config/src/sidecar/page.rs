//! The full document while it is written: a text, and for each of its lines where in the short one it comes from.

use super::Lowered;

/// A line of the short text, counted from 0, and a column.
pub(super) type Origin = (u32, u32);

#[derive(Default)]
pub(super) struct Page {
    text: String,
    origins: Vec<(u32, Option<u32>)>,
    /// The header of the block that is being written.
    header: usize,
}

impl Page {
    /// Begins a block: what it is for, then its header.
    pub(super) fn block(&mut self, words: &str, header: &str, origin: Origin) {
        // What stands between belongs to no block before.
        self.header = self.origins.len();
        if !self.text.is_empty() {
            self.line("", origin);
        }
        for line in words.lines() {
            self.line(&format!("# {line}"), origin);
        }
        self.header = self.origins.len();
        self.line(header, origin);
    }

    /// A key of the block. `value` is TOML.
    pub(super) fn key(&mut self, name: &str, value: &str, origin: Origin) {
        self.noted_key(name, value, "", origin);
    }

    /// A key, and why it is there.
    pub(super) fn noted_key(&mut self, name: &str, value: &str, why: &str, origin: Origin) {
        let why = match why {
            "" => String::new(),
            why => format!("  # {why}"),
        };
        self.line(&format!("{name} = {value}{why}"), origin);
    }

    /// Lines that stand in the short text as they are, the first of them there at `line`.
    pub(super) fn copy(&mut self, text: &str, line: u32) {
        for (text, line) in text.trim_end_matches('\n').split('\n').zip(line..) {
            self.text.push_str(text);
            self.text.push('\n');
            self.origins.push((line, None));
        }
    }

    pub(super) fn blank(&mut self, origin: Origin) {
        self.header = self.origins.len();
        self.line("", origin);
    }

    /// Of what spans several lines, the first stands at its origin, and the others follow it there as they do here.
    fn line(&mut self, text: &str, (line, column): Origin) {
        // A block is said to begin no later than the first of its keys: positions in it count from there.
        if let Some((begins, at)) = self.origins.get_mut(self.header)
            && line < *begins
        {
            (*begins, *at) = (line, Some(1));
        }
        for (text, line) in text.split('\n').zip(line..) {
            self.text.push_str(text);
            self.text.push('\n');
            self.origins.push((line, Some(column)));
        }
    }

    pub(super) fn finish(self) -> Lowered {
        Lowered {
            text: self.text,
            origins: self.origins,
        }
    }
}
