//! Cuts a text into the parts that stand on their own: `[[route]]` with its `[route.retry]` is one block.
//!
//! Cutting is what makes a reload cheap (a block whose text is known is never parsed again) and what keeps a mistake
//! in one block from hiding those in the others. This is no parser: it knows strings, comments and brackets, just
//! enough to tell a header from anything else, and never refuses. A text that it cannot cut safely is read whole.

/// One part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block<'a> {
    /// First word of the header; empty for what stands before the first header.
    pub(crate) section: &'a str,
    /// Line of the header in the text, counted from 1.
    pub(crate) line: u32,
    /// From the header to the last line that is neither blank nor a comment.
    pub(crate) text: &'a str,
    /// A key with more dots than any document needs. Such a block must not be parsed: a parser would nest a table for
    /// each of them, and a deep enough nest cannot be dropped without exhausting the stack.
    pub(crate) too_deep: Option<u32>,
}

/// Dots in one key. The deepest key of the grammar has three.
const MOST_DOTS: u32 = 8;

/// Different words of sections that come once. Beyond that a text is nonsense, and looking for doubles in it is too.
const MOST_SINGLES: usize = 64;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Cut<'a> {
    Blocks(Vec<Block<'a>>),
    /// Sub-tables stand away from what they belong to: only the whole text makes sense.
    Whole {
        too_deep: Option<u32>,
    },
}

/// `is_list` tells which sections are written `[[…]]`: those may come more than once.
pub(crate) fn cut<'a>(text: &'a str, is_list: impl Fn(&str) -> bool) -> Cut<'a> {
    let mut lexer = Lexer {
        text,
        bytes: text.as_bytes(),
        at: 0,
        line: 1,
        depth: 0,
        dots: 0,
        deep: None,
        open_ended: [false; 2],
    };
    let mut blocks: Vec<Block<'a>> = Vec::new();
    let mut singles: Vec<&str> = Vec::new();
    let mut start = 0;
    let mut end = 0;
    let mut current = ("", 1);
    let mut whole = false;
    let mut deepest = None;
    loop {
        let line_start = lexer.at;
        let line = lexer.line;
        let header = lexer.header();
        if let Some(header) = header {
            let attached = header.dotted && header.section == current.0;
            if !attached {
                if is_list(header.section) {
                    whole |= header.dotted;
                } else if singles.contains(&header.section) {
                    whole = true;
                } else if singles.len() < MOST_SINGLES {
                    singles.push(header.section);
                }
                deepest = deepest.or(lexer.deep);
                push(&mut blocks, text, current, start..end, lexer.deep.take());
                start = line_start;
                current = (header.section, line);
            }
            lexer.depth = 0;
        }
        let Some(content) = lexer.finish_line() else {
            break;
        };
        if content || header.is_some() {
            end = lexer.at;
        }
    }
    if whole {
        return Cut::Whole {
            too_deep: deepest.or(lexer.deep),
        };
    }
    push(&mut blocks, text, current, start..end, lexer.deep);
    Cut::Blocks(blocks)
}

fn push<'a>(
    blocks: &mut Vec<Block<'a>>,
    text: &'a str,
    (section, line): (&'a str, u32),
    range: std::ops::Range<usize>,
    too_deep: Option<u32>,
) {
    if range.start < range.end {
        blocks.push(Block {
            section,
            line,
            text: &text[range],
            too_deep,
        });
    }
}

#[derive(Clone, Copy)]
struct Header<'a> {
    section: &'a str,
    dotted: bool,
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    line: u32,
    /// Open brackets and braces.
    depth: u32,
    dots: u32,
    deep: Option<u32>,
    /// For `"""` and `'''`: an opening one was found that never closes, so no later one does.
    open_ended: [bool; 2],
}

/// What a byte can mean between strings; everything else is passed over.
const PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let special = b"\"'#[]{}\n.=,";
    let mut index = 0;
    while index < special.len() {
        plain[special[index] as usize] = false;
        index += 1;
    }
    plain
};

impl<'a> Lexer<'a> {
    /// The header that the current line is, if it is one. Moves nothing.
    fn header(&self) -> Option<Header<'a>> {
        let mut at = self.at;
        while matches!(self.bytes.get(at), Some(b' ' | b'\t')) {
            at += 1;
        }
        if self.bytes.get(at) != Some(&b'[') {
            return None;
        }
        let end = memchr::memchr(b'\n', &self.bytes[at..]).map_or(self.bytes.len(), |n| at + n);
        let line = self.text[at..end].trim_end();
        let body = line.trim_start_matches('[').trim_start();
        let word = body
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-')
            .unwrap_or(body.len());
        let section = &body[..word];
        let rest = body[word..].trim_start();
        if self.depth > 0 {
            // Inside an array that was never closed, or inside one that holds arrays: a bare word in brackets is no
            // value, so it can only be the next header.
            let bare = section.starts_with(|c: char| c.is_ascii_alphabetic())
                && !matches!(section, "true" | "false" | "inf" | "nan");
            let closed = rest.trim_start_matches(']').trim_start();
            if !bare || !rest.starts_with(']') || !(closed.is_empty() || closed.starts_with('#')) {
                return None;
            }
        }
        Some(Header {
            section,
            dotted: rest.starts_with('.'),
        })
    }

    /// Passes over the rest of the line, and over all lines of a string that begins in it. Says whether there was
    /// anything but blanks and a comment; `None` at the end of the text.
    fn finish_line(&mut self) -> Option<bool> {
        if self.at >= self.bytes.len() {
            return None;
        }
        self.dots = 0;
        let mut content = self.depth > 0;
        while let Some(&byte) = self.bytes.get(self.at) {
            self.at += 1;
            if PLAIN[usize::from(byte)] {
                content |= !matches!(byte, b' ' | b'\t' | b'\r');
                continue;
            }
            match byte {
                b'\n' => {
                    self.line = self.line.saturating_add(1);
                    return Some(content);
                }
                b'#' => {
                    self.at = memchr::memchr(b'\n', &self.bytes[self.at..])
                        .map_or(self.bytes.len(), |n| self.at + n);
                    continue;
                }
                b'"' | b'\'' => self.string(byte),
                b'.' => {
                    self.dots += 1;
                    if self.dots > MOST_DOTS {
                        self.deep.get_or_insert(self.line);
                    }
                }
                other => {
                    self.dots = 0;
                    match other {
                        b'[' | b'{' => self.depth = self.depth.saturating_add(1),
                        b']' | b'}' => self.depth = self.depth.saturating_sub(1),
                        _ => {}
                    }
                }
            }
            content = true;
        }
        Some(content)
    }

    /// Passes over a string whose first quote was just read. One that is not closed ends with its line.
    fn string(&mut self, quote: u8) {
        let rest = &self.bytes[self.at..];
        if rest.starts_with(&[quote, quote]) {
            let kind = usize::from(quote == b'\'');
            if !self.open_ended[kind] {
                match long_end(&rest[2..], quote) {
                    Some(length) => {
                        let string = &rest[..length + 2];
                        let lines = memchr::memchr_iter(b'\n', string).count();
                        self.line = self
                            .line
                            .saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
                        self.at += length + 2;
                        return;
                    }
                    None => self.open_ended[kind] = true,
                }
            }
            self.at += 2;
            return;
        }
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b'\n' => return,
                b'\\' if quote == b'"' => {
                    self.at += 1;
                    if self.bytes.get(self.at) == Some(&b'\n') {
                        return;
                    }
                }
                _ => {}
            }
            self.at += 1;
            if byte == quote {
                return;
            }
        }
        self.at = self.at.min(self.bytes.len());
    }
}

/// Length of a multi-line string's rest, closing quotes (three to five) included.
fn long_end(rest: &[u8], quote: u8) -> Option<usize> {
    let mut at = 0;
    while let Some(&byte) = rest.get(at) {
        at += 1;
        if byte == b'\\' && quote == b'"' {
            at += 1;
        } else if byte == quote && rest[at..].starts_with(&[quote, quote]) {
            at += 2;
            let extra = rest[at..]
                .iter()
                .take(2)
                .take_while(|b| **b == quote)
                .count();
            return Some(at + extra);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(section: &str) -> bool {
        matches!(section, "route" | "upstream")
    }

    fn blocks(text: &str) -> Vec<(&str, u32, &str)> {
        match cut(text, lists) {
            Cut::Blocks(blocks) => blocks.iter().map(|b| (b.section, b.line, b.text)).collect(),
            Cut::Whole { .. } => panic!("not cut: {text}"),
        }
    }

    #[test]
    fn a_sub_table_stays_with_its_item() {
        let text = "include = []\n\n# one\n[[route]]\na = 1\n  [route.retry]\n  b = 2\n\n# two\n[[route]]\nc = 3";
        assert_eq!(
            blocks(text),
            vec![
                ("", 1, "include = []\n"),
                ("route", 4, "[[route]]\na = 1\n  [route.retry]\n  b = 2\n"),
                ("route", 10, "[[route]]\nc = 3"),
            ]
        );
    }

    #[test]
    fn headers_inside_strings_and_comments_are_text() {
        let text = "[[route]]\na = \"\"\"\n[[route]]\n\\\"\"\"\" # [[route]]\nb = '''\n[x]\n'''\nc = [\n  [\"[[d]]\"],\n  [1], # ]\n]\n[[upstream]]\n";
        let found = blocks(text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!((found[1].0, found[1].1), ("upstream", 12));
    }

    #[test]
    fn what_is_never_closed_ends_at_the_next_header() {
        for broken in [
            "a = [1,",
            "a = \"x",
            "a = {",
            "a = \"\"\"",
            "a = '''x",
            "a = 'x",
        ] {
            let text = format!("[[route]]\n{broken}\n[[upstream]]\nb = 1\n");
            let found = blocks(&text);
            assert_eq!(found.len(), 2, "{found:?}");
            assert_eq!((found[1].0, found[1].1), ("upstream", 3));
        }
    }

    #[test]
    fn what_belongs_together_but_stands_apart_is_read_whole() {
        assert_eq!(
            cut("[[route]]\n[[upstream]]\n[route.retry]\n", lists),
            Cut::Whole { too_deep: None }
        );
        assert_eq!(
            cut("[server]\n[telemetry]\n[server.x]\n", lists),
            Cut::Whole { too_deep: None }
        );
    }

    #[test]
    fn a_key_with_very_many_dots_is_seen_before_it_is_parsed() {
        let deep = format!("[[route]]\nx = 1\n{}a = 1\n", "a.".repeat(100));
        match cut(&deep, lists) {
            Cut::Blocks(blocks) => assert_eq!(blocks[0].too_deep, Some(3)),
            Cut::Whole { .. } => panic!("not cut"),
        }
    }
}
