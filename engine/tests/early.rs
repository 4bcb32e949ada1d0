//! Answers that are there before the request's body, over HTTP/2: the client must get to read them (HI-47). The same
//! over HTTP/1 is in `upstream_side`.

use std::time::{Duration, Instant};

use tollgate_engine::testing::gateway::{Gateway, document};
use tollgate_engine::testing::h2_raw::*;
use tollgate_engine::testing::upstream::Upstream;

/// How long a client has at least to read its answer.
const MOMENT: Duration = Duration::from_millis(500);

/// Refuses each upload after its head.
fn refusing() -> Upstream {
    Upstream::http1(|conn| {
        if conn.read_head().is_some() {
            conn.respond("413 Content Too Large", &["Connection: close"], "too much");
            conn.finish();
            conn.wait_closed();
        }
    })
}

/// A gateway with a route to the refusing upstream, and nothing for any other path.
fn gateway(upstream: &Upstream) -> Gateway {
    let toml = document(upstream.address(), "", "", "").replace("\"/*\"", "\"/upload\"");
    Gateway::start(&toml)
}

/// Sends the begin of an upload and reads its answer to the end: status and data.
fn refused(raw: &mut H2Raw, path: &str) -> Vec<u8> {
    raw.headers(1, 0, &request("POST", path));
    raw.data(1, 0, &[b'x'; 1000]);
    let mut body = Vec::new();
    loop {
        let frame = raw.read_frame().expect("an answer");
        if frame.stream != 1 {
            continue;
        }
        assert_ne!(frame.kind, RST_STREAM, "{path}: reset before its answer");
        if frame.kind == DATA {
            body.extend(&frame.payload);
        }
        if matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0 {
            return body;
        }
    }
}

#[test]
fn hi_47_an_early_answer_leaves_the_client_a_moment_to_read_it() {
    let upstream = refusing();
    let gateway = gateway(&upstream);
    for (path, part) in [
        ("/upload", "too much"),
        ("/elsewhere", "no_route"),
        ("/%00", "bad_path"),
    ] {
        let mut raw = H2Raw::connect(gateway.address());
        let begun = Instant::now();
        let body = refused(&mut raw, path);
        assert!(String::from_utf8_lossy(&body).contains(part), "{path}");
        // The client has not noticed yet: it sends on, and ends as it wanted to. Nothing of that is an error.
        raw.data(1, 0, &[b'y'; 1000]);
        raw.data(1, END_STREAM, b"end");
        raw.frame(PING, 0, 0, b"all read");
        loop {
            let frame = raw.read_frame().expect("the connection goes on");
            // A client that has taken longer than the moment is told to stop, without blame.
            let told_late =
                frame.kind == RST_STREAM && frame.code() == 0 && begun.elapsed() >= MOMENT;
            assert!(
                told_late || !matches!(frame.kind, RST_STREAM | GOAWAY),
                "{path}: {frame:?}"
            );
            if frame.kind == PING {
                break;
            }
        }
    }
}

#[test]
fn hi_47_a_client_that_never_ends_its_upload_is_told_to_without_blame() {
    let upstream = refusing();
    let gateway = gateway(&upstream);
    let mut raw = H2Raw::connect(gateway.address());
    refused(&mut raw, "/upload");
    let reset = loop {
        let frame = raw.read_frame().expect("a reset in the end");
        if frame.kind == RST_STREAM {
            break frame;
        }
    };
    // NO_ERROR (RFC 9113, 8.1).
    assert_eq!((reset.stream, reset.code()), (1, 0));
}
