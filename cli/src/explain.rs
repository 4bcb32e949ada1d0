//! `explain --live`: asks the running gateway which route a request would take, and tells it as the gateway's own
//! `explain` does for a document. Nothing is sent to any upstream.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::client::Admin;
use crate::status::{health, latency, list, word};
use crate::table::{row, table};

/// How to ask, besides method and URL.
pub(crate) struct Question {
    pub(crate) headers: Vec<String>,
    pub(crate) listener: Option<String>,
    pub(crate) caller: Option<String>,
    pub(crate) json: bool,
}

pub(crate) fn live(
    admin: &Admin,
    method: &str,
    url: &str,
    question: &Question,
) -> Result<String, String> {
    let mut headers = serde_json::Map::new();
    for header in &question.headers {
        let (name, value) = header
            .split_once(':')
            .ok_or_else(|| format!("-H {header}: write it as 'name: value'"))?;
        headers.insert(name.trim().to_owned(), value.trim().into());
    }
    let asked = json!({
        "method": method,
        "url": url,
        "headers": headers,
        "listener": question.listener,
        "caller": question.caller,
    });
    let answer = admin.ask("POST", "/explain", &asked.to_string())?;
    Ok(if question.json {
        format!("{answer:#}\n")
    } else {
        told(&answer)
    })
}

fn told(answer: &Value) -> String {
    let mut text = format!(
        "{} {}{} on listener {}, generation {}\n",
        word(&answer["method"]),
        answer["host"].as_str().unwrap_or_default(),
        word(&answer["path"]),
        word(&answer["listener"]),
        word(&answer["generation"])
    );
    let mut rows = Vec::new();
    match (answer["route"].as_str(), answer["status"].as_u64()) {
        (Some(route), _) => rows.push(row(&["route", route, &at(&answer["at"])])),
        (None, Some(405)) => rows.push(row(&[
            "no route",
            "the path is known, but not with this method",
            "405 method_not_allowed",
        ])),
        (None, _) => rows.push(row(&[
            "no route",
            "none matches this request",
            "404 no_route",
        ])),
    }
    if let Some(action) = answer["action"].as_str() {
        rows.push(row(&["action", action]));
    }
    let upstreams = list(&answer["upstreams"]);
    if let Some(path) = answer["sent_path"]
        .as_str()
        .filter(|_| !upstreams.is_empty())
    {
        rows.push(row(&["path sent", path]));
    }
    for filter in list(&answer["filters"]) {
        rows.push(row(&["filter", &word(filter)]));
    }
    for rule in list(&answer["access"]) {
        rows.push(row(&[
            "access",
            &format!(
                "{}: {}: {}",
                word(&rule["rule"]),
                word(&rule["says"]),
                standing(rule)
            ),
            &at(&rule["at"]),
        ]));
    }
    for upstream in upstreams {
        let share = upstream["share"].as_f64().unwrap_or(1.0) * 100.0;
        rows.push(row(&[
            "upstream",
            &format!("{} {share:.0} %", word(&upstream["name"])),
            &at(&upstream["at"]),
        ]));
        for endpoint in list(&upstream["state"]["endpoints"]) {
            rows.push(row(&[
                "endpoint",
                &format!(
                    "{}, {}, in flight {}, latency {}",
                    word(&endpoint["address"]),
                    health(&endpoint["health"]),
                    word(&endpoint["in_flight"]),
                    latency(&endpoint["latency_ms"])
                ),
            ]));
        }
    }
    for timer in list(&answer["timers"]) {
        rows.push(row(&[
            "timer",
            &format!("{} = {}", word(&timer["setting"]), word(&timer["value"])),
            &at(&timer["at"]),
        ]));
    }
    text.push_str(&table("  ", &rows));
    let candidates = &answer["candidates"];
    let rows: Vec<_> = list(&candidates["candidates"])
        .iter()
        .map(|candidate| {
            row(&[
                &word(&candidate["host"]),
                &word(&candidate["path"]),
                &word(&candidate["specificity"]),
                &verdict(candidate),
            ])
        })
        .collect();
    if !rows.is_empty() {
        text.push_str("  candidates, most specific first:\n");
        text.push_str(&table("    ", &rows));
    }
    let _infallible = writeln!(
        text,
        "  {} other routes do not fit its listener, host or path",
        list(&candidates["others"]).len()
    );
    text
}

/// A place in a document; a default has none.
fn at(place: &Value) -> String {
    match place.as_str() {
        Some("default") | None => "default".to_owned(),
        Some(place) => place.to_owned(),
    }
}

fn standing(rule: &Value) -> String {
    match rule["standing"].as_str() {
        Some("other_caller") => "is for other callers".to_owned(),
        Some("other_method") => "is for other methods".to_owned(),
        Some("other_path") => "is for other paths".to_owned(),
        Some("other_person") => "needs a token that says more of the person".to_owned(),
        Some(other) => other.replace('_', " "),
        None => "-".to_owned(),
    }
}

fn verdict(candidate: &Value) -> String {
    let name = word(&candidate["name"]);
    match candidate["verdict"].as_str() {
        Some("wins") => "matches, and is the most specific that does".to_owned(),
        Some("less_specific") => "matches, but is less specific".to_owned(),
        Some("other_listener") => "is for another listener".to_owned(),
        Some("other_method") => "does not take this method".to_owned(),
        Some("header") => format!("header {name} does not fit"),
        Some("query") => format!("query {name} does not fit"),
        Some(other) => other.replace('_', " "),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn route_timers_and_candidates_are_told_with_their_lines() {
        let text = told(&json!({
            "generation": 1, "listener": "public", "method": "GET", "host": "a.example", "path": "/orders/1",
            "status": 200, "route": "orders", "at": "gateway.toml:12", "action": "upstream orders",
            "sent_path": "/orders/1", "filters": [],
            "upstreams": [{ "name": "orders", "share": 1.0, "at": "gateway.toml:30", "state": { "endpoints": [
                { "address": "127.0.0.1:9000", "health": { "state": "healthy" }, "in_flight": 0 }] } }],
            "timers": [{ "setting": "route.timeout", "value": "5s", "at": "default" }],
            "candidates": { "candidates": [{ "route": 0, "host": "any host", "path": "/orders/*", "specificity": "prefix",
                "verdict": "header", "name": "x-beta" }], "others": [{}, {}] },
        }));
        for expected in [
            "GET a.example/orders/1 on listener public",
            "gateway.toml:12",
            "route.timeout = 5s",
            "orders 100 %",
            "header x-beta does not fit",
            "2 other routes",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }

    #[test]
    fn a_path_that_is_known_with_another_method_is_told_apart_from_none() {
        assert!(told(&json!({ "status": 405 })).contains("405 method_not_allowed"));
        assert!(told(&json!({ "status": 404 })).contains("404 no_route"));
    }
}
