//! Looking into the audit log: its files, the newest first, or what is in memory where there are none. Bounded in what is
//! read and in what is found.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::PoisonError;

use serde_json::Value;
use tokio::sync::oneshot;

use super::{Audit, files, object};

/// Bytes of files that one question reads.
const MOST_BYTES: u64 = 64 << 20;

/// What is looked for; absent means anything.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Equal to these fields: `who`, `what`, `result`, `service`, `id`, `address`, `role`.
    pub fields: Vec<(&'static str, String)>,
    /// From this time on, and before that: as lines write it, or the beginning of it.
    pub since: Option<String>,
    pub until: Option<String>,
    pub most: usize,
}

/// What was found, the newest first.
#[derive(Debug, Default)]
pub struct Found {
    pub lines: Vec<Value>,
    /// False: files were not read to their beginning.
    pub complete: bool,
}

impl Filter {
    fn fits(&self, line: &Value) -> bool {
        let text = |name: &str| line[name].as_str().unwrap_or_default();
        // "ada@10.0.0.1" of an instance's line is ada, too.
        let is = |name: &str, wanted: &str| match (name, text(name)) {
            ("who", "") => {
                let name = text("by").rsplit_once('@').map(|(name, _)| name);
                name == Some(wanted)
            }
            (_, value) => value == wanted,
        };
        let time = text("time");
        self.fields.iter().all(|(name, wanted)| is(name, wanted))
            && self.since.as_deref().is_none_or(|since| time >= since)
            && self.until.as_deref().is_none_or(|until| time < until)
    }

    /// Whether a line may fit; cheaper than reading it.
    fn may_fit(&self, line: &str) -> bool {
        let mut plain = { self.fields.iter() }.filter(|(_, wanted)| {
            wanted
                .chars()
                .all(|l| l.is_ascii_alphanumeric() || "-._@:".contains(l))
        });
        plain.all(|(_, wanted)| line.contains(wanted.as_str()))
    }
}

impl Audit {
    /// Looks at the files, with all that was taken down until now.
    pub async fn search(&self, filter: Filter) -> io::Result<Found> {
        let Some(folder) = self.folder.clone() else {
            return Ok(self.remembered(&filter));
        };
        let (done, written) = oneshot::channel();
        if self.send(Vec::new(), Some(done)) {
            drop(written.await);
        }
        let task = tokio::task::spawn_blocking(move || look(&folder, &filter));
        task.await.map_err(io::Error::other)?
    }

    fn remembered(&self, filter: &Filter) -> Found {
        let mut lines: Vec<Value> = { self.actions.lock() }
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .rev()
            .cloned()
            .collect();
        lines.extend(self.latest(usize::MAX, |_| true).iter().map(object));
        lines.retain(|line| filter.fits(line));
        // Both are in order, and of the same moment the later one stays first.
        lines.sort_by(|a, b| b["time"].as_str().cmp(&a["time"].as_str()));
        lines.truncate(filter.most);
        Found {
            lines,
            complete: false,
        }
    }
}

fn look(folder: &Path, filter: &Filter) -> io::Result<Found> {
    let mut found = Found {
        complete: true,
        ..Found::default()
    };
    let mut left = MOST_BYTES;
    for (name, size) in files(folder)?.iter().rev() {
        if left == 0 || found.lines.len() >= filter.most {
            found.complete = false;
            break;
        }
        // `audit-2026-11-21-…` has no line from before that day; names are in the order of time.
        let day = name.get(6..16).unwrap_or_default();
        if filter.until.as_deref().is_some_and(|until| until <= day) {
            continue;
        }
        if let Some(since) = filter.since.as_deref()
            && since.get(..10).is_some_and(|since| day < since)
        {
            break;
        }
        let text = end_of(&folder.join(name), *size, left)?;
        found.complete &= *size <= left;
        left -= left.min(*size);
        let lines = text.lines().rev().filter(|line| filter.may_fit(line));
        for line in lines.filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            if found.lines.len() >= filter.most {
                found.complete = false;
                return Ok(found);
            }
            if filter.fits(&line) {
                found.lines.push(line);
            }
        }
    }
    Ok(found)
}

/// The last `most` bytes of a file; what is no UTF-8, or no whole line, is no line of ours.
fn end_of(file: &Path, size: u64, most: u64) -> io::Result<String> {
    let mut file = match File::open(file) {
        Ok(file) => file,
        // Its time was over meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(size.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(fields: &[(&'static str, &str)]) -> Filter {
        Filter {
            fields: { fields.iter() }
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect(),
            most: 100,
            ..Filter::default()
        }
    }

    #[test]
    fn files_are_read_from_the_newest_line_to_the_oldest() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |day: &str, lines: &[&str]| {
            let text: String = { lines.iter() }
                .map(|rest| format!("{{\"time\":\"{day}T00:00:00.000Z\",{rest}}}\n"))
                .collect();
            let name = format!("audit-{day}-000001.jsonl");
            std::fs::write(folder.path().join(name), text).expect("written");
        };
        write("2026-11-20", &[r#""who":"ada","what":"apply""#]);
        write(
            "2026-11-21",
            &[
                r#""who":"bob","what":"apply""#,
                r#""by":"ada@10.0.0.1","what":"registered","service":"orders""#,
                r#""who":"ada","what":"rollback""#,
            ],
        );
        let what = |filter: &Filter| {
            let found = look(folder.path(), filter).expect("read");
            let lines = found.lines.iter();
            let words = lines.map(|line| line["what"].as_str().expect("text").to_owned());
            (words.collect::<Vec<_>>().join(" "), found.complete)
        };
        let all = ("rollback registered apply apply".to_owned(), true);
        assert_eq!(what(&filter(&[])), all);
        let ada = filter(&[("who", "ada")]);
        assert_eq!(what(&ada).0, "rollback registered apply");
        assert_eq!(
            what(&filter(&[("who", "ada"), ("service", "orders")])).0,
            "registered"
        );
        assert_eq!(what(&filter(&[("who", "ad")])).0, "");
        let one = Filter {
            most: 1,
            ..ada.clone()
        };
        assert_eq!(what(&one), ("rollback".to_owned(), false));
        let since = Filter {
            since: Some("2026-11-21".to_owned()),
            ..ada.clone()
        };
        assert_eq!(what(&since).0, "rollback registered");
        let until = Filter {
            until: Some("2026-11-21".to_owned()),
            ..ada
        };
        assert_eq!(what(&until).0, "apply");
    }

    #[test]
    fn a_line_that_a_crash_left_half_is_passed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("audit-2026-11-21-000001.jsonl");
        std::fs::write(file, "{\"what\":\"apply\"}\n{\"what\":\"roll").expect("written");
        let found = look(folder.path(), &filter(&[])).expect("read");
        assert_eq!(found.lines.len(), 1);
    }
}
