//! Payments in their database. Every change of a state is one row in the log of transactions and, where others want to
//! know, one event, in the same transaction (SHOP-451, SHOP-703). Nothing here decides what may happen.

use std::time::Duration;

use serde_json::json;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::domain::{Event, Payment, Status};
use crate::{
    kit::{
        database::{Database, Row, Transaction},
        events,
        migrations::{KIT, Migration},
        money::Money,
        refusal::Refusal,
        time,
    },
    migration, values,
};

/// This service's versions.
pub const MIGRATIONS: [Migration; 2] = [KIT, migration!(2, "002_payments")];

const COLUMNS: &str = "id, order_id, user_id, amount, currency, method, token, status, key, external_id, failure, \
                       refunded, needs_attention, processed_at, created_at, updated_at";

/// By which a payment is looked for.
#[derive(Clone, Copy, Debug)]
pub enum By {
    /// Its own id.
    Id(Uuid),
    /// Its order's.
    Order(Uuid),
}

impl By {
    fn statement(self) -> (String, Uuid) {
        let (column, id) = match self {
            Self::Id(id) => ("id", id),
            Self::Order(id) => ("order_id", id),
        };
        let sql = format!("SELECT {COLUMNS} FROM payments WHERE {column} = $1");
        (sql, id)
    }
}

/// A refund, as it is kept.
#[derive(Clone, Debug)]
pub struct Refund {
    /// Ours.
    pub id: Uuid,
    /// Under which the processor knows it.
    pub key: String,
    /// How much.
    pub amount: Money,
    /// pending, completed, failed.
    pub status: String,
    /// When it came.
    pub created_at: i64,
    /// When it changed.
    pub updated_at: i64,
}

fn payment(row: &Row) -> Result<Payment, sqlx::Error> {
    Ok(Payment {
        id: row.id(0)?,
        order_id: row.id(1)?,
        user_id: row.text(2)?,
        amount: Money::from_minor(row.int(3)?),
        currency: row.text(4)?,
        method: row.text(5)?,
        token: row.text(6)?,
        // Only words of the type are ever written.
        status: Status::of(&row.text(7)?).unwrap_or(Status::Failed),
        key: row.text(8)?,
        external: row.optional_text(9)?,
        failure: row.optional_text(10)?,
        refunded: Money::from_minor(row.int(11)?),
        needs_attention: row.flag(12)?,
        processed_at: row.optional_int(13)?,
        created_at: row.int(14)?,
        updated_at: row.int(15)?,
    })
}

/// One payment.
pub async fn find(database: &Database, by: By) -> Result<Option<Payment>, sqlx::Error> {
    let (sql, id) = by.statement();
    let row = database.first(AssertSqlSafe(sql), values![id]).await?;
    row.as_ref().map(payment).transpose()
}

/// One payment, within a change.
pub async fn find_in(write: &mut Transaction, by: By) -> Result<Option<Payment>, sqlx::Error> {
    let (sql, id) = by.statement();
    let row = write.first(AssertSqlSafe(sql), values![id]).await?;
    row.as_ref().map(payment).transpose()
}

/// A new payment, which `lease` may bring on. Of several for one order only one is made: `false` to the others.
pub async fn insert(
    write: &mut Transaction,
    new: &Payment,
    secret: Option<&str>,
    lease: Option<(Uuid, i64)>,
) -> Result<bool, sqlx::Error> {
    let sql = "INSERT INTO payments (id, order_id, user_id, amount, currency, method, token, status, key, \
               client_secret, created_at, updated_at, lease, lease_until) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, $12, $13) ON CONFLICT (order_id) DO NOTHING";
    let made = write
        .execute(
            sql,
            values![
                new.id,
                new.order_id,
                &new.user_id,
                new.amount.minor(),
                &new.currency,
                &new.method,
                &new.token,
                new.status.word(),
                &new.key,
                secret,
                new.created_at,
                lease.map(|(lease, _)| lease),
                lease.map_or(0, |(_, until)| until),
            ],
        )
        .await?;
    if made == 1 {
        log(write, new, "initiated", "", new.created_at).await?;
        tell(write, new, "payment.initiated.v1", new.created_at).await?;
    }
    Ok(made == 1)
}

/// What an intent is confirmed with.
pub async fn choose_method(write: &mut Transaction, chosen: &Payment) -> Result<(), sqlx::Error> {
    let sql = "UPDATE payments SET method = $2, token = $3 WHERE id = $1";
    let row = values![chosen.id, &chosen.method, &chosen.token];
    write.execute(sql, row).await.map(drop)
}

/// The secret that an intent was given out with.
pub async fn secret(database: &Database, id: Uuid) -> Result<Option<String>, sqlx::Error> {
    let sql = "SELECT client_secret FROM payments WHERE id = $1";
    match database.first(sql, values![id]).await? {
        Some(row) => row.optional_text(0),
        None => Ok(None),
    }
}

/// Takes a payment to bring it on, unless somebody else has it.
pub async fn lease(
    database: &Database,
    id: Uuid,
    span: Duration,
) -> Result<Option<(Payment, Uuid)>, sqlx::Error> {
    let (mut write, now) = (database.write().await?, time::now());
    let lease = Uuid::new_v4();
    let sql = "UPDATE payments SET lease = $2, lease_until = $3 WHERE id = $1 AND (lease IS NULL OR lease_until < $4)";
    let mine = write
        .execute(sql, values![id, lease, time::after(now, span), now])
        .await?;
    let found = match mine {
        1 => find_in(&mut write, By::Id(id)).await?,
        _ => None,
    };
    write.commit().await?;
    Ok(found.map(|payment| (payment, lease)))
}

/// Lets it go.
pub async fn release(database: &Database, id: Uuid, lease: Uuid) -> Result<(), sqlx::Error> {
    let mut write = database.write().await?;
    let sql = "UPDATE payments SET lease = NULL, lease_until = 0 WHERE id = $1 AND lease = $2";
    write.execute(sql, values![id, lease]).await?;
    write.commit().await
}

/// Lets everything go that a process held that is no more. Only where no other process has this database.
pub async fn release_all(database: &Database) -> Result<u64, sqlx::Error> {
    let mut write = database.write().await?;
    let sql = "UPDATE payments SET lease = NULL, lease_until = 0 WHERE lease IS NOT NULL";
    let freed = write.execute(sql, &[]).await?;
    write.commit().await?;
    Ok(freed)
}

/// Keeps a payment that changed by an event, if `lease` still has it.
pub async fn change(
    write: &mut Transaction,
    changed: &Payment,
    event: Event,
    lease: Uuid,
    detail: &str,
) -> Result<(), Refusal> {
    let sql = "UPDATE payments SET status = $3, external_id = $4, failure = $5, refunded = $6, needs_attention = $7, \
               processed_at = $8, updated_at = $9 WHERE id = $1 AND lease = $2";
    let now = changed.updated_at;
    let row = values![
        changed.id,
        lease,
        changed.status.word(),
        &changed.external,
        &changed.failure,
        changed.refunded.minor(),
        changed.needs_attention,
        changed.processed_at,
        now,
    ];
    if write.execute(sql, row).await? != 1 {
        // Somebody else thought us dead and brings it on.
        return Err(crate::kit::idempotency::in_progress());
    }
    log(write, changed, event.word(), detail, now).await?;
    match event {
        Event::Captured => {
            let sql = "INSERT INTO receipts (payment_id, amount, currency, at) VALUES ($1, $2, $3, $4) \
                       ON CONFLICT (payment_id) DO NOTHING";
            let row = values![changed.id, changed.amount.minor(), &changed.currency, now];
            write.execute(sql, row).await?;
            tell(write, changed, "payment.completed.v1", now).await?;
        }
        Event::Declined | Event::CaptureRejected | Event::Voided => {
            tell(write, changed, "payment.failed.v1", now).await?;
        }
        Event::Refunded | Event::RefundedInPart => {
            tell(write, changed, "payment.refunded.v1", now).await?;
        }
        _ => {}
    }
    Ok(())
}

async fn log(
    write: &mut Transaction,
    payment: &Payment,
    event: &str,
    detail: &str,
    now: i64,
) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO transactions (id, payment_id, event, status, detail, at) VALUES ($1, $2, $3, $4, $5, $6)";
    let status = payment.status.word();
    let row = values![Uuid::now_v7(), payment.id, event, status, detail, now];
    write.execute(sql, row).await.map(drop)
}

async fn tell(
    write: &mut Transaction,
    payment: &Payment,
    kind: &str,
    now: i64,
) -> Result<(), sqlx::Error> {
    let id = payment.id.to_string();
    let event = events::Event {
        kind,
        aggregate_id: &id,
        version: 1,
        actor: "payments",
    };
    let payload = json!({
        "payment_id": id,
        "order_id": payment.order_id.to_string(),
        "amount": payment.amount.to_string(),
        "currency": payment.currency,
        "status": payment.status.word(),
        "reason": payment.failure,
        "refund_amount": payment.refunded.to_string(),
    });
    events::append(write, event, &payload, now).await
}

/// No payment for this order may begin any more. Waits for one that is about to begin.
pub async fn close_order(
    write: &mut Transaction,
    order: Uuid,
    now: i64,
) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO known_orders (order_id, closed, at) VALUES ($1, TRUE, $2) \
               ON CONFLICT (order_id) DO UPDATE SET closed = TRUE";
    write.execute(sql, values![order, now]).await.map(drop)
}

/// Whether that was said. Nobody says it until this change is made.
pub async fn is_closed(
    write: &mut Transaction,
    order: Uuid,
    now: i64,
) -> Result<bool, sqlx::Error> {
    let sql = "INSERT INTO known_orders (order_id, closed, at) VALUES ($1, FALSE, $2) \
               ON CONFLICT (order_id) DO UPDATE SET at = known_orders.at RETURNING closed";
    let row = write.first(sql, values![order, now]).await?;
    row.map_or(Ok(false), |row| row.flag(0))
}

/// A refund that is about to be made; its id, which is the former one's when the same was refused before.
pub async fn begin_refund(
    write: &mut Transaction,
    payment: &Payment,
    refund: &Refund,
    reason: &str,
) -> Result<Uuid, sqlx::Error> {
    let sql = "INSERT INTO refunds (id, payment_id, key, amount, reason, status, created_at, updated_at) \
               VALUES ($1, $2, $3, $4, $5, 'pending', $6, $6) ON CONFLICT (key) DO UPDATE \
               SET status = 'pending', amount = EXCLUDED.amount, updated_at = EXCLUDED.updated_at RETURNING id";
    let (amount, at) = (refund.amount.minor(), refund.created_at);
    let row = values![refund.id, payment.id, &refund.key, amount, reason, at];
    let row = write.first(sql, row).await?;
    row.map_or(Ok(refund.id), |row| row.id(0))
}

/// The refund of a payment that is being made.
pub async fn open_refund(
    database: &Database,
    payment: Uuid,
) -> Result<Option<Refund>, sqlx::Error> {
    let sql = "SELECT id, key, amount, status, created_at, updated_at FROM refunds \
               WHERE payment_id = $1 AND status = 'pending'";
    let row = database.first(sql, values![payment]).await?;
    row.map(|row| {
        Ok(Refund {
            id: row.id(0)?,
            key: row.text(1)?,
            amount: Money::from_minor(row.int(2)?),
            status: row.text(3)?,
            created_at: row.int(4)?,
            updated_at: row.int(5)?,
        })
    })
    .transpose()
}

/// How a refund ended.
pub async fn end_refund(
    write: &mut Transaction,
    refund: Uuid,
    status: &str,
    now: i64,
) -> Result<(), sqlx::Error> {
    let sql = "UPDATE refunds SET status = $2, updated_at = $3 WHERE id = $1";
    write
        .execute(sql, values![refund, status, now])
        .await
        .map(drop)
}

/// Keeps a method for later orders; a user's first one is the default.
pub async fn keep_method(
    write: &mut Transaction,
    token: &str,
    user: &str,
    kind: &str,
    last_four: &str,
    now: i64,
) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO payment_methods (token, user_id, kind, last_four, is_default, created_at) \
               SELECT $1, $2, $3, $4, NOT EXISTS (SELECT 1 FROM payment_methods WHERE user_id = $2), $5";
    write
        .execute(sql, values![token, user, kind, last_four, now])
        .await
        .map(drop)
}

/// Whose a token is, its kind and its last four digits.
pub async fn method(
    database: &Database,
    token: &str,
) -> Result<Option<(String, String, String)>, sqlx::Error> {
    let sql = "SELECT user_id, kind, last_four FROM payment_methods WHERE token = $1";
    let row = database.first(sql, values![token]).await?;
    row.map(|row| Ok((row.text(0)?, row.text(1)?, row.text(2)?)))
        .transpose()
}

/// Payments that somebody left half done before `before`: being taken, or being given back.
pub async fn left_behind(database: &Database, before: i64) -> Result<Vec<Uuid>, sqlx::Error> {
    let sql = "SELECT id FROM payments WHERE status IN ('PROCESSING', 'REFUNDING') AND updated_at < $1 \
               AND NOT needs_attention ORDER BY updated_at LIMIT 100";
    let rows = database.fetch(sql, values![before]).await?;
    rows.iter().map(|row| row.id(0)).collect()
}

/// Amount, currency and time of a payment's receipt.
pub async fn receipt(
    database: &Database,
    payment: Uuid,
) -> Result<Option<(i64, String, i64)>, sqlx::Error> {
    let sql = "SELECT amount, currency, at FROM receipts WHERE payment_id = $1";
    let row = database.first(sql, values![payment]).await?;
    row.map(|row| Ok((row.int(0)?, row.text(1)?, row.int(2)?)))
        .transpose()
}
