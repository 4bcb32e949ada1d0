//! The path that an upstream is sent, and the target of a redirect: templates over what a pattern captured.
//!
//! A lookup stores no captures; the few routes that need them derive them again from the pattern and the path. A
//! rewritten path must be in normal form as it stands, else it is refused: what was matched is what is sent.

use std::fmt;

use smallvec::SmallVec;
use tollgate_config::path::{PathError, PathPattern, Segment, normalize};
use tollgate_config::{Rewrite, RewritePath};

/// What the captures of a pattern hold for one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captures<'a> {
    named: SmallVec<[(&'a str, &'a str); 4]>,
    rest: &'a str,
}

impl<'a> Captures<'a> {
    /// `None` when the pattern does not match the path.
    pub fn of(pattern: &'a PathPattern, path: &'a str) -> Option<Captures<'a>> {
        let mut named = SmallVec::new();
        let mut rest = path;
        for segment in &pattern.segments {
            let tail = rest.strip_prefix('/')?;
            let end = tail.find('/').unwrap_or(tail.len());
            match segment {
                Segment::Literal(text) if text == &tail[..end] => {}
                Segment::Capture(name) if end > 0 => named.push((name.as_str(), &tail[..end])),
                _ => return None,
            }
            rest = &tail[end..];
        }
        let expected = if pattern.trailing_slash || pattern.segments.is_empty() {
            "/"
        } else {
            ""
        };
        let fits = if pattern.rest {
            rest.is_empty() || rest.starts_with('/')
        } else {
            rest == expected
        };
        fits.then_some(Captures { named, rest })
    }

    /// The segment a `{name}` holds.
    pub fn named(&self, name: &str) -> Option<&'a str> {
        self.named
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| *value)
    }

    /// What a trailing `/*` holds: nothing, or a slash and everything behind it.
    pub fn rest(&self) -> &'a str {
        self.rest
    }
}

/// Why a path cannot be rewritten. A client's path has met a rewrite it should not meet; the answer is a 400.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RewriteError {
    /// The template names a capture that the route's path does not have.
    UnknownCapture(String),
    /// What came out has no normal form.
    Refused(PathError),
    /// What came out is another path in normal form.
    NotNormal(String),
}

impl fmt::Display for RewriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RewriteError::UnknownCapture(name) => {
                write!(
                    f,
                    "the rewrite needs `{{{name}}}`, which the route's path does not capture"
                )
            }
            RewriteError::Refused(error) => write!(f, "the rewritten path is refused: {error}"),
            RewriteError::NotNormal(path) => {
                write!(f, "the rewritten path `{path}` is not in normal form")
            }
        }
    }
}

impl std::error::Error for RewriteError {}

/// The path to send. `pattern` is the route's, `path` in normal form. For a route without a pattern, a template's `/*`
/// stands for the whole path.
pub fn rewritten(
    rewrite: &Rewrite,
    pattern: Option<&PathPattern>,
    path: &str,
) -> Result<String, RewriteError> {
    let result = match &rewrite.path {
        RewritePath::Keep => return Ok(path.to_owned()),
        RewritePath::StripPrefix(prefix) => stripped(prefix, path).to_owned(),
        RewritePath::Template(template) => filled(template, pattern, path)?,
    };
    match normalize(&result) {
        Ok(normal) if normal == result => Ok(result),
        Ok(_) => Err(RewriteError::NotNormal(result)),
        Err(error) => Err(RewriteError::Refused(error)),
    }
}

/// Whole segments only: `/api` is no prefix of `/apis`.
fn stripped<'a>(prefix: &str, path: &'a str) -> &'a str {
    match path.strip_prefix(prefix.trim_end_matches('/')) {
        Some("") => "/",
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    }
}

fn filled(
    template: &PathPattern,
    pattern: Option<&PathPattern>,
    path: &str,
) -> Result<String, RewriteError> {
    let captures = pattern.and_then(|pattern| Captures::of(pattern, path));
    let mut out = String::with_capacity(path.len() + 32);
    for segment in &template.segments {
        out.push('/');
        out.push_str(match segment {
            Segment::Literal(text) => text,
            Segment::Capture(name) => captures
                .as_ref()
                .and_then(|captures| captures.named(name))
                .ok_or_else(|| RewriteError::UnknownCapture(name.clone()))?,
        });
    }
    if template.rest {
        out.push_str(match (pattern, &captures) {
            (Some(pattern), Some(captures)) if pattern.rest => captures.rest(),
            (Some(_), _) => "",
            (None, _) => path,
        });
    }
    if template.trailing_slash || out.is_empty() {
        out.push('/');
    }
    Ok(out)
}

/// The `location` of a redirect: `{name}` captures, `{path}` and `{query}` replaced, unknown names left as they are, and
/// a `?` that nothing follows dropped. Whatever goes in, the result is a valid header value.
pub fn redirect_target(
    to: &str,
    pattern: Option<&PathPattern>,
    path: &str,
    query: Option<&str>,
) -> String {
    let captures = pattern.and_then(|pattern| Captures::of(pattern, path));
    // `OPTIONS *` must not glue a star to a host name.
    let whole = if path.starts_with('/') { path } else { "/" };
    let mut out = String::with_capacity(to.len() + path.len() + query.map_or(0, str::len));
    let mut rest = to;
    while let Some((before, behind)) = rest.split_once('{') {
        push_safe(&mut out, before);
        let value = behind.split_once('}').and_then(|(name, after)| {
            let value = match name {
                "path" => Some(whole),
                "query" => Some(query.unwrap_or_default()),
                name => captures.as_ref().and_then(|captures| captures.named(name)),
            };
            value.map(|value| (value, after))
        });
        match value {
            Some((value, after)) => {
                push_safe(&mut out, value);
                rest = after;
            }
            None => {
                out.push('{');
                rest = behind;
            }
        }
    }
    push_safe(&mut out, rest);
    if out.ends_with('?') {
        out.pop();
    }
    out
}

/// No byte that could end a header, or that a header value may not hold.
fn push_safe(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            0x21..=0x7e => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
}
