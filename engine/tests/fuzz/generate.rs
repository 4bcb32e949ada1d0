//! Messages that are nearly right: put together from parts that matter, then changed in a few places.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// One change to a text.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Put(Index, Vec<u8>),
    Take(Index, usize),
    Set(Index, u8),
    /// Another copy of a piece, somewhere else.
    Copy(Index, usize, Index),
    Cut(Index),
}

/// What readers disagree about.
const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"\0",
    b"\x0b",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"+",
    b"-",
    b"0",
    b"0x",
    b"\"",
    b"/",
    b"..",
    b"%2f",
    b"%00",
    b"#",
    b"@",
    b" HTTP/1.1",
    b"HTTP/1.0",
    b"chunked",
    b"\r\nTransfer-Encoding: chunked",
    b"\r\nTransfer-Encoding : chunked",
    b"\r\nTransfer-Encoding: gzip, chunked",
    b"\r\nContent-Length: 5",
    b"\r\nContent-Length: 5, 5",
    b"\r\nHost: b.example",
    b"\r\nConnection: close, host",
    b"\r\n folded",
];

fn change() -> impl Strategy<Value = Change> {
    let index = any::<Index>;
    prop_oneof![
        4 => (index(), select(PIECES)).prop_map(|(at, piece)| Change::Put(at, piece.to_vec())),
        2 => (index(), 1usize..6).prop_map(|(at, length)| Change::Take(at, length)),
        2 => (index(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => (index(), 1usize..40, index()).prop_map(|(from, length, to)| Change::Copy(from, length, to)),
        1 => index().prop_map(Change::Cut),
    ]
}

fn apply(text: &mut Vec<u8>, change: Change) {
    let end = |at: usize, length: usize, text: &[u8]| (at + length).min(text.len());
    match change {
        Change::Put(at, piece) => {
            let at = at.index(text.len() + 1);
            text.splice(at..at, piece);
        }
        Change::Take(at, length) => {
            let at = at.index(text.len() + 1);
            text.drain(at..end(at, length, text));
        }
        Change::Set(at, byte) if !text.is_empty() => {
            let at = at.index(text.len());
            text[at] = byte;
        }
        Change::Set(..) => {}
        Change::Copy(from, length, to) => {
            let from = from.index(text.len() + 1);
            let piece = text[from..end(from, length, text)].to_vec();
            let to = to.index(text.len() + 1);
            text.splice(to..to, piece);
        }
        Change::Cut(at) => text.truncate(at.index(text.len() + 1)),
    }
}

/// A valid text, most often with a few changes.
pub(crate) fn changed(valid: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let changes = prop_oneof![1 => Just(Vec::new()), 3 => vec(change(), 1..4)];
    (valid, changes).prop_map(|(mut text, changes)| {
        for change in changes {
            apply(&mut text, change);
        }
        text
    })
}

/// A text, and where it is cut on its way.
pub(crate) fn cut(
    text: impl Strategy<Value = Vec<u8>>,
) -> impl Strategy<Value = (Vec<u8>, Vec<usize>)> {
    (text, vec(any::<Index>(), 0..12)).prop_map(|(text, cuts)| {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.push(text.len());
        cuts.sort_unstable();
        (text, cuts)
    })
}

pub(crate) fn method() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => select(vec!["GET", "POST", "HEAD", "PUT", "OPTIONS", "CONNECT", "TRACE", "get", "M-SEARCH"])
            .prop_map(str::to_owned),
        1 => "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,26}",
    ]
}

pub(crate) fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => select(vec![
            "a.example", "A.Example:80", "a.example.", "[::1]", "[::1]:8080", "127.0.0.1", "a", "a:", "x_y.example:65535",
            "a.example:65536", "a.example:+1", "[::1", "[::g]", "u@a.example", "a.example, b.example", "a b", "",
            "a.example:80:80", "a/b", "a%41", "[::1]x", "[]", ":80",
        ])
        .prop_map(str::to_owned),
        1 => "[ -~]{0,12}",
    ]
}

pub(crate) fn target() -> impl Strategy<Value = String> {
    let piece = select(vec![
        "/",
        "/",
        "/",
        ".",
        "..",
        "%2e",
        "%2E",
        "%2f",
        "%5c",
        "\\",
        "a",
        "B",
        ";",
        "%61",
        "%",
        "%c3%a9",
        "%C3%A9",
        "%c0%af",
        "%e0%80%80",
        "%25",
        "%20",
        "%00",
        "|",
        "{",
        "}",
        "[",
        "~",
        "%7e",
        "<",
        "\"",
        "`",
        "#",
        "?",
        "*",
        "@",
        ":",
        "=",
        "&",
        "+",
        "!",
    ]);
    let path = vec(piece, 0..10).prop_map(|parts| format!("/{}", parts.concat()));
    prop_oneof![
        6 => path.clone(),
        1 => Just("*".to_owned()),
        1 => (select(vec!["http://", "HTTPS://", "ftp://", "http:/"]), host(), path)
            .prop_map(|(scheme, host, path)| format!("{scheme}{}{path}", host.replace(' ', ""))),
        1 => select(vec!["http://a.example", "http://a.example?x", "a.example:443", "http:///", "//a/b", "x"])
            .prop_map(str::to_owned),
        1 => "[!-~]{1,20}",
    ]
}

/// A field that matters to somebody on the way.
fn known_field() -> impl Strategy<Value = (String, String)> {
    let text = |name: &'static str, values: Vec<&'static str>| {
        select(values).prop_map(move |value| (name.to_owned(), value.to_owned()))
    };
    prop_oneof![
        3 => text("Content-Length", vec!["0", "5", "05", "+5", "5, 5", "", "-1", "9223372036854775807", "9223372036854775808",
            "00000000000000000000000005", "0x5", "5 5"]),
        3 => text("Transfer-Encoding", vec!["chunked", "Chunked", "gzip, chunked", "chunked, chunked", "identity", "",
            "chunked;a=b", "\"chunked\"", "xchunked"]),
        4 => text("Connection", vec!["close", "keep-alive", "Upgrade", "host", "x-a, X-Forwarded-For", "TE, cookie", "via,,x-b",
            "x a", "content-length", "x-request-id, traceparent", "close, keep-alive", "@"]),
        1 => text("Upgrade", vec!["websocket", "h2c", "a/1, b/2", ""]),
        1 => text("Expect", vec!["100-continue", "100-Continue", "x", ""]),
        1 => text("TE", vec!["trailers", "gzip;q=1, trailers"]),
        1 => text("Keep-Alive", vec!["timeout=5"]),
        1 => text("Proxy-Connection", vec!["keep-alive"]),
        1 => text("Proxy-Authorization", vec!["Basic eA=="]),
        1 => text("Via", vec!["1.0 x", "1.1 tollgate"]),
        1 => text("X-Forwarded-For", vec!["203.0.113.9", "a, b"]),
        1 => text("X-Forwarded-Proto", vec!["https"]),
        1 => text("X-Forwarded-Host", vec!["evil.example"]),
        1 => text("Forwarded", vec!["for=1.2.3.4"]),
        1 => text("X-Real-IP", vec!["1.2.3.4"]),
        1 => text("X-Request-Id", vec!["abc", "a b", ""]),
        1 => text("X-Request-Deadline-Ms", vec!["50", "x"]),
        1 => text("grpc-timeout", vec!["5S", "99999999H", "5x"]),
        1 => text("traceparent", vec!["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "00-x"]),
        1 => text("tracestate", vec!["a=1,b=2", "a"]),
        2 => text("Cookie", vec!["a=1", "b=2; c=3", ""]),
    ]
}

pub(crate) fn fields() -> impl Strategy<Value = Vec<(String, String)>> {
    let other = ("[A-Za-z][A-Za-z0-9_-]{0,8}", "[!-~]([ -~\t]{0,10}[!-~])?|");
    vec(prop_oneof![2 => known_field(), 1 => other], 0..8)
}

/// A request's head, most often with a good Host in it.
pub(crate) fn request() -> impl Strategy<Value = Vec<u8>> {
    let hosts = prop_oneof![
        8 => Just(vec!["a.example".to_owned()]),
        2 => vec(host(), 1..2),
        1 => vec(host(), 0..3),
    ];
    let version = prop_oneof![
        8 => Just("HTTP/1.1"),
        2 => Just("HTTP/1.0"),
        1 => select(vec!["HTTP/2.0", "HTTP/1.2", "http/1.1", "HTTP/1.10", "HTTP/0.9"]),
    ];
    let blank = prop_oneof![4 => Just(" "), 1 => select(vec!["", "\t ", "  "])];
    (method(), target(), version, hosts, fields(), blank).prop_map(
        |(method, target, version, hosts, fields, blank)| {
            let mut text = format!("{method} {target} {version}\r\n");
            for host in hosts {
                text += &format!("Host:{blank}{host}\r\n");
            }
            for (name, value) in fields {
                text += &format!("{name}:{blank}{value}\r\n");
            }
            text += "\r\n";
            text.into_bytes()
        },
    )
}

pub(crate) fn response() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        6 => (select(vec!["HTTP/1.1", "HTTP/1.0"]), 90u16..620, select(vec![" OK", "", " ", " a\tb", "OK"]))
            .prop_map(|(version, status, reason)| format!("{version} {status}{reason}")),
        1 => select(vec!["HTTP/2 200", "HTTP/1.1 2000 OK", "HTTP/1.1  200", "ICY 200 OK", "HTTP/1.1 20x"]).prop_map(str::to_owned),
    ];
    (line, fields()).prop_map(|(line, fields)| {
        let mut text = format!("{line}\r\n");
        for (name, value) in fields {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        text.into_bytes()
    })
}

/// A chunked body and a few bytes behind it.
pub(crate) fn chunked() -> impl Strategy<Value = Vec<u8>> {
    let extension = prop_oneof![
        6 => Just(String::new()),
        1 => select(vec![";a=b", ";a=\"b c\"", ";", " ;a", ";a\t"]).prop_map(str::to_owned),
        1 => (240usize..300).prop_map(|length| format!(";{}", "x".repeat(length))),
    ];
    let size = select(vec!["", "0", "000000000000000"]);
    let chunk = (vec(any::<u8>(), 1..40), size, extension, any::<bool>()).prop_map(
        |(data, zeroes, extension, upper)| {
            let size = match upper {
                true => format!("{:X}", data.len()),
                false => format!("{:x}", data.len()),
            };
            let mut text = format!("{zeroes}{size}{extension}\r\n").into_bytes();
            text.extend_from_slice(&data);
            text.extend_from_slice(b"\r\n");
            text
        },
    );
    let trailers = prop_oneof![
        4 => Just(Vec::new()),
        3 => fields(),
        1 => (60usize..70).prop_map(|count| vec![("x-t".to_owned(), "1".to_owned()); count]),
    ];
    (
        vec(chunk, 0..5),
        select(vec!["0", "000", "0;a=b", "00 "]),
        trailers,
        vec(any::<u8>(), 0..4),
    )
        .prop_map(|(chunks, last, trailers, behind)| {
            let mut text = chunks.concat();
            text.extend_from_slice(last.as_bytes());
            text.extend_from_slice(b"\r\n");
            for (name, value) in trailers {
                text.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
            text.extend_from_slice(b"\r\n");
            text.extend_from_slice(&behind);
            text
        })
}
