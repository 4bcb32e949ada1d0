//! One line for each thing worth telling, on standard output: JSON, or text for people (OBS-201 to OBS-205).
//!
//! A line written within a request carries its ids. Nothing here masks: whoever writes passes no password, token, card
//! number or mail address.

use std::{
    fmt::Display,
    io::Write,
    sync::{
        OnceLock,
        atomic::{AtomicU8, Ordering},
    },
};

use serde_json::{Map, Value};

use super::{observe, recent, time};

static ORIGIN: OnceLock<Origin> = OnceLock::new();
static LEVEL: AtomicU8 = AtomicU8::new(1);

struct Origin {
    service: &'static str,
    environment: String,
    json: bool,
}

/// Ids that stand beside the message, not among `fields`.
const AT_THE_TOP: [&str; 12] = [
    "user_id",
    "order_id",
    "payment_id",
    "saga_id",
    "tenant_id",
    "duration_ms",
    "status",
    "method",
    "path",
    "error",
    "product_id",
    "reservation_id",
];

/// Once, at start. Lines before that, and in tests, come out as text and from warnings on.
pub fn start(
    service: &'static str,
    environment: &str,
    level: &str,
    json: bool,
) -> Result<(), String> {
    let level = match level {
        "debug" => 0,
        "info" => 1,
        "warn" => 2,
        "error" => 3,
        other => {
            return Err(format!(
                "`log_level`: `{other}` is none of debug, info, warn, error"
            ));
        }
    };
    LEVEL.store(level, Ordering::Relaxed);
    let origin = Origin {
        service,
        environment: environment.into(),
        json,
    };
    // A second start in one process, as in tests, changes only the level.
    ORIGIN.set(origin).ok();
    Ok(())
}

/// For whoever follows one request in detail.
pub fn debug(message: &str, fields: &[(&str, &dyn Display)]) {
    write(0, "debug", message, fields);
}

/// What is expected to happen.
pub fn info(message: &str, fields: &[(&str, &dyn Display)]) {
    write(1, "info", message, fields);
}

/// Works, but not as it should.
pub fn warn(message: &str, fields: &[(&str, &dyn Display)]) {
    write(2, "warn", message, fields);
}

/// Something failed.
pub fn error(message: &str, fields: &[(&str, &dyn Display)]) {
    write(3, "error", message, fields);
}

fn write(level: u8, name: &str, message: &str, fields: &[(&str, &dyn Display)]) {
    let origin = ORIGIN.get();
    if level
        < if origin.is_some() {
            LEVEL.load(Ordering::Relaxed)
        } else {
            2
        }
    {
        return;
    }
    let object = origin.map(|origin| object(origin, name, message, fields));
    let line = match (origin, &object) {
        (Some(origin), Some(object)) if origin.json => match serde_json::to_string(object) {
            Ok(line) => line,
            Err(error) => error.to_string(),
        },
        _ => {
            let fields = fields.iter().map(|(key, value)| format!(" {key}={value}"));
            format!(
                "{} {name:5} {message}{}",
                time::text(time::now()),
                fields.collect::<String>()
            )
        }
    };
    // A closed standard output is no reason to stop serving.
    writeln!(std::io::stdout().lock(), "{line}").ok();
    if let Some(object) = object {
        recent::line(object);
    }
}

/// The name of this process's service.
pub(super) fn service() -> &'static str {
    ORIGIN.get().map_or("test", |origin| origin.service)
}

fn object(
    origin: &Origin,
    level: &str,
    message: &str,
    fields: &[(&str, &dyn Display)],
) -> Map<String, Value> {
    let mut line = Map::new();
    let mut put = |key: &str, value: String| line.insert(key.into(), Value::String(value));
    put("timestamp", time::text(time::now()));
    put("level", level.into());
    put("service", origin.service.into());
    put("environment", origin.environment.clone());
    put("version", env!("CARGO_PKG_VERSION").into());
    put("message", message.into());
    if let Some(trace) = observe::current() {
        put("trace_id", trace.trace_id());
        put("span_id", trace.span_id());
        put("correlation_id", trace.correlation_id().into());
    }
    let mut others = Map::new();
    for (key, value) in fields {
        let text = value.to_string();
        let value = match (*key, text.parse::<f64>()) {
            ("duration_ms", Ok(number)) => number.into(),
            ("error", _) => serde_json::json!({ "details": text }),
            _ => Value::String(text),
        };
        let into = if AT_THE_TOP.contains(key) {
            &mut line
        } else {
            &mut others
        };
        into.insert((*key).into(), value);
    }
    if !others.is_empty() {
        line.insert("fields".into(), Value::Object(others));
    }
    line
}
