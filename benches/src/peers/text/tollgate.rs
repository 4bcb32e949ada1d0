//! Ours. What `protected` asks for beside the limit is on by default: request id, outlier detection, breaker, retries
//! and their budget, metrics.

use std::path::Path;

use serde_json::{Value, json};

use super::{Front, KEY};

pub(in crate::peers) fn tollgate(front: &Front) -> String {
    let Front {
        listen,
        upstream,
        admin,
        directory,
        ..
    } = front;
    let tls = match &front.certificate {
        None => String::new(),
        Some(files) => {
            format!(
                "tls = {{ cert = {}, key = {} }}\n",
                quoted(&files.chain),
                quoted(&files.key)
            )
        }
    };
    let (log, limits, filters) = if front.protected {
        (
            json!({ "to": directory.join("access.log") }),
            format!(
                "\n[tiers.bench]\nrate = \"1000000/s\"\nburst = 1000000\n\n[[api_key]]\nkey = \"{KEY}\"\nclient = \"bench\"\ntier = \"bench\"\n"
            ),
            "{ rate_limit = \"tiers\" }",
        )
    } else {
        (json!("off"), String::new(), "")
    };
    let transcode = front.descriptors.as_ref().map(|file| {
        format!(
            "{{ transcode = {{ descriptors = {}, services = [\"shop.v1.Orders\"] }} }}",
            quoted(file)
        )
    });
    let filters = transcode.as_deref().unwrap_or(filters);
    let log = match log.get("to") {
        Some(file) => format!("{{ to = {file} }}"),
        None => log.to_string(),
    };
    let chaos = front.chaos.map_or_else(String::new, |address| {
        format!(
            "\n[[route]]\nname = \"chaos\"\nmatch = {{ path = \"/chaos/*\" }}\nupstream = \"chaos\"\n\n[[upstream]]\nname = \"chaos\"\nendpoints = [\"{address}\"]\n"
        )
    });
    let protocol = if front.http2 || front.descriptors.is_some() {
        "http2"
    } else {
        "http1"
    };
    format!(
        r#"[server]
workers = 1
admin = "{admin}"

[[listener]]
name = "front"
bind = "{listen}"
{tls}
[[upstream]]
name = "back"
endpoints = ["{upstream}"]
protocol = "{protocol}"

[telemetry]
access_log = {log}
{limits}{chaos}{}"#,
        front.routes.text(filters)
    )
}

/// A TOML string; a JSON string is one.
fn quoted(path: &Path) -> Value {
    json!(path)
}
