//! Sections and their items: validated, decoded, noted. Knows nothing of files.

use std::path::Path;
use std::sync::Arc;

use super::reading::{Here, Reading, hash};
use super::source::{Decoded, Known};
use crate::decode;
use crate::document::{Item, Place, Tier};
use crate::grammar::{Section, Top, sections};
use crate::interpolate::{Interpolator, Use};
use crate::parse::{Node, TopValue};
use crate::report::ItemReport;
use crate::validate::validate;

impl Reading<'_> {
    /// The node of a section's value or item, validated. At the top level the value is one key of `section`.
    pub(super) fn node(
        &mut self,
        here: &Here<'_>,
        line: u32,
        key: &str,
        value: &TopValue<'_, '_>,
        section: &'static Section,
    ) -> (Node, Vec<Use>) {
        let mut interpolator = Interpolator {
            environment: self.environment,
            folder: here.folder,
            given: here.given,
            uses: Vec::new(),
        };
        let mut report = ItemReport {
            report: &mut self.report,
            file: here.name,
            line: here.first_line.saturating_add(line),
        };
        let node = value.node(line, &mut interpolator, &mut report);
        if std::ptr::eq(section, &sections::PREAMBLE) {
            let entry = crate::parse::Entry {
                key: key.to_owned(),
                spot: value.spot,
                node: node.clone(),
            };
            let table = Node {
                value: crate::parse::Value::Table(vec![entry]),
                spot: (0, 1),
            };
            validate(section, &table, &mut report);
        } else {
            validate(section, &node, &mut report);
        }
        if here.given.is_some() {
            // What a feed looked up is part of its block, which is compared as a whole.
            return (node, Vec::new());
        }
        self.watched.extend(interpolator.files());
        let uses = interpolator.uses;
        for used in &uses {
            hash(&mut self.hashers, used.value.as_bytes());
        }
        (node, uses)
    }

    /// Reads all items of a section's value. `known`: where an item is remembered, if it stands in a block of its own.
    pub(super) fn section(
        &mut self,
        here: &Here<'_>,
        top: &'static Top,
        value: &TopValue<'_, '_>,
        mut known: Option<&mut Option<Known>>,
    ) {
        let Some(section) = top.section else {
            self.report.add(
                "not-available",
                Some(here.place(value.spot)),
                format!("`{}` is not available in this build", top.name),
                "take the section out",
            );
            return;
        };
        let items = match (top.list, value.items()) {
            (true, Some(items)) => items,
            (false, None) if value.is_table() => {
                let (node, _) = self.node(here, value.spot.0, value.key, value, section);
                self.single(here, top.name, &node, here.place(value.spot));
                return;
            }
            (_, items) => {
                let right = if top.list {
                    format!("[[{}]]", top.name)
                } else {
                    format!("[{}]", top.name)
                };
                self.report.add(
                    "wrong-type",
                    Some(here.place(value.spot)),
                    format!(
                        "`{}` is not written as {}",
                        top.name,
                        if top.list {
                            "a list of tables"
                        } else {
                            "one table"
                        }
                    ),
                    format!("write `{right}`"),
                );
                self.broken.section(top.name);
                if items.is_none() && value.is_table() {
                    // Its keys can still be compared.
                    let _ = self.node(here, value.spot.0, value.key, value, section);
                }
                return;
            }
        };
        for item in items {
            let before = self.report.count();
            if !item.is_table() {
                self.report.add(
                    "wrong-type",
                    Some(here.place(item.spot)),
                    format!("`{}` must be a list of tables", top.name),
                    format!("write `[[{}]]`, with its keys below", top.name),
                );
                self.broken.section(top.name);
                continue;
            }
            let (node, uses) = self.node(here, item.spot.0, item.key, &item, section);
            let line = here.first_line.saturating_add(item.spot.0);
            let mut report = ItemReport {
                report: &mut self.report,
                file: here.name,
                line,
            };
            let decoded = decode_item(top.name, &node, here.folder, &mut report);
            match decoded {
                Some(decoded) => {
                    if let Decoded::Route { .. } = decoded {
                        self.changed.push(self.routes.len());
                    }
                    self.take(&decoded, here.name, line);
                    // A key's text is forgotten when the load ends: it may hold the key itself.
                    if let Some(known) = &mut known
                        && (here.given.is_some()
                            || !matches!(decoded, Decoded::ApiKey(_) | Decoded::Jwt(_)))
                        && self.report.count() == before
                    {
                        let uses = uses.into();
                        let known = known.insert(Known { decoded, uses });
                        self.memory.learn(known);
                    }
                }
                None => match node
                    .get("name")
                    .or_else(|| node.get("bind"))
                    .and_then(Node::text)
                {
                    Some(name) => self.broken.name(top.name, name),
                    None => self.broken.section(top.name),
                },
            }
        }
    }

    fn single(&mut self, here: &Here<'_>, name: &'static str, node: &Node, place: Place) {
        let before = if name == "server" {
            let server = decode::server(node, here.folder);
            self.server
                .replace((server, place.clone()))
                .map(|(_, place)| place)
        } else if name == "tiers" {
            self.tiers(here, node, place.clone())
        } else if name == "control_plane" {
            let mut report = ItemReport {
                report: &mut self.report,
                file: here.name,
                line: place.line,
            };
            let control_plane = decode::control_plane(node, here.folder, &mut report);
            self.control_plane
                .replace((control_plane, place.clone()))
                .map(|(_, place)| place)
        } else if name == "identity" {
            let mut report = ItemReport {
                report: &mut self.report,
                file: here.name,
                line: place.line,
            };
            match decode::identity(node, here.folder, &mut report) {
                Some(identity) => {
                    { self.identity.replace((identity, place.clone())) }.map(|(_, place)| place)
                }
                None => {
                    self.broken.section("identity");
                    None
                }
            }
        } else if name == "limits" {
            let mut report = ItemReport {
                report: &mut self.report,
                file: here.name,
                line: place.line,
            };
            let sharing = decode::sharing(node, here.folder, &mut report);
            self.sharing
                .replace((sharing, place.clone()))
                .map(|(_, place)| place)
        } else if name == "errors" {
            self.errors
                .replace((decode::errors(node), place.clone()))
                .map(|(_, place)| place)
        } else {
            let mut report = ItemReport {
                report: &mut self.report,
                file: here.name,
                line: place.line,
            };
            let telemetry = decode::telemetry(node, here.folder, &mut report);
            self.telemetry
                .replace((telemetry, place.clone()))
                .map(|(_, place)| place)
        };
        if let Some(before) = before {
            self.report.add(
                "duplicate-name",
                Some(place),
                format!("`[{name}]` stands here and at {before}"),
                "keep one of the two",
            );
        }
    }

    /// Where `[tiers]` stood before, if it did.
    fn tiers(&mut self, here: &Here<'_>, node: &Node, place: Place) -> Option<Place> {
        let mut report = ItemReport {
            report: &mut self.report,
            file: here.name,
            line: place.line,
        };
        let item = |tier: Tier| Item {
            value: Arc::new(tier),
            file: here.name.clone(),
            line: place.line,
        };
        let tiers = decode::tiers(node, &mut report).into_iter().map(item);
        self.tiers
            .replace((tiers.collect(), place))
            .map(|(_, place)| place)
    }

    pub(super) fn take(&mut self, decoded: &Decoded, file: &Arc<str>, line: u32) {
        fn item<T>(value: &Arc<T>, file: &Arc<str>, line: u32) -> Item<T> {
            Item {
                value: value.clone(),
                file: file.clone(),
                line,
            }
        }
        match decoded {
            Decoded::Route { route, named } => {
                if !named {
                    self.unnamed.push(self.routes.len());
                }
                self.routes.push(item(route, file, line));
            }
            Decoded::Listener(value) => self.listeners.push(item(value, file, line)),
            Decoded::Upstream(value) => self.upstreams.push(item(value, file, line)),
            Decoded::Limit(value) => self.limits.push(item(value, file, line)),
            Decoded::ApiKey(value) => self.api_keys.push(item(value, file, line)),
            Decoded::Jwt(value) => self.jwts.push(item(value, file, line)),
            Decoded::Access(value) => self.accesses.push(item(value, file, line)),
            Decoded::Tiers(values) => {
                let begins = Place {
                    file: file.clone(),
                    line,
                    column: 1,
                };
                let (tiers, _) = self.tiers.get_or_insert_with(|| (Vec::new(), begins));
                tiers.extend(values.iter().map(|value| item(value, file, line)));
            }
            Decoded::Test(value) => self.tests.push(item(value, file, line)),
        }
    }
}

pub(super) fn top(word: &str) -> Option<&'static Top> {
    sections::TOP.iter().find(|top| top.name == word)
}

fn decode_item(
    section: &str,
    node: &Node,
    folder: &Path,
    report: &mut ItemReport<'_>,
) -> Option<Decoded> {
    Some(match section {
        "listener" => Decoded::Listener(Arc::new(decode::listener(node, folder, report)?)),
        "upstream" => Decoded::Upstream(Arc::new(decode::upstream(node, folder, report)?)),
        "limit" => Decoded::Limit(Arc::new(decode::limit(node, report)?)),
        "api_key" => Decoded::ApiKey(Arc::new(decode::api_key(node, report)?)),
        "jwt" => Decoded::Jwt(Arc::new(decode::jwt(node, folder, report)?)),
        "access" => Decoded::Access(Arc::new(decode::access(node, report)?)),
        "test" => Decoded::Test(Arc::new(decode::test(node)?)),
        _ => Decoded::Route {
            route: Arc::new(decode::route(node, folder, report)?),
            named: node.get("name").is_some(),
        },
    })
}
