//! The access log from a worker's write to what a reader finds.

use std::io::Write;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::channel;
use std::time::UNIX_EPOCH;

use super::*;
use crate::exchange::request_id::RequestId;

const LONG: Duration = crate::testing::PATIENCE;

fn telemetry(access_log: Target, access_log_sample: f64) -> Telemetry {
    Telemetry {
        access_log,
        access_log_sample,
        labels: Vec::new(),
        traces: None,
    }
}

fn line(path: &str, status: u16) -> Line<'_> {
    Line {
        now: UNIX_EPOCH + Duration::from_millis(1_500),
        method: "GET",
        path,
        status,
        duration: Duration::from_micros(12_345),
        bytes_in: 1,
        bytes_out: 2,
        client: Some([10, 0, 0, 1].into()),
        user_agent: Some(b"curl/8\n\xff"),
        host: "example.org",
        protocol: "HTTP/1.1",
        route: "users",
        upstream: Some("users"),
        endpoint: Some(([10, 0, 0, 2], 80).into()),
        attempts: 1,
        not_retried: None,
        hedge: None,
        request_id: "r1",
        trace_id: [0xab; 16],
        span_id: [0xcd; 8],
        fallback: None,
        error: None,
        fault: None,
        services: Services::default(),
        listener: "public",
        generation: 3,
    }
}

fn values(text: &str) -> Vec<serde_json::Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect()
}

/// OBS-202, OBS-204, HI-8.
#[test]
fn a_line_has_the_fixed_names_and_stays_one_line() {
    let mut out = Vec::new();
    let failure = Failure {
        code: "connect_failed",
        details: Some("refused\n"),
    };
    Line {
        error: Some(failure),
        ..line("/a\"b\r\n", 503)
    }
    .format(&mut out, &mut Clock::default());
    let text = String::from_utf8(out).expect("UTF-8");
    assert_eq!(text.matches('\n').count(), 1);
    assert_eq!(
        values(&text),
        [serde_json::json!({
            "timestamp": "1970-01-01T00:00:01.500Z", "level": "error", "service": "gateway", "message": "request",
            "method": "GET", "path": "/a\"b\r\n", "status": 503, "duration_ms": 12.345, "bytes_in": 1,
            "bytes_out": 2, "client": "10.0.0.1", "user_agent": "curl/8\n\u{fffd}", "host": "example.org",
            "protocol": "HTTP/1.1", "route": "users", "upstream": "users", "endpoint": "10.0.0.2:80",
            "attempts": 1, "request_id": "r1", "trace_id": "ab".repeat(16), "span_id": "cd".repeat(8),
            "error": {"code": "connect_failed", "details": "refused\n"}, "listener": "public", "generation": 3,
        })]
    );
}

/// HI-8: what is written without a look was looked at before.
#[test]
fn methods_and_request_ids_have_nothing_to_escape() {
    let mut seen = 0;
    for byte in 0..=u8::MAX {
        let mut headers = http::HeaderMap::new();
        if let Ok(value) = http::HeaderValue::from_bytes(&[byte]) {
            headers.insert("x-request-id", value);
        }
        let id = RequestId::from_headers(&headers, || 0);
        if http::Method::from_bytes(&[byte]).is_ok() || id.as_str().as_bytes() == [byte] {
            let mut text = Vec::new();
            crate::telemetry::json::string(&mut text, &[byte]);
            assert_eq!(text, [b'"', byte, b'"']);
            seen += 1;
        }
    }
    assert!(seen > 70, "{seen}");
}

#[test]
fn lines_of_several_workers_reach_the_file_whole_and_reopen_starts_a_new_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let log = AccessLog::start(&telemetry(Target::File(path.clone()), 1.0)).expect("opens");
    thread::scope(|scope| {
        for seed in 0..3 {
            let log = &log;
            scope.spawn(move || {
                let mut worker = log.worker(seed);
                (0..500).for_each(|_| worker.write(&line("/a", 200)));
            });
        }
    });
    assert!(log.close(LONG));
    let text = std::fs::read_to_string(&path).expect("written");
    assert_eq!(values(&text).len(), 1500);
    let old = folder.path().join("access.log.1");
    std::fs::rename(&path, &old).expect("renamed");
    log.reopen();
    let mut worker = log.worker(9);
    worker.write(&line("/b", 200));
    worker.flush();
    assert!(log.close(LONG));
    assert_eq!(
        values(&std::fs::read_to_string(&path).expect("a new file")).len(),
        1
    );
    assert_eq!(
        values(&std::fs::read_to_string(&old).expect("still there")).len(),
        1500
    );
    assert_eq!(log.dropped_counter().load(Relaxed), 0);
}

#[test]
fn a_log_that_cannot_be_opened_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = Target::File(folder.path().join("absent").join("access.log"));
    let error = AccessLog::start(&telemetry(target, 1.0))
        .expect_err("no such folder")
        .to_string();
    assert!(error.contains("absent"), "{error}");
}

/// Writes to a channel; each write waits for a permit, and fails when told so.
struct Gate {
    permits: Receiver<bool>,
    written: std::sync::mpsc::Sender<Vec<u8>>,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.permits.recv().unwrap_or(true) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let _nobody_reads = self.written.send(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn gated() -> (AccessLog, std::sync::mpsc::Sender<bool>, Receiver<Vec<u8>>) {
    let ((permit, permits), (written, read)) = (channel(), channel());
    let sink = Sink::Test(Box::new(Gate { permits, written }));
    let log = AccessLog::with_sink(&telemetry(Target::Stdout, 1.0), sink).expect("starts");
    (log, permit, read)
}

/// OBS-207.
#[test]
fn a_reader_that_stopped_never_stops_a_worker_and_the_log_tells_what_was_lost() {
    let (log, permit, read) = gated();
    let mut worker = log.worker(1);
    let batches = WAITING as u64 + 20;
    for _ in 0..batches {
        worker.write(&line("/a", 200));
        worker.flush();
    }
    let dropped = log.dropped_counter().load(Relaxed);
    assert!((19..=20).contains(&dropped), "{dropped}");
    drop(permit);
    assert!(log.close(LONG));
    let lines = values(&String::from_utf8(read.try_iter().flatten().collect()).expect("UTF-8"));
    let told: u64 = lines
        .iter()
        .filter_map(|line| line["dropped"].as_u64())
        .sum();
    let requests = lines
        .iter()
        .filter(|line| line["message"] == "request")
        .count() as u64;
    assert_eq!(told, log.dropped_counter().load(Relaxed));
    assert_eq!(told + requests, batches);
}

#[test]
fn a_broken_pipe_loses_lines_and_nothing_else() {
    let (log, permit, read) = gated();
    let mut worker = log.worker(1);
    permit.send(false).expect("the writer lives");
    worker.write(&line("/lost", 200));
    worker.flush();
    drop(permit);
    assert!(log.close(LONG));
    worker.write(&line("/kept", 200));
    worker.flush();
    assert!(log.close(LONG));
    let lines = values(&String::from_utf8(read.try_iter().flatten().collect()).expect("UTF-8"));
    assert_eq!(lines[0]["dropped"], 1);
    assert_eq!(lines[1]["path"], "/kept");
}

#[test]
fn the_sample_leaves_lines_out_but_no_failure_and_a_reload_changes_it() {
    let (log, permit, read) = gated();
    drop(permit);
    log.shared.sample.store(0.25_f64.to_bits(), Relaxed);
    let mut worker = log.worker(1);
    (0..1000).for_each(|_| worker.write(&line("/a", 200)));
    (0..10).for_each(|_| worker.write(&line("/b", 500)));
    worker.flush();
    assert!(log.close(LONG));
    let lines = values(&String::from_utf8(read.try_iter().flatten().collect()).expect("UTF-8"));
    let ordinary = lines.iter().filter(|line| line["path"] == "/a").count();
    assert!((180..320).contains(&ordinary), "{ordinary}");
    assert_eq!(lines.len() - ordinary, 10);
    log.change(&telemetry(Target::Off, 1.0))
        .expect("nothing to open");
    worker.write(&line("/b", 500));
    assert_eq!(worker.lines, 0);
}
