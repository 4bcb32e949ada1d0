//! A text to a control plane's document, or everything that is wrong with it: parsed, compared with the grammar,
//! decoded, and looked at as a whole.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::rollout::complete;
use super::{
    Audit, Catalog, ControlPlane, Feed, Probe, Registry, Rollout, Server, Stage, WithoutTraffic,
    access, identity, store,
};
use crate::cut::{Cut, cut};
use crate::grammar::control_plane::TOP;
use crate::interpolate::Interpolator;
use crate::nearest::nearest;
use crate::parse::{Node, TopValue, parse};
use crate::problem::{Problem, Problems};
use crate::report::{ItemReport, Report};
use crate::validate::{did_you_mean, validate};
use crate::{loader, rule, unit};

/// Reads a file.
pub fn load(path: &Path) -> Result<ControlPlane, Problems> {
    let name = path.display().to_string();
    let whole = |code, message: String, hint: &str| {
        Problems(vec![Problem {
            code,
            place: None,
            message,
            text: None,
            hint: Some(hint.to_owned()),
        }])
    };
    let bytes = loader::read_file(path).map_err(|why| {
        whole(
            "missing-file",
            format!("{name} cannot be read: {why}"),
            "name a file that exists and that this user may read",
        )
    })?;
    let text = String::from_utf8(bytes).map_err(|_| {
        whole(
            "not-utf8",
            format!("{name} is not UTF-8 text"),
            "save it as UTF-8",
        )
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    load_text(&name, &text, folder, |name| std::env::var(name).ok())
}

/// Reads a text as if it stood in a file `name` in `folder`; `environment` is asked for `${env:NAME}`.
pub fn load_text(
    name: &str,
    text: &str,
    folder: &Path,
    environment: impl Fn(&str) -> Option<String> + Send + 'static,
) -> Result<ControlPlane, Problems> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let name: Arc<str> = Arc::from(name);
    let mut report = Report::default();
    let document = {
        let mut report = ItemReport {
            report: &mut report,
            file: &name,
            line: 1,
        };
        let mut interpolator = Interpolator {
            environment: &environment,
            folder,
            given: None,
            uses: Vec::new(),
        };
        read(text, folder, &mut interpolator, &mut report)
    };
    if report.is_empty() {
        return Ok(document);
    }
    let mut problems = report.finish(std::slice::from_ref(&name));
    for problem in &mut problems {
        let line = problem.place.as_ref().map_or(0, |place| place.line);
        let line = usize::try_from(line).unwrap_or(0);
        let text = line.checked_sub(1).and_then(|at| text.lines().nth(at));
        let text = text.filter(|text| text.len() < 1000 && !access::is_secret(text));
        problem.text = text.map(str::to_owned);
    }
    Err(Problems(problems))
}

/// The page of all sections and keys, as Markdown.
pub fn reference() -> String {
    let sections = TOP.iter().filter_map(|top| top.section);
    crate::reference::of(INTRODUCTION, sections)
}

const INTRODUCTION: &str = r#"# The control plane's document

*This page is made from the grammar that the reader itself uses. To change it, change
`config/src/grammar/control_plane.rs` and run `TOLLGATE_BLESS=1 cargo test -p tollgate-config`.*

One TOML file, and none is needed: every key has a default. Values are written as in a
[gateway's document](configuration.md#values), references to environment and files included. Unknown keys are refused,
and all problems are reported at once. [control-plane.md](control-plane.md) tells what the settings do;
[config/control-plane.toml](../config/control-plane.toml) is an example. `[registry]`, `[probe]`, `[audit]` and
`[[token]]` are read again on SIGHUP.

"#;

fn read(
    text: &str,
    folder: &Path,
    interpolator: &mut Interpolator<'_>,
    report: &mut ItemReport<'_>,
) -> ControlPlane {
    let mut document = ControlPlane::default();
    document.server.state_dir = document.server.state_dir.map(|dir| folder.join(dir));
    let too_deep = match cut(text, |_| false) {
        Cut::Blocks(blocks) => blocks.all.iter().find_map(|block| block.too_deep),
        Cut::Whole { too_deep } => too_deep,
    };
    if let Some(line) = too_deep {
        report.add(
            "too-deep",
            (line.saturating_sub(1), 1),
            "a key has too many dots",
            "no key of a document has more than one",
        );
        return document;
    }
    let parsed = match parse(text) {
        Ok(parsed) => parsed,
        Err(errors) => {
            for (spot, message) in errors {
                let hint = "correct the TOML here; see toml.io for its rules";
                report.add("syntax", spot, message, hint);
            }
            return document;
        }
    };
    let mut stores = None;
    let mut bind = None;
    for value in parsed.top() {
        let Some((top, section)) = TOP
            .iter()
            .find(|top| top.name == value.key)
            .and_then(|top| Some((top, top.section?)))
        else {
            unknown(&value, report);
            continue;
        };
        if top.list {
            access::tokens(&value, section, &mut document, interpolator, report);
            continue;
        }
        if !value.is_table() {
            report.add(
                "wrong-type",
                value.spot,
                format!("`{}` is not written as one table", top.name),
                format!("write `[{}]`", top.name),
            );
            continue;
        }
        let node = value.node(0, interpolator, report);
        validate(section, &node, report);
        match top.name {
            "server" => server(&node, folder, &mut document.server),
            "store" => stores = Some(node.clone()),
            "registry" => registry(&node, &mut document.registry),
            "probe" => probe(&node, &mut document.probe),
            "catalog" => catalog(&node, folder, &mut document.catalog),
            "feed" => feed(&node, &mut document.feed),
            "identity" => identity::read(&node, folder, &mut document.identity, report),
            "rollout" => rollout(&node, &mut document.rollout, report),
            _ => audit(&node, &mut document.audit),
        }
        if top.name == "registry" {
            check(&node, &document.registry, report);
        }
        if top.name == "server" {
            bind = node.get("bind").map(|node| node.spot);
        }
    }
    let said_something = parsed.top().any(|value| value.key == "token");
    if let Some(spot) = bind.filter(|_| !said_something) {
        access::reachable(document.server.bind, spot, report);
    }
    // Where it is reached by default is told elsewhere in the text.
    if let Some(node) = stores {
        document.store = store::read(&node, folder, &document.server, report);
    }
    document
}

fn unknown(value: &TopValue<'_, '_>, report: &mut ItemReport<'_>) {
    let known: Vec<&str> = TOP.iter().map(|top| top.name).collect();
    let near = nearest(value.key, known.iter().copied());
    let what = match value.is_table() || value.items().is_some() {
        true => ("unknown-section", "section"),
        false => ("unknown-key", "key"),
    };
    report.add(
        what.0,
        value.spot,
        format!(
            "unknown {} `{}` at the top level",
            what.1,
            unit::short(value.key)
        ),
        did_you_mean(near, "sections", &known),
    );
}

/// What the grammar cannot say: spans of time that make no sense together (REG-302).
fn check(node: &Node, registry: &Registry, report: &mut ItemReport<'_>) {
    let mut at_least = |key: &str, value: Duration, least: Duration, of: &str| {
        if value < least {
            let spot = node.get(key).map_or(node.spot, |node| node.spot);
            report.add(
                "contradiction",
                spot,
                format!("`{key}` is shorter than {of}"),
                format!("write at least \"{}ms\"", least.as_millis()),
            );
        }
    };
    let beat = registry.heartbeat;
    let suspect = registry.suspect_after;
    at_least("suspect_after", suspect, beat, "one `heartbeat`");
    at_least(
        "service_timeout",
        registry.service_timeout,
        beat * 2,
        "two `heartbeat`s",
    );
    at_least(
        "service_timeout",
        registry.service_timeout,
        suspect,
        "`suspect_after`",
    );
}

fn server(node: &Node, folder: &Path, server: &mut Server) {
    take(
        node,
        "bind",
        |n| rule::bind(n.text()?).ok(),
        &mut server.bind,
    );
    server.tls = node.get("tls").and_then(|node| access::tls(node, folder));
    take(
        node,
        "state_dir",
        |n| match n.text()? {
            "off" => Some(None),
            path => Some(Some(folder.join(path))),
        },
        &mut server.state_dir,
    );
    take(node, "drain", duration, &mut server.drain);
    take(node, "max_connections", count, &mut server.max_connections);
    take(node, "idle_timeout", duration, &mut server.idle_timeout);
    take(
        node,
        "max_body",
        |n| usize::try_from(unit::size(n.text()?).ok()?).ok(),
        &mut server.max_body,
    );
}

fn registry(node: &Node, registry: &mut Registry) {
    for (key, value) in [
        ("heartbeat", &mut registry.heartbeat),
        ("suspect_after", &mut registry.suspect_after),
        ("service_timeout", &mut registry.service_timeout),
        ("drain_after_silence", &mut registry.drain_after_silence),
        ("drain_after_probes", &mut registry.drain_after_probes),
        ("cleanup", &mut registry.cleanup),
        ("loss_interval", &mut registry.loss_interval),
        ("flap_window", &mut registry.flap_window),
        ("observation_age", &mut registry.observation_age),
    ] {
        take(node, key, duration, value);
    }
    for (key, value) in [
        ("flap_count", &mut registry.flap_count),
        ("observation_nodes", &mut registry.observation_nodes),
        ("max_instances", &mut registry.max_instances),
        ("max_per_service", &mut registry.max_per_service),
    ] {
        take(node, key, count, value);
    }
    take(node, "loss_share", Node::number, &mut registry.loss_share);
}

fn probe(node: &Node, probe: &mut Probe) {
    take(node, "enabled", Node::flag, &mut probe.enabled);
    take(node, "interval", duration, &mut probe.interval);
    take(node, "timeout", duration, &mut probe.timeout);
    take(
        node,
        "healthy_interval",
        |n| match n.text()? {
            "off" => Some(None),
            _ => duration(n).map(Some),
        },
        &mut probe.healthy_interval,
    );
    take(node, "failures", small, &mut probe.failures);
    take(node, "successes", small, &mut probe.successes);
    take(node, "max_in_flight", count, &mut probe.max_in_flight);
}

fn audit(node: &Node, audit: &mut Audit) {
    take(node, "retention", duration, &mut audit.retention);
    let size = |n: &Node| unit::size(n.text()?).ok();
    take(node, "max_size", size, &mut audit.max_size);
}

fn catalog(node: &Node, folder: &Path, catalog: &mut Catalog) {
    take(
        node,
        "folder",
        |n| match n.text()? {
            "off" => Some(None),
            path => Some(Some(folder.join(path))),
        },
        &mut catalog.folder,
    );
    take(node, "revisions", count, &mut catalog.revisions);
    take(
        node,
        "max_change",
        |n| usize::try_from(unit::size(n.text()?).ok()?).ok(),
        &mut catalog.max_change,
    );
}

fn feed(node: &Node, feed: &mut Feed) {
    take(node, "beat", duration, &mut feed.beat);
    take(node, "write_timeout", duration, &mut feed.write_timeout);
    take(node, "max_feeds", count, &mut feed.max_feeds);
    take(node, "forget_nodes", duration, &mut feed.forget_nodes);
    take(
        node,
        "figures",
        |n| match n.text()? {
            "off" => Some(None),
            _ => duration(n).map(Some),
        },
        &mut feed.figures,
    );
    take(node, "answer_timeout", duration, &mut feed.answer_timeout);
}

fn rollout(node: &Node, rollout: &mut Rollout, report: &mut ItemReport<'_>) {
    take(
        node,
        "stages",
        |n| {
            let stages = n.list().iter();
            stages.map(|one| Stage::parse(one.text()?).ok()).collect()
        },
        &mut rollout.stages,
    );
    if let (Err(fault), Some(stages)) = (complete(&rollout.stages), node.get("stages")) {
        report.add("contradiction", stages.spot, fault.message, fault.hint);
    }
    take(node, "hold", duration, &mut rollout.hold);
    take(node, "wait", duration, &mut rollout.wait);
    take(
        node,
        "without_traffic",
        |n| match n.text()? {
            "pause" => Some(WithoutTraffic::Pause),
            "continue" => Some(WithoutTraffic::Continue),
            _ => None,
        },
        &mut rollout.without_traffic,
    );
    take(node, "min_requests", Node::count, &mut rollout.min_requests);
    for (key, value) in [
        ("error_rise", &mut rollout.error_rise),
        ("refusal_rise", &mut rollout.refusal_rise),
        ("slow_rise", &mut rollout.slow_rise),
    ] {
        take(node, key, Node::number, value);
    }
}

/// The key's value, where it is there and was not refused.
pub(super) fn take<T>(node: &Node, key: &str, read: impl Fn(&Node) -> Option<T>, into: &mut T) {
    if let Some(value) = node.get(key).and_then(read) {
        *into = value;
    }
}

pub(super) fn duration(node: &Node) -> Option<Duration> {
    unit::duration(node.text()?).ok()
}

fn count(node: &Node) -> Option<usize> {
    usize::try_from(node.count()?).ok()
}

fn small(node: &Node) -> Option<u32> {
    u32::try_from(node.count()?).ok()
}
