//! Pages about sagas, for other services and operators (SHOP-512): how one stands, whether the services agree, and the
//! retry of what could not be undone.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Json, Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use uuid::Uuid;

use super::{conductor::Conductor, sagas::Which};
use crate::kit::{caller::Trust, listen::refuse, refusal::Refusal};

/// The last reconciliation's report. Written by the job, read by the page.
pub(super) type Report = Arc<Mutex<Value>>;

#[derive(Clone)]
pub(super) struct Pages {
    pub(super) conductor: Conductor,
    pub(super) trust: Trust,
    pub(super) report: Report,
}

pub(super) fn router(pages: Pages) -> Router {
    Router::new()
        .route("/sagas/{order_id}", get(saga))
        .route("/sagas/{order_id}/retry", post(retry))
        .route("/consistency", get(consistency))
        .route("/debug/sagas/active", get(active))
        .route("/debug/sagas/failed", get(failed))
        // By its own id, or by the order's.
        .route("/debug/sagas/{id}", get(any))
        .with_state(pages)
}

/// Who may look, at which order.
fn asked(pages: &Pages, headers: &HeaderMap, id: &str) -> Result<Uuid, Refusal> {
    pages.trust.of(headers).need_admin()?;
    Uuid::try_parse(id).map_err(|_| Refusal::not_found("order", "order_id", id))
}

async fn saga(State(pages): State<Pages>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    let id = match asked(&pages, &headers, &id) {
        Ok(id) => id,
        Err(refusal) => return refuse(&refusal),
    };
    match pages.conductor.analysis(id).await {
        Ok(told) => Json(told).into_response(),
        Err(refusal) => refuse(&refusal),
    }
}

async fn active(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    list(&pages, &headers, Which::Active).await
}

async fn failed(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    list(&pages, &headers, Which::Failed).await
}

async fn list(pages: &Pages, headers: &HeaderMap, which: Which) -> Response {
    if let Err(refusal) = pages.trust.of(headers).need_admin() {
        return refuse(&refusal);
    }
    match pages.conductor.list(which).await {
        Ok(told) => Json(told).into_response(),
        Err(refusal) => refuse(&refusal),
    }
}

async fn any(State(pages): State<Pages>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    let id = match asked(&pages, &headers, &id) {
        Ok(id) => id,
        Err(refusal) => return refuse(&refusal),
    };
    let told = match pages.conductor.order_of(id).await {
        Ok(order) => pages.conductor.analysis(order).await,
        Err(refusal) => Err(refusal),
    };
    match told {
        Ok(told) => Json(told).into_response(),
        Err(refusal) => refuse(&refusal),
    }
}

async fn retry(State(pages): State<Pages>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    let id = match asked(&pages, &headers, &id) {
        Ok(id) => id,
        Err(refusal) => return refuse(&refusal),
    };
    match pages.conductor.retry(id).await {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(refusal) => refuse(&refusal),
    }
}

async fn consistency(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    if let Err(refusal) = pages.trust.of(&headers).need_admin() {
        return refuse(&refusal);
    }
    let report = pages.report.lock().unwrap_or_else(PoisonError::into_inner);
    Json(report.clone()).into_response()
}
