//! HAProxy, as Debian packages it.

use super::Front;

pub(in crate::peers) fn haproxy(front: &Front) -> String {
    let Front {
        listen, upstream, ..
    } = front;
    let bind = match (&front.certificate, front.http2) {
        (Some(files), _) => format!(" ssl crt {} alpn http/1.1", files.both.display()),
        (None, true) => " proto h2".to_owned(),
        (None, false) => String::new(),
    };
    let server = if front.http2 { " proto h2" } else { "" };
    // Its log goes to standard output, which is a file here.
    let (global, defaults, frontend, watched) = if front.protected {
        (
            "log stdout format raw local0",
            "log global
    option redispatch
    retries 2
    retry-on conn-failure empty-response response-timeout 502 503 504",
            r#"stick-table type string len 64 size 100k expire 1m store http_req_rate(1s)
    http-request track-sc0 req.hdr(x-api-key)
    http-request deny deny_status 429 if { sc_http_req_rate(0) gt 1000000 }
    unique-id-format %{+X}o%ci%cp%fi%fp%Ts%rt%pid
    unique-id-header X-Request-Id
    option forwardfor
    log-format '{"time":"%tr","method":"%HM","path":"%HP","status":%ST,"duration":%Ta,"bytes_in":%U,"bytes_out":%B,"client":"%ci","protocol":"%HV","upstream":"%b","endpoint":"%si:%sp","request_id":"%ID"}'"#,
            " check inter 10s observe layer7 error-limit 5 on-error mark-down",
        )
    } else {
        ("", "", "", "")
    };
    format!(
        r#"global
    nbthread 1
    maxconn 9000
    {global}
    ssl-default-bind-options ssl-min-ver TLSv1.3

defaults
    mode http
    timeout connect 5s
    timeout client 75s
    timeout server 75s
    timeout http-keep-alive 75s
    http-reuse always
    {defaults}

frontend front
    bind {listen}{bind} backlog 4096
    {frontend}
    default_backend back

backend back
    server one {upstream}{server}{watched}
"#
    )
}
