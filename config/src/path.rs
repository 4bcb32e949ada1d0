//! The normal form of a path; patterns over it are in `pattern`.
//!
//! There is one rule, written down here and nowhere else: what is matched, what a policy sees and what an upstream is
//! sent are the same text. A path that has two readings is refused rather than guessed at. Nothing here allocates
//! for a path that is already in normal form, nothing panics, and nothing here knows requests or routes.
//!
//! The rule: unreserved characters stand for themselves, every other escape is kept with upper-case digits, repeated
//! slashes are one, `.` and `..` are resolved after decoding. A trailing slash, `;` and letter case are significant;
//! dots with parameters (`..;`) are refused, because servers that know parameters climb on them.

use std::borrow::Cow;
use std::fmt;

mod pattern;

pub use pattern::{PathPattern, Segment};

/// Why a path or a query has no normal form. Whoever reports it to a client answers 400 `bad_path`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathError {
    /// Neither `/…` nor `*`.
    NotAbsolute,
    /// `%` without two hexadecimal digits behind it.
    BadEscape,
    /// A control character, raw or escaped.
    Control,
    /// `%2F`: a slash that is not a separator for everybody.
    EncodedSlash,
    /// `\` or `%5C`: a separator for some.
    Backslash,
    /// A raw byte outside ASCII.
    NotAscii,
    /// Escapes that are not (shortest-form) UTF-8 together.
    NotUtf8,
    /// A raw character that RFC 3986 does not allow here.
    Forbidden(char),
    /// `..` above the root.
    AboveRoot,
    /// `.;…` or `..;…`: a name for some, a step for servers that take parameters away before they resolve dots.
    DotsWithParameters,
    /// `#`: a fragment never leaves a browser.
    Fragment,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathError::NotAbsolute => f.write_str("the path must begin with `/`"),
            PathError::BadEscape => {
                f.write_str("`%` must be followed by two hexadecimal digits; write `%25` for `%`")
            }
            PathError::Control => f.write_str("control characters are refused, raw or escaped"),
            PathError::EncodedSlash => f.write_str("an encoded slash (`%2F`) is refused"),
            PathError::Backslash => f.write_str("a backslash is refused, raw or escaped (`%5C`)"),
            PathError::NotAscii => {
                f.write_str("characters outside ASCII must be percent-encoded as UTF-8")
            }
            PathError::NotUtf8 => {
                f.write_str("percent escapes must be valid UTF-8 in its shortest form")
            }
            PathError::Forbidden(' ') => f.write_str("a raw space is refused; write `%20`"),
            PathError::Forbidden(c) => {
                write!(f, "a raw `{c}` is refused; write `%{:02X}`", u32::from(*c))
            }
            PathError::AboveRoot => f.write_str("`..` leads above the root"),
            PathError::DotsWithParameters => {
                f.write_str("`.` and `..` with parameters (`..;`) are refused")
            }
            PathError::Fragment => f.write_str("a fragment (`#`) is refused; write `%23` for `#`"),
        }
    }
}

impl std::error::Error for PathError {}

/// The normal form of a path (without its query), borrowed when the path already is in it. Normalising twice changes
/// nothing more. `*`, as in `OPTIONS *`, is its own normal form.
pub fn normalize(path: &str) -> Result<Cow<'_, str>, PathError> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return if path == "*" {
            Ok(Cow::Borrowed(path))
        } else {
            Err(PathError::NotAbsolute)
        };
    }
    if is_normal(bytes) {
        return Ok(Cow::Borrowed(path));
    }
    let mut out = String::with_capacity(path.len() + 16);
    out.push('/');
    for (index, segment) in path[1..].split('/').enumerate() {
        if index > 0 && !out.ends_with('/') {
            out.push('/');
        }
        let start = out.len();
        push_segment(&mut out, segment)?;
        match &out[start..] {
            "." => out.truncate(start),
            ".." => {
                // `out` ends in `/` before the two dots; without another slash before that one there is no parent.
                out.truncate(start - 1);
                let parent = out.rfind('/').ok_or(PathError::AboveRoot)?;
                out.truncate(parent + 1);
            }
            other if is_dots_with_parameters(other.as_bytes()) => {
                return Err(PathError::DotsWithParameters);
            }
            _ => {}
        }
    }
    Ok(Cow::Owned(out))
}

/// Whether a query can be passed on byte by byte: no control character, space, fragment or byte outside ASCII.
pub fn check_query(query: &str) -> Result<(), PathError> {
    match query
        .bytes()
        .find(|b| !matches!(b, 0x21..=0x7e) || *b == b'#')
    {
        None => Ok(()),
        Some(b' ') => Err(PathError::Forbidden(' ')),
        Some(b'#') => Err(PathError::Fragment),
        Some(0x80..) => Err(PathError::NotAscii),
        Some(_) => Err(PathError::Control),
    }
}

/// What a raw byte means inside a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Stands for itself.
    Plain,
    /// RFC 3986 forbids it, browsers send it: it is escaped.
    Escaped,
    /// Has a meaning of its own (`/`, `.`, `%`), or is refused.
    Special,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Special; 256];
    let mut byte = 0;
    while byte < 128 {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => Class::Plain,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':'
            | b'@' => Class::Plain,
            b'|' | b'^' | b'{' | b'}' | b'[' | b']' => Class::Escaped,
            _ => Class::Special,
        };
        byte += 1;
    }
    classes
};

/// The hot question: one pass, no allocation. Escapes outside ASCII say "no" only when they are not in order; the slow
/// path then finds out why.
fn is_normal(bytes: &[u8]) -> bool {
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        if CLASSES[usize::from(byte)] == Class::Plain {
            continue;
        }
        match byte {
            b'/' => match bytes.get(at..).unwrap_or_default() {
                [b'/', ..] | [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..] => {
                    return false;
                }
                segment if is_dots_with_parameters(segment) => return false,
                _ => {}
            },
            b'.' => {}
            b'%' => match escape(&bytes[at - 1..]) {
                Ok(Escape {
                    normal: true,
                    length,
                    ..
                }) => at += length - 1,
                _ => return false,
            },
            _ => return false,
        }
    }
    true
}

/// Whether a segment that begins here is `.` or `..` and then parameters, whose `;` may be escaped: a server that takes
/// them away before it resolves dots would climb, and one may decode before that.
fn is_dots_with_parameters(text: &[u8]) -> bool {
    let Some(rest) = text.strip_prefix(b".") else {
        return false;
    };
    let rest = rest.strip_prefix(b".").unwrap_or(rest);
    rest.starts_with(b";") || rest.starts_with(b"%3B")
}

/// One escaped character: its escapes, and what they stand for.
struct Escape {
    character: char,
    /// Bytes of text it takes, a multiple of three.
    length: usize,
    /// It stands in the text as the normal form writes it.
    normal: bool,
}

/// Reads the escaped character that `text` begins with, and refuses those that no path may hold.
fn escape(text: &[u8]) -> Result<Escape, PathError> {
    let (first, mut upper) = escaped_byte(text)?;
    let width = match first {
        0x00..=0x7f => 1,
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return Err(PathError::NotUtf8),
    };
    let mut bytes = [first, 0, 0, 0];
    for (index, byte) in bytes.iter_mut().enumerate().take(width).skip(1) {
        let rest = text.get(index * 3..).unwrap_or_default();
        if rest.first() != Some(&b'%') {
            return Err(PathError::NotUtf8);
        }
        let (value, is_upper) = escaped_byte(rest)?;
        *byte = value;
        upper &= is_upper;
    }
    let character = std::str::from_utf8(&bytes[..width])
        .ok()
        .and_then(|s| s.chars().next())
        .ok_or(PathError::NotUtf8)?;
    match character {
        '/' => Err(PathError::EncodedSlash),
        '\\' => Err(PathError::Backslash),
        c if c.is_control() => Err(PathError::Control),
        c => Ok(Escape {
            character: c,
            length: width * 3,
            normal: upper && !is_unreserved(c),
        }),
    }
}

/// The byte behind `%XX`, and whether its digits are upper case.
fn escaped_byte(text: &[u8]) -> Result<(u8, bool), PathError> {
    let digit = |at: usize| {
        text.get(at)
            .and_then(|b| char::from(*b).to_digit(16))
            .ok_or(PathError::BadEscape)
    };
    let value = digit(1)? << 4 | digit(2)?;
    let upper = !text[1..3].iter().any(u8::is_ascii_lowercase);
    Ok((
        u8::try_from(value).map_err(|_| PathError::BadEscape)?,
        upper,
    ))
}

fn is_unreserved(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~')
}

/// Appends a segment in normal form; `.` and `..` are the caller's business.
fn push_segment(out: &mut String, segment: &str) -> Result<(), PathError> {
    let bytes = segment.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match (CLASSES[usize::from(byte)], byte) {
            (Class::Plain, _) | (_, b'.') => out.push(char::from(byte)),
            (Class::Escaped, _) => push_escape(out, byte),
            (_, b'%') => {
                let escape = escape(&bytes[at - 1..])?;
                at += escape.length - 1;
                if is_unreserved(escape.character) {
                    out.push(escape.character);
                } else {
                    let mut buffer = [0; 4];
                    escape
                        .character
                        .encode_utf8(&mut buffer)
                        .bytes()
                        .for_each(|b| push_escape(out, b));
                }
            }
            (_, b'\\') => return Err(PathError::Backslash),
            (_, b'#') => return Err(PathError::Fragment),
            (_, 0x80..) => return Err(PathError::NotAscii),
            (_, 0..0x20 | 0x7f) => return Err(PathError::Control),
            _ => return Err(PathError::Forbidden(char::from(byte))),
        }
    }
    Ok(())
}

fn push_escape(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests;
