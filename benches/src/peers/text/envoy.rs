//! Envoy, as its makers build it.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::{Front, KEY};

pub(in crate::peers) fn envoy(front: &Front) -> String {
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
    if front.protected {
        protect(&mut chain, &front.directory.join("access.log"));
    }
    if let Some(file) = &front.descriptors {
        let transcoder = json!({
            "name": "envoy.filters.http.grpc_json_transcoder",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
                "proto_descriptor": file,
                "services": ["shop.v1.Orders"],
            },
        });
        let filters = &mut chain["filters"][0]["typed_config"]["http_filters"];
        if let Some(filters) = filters.as_array_mut() {
            filters.insert(0, transcoder);
        }
    }
    let many = 1_000_000;
    let http = if front.http2 || front.descriptors.is_some() {
        "http2_protocol_options"
    } else {
        "http_protocol_options"
    };
    let outliers = if front.protected {
        json!({ "consecutive_5xx": 5, "max_ejection_percent": 50 })
    } else {
        Value::Null
    };
    let config = json!({ "static_resources": {
        "listeners": [{ "name": "front", "address": address(front.listen), "filter_chains": [chain] }],
        "clusters": [{
            "name": "back",
            "type": "STATIC",
            "connect_timeout": "5s",
            "outlier_detection": outliers,
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

/// A token bucket for the key, the log, and two retries with a budget.
fn protect(chain: &mut Value, log: &Path) {
    let manager = &mut chain["filters"][0]["typed_config"];
    let bucket =
        json!({ "max_tokens": 1_000_000, "tokens_per_fill": 1_000_000, "fill_interval": "1s" });
    let route = &mut manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"];
    route["rate_limits"] = json!([{ "actions": [{ "request_headers": {
        "header_name": "x-api-key", "descriptor_key": "key",
    } }] }]);
    route["retry_policy"] = json!({
        "retry_on": "connect-failure,reset,retriable-status-codes",
        "retriable_status_codes": [502, 503, 504],
        "num_retries": 2,
    });
    let limit = json!({
        "name": "envoy.filters.http.local_ratelimit",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "keys",
            "token_bucket": bucket,
            "filter_enabled": { "default_value": { "numerator": 100 } },
            "filter_enforced": { "default_value": { "numerator": 100 } },
            "descriptors": [{ "entries": [{ "key": "key", "value": KEY }], "token_bucket": bucket }],
        },
    });
    if let Some(filters) = manager["http_filters"].as_array_mut() {
        filters.insert(0, limit);
    }
    let fields = [
        ("time", "%START_TIME%"),
        ("method", "%REQ(:METHOD)%"),
        ("path", "%REQ(:PATH)%"),
        ("status", "%RESPONSE_CODE%"),
        ("duration", "%DURATION%"),
        ("bytes_in", "%BYTES_RECEIVED%"),
        ("bytes_out", "%BYTES_SENT%"),
        ("client", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
        ("user_agent", "%REQ(USER-AGENT)%"),
        ("host", "%REQ(:AUTHORITY)%"),
        ("protocol", "%PROTOCOL%"),
        ("upstream", "%UPSTREAM_CLUSTER%"),
        ("endpoint", "%UPSTREAM_HOST%"),
        ("request_id", "%REQ(X-REQUEST-ID)%"),
    ];
    let format: serde_json::Map<String, Value> = fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    manager["access_log"] = json!([{
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": log,
            "log_format": { "json_format": format },
        },
    }]);
}
