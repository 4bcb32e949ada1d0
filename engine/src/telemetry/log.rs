//! The process's own log: what happened to the gateway itself, one JSON line each on standard error (OBS-201).
//!
//! For rare events: starting, reloading, an endpoint found dead. Requests have the access log. A line is one write, so
//! lines of several threads do not mix. A warning that a request or a peer can cause goes through [`Repeated`], or a
//! peer could fill the disk. Never logged: secrets, bodies, query strings (OBS-205).

use std::fmt::Display;
use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use super::json::{Clock, string};

static OWN_NAME: OnceLock<&str> = OnceLock::new();

/// Says what the lines of this process come from; the first word stays. To be called at start by other programs than
/// the gateway.
pub fn come_from(service: &'static str) {
    OWN_NAME.get_or_init(|| service);
}

/// What the lines of this process come from.
pub fn service() -> &'static str {
    OWN_NAME.get().unwrap_or(&"gateway")
}

/// The time as log lines write it, such as `2026-11-21T04:40:51.007Z`.
pub fn timestamp(time: SystemTime) -> String {
    let mut quoted = Vec::with_capacity(26);
    Clock::default().write(&mut quoted, time);
    String::from_utf8_lossy(&quoted)
        .trim_matches('"')
        .to_owned()
}

/// Names and values of what a line tells besides its message.
pub type Fields<'a> = &'a [(&'a str, &'a dyn Display)];

/// How bad it is (OBS-206).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// A normal event of operation.
    Info,
    /// Trouble that the gateway works around.
    Warn,
    /// A failure somebody has to see to.
    Error,
}

impl Level {
    pub fn word(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }
}

pub fn info(message: &str, fields: Fields<'_>) {
    write(Level::Info, message, fields);
}

pub fn warn(message: &str, fields: Fields<'_>) {
    write(Level::Warn, message, fields);
}

pub fn error(message: &str, fields: Fields<'_>) {
    write(Level::Error, message, fields);
}

fn write(level: Level, message: &str, fields: Fields<'_>) {
    let line = line(level, message, fields, 0, SystemTime::now());
    // Nobody reads a broken standard error, so there is nobody to tell.
    let _broken = std::io::stderr().lock().write_all(&line);
}

fn line(
    level: Level,
    message: &str,
    fields: Fields<'_>,
    suppressed: u64,
    now: SystemTime,
) -> Vec<u8> {
    let mut line = Vec::with_capacity(256);
    line.extend_from_slice(b"{\"timestamp\":");
    Clock::default().write(&mut line, now);
    line.extend_from_slice(b",\"level\":\"");
    line.extend_from_slice(level.word().as_bytes());
    line.extend_from_slice(b"\",\"service\":\"");
    line.extend_from_slice(service().as_bytes());
    line.extend_from_slice(b"\",\"message\":");
    string(&mut line, message.as_bytes());
    let suppressed: Fields<'_> = if suppressed > 0 {
        &[("suppressed", &suppressed)]
    } else {
        &[]
    };
    let mut before: &[u8] = b",\"fields\":{";
    for (name, value) in fields.iter().chain(suppressed) {
        line.extend_from_slice(before);
        before = b",";
        string(&mut line, name.as_bytes());
        line.push(b':');
        string(&mut line, value.to_string().as_bytes());
    }
    line.extend_from_slice(if before == b"," { b"}}\n" } else { b"}\n" });
    line
}

/// A place that logs the same thing again and again: at most one line per ten seconds, which also tells how many
/// were left out. Meant as a `static` beside its only call.
#[derive(Debug, Default)]
pub struct Repeated {
    /// Milliseconds of [`elapsed`] from which the next line may be written.
    next: AtomicU64,
    suppressed: AtomicU64,
}

impl Repeated {
    const PAUSE: Duration = Duration::from_secs(10);

    pub const fn new() -> Self {
        Repeated {
            next: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
        }
    }

    pub fn info(&self, message: &str, fields: Fields<'_>) {
        self.write(Level::Info, message, fields);
    }

    pub fn warn(&self, message: &str, fields: Fields<'_>) {
        self.write(Level::Warn, message, fields);
    }

    pub fn error(&self, message: &str, fields: Fields<'_>) {
        self.write(Level::Error, message, fields);
    }

    fn write(&self, level: Level, message: &str, fields: Fields<'_>) {
        if let Some(suppressed) = self.admit(elapsed()) {
            let line = line(level, message, fields, suppressed, SystemTime::now());
            let _broken = std::io::stderr().lock().write_all(&line);
        }
    }

    /// Whether a line may be written now, and how many were not since the one before it.
    fn admit(&self, now: Duration) -> Option<u64> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let next = self.next.load(Relaxed);
        let free = millis(now) >= next
            && self
                .next
                .compare_exchange(next, millis(now + Self::PAUSE), Relaxed, Relaxed)
                .is_ok();
        if !free {
            self.suppressed.fetch_add(1, Relaxed);
            return None;
        }
        Some(self.suppressed.swap(0, Relaxed))
    }
}

/// Since the first call.
fn elapsed() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_line_is_one_json_object_with_the_fixed_names() {
        let port = 80;
        let fields: Fields<'_> = &[("listener", &"a\nb"), ("port", &port)];
        let line = line(Level::Warn, "cannot \"bind\"", fields, 3, UNIX_EPOCH);
        let text = String::from_utf8(line).expect("UTF-8");
        assert_eq!(text.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            value,
            serde_json::json!({
                "timestamp": "1970-01-01T00:00:00.000Z", "level": "warn", "service": "gateway",
                "message": "cannot \"bind\"", "fields": {"listener": "a\nb", "port": "80", "suppressed": "3"},
            })
        );
    }

    #[test]
    fn a_line_without_fields_has_no_empty_object() {
        let line = line(Level::Info, "ready", &[], 0, UNIX_EPOCH);
        assert!(line.ends_with(b"\"message\":\"ready\"}\n"));
    }

    #[test]
    fn a_repeated_warning_is_written_once_in_ten_seconds_with_the_count_of_the_others() {
        let repeated = Repeated::new();
        let at = Duration::from_secs;
        assert_eq!(repeated.admit(at(0)), Some(0));
        assert_eq!(repeated.admit(at(1)), None);
        assert_eq!(repeated.admit(at(9)), None);
        assert_eq!(repeated.admit(at(10)), Some(2));
        assert_eq!(repeated.admit(at(11)), None);
        assert_eq!(repeated.admit(at(100)), Some(1));
    }
}
