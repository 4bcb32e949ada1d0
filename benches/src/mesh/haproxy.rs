//! Two HAProxy, as Debian packages it: the first keeps HTTP/1.1 connections in mutual TLS to the second, which lets in
//! whose certificate names the caller. Nothing that it can do for us is left out: a limit, retries, a JSON log on both.

use super::pair::{CALLED, CALLER, Sides, Way, dependency};

const LOG: &str = r#"log-format '{"time":"%tr","method":"%HM","path":"%HP","status":%ST,"duration":%Ta,"bytes_in":%U,"bytes_out":%B,"client":"%ci","protocol":"%HV","upstream":"%b","endpoint":"%si:%sp","request_id":"%ID"}'"#;

/// The first and the second.
pub(super) fn files(sides: &Sides) -> [String; 2] {
    match sides.way {
        Way::Requests => requests(sides),
        Way::SecuredBytes | Way::ClearBytes => bytes(sides),
    }
}

/// How the first reaches the second, and how that lets it in.
fn secured(sides: &Sides, alpn: &str) -> (String, String) {
    let roots = sides.roots.display();
    (
        format!(
            "ssl crt {} ca-file {roots} verify required verifyhost {CALLED} ciphersuites TLS_AES_128_GCM_SHA256{alpn}",
            sides.caller.both.display()
        ),
        format!(
            "ssl crt {} ca-file {roots} verify required ciphersuites TLS_AES_128_GCM_SHA256 curves P-256{alpn}",
            sides.called.both.display()
        ),
    )
}

fn requests(sides: &Sides) -> [String; 2] {
    let Sides {
        entrance,
        inner,
        app,
        ..
    } = sides;
    let (server, bind) = secured(sides, " alpn http/1.1");
    let global = "global
    nbthread 1
    maxconn 1000
    log stdout format raw local0
    ssl-default-bind-options ssl-min-ver TLSv1.3
    ssl-default-server-options ssl-min-ver TLSv1.3

defaults
    mode http
    timeout connect 5s
    timeout client 75s
    timeout server 75s
    timeout http-keep-alive 75s
    http-reuse always
    log global
    option redispatch
    retries 2
    retry-on conn-failure empty-response response-timeout 502 503 504
    unique-id-format %{+X}o%ci%cp%fi%fp%Ts%rt%pid
    unique-id-header X-Request-Id
";
    let server = format!(
        "server one {inner} {server} check inter 10s downinter 50ms rise 1 observe layer7 error-limit 5 on-error mark-down"
    );
    let many: String = (0..sides.dependencies)
        .map(|number| format!("\nbackend {}\n    {server}\n", dependency(number)))
        .collect();
    let choose = match sides.dependencies {
        0 => "",
        _ => "use_backend %[req.hdr(host)] if { req.hdr(host) -m beg dep- }",
    };
    let out = format!(
        "{global}
frontend out
    bind {entrance}
    {LOG}
    {choose}
    default_backend {CALLED}

backend {CALLED}
    {server}
{many}"
    );
    let into = format!(
        "{global}
frontend into
    bind {inner} {bind}
    {LOG}
    stick-table type string len 64 size 1k expire 1m store http_req_rate(1s)
    http-request track-sc0 str(all)
    http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 1000000 }}
    http-request deny deny_status 403 unless {{ ssl_c_s_dn(cn) -m str {CALLER} }}
    option forwardfor
    default_backend app

backend app
    server one {app}
"
    );
    [out, into]
}

fn bytes(sides: &Sides) -> [String; 2] {
    let Sides {
        entrance,
        inner,
        app,
        ..
    } = sides;
    let (server, bind) = match sides.way {
        Way::ClearBytes => (String::new(), String::new()),
        _ => secured(sides, ""),
    };
    let page = |from: &str, to: &str| {
        format!(
            "global
    nbthread 1
    maxconn 1000

defaults
    mode tcp
    timeout connect 5s
    timeout client 75s
    timeout server 75s
    option splice-auto

listen all
    bind {from}
    server one {to}
"
        )
    };
    [
        page(&entrance.to_string(), &format!("{inner} {server}")),
        page(&format!("{inner} {bind}"), &app.to_string()),
    ]
}
