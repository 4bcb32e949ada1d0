//! Files to a document: reads, cuts, remembers, decodes, checks. The only room of this crate that touches files.
//!
//! A loader lives as long as its process and remembers every text with what its blocks were decoded to, so that a
//! reload reads what changed and hands out the same `Arc`s for the rest. What it remembers never decides anything: a loader that has forgotten
//! everything reads the same document. Whoever calls it owns the times of reload.
//!
//! A document whose file names a control plane is joined with the blocks of a feed (`join`). The file alone is a whole
//! document, too: nothing in it may need what only the control plane knows.

mod include;
mod join;
mod memory;
mod name;
mod reading;
mod section;
mod source;
mod text;

use std::path::Path;
use std::sync::Arc;

use crate::document::Document;
use crate::feed::Block;
use crate::interpolate::Environment;
use crate::problem::{Problem, Problems};
use crate::report::Report;

use join::Joined;
use memory::Memory;
use reading::Reading;
use source::Source;
pub(crate) use source::is_list;

/// The bytes of a file of another kind of document.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    include::read(path, true)
}

/// Reads documents. Keep one for all reloads of a process.
pub struct Loader {
    environment: Box<Environment>,
    memory: Memory,
    joined: Joined,
    /// Documents of a whole fleet: listeners and certificates are the nodes' own.
    fleet: bool,
    /// A file may be a short one.
    short: bool,
}

impl Default for Loader {
    fn default() -> Self {
        Loader::new()
    }
}

impl Loader {
    pub fn new() -> Loader {
        Loader::with_environment(|name| std::env::var(name).ok())
    }

    /// A loader that asks `environment` for the variables behind `${env:NAME}`.
    pub fn with_environment(
        environment: impl Fn(&str) -> Option<String> + Send + 'static,
    ) -> Loader {
        Loader {
            environment: Box::new(environment),
            memory: Memory::default(),
            joined: Joined::default(),
            fleet: false,
            short: false,
        }
    }

    /// Reads short files, too: those that say what stands beside an application (`sidecar`), and stand for a full
    /// document. What is told of it points at their lines.
    pub fn short(self) -> Loader {
        Loader {
            short: true,
            ..self
        }
    }

    /// A loader of what a control plane sends: without a name of a listener being unknown, and without a look at
    /// certificates, since both are the nodes' own. Nothing is looked up in an environment: blocks bring it.
    pub fn fleet() -> Loader {
        Loader {
            fleet: true,
            ..Loader::with_environment(|_| None)
        }
    }

    /// The document of blocks alone, checked as every node checks it. What was not changed since the last time is the
    /// same `Arc`.
    pub fn blocks(&mut self, blocks: &[Arc<Block>]) -> Result<Document, Problems> {
        let base = self.load_text("fleet", "", Path::new("/"))?;
        self.join(&base, blocks)
    }

    /// Reads a file and everything that it includes.
    pub fn load(&mut self, path: &Path) -> Result<Document, Problems> {
        let mut reading = Reading::new(&*self.environment, &mut self.memory, self.fleet);
        reading.short = self.short;
        match include::read(path, true) {
            Ok(bytes) => reading.file(path, bytes),
            Err(why) => {
                reading.report.add(
                    "missing-file",
                    None,
                    format!("{} cannot be read: {why}", path.display()),
                    "name a file that exists and that this user may read",
                );
            }
        }
        reading.finish()
    }

    /// Reads a text as if it stood in a file `name` in the folder `base_dir`.
    pub fn load_text(
        &mut self,
        name: &str,
        text: &str,
        base_dir: &Path,
    ) -> Result<Document, Problems> {
        let mut reading = Reading::new(&*self.environment, &mut self.memory, self.fleet);
        reading.short = self.short;
        reading.text(Arc::from(name), text.to_owned(), base_dir);
        reading.finish()
    }

    /// The document of a file, as this loader read it, together with the blocks of a feed, in the order of
    /// `Blocks::list`. What was not changed since the last time is the same `Arc`.
    pub fn join(&mut self, file: &Document, blocks: &[Arc<Block>]) -> Result<Document, Problems> {
        join::join(self, file, blocks)
    }
}

/// The longest part of a line that a problem shows.
const SHOWN: usize = 240;

/// Puts problems in order and gives each the line that it is about.
fn with_lines(report: Report, sources: &[Source]) -> Problems {
    let names: Vec<Arc<str>> = sources.iter().map(|s| s.name.clone()).collect();
    let mut problems = report.finish(&names);
    for source in sources {
        let mut about: Vec<&mut Problem> = problems
            .iter_mut()
            .filter(|p| {
                p.place
                    .as_ref()
                    .is_some_and(|place| place.file == source.name)
            })
            .collect();
        // Both are in ascending order: one walk through the text finds all lines.
        let mut lines = source.shown().split('\n').zip(1u32..).peekable();
        for problem in &mut about {
            let Some(place) = &problem.place else {
                continue;
            };
            while lines.next_if(|(_, number)| *number < place.line).is_some() {}
            if let Some((line, _)) = lines.peek()
                && usize::try_from(place.column).is_ok_and(|column| column <= SHOWN)
                // It may stand in the open beside what the problem is about.
                && !line.contains("secret")
            {
                problem.text = Some(shortened(line.trim_end_matches('\r')));
            }
        }
    }
    Problems(problems)
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}
