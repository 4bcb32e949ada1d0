//! `${env:NAME}`, `${env:NAME:-default}` and `${file:PATH}` inside a string that was already parsed: what is put in can
//! never become a key, a table or a second setting. `$${` stands for `${`. What was put in is remembered, so that an
//! item is read again when its environment changes, and is never quoted in a problem: it may be a secret.

use std::path::{Path, PathBuf};

use crate::problem::Fault;
use crate::unit::short;

/// Reads one variable of the environment.
pub(crate) type Environment = dyn Fn(&str) -> Option<String> + Send;

/// A file behind `${file:…}` holds a secret or a name, not a film.
const LARGEST_FILE: u64 = 1 << 20;

/// One replaced reference.
pub(crate) use crate::feed::Use;

pub(crate) struct Interpolator<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) folder: &'a Path,
    /// Looked up by somebody else: neither the environment nor a file is asked.
    pub(crate) given: Option<&'a [Use]>,
    pub(crate) uses: Vec<Use>,
}

impl Interpolator<'_> {
    /// The text with every reference replaced, and whether there was one.
    pub(crate) fn expand(&mut self, text: &str) -> Result<(String, bool), (&'static str, Fault)> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        let mut replaced = false;
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                out.push_str(&rest[..at]);
                out.push('{');
                rest = &rest[at + 2..];
                continue;
            }
            out.push_str(&rest[..at]);
            let Some(end) = rest[at..].find('}') else {
                return Err((
                    "bad-reference",
                    Fault::new(
                        "`${` is not closed",
                        "close it with `}`, or write `$${` for the two characters themselves",
                    ),
                ));
            };
            let reference = &rest[at + 2..at + end];
            let value = self.look_up(reference)?;
            out.push_str(&value);
            self.uses.push(Use {
                reference: reference.to_owned(),
                value,
            });
            replaced = true;
            rest = &rest[at + end + 1..];
        }
        out.push_str(rest);
        Ok((out, replaced))
    }

    pub(crate) fn look_up(&self, reference: &str) -> Result<String, (&'static str, Fault)> {
        if let Some(given) = self.given {
            let found = given.iter().find(|used| used.reference == reference);
            return found.map(|used| used.value.clone()).ok_or_else(|| {
                (
                    "unset-variable",
                    Fault::new(
                        format!(
                            "the control plane sent no value for `${{{}}}`",
                            short(reference)
                        ),
                        "it looks references up itself and sends what they stand for",
                    ),
                )
            });
        }
        if let Some(name) = reference.strip_prefix("env:") {
            let (name, otherwise) = match name.split_once(":-") {
                Some((name, otherwise)) => (name, Some(otherwise)),
                None => (name, None),
            };
            // Asking a process's environment for such a name is allowed to panic.
            let askable = !name.is_empty() && !name.contains(['=', '\0']);
            let value = askable.then(|| (self.environment)(name)).flatten();
            return value.or(otherwise.map(str::to_owned)).ok_or_else(|| {
                (
                    "unset-variable",
                    Fault::new(
                        format!("environment variable `{}` is not set", short(name)),
                        format!("set it, or write `${{env:{}:-default}}`", short(name)),
                    ),
                )
            });
        }
        if let Some(path) = reference.strip_prefix("file:") {
            return read_small(&self.folder.join(path)).map_err(|why| {
                (
                    "missing-file",
                    Fault::new(
                        format!("file `{}` cannot be read: {why}", short(path)),
                        "correct the path; it is relative to the file that it stands in",
                    ),
                )
            });
        }
        Err((
            "bad-reference",
            Fault::new(
                format!("`${{{}}}` is not a reference", short(reference)),
                "write `${env:NAME}`, `${env:NAME:-default}` or `${file:PATH}`, or `$${` for the two characters themselves",
            ),
        ))
    }

    /// Files that were read.
    pub(crate) fn files(&self) -> impl Iterator<Item = PathBuf> {
        files_of(&self.uses, self.folder)
    }
}

pub(crate) fn files_of(uses: &[Use], folder: &Path) -> impl Iterator<Item = PathBuf> {
    uses.iter()
        .filter_map(|used| used.reference.strip_prefix("file:"))
        .map(|path| folder.join(path))
}

/// Without the line end that editors put behind the last line.
fn read_small(path: &Path) -> Result<String, String> {
    let about = std::fs::metadata(path).map_err(|e| e.to_string())?;
    if !about.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if about.len() > LARGEST_FILE {
        return Err("it is larger than 1 MiB".to_owned());
    }
    let mut text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Result<(String, bool), &'static str> {
        let environment = |name: &str| (name == "A").then(|| "one".to_owned());
        let mut interpolator = Interpolator {
            environment: &environment,
            folder: Path::new("."),
            given: None,
            uses: Vec::new(),
        };
        interpolator.expand(text).map_err(|(code, _)| code)
    }

    #[test]
    fn references_are_replaced_once_and_never_again_inside_a_value() {
        assert_eq!(expand("x${env:A}y"), Ok(("xoney".into(), true)));
        assert_eq!(expand("${env:B:-two}"), Ok(("two".into(), true)));
        assert_eq!(expand("${env:B:-}"), Ok(("".into(), true)));
        assert_eq!(expand("$${env:A}"), Ok(("${env:A}".into(), false)));
        assert_eq!(expand("a{b}$c"), Ok(("a{b}$c".into(), false)));
    }

    #[test]
    fn a_reference_that_leads_nowhere_is_refused() {
        assert_eq!(expand("${env:B}"), Err("unset-variable"));
        assert_eq!(expand("${env:}"), Err("unset-variable"));
        assert_eq!(expand("${env:A"), Err("bad-reference"));
        assert_eq!(expand("${A}"), Err("bad-reference"));
        assert_eq!(expand("${file:/no/such/file}"), Err("missing-file"));
        assert_eq!(expand("${file:.}"), Err("missing-file"));
    }
}
