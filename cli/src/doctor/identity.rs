//! Who everybody is in the mesh: the certificate that a data plane keeps, the one that its door shows on the wire, whether the
//! two, the control plane's authority and the clocks agree, and what became of the last renewal. Works when all of it has
//! expired: nothing here needs a handshake that succeeds.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use tollgate_config::identity::Trust;
use tollgate_config::{Document, IdentitySource, Mesh};
use tollgate_engine::identity;
use tollgate_engine::net::tls::look::Unverified;
use tollgate_engine::net::tls::{Own, Trusted};

use super::authority;
use super::data_plane;
use super::finding::Finding;
use super::machine;
use super::subjects::{Paper, Plane, Subjects, reachable};
use super::times;
use super::trust::{self, Clock};
use super::wire::{self, Page, Patience};
use super::{Check, What};
use crate::status::word;

/// What members offer in a handshake, so that a door of any kind takes one of them.
const PROTOCOLS: [&[u8]; 3] = [b"h2", b"http/1.1", tollgate_engine::net::tls::BYTES];

/// A member's certificate, and whom it trusts.
pub(super) struct Member {
    pub(super) own: Arc<Own>,
    pub(super) trusted: Option<Arc<Trusted>>,
}

pub(super) fn checks(subjects: &Arc<Subjects>) -> Vec<Check> {
    let mut checks = Vec::new();
    for (number, paper) in subjects.papers.iter().enumerate() {
        let Some(document) = paper.plane() else {
            continue;
        };
        if document.identity.is_some() {
            let all = subjects.clone();
            checks.push(Check::new(What::Identity, paper.name(), move || {
                let paper = all.papers.get(number);
                paper.map(|paper| kept(&all, paper)).unwrap_or_default()
            }));
        }
        for (name, bind, place) in doors(document) {
            let all = subjects.clone();
            let subject = format!("{name} {bind}");
            checks.push(Check::new(What::Identity, subject, move || {
                let document = all.papers.get(number).and_then(Paper::plane);
                document
                    .map(|document| on_the_wire(&all, document, &name, bind, &place))
                    .unwrap_or_default()
            }));
        }
    }
    for number in 0..subjects.planes.len() {
        let all = subjects.clone();
        checks.push(Check::new(What::Identity, "the last renewal", move || {
            let plane = all.planes.get(number);
            plane.map(|plane| renewal(&all, plane)).unwrap_or_default()
        }));
    }
    for number in 0..subjects.controls.len() {
        let all = subjects.clone();
        checks.push(Check::new(What::Identity, "the authority", move || {
            authority::look(&all, number)
        }));
    }
    checks
}

/// Listeners of the mesh that can be connected to: name, address, line.
fn doors(document: &Document) -> Vec<(String, SocketAddr, String)> {
    let listeners = document.listeners.iter();
    let mesh = listeners.filter(|one| one.mesh.value != Mesh::Off && one.bind.port() != 0);
    mesh.map(|one| (one.name.clone(), one.bind, one.begins().to_string()))
        .collect()
}

/// What a document's process has of the mesh, on disk. `None`: nothing yet.
pub(super) fn member(document: &Document) -> Result<Option<Member>, String> {
    let Some(section) = &document.identity else {
        return Ok(None);
    };
    match &section.source {
        IdentitySource::Files { cert, key, ca } => {
            let read = |file: &Path| {
                std::fs::read(file)
                    .map_err(|error| format!("{} cannot be read: {error}", file.display()))
            };
            let own = Own::new(&read(cert)?, &read(key)?)?;
            let pem = String::from_utf8_lossy(&read(ca)?).into_owned();
            let trusted = Trusted::new(&Trust {
                trust_domain: own.facts.identity.trust_domain().to_owned(),
                version: 0,
                authorities: vec![pem],
                revoked: Vec::new(),
            });
            let trusted = trusted.map_err(|why| format!("{}: {why}", ca.display()))?;
            Ok(Some(Member {
                own: Arc::new(own),
                trusted: Some(Arc::new(trusted)),
            }))
        }
        IdentitySource::Authority { .. } => {
            let Some(folder) = &document.server.state_dir else {
                return Ok(None);
            };
            let left = identity::left(folder)?;
            Ok(left.map(|left| Member {
                own: left.own,
                trusted: Some(left.trusted),
            }))
        }
    }
}

/// The first clock of a control plane that is elsewhere than ours.
fn clock(subjects: &Subjects, patience: Patience) -> Clock {
    let mut all = patience.among(&subjects.controls);
    let apart = all.find_map(|(target, part)| {
        let site = target.reach(None, part).0?;
        machine::apart(machine::skew_of(&site)?, &target.url)
    });
    Clock { apart }
}

fn kept(subjects: &Subjects, paper: &Paper) -> Vec<Finding> {
    let (Some(document), what) = (paper.plane(), format!("{}, kept", paper.name())) else {
        return Vec::new();
    };
    let Some(section) = &document.identity else {
        return Vec::new();
    };
    let place = Some(section.place.to_string());
    let found = member(document);
    let Member { own, trusted } = match found {
        Ok(Some(member)) => member,
        Ok(None) => return vec![nothing_kept(document, &what).at(place)],
        Err(why) => {
            let next = "the section `files` says more; a new join token makes it a member again";
            return vec![Finding::problem(what, why, next).at(place)];
        }
    };
    let patience = Patience::of(subjects.limit);
    let (now, clock) = (times::now(), clock(subjects, patience.part(3)));
    let renews = renews(document);
    let mut found = vec![trust::life(&what, own.chain(), now, &clock, renews).at(place.clone())];
    let id = &own.facts.identity;
    if id.service() != section.service || id.namespace() != section.namespace {
        let why = format!(
            "the certificate names {id}, and the document {}/{}: it is not used",
            section.namespace, section.service
        );
        let next =
            "correct `[identity] service`, or give it a join token for the service that it says";
        found.push(Finding::problem(&what, why, next).at(place));
    }
    if let Some(trusted) = &trusted {
        found.extend(trust::authorities(&what, trusted, now));
        if let Some((reason, why)) = trust::refused(own.chain(), trusted, now) {
            let why = format!("its own certificate is none that it would take from others: {why}");
            found.push(Finding::problem(&what, why, trust::next_of(reason)));
        }
        found.extend(beside_control_planes(
            subjects,
            patience,
            &what,
            own.chain(),
            trusted,
        ));
    }
    found
}

/// What to do about a certificate that nobody renewed.
fn renews(document: &Document) -> &'static str {
    match document.identity.as_ref().map(|section| &section.source) {
        Some(IdentitySource::Files { .. }) => {
            "put a new certificate and its key into these files, which whoever makes them has not done in time; they are read again by \
             themselves"
        }
        _ => {
            "while it was good it would have renewed itself: see why that failed; then make a new join token (tollgate identity token \
             --service NAME), give it to `[identity] token` and start anew, or set `identity.grace` in the control plane's document for \
             as long as it takes"
        }
    }
}

fn nothing_kept(document: &Document, what: &str) -> Finding {
    let Some(folder) = &document.server.state_dir else {
        let why = "its certificate ends with its process, since there is no `server.state_dir`: a join token is good once, so the \
                   next start finds nobody who lets it in";
        return Finding::warning(what, why, "write `[server] state_dir = \"…\"`");
    };
    match folder.join("identity.joining").exists() {
        true => {
            let why = "it asks to join, and has no certificate yet: nobody reaches it, and it reaches nobody";
            let next = "see its last failure below or in its log: a token that was used or has ended, or an authority that is away";
            Finding::problem(what, why, next)
        }
        false => {
            let why = format!(
                "there is no certificate in {}: it has never joined from here",
                folder.display()
            );
            Finding::warning(
                what,
                why,
                "start it with a join token: tollgate identity token --service NAME",
            )
        }
    }
}

/// What each control plane tells of whom to trust, beside what is known here. For everybody, so no token is shown.
fn beside_control_planes(
    subjects: &Subjects,
    patience: Patience,
    what: &str,
    chain: &[CertificateDer<'_>],
    own: &Trusted,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for (target, part) in patience.part(2).among(&subjects.controls) {
        let Some(site) = target.reach(None, part).0 else {
            continue;
        };
        let Page::Good(told) = site.page("/identity/trust") else {
            continue;
        };
        let Ok(told) = serde_json::from_value::<Trust>(told) else {
            continue;
        };
        found.extend(trust::generations(what, own, &told, &target.url));
        let refusal = Trusted::new(&told).ok();
        let refusal = refusal.and_then(|told| trust::refused(chain, &told, times::now()));
        if let Some((reason, why)) = refusal {
            let why = format!("members that follow {} refuse it: {why}", target.url);
            found.push(Finding::problem(what, why, trust::next_of(reason)));
        }
    }
    found
}

/// What a door shows to whoever comes. No certificate of ours is shown, so it counts a handshake that came to nothing.
fn on_the_wire(
    subjects: &Subjects,
    document: &Document,
    name: &str,
    bind: SocketAddr,
    place: &str,
) -> Vec<Finding> {
    let what = format!("{name} {bind}, on the wire");
    let place = Some(place.to_owned());
    let Some(authority) = reachable(bind) else {
        return Vec::new();
    };
    let patience = Patience::of(subjects.limit);
    let chain = match shown(&authority, patience.part(2)) {
        Ok(chain) => chain,
        Err(Silent::Nobody(why)) => {
            let next = "start it; the sections `machine` and `data planes` say more";
            return vec![Finding::warning(what, why, next).at(place)];
        }
        Err(Silent::NoTls(why)) => {
            let why = format!("no handshake: {why}");
            let next = "it has no certificate yet, or something else listens there";
            return vec![Finding::problem(what, why, next).at(place)];
        }
    };
    let (now, clock) = (times::now(), clock(subjects, patience.part(2)));
    let renews = renews(document);
    let mut found = vec![trust::life(&what, &chain, now, &clock, renews).at(place.clone())];
    let Ok(Some(member)) = member(document) else {
        return found;
    };
    if member.own.chain().first() != chain.first() {
        let why = "it shows another certificate than the one that is kept on disk";
        let next = "one that was just renewed is written a moment later: look again; else the disk is full, or another process listens";
        found.push(Finding::warning(&what, why, next).at(place.clone()));
    }
    let refusal = { member.trusted.as_ref() }.and_then(|all| trust::refused(&chain, all, now));
    if let Some((reason, why)) = refusal {
        let why = format!("whoever trusts what is kept on disk refuses it: {why}");
        found.push(Finding::problem(&what, why, trust::next_of(reason)).at(place));
    }
    found
}

/// Why no certificate was seen.
pub(super) enum Silent {
    Nobody(String),
    NoTls(String),
}

/// The chain that somebody shows.
pub(super) fn shown(
    authority: &str,
    patience: Patience,
) -> Result<Vec<CertificateDer<'static>>, Silent> {
    let addresses = wire::resolve(authority, patience).map_err(Silent::Nobody)?;
    let (socket, _) = wire::connect(&addresses, patience).map_err(Silent::Nobody)?;
    let met = Unverified::connect(socket, wire::host(authority), &PROTOCOLS);
    met.map(|met| met.chain)
        .map_err(|error| Silent::NoTls(error.to_string()))
}

/// What a data plane says of its last renewal.
fn renewal(subjects: &Subjects, plane: &Plane) -> Vec<Finding> {
    let Ok((_, status)) = data_plane::status(subjects, plane) else {
        return Vec::new();
    };
    let identity = &status["identity"];
    if !identity.is_object() {
        return Vec::new();
    }
    let what = format!("{}, its certificate", plane.target.url);
    let now = times::now();
    let mut found = Vec::new();
    if let Some(at) = identity["last_failure"]["at"].as_u64() {
        let why = format!(
            "the last renewal failed {} ago: {}",
            times::span_words(now.saturating_sub(at)),
            word(&identity["last_failure"]["why"])
        );
        let next = "it is tried again by itself; the section `control plane` says whether the authority is reached";
        found.push(Finding::warning(&what, why, next));
    }
    match identity["not_after"].as_u64() {
        None => {
            let why = "it has none: nobody of the mesh reaches it, and it reaches nobody";
            let next = "its last failure says why; a join token is good once (tollgate identity token --service NAME)";
            found.push(Finding::problem(&what, why, next));
        }
        Some(until) if until <= now => {
            let since = times::span_words(now - until);
            let why = format!("the one that it holds expired {since} ago");
            let next = "the section `control plane` says whether the authority is reached; then a new join token";
            found.push(Finding::problem(&what, why, next));
        }
        Some(until) => {
            let why = format!(
                "{}, good for another {}; renewed by {}",
                word(&identity["id"]),
                times::span_words(until - now),
                word(&identity["renewed_by"])
            );
            found.push(Finding::ok(&what, why));
        }
    }
    found
}
