//! Clients that real people use. A tool that is not installed is skipped with a line that says so, except where the
//! environment says `CI=true`: there all of them must be.

mod support;

use std::fs;
use std::process::Command;

use support::service::Service;
use support::{Finished, Process, Site, document, finish, tell};
use tollgate_engine::testing::certificates::Authority;
use tollgate_engine::testing::upstream::Upstream;

/// Whether the tool can be used.
fn installed(tool: &str) -> bool {
    // wrk knows no flag that ends with success, so what counts is that it can be started.
    let found = Command::new(tool).arg("--version").output().is_ok();
    if !found {
        let required = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(
            !required,
            "{tool} is not installed, and CI=true requires it"
        );
        tell(&format!("SKIPPED: {tool} is not installed"));
    }
    found
}

/// A gateway in front of an echo, in clear text and with TLS.
struct Both {
    upstream: Upstream,
    gateway: Process,
    site: Site,
}

impl Both {
    fn start() -> Both {
        let (upstream, site, authority) = (Upstream::echo(), Site::new(), Authority::new());
        authority
            .write(site.folder(), "authority")
            .and_then(|_| authority.issue(&["localhost"]).write(site.folder(), "edge"))
            .expect("the test's own folder can be written");
        let secured = format!(
            "[[listener]]\nname = \"tls\"\nbind = \"{}:0\"\ntls = {{ cert = \"edge.pem\", key = \"edge.key\" }}\n",
            site.address()
        );
        site.edit(&document(upstream.address(), "", &secured));
        let gateway = site.run();
        Both {
            upstream,
            gateway,
            site,
        }
    }

    fn clear(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.address())
    }

    fn port(&self) -> u16 {
        self.gateway.listener("tls").port()
    }

    /// Runs curl; whatever it prints besides the answer is `MARK version status`.
    fn curl(&self, arguments: &[&str]) -> (String, String) {
        let address = self.gateway.listener("tls");
        let resolve = format!("localhost:{}:{}", address.port(), address.ip());
        let ended = finish(
            Command::new("curl")
                .args([
                    "--silent",
                    "--show-error",
                    "--max-time",
                    "60",
                    "--noproxy",
                    "*",
                ])
                .args(["--write-out", "\nMARK %{http_version} %{http_code}"])
                .args(["--resolve", &resolve, "--cacert"])
                .arg(self.site.folder().join("authority.pem"))
                .args(arguments),
        );
        assert_eq!(ended.code, Some(0), "curl {arguments:?}: {ended:?}");
        let (body, mark) = ended
            .stdout
            .rsplit_once("\nMARK ")
            .unwrap_or_else(|| panic!("{ended:?}"));
        (body.to_owned(), mark.to_owned())
    }
}

#[test]
fn curl_asks_in_every_protocol() {
    if !installed("curl") {
        return;
    }
    let both = Both::start();
    let secured = format!("https://localhost:{}/a?b=c", both.port());
    let ways: [(&[&str], String, &str); 5] = [
        (&["--http1.1"], both.clear("/a?b=c"), "1.1 200"),
        (&["--http2-prior-knowledge"], both.clear("/a?b=c"), "2 200"),
        (&["--http1.1"], secured.clone(), "1.1 200"),
        (&["--http2"], secured.clone(), "2 200"),
        // What curl does unasked: HTTP/2 by ALPN.
        (&[], secured, "2 200"),
    ];
    for (arguments, url, mark) in ways {
        let (body, told) = both.curl(&[arguments, &[&url]].concat());
        assert_eq!(told, mark, "{arguments:?} {url}");
        assert!(body.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{body}");
    }
    // `h2c` by Upgrade is not offered; the request is answered all the same.
    let (_, told) = both.curl(&["--http2", &both.clear("/")]);
    assert!(told.ends_with(" 200"), "{told}");
    both.upstream.assert_clean();
    both.gateway.stop().assert_nothing_cut();
}

#[test]
fn curl_uploads_in_every_way() {
    if !installed("curl") {
        return;
    }
    let both = Both::start();
    let file = both.site.folder().join("upload");
    let content = "0123456789abcdef".repeat(128 * 1024); // 2 MiB
    fs::write(&file, &content).expect("the test's own folder can be written");
    let data = format!("@{}", file.display());
    let secured = format!("https://localhost:{}/up", both.port());
    let ways: [&[&str]; 5] = [
        &["--http1.1"],
        &["--http1.1", "-H", "Expect: 100-continue"],
        &["--http1.1", "-H", "Transfer-Encoding: chunked"],
        &[
            "--http1.1",
            "-H",
            "Transfer-Encoding: chunked",
            "-H",
            "Expect: 100-continue",
        ],
        &["--http2-prior-knowledge"],
    ];
    for way in ways {
        for url in [both.clear("/up"), secured.clone()] {
            if url.starts_with("https") && way.contains(&"--http2-prior-knowledge") {
                continue;
            }
            let arguments = [way, &["--data-binary", &data, &url]].concat();
            let (body, told) = both.curl(&arguments);
            assert!(told.ends_with(" 200"), "{arguments:?}: {told}");
            assert!(body.starts_with("POST /up HTTP/1.1\r\n"), "{arguments:?}");
            let (_, echoed) = body.split_once("\r\n\r\n").expect("a head was echoed");
            assert!(echoed == content, "{arguments:?}: the body arrives whole");
        }
    }
    let (body, told) = both.curl(&["--http2", "-T", &file.display().to_string(), &secured]);
    assert_eq!(told, "2 200");
    assert!(body.starts_with("PUT /up HTTP/1.1\r\n") && body.ends_with(&content));
    both.upstream.assert_clean();
    both.gateway.stop().assert_nothing_cut();
}

#[test]
fn curl_asks_for_heads_only() {
    if !installed("curl") {
        return;
    }
    let both = Both::start();
    let secured = format!("https://localhost:{}/", both.port());
    for arguments in [
        ["--http1.1", "--head", &both.clear("/")],
        ["--http2-prior-knowledge", "--head", &both.clear("/")],
        ["--http2", "--head", &secured],
    ] {
        let (head, told) = both.curl(&arguments);
        assert!(told.ends_with(" 200"), "{arguments:?}: {told}");
        assert!(
            head.to_ascii_lowercase().contains("content-length: "),
            "{arguments:?}: {head}"
        );
    }
    let (_, told) = both.curl(&["--http1.1", "--path-as-is", &both.clear("/../up")]);
    assert_eq!(told, "1.1 400", "above the root is nowhere");
    both.gateway.stop().assert_nothing_cut();
}

#[test]
fn h2load_and_wrk_see_no_failure() {
    let service = Service::start();
    let (site, authority) = (Site::new(), Authority::new());
    authority
        .issue(&["localhost"])
        .write(site.folder(), "edge")
        .expect("written");
    let secured = format!(
        "[[listener]]\nname = \"tls\"\nbind = \"{}:0\"\ntls = {{ cert = \"edge.pem\", key = \"edge.key\" }}\n",
        site.address()
    );
    site.edit(&document(service.address(), "", &secured));
    let gateway = site.run();
    let clear = format!("http://{}/", gateway.address());
    if installed("h2load") {
        let secured = format!("https://{}/", gateway.listener("tls"));
        let ways: [&[&str]; 3] = [
            &["-n", "3000", "-c", "8", "-m", "16", &clear],
            &["--h1", "-n", "2000", "-c", "8", &clear],
            &["-n", "2000", "-c", "4", "-m", "16", &secured],
        ];
        for way in ways {
            let ended = finish(Command::new("h2load").args(way));
            assert_eq!(ended.code, Some(0), "{way:?}: {ended:?}");
            let line = line_of(&ended, "requests: ");
            assert!(
                line.contains(" 0 failed, 0 errored, 0 timeout")
                    && line.contains(&format!(
                        "{} succeeded",
                        way[way.iter().position(|word| *word == "-n").expect("given") + 1]
                    )),
                "{way:?}: {ended:?}"
            );
        }
    }
    if installed("wrk") {
        let ended = finish(Command::new("wrk").args(["-t1", "-c16", "-d1s", &clear]));
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stdout.contains("Requests/sec"), "{ended:?}");
        for trouble in ["Non-2xx", "Socket errors"] {
            assert!(!ended.stdout.contains(trouble), "{ended:?}");
        }
    }
    gateway.stop().assert_nothing_cut();
}

fn line_of<'a>(ended: &'a Finished, start: &str) -> &'a str {
    let found = ended.stdout.lines().find(|line| line.starts_with(start));
    found.unwrap_or_else(|| panic!("no {start:?} in {ended:?}"))
}
