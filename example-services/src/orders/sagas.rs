//! Sagas in their table: each is driven by one holder of its lease, and every change says whether that is still so
//! (SHOP-504, SHOP-508). Nothing here decides what a saga does.

use std::time::Duration;

use uuid::Uuid;

use super::saga::{Saga, State};
use crate::{
    kit::{
        database::{Database, Row, Transaction},
        time,
    },
    values,
};

/// A saga as it is kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The record.
    pub saga: Saga,
    /// Nothing is left to do.
    pub settled: bool,
    /// A client wants it cancelled, and why.
    pub cancel: Option<String>,
}

/// What a change of a saga found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is kept.
    Kept {
        /// A client wants it cancelled.
        cancel: Option<String>,
    },
    /// Somebody else drives it.
    Lost,
}

const COLUMNS: &str = "record, settled, cancel";

fn kept(row: &Row) -> Result<Kept, sqlx::Error> {
    let saga = serde_json::from_str(&row.text(0)?);
    Ok(Kept {
        saga: saga.map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
        settled: row.flag(1)?,
        cancel: row.optional_text(2)?,
    })
}

fn text(saga: &Saga) -> Result<String, sqlx::Error> {
    serde_json::to_string(saga).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

/// A new saga, which `lease` drives.
pub async fn insert(
    write: &mut Transaction,
    saga: &Saga,
    lease: Uuid,
    until: i64,
) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO sagas (id, order_id, user_id, operation, state, settled, manual, record, created_at, \
               updated_at, lease, lease_until) VALUES ($1, $2, $3, $4, $5, FALSE, FALSE, $6, $7, $7, $8, $9)";
    let record = text(saga)?;
    let row = values![
        saga.id,
        saga.order_id,
        &saga.user_id,
        &saga.operation,
        saga.state.word(),
        &record,
        saga.created_at,
        lease,
        until,
    ];
    write.execute(sql, row).await.map(drop)
}

/// Keeps a saga and goes on holding it until `until`.
pub async fn keep(
    write: &mut Transaction,
    saga: &Saga,
    lease: Uuid,
    until: i64,
) -> Result<Change, sqlx::Error> {
    let sql = "UPDATE sagas SET state = $3, settled = $4, manual = $5, record = $6, updated_at = $7, lease_until = $8, queued_until = $9 \
               WHERE id = $1 AND lease = $2 RETURNING cancel";
    // A good end needs no second look; the other one does.
    let settled = saga.state == State::Completed;
    let record = text(saga)?;
    let row = values![
        saga.id,
        lease,
        saga.state.word(),
        settled,
        saga.compensation.manual,
        &record,
        saga.updated_at,
        until,
        saga.queued_until.filter(|_| saga.queued),
    ];
    Ok(match write.first(sql, row).await? {
        Some(row) => Change::Kept {
            cancel: row.optional_text(0)?,
        },
        None => Change::Lost,
    })
}

/// The saga of an order.
pub async fn of_order(database: &Database, order: Uuid) -> Result<Option<Kept>, sqlx::Error> {
    let sql = format!("SELECT {COLUMNS} FROM sagas WHERE order_id = $1");
    let row = database
        .first(sqlx::AssertSqlSafe(sql), values![order])
        .await?;
    row.as_ref().map(kept).transpose()
}

/// Which sagas are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// At no end.
    Active,
    /// At the other end than the good one.
    Failed,
}

/// Those that changed last, the latest first; of failed ones, those that need a person come before.
pub async fn list(database: &Database, which: Which, limit: i64) -> Result<Vec<Kept>, sqlx::Error> {
    let rule = match which {
        Which::Active => "state NOT IN ('completed', 'failed') ORDER BY updated_at DESC",
        Which::Failed => "state = 'failed' ORDER BY manual DESC, updated_at DESC",
    };
    let sql = format!("SELECT {COLUMNS} FROM sagas WHERE {rule} LIMIT $1");
    let rows = database
        .fetch(sqlx::AssertSqlSafe(sql), values![limit])
        .await?;
    rows.iter().map(kept).collect()
}

/// The order of a saga.
pub async fn order_of(database: &Database, saga: Uuid) -> Result<Option<Uuid>, sqlx::Error> {
    let sql = "SELECT order_id FROM sagas WHERE id = $1";
    let row = database.first(sql, values![saga]).await?;
    row.map(|row| row.id(0)).transpose()
}

/// Whether the order has a saga that is at no end, and that somebody drives or is about to.
pub async fn is_open(database: &Database, order: Uuid) -> Result<bool, sqlx::Error> {
    let sql = "SELECT 1 FROM sagas WHERE order_id = $1 AND state NOT IN ('completed', 'failed') AND queued_until IS NULL";
    Ok(database.first(sql, values![order]).await?.is_some())
}

/// Takes the saga of an order to drive it, unless somebody else does.
pub async fn take(
    write: &mut Transaction,
    order: Uuid,
    now: i64,
    span: Duration,
) -> Result<Option<(Kept, Uuid)>, sqlx::Error> {
    let sql = format!(
        "UPDATE sagas SET lease = $2, lease_until = $3 WHERE order_id = $1 AND lease_until <= $4 RETURNING {COLUMNS}"
    );
    let lease = Uuid::new_v4();
    let row = values![order, lease, time::after(now, span), now];
    let row = write.first(sqlx::AssertSqlSafe(sql), row).await?;
    row.map(|row| Ok((kept(&row)?, lease))).transpose()
}

/// Lets it go.
pub async fn release(database: &Database, saga: Uuid, lease: Uuid) -> Result<(), sqlx::Error> {
    let mut write = database.write().await?;
    let sql = "UPDATE sagas SET lease_until = 0 WHERE id = $1 AND lease = $2";
    write.execute(sql, values![saga, lease]).await?;
    write.commit().await
}

/// Lets everything go that a process held that is no more. Only where no other process has this database.
pub async fn release_all(database: &Database) -> Result<u64, sqlx::Error> {
    let mut write = database.write().await?;
    let sql = "UPDATE sagas SET lease_until = 0 WHERE NOT settled";
    let freed = write.execute(sql, &[]).await?;
    write.commit().await?;
    Ok(freed)
}

/// Tells whoever drives it that the client wants it no more. Says whether there was a saga that still could hear it.
pub async fn wish_cancel(
    write: &mut Transaction,
    order: Uuid,
    reason: &str,
) -> Result<bool, sqlx::Error> {
    let sql = "UPDATE sagas SET cancel = COALESCE(cancel, $2) WHERE order_id = $1 AND state NOT IN ('completed', 'failed')";
    Ok(write.execute(sql, values![order, reason]).await? == 1)
}

/// Orders whose sagas nobody drives and that are not settled, the longest left first. Failed ones come last, so that however
/// many wait for a person hold up none of the others; they are looked at when they are `rested`, or when something of them
/// could not be undone.
pub async fn left(
    database: &Database,
    now: i64,
    rested: Duration,
    limit: i64,
) -> Result<Vec<Uuid>, sqlx::Error> {
    let sql = "SELECT order_id FROM sagas WHERE NOT settled AND lease_until <= $1 \
               AND queued_until IS NULL AND (state <> 'failed' OR manual OR updated_at <= $2) \
               ORDER BY CASE WHEN state = 'failed' THEN 1 ELSE 0 END, manual, updated_at LIMIT $3";
    let before = now - rested.as_millis() as i64;
    let rows = database.fetch(sql, values![now, before, limit]).await?;
    rows.iter().map(|row| row.id(0)).collect()
}

/// Orders that wait for payments, the longest waiting first; only those that may not wait any more at `over`, if that is given.
pub async fn queued(
    database: &Database,
    over: Option<i64>,
    limit: i64,
) -> Result<Vec<Uuid>, sqlx::Error> {
    let sql = "SELECT order_id FROM sagas WHERE queued_until IS NOT NULL AND queued_until <= $1 \
               ORDER BY updated_at LIMIT $2";
    let over = over.unwrap_or(i64::MAX);
    let rows = database.fetch(sql, values![over, limit]).await?;
    rows.iter().map(|row| row.id(0)).collect()
}

/// How many wait for payments.
pub async fn queue_length(database: &Database) -> Result<i64, sqlx::Error> {
    let sql = "SELECT COUNT(*) FROM sagas WHERE queued_until IS NOT NULL";
    let row = database.first(sql, &[]).await?;
    row.map_or(Ok(0), |row| row.int(0))
}

/// Nothing is left to look at, and nobody drives it.
pub async fn settle(database: &Database, saga: &Saga, lease: Uuid) -> Result<(), sqlx::Error> {
    let mut write = database.write().await?;
    let sql = "UPDATE sagas SET settled = TRUE, lease_until = 0 WHERE id = $1 AND lease = $2";
    write.execute(sql, values![saga.id, lease]).await?;
    write.commit().await
}

/// How many need a person.
pub async fn manual(database: &Database) -> Result<i64, sqlx::Error> {
    let row = database
        .first("SELECT COUNT(*) FROM sagas WHERE manual", &[])
        .await?;
    row.map_or(Ok(0), |row| row.int(0))
}

/// Sagas that ended between these times, for a comparison with what others hold.
pub async fn ended(
    database: &Database,
    from: i64,
    to: i64,
    limit: i64,
) -> Result<Vec<Saga>, sqlx::Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM sagas WHERE state IN ('completed', 'failed') AND updated_at > $1 AND updated_at <= $2 \
         ORDER BY updated_at LIMIT $3"
    );
    let rows = database
        .fetch(sqlx::AssertSqlSafe(sql), values![from, to, limit])
        .await?;
    rows.iter().map(|row| Ok(kept(row)?.saga)).collect()
}

/// Removes the records of orders that cannot change any more (SHOP-510), and tells how many.
pub async fn sweep(database: &Database, before: i64) -> Result<u64, sqlx::Error> {
    let mut write = database.write().await?;
    let sql = "DELETE FROM sagas WHERE settled AND updated_at < $1 AND NOT EXISTS (SELECT 1 FROM orders \
               WHERE orders.id = sagas.order_id AND orders.status NOT IN ('CANCELLED', 'DELIVERED', 'RETURNED'))";
    let gone = write.execute(sql, values![before]).await?;
    write.commit().await?;
    Ok(gone)
}
