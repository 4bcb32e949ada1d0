//! Tables of hostile messages: each is sent on a connection of its own, all that went wrong is told at once.
//!
//! A refused message must be answered with its code, the connection must close behind it, and nothing of it may reach
//! the upstream: not the message, not the request that was hidden behind it, not a byte that a strict reader refuses.

use tollgate_engine::testing::client::{Client, Ended};
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::upstream::Upstream;

/// A name, the bytes to send, and the codes of which the answer must bear one.
pub(crate) type Refused<'a> = (&'a str, Vec<u8>, &'a [&'a str]);

/// What follows every hostile message; it must never be served as a request of its own.
pub(crate) const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: smuggled.example\r\n\r\n";

/// Sends each message and a hidden request behind it; see the module's comment for what must hold.
pub(crate) fn assert_refused(cases: &[Refused<'_>]) {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let mut faults = Vec::new();
    for (name, bytes, codes) in cases {
        let mut client = gateway.client();
        client.send([bytes, SMUGGLED].concat());
        if let Err(fault) = judge(&mut client, codes) {
            faults.push(format!("{name}: {fault} | sent {:?}", excerpt(bytes)));
        }
    }
    assert_eq!(
        gateway.get("/honest").status,
        200,
        "an honest request is still served"
    );
    let journal = upstream.journal();
    for request in journal.requests.iter().filter(|request| request.complete) {
        if request.target() != "/honest" {
            faults.push(format!("the upstream took as whole: {:?}", request.head));
        }
    }
    faults.extend(journal.violations);
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

fn judge(client: &mut Client, codes: &[&str]) -> Result<(), String> {
    let response = client
        .try_response("GET")
        .map_err(|ended| format!("no answer, {ended:?}"))?;
    if response.status < 400 {
        return Err(format!("answered {response:?}"));
    }
    if response.header("content-type") != Some("application/problem+json") {
        return Err(format!("no problem JSON: {response:?}"));
    }
    let code = response.code();
    if !codes.contains(&&*code) {
        return Err(format!(
            "code {code} instead of one of {codes:?} ({})",
            response.status
        ));
    }
    match client.drain() {
        (rest, Ended::Closed | Ended::Reset) if rest.is_empty() => Ok(()),
        (rest, ended) => Err(format!(
            "not closed behind the answer: {ended:?} {:?}",
            excerpt(&rest)
        )),
    }
}

/// The begin of a message, for telling.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(160)]).into_owned();
    if bytes.len() > 160 {
        format!("{text}… ({} bytes)", bytes.len())
    } else {
        text
    }
}

/// A POST to `/` with a host, these lines and this body.
pub(crate) fn post(lines: &str, body: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: test.example\r\n{lines}\r\n{body}").into_bytes()
}

/// A GET of `/` with a host and these lines.
pub(crate) fn get(lines: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: test.example\r\n{lines}\r\n").into_bytes()
}

/// A chunked POST with this body, as it stands.
pub(crate) fn chunked(body: &str) -> Vec<u8> {
    post("Transfer-Encoding: chunked\r\n", body)
}
