//! Passes over a text line by line and tells headers from anything else. Knows strings, comments and brackets; refuses
//! nothing.

use std::ops::Range;

/// Dots in one key. The deepest key of the grammar has three.
const MOST_DOTS: u32 = 8;

pub(super) struct Header {
    /// First word between the brackets.
    pub(super) section: Range<usize>,
    pub(super) dotted: bool,
}

pub(super) struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    pub(super) at: usize,
    pub(super) line: u32,
    /// Open brackets and braces.
    pub(super) depth: u32,
    dots: u32,
    /// Line of the first key with too many dots.
    pub(super) deep: Option<u32>,
    /// For `"""` and `'''`: an opening one was found that never closes, so no later one does.
    pub(super) open_ended: [bool; 2],
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
    /// Begins at the start of a line.
    pub(super) fn new(text: &'a str, at: usize, line: u32) -> Lexer<'a> {
        Lexer {
            text,
            bytes: text.as_bytes(),
            at,
            line,
            depth: 0,
            dots: 0,
            deep: None,
            open_ended: [false; 2],
        }
    }

    /// The header that the current line is, if it is one. Moves nothing.
    pub(super) fn header(&self) -> Option<Header> {
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
        let start = at + line.len() - body.len();
        Some(Header {
            section: start..start + word,
            dotted: rest.starts_with('.'),
        })
    }

    /// Passes over the rest of the line, and over all lines of a string that begins in it. Says whether there was
    /// anything but blanks and a comment; `None` at the end of the text.
    pub(super) fn finish_line(&mut self) -> Option<bool> {
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
