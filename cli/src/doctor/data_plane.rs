//! What gateways and sidecars say of themselves on their admin addresses: ready or what they wait for, whether the document
//! that is on disk is the one that serves, whom they follow, and what of their upstreams is out.

use std::sync::Arc;

use serde_json::Value;

use super::finding::Finding;
use super::subjects::{Paper, Plane, Subjects};
use super::times;
use super::wire::{Page, Patience, Site};
use super::{Check, What};
use crate::status::{health, list, word};

/// Endpoints and breakers that are told; the others are counted.
const MOST: usize = 20;

pub(super) fn checks(subjects: &Arc<Subjects>) -> Vec<Check> {
    let numbers = 0..subjects.planes.len();
    let checks = numbers.filter_map(|number| {
        let all = subjects.clone();
        let subject = all.planes.get(number)?.target.url.clone();
        Some(Check::new(What::DataPlanes, subject, move || {
            let plane = all.planes.get(number);
            plane.map(|one| look(&all, one)).unwrap_or_default()
        }))
    });
    checks.collect()
}

/// What a data plane answers to `GET /status`, and the way there.
pub(super) fn status(subjects: &Subjects, plane: &Plane) -> Result<(Site, Value), Finding> {
    let patience = Patience::of(subjects.limit);
    let (site, found) = plane.target.reach(None, patience);
    let Some(site) = site else {
        let url = &plane.target.url;
        let told = found.into_iter().next();
        return Err(told.unwrap_or_else(|| Finding::unknown(url, "it was not reached", "")));
    };
    match site.page("/status") {
        Page::Good(status) if status["generation"].is_u64() => Ok((site, status)),
        other => {
            let why = match other {
                Page::Bad(why) => why,
                _ => "/status was not answered as a data plane does".to_owned(),
            };
            let next =
                "look whether this is the admin address (`server.admin`), and who else has it";
            let found = Finding::problem(&plane.target.url, why, next);
            Err(found.at(plane.target.place.clone()))
        }
    }
}

fn look(subjects: &Subjects, plane: &Plane) -> Vec<Finding> {
    let (site, status) = match status(subjects, plane) {
        Ok(reached) => reached,
        Err(_) if plane.target.is_guess => return Vec::new(),
        Err(found) => return vec![found],
    };
    let url = &plane.target.url;
    let now = times::now();
    let mut found = vec![ready(&site, &status)];
    let paper = plane.paper.and_then(|number| subjects.papers.get(number));
    found.extend(document(url, &status, paper, now));
    found.extend(following(url, &status["control_plane"], now));
    found.extend(upstreams(url, &status));
    found.extend(sharing(url, &status["sharing"], now));
    found
}

fn ready(site: &Site, status: &Value) -> Finding {
    let url = &site.target.url;
    let uptime = times::span_words(status["uptime_seconds"].as_u64().unwrap_or(0));
    let version = word(&status["version"]);
    let listeners = list(&status["listeners"]).iter();
    let doors: Vec<String> = listeners
        .map(|one| format!("{} {}", word(&one["name"]), word(&one["address"])))
        .collect();
    let pid = word(&status["pid"]);
    if status["ready"] == true {
        let why = format!(
            "ready, version {version}, pid {pid}, up {uptime}; listens: {}",
            doors.join(", ")
        );
        return Finding::ok(url, why);
    }
    let waits = site.get("/health/ready").ok();
    let waits: Option<Value> = waits.and_then(|answer| serde_json::from_slice(&answer.body).ok());
    let checks = waits.map(|mut health| health["checks"].take());
    let mut what = Vec::new();
    for part in ["configuration", "identity"] {
        let waits_for = checks.as_ref().map(|checks| &checks[part]["waits_for"]);
        what.extend(waits_for.filter(|one| !one.is_null()).map(Value::to_string));
    }
    let why = match what.is_empty() {
        true => format!("not ready, pid {pid}, up {uptime}: it is stopping, or was told to drain"),
        false => format!(
            "not ready, pid {pid}, up {uptime}: it waits for {}",
            what.join(" and ")
        ),
    };
    Finding::problem(
        url,
        why,
        "the sections `control plane` and `identity` say why that does not come",
    )
}

fn document(url: &str, status: &Value, paper: Option<&Paper>, now: u64) -> Vec<Finding> {
    let mut found = Vec::new();
    let reload = &status["reload"];
    let at = reload["last_refusal"]["at"].as_u64();
    // A later reload that went well is newer than a refusal.
    let since = reload["since"].as_u64().unwrap_or(0);
    if let Some(at) = at.filter(|at| *at >= since) {
        let problems = list(&reload["last_refusal"]["problems"]).iter().map(word);
        let why = format!(
            "the document on disk was refused {} ago, and the former one serves:\n{}",
            times::span_words(now.saturating_sub(at)),
            problems.collect::<Vec<_>>().join("\n")
        );
        found.push(Finding::problem(
            url,
            why,
            "correct what is wrong; it is read again by itself",
        ));
    }
    let waits: Vec<String> = list(&reload["pending_restart"]).iter().map(word).collect();
    if !waits.is_empty() {
        let why = format!("settings wait for a restart: {}", waits.join(", "));
        found.push(Finding::warning(
            url,
            why,
            "tollgate-gateway upgrade FILE, or a restart",
        ));
    }
    // What a control plane tells is part of what serves; only a document that is all can be compared.
    let alone = paper.and_then(Paper::plane);
    let alone = alone.filter(|document| document.control_plane.is_none());
    if let Some(document) = alone
        && found.is_empty()
    {
        let name = paper.map(Paper::name).unwrap_or_default();
        match status["hash"].as_str() == Some(&document.hash) {
            true => found.push(Finding::ok(url, format!("{name} is what serves"))),
            false => {
                let why = format!("{name} is not what serves");
                let next = "a change is noticed within five seconds: look again; else look whether the process was started with this file";
                found.push(Finding::warning(url, why, next));
            }
        }
    }
    found
}

fn following(url: &str, feed: &Value, now: u64) -> Vec<Finding> {
    if !feed.is_object() {
        return Vec::new();
    }
    let mut found = Vec::new();
    let revision = word(&feed["revision"]);
    if feed["connected"] == true {
        let why = format!(
            "it follows {}, and serves revision {revision}",
            word(&feed["url"])
        );
        found.push(Finding::ok(url, why));
    } else {
        let since = now.saturating_sub(feed["since"].as_u64().unwrap_or(now));
        let why = format!(
            "it follows no control plane for {}, and serves {} ({}): {}",
            times::span_words(since),
            match feed["revision"].as_u64() {
                Some(revision) => format!("revision {revision}"),
                None => "its own file".to_owned(),
            },
            word(&feed["source"]),
            word(&feed["why_not"])
        );
        let next = "the section `control plane` says which step of the way fails; what serves goes on meanwhile";
        found.push(Finding::problem(url, why, next));
    }
    let refused = &feed["last_refusal"];
    if refused["revision"].as_u64() > feed["revision"].as_u64() {
        let problems = list(&refused["problems"]).iter().map(word);
        let why = format!(
            "it refused revision {}:\n{}",
            word(&refused["revision"]),
            problems.collect::<Vec<_>>().join("\n")
        );
        found.push(Finding::problem(url, why, "correct it and apply it again"));
    }
    if let Some(why) = feed["registration"]["why_not"].as_str() {
        let why = format!("its service is not announced: {why}");
        let next = "look whether the application answers its probe, and whether the control plane takes the registration";
        found.push(Finding::problem(url, why, next));
    }
    if let Some(why) = feed["last_good"]["error"].as_str() {
        let why = format!("what serves cannot be kept for the next start: {why}");
        let next = "make room in `server.state_dir`, or let this user write there";
        found.push(Finding::warning(url, why, next));
    }
    found
}

fn upstreams(url: &str, status: &Value) -> Vec<Finding> {
    let mut found = Vec::new();
    for upstream in list(&status["upstreams"]) {
        found.extend(about(url, upstream));
    }
    let more = found.len().saturating_sub(MOST);
    found.truncate(MOST);
    if more > 0 {
        let next = "tollgate status shows all";
        found.push(Finding::warning(
            url,
            format!("{more} more upstreams have endpoints that are out"),
            next,
        ));
    }
    if found.is_empty() {
        let count = list(&status["upstreams"]).len();
        found.push(Finding::ok(
            url,
            format!("{count} upstreams, and no endpoint or breaker that is out"),
        ));
    }
    found
}

/// What is wrong with one upstream.
pub(super) fn about(url: &str, upstream: &Value) -> Vec<Finding> {
    let what = format!("{url}, upstream {}", word(&upstream["name"]));
    let mut found = Vec::new();
    let endpoints = list(&upstream["endpoints"]);
    let out: Vec<String> = { endpoints.iter() }
        .filter(|one| one["health"]["state"] != "healthy")
        .map(|one| format!("{} ({})", word(&one["address"]), health(&one["health"])))
        .collect();
    let makes_others = upstream["template"] == true;
    if endpoints.is_empty() && !makes_others {
        let why = "it has no endpoint: every request to it fails";
        let next =
            "look whether its service is registered (tollgate services), or its name resolves";
        found.push(Finding::warning(&what, why, next));
    } else if !out.is_empty() {
        let why = format!(
            "{} of {} endpoints are out: {}",
            out.len(),
            endpoints.len(),
            out.join(", ")
        );
        let next = "look at them; they come back by themselves";
        found.push(match out.len() == endpoints.len() {
            true => Finding::problem(&what, why, next),
            false => Finding::warning(&what, why, next),
        });
    }
    for breaker in list(&upstream["breakers"]) {
        let state = breaker["state"].as_str().unwrap_or("closed");
        if matches!(state, "open" | "half_open") {
            let why = format!("its breaker ({}) is {state}", word(&breaker["part"]));
            let next = "`tollgate breakers` says why and until when, and closes it by hand";
            found.push(Finding::warning(&what, why, next));
        }
    }
    found
}

fn sharing(url: &str, sharing: &Value, now: u64) -> Option<Finding> {
    if sharing["reached"] != false {
        return None;
    }
    let since = now.saturating_sub(sharing["since"].as_u64().unwrap_or(now));
    let why = format!(
        "the store of shared limits {} is away for {}: {}",
        word(&sharing["store"]),
        times::span_words(since),
        word(&sharing["reason"])
    );
    let next = "until it is back, this one serves its own share of each limit";
    Some(Finding::warning(url, why, next))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn what_is_out_of_an_upstream_is_told() {
        let told = about(
            "u",
            &json!({ "name": "a", "endpoints": [
                { "address": "1", "health": { "state": "healthy" } },
                { "address": "2", "health": { "state": "failing_probes", "reason": "503" } },
            ], "breakers": [{ "part": "all", "state": "open" }, { "part": "reads", "state": "closed" }] }),
        );
        assert_eq!(told.len(), 2);
        assert_eq!(told[0].verdict, Verdict::Warning);
        assert!(told[0].why.contains("1 of 2") && told[0].why.contains("503"));
        assert!(told[1].why.contains("breaker (all) is open"));
        assert!(about("u", &json!({ "name": "mesh", "template": true })).is_empty());
        let none = about("u", &json!({ "name": "a" }));
        assert!(none[0].why.contains("no endpoint"));
    }

    #[test]
    fn a_link_that_is_down_a_refusal_and_an_unannounced_service_are_told() {
        let feed = json!({ "connected": false, "since": 40, "why_not": "u: no", "source": "last good", "revision": 3,
            "last_refusal": { "revision": 4, "problems": ["a.toml:1:1: no"] },
            "registration": { "why_not": "503" }, "last_good": { "error": "full" } });
        let told = following("u", &feed, 100);
        let words: Vec<&str> = told.iter().map(|one| one.why.as_str()).collect();
        assert!(
            words[0].contains("for 1 min 0 s, and serves revision 3 (last good): u: no"),
            "{words:?}"
        );
        assert!(words[1].contains("refused revision 4"));
        assert!(words[2].contains("not announced") && words[3].contains("full"));
        let well = json!({ "connected": true, "url": "u", "revision": 4, "last_refusal": { "revision": 4 } });
        assert_eq!(following("u", &well, 100).len(), 1);
    }

    #[test]
    fn a_refusal_that_a_later_reload_healed_is_none() {
        let status = |since: u64| json!({ "reload": { "since": since, "last_refusal": { "at": 50, "problems": ["no"] } } });
        assert_eq!(
            document("u", &status(40), None, 60)[0].verdict,
            Verdict::Problem
        );
        assert!(document("u", &status(51), None, 60).is_empty());
    }
}
