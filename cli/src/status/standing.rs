//! How a data plane stands to others, in lines of `status`: whom it follows, who it is in the mesh, which services it has learned.

use std::fmt::Write as _;

use serde_json::Value;

use super::word;
use crate::table::{row, span, table};

/// Where the documents are from, and who is followed; nothing without a control plane.
pub(super) fn control_plane(feed: &Value, now: u64) -> String {
    let mut text = String::new();
    if !feed.is_object() {
        return text;
    }
    let revision = match feed["revision"].as_u64() {
        Some(revision) => format!(", revision {revision}"),
        None => String::new(),
    };
    let _infallible = write!(
        text,
        "node {}, documents from: {}{revision}; ",
        word(&feed["node"]),
        word(&feed["source"])
    );
    let since = span(now.saturating_sub(feed["since"].as_u64().unwrap_or(now)));
    let _infallible = match (feed["connected"].as_bool(), feed["why_not"].as_str()) {
        (Some(true), _) => writeln!(text, "follows {} for {since}", word(&feed["url"])),
        (_, Some(why)) => writeln!(text, "follows no control plane for {since}: {why}"),
        _ => writeln!(text, "follows no control plane yet"),
    };
    if let Some(at) = feed["last_refusal"]["at"].as_u64() {
        let _infallible = writeln!(
            text,
            "refused revision {} of the control plane {} ago",
            word(&feed["last_refusal"]["revision"]),
            span(now.saturating_sub(at))
        );
    }
    text
}

/// Who this is in the mesh, and how long its word is good; nothing outside of one.
pub(super) fn identity(identity: &Value, now: u64) -> String {
    if !identity.is_object() {
        return String::new();
    }
    let mut text = match identity["not_after"].as_u64() {
        None => "no certificate of the mesh yet".to_owned(),
        Some(until) if until <= now => {
            let since = span(now - until);
            format!("{}, EXPIRED for {since}", word(&identity["id"]))
        }
        Some(until) => format!(
            "{}, good for another {} ({} % of its life), renewed by {}",
            word(&identity["id"]),
            span(until - now),
            word(&identity["percent_left"]),
            word(&identity["renewed_by"])
        ),
    };
    text.push('\n');
    let failure = &identity["last_failure"];
    if let Some(at) = failure["at"].as_u64() {
        let ago = span(now.saturating_sub(at));
        let _infallible = writeln!(
            text,
            "its last renewal failed {ago} ago: {}",
            word(&failure["why"])
        );
    }
    text
}

/// Services that requests asked for.
pub(super) fn services(services: &[Value], now: u64) -> String {
    if services.is_empty() {
        return String::new();
    }
    let mut rows = vec![row(&["SERVICE", "TOLD BY", "KNOWN FOR", "LAST USED"])];
    for service in services {
        let ago = |key: &str| {
            let at = service[key].as_u64();
            at.map_or_else(|| "-".to_owned(), |at| span(now.saturating_sub(at)))
        };
        rows.push(row(&[
            &word(&service["service"]),
            &word(&service["source"]),
            &ago("since"),
            &ago("used"),
        ]));
    }
    format!("\n{}", table("", &rows))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_control_plane_is_told_with_its_age_and_why_it_is_not_followed() {
        let mut feed = json!({ "node": "edge-1", "source": "last good", "revision": 41, "connected": false, "since": 940,
            "why_not": "http://cp:8080: no answer within 5s", "last_refusal": { "at": 995, "revision": 42 } });
        let text = control_plane(&feed, 1000);
        assert!(text.contains("node edge-1, documents from: last good, revision 41; follows no control plane for 1 min"), "{text}");
        assert!(
            text.contains("http://cp:8080: no answer within 5s"),
            "{text}"
        );
        assert!(
            text.contains("refused revision 42 of the control plane 5 s ago"),
            "{text}"
        );
        feed["connected"] = true.into();
        feed["url"] = "http://cp:8080".into();
        assert!(control_plane(&feed, 1000).contains("follows http://cp:8080 for 1 min"));
        assert_eq!(control_plane(&json!(null), 0), "");
    }

    #[test]
    fn a_certificate_is_told_with_its_life_and_what_became_of_its_renewal() {
        let mut own = json!({ "id": "spiffe://a/ns/b/svc/c", "not_after": 1060, "percent_left": 4, "renewed_by": "files",
            "last_failure": { "at": 990, "why": "nobody answers" } });
        let text = identity(&own, 1000);
        assert!(text.starts_with("spiffe://a/ns/b/svc/c, good for another 1 min 0 s (4 % of its life), renewed by files\n"), "{text}");
        assert!(
            text.contains("its last renewal failed 10 s ago: nobody answers"),
            "{text}"
        );
        own["not_after"] = 940.into();
        assert!(identity(&own, 1000).contains("EXPIRED for 1 min 0 s"));
        assert!(identity(&json!({}), 0).contains("no certificate"));
        assert_eq!(identity(&json!(null), 0), "");
        let learned = services(
            &[json!({ "service": "orders", "source": "disk", "since": 940, "used": 999 })],
            1000,
        );
        assert!(
            learned.contains("orders   disk     1 min 0 s  1 s"),
            "{learned}"
        );
        assert_eq!(services(&[], 0), "");
    }
}
