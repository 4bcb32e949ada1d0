//! Serves a service: gRPC on one port, HTTP on another (PROD-20), with health, reflection, metrics, logs, and a stop that
//! lets requests in flight finish (SHOP-105).

use std::{io, net::SocketAddr, time::Duration};

use axum::{
    Json, Router, middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use http::StatusCode;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tonic::{
    Code,
    service::{Routes, RoutesBuilder},
    transport::server::TcpIncoming,
};

use super::{
    caller::Trust, health::Health, log, metrics::Metrics, observe, recent, reflection,
    refusal::Refusal, rest, stop::Stop,
};
use crate::contracts::DESCRIPTORS;

/// Two ports that are bound.
#[derive(Debug)]
pub struct Ports {
    http: TcpListener,
    grpc: TcpListener,
}

/// What is served on them.
pub struct Served {
    /// The name that logs and metrics carry.
    pub service: &'static str,
    /// Its contract's full name, such as `users.v1.UsersService`.
    pub contract: &'static str,
    /// The contract's implementation.
    pub routes: RoutesBuilder,
    /// Pages of the service's own.
    pub pages: Router,
    /// Shown on both ports.
    pub health: Health,
    /// Shown as `/metrics`.
    pub metrics: Metrics,
    /// Who may see the debug pages.
    pub trust: Trust,
    /// How long requests in flight may take after the stop.
    pub drain: Duration,
}

impl Ports {
    /// Binds both. Port 0 takes any; [`Ports::addresses`] tells which.
    pub async fn bind(http: &str, grpc: &str) -> Result<Self, String> {
        let bind = |name: &'static str, address: String| async move {
            TcpListener::bind(&address)
                .await
                .map_err(|error| format!("`{name}`: {address}: {error}"))
        };
        Ok(Self {
            http: bind("http", http.into()).await?,
            grpc: bind("grpc", grpc.into()).await?,
        })
    }

    /// HTTP, then gRPC.
    pub fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.http.local_addr()?, self.grpc.local_addr()?))
    }

    /// Serves until the stop, then until nothing is in flight, for at most `drain`. Says on standard output where, as one
    /// line of JSON, so that whoever started it with port 0 knows.
    pub async fn serve(self, served: Served, stop: Stop) -> Result<(), String> {
        let Served {
            service,
            contract,
            mut routes,
            pages,
            health,
            metrics,
            trust,
            drain,
        } = served;
        let failed = |error: &dyn std::fmt::Display| format!("{service}: {error}");
        let (http, grpc) = self.addresses().map_err(|error| failed(&error))?;

        let (reporter, health_service) = tonic_health::server::health_reporter();
        let serving = tonic_health::ServingStatus::Serving;
        reporter.set_service_status(contract, serving).await;
        routes.add_service(health_service);
        let sets = [
            DESCRIPTORS,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        ];
        let names = [
            contract,
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
        ];
        reflection::add(&mut routes, &sets, &names).map_err(|error| failed(&error))?;

        let around = middleware::from_fn_with_state(metrics.clone(), observe::grpc);
        let grpc_side = routes.routes().into_axum_router();
        let pages = pages.merge(rest::router(contract, &grpc_side));
        let routes = Routes::from(grpc_side.layer(around));
        let grpc_server = tonic::transport::Server::builder()
            // Streams of tiny messages would otherwise look like a flood to HTTP/2.
            .initial_connection_window_size(4 << 20)
            .http2_keepalive_interval(Some(Duration::from_secs(60)))
            .add_routes(routes)
            .serve_with_incoming_shutdown(
                TcpIncoming::from(self.grpc).with_nodelay(Some(true)),
                stop.clone().wait(),
            );

        let page = metrics.clone();
        let router = pages
            .route("/metrics", get(move || async move { page.page() }))
            .route("/descriptors", get(|| async { DESCRIPTORS }))
            .merge(health.clone().router())
            .merge(recent::router(trust))
            .fallback(|| async {
                refuse(&Refusal::new(
                    Code::NotFound,
                    "NOT_FOUND",
                    "there is no such page",
                ))
            })
            .layer(middleware::from_fn_with_state(metrics, observe::http));
        let http_server =
            axum::serve(self.http, router).with_graceful_shutdown(stop.clone().wait());

        health.set_ready(true);
        let told =
            json!({ "listening": service, "http": http.to_string(), "grpc": grpc.to_string() });
        print_line(&told);

        let draining = async {
            stop.wait().await;
            health.set_ready(false);
            reporter
                .set_service_status(contract, tonic_health::ServingStatus::NotServing)
                .await;
            log::info("stopping", &[]);
            tokio::time::sleep(drain).await;
        };
        let both = async { tokio::join!(grpc_server, async { http_server.await }) };
        tokio::select! {
            (grpc, http) = both => {
                grpc.map_err(|error| failed(&error))?;
                http.map_err(|error| failed(&error))?;
                log::info("stopped", &[]);
            }
            () = draining => log::warn("stopped; what was still in flight was cut", &[]),
        }
        Ok(())
    }
}

fn print_line(line: &Value) {
    use io::Write;
    let mut out = io::stdout().lock();
    // A closed standard output is no reason not to serve.
    writeln!(out, "{line}").and_then(|()| out.flush()).ok();
}

/// A refusal over HTTP: status by GW-206, body by GW-807.
pub fn refuse(refusal: &Refusal) -> Response {
    let status = match refusal.code() {
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::FailedPrecondition if refusal.reason() == "PAYMENT_FAILED" => {
            StatusCode::PAYMENT_REQUIRED
        }
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut details: Map<String, Value> = refusal
        .metadata()
        .iter()
        .map(|(key, value)| (key.clone(), value.as_str().into()))
        .collect();
    if !refusal.bad_fields().is_empty() {
        let fields = refusal.bad_fields().iter();
        let fields: Vec<_> = fields
            .map(|(field, message)| json!({ "field": field, "message": message }))
            .collect();
        details.insert("fields".into(), fields.into());
    }
    let trace = observe::current();
    let error = json!({
        "code": refusal.reason(),
        "message": refusal.message(),
        "details": details,
        "status": status.as_u16(),
        "trace_id": trace.as_ref().map(observe::Trace::trace_id),
        "correlation_id": trace.as_ref().map(|trace| trace.correlation_id().to_string()),
    });
    let body = Json(json!({ "success": false, "error": error }));
    match refusal.retry_span() {
        // Whole seconds, and never none: "at once" is no time to wait.
        Some(span) => {
            let seconds = span.as_millis().div_ceil(1000).max(1).to_string();
            (status, [("retry-after", seconds)], body).into_response()
        }
        None => (status, body).into_response(),
    }
}
