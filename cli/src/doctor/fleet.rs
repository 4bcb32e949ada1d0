//! What a control plane says of those who follow it and of what registered: who is behind, who refused what, which service
//! has nobody, and whom the guard holds.

use serde_json::Value;

use super::control_plane::asked;
use super::finding::Finding;
use super::times;
use super::wire::Site;
use crate::status::{list, word};

/// Findings of a kind; the others are counted.
const MOST: usize = 20;

pub(super) fn look(site: &Site) -> Vec<Finding> {
    let url = &site.target.url;
    let mut found = asked(site, "/nodes", "who follows it", |answer| {
        nodes(url, answer)
    });
    found.extend(asked(
        site,
        "/debug/registry/health",
        "what is registered",
        |answer| services(url, answer),
    ));
    found
}

fn nodes(url: &str, answer: &Value) -> Vec<Finding> {
    let all = list(&answer["nodes"]);
    let mut found = Vec::new();
    for node in all {
        found.extend(about(url, node));
    }
    bounded(&mut found, url, "nodes");
    if found.is_empty() {
        let why = match all.len() {
            0 => "no node follows it".to_owned(),
            count => format!("{count} nodes follow it, and run what they were told"),
        };
        found.push(Finding::ok(url, why));
    }
    found
}

fn about(url: &str, node: &Value) -> Option<Finding> {
    let what = format!("{url}, node {}", word(&node["node"]));
    let refused = &node["refused"];
    if !refused.is_null() {
        let problem = &refused["problems"][0];
        let why = format!(
            "it refused revision {}: {}",
            word(&refused["revision"]),
            word(&problem["message"])
        );
        let next = "correct it and apply it again; until then it serves what it served before";
        let place = problem["place"].as_str().map(str::to_owned);
        return Some(Finding::problem(what, why, next).at(place));
    }
    let runs = node["runs"]["revision"].as_u64();
    if node["connected"] != true {
        let since = node["since"].as_u64().unwrap_or_default() / 1000;
        let away = times::span_words(times::now().saturating_sub(since));
        let why = format!("it has not listened for {away}");
        let next = "look whether it runs, and what its own `tollgate status` says; it is forgotten after `feed.forget_nodes`";
        return Some(Finding::warning(what, why, next));
    }
    let target = node["target"].as_u64()?;
    let behind = target > 0 && runs.is_none_or(|runs| runs < target);
    behind.then(|| {
        let runs = runs.map_or_else(
            || "nothing of it".to_owned(),
            |runs| format!("revision {runs}"),
        );
        let why = format!("it runs {runs}, and was told revision {target}");
        Finding::warning(
            what,
            why,
            "it may be on its way: look again; else look at its log",
        )
    })
}

fn services(url: &str, answer: &Value) -> Vec<Finding> {
    let all = list(&answer["services"]);
    let mut found = Vec::new();
    for service in all {
        let name = word(&service["name"]);
        let what = format!("{url}, service {name}");
        let count = list(&service["instances"]).len();
        let held = service["held"].as_u64().unwrap_or(0);
        if service["in_lookups"] == 0 {
            let why = format!("none of its {count} instances may be used");
            let next = format!("tollgate diagnose {name}");
            found.push(Finding::problem(what, why, next));
        } else if held > 0 {
            let why = format!(
                "{held} of its {count} instances are silent and stay in lookups, because too many fell silent at once"
            );
            let next = format!(
                "where they are really gone, say so: POST {url}/services/{name}/confirm; `registry.loss_share` decides how many may leave by themselves"
            );
            found.push(Finding::warning(what, why, next));
        }
    }
    bounded(&mut found, url, "services");
    if found.is_empty() {
        let why = match all.len() {
            0 => "no service is registered".to_owned(),
            count => {
                format!("{count} services are registered, each with instances that may be used")
            }
        };
        found.push(Finding::ok(url, why));
    }
    found
}

fn bounded(found: &mut Vec<Finding>, url: &str, what: &str) {
    // The worst first.
    found.sort_by_key(|finding| std::cmp::Reverse(finding.verdict));
    let more = found.len().saturating_sub(MOST);
    let worst = found.get(MOST).map(|finding| finding.verdict);
    found.truncate(MOST);
    if let Some(verdict) = worst {
        let rest = Finding::warning(url, format!("{more} more {what} are in trouble"), "");
        found.push(Finding { verdict, ..rest });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn who_is_behind_away_or_refuses_is_told() {
        let told = nodes(
            "u",
            &json!({ "nodes": [
                { "node": "a", "connected": true, "target": 3, "runs": { "revision": 3 } },
                { "node": "b", "connected": true, "target": 3, "runs": { "revision": 2 } },
                { "node": "c", "connected": false, "since": 0, "target": 3, "runs": { "revision": 3 } },
                { "node": "d", "connected": true, "target": 3, "runs": { "revision": 2 },
                  "refused": { "revision": 3, "problems": [{ "place": "a.toml:3:1", "message": "no" }] } },
            ] }),
        );
        assert_eq!(told.len(), 3);
        assert_eq!(told[0].verdict, Verdict::Problem);
        assert_eq!(told[0].place.as_deref(), Some("a.toml:3:1"));
        assert!(
            told[1]
                .why
                .contains("runs revision 2, and was told revision 3")
        );
        assert!(told[2].why.contains("has not listened"));
        assert!(nodes("u", &json!({}))[0].verdict == Verdict::Ok);
    }

    #[test]
    fn a_service_without_anybody_and_a_guard_that_waits_are_told() {
        let told = services(
            "u",
            &json!({ "services": [
                { "name": "a", "in_lookups": 0, "held": 0, "instances": [{}] },
                { "name": "b", "in_lookups": 2, "held": 1, "instances": [{}, {}] },
                { "name": "c", "in_lookups": 1, "held": 0, "instances": [{}] },
            ] }),
        );
        assert_eq!(told.len(), 2);
        assert_eq!(told[0].verdict, Verdict::Problem);
        assert!(
            told[1]
                .next
                .as_deref()
                .unwrap()
                .contains("/services/b/confirm")
        );
    }

    #[test]
    fn of_a_thousand_in_trouble_a_few_are_told() {
        let one = json!({ "name": "a", "in_lookups": 0, "instances": [{}] });
        let told = services("u", &json!({ "services": vec![one; 1000] }));
        assert_eq!(told.len(), MOST + 1);
        assert!(told[MOST].why.contains("980 more services"));
    }
}
