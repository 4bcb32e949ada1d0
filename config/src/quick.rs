//! The document behind `run --to URL`: one listener, one route, one upstream. It is written as text and read like any
//! other, so that it can hold nothing that a file could not.

use std::path::Path;

use crate::document::Document;
use crate::loader::Loader;
use crate::problem::{Fault, Problem, Problems};
use crate::rule;

/// Forwards everything that comes to `listen` to the URL `to` (`http://…` or `https://…`, without a path).
pub fn quick(to: &str, listen: &str) -> Result<Document, Problems> {
    let mut problems = Vec::new();
    let mut refuse = |option: &str, code, fault: Fault| {
        problems.push(Problem {
            code,
            place: None,
            message: format!("{option}: {}", fault.message),
            text: None,
            hint: Some(fault.hint),
        });
    };
    let target = target(to);
    if let Err(fault) = &target {
        refuse("--to", "bad-target", fault.clone());
    }
    if let Err(fault) = rule::bind(listen) {
        refuse("--listen", "bad-address", fault);
    }
    let (Ok((address, encrypted)), []) = (target, problems.as_slice()) else {
        return Err(Problems(problems));
    };
    let tls = if encrypted {
        "protocol = \"auto\"\ntls = {}\n"
    } else {
        ""
    };
    // Both texts passed rules that allow no quote and no line end.
    let text = format!(
        "[[listener]]\nbind = \"{listen}\"\n\n[[route]]\nmatch = {{ path = \"/*\" }}\nupstream = \"app\"\n\n[[upstream]]\nname = \"app\"\nendpoints = [\"{address}\"]\n{tls}"
    );
    Loader::new().load_text("--to", &text, Path::new(""))
}

/// `host:port`, and whether it is encrypted.
pub(crate) fn target(url: &str) -> Result<(String, bool), Fault> {
    let hint = "write a URL such as \"http://127.0.0.1:9000\"";
    let fault = |why: &str| Fault::new(format!("`{}` {why}", crate::unit::short(url)), hint);
    let (scheme, rest) = url.split_once("://").ok_or_else(|| fault("is not a URL"))?;
    let (encrypted, default) = match scheme.to_ascii_lowercase().as_str() {
        "http" => (false, 80),
        "https" => (true, 443),
        _ => return Err(fault("begins neither with http:// nor with https://")),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return Err(Fault::new(
            format!("`{}` has a path", crate::unit::short(url)),
            "name only the host and the port; a file with `rewrite` can add a path",
        ));
    }
    if authority.contains('@') {
        return Err(fault("holds a user name"));
    }
    let (host, port) = rule::split_port(authority)?;
    Ok((format!("{host}:{}", port.unwrap_or(default)), encrypted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::EndpointSource;

    #[test]
    fn a_url_becomes_a_document() {
        let document = quick("https://example.com/", "127.0.0.1:0").expect("valid");
        let upstream = &document.upstreams[0];
        assert!(upstream.tls.is_some());
        match &upstream.endpoints {
            EndpointSource::Static(list) => assert_eq!(list[0].address, "example.com:443"),
            other => panic!("not static: {other:?}"),
        }
        let document = quick("http://[::1]:9000", "[::]:0").expect("valid");
        assert!(document.upstreams[0].tls.is_none());
        assert_eq!(document.routes[0].name, "/*");
    }

    #[test]
    fn what_is_wrong_with_the_command_line_is_said_at_once() {
        let problems = quick("ftp://x\"", "nowhere").expect_err("both are wrong");
        assert_eq!(problems.0.len(), 2);
        for bad in [
            "",
            "x",
            "http://",
            "http://a/b",
            "http://u@a",
            "http://a:0",
            "http://a\"\n:1",
            "http://a?b",
        ] {
            assert!(quick(bad, "127.0.0.1:0").is_err(), "{bad}");
        }
    }
}
