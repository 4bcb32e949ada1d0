//! A whole gateway in this process: a document in a folder of its own, the engine that serves it, and what operators
//! would ask its admin address.
//!
//! What a test does not say is filled in so that tests are quiet and repeatable: an admin address on a free port, one
//! worker (so that connection reuse can be counted), a short drain, no access log. The folder goes when the gateway
//! goes. Nothing here looks inside the engine.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::client::{Client, Response};
use super::waiting::wait;
use crate::drain::DrainReport;
use crate::engine::{Engine, Options, Running};

/// A running gateway; stopped when dropped.
pub struct Gateway {
    running: Option<Running>,
    first: String,
    folder: Folder,
}

impl Gateway {
    /// Serves this document; fails the test with the engine's own words when it is refused.
    pub fn start(toml: &str) -> Gateway {
        Gateway::try_start(toml)
            .unwrap_or_else(|refusal| panic!("the engine refused to start: {refusal}\n{toml}"))
    }

    pub fn try_start(toml: &str) -> Result<Gateway, String> {
        Gateway::start_with(toml, Options::default())
    }

    /// As `start`, and reloads by itself when the document changes.
    pub fn watching(toml: &str) -> Gateway {
        let options = Options {
            watch: true,
            ..Options::default()
        };
        Gateway::start_with(toml, options)
            .unwrap_or_else(|refusal| panic!("the engine refused to start: {refusal}\n{toml}"))
    }

    fn start_with(toml: &str, options: Options) -> Result<Gateway, String> {
        let folder = Folder::new();
        let toml = completed(toml);
        let file = folder.path().join("gateway.toml");
        fs::write(&file, &toml).expect("the test's own folder can be written");
        let running = Engine::start(&file, options).map_err(|error| error.to_string())?;
        Ok(Gateway {
            running: Some(running),
            first: first_listener(&toml),
            folder,
        })
    }

    /// One listener named `in`, one route for everything, one upstream named `app` at this address.
    pub fn in_front_of(upstream: SocketAddr) -> Gateway {
        Gateway::start(&document(upstream, "", "", ""))
    }

    /// Where the document's first listener listens.
    pub fn address(&self) -> SocketAddr {
        self.listener(&self.first)
    }

    pub fn listener(&self, name: &str) -> SocketAddr {
        let address = self.running().listener(name);
        address.unwrap_or_else(|| panic!("no listener is named {name}"))
    }

    /// Whether a listener of this name is served.
    pub fn listens(&self, name: &str) -> bool {
        self.running().listener(name).is_some()
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// One GET on a connection of its own.
    pub fn get(&self, target: &str) -> Response {
        self.client().get(target)
    }

    /// Where the document stands; files beside it can be named relatively.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces the document as an editor would, in one rename, and reloads: the new generation, or the refusal.
    pub fn edit(&self, toml: &str) -> Result<u64, String> {
        self.write(toml);
        self.reload()
    }

    /// Replaces the document without asking for a reload.
    pub fn write(&self, toml: &str) {
        let draft = self.folder.path().join("gateway.toml.draft");
        fs::write(&draft, completed(toml)).expect("the test's own folder can be written");
        fs::rename(&draft, self.folder.path().join("gateway.toml"))
            .expect("a rename within one folder");
    }

    pub fn reload(&self) -> Result<u64, String> {
        self.running()
            .reload()
            .map_err(|problems| problems.to_string())
    }

    pub fn admin(&self) -> SocketAddr {
        self.running()
            .admin()
            .expect("the document has an admin address")
    }

    /// One request to the admin address.
    pub fn ask(&self, line: &str) -> Response {
        Client::connect(self.admin()).request(line, &["Connection: close"])
    }

    /// `GET /status`, with the books closed of every answer that a client has read to its end.
    pub fn get_status(&self) -> serde_json::Value {
        self.running().settle();
        let response = self.ask("GET /status");
        assert_eq!(response.status, 200, "{response:?}");
        serde_json::from_slice(&response.body)
            .unwrap_or_else(|error| panic!("{error}: {response:?}"))
    }

    /// `GET /metrics`, with the books closed of every answer that a client has read to its end.
    pub fn metrics(&self) -> String {
        self.running().settle();
        let response = self.ask("GET /metrics");
        assert_eq!(response.status, 200, "{response:?}");
        response.text()
    }

    /// Waits until `/status` is as wanted, for what no answer announces: a client that leaves, a try that loses, a probe.
    #[track_caller]
    pub fn wait_status(
        &self,
        what: &str,
        wanted: impl FnMut(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        wait(what, || self.get_status(), wanted)
    }

    /// Waits until `/metrics` holds all of this.
    #[track_caller]
    pub fn wait_metrics(&self, parts: &[&str]) -> String {
        let page = wait(
            &format!("{parts:#?} in /metrics"),
            || Page(self.metrics()),
            |page| parts.iter().all(|part| page.0.contains(part)),
        );
        page.0
    }

    /// Waits until a series, named with its labels, has this value.
    #[track_caller]
    pub fn wait_count(&self, series: &str, value: u64) {
        let found = || {
            let page = self.metrics();
            let line = page.lines().find(|line| {
                line.strip_prefix(series)
                    .is_some_and(|rest| rest.starts_with(' '))
            });
            line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        };
        wait(&format!("{series} to be {value}"), found, |seen| {
            *seen == Some(value)
        });
    }

    /// Waits until a file of JSON lines beside the document, such as an access log, has so many whole ones.
    #[track_caller]
    pub fn wait_lines(&self, file: &str, count: usize) -> Vec<serde_json::Value> {
        let path = self.folder().join(file);
        let text = wait(
            &format!("{count} lines of {file}"),
            || std::fs::read_to_string(&path).unwrap_or_default(),
            |text| text.matches('\n').count() >= count,
        );
        let line = |line| serde_json::from_str(line).expect("a line is JSON");
        text.lines()
            .take(text.matches('\n').count())
            .map(line)
            .collect()
    }

    /// Stops as SIGTERM would and hands back the report.
    pub fn stop(mut self) -> DrainReport {
        self.running.take().expect("stopped only once").stop()
    }

    fn running(&self) -> &Running {
        self.running
            .as_ref()
            .expect("not stopped while it can be asked")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            let _report = running.stop();
        }
    }
}

/// A page that a failure shows line by line.
struct Page(String);

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A document with one listener `in`, one route and one upstream `app`; further keys for each of them, one a line. Time-outs
/// that these do not name are such as no machine reaches by standing still.
pub fn document(upstream: SocketAddr, listener: &str, route: &str, upstream_keys: &str) -> String {
    let names = |keys: &str, key: &str| keys.lines().any(|line| is_of(line, key));
    let patient = |keys: &str, key: &str| match names(keys, key) {
        true => String::new(),
        false => format!("{key} = \"60s\"\n"),
    };
    format!(
        "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n{}{listener}\n\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"app\"\n{}{route}\n\n\
         [[upstream]]\nname = \"app\"\nendpoints = [\"{upstream}\"]\n{}{upstream_keys}\n",
        patient(listener, "header_timeout"),
        patient(route, "timeout"),
        patient(upstream_keys, "connect_timeout"),
    )
}

/// Whether a line of a document sets this key.
fn is_of(line: &str, key: &str) -> bool {
    line.split('=')
        .next()
        .is_some_and(|word| word.trim() == key)
}

/// The line of a document on which this text stands, counted from 1.
pub fn line_of(toml: &str, text: &str) -> usize {
    let line = toml.lines().position(|line| line.contains(text));
    line.unwrap_or_else(|| panic!("the document has no {text:?}")) + 1
}

/// Adds what tests want unless the document says otherwise; at the end, so that lines keep their numbers, but for an
/// address in a `[server]` that has none.
fn completed(toml: &str) -> String {
    let mut whole = toml.to_owned();
    if !toml.contains("[server]") {
        whole.push_str("\n[server]\nadmin = \"127.0.0.1:0\"\nworkers = 1\ndrain = \"2s\"\n");
    } else if !toml.contains("admin =") {
        whole = whole.replacen("[server]", "[server]\nadmin = \"127.0.0.1:0\"", 1);
    }
    if !toml.contains("[telemetry]") {
        whole.push_str("\n[telemetry]\naccess_log = \"off\"\n");
    }
    whole
}

/// The name of the first listener: its `name`, or its bind address.
fn first_listener(toml: &str) -> String {
    let section = toml.split("[[listener]]").nth(1).unwrap_or_default();
    let section = section.split("\n[").next().unwrap_or_default();
    let value = |key: &str| {
        let line = section.lines().find(|line| is_of(line, key))?;
        line.split('"').nth(1).map(str::to_owned)
    };
    value("name").or_else(|| value("bind")).unwrap_or_default()
}

/// A folder of the test's own, removed with everything in it.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Folder {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("tollgate-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("the folder for temporary files can be written");
        Folder(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _left_behind = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_listener_is_known_by_its_name_or_its_address() {
        assert_eq!(
            first_listener("[[listener]]\nbind = \"a:1\"\nname = \"in\"\n[[route]]\nname = \"r\""),
            "in"
        );
        assert_eq!(
            first_listener("[[listener]]\nbind = \"a:1\"\n\n[[route]]\nname = \"r\"\n"),
            "a:1"
        );
    }
}
