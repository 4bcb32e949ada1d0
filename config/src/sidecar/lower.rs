//! The sections of a short file to the full document that they stand for. One function for each part of it; each key
//! is written with the place of what it comes from.

use std::net::SocketAddr;
use std::sync::Arc;

use super::page::{Origin, Page};
use super::read::{Copied, Short, Table, Written};
use super::{INBOUND, Lowered, OUTBOUND};
use crate::document::Place;
use crate::report::Report;
use crate::rule;

/// The doors' addresses where the file does not say otherwise (PROD-20), and the operator's.
const INBOUND_BIND: &str = "\"0.0.0.0:15006\"";
const INBOUND_BIND_ALL: &str = "\"[::]:15006\"";
const OUTBOUND_BIND: &str = "\"127.0.0.1:15001\"";
const ADMIN: &str = "\"127.0.0.1:15000\"";
/// The second door out, where connections are captured.
const OUTBOUND_V6: &str = "outbound6";
/// How often an application is asked where nobody says otherwise: it is near, and others wait for it.
const READY_INTERVAL: &str = "\"1s\"";

struct Lowering<'s> {
    short: &'s Short,
    page: Page,
    mesh: Mesh<'s>,
    name: &'s Arc<str>,
    report: &'s mut Report,
}

/// How connections between sidecars are secured.
#[derive(Clone, Copy)]
struct Mesh<'s> {
    /// `None`: "off".
    mode: Option<&'s str>,
    origin: Origin,
}

/// The document; `None` when there is none, for a reason that is in the report.
pub(super) fn lower(short: &Short, name: &Arc<str>, report: &mut Report) -> Option<Lowered> {
    let identity = short.copied.iter().find(|one| one.section == "identity");
    let mode = short.inbound.text("mesh");
    let origin = match (mode, identity) {
        (None, Some(identity)) => identity.origin,
        _ => short.inbound.at("mesh"),
    };
    let mode = match mode {
        Some("off") => None,
        Some(mode) => Some(mode),
        None => identity.map(|_| "strict"),
    };
    let before = report.count();
    let mut lowering = Lowering {
        short,
        page: Page::default(),
        mesh: Mesh { mode, origin },
        name,
        report,
    };
    lowering.contradictions(identity);
    if lowering.report.count() != before {
        return None;
    }
    lowering.preamble();
    lowering.server();
    lowering.control_plane();
    lowering.identity();
    lowering.inbound();
    lowering.app();
    lowering.outbound();
    lowering.ports();
    lowering.others();
    (lowering.report.count() == before).then(|| lowering.page.finish())
}

impl Lowering<'_> {
    /// What each key may be and all of them together may not.
    fn contradictions(&mut self, identity: Option<&Copied>) {
        let (service, inbound) = (&self.short.service, &self.short.inbound);
        if self.mesh.mode.is_some() && identity.is_none() {
            self.refuse(
                "mesh-without-identity",
                self.mesh.origin,
                "a sidecar cannot be a member of the mesh without an identity",
                "write `[identity]` with `token = \"${env:TOLLGATE_JOIN_TOKEN}\"`, which `tollgate identity token` makes, \
                 or `mesh = \"off\"`",
            );
        }
        if self.mesh.mode.is_none()
            && let Some("enforce" | "audit") = inbound.text("access")
        {
            self.refuse(
                "access-without-mesh",
                inbound.at("access"),
                "without the mesh nobody knows who calls, so no rule can allow it",
                "take `access` out, or write `mesh = \"strict\"`",
            );
        }
        if service.text("protocol") == Some("tcp") {
            for key in ["access", "limit"] {
                if inbound
                    .get(key)
                    .is_some_and(|w| w.node.text() != Some("off"))
                {
                    self.refuse(
                        "contradiction",
                        inbound.at(key),
                        &format!("`{key}` is about requests, and bytes have none"),
                        "take it out, or write what the application speaks into `service.protocol`",
                    );
                }
            }
        }
        if let Some(app) = self.app_address()
            && let Some(bind) = self.inbound_bind()
            && app.port() == bind.port()
            && (app.ip() == bind.ip() || app.ip().is_loopback() && bind.ip().is_unspecified())
        {
            self.refuse(
                "loop",
                service.at("app"),
                "this is the address of the sidecar's own inbound door, so that requests would go round in a circle",
                "write the address that the application listens on",
            );
        }
    }

    fn app_address(&self) -> Option<SocketAddr> {
        self.short.service.text("app")?.parse().ok()
    }

    fn inbound_bind(&self) -> Option<SocketAddr> {
        let bind = self.short.inbound.text("bind");
        rule::bind(bind.unwrap_or(INBOUND_BIND.trim_matches('"'))).ok()
    }

    fn refuse(&mut self, code: &'static str, origin: Origin, message: &str, hint: &str) {
        let place = Place {
            file: self.name.clone(),
            line: origin.0.saturating_add(1),
            column: origin.1,
        };
        self.report.add(code, Some(place), message, hint);
    }

    /// Whether the file has this section of a full document.
    fn has(&self, section: &str) -> bool {
        self.short.copied.iter().any(|one| one.section == section)
    }

    fn preamble(&mut self) {
        let name = self.name.clone();
        let short = self.short;
        self.page
            .copy(&format!("# What {name} stands for, written out."), 0);
        for copied in short.copied.iter().filter(|one| one.section.is_empty()) {
            self.page.copy(&copied.text, copied.origin.0);
        }
    }

    /// A section that the file has or has not, with what is implied put into it.
    fn completed(
        &mut self,
        section: &str,
        words: &str,
        implied: &[(&str, String)],
        origin: Origin,
    ) {
        let short = self.short;
        let copied = short.copied.iter().find(|one| one.section == section);
        let missing = |key: &str| copied.is_none_or(|copied| copied.raw.get(key).is_none());
        let origin = copied.map_or(origin, |copied| copied.origin);
        let above = copied.map_or(words, |copied| match copied.above.as_str() {
            "" => words,
            above => above,
        });
        let above: Vec<&str> = { above.lines() }
            .map(|line| line.trim_start().trim_start_matches('#').trim_start())
            .collect();
        self.page
            .block(&above.join("\n"), &format!("[{section}]"), origin);
        for (key, value) in implied.iter().filter(|(key, _)| missing(key)) {
            self.page.key(key, value, origin);
        }
        if let Some(copied) = copied
            && let Some((_, keys)) = copied.text.split_once('\n')
        {
            self.page.copy(keys, copied.origin.0.saturating_add(1));
        }
    }

    fn server(&mut self) {
        let service = &self.short.service;
        let folder = service.text("name").unwrap_or_default();
        let implied = [
            ("admin", ADMIN.to_owned()),
            ("state_dir", format!("\"sidecar-state/{folder}\"")),
        ];
        self.completed("server", "", &implied, service.origin);
    }

    fn control_plane(&mut self) {
        if !self.has("control_plane") {
            return;
        }
        let service = &self.short.service;
        let address = match service.get("address") {
            Some(written) => format!("address = {}", written.raw.text),
            // Whoever binds it knows the port, and whoever registers it the way to the control plane.
            None => format!("listener = \"{INBOUND}\""),
        };
        let register = format!(
            "{{ name = {}, {address}, upstream = \"app\"{}{} }}",
            service.raw_or("name", "\"\""),
            self.register_health(),
            self.register_metadata(),
        );
        let words = "Announces the application for as long as it is ready.";
        let implied = [("register", register), ("kind", "\"sidecar\"".to_owned())];
        self.completed("control_plane", words, &implied, service.origin);
    }

    /// Where the control plane may ask the application itself, through the inbound door.
    fn register_health(&self) -> String {
        let ready = self.short.service.get("ready");
        match ready.filter(|_| self.is_asked_over_http()) {
            Some(Written { node, raw, .. }) if node.text().is_some() => {
                format!(", health = {}", raw.text)
            }
            Some(Written { raw, .. }) => match raw.get("path") {
                Some(path) => format!(", health = {}", path.text),
                None => String::new(),
            },
            None => String::new(),
        }
    }

    fn is_asked_over_http(&self) -> bool {
        let path =
            self.short.service.get("ready").is_some_and(|ready| {
                ready.node.text().is_some() || ready.node.get("path").is_some()
            });
        let http = matches!(
            self.short.service.text("protocol"),
            None | Some("http1" | "detect")
        );
        path && http && self.mesh.mode.is_none()
    }

    /// A door that takes members only, or no HTTP, is asked by a connection. That the application is ready is known
    /// from its sidecar's beats.
    fn register_metadata(&self) -> String {
        let metadata = self.short.service.get("metadata");
        let mut entries: Vec<String> = { metadata.iter() }
            .flat_map(|written| &written.raw.entries)
            .map(|(key, raw)| format!("{key} = {}", raw.text))
            .collect();
        let said = metadata.is_some_and(|written| written.node.get("protocol").is_some());
        if !self.is_asked_over_http() && !said {
            entries.push("protocol = \"tcp\"".to_owned());
        }
        match entries.is_empty() {
            true => String::new(),
            false => format!(", metadata = {{ {} }}", entries.join(", ")),
        }
    }

    fn identity(&mut self) {
        if self.has("identity") {
            let service = &self.short.service;
            let implied = [("service", service.raw_or("name", "\"\"").to_owned())];
            self.completed(
                "identity",
                "Who this is in the mesh.",
                &implied,
                service.origin,
            );
        }
    }

    /// The door that others come in by.
    fn inbound(&mut self) {
        let (service, inbound) = (&self.short.service, &self.short.inbound);
        let words = "Others come in here, and reach the application.";
        self.page.block(words, "[[listener]]", inbound.origin);
        self.page
            .key("name", &format!("\"{INBOUND}\""), inbound.origin);
        // What is redirected comes by either kind of address.
        let usual = match self.captures() {
            Some(_) => INBOUND_BIND_ALL,
            None => INBOUND_BIND,
        };
        let bind = inbound.raw_or("bind", usual);
        self.page.key("bind", bind, inbound.at("bind"));
        let protocol = service.text("protocol").unwrap_or("http1");
        let bytes = matches!(protocol, "tcp" | "detect");
        if bytes {
            let origin = service.at("protocol");
            self.page
                .key("protocol", &format!("\"{protocol}\""), origin);
            self.page.key("forward", "\"app\"", origin);
        }
        if let Some(mode) = self.mesh.mode {
            let origin = self.mesh.origin;
            self.page.key("mesh", &format!("\"{mode}\""), origin);
        }
        if let Some(origin) = self.captures() {
            self.page.key("capture", "true", origin);
        }
        if protocol == "tcp" {
            return;
        }
        self.page.block("", "[[route]]", inbound.origin);
        self.page
            .key("name", &format!("\"{INBOUND}\""), inbound.origin);
        let matches = format!("{{ listener = \"{INBOUND}\" }}");
        self.page.key("match", &matches, inbound.origin);
        self.page.key("upstream", "\"app\"", service.at("app"));
        let why = "the caller's sidecar waits, and tries again elsewhere";
        self.page
            .noted_key("timeout", "\"off\"", why, inbound.origin);
        self.page.key("retry", "\"off\"", inbound.origin);
        let mut filters = Vec::new();
        let mut origin = inbound.origin;
        if let Some((access, at)) = self.access() {
            filters.push(format!("{{ access = {access} }}"));
            origin = at;
        }
        if let Some(limit) = inbound.get("limit") {
            filters.push(limited(limit));
            origin = limit.origin;
        }
        if !filters.is_empty() {
            let filters = format!("[{}]", filters.join(", "));
            self.page.key("filters", &filters, origin);
        }
    }

    /// What `[[access]]` rules do here.
    fn access(&self) -> Option<(String, Origin)> {
        match self.short.inbound.get("access") {
            Some(written) if written.node.text() == Some("off") => None,
            Some(written) => Some((written.raw.text.clone(), written.origin)),
            None if self.mesh.mode.is_some() => Some(("\"audit\"".to_owned(), self.mesh.origin)),
            None => None,
        }
    }

    /// The application itself.
    fn app(&mut self) {
        let service = &self.short.service;
        self.page
            .block("The application.", "[[upstream]]", service.origin);
        self.page.key("name", "\"app\"", service.origin);
        let (endpoint, at) = match (service.get("app"), service.get("port")) {
            (Some(app), _) => (app.raw.text.clone(), app.origin),
            (None, Some(port)) => {
                let number = port.raw.text.trim_matches('"');
                (format!("\"127.0.0.1:{number}\""), port.origin)
            }
            (None, None) => return,
        };
        self.page.key("endpoints", &format!("[{endpoint}]"), at);
        if service.text("protocol") == Some("http2") {
            let origin = service.at("protocol");
            self.page.key("protocol", "\"http2\"", origin);
        }
        let why = "there is no other to go to: callers judge for themselves";
        self.page
            .noted_key("breaker", "\"off\"", why, service.origin);
        self.page.key("outlier", "\"off\"", service.origin);
        let health = match service.get("ready") {
            None => format!("{{ tcp = true, interval = {READY_INTERVAL} }}"),
            Some(ready) if ready.node.text().is_some() => {
                format!(
                    "{{ path = {}, interval = {READY_INTERVAL} }}",
                    ready.raw.text
                )
            }
            Some(ready) => {
                let written = { ready.raw.entries.iter() };
                let mut entries: Vec<String> = written
                    .map(|(key, raw)| format!("{key} = {}", raw.text))
                    .collect();
                if ready.raw.get("interval").is_none() {
                    entries.push(format!("interval = {READY_INTERVAL}"));
                }
                format!("{{ {} }}", entries.join(", "))
            }
        };
        self.page.key("health", &health, service.at("ready"));
    }

    /// The door that the application goes out by.
    fn outbound(&mut self) {
        let outbound = &self.short.outbound;
        let words = "The application goes out here, and reaches others by their names.";
        let bind = outbound.raw_or("bind", OUTBOUND_BIND);
        self.door_out(words, OUTBOUND, bind, outbound.at("bind"));
        if let Some(origin) = self.captures() {
            if let Some(bind) = self.second_door() {
                self.door_out("", OUTBOUND_V6, &bind, origin);
            }
            let words = "Where a connection was going.";
            self.page.block(words, "[[upstream]]", origin);
            self.page.key("name", "\"elsewhere\"", origin);
            self.page.key("endpoints", "\"original\"", origin);
        }
        let services: Vec<Written<'_>> = { outbound.get("services").into_iter() }
            .flat_map(|list| {
                list.node
                    .list()
                    .iter()
                    .zip(&list.raw.items)
                    .map(move |(node, raw)| Written {
                        node,
                        raw,
                        origin: (outbound.origin.0.saturating_add(node.spot.0), node.spot.1),
                    })
            })
            .collect();
        for service in &services {
            let words = format!(
                "{{ listener = {}, host = {} }}",
                self.doors_out(),
                service.raw.text
            );
            let name = format!("{OUTBOUND}-{}", service.node.text().unwrap_or_default());
            let upstream = format!("\"{name}\"");
            self.route_out(&name, &words, &upstream, service.origin);
            self.upstream_of(&upstream, &service.raw.text, service.origin);
        }
        let all = format!("{{ listener = {} }}", self.doors_out());
        if let Some(origin) = self.captures() {
            self.route_out(OUTBOUND, &all, "\"elsewhere\"", origin);
        } else if self.has("control_plane") {
            self.route_out(OUTBOUND, &all, "\"mesh\"", outbound.origin);
            self.upstream_of("\"mesh\"", "\"*\"", outbound.origin);
        }
    }

    fn door_out(&mut self, words: &str, name: &str, bind: &str, at: Origin) {
        let origin = self.short.outbound.origin;
        self.page.block(words, "[[listener]]", origin);
        self.page.key("name", &format!("\"{name}\""), origin);
        self.page.key("bind", bind, at);
        if let Some(origin) = self.captures() {
            self.page.key("protocol", "\"detect\"", origin);
            self.page.key("forward", "\"elsewhere\"", origin);
            self.page.key("capture", "true", origin);
        }
    }

    /// What is redirected stays of its kind, and loopback has an address of each.
    fn second_door(&self) -> Option<String> {
        self.captures()?;
        let bind = self.short.outbound.text("bind");
        match rule::bind(bind.unwrap_or(OUTBOUND_BIND.trim_matches('"'))) {
            Ok(SocketAddr::V4(bind)) if bind.ip().is_loopback() => {
                Some(format!("\"[::1]:{}\"", bind.port()))
            }
            _ => None,
        }
    }

    /// As a route names them.
    fn doors_out(&self) -> String {
        match self.second_door() {
            Some(_) => format!("[\"{OUTBOUND}\", \"{OUTBOUND_V6}\"]"),
            None => format!("\"{OUTBOUND}\""),
        }
    }

    /// `name` is the route's; `upstream` a TOML string.
    fn route_out(&mut self, name: &str, matches: &str, upstream: &str, origin: Origin) {
        self.page.block("", "[[route]]", origin);
        self.page.key("name", &format!("\"{name}\""), origin);
        self.page.key("match", matches, origin);
        self.page.key("upstream", upstream, origin);
        if let Some(limit) = self.short.outbound.get("limit") {
            self.page
                .key("filters", &format!("[{}]", limited(limit)), limit.origin);
        }
    }

    /// A service that is reached through the control plane. Both are TOML strings. No upstream is called like its service: what
    /// the control plane's documents say of services is.
    fn upstream_of(&mut self, name: &str, service: &str, origin: Origin) {
        self.page.block("", "[[upstream]]", origin);
        self.page.key("name", name, origin);
        self.page.key("service", service, origin);
        if self.mesh.mode.is_some() {
            self.page.key("mesh", "true", self.mesh.origin);
            // Another sidecar speaks both; which is the cheaper depends on how much there is to say.
            self.page.key("protocol", "\"auto\"", self.mesh.origin);
        }
    }

    /// Local addresses that stand for one service each.
    fn ports(&mut self) {
        let mut known: Vec<String> = { self.short.outbound.get("services").into_iter() }
            .flat_map(|list| list.node.list())
            .filter_map(|node| Some(node.text()?.to_owned()))
            .collect();
        for port in self.short.outbound.tables("port") {
            let (service, origin) = (port.raw_or("service", "\"\"").to_owned(), port.origin);
            let listener = format!("{OUTBOUND}-{}", port.text("service").unwrap_or_default());
            let upstream = format!("\"{listener}\"");
            self.page.block("", "[[listener]]", origin);
            self.page.key("name", &format!("\"{listener}\""), origin);
            let listen = port.raw_or("listen", "\"\"");
            self.page.key("bind", listen, port.at("listen"));
            if port.text("protocol") == Some("tcp") {
                let at = port.at("protocol");
                self.page.key("protocol", "\"tcp\"", at);
                self.page.key("forward", &upstream, port.at("service"));
            } else {
                let matches = format!("{{ listener = \"{listener}\" }}");
                let name = format!("{listener}-port");
                self.route_out(&name, &matches, &upstream, port.at("service"));
            }
            let name = port.text("service").unwrap_or_default().to_owned();
            if !known.contains(&name) {
                self.upstream_of(&upstream, &service, port.at("service"));
                known.push(name);
            }
        }
    }

    /// Where connections are redirected to us: the place that says so.
    fn captures(&self) -> Option<Origin> {
        let capture = self.short.capture.as_ref()?;
        (!is_off(capture)).then_some(capture.origin)
    }

    /// Sections of a full document that nothing had to be put into.
    fn others(&mut self) {
        let short = self.short;
        let done = ["", "server", "control_plane", "identity"];
        for copied in &short.copied {
            if done.contains(&copied.section.as_str()) {
                continue;
            }
            self.page.blank(copied.origin);
            if !copied.above.is_empty() {
                let lines = u32::try_from(copied.above.lines().count()).unwrap_or(u32::MAX);
                let from = copied.origin.0.saturating_sub(lines);
                self.page.copy(&copied.above, from);
            }
            self.page.copy(&copied.text, copied.origin.0);
        }
    }
}

pub(super) fn is_off(capture: &Table) -> bool {
    capture
        .get("enabled")
        .and_then(|written| written.node.flag())
        == Some(false)
}

fn limited(limit: Written<'_>) -> String {
    format!(
        "{{ rate_limit = {{ by = \"route\", rate = {} }} }}",
        limit.raw.text
    )
}
