//! The configuration of each proxy: one worker, no access log, upstream connections kept and used again, every limit that
//! the load could meet raised, and nothing else changed.

#![expect(
    clippy::let_underscore_must_use,
    reason = "writing to a string cannot fail"
)]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// One front address and one upstream: what every proxy is asked to be.
#[derive(Debug, Clone)]
pub(super) struct Front {
    pub(super) listen: SocketAddr,
    pub(super) upstream: SocketAddr,
    /// Clear-text HTTP/2 on both sides instead of HTTP/1.1.
    pub(super) http2: bool,
    pub(super) certificate: Option<Certificate>,
    /// For files that the proxy wants to write.
    pub(super) directory: PathBuf,
    /// Tollgate only.
    pub(super) admin: SocketAddr,
    /// Tollgate only.
    pub(super) routes: Routes,
}

/// Files of a certificate.
#[derive(Debug, Clone)]
pub(super) struct Certificate {
    pub(super) chain: PathBuf,
    pub(super) key: PathBuf,
    /// Both in one file.
    pub(super) both: PathBuf,
}

/// Tollgate's routes. Route 0 takes `/*`; route n takes `/group-G/route-n/{name}`.
#[derive(Debug, Clone, Default)]
pub(super) struct Routes {
    /// Beside route 0.
    pub(super) more: usize,
    /// A route and the value of the `x-mark` header that its answers bear, so that a change is seen from outside.
    pub(super) marks: Vec<(usize, u64)>,
}

impl Routes {
    /// A request path that ends at this route.
    pub(super) fn path(number: usize, last: &str) -> String {
        if number == 0 {
            format!("/{last}")
        } else {
            format!("/group-{}/route-{number}/{last}", number % 50)
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for number in 0..=self.more {
            let pattern = if number == 0 {
                "/*".to_owned()
            } else {
                Routes::path(number, "{name}")
            };
            let _ = write!(
                text,
                "\n[[route]]\nname = \"route-{number}\"\nmatch = {{ path = \"{pattern}\" }}\nupstream = \"back\"\n"
            );
            if let Some((_, mark)) = self.marks.iter().find(|(marked, _)| *marked == number) {
                let _ = writeln!(
                    text,
                    "filters = [{{ set_headers = {{ response = {{ x-mark = \"{mark}\" }} }} }}]"
                );
            }
        }
        text
    }
}

pub(super) fn tollgate(front: &Front) -> String {
    let Front {
        listen,
        upstream,
        admin,
        ..
    } = front;
    let tls = match &front.certificate {
        None => String::new(),
        Some(files) => {
            format!(
                "tls = {{ cert = {}, key = {} }}\n",
                quoted(&files.chain),
                quoted(&files.key)
            )
        }
    };
    let protocol = if front.http2 { "http2" } else { "http1" };
    format!(
        r#"[server]
workers = 1
admin = "{admin}"

[[listener]]
name = "front"
bind = "{listen}"
{tls}
[[upstream]]
name = "back"
endpoints = ["{upstream}"]
protocol = "{protocol}"

[telemetry]
access_log = "off"
{}"#,
        front.routes.text()
    )
}

/// A TOML string; a JSON string is one.
fn quoted(path: &Path) -> Value {
    json!(path)
}

/// HTTP/1.1 upstream only: this nginx speaks no HTTP/2 to upstreams.
pub(super) fn nginx(front: &Front) -> String {
    let Front {
        listen, upstream, ..
    } = front;
    let directory = front.directory.display();
    // Workers of a master that runs as root would become somebody who may not enter the directory.
    let user = if rustix::process::geteuid().is_root() {
        "user root;\n"
    } else {
        ""
    };
    let (ssl, files) = match &front.certificate {
        None => ("", String::new()),
        Some(files) => (
            " ssl",
            format!(
                "ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.3;",
                files.chain.display(),
                files.key.display()
            ),
        ),
    };
    format!(
        r#"{user}daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {directory}/nginx.pid;
error_log {directory}/error.log error;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream back {{
        server {upstream};
        keepalive 128;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {listen}{ssl} backlog=4096;
        {files}
        location / {{
            proxy_pass http://back;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_max_temp_file_size 0;
        }}
    }}
}}
"#
    )
}

pub(super) fn haproxy(front: &Front) -> String {
    let Front {
        listen, upstream, ..
    } = front;
    let bind = match (&front.certificate, front.http2) {
        (Some(files), _) => format!(" ssl crt {} alpn http/1.1", files.both.display()),
        (None, true) => " proto h2".to_owned(),
        (None, false) => String::new(),
    };
    let server = if front.http2 { " proto h2" } else { "" };
    format!(
        r#"global
    nbthread 1
    maxconn 9000
    ssl-default-bind-options ssl-min-ver TLSv1.3

defaults
    mode http
    timeout connect 5s
    timeout client 75s
    timeout server 75s
    timeout http-keep-alive 75s
    http-reuse always

frontend front
    bind {listen}{bind} backlog 4096
    default_backend back

backend back
    server one {upstream}{server}
"#
    )
}

pub(super) fn envoy(front: &Front) -> String {
    let address = |address: SocketAddr| json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } });
    let mut chain = json!({ "filters": [{
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "front",
            "codec_type": if front.http2 { "HTTP2" } else { "HTTP1" },
            "route_config": { "virtual_hosts": [{
                "name": "all", "domains": ["*"],
                "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "back" } }],
            }] },
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
            }],
        },
    }] });
    if let Some(files) = &front.certificate {
        chain["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {
                    "alpn_protocols": ["http/1.1"],
                    "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
                    "tls_certificates": [{
                        "certificate_chain": { "filename": files.chain }, "private_key": { "filename": files.key },
                    }],
                },
            },
        });
    }
    let many = 1_000_000;
    let http = if front.http2 {
        "http2_protocol_options"
    } else {
        "http_protocol_options"
    };
    let config = json!({ "static_resources": {
        "listeners": [{ "name": "front", "address": address(front.listen), "filter_chains": [chain] }],
        "clusters": [{
            "name": "back",
            "type": "STATIC",
            "connect_timeout": "5s",
            "circuit_breakers": { "thresholds": [{
                "max_connections": many, "max_pending_requests": many, "max_requests": many, "max_retries": many,
            }] },
            "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { http: {} },
            } },
            "load_assignment": {
                "cluster_name": "back",
                "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(front.upstream) } }] }],
            },
        }],
    } });
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loader reads what the benchmarks write; a key that changes its meaning is noticed here and not in a figure.
    #[test]
    fn the_gateway_reads_its_own_configuration() {
        let any = SocketAddr::from(([127, 0, 0, 1], 9));
        for http2 in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let front = Front {
                listen: any,
                upstream: any,
                http2,
                certificate: None,
                directory: directory.path().to_owned(),
                admin: ([127, 0, 0, 1], 10).into(),
                routes: Routes {
                    more: 3,
                    marks: vec![(0, 7), (2, 8)],
                },
            };
            let file = directory.path().join("gateway.toml");
            std::fs::write(&file, tollgate(&front)).unwrap();
            let read = tollgate_config::Loader::new().load(&file);
            let document = read.unwrap_or_else(|problems| panic!("{problems:?}"));
            assert_eq!(document.routes.len(), 4);
        }
    }
}
