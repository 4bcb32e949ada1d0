//! Whether the process works, and whether it may get traffic: `/health`, `/health/live`, `/health/ready`, `/ready` and the
//! gRPC health service (OBS-701 to OBS-707). The check asks the database over the connections of real requests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Json, Router, extract::State, response::IntoResponse, routing::get};
use http::StatusCode;
use serde_json::{Value, json};

use super::{database::Database, time};

/// A check that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(1);

/// A process's health. Clones share it.
#[derive(Clone, Debug)]
pub struct Health {
    service: &'static str,
    database: Database,
    began: Instant,
    /// Set when everything is bound, cleared when the process drains.
    ready: Arc<AtomicBool>,
}

impl Health {
    /// Not ready yet.
    pub fn new(service: &'static str, database: Database) -> Self {
        Self {
            service,
            database,
            began: Instant::now(),
            ready: Arc::new(AtomicBool::new(false)),
        }
    }

    /// May get traffic, or no longer.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Ready, and the database answers.
    pub async fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) && self.ask().await.is_ok()
    }

    async fn ask(&self) -> Result<Duration, &'static str> {
        let began = Instant::now();
        match tokio::time::timeout(PATIENCE, self.database.ping()).await {
            Ok(Ok(())) => Ok(began.elapsed()),
            Ok(Err(_)) => Err("it does not answer"),
            Err(_) => Err("it did not answer in time"),
        }
    }

    /// The pages.
    pub fn router(self) -> Router {
        Router::new()
            .route("/health", get(aggregate))
            .route("/health/ready", get(aggregate))
            .route("/ready", get(aggregate))
            .route("/health/live", get(live))
            .with_state(self)
    }

    fn body(&self, status: &str, checks: &Value) -> Value {
        json!({
            "status": status,
            "service": self.service,
            "version": env!("CARGO_PKG_VERSION"),
            "timestamp": time::text(time::now()),
            "uptime": self.began.elapsed().as_secs(),
            "checks": checks,
            "memory": memory(),
        })
    }
}

async fn aggregate(State(health): State<Health>) -> impl IntoResponse {
    let ready = health.ready.load(Ordering::Acquire);
    let database = health.ask().await;
    let checks = json!({
        "database": match &database {
            Ok(took) => json!({ "status": "healthy", "latency_ms": took.as_secs_f64() * 1e3 }),
            Err(why) => json!({ "status": "unhealthy", "latency_ms": null, "error": why }),
        },
        "serving": json!({ "status": if ready { "healthy" } else { "unhealthy" }, "latency_ms": 0 }),
    });
    if ready && database.is_ok() {
        (StatusCode::OK, Json(health.body("healthy", &checks)))
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(health.body("unhealthy", &checks)),
        )
    }
}

/// Answering at all is the proof. A database that is away is no reason to restart.
async fn live(State(health): State<Health>) -> impl IntoResponse {
    Json(health.body("healthy", &json!({})))
}

/// What the process holds in memory, where the system tells it.
fn memory() -> Value {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    json!({ "resident_bytes": kilobytes.map(|kilobytes| kilobytes * 1024) })
}
