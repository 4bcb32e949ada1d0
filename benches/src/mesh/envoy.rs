//! Two Envoy, as its makers build it: HTTP/2 in mutual TLS between them, the callers' identities checked by RBAC, a local
//! limit, retries, a JSON log on both. Its ciphers cannot be told for TLS 1.3; where the processor has AES it takes AES-128-GCM.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::authority::identity;
use super::pair::{CALLED, CALLER, Sides, Way, dependency};

const TYPES: &str = "type.googleapis.com/envoy.extensions";

/// The first and the second.
pub(super) fn files(sides: &Sides) -> [String; 2] {
    [out(sides), into(sides)].map(|config| format!("{config:#}\n"))
}

fn address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

fn out(sides: &Sides) -> Value {
    let secured = match sides.way {
        Way::ClearBytes => None,
        _ => Some(json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": format!("{TYPES}.transport_sockets.tls.v3.UpstreamTlsContext"),
                "common_tls_context": tls(sides, true),
            },
        })),
    };
    let cluster = |name: &str| {
        let mut cluster = cluster(name, sides.inner, sides.way == Way::Requests);
        if let Some(secured) = &secured {
            cluster["transport_socket"] = secured.clone();
        }
        cluster
    };
    let mut clusters = vec![cluster(CALLED)];
    let mut hosts = Vec::new();
    for name in (0..sides.dependencies).map(dependency) {
        clusters.push(cluster(&name));
        hosts.push(host(&name, &name, &name));
    }
    hosts.push(host("all", "*", CALLED));
    let filter = match sides.way {
        Way::Requests => manager("out", &json!(hosts), Vec::new(), true),
        _ => relay(CALLED),
    };
    json!({ "static_resources": {
        "listeners": [{ "name": "out", "address": address(sides.entrance), "filter_chains": [{ "filters": [filter] }] }],
        "clusters": clusters,
    } })
}

fn into(sides: &Sides) -> Value {
    let filter = match sides.way {
        Way::Requests => manager(
            "into",
            &json!([host("all", "*", "app")]),
            vec![rbac(), limit()],
            false,
        ),
        _ => relay("app"),
    };
    let mut chain = json!({ "filters": [filter] });
    if sides.way != Way::ClearBytes {
        chain["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": format!("{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext"),
                "require_client_certificate": true,
                "common_tls_context": tls(sides, false),
                // As ours, who must not believe a certificate that was revoked meanwhile.
                "disable_stateless_session_resumption": true,
                "disable_stateful_session_resumption": true,
            },
        });
    }
    json!({ "static_resources": {
        "listeners": [{ "name": "into", "address": address(sides.inner), "filter_chains": [chain] }],
        "clusters": [cluster("app", sides.app, false)],
    } })
}

fn tls(sides: &Sides, calls: bool) -> Value {
    let (own, peer) = match calls {
        true => (&sides.caller, CALLED),
        false => (&sides.called, CALLER),
    };
    let protocols = match (sides.way, calls) {
        (Way::Requests, true) => json!(["h2"]),
        (Way::Requests, false) => json!(["h2", "http/1.1"]),
        _ => json!([]),
    };
    json!({
        "alpn_protocols": protocols,
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3",
            "ecdh_curves": ["P-256"],
        },
        "tls_certificates": [{
            "certificate_chain": { "filename": own.chain }, "private_key": { "filename": own.key },
        }],
        "validation_context": {
            "trusted_ca": { "filename": sides.roots },
            "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": { "exact": identity(peer) } }],
        },
    })
}

fn cluster(name: &str, to: SocketAddr, http2: bool) -> Value {
    let http = match http2 {
        true => "http2_protocol_options",
        false => "http_protocol_options",
    };
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "outlier_detection": { "consecutive_5xx": 5, "max_ejection_percent": 50 },
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": format!("{TYPES}.upstreams.http.v3.HttpProtocolOptions"),
            "explicit_http_config": { http: {} },
        } },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(to) } }] }],
        },
    })
}

fn host(name: &str, domain: &str, to: &str) -> Value {
    json!({ "name": name, "domains": [domain], "routes": [{ "match": { "prefix": "/" }, "route": {
        "cluster": to,
        "retry_policy": {
            "retry_on": "connect-failure,reset,retriable-status-codes",
            "retriable_status_codes": [502, 503, 504],
            "num_retries": if to == "app" { 0 } else { 2 },
        },
    } }] })
}

/// `http1`: what comes is known to be that; else it is what was agreed on.
fn manager(name: &str, hosts: &Value, mut filters: Vec<Value>, http1: bool) -> Value {
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": format!("{TYPES}.filters.http.router.v3.Router") },
    }));
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": name,
            "codec_type": if http1 { "HTTP1" } else { "AUTO" },
            "forward_client_cert_details": if http1 { "SANITIZE" } else { "SANITIZE_SET" },
            "set_current_client_cert_details": { "uri": true },
            "route_config": { "virtual_hosts": hosts },
            "http_filters": filters,
            "access_log": [log(name)],
        },
    })
}

fn relay(to: &str) -> Value {
    json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": format!("{TYPES}.filters.network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": to,
            "cluster": to,
        },
    })
}

fn rbac() -> Value {
    json!({
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": format!("{TYPES}.filters.http.rbac.v3.RBAC"),
            "rules": { "action": "ALLOW", "policies": { "callers": {
                "permissions": [{ "any": true }],
                "principals": [{ "authenticated": { "principal_name": { "exact": identity(CALLER) } } }],
            } } },
        },
    })
}

fn limit() -> Value {
    json!({
        "name": "envoy.filters.http.local_ratelimit",
        "typed_config": {
            "@type": format!("{TYPES}.filters.http.local_ratelimit.v3.LocalRateLimit"),
            "stat_prefix": "all",
            "token_bucket": { "max_tokens": 1_000_000, "tokens_per_fill": 1_000_000, "fill_interval": "1s" },
            "filter_enabled": { "default_value": { "numerator": 100 } },
            "filter_enforced": { "default_value": { "numerator": 100 } },
        },
    })
}

fn log(name: &str) -> Value {
    let fields = [
        ("time", "%START_TIME%"),
        ("method", "%REQ(:METHOD)%"),
        ("path", "%REQ(:PATH)%"),
        ("status", "%RESPONSE_CODE%"),
        ("duration", "%DURATION%"),
        ("bytes_in", "%BYTES_RECEIVED%"),
        ("bytes_out", "%BYTES_SENT%"),
        ("client", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
        ("caller", "%DOWNSTREAM_PEER_URI_SAN%"),
        ("host", "%REQ(:AUTHORITY)%"),
        ("protocol", "%PROTOCOL%"),
        ("upstream", "%UPSTREAM_CLUSTER%"),
        ("endpoint", "%UPSTREAM_HOST%"),
        ("request_id", "%REQ(X-REQUEST-ID)%"),
    ];
    let format: serde_json::Map<String, Value> = { fields.into_iter() }
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    json!({
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": format!("{TYPES}.access_loggers.file.v3.FileAccessLog"),
            "path": format!("{name}.log"),
            "log_format": { "json_format": format },
        },
    })
}
