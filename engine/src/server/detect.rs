//! What a client speaks, from its first bytes. Pure: whoever reads them holds the clock.
//!
//! Bytes are HTTP as long as they can be, and something else from the first byte on that no request line has: most
//! protocols are known by their first byte. A request line is `METHOD SP TARGET SP HTTP/`, as anybody writes it: capital
//! letters, then a path, `*`, an `http` URL or, after CONNECT, an authority. Text protocols that look alike at first
//! (`EHLO host`, `GET key`) differ in the target or in what follows it.

/// The connection preface of HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// No registered method is longer.
const LONGEST_METHOD: usize = 24;
/// What began like a request and goes on for so long without the end of its target is one.
const LONG: usize = 512;

/// What the bytes so far say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speech {
    /// Not enough of them.
    Unclear,
    Http1,
    Http2,
    /// No HTTP.
    Bytes,
}

/// Where clients speak HTTP, and only its version is the question.
pub(super) fn version(read: &[u8]) -> Speech {
    let known = read.len().min(PREFACE.len());
    match read.get(..known) == PREFACE.get(..known) {
        false => Speech::Http1,
        true if known == PREFACE.len() => Speech::Http2,
        true => Speech::Unclear,
    }
}

/// Where clients may speak anything.
pub(super) fn anything(read: &[u8]) -> Speech {
    match version(read) {
        // One empty line may stand before a request, as everywhere (HI-16).
        Speech::Http1 => match read {
            [b'\r'] => Speech::Unclear,
            [b'\r', b'\n', rest @ ..] => request_line(rest),
            _ => request_line(read),
        },
        known => known,
    }
}

fn request_line(line: &[u8]) -> Speech {
    let letters = line
        .iter()
        .take_while(|byte| matches!(byte, b'A'..=b'Z' | b'-'))
        .count();
    let (method, rest) = line.split_at(letters);
    let target = match rest {
        _ if letters > LONGEST_METHOD => return Speech::Bytes,
        [] => return Speech::Unclear,
        [b' ', target @ ..] if letters > 0 => target,
        _ => return Speech::Bytes,
    };
    let begins = match target {
        [] => return Speech::Unclear,
        [b'/', ..] => true,
        [first, ..] if method == b"CONNECT" => first.is_ascii_alphanumeric() || *first == b'[',
        [b'*'] => return Speech::Unclear,
        [b'*', second, ..] => *second == b' ',
        _ => may_be(target, b"http://") || may_be(target, b"https://"),
    };
    if !begins {
        return Speech::Bytes;
    }
    let end = target
        .iter()
        .position(|byte| *byte <= b' ' || *byte == 0x7f);
    match end.and_then(|end| target.get(end..)) {
        Some([b' ', version @ ..]) if version.starts_with(b"HTTP/") => Speech::Http1,
        Some([b' ', version @ ..]) if b"HTTP/".starts_with(version) => Speech::Unclear,
        Some(_) => Speech::Bytes,
        None if target.len() > LONG => Speech::Http1,
        None => Speech::Unclear,
    }
}

/// Whether this can be the begin of what begins so, in letters of either case.
fn may_be(bytes: &[u8], prefix: &[u8]) -> bool {
    let known = bytes.len().min(prefix.len());
    bytes
        .iter()
        .zip(prefix)
        .take(known)
        .all(|(byte, wanted)| byte.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of each first part of these bytes: how many of them it takes, and what they are then.
    fn judged(bytes: &[u8]) -> (usize, Speech) {
        let known = (0..=bytes.len()).map(|count| anything(&bytes[..count]));
        let mut known = known.enumerate();
        known
            .find(|(_, speech)| *speech != Speech::Unclear)
            .unwrap_or((bytes.len(), Speech::Unclear))
    }

    #[test]
    fn mesh_102_requests_are_known_by_their_line_however_it_is_cut() {
        for (line, takes) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 11),
            ("GET /a?b=c HTTP/1.0\r\n", 16),
            ("\r\nGET / HTTP/1.1\r\n", 13),
            ("OPTIONS * HTTP/1.1\r\n", 15),
            ("M-SEARCH * HTTP/1.1\r\n", 16),
            ("GET http://orders/x HTTP/1.1\r\n", 25),
            ("GET HTTPS://orders/ HTTP/1.1\r\n", 25),
            ("CONNECT orders:5432 HTTP/1.1\r\n", 25),
            ("CONNECT [::1]:5432 HTTP/1.1\r\n", 24),
            ("PRI /not-the-preface HTTP/1.1\r\n", 26),
        ] {
            assert_eq!(judged(line.as_bytes()), (takes, Speech::Http1), "{line:?}");
        }
        assert_eq!(judged(PREFACE), (PREFACE.len(), Speech::Http2));
        let long = format!("GET /{}", "a".repeat(10_000));
        assert_eq!(judged(long.as_bytes()), (4 + LONG + 1, Speech::Http1));
    }

    #[test]
    fn mesh_102_what_is_not_http_is_known_by_the_first_byte_that_no_request_has() {
        for (bytes, takes) in [
            (&b"\x16\x03\x01\x02\x00\x01"[..], 1),    // a TLS ClientHello
            (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", 1), // PostgreSQL asks for TLS
            (b"*1\r\n$4\r\nPING\r\n", 1),             // Redis
            (b"get key\r\n", 1),                      // memcached
            (b"SSH-2.0-OpenSSH_9.9\r\n", 5),
            (b"PING\r\n", 5),
            (b"EHLO mail.example\r\n", 6),
            (b"HELO host.example\r\n", 7),
            (b"GET key\r\n", 5),
            (b"GET /key\r\n", 9),
            (b"GET /key value\r\n", 10),
            (b"PRI * HTTP/2.1\r\n", 14),
            (b"QUIT\n", 5),
            (b"  GET / HTTP/1.1\r\n", 1),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", LONGEST_METHOD + 1),
            (b"\r\x00", 2),
            (b"\r\n\r\n", 3),
            (b"CONNECT /x HTTP/1.1\r\n", 19),
        ] {
            let (count, speech) = judged(bytes);
            if bytes.starts_with(b"PRI") || bytes.starts_with(b"CONNECT /") {
                // Odd requests; they are HTTP's to refuse.
                assert_eq!(
                    speech,
                    Speech::Http1,
                    "{:?}",
                    bytes.escape_ascii().to_string()
                );
                continue;
            }
            assert_eq!(
                (count, speech),
                (takes, Speech::Bytes),
                "{}",
                bytes.escape_ascii()
            );
        }
    }

    #[test]
    fn where_only_http_is_spoken_nothing_else_is_looked_for() {
        assert_eq!(version(b""), Speech::Unclear);
        assert_eq!(version(b"PRI *"), Speech::Unclear);
        assert_eq!(version(PREFACE), Speech::Http2);
        assert_eq!(version(b"\x16\x03"), Speech::Http1);
    }
}
