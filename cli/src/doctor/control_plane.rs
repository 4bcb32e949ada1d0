//! Each control plane that is named, by itself: the way there step by step, whether it is ready, and whether what it holds is
//! sound. What it says of the fleet, `fleet` reads.

use std::sync::Arc;

use serde_json::Value;

use super::finding::Finding;
use super::subjects::Subjects;
use super::wire::{Page, Patience, Site, Target};
use super::{Check, What, fleet};
use crate::status::word;

pub(super) fn checks(subjects: &Arc<Subjects>) -> Vec<Check> {
    let numbers = 0..subjects.controls.len();
    let checks = numbers.filter_map(|number| {
        let all = subjects.clone();
        let subject = all.controls.get(number)?.url.clone();
        Some(Check::new(What::ControlPlane, subject, move || {
            let target = all.controls.get(number);
            target.map(|one| look(&all, one)).unwrap_or_default()
        }))
    });
    checks.collect()
}

fn look(subjects: &Subjects, target: &Target) -> Vec<Finding> {
    let patience = Patience::of(subjects.limit);
    let (site, mut found) = target.reach(subjects.token.as_ref(), patience);
    let Some(site) = site else {
        // Nobody said that there is one.
        return if target.is_guess { Vec::new() } else { found };
    };
    match health(&site) {
        Ok(mut more) => found.append(&mut more),
        Err(_) if target.is_guess => return Vec::new(),
        Err(why) => {
            let next = "it speaks, and is no control plane: look whether the URL is right";
            found.push(Finding::problem(&target.url, why, next).at(target.place.clone()));
            return found;
        }
    }
    if site.keeps_token() {
        let why = format!(
            "the token was not shown, since nobody knows who would read it ({})",
            site.way()
        );
        let next = "ask over https and name the authority with --ca";
        found.push(Finding::unknown(&target.url, why, next));
    }
    found.extend(documents(&site));
    found.extend(cluster(&site));
    found.extend(audit(&site));
    found.extend(fleet::look(&site));
    found
}

/// `/health/ready`, which is for everybody.
fn health(site: &Site) -> Result<Vec<Finding>, String> {
    let url = &site.target.url;
    let answer = site.get("/health/ready")?;
    let health: Value = serde_json::from_slice(&answer.body)
        .map_err(|_| format!("/health/ready was answered {} and no JSON", answer.status))?;
    if health["service"] != "control-plane" {
        return Err("/health/ready was not answered as a control plane does".to_owned());
    }
    let (address, way) = (site.address, site.way());
    let version = word(&health["version"]);
    let mut found = vec![if answer.status == 200 {
        let why = format!("reached at {address} in {way}, version {version}, ready");
        Finding::ok(url, why)
    } else {
        let why = format!(
            "reached at {address} in {way}, version {version}, and not ready: it is stopping"
        );
        Finding::warning(url, why, "ask another one, or wait for its successor")
    }];
    if version != env!("CARGO_PKG_VERSION") {
        let why = format!(
            "its version is {version}, and this program's is {}",
            env!("CARGO_PKG_VERSION")
        );
        let next = "where both should be the same, bring the older one up to date";
        found.push(Finding::warning(url, why, next));
    }
    let ill = |part: &str| health["checks"][part]["status"] == "unhealthy";
    if ill("store") {
        let why = "its store does not take writes: nothing can register, and no change be made";
        let next = "look at its disk or its etcd, and at its log";
        found.push(Finding::problem(url, why, next));
    }
    if ill("catalog") {
        let why = "it does not serve the newest revision of the store, which this version refuses";
        let next = "`tollgate revisions` says why; bring it up to date";
        found.push(Finding::problem(url, why, next));
    }
    Ok(found)
}

/// A page that may be for others.
pub(super) fn asked(
    site: &Site,
    path: &str,
    what: &str,
    then: impl FnOnce(&Value) -> Vec<Finding>,
) -> Vec<Finding> {
    match site.page(path) {
        Page::Good(value) => then(&value),
        Page::Denied(why) => {
            let why = format!("{what} could not be looked at: {why}");
            let next = "show a token of the role `read`: --token-file or TOLLGATE_TOKEN_FILE";
            vec![Finding::unknown(&site.target.url, why, next)]
        }
        Page::Bad(why) => {
            let why = format!("{what} could not be looked at: {why}");
            let next = "look at its log; it may be older or newer than this program";
            vec![Finding::unknown(&site.target.url, why, next)]
        }
    }
}

fn documents(site: &Site) -> Vec<Finding> {
    asked(site, "/revisions", "its documents", |answer| {
        let url = &site.target.url;
        let (revision, epoch) = (word(&answer["revision"]), word(&answer["epoch"]));
        let mut found = vec![Finding::ok(
            url,
            format!("documents at revision {revision}, epoch {epoch}"),
        )];
        for (key, what, next) in [
            (
                "folder_refused",
                "its folder's documents are refused, and what was served stays",
                "correct what is wrong; it is read again by itself",
            ),
            (
                "store_refused",
                "the store's newest revision is refused",
                "bring this control plane up to date",
            ),
        ] {
            let refused = &answer[key];
            if refused.is_null() {
                continue;
            }
            let problem = &refused["problems"][0];
            let why = format!("{what}: {}", word(&problem["message"]));
            let place = problem["place"].as_str().map(str::to_owned);
            found.push(Finding::problem(url, why, next).at(place));
        }
        found
    })
}

fn cluster(site: &Site) -> Vec<Finding> {
    asked(site, "/cluster", "its store", |answer| {
        let url = &site.target.url;
        if answer["store"] == "embedded" {
            return vec![Finding::ok(url, "its store is a file of its own")];
        }
        let members = answer["members"].as_array().map_or(0, Vec::len);
        let node = word(&answer["node"]);
        let mut found = Vec::new();
        match answer["leader"].as_str() {
            Some(leader) => {
                let why = format!("it is {node} of {members} that share etcd; {leader} leads");
                found.push(Finding::ok(url, why));
            }
            None => {
                let why = format!("it is {node} of {members} that share etcd, and nobody leads");
                let next = "within a few seconds one should: look whether etcd has a majority (etcdctl endpoint status)";
                found.push(Finding::problem(url, why, next));
            }
        }
        if answer["store_answers"] == false {
            let why = "etcd does not answer it: what is known is shown, and nothing can be changed";
            let next = "look at etcd (etcdctl endpoint health) and at the way there";
            found.push(Finding::problem(url, why, next));
        }
        found
    })
}

/// Lines that are in no file are counted.
fn audit(site: &Site) -> Vec<Finding> {
    let Ok(answer) = site.get("/metrics") else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&answer.body);
    let lost = text.lines().find_map(|line| {
        line.strip_prefix("audit_lines_total{result=\"lost\"} ")?
            .parse::<u64>()
            .ok()
    });
    let url = &site.target.url;
    match lost.filter(|_| answer.status == 200) {
        None => Vec::new(),
        Some(0) => vec![Finding::ok(url, "every line of its audit log is written")],
        Some(lost) => {
            let why = format!("{lost} lines of its audit log are in no file");
            let next = "look at the disk of its `server.state_dir`, and at its log";
            vec![Finding::warning(url, why, next)]
        }
    }
}
