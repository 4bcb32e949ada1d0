//! Patterns over paths in normal form: literal segments, `{name}` captures, a trailing `/*`.
//!
//! A pattern that could never match, because a literal is not in normal form, is refused with the form that would. This
//! file reads and writes patterns; it matches none (that is a table's work).

use std::fmt;

use super::normalize;

/// One segment of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// In normal form, without slashes.
    Literal(String),
    /// `{name}`: exactly one non-empty segment.
    Capture(String),
}

/// `/orders/{id}/*`: literal segments, captures of one segment, and optionally everything below.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathPattern {
    pub segments: Vec<Segment>,
    /// A trailing `/*`: the path itself and all below it.
    pub rest: bool,
    /// The pattern ends in `/` (and is not just `/`): only the path with that slash matches.
    pub trailing_slash: bool,
}

/// Whoever walks patterns may recurse per segment: a document must not decide how much stack that takes.
const MOST_SEGMENTS: usize = 256;

impl PathPattern {
    /// Reads a pattern. The message says what is wrong and, for a literal that no normal path can equal, what to write
    /// instead.
    pub fn parse(text: &str) -> Result<PathPattern, String> {
        if !text.starts_with('/') {
            return Err(format!("path `{text}` must begin with `/`"));
        }
        let (stem, rest) = match text.strip_suffix("/*") {
            Some(stem) => (stem, true),
            None => (text, false),
        };
        let trailing_slash = !rest && stem.len() > 1 && stem.ends_with('/');
        let body = if trailing_slash {
            &stem[..stem.len() - 1]
        } else {
            stem
        };
        let mut segments = Vec::new();
        // `/` and `/*` have no segments; everything else has one behind each slash.
        for part in body.split('/').skip(1).filter(|_| body != "/") {
            let segment = parse_segment(text, part)?;
            if let Segment::Capture(name) = &segment
                && segments.contains(&segment)
            {
                return Err(format!(
                    "path `{text}` captures `{{{name}}}` twice; give each capture its own name"
                ));
            }
            segments.push(segment);
        }
        if segments.len() > MOST_SEGMENTS {
            return Err(format!(
                "path `{text}` has more than {MOST_SEGMENTS} segments; end it earlier in `/*`"
            ));
        }
        check_literals(text, rest)?;
        Ok(PathPattern {
            segments,
            rest,
            trailing_slash,
        })
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Capture(name) => write!(f, "/{{{name}}}")?,
            }
        }
        match (self.rest, self.trailing_slash || self.segments.is_empty()) {
            (true, _) => f.write_str("/*"),
            (false, true) => f.write_str("/"),
            (false, false) => Ok(()),
        }
    }
}

fn parse_segment(text: &str, part: &str) -> Result<Segment, String> {
    if part.contains('*') {
        return Err(format!(
            "path `{text}` has a `*` that is not a trailing `/*`; use `{{name}}` for one segment"
        ));
    }
    if !part.contains(['{', '}']) {
        return Ok(Segment::Literal(part.to_owned()));
    }
    let name = part.strip_prefix('{').and_then(|p| p.strip_suffix('}'));
    match name {
        Some(name) if is_capture_name(name) => Ok(Segment::Capture(name.to_owned())),
        Some(name) if !name.contains(['{', '}']) => Err(format!(
            "capture `{{{name}}}` in path `{text}` needs a name of lower-case letters, digits and `_` that does not begin with a digit"
        )),
        _ => Err(format!(
            "a capture takes a whole segment, as in `/{{id}}`; `{part}` in path `{text}` does not"
        )),
    }
}

fn is_capture_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// A literal outside the normal form would never match anything: say so, and say what would.
fn check_literals(text: &str, rest: bool) -> Result<(), String> {
    if text.contains('?') {
        return Err(format!(
            "path `{text}` holds a `?`; a query is matched by `query = {{ … }}`"
        ));
    }
    // The braces of captures come back escaped, and a normal text comes back as it was but for that.
    let plain = if rest { &text[..text.len() - 1] } else { text };
    let escaped = plain.replace('{', "%7B").replace('}', "%7D");
    let normal =
        normalize(&escaped).map_err(|error| format!("path `{text}` can never match: {error}"))?;
    if normal == escaped {
        return Ok(());
    }
    let shown = normal.replace("%7B", "{").replace("%7D", "}");
    let star = if rest { "*" } else { "" };
    Err(format!(
        "path `{text}` is not in normal form and can never match; write `{shown}{star}`"
    ))
}
