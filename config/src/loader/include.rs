//! Which files belong to a document, and their bytes.

use std::path::{Path, PathBuf};

/// More than any document; a file that grows beyond it is not one.
const LARGEST: u64 = 64 << 20;

/// The bytes of a file. What was named on the command line may be a pipe; what is included must be a file.
pub(super) fn read(path: &Path, any_kind: bool) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let about = std::fs::metadata(path).map_err(|e| e.to_string())?;
    if about.is_dir() {
        return Err("it is a folder".to_owned());
    }
    if !any_kind && !about.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let expected = about.len().min(LARGEST) + 1;
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or(0));
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| e.to_string())?;
    if u64::try_from(bytes.len()).is_ok_and(|n| n > LARGEST) {
        return Err("it is larger than 64 MiB".to_owned());
    }
    Ok(bytes)
}

/// The files that one entry of `include` names, in the order of their names. The message says why there are none.
pub(super) fn expand(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let (parent, last) = match pattern.rsplit_once('/') {
        Some((parent, last)) => (Some(parent), last),
        None => (None, pattern),
    };
    if parent.is_some_and(|parent| parent.contains('*')) {
        return Err("`*` may stand in the last part of a path only".to_owned());
    }
    if !last.contains('*') {
        return Ok(vec![folder.join(pattern)]);
    }
    let place = match parent {
        Some("") => PathBuf::from("/"),
        Some(parent) => folder.join(parent),
        None => folder.to_owned(),
    };
    // An empty path means the current folder to everything but the reading of folders.
    let listed = if place.as_os_str().is_empty() {
        Path::new(".")
    } else {
        &place
    };
    let entries =
        std::fs::read_dir(listed).map_err(|e| format!("the folder cannot be read: {e}"))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.') && fits(last, name))
        .filter(|name| std::fs::metadata(listed.join(name)).is_ok_and(|about| !about.is_dir()))
        .collect();
    names.sort();
    if names.is_empty() {
        return Err("no file has such a name".to_owned());
    }
    Ok(names.into_iter().map(|name| place.join(name)).collect())
}

/// Whether a name fits a pattern in which `*` stands for any characters.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_stands_for_any_characters() {
        assert!(fits("*.toml", "a.toml") && fits("a*c", "abbc") && fits("*a*b*", "xaybz"));
        assert!(!fits("*.toml", "a.toml~") && !fits("a*a", "a") && !fits("*a*b", "ba"));
    }
}
