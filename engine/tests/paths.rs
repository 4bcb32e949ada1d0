//! One normal form of a path for match, policy and upstream, and one of a host: HI-52 to HI-54.
//!
//! `/admin` and all below it is refused by policy here; everything else goes to an upstream that shows what it was
//! sent. Each spelling is sent in HTTP/1 and in HTTP/2, and both must come to the same.

use std::sync::Arc;

use tollgate_engine::testing::PATIENCE;
use tollgate_engine::testing::certificates::{Authority, client_config};
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::h2_raw::{END_STREAM, H2Raw, Outcome, request};
use tollgate_engine::testing::upstream::Upstream;

/// What a spelling comes to.
#[derive(Debug, PartialEq, Eq, Clone)]
enum Comes {
    /// To the policy for `/admin`.
    Admin,
    /// To the upstream, in this form.
    To(String),
    /// 400 `bad_path`.
    Refused,
    /// Anything else; never right.
    Other(String),
}

fn gateway(upstream: &Upstream) -> Gateway {
    Gateway::start(&format!(
        r#"
[[listener]]
name = "in"
bind = "127.0.0.1:0"

[[route]]
match   = {{ path = "/admin/*" }}
respond = {{ status = 403, body = "admin" }}

[[route]]
match    = {{ path = "/*" }}
upstream = "app"

[[upstream]]
name      = "app"
endpoints = ["{}"]
"#,
        upstream.address()
    ))
}

fn judge(status: u16, body: &str) -> Comes {
    match status {
        403 if body == "admin" => Comes::Admin,
        200 => Comes::To(body.split(' ').nth(1).unwrap_or_default().to_owned()),
        400 if body.contains(r#""code":"bad_path""#) => Comes::Refused,
        _ => Comes::Other(format!("{status} {body}")),
    }
}

fn by_http1(gateway: &Gateway, path: &[u8]) -> Comes {
    let mut client = gateway.client();
    client.send([b"GET ", path, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    let response = client.read_response();
    // Bytes that no request line may hold at all are refused as such.
    let odd = path.iter().any(|byte| !byte.is_ascii_graphic());
    if odd && response.status == 400 && response.code() == "bad_request_line" {
        return Comes::Refused;
    }
    judge(response.status, &response.text())
}

fn by_http2(gateway: &Gateway, path: &[u8]) -> Comes {
    let mut raw = H2Raw::connect(gateway.address());
    let mut fields = request("GET", "/");
    fields[3].1 = path;
    raw.headers(1, END_STREAM, &fields);
    match raw.outcome(1) {
        // The library drops a fragment before anybody sees it; what is left must still be one path for all.
        Outcome::Answer { status: 200, .. } if path.contains(&b'#') => Comes::Refused,
        Outcome::Answer { status, body, .. } => judge(status, &String::from_utf8_lossy(&body)),
        // A malformed pseudo-header may also be a stream error.
        Outcome::Reset { .. } => Comes::Refused,
        other => Comes::Other(format!("{other:?}")),
    }
}

fn assert_all(cases: &[(&str, Comes)]) {
    let upstream = Upstream::echo();
    let gateway = gateway(&upstream);
    let mut faults = Vec::new();
    for (path, wanted) in cases {
        for (by, came) in [
            ("h1", by_http1(&gateway, path.as_bytes())),
            ("h2", by_http2(&gateway, path.as_bytes())),
        ] {
            if came != *wanted {
                faults.push(format!("{path:?} by {by}: {came:?} instead of {wanted:?}"));
            }
        }
    }
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
    upstream.assert_clean();
}

fn to(path: &str) -> Comes {
    Comes::To(path.to_owned())
}

#[test]
fn hi_52_every_spelling_of_a_protected_path_meets_its_policy() {
    let spellings = [
        "/admin",
        "/admin/",
        "/admin/x",
        "//admin",
        "///admin",
        "/./admin",
        "/x/../admin",
        "/x/%2e%2e/admin",
        "/x/.%2E/admin",
        "/%61dmin",
        "/%61%64%6d%69%6e",
        "/x/y/../../admin",
        "/admin/.",
        "/admin//",
        "/admin/./x",
        "/x/..//admin",
        "/admin?x=/..",
        "/%2e/admin",
        "/admin/x/..",
    ];
    let cases: Vec<_> = spellings.iter().map(|path| (*path, Comes::Admin)).collect();
    assert_all(&cases);
}

#[test]
fn hi_52_spellings_that_could_be_read_in_two_ways_are_refused() {
    let spellings = [
        "/admin%2f",
        "/admin%2Fx",
        "/x%2f..%2fadmin",
        "/api..%2fadmin",
        "/x%5c..%5cadmin",
        "/x\\..\\admin",
        "/\\admin",
        "/%5Cadmin",
        "/%c0%af",
        "/%c0%afadmin",
        "/%e0%80%af",
        "/%f0%80%80%af",
        "/%c0%ae%c0%ae/admin",
        "/%ff",
        "/%ed%a0%80",
        "/%00",
        "/admin%00",
        "/a%01",
        "/a%7f",
        "/a%0d%0a",
        "/a%",
        "/a%2",
        "/a%zz",
        "/a%%41",
        "/a%u0041",
        "/..",
        "/../admin",
        "/%2e%2e/admin",
        "/x/../../admin",
        "/a\"b",
        "/a<b",
        "/a>b",
        "/a`b",
        "/a#b",
        "/ä",
        "/x/..;/admin",
        "/x/..;a=b/admin",
        "/.;/admin",
        "/x/%2e%2e;/admin",
        "/x/..%3b/admin",
    ];
    let cases: Vec<_> = spellings
        .iter()
        .map(|path| (*path, Comes::Refused))
        .collect();
    assert_all(&cases);
}

#[test]
fn hi_52_what_was_matched_is_what_is_sent() {
    assert_all(&[
        ("/", to("/")),
        ("/a/", to("/a/")),
        ("/a//b", to("/a/b")),
        ("/a/./b", to("/a/b")),
        ("/a/b/..", to("/a/")),
        ("/admin/..", to("/")),
        ("/admin;x", to("/admin;x")),
        ("/ADMIN", to("/ADMIN")),
        ("/administrator", to("/administrator")),
        ("/a%20b", to("/a%20b")),
        ("/%7euser", to("/~user")),
        ("/caf%c3%a9", to("/caf%C3%A9")),
        ("/a%3b", to("/a%3B")),
        ("/a%3F", to("/a%3F")),
        ("/a%23", to("/a%23")),
        ("/a%25", to("/a%25")),
        ("/a%252e", to("/a%252e")),
        ("/a|b^c{d}[e]", to("/a%7Cb%5Ec%7Bd%7D%5Be%5D")),
        (
            "/a:b@c!d$e&f'g(h)i*j+k,l=m",
            to("/a:b@c!d$e&f'g(h)i*j+k,l=m"),
        ),
        ("/...", to("/...")),
        ("/a../b", to("/a../b")),
        ("/?", to("/?")),
        ("/a?b=%2e%2e//../%zz&c|d", to("/a?b=%2e%2e//../%zz&c|d")),
        ("/a?b?c", to("/a?b?c")),
        ("/?/admin", to("/?/admin")),
    ]);
}

#[test]
fn hi_52_a_query_with_raw_controls_or_high_bytes_is_refused() {
    assert_all(&[
        ("/a?b=\u{1}", Comes::Refused),
        ("/a?b=\u{7f}", Comes::Refused),
        ("/a?b=ä", Comes::Refused),
        ("/a?b#c", Comes::Refused),
    ]);
}

#[test]
fn hi_53_stripping_a_prefix_never_makes_a_path_that_climbs() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&format!(
        r#"
[[listener]]
name = "in"
bind = "127.0.0.1:0"

[[route]]
match    = {{ path = "/api/*" }}
upstream = "app"
rewrite  = {{ strip_prefix = "/api" }}

[[route]]
match    = {{ path = "/raw/*" }}
upstream = "app"
rewrite  = {{ path = "/deep/*" }}

[[upstream]]
name      = "app"
endpoints = ["{}"]
"#,
        upstream.address()
    ));
    for path in [
        "/api../secret",
        "/api/../secret",
        "/api/%2e%2e/secret",
        "/api/..",
        "/api//../x",
        "/raw/../x",
        "/raw/%2e%2e/%2e%2e/x",
        "/api/..;/x",
        "/raw/x/../../..",
    ] {
        gateway.get(path);
    }
    for (sent, seen) in [
        ("/api/x", "/x"),
        ("/api/", "/"),
        ("/api", "/"),
        ("/api//x", "/x"),
        ("/raw/x/y?q", "/deep/x/y?q"),
    ] {
        let response = gateway.get(sent);
        assert_eq!(judge(response.status, &response.text()), to(seen), "{sent}");
    }
    for request in upstream.requests() {
        let climbs = request
            .target()
            .split(['/', '?'])
            .any(|segment| segment == "..");
        assert!(
            !climbs && request.target().starts_with('/') && !request.target().starts_with("//"),
            "{request:?}"
        );
    }
}

#[test]
fn hi_54_a_host_in_any_spelling_finds_its_route() {
    let gateway = Gateway::start(
        r#"
[[listener]]
name = "in"
bind = "127.0.0.1:0"

[[route]]
match   = { host = "api.example.com", path = "/*" }
respond = { status = 200, body = "exact" }

[[route]]
match   = { host = "*.example.com", path = "/*" }
respond = { status = 200, body = "wildcard" }

[[route]]
match   = { host = "xn--bcher-kva.example", path = "/*" }
respond = { status = 200, body = "punycode" }
"#,
    );
    let cases = [
        ("api.example.com", "exact"),
        ("API.Example.COM", "exact"),
        ("api.example.com.", "exact"),
        ("api.example.com:8080", "exact"),
        ("Api.Example.Com.:443", "exact"),
        ("other.example.com", "wildcard"),
        ("a.b.example.com", "wildcard"),
        ("xn--bcher-kva.example", "punycode"),
        ("XN--BCHER-KVA.EXAMPLE", "punycode"),
        ("example.com", "no_route"),
        ("evil-api.example.com.attacker.example", "no_route"),
        ("api.example.com..", "no_route"),
    ];
    for (host, wanted) in cases {
        let mut client = gateway.client();
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let response = client.read_response();
        match response.status {
            200 => assert_eq!(response.text(), wanted, "{host}"),
            // A host of two trailing dots is no valid host either.
            400 => assert_eq!((host, &*response.code()), ("api.example.com..", "bad_host")),
            _ => assert_eq!(response.code(), wanted, "{host}"),
        }
    }
}

#[test]
fn hi_52_a_fragment_never_reaches_the_upstream() {
    let upstream = Upstream::echo();
    let gateway = gateway(&upstream);
    for path in [&b"/x#/../admin"[..], b"/x?q#f", b"/admin#f"] {
        assert_eq!(by_http1(&gateway, path), Comes::Refused);
        by_http2(&gateway, path);
    }
    assert!(
        upstream
            .requests()
            .iter()
            .all(|request| !request.target().contains(['#', 'f']))
    );
}

/// One GET over TLS, with this name in SNI and that name as the host.
fn over_tls(gateway: &Gateway, authority: &Authority, sni: &str, host: &str) -> String {
    use std::io::{Read, Write};
    let name = sni.to_owned().try_into().expect("a name");
    let session =
        rustls::ClientConnection::new(Arc::new(client_config(authority)), name).expect("a session");
    let socket = std::net::TcpStream::connect(gateway.address()).expect("the gateway accepts");
    socket.set_read_timeout(Some(PATIENCE)).expect("an option");
    let mut stream = rustls::StreamOwned::new(session, socket);
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .expect("an answer, and a proper end");
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn hi_54_a_host_that_the_connections_certificate_does_not_cover_is_misdirected() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
    let mut tls = Vec::new();
    for name in ["a.example", "b.example"] {
        let files = authority
            .issue(&[name])
            .write(folder.path(), name)
            .expect("written");
        let (cert, key) = (files.cert.display(), files.key.display());
        tls.push(format!(
            "{{ names = [\"{name}\"], cert = \"{cert}\", key = \"{key}\" }}"
        ));
    }
    let gateway = Gateway::start(&format!(
        "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\ntls = [{}]\n\n\
         [[route]]\nmatch = {{ path = \"/*\" }}\nrespond = {{ status = 200, body = \"served\" }}\n",
        tls.join(", ")
    ));
    let good = over_tls(&gateway, &authority, "a.example", "a.example");
    assert!(
        good.starts_with("HTTP/1.1 200") && good.ends_with("served"),
        "{good}"
    );
    let spelled = over_tls(&gateway, &authority, "b.example", "B.Example.:443");
    assert!(spelled.starts_with("HTTP/1.1 200"), "{spelled}");
    for host in ["b.example", "c.example"] {
        let bad = over_tls(&gateway, &authority, "a.example", host);
        assert!(
            bad.starts_with("HTTP/1.1 421") && bad.contains("\"code\":\"misdirected\""),
            "{host}: {bad}"
        );
    }
}
