//! The short file that a sidecar is told with: the application, the two doors, who the control plane is. It stands for
//! a full document (`lower`), which is what serves; nothing behind this room knows that there was a short one. Every
//! line of the full document remembers the line that it comes from, so that problems, explanations and answers point
//! at what a person wrote. A short file may hold any section of a full document besides, copied as it is.
//!
//! Nothing here opens a socket or decides about traffic, and a reference such as `${env:NAME}` is copied, not its value.

mod capture;
mod lower;
mod page;
mod read;

use std::path::Path;
use std::sync::Arc;

pub use capture::{Capture, User, capture};

use crate::cut::{Cut, cut};
use crate::grammar::sidecar::TOP;
use crate::interpolate::Environment;
use crate::loader::is_list;
use crate::problem::{Fault, Problems};
use crate::report::Report;
use crate::unit::short;

/// A full document, and where each of its lines comes from: a line of the short text, counted from 0, and a column
/// where it is not the same.
pub(crate) struct Lowered {
    pub(crate) text: String,
    pub(crate) origins: Vec<(u32, Option<u32>)>,
}

/// The name of the listener that others come in by. It is drained first.
pub const INBOUND: &str = "inbound";
/// The name of the listener that the application goes out by.
pub const OUTBOUND: &str = "outbound";

/// Whether a text has a section that only short files have.
pub(crate) fn is_short(text: &str) -> bool {
    let known = |section: &str| TOP.iter().any(|top| top.name == section);
    match cut(text, is_list) {
        Cut::Blocks(blocks) => { blocks.all.iter() }.any(|block| known(block.section(text))),
        // Then it is refused, with the right words.
        Cut::Whole { .. } => text.lines().any(|line| {
            let name = line.trim_start().trim_start_matches('[');
            known(name.split(['.', ']']).next().unwrap_or_default().trim())
        }),
    }
}

/// The full document; `None` when something of the short one is wrong, which is in the report then.
pub(crate) fn lower(
    name: &Arc<str>,
    text: &str,
    folder: &Path,
    environment: &Environment,
    report: &mut Report,
) -> Option<Lowered> {
    let read = read::read(name, text, folder, environment, report)?;
    lower::lower(&read, name, report)
}

/// The full document that a short file stands for, as text: `check --print`. `None`: the text is a full document
/// already.
pub fn written_out(name: &str, text: &str, folder: &Path) -> Result<Option<String>, Problems> {
    if !is_short(text) {
        return Ok(None);
    }
    let mut report = Report::default();
    let name: Arc<str> = Arc::from(name);
    let environment = |name: &str| std::env::var(name).ok();
    match lower(&name, text, folder, &environment, &mut report) {
        Some(lowered) if report.is_empty() => Ok(Some(lowered.text)),
        _ => Err(Problems(report.finish(&[name]))),
    }
}

/// The JSON Schema of a short file.
pub fn schema() -> serde_json::Value {
    crate::schema::short()
}

/// The page of all sections and keys, as Markdown.
pub fn reference() -> String {
    let sections = TOP.iter().filter_map(|top| top.section);
    crate::reference::of(INTRODUCTION, sections)
}

const INTRODUCTION: &str = r#"# The sidecar's short file

*This page is made from the grammar that the reader itself uses. To change it, change
`config/src/grammar/sidecar.rs` and run `TOLLGATE_BLESS=1 cargo test -p tollgate-config`.*

What stands beside an application is told with a few lines:

```toml
[service]
name = "orders"
app  = "127.0.0.1:9003"

[control_plane]
urls = ["http://127.0.0.1:8080"]
```

They stand for a [full document](configuration.md), which `tollgate-sidecar check --print` shows. Values are written
[as there](configuration.md#values), and what is told of the full document names the lines of the short file.
[mesh.md](mesh.md) is a tour; [config/sidecar.toml](../config/sidecar.toml) is an example.

A short file may hold any section of a full document besides: its own `[[route]]`s, `[[upstream]]`s, `[telemetry]`
and so on are taken as they are. Three of them are completed where they do not say otherwise: `[server]` with
`admin = "127.0.0.1:15000"` and a `state_dir` of its own, `sidecar-state/NAME`; `[control_plane]` with `register`, which
announces the service; `[identity]` with `service`. The names `inbound`, `outbound`, `app` and `mesh` are taken.

"#;

/// Whether a text can be the name of a service that is reached by it: a label of a host's name.
pub(crate) fn service_name(text: &str) -> Result<(), Fault> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let edge = text.starts_with('-') || text.ends_with('-');
    if text.is_empty() || text.len() > 63 || edge || !text.bytes().all(good) {
        return Err(Fault::new(
            format!(
                "`{}` cannot be the name of a service that is called by it",
                short(text)
            ),
            "use up to 63 lower-case letters, digits and `-`, such as \"orders\"",
        ));
    }
    Ok(())
}
