//! What happened, written with the change itself (SHOP-703, SHOP-704): the outbox.
//!
//! An event is appended in the transaction of its change, so there is never one without the other. Readers take events in
//! one order that never changes, from a position that they keep themselves: at least once, and each event has an id by
//! which a consumer tells a repetition.

use axum::{
    Json, Router,
    extract::{Query, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    caller::Trust,
    database::{Database, Dialect, Transaction},
    observe, time,
};
use crate::values;

/// What is written about one change.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// With its version, such as `user.registered.v1`.
    pub kind: &'a str,
    /// Whose change it is: a user, a product, an order …
    pub aggregate_id: &'a str,
    /// The aggregate's version after the change.
    pub version: i64,
    /// Who did it.
    pub actor: &'a str,
}

/// Appends an event to the change that `write` is.
pub async fn append(
    write: &mut Transaction,
    event: Event<'_>,
    payload: &Value,
    now: i64,
) -> Result<(), sqlx::Error> {
    let trace = observe::current().map(|trace| trace.trace_id());
    let metadata = json!({ "trace_id": trace, "actor": event.actor }).to_string();
    write
        .execute(
            "INSERT INTO events (id, type, aggregate_id, version, at, payload, metadata) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            values![
                Uuid::now_v7(),
                event.kind,
                event.aggregate_id,
                event.version,
                now,
                &payload.to_string(),
                &metadata,
            ],
        )
        .await
        .map(drop)
}

/// A page of events: those after a position, and the position to go on from.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// In order, each as it is told.
    pub events: Vec<Value>,
    /// What to ask for next; the one asked for, when there was nothing.
    pub next: String,
}

/// The most that is read at once.
const MOST: i64 = 500;

/// Events after `position` (empty: from the beginning), of these types only (none: of all). A type without its version
/// means every version.
pub async fn read(
    database: &Database,
    position: &str,
    kinds: &[&str],
    limit: i64,
) -> Result<Page, sqlx::Error> {
    let (writer, seq) = position
        .split_once('-')
        .and_then(|(writer, seq)| Some((writer.parse().ok()?, seq.parse().ok()?)))
        .unwrap_or((-1i64, -1i64));
    // Types are compared here rather than by the database, so that a page also moves past what is of no interest.
    let sql = match database.dialect() {
        Dialect::Sqlite => {
            "SELECT writer, seq, id, type, aggregate_id, version, at, payload, metadata FROM events \
             WHERE writer > $1 OR (writer = $1 AND seq > $2) ORDER BY writer, seq LIMIT $3"
        }
        Dialect::Postgres => {
            "SELECT writer, seq, id, type, aggregate_id, version, at, payload, metadata FROM events \
             WHERE (writer, seq) > ($1, $2) AND writer < pg_snapshot_xmin(pg_current_snapshot())::text::bigint \
             ORDER BY writer, seq LIMIT $3"
        }
    };
    let rows = database
        .fetch(sql, values![writer, seq, limit.clamp(1, MOST)])
        .await?;
    let mut page = Page {
        events: Vec::new(),
        next: position.to_string(),
    };
    for row in rows {
        page.next = format!("{}-{}", row.int(0)?, row.int(1)?);
        let kind = row.text(3)?;
        let wanted = |wanted: &&str| {
            kind == **wanted
                || kind
                    .rsplit_once(".v")
                    .is_some_and(|(name, _)| name == *wanted)
        };
        if !kinds.is_empty() && !kinds.iter().any(wanted) {
            continue;
        }
        let object = |text: String| serde_json::from_str::<Value>(&text).unwrap_or(Value::Null);
        page.events.push(json!({
            "position": page.next,
            "id": row.id(2)?.to_string(),
            "type": kind,
            "aggregate_id": row.text(4)?,
            "version": row.int(5)?,
            "timestamp": time::text(row.int(6)?),
            "payload": object(row.text(7)?),
            "metadata": object(row.text(8)?),
        }));
    }
    Ok(page)
}

/// Removes events older than `before`. Consumers that were away for longer begin again from the owner's state.
pub async fn sweep(database: &Database, before: i64) -> Result<u64, sqlx::Error> {
    let mut write = database.write().await?;
    let gone = write
        .execute("DELETE FROM events WHERE at < $1", values![before])
        .await?;
    write.commit().await?;
    Ok(gone)
}

#[derive(serde::Deserialize)]
struct Asked {
    #[serde(default)]
    after: String,
    #[serde(default)]
    types: String,
    limit: Option<i64>,
}

/// `GET /events?after=POSITION&types=a,b&limit=N`, for other services and operators.
pub fn router(database: Database, trust: Trust) -> Router {
    Router::new()
        .route("/events", get(page))
        .with_state((database, trust))
}

async fn page(
    State((database, trust)): State<(Database, Trust)>,
    Query(asked): Query<Asked>,
    headers: http::HeaderMap,
) -> Response {
    if let Err(refusal) = trust.of(&headers).need_service() {
        return super::listen::refuse(&refusal);
    }
    let kinds: Vec<_> = asked
        .types
        .split(',')
        .filter(|kind| !kind.is_empty())
        .collect();
    match read(&database, &asked.after, &kinds, asked.limit.unwrap_or(100)).await {
        Ok(page) => (
            StatusCode::OK,
            Json(json!({ "events": page.events, "next": page.next })),
        )
            .into_response(),
        Err(error) => super::listen::refuse(&error.into()),
    }
}
