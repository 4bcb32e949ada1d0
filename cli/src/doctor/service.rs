//! The way of calls to one service, from whoever calls to whoever answers: registered, healthy, reachable from here, a handshake
//! with the right one, rules that let the call pass, limits and breakers on the way.

use std::io::{self, Read as _};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::ClientConnection;
use serde_json::Value;
use tollgate_config::UpstreamProtocol;
use tollgate_engine::net::tls::look::Looked;
use tollgate_engine::net::tls::{ClientTls, Expected, Member, Refusal};

use super::data_plane;
use super::finding::Finding;
use super::identity::{self, Silent};
use super::subjects::{Plane, Subjects};
use super::wire::{self, Page, Patience, Site};
use super::{Check, What};
use crate::inspect::escaped;
use crate::status::{list, word};

/// Instances that are gone to.
const MOST: usize = 20;

pub(super) fn checks(subjects: &Arc<Subjects>, name: &str) -> Vec<Check> {
    let (all, service) = (subjects.clone(), name.to_owned());
    let mut checks = vec![Check::new(What::Service, name, move || {
        registered(&all, &service)
    })];
    for number in 0..subjects.planes.len() {
        let (all, service) = (subjects.clone(), name.to_owned());
        checks.push(Check::new(What::Service, name, move || {
            let plane = all.planes.get(number);
            plane
                .map(|plane| at_plane(&all, plane, &service))
                .unwrap_or_default()
        }));
    }
    for (number, paper) in subjects.papers.iter().enumerate() {
        let section = paper.plane().and_then(|one| one.identity.as_ref());
        if section.is_some_and(|section| section.service == name) {
            let (all, service) = (subjects.clone(), name.to_owned());
            let look = move || rules(&all, number, &service);
            checks.push(Check::new(What::Service, name, look));
        }
    }
    checks
}

/// As the first control plane that answers knows it.
fn registered(subjects: &Subjects, service: &str) -> Vec<Finding> {
    let patience = Patience::of(subjects.limit);
    // The handshakes that follow have their part of the time, too.
    let mut sites = patience.part(2).among(&subjects.controls);
    let site = sites.find_map(|(target, part)| target.reach(subjects.token.as_ref(), part).0);
    let Some(site) = site else {
        let why = "no control plane is reached, so nobody says where its instances are";
        return vec![Finding::unknown(
            service,
            why,
            "see the section `control plane`",
        )];
    };
    let path = escaped(service);
    match site.page(&format!("/debug/diagnose/service/{path}")) {
        Page::Good(report) => {
            let mut found = diagnosis(service, &report);
            let instances = list(&report["instances"]).iter();
            let used = instances.filter(|one| one["in_lookups"] == true);
            found.extend(reached(
                subjects,
                service,
                used.map(|one| word(&one["address"])),
            ));
            found
        }
        _ => looked_up(subjects, &site, service, &path),
    }
}

/// What the control plane's own diagnosis says.
fn diagnosis(service: &str, report: &Value) -> Vec<Finding> {
    let (registration, resolution) = (&report["registration"], &report["resolution"]);
    let usable = resolution["instances"].as_u64().unwrap_or(0);
    let why = format!(
        "{} instances are registered, and {usable} of them may be used",
        word(&registration["instances"])
    );
    let mut found = vec![match usable {
        0 => Finding::problem(service, why, ""),
        _ => Finding::ok(service, why),
    }];
    for one in list(&report["recommendations"]) {
        let place = one["place"].as_str().map(str::to_owned);
        let setting = one["setting"]
            .as_str()
            .map(|setting| format!("`{setting}` decides about it"));
        let text = word(&one["text"]);
        let next = setting.unwrap_or_default();
        found.push(match usable {
            0 => Finding::problem(service, text, next).at(place),
            _ => Finding::warning(service, text, next).at(place),
        });
    }
    found
}

/// Where a token is wanted for more than a lookup.
fn looked_up(subjects: &Subjects, site: &Site, service: &str, path: &str) -> Vec<Finding> {
    match site.page(&format!("/services/{path}")) {
        Page::Good(instances) => {
            let addresses: Vec<String> = { list(&instances).iter() }
                .map(|one| word(&one["address"]))
                .collect();
            let why = format!("{} instances may be used", addresses.len());
            let mut found = vec![match addresses.len() {
                0 => Finding::problem(service, why, "let it register; see tollgate services"),
                _ => Finding::ok(service, why),
            }];
            found.extend(reached(subjects, service, addresses.into_iter()));
            found
        }
        Page::Denied(why) | Page::Bad(why) => {
            let next = "show a token of the role `read`: --token-file or TOLLGATE_TOKEN_FILE";
            vec![Finding::unknown(service, why, next)]
        }
    }
}

/// A handshake with each, in the name of the first document here that makes a member; without one, a look at what they show.
fn reached(
    subjects: &Subjects,
    service: &str,
    addresses: impl Iterator<Item = String>,
) -> Vec<Finding> {
    let caller = subjects.papers.iter().find_map(|paper| {
        let document = paper.plane()?;
        let section = document.identity.as_ref()?;
        let member = identity::member(document).ok().flatten()?;
        Some((section.namespace.clone(), member, paper.name()))
    });
    let addresses: Vec<String> = addresses.take(MOST).collect();
    let patience = Patience::of(subjects.limit / 2);
    { patience.among(&addresses) }
        .map(|(address, patience)| {
            let what = format!("{service} at {address}");
            match &caller {
                Some((namespace, member, who)) => {
                    let expected = Expected {
                        namespace: namespace.clone(),
                        service: service.to_owned(),
                    };
                    handshake(&what, address, member, &expected, who, patience)
                }
                None => seen(&what, address, patience),
            }
        })
        .collect()
}

/// As a call would begin, with the caller's own certificate. Nothing is asked.
fn handshake(
    what: &str,
    address: &str,
    member: &identity::Member,
    expected: &Expected,
    who: &str,
    patience: Patience,
) -> Finding {
    let socket =
        wire::resolve(address, patience).and_then(|addresses| wire::connect(&addresses, patience));
    let (mut socket, _) = match socket {
        Ok(connected) => connected,
        Err(why) => {
            let next = "look for a firewall between, or for an address that only it can use";
            return Finding::problem(what, format!("it is not reached from here: {why}"), next);
        }
    };
    let caller = Arc::new(Member::default());
    caller.hold(Some(member.own.clone()));
    caller.trust(member.trusted.clone());
    let made = ClientTls::member(&caller, expected, UpstreamProtocol::Auto);
    let made = made.map_err(|error| error.to_string()).and_then(|tls| {
        let name = tls
            .server_name(wire::host(address))
            .map_err(|error| error.to_string())?;
        ClientConnection::new(tls.config().clone(), name).map_err(|error| error.to_string())
    });
    let mut connection = match made {
        Ok(connection) => connection,
        Err(why) => return Finding::unknown(what, why, ""),
    };
    if let Err(error) = greeted(&mut connection, &mut socket) {
        let why = format!("as {who} it is not called: {}", Refusal::of(&error));
        let next = "the section `identity` looks at both certificates; where it is no member, its upstream is not to say `mesh`";
        return Finding::problem(what, why, next);
    }
    let why =
        format!("reached from here, and it is {expected} by its certificate (asked as {who})");
    Finding::ok(what, why)
}

/// Shakes hands and takes leave. Under TLS 1.3 the other side judges our certificate after we have judged its own, so its
/// last word is waited for; where none comes, it had nothing against us.
fn greeted(connection: &mut ClientConnection, socket: &mut TcpStream) -> io::Result<()> {
    while connection.is_handshaking() {
        connection.complete_io(socket)?;
    }
    connection.send_close_notify();
    connection.complete_io(socket)?;
    loop {
        match connection.read_tls(socket) {
            Ok(0) => return Ok(()),
            Ok(_) => {
                let state = connection.process_new_packets();
                let state = state.map_err(io::Error::other)?;
                if state.peer_has_closed() {
                    return Ok(());
                }
                // Its greeting, which nobody reads.
                let mut unread = Vec::new();
                let _no_more = connection.reader().read_to_end(&mut unread);
            }
            Err(_) => return Ok(()),
        }
    }
}

fn seen(what: &str, address: &str, patience: Patience) -> Finding {
    match identity::shown(address, patience) {
        Ok(chain) => {
            let names = chain.first().and_then(|one| Looked::at(one).ok());
            let names = names.map_or_else(|| "nobody".to_owned(), |looked| looked.names.join(", "));
            let why = format!(
                "reached from here; its certificate names {names}, which was not verified: no document here makes a member"
            );
            Finding::ok(what, why)
        }
        Err(Silent::NoTls(_)) => Finding::ok(what, "reached from here, in clear text"),
        Err(Silent::Nobody(why)) => {
            let next = "look for a firewall between, or for an address that only it can use";
            Finding::problem(what, format!("it is not reached from here: {why}"), next)
        }
    }
}

/// What a data plane here has to do with it: it stands before the service, or sends to it.
fn at_plane(subjects: &Subjects, plane: &Plane, service: &str) -> Vec<Finding> {
    let Ok((_, status)) = data_plane::status(subjects, plane) else {
        return Vec::new();
    };
    let url = &plane.target.url;
    let mut found = Vec::new();
    let mut known = false;
    for upstream in list(&status["upstreams"]) {
        let own = upstream["name"] == service || upstream["service"] == service;
        if !own {
            continue;
        }
        known = true;
        found.extend(data_plane::about(url, upstream));
        found.extend(full(url, upstream));
    }
    if known && found.is_empty() {
        let why = format!(
            "{service} may be asked: its endpoints are healthy, and no breaker or limit is in the way"
        );
        found.push(Finding::ok(url, why));
    }
    found
}

/// A limit on what is in flight that is used up.
fn full(url: &str, upstream: &Value) -> Option<Finding> {
    let bulkhead = &upstream["bulkhead"];
    let (limit, used) = (bulkhead["limit"].as_u64()?, bulkhead["in_flight"].as_u64()?);
    (used >= limit).then(|| {
        let why =
            format!("{used} requests are in flight, which is all that `max_in_flight` lets be");
        let what = format!("{url}, upstream {}", word(&upstream["name"]));
        Finding::warning(
            what,
            why,
            "raise it, or find out what makes the answers slow",
        )
    })
}

/// What the rules say at the service's own door of each other member here. No request is sent: which calls are meant nobody knows.
fn rules(subjects: &Subjects, number: usize, service: &str) -> Vec<Finding> {
    let Some(paper) = subjects.papers.get(number) else {
        return Vec::new();
    };
    // Where nothing was told yet, there is nothing to say.
    let Some(document) = paper.joined() else {
        return Vec::new();
    };
    let Some(callee) = document.own_service() else {
        return Vec::new();
    };
    let all = document.accesses.iter();
    let about: Vec<_> = all.filter(|rule| rule.is_about(Some(&callee))).collect();
    if about.is_empty() {
        let why = "no rule of access is about it";
        return vec![Finding::ok(service, why)];
    }
    let sections = { subjects.papers.iter() }.filter_map(|paper| paper.plane()?.identity.as_ref());
    let callers = sections.filter(|section| section.service != service);
    let told = callers.map(|caller| {
        let (namespace, name) = (&caller.namespace, &caller.service);
        let what = format!("{namespace}/{name} calls {service}");
        let for_it = about.iter().filter(|rule| {
            let mut from = rule.from.iter();
            from.any(|from| from.fits(namespace, name, &callee.namespace))
        });
        let for_it: Vec<_> = for_it.collect();
        match for_it.first() {
            Some(first) => {
                let names: Vec<&str> = for_it.iter().map(|rule| rule.name.as_str()).collect();
                let why = format!("rules that let calls of it pass: {}", names.join(", "));
                Finding::ok(what, why).at(Some(first.begins().to_string()))
            }
            None => {
                let count = about.len();
                let why = format!("none of {count} rules about {service} is for it: where they are enforced, it is refused");
                Finding::ok(what, why)
            }
        }
    });
    told.collect()
}
