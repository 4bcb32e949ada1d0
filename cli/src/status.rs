//! `status`: what a running gateway says of itself at `GET /status`, as tables.
//!
//! Fields that an older or newer gateway does not send are left out; nothing here fails because of them.

mod standing;

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::client::Admin;
use crate::table::{row, span, table};

pub(crate) fn status(admin: &Admin, json: bool) -> Result<String, String> {
    let status = admin.ask("GET", "/status", "")?;
    if json {
        return Ok(format!("{status:#}\n"));
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    Ok(told(&status, now))
}

/// `now` is in Unix seconds.
fn told(status: &Value, now: u64) -> String {
    let mut text = String::new();
    let ready = if status["ready"].as_bool() == Some(true) {
        "ready"
    } else {
        "not ready"
    };
    let _infallible = writeln!(
        text,
        "tollgate {}, pid {}, {ready}, up {}",
        word(&status["version"]),
        word(&status["pid"]),
        span(status["uptime_seconds"].as_u64().unwrap_or(0))
    );
    let reload = &status["reload"];
    let since = status["since"].as_u64().unwrap_or(now);
    let _infallible = writeln!(
        text,
        "generation {}, served for {}; {} reloads, {} refused",
        word(&status["generation"]),
        span(now.saturating_sub(since)),
        word(&reload["reloads"]),
        word(&reload["refusals"])
    );
    let _infallible = writeln!(
        text,
        "{} routes, {} client connections",
        word(&status["routes"]),
        word(&status["connections"])
    );
    text.push_str(&standing::control_plane(&status["control_plane"], now));
    text.push_str(&standing::identity(&status["identity"], now));
    for setting in list(&reload["pending_restart"]) {
        let _infallible = writeln!(text, "waits for a restart: {}", word(setting));
    }
    let refusal = &reload["last_refusal"];
    if let Some(at) = refusal["at"].as_u64() {
        let _infallible = writeln!(
            text,
            "\nlast refused {} ago; what was served before goes on:",
            span(now.saturating_sub(at))
        );
        for problem in list(&refusal["problems"]) {
            for line in word(problem).lines() {
                let _infallible = writeln!(text, "  {line}");
            }
        }
    }
    let older: Vec<_> = list(&status["generations"])
        .iter()
        .filter(|generation| generation["generation"] != status["generation"])
        .map(|generation| {
            format!(
                "{} ({} in flight)",
                word(&generation["generation"]),
                word(&generation["in_flight"])
            )
        })
        .collect();
    if !older.is_empty() {
        let _infallible = writeln!(text, "older generations still alive: {}", older.join(", "));
    }
    let mut rows = vec![row(&["LISTENER", "BIND", "TLS", "MESH"])];
    for listener in list(&status["listeners"]) {
        let tls = if listener["tls"].as_bool() == Some(true) {
            "yes"
        } else {
            "no"
        };
        rows.push(row(&[
            &word(&listener["name"]),
            &word(&listener["bind"]),
            tls,
            &word(&listener["mesh"]),
        ]));
    }
    text.push('\n');
    text.push_str(&table("", &rows));
    let mut rows = vec![row(&[
        "UPSTREAM",
        "ENDPOINT",
        "HEALTH",
        "WEIGHT",
        "IN FLIGHT",
        "LATENCY",
        "REQUESTS",
        "FAILED",
    ])];
    for upstream in list(&status["upstreams"]) {
        let endpoints = list(&upstream["endpoints"]);
        if endpoints.is_empty() {
            rows.push(row(&[&word(&upstream["name"]), "none"]));
        }
        for endpoint in endpoints {
            rows.push(row(&[
                &word(&upstream["name"]),
                &word(&endpoint["address"]),
                &health(&endpoint["health"]),
                &word(&endpoint["weight"]),
                &word(&endpoint["in_flight"]),
                &latency(&endpoint["latency_ms"]),
                &word(&endpoint["picks"]),
                &word(&endpoint["failures"]),
            ]));
        }
    }
    text.push('\n');
    text.push_str(&table("", &rows));
    let bulkheads = bulkheads(status);
    if bulkheads.len() > 1 {
        text.push('\n');
        text.push_str(&table("", &bulkheads));
    }
    text.push_str(&standing::services(list(&status["services"]), now));
    text.push_str(&limits(list(&status["limits"])));
    text.push_str(&sharing(&status["sharing"], now));
    text.push_str(&paces(list(&status["adaptive_timeouts"])));
    text
}

/// Of the upstreams that have one.
fn bulkheads(status: &Value) -> Vec<Vec<String>> {
    let mut rows = vec![row(&[
        "UPSTREAM",
        "IN FLIGHT",
        "LIMIT",
        "WAITING",
        "EXPIRED",
        "REFUSED",
        "SHED",
    ])];
    for upstream in list(&status["upstreams"]) {
        let bulkhead = &upstream["bulkhead"];
        if bulkhead.is_null() {
            continue;
        }
        let sum = |key: &str| {
            let counts = ["critical", "default", "sheddable"];
            let counts = counts.map(|priority| bulkhead[key][priority].as_u64().unwrap_or(0));
            counts.iter().sum::<u64>().to_string()
        };
        rows.push(row(&[
            &word(&upstream["name"]),
            &word(&bulkhead["in_flight"]),
            &word(&bulkhead["limit"]),
            &sum("waiting"),
            &sum("expired"),
            &sum("refused"),
            &sum("shed"),
        ]));
    }
    rows
}

/// Of the routes whose time-out follows their answers.
fn paces(paces: &[Value]) -> String {
    if paces.is_empty() {
        return String::new();
    }
    let mut rows = vec![row(&["ROUTE", "99 OF 100 WITHIN", "TIME-OUT"])];
    for pace in paces {
        let time = |key: &str| {
            let ms = pace[key].as_f64();
            ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"))
        };
        rows.push(row(&[
            &word(&pace["route"]),
            &time("normal_ms"),
            &time("timeout_ms"),
        ]));
    }
    format!("\n{}", table("", &rows))
}

/// A row for each rate limit, and for each tier.
fn limits(limits: &[Value]) -> String {
    let mut rows = vec![row(&[
        "LIMIT",
        "TIER",
        "BY",
        "RATE",
        "BURST",
        "MONTH",
        "ADMITTED",
        "REFUSED",
        "OVER QUOTA",
        "KEYS",
    ])];
    for limit in limits {
        for tier in list(&limit["tiers"]) {
            let own = tier["name"] == limit["name"];
            rows.push(row(&[
                &word(&limit["name"]),
                &if own {
                    "-".to_owned()
                } else {
                    word(&tier["name"])
                },
                &word(&limit["by"]),
                &word(&tier["rate"]),
                &word(&tier["burst"]),
                &word(&tier["monthly_quota"]),
                &word(&tier["admitted"]),
                &word(&tier["refused"]),
                &word(&tier["over_quota"]),
                &word(&limit["keys"]),
            ]));
        }
    }
    if limits.is_empty() {
        return String::new();
    }
    format!("\n{}", table("", &rows))
}

/// How it stands with the store of shared limits.
fn sharing(sharing: &Value, now: u64) -> String {
    let store = word(&sharing["store"]);
    let for_how_long = span(now.saturating_sub(sharing["since"].as_u64().unwrap_or(now)));
    let gateways = word(&sharing["gateways"]);
    match sharing["reached"].as_bool() {
        None => String::new(),
        Some(true) => format!(
            "\nlimits are shared through {store} by {gateways} gateways; {} tokens for {} clients are here\n",
            word(&sharing["held"]),
            word(&sharing["clients"])
        ),
        Some(false) => format!(
            "\nthe store of shared limits {store} is AWAY for {for_how_long}; this gateway serves 1/{gateways} of each: {}\n",
            word(&sharing["reason"])
        ),
    }
}

/// An endpoint's health in a few words.
pub(crate) fn health(health: &Value) -> String {
    match health["state"].as_str() {
        Some("ejected") => format!(
            "ejected, back in {:.1} s",
            health["returns_in_seconds"].as_f64().unwrap_or(0.0)
        ),
        Some("failing_probes") => format!("fails its probes: {}", word(&health["reason"])),
        Some(state) => state.to_owned(),
        None => "-".to_owned(),
    }
}

pub(crate) fn latency(latency: &Value) -> String {
    latency
        .as_f64()
        .map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"))
}

/// A value as a word; what is absent is a dash.
pub(crate) fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_and_an_ejected_endpoint_are_told() {
        let text = told(
            &json!({
                "version": "0.1.0", "pid": 7, "ready": true, "uptime_seconds": 65, "generation": 2, "since": 990,
                "reload": { "reloads": 1, "refusals": 1, "last_refusal": { "at": 995, "problems": ["gateway.toml:3:1: no"] } },
                "generations": [{ "generation": 1, "in_flight": 4 }, { "generation": 2, "in_flight": 0 }],
                "connections": 3, "routes": 4,
                "listeners": [{ "name": "public", "bind": "127.0.0.1:8000", "tls": false }],
                "upstreams": [{ "name": "app", "bulkhead": { "in_flight": 7, "limit": 8, "waiting": { "critical": 1, "sheddable": 2 } }, "endpoints": [{ "address": "127.0.0.1:9000", "weight": 1, "in_flight": 2,
                    "health": { "state": "ejected", "returns_in_seconds": 9.5 }, "picks": 10, "failures": 5 }] }],
                "adaptive_timeouts": [{ "route": "orders", "normal_ms": 20.5, "timeout_ms": 100.0 }, { "route": "new", "normal_ms": null, "timeout_ms": 5000.0 }],
                "limits": [{ "name": "login", "by": "client_ip", "keys": 3, "tiers": [{ "name": "login", "rate": "5/15m", "burst": 5,
                    "admitted": 7, "refused": 2, "over_quota": 0 }] }],
                "sharing": { "store": "redis://store:6379/0", "reached": false, "since": 993, "reason": "it hangs", "gateways": 3 },
            }),
            1000,
        );
        for expected in [
            "ready, up 1 min 5 s",
            "generation 2, served for 10 s; 1 reloads, 1 refused",
            "last refused 5 s ago",
            "  gateway.toml:3:1: no",
            "older generations still alive: 1 (4 in flight)",
            "ejected, back in 9.5 s",
            "UPSTREAM  IN FLIGHT  LIMIT  WAITING",
            "app       7          8      3",
            "5/15m",
            "redis://store:6379/0 is AWAY for 7 s; this gateway serves 1/3 of each: it hangs",
            "orders  20.5 ms           100 ms",
            "new     -                 5000 ms",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }

    #[test]
    fn an_answer_without_any_known_field_is_no_failure() {
        assert!(told(&json!({}), 0).starts_with("tollgate -, pid -, not ready"));
    }
}
