//! Orders in their tables. Every change of a state has its line in the history and, where others want to know, its event,
//! in the same transaction (SHOP-401, SHOP-405, SHOP-703). Nothing here decides what may happen.

use serde_json::json;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{
    domain::{Address, Line, Status, Sums},
    notices,
    saga::Saga,
};
use crate::{
    kit::{
        database::{Database, Row, Transaction},
        events,
        migrations::{KIT, Migration},
        refusal::Refusal,
    },
    migration, values,
};

/// This service's versions.
pub const MIGRATIONS: [Migration; 3] = [
    KIT,
    migration!(2, "002_orders"),
    migration!(3, "003_waiting"),
];

/// One line with what was shipped of it.
#[derive(Clone, Debug)]
pub struct Item {
    /// What was bought.
    pub line: Line,
    /// How many are on their way.
    pub shipped: i64,
}

/// One line of the history.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The state that was reached.
    pub status: Status,
    /// Why.
    pub note: String,
    /// When.
    pub at: i64,
    /// By whom.
    pub actor: String,
}

/// One order.
#[derive(Clone, Debug)]
pub struct Order {
    /// Ours.
    pub id: Uuid,
    /// Whose.
    pub user_id: String,
    /// Where it stands.
    pub status: Status,
    /// What it costs.
    pub sums: Sums,
    /// ISO 4217.
    pub currency: String,
    /// Where it goes.
    pub address: Address,
    /// How.
    pub shipping_method: String,
    /// The client's.
    pub notes: String,
    /// Payments' name for what was paid.
    pub payment_id: Option<String>,
    /// Why it was cancelled.
    pub cancel_reason: Option<String>,
    /// The carrier's.
    pub tracking_number: Option<String>,
    /// Rises with each change.
    pub version: i64,
    /// When it came.
    pub created_at: i64,
    /// When it changed.
    pub updated_at: i64,
    /// Its lines.
    pub items: Vec<Item>,
    /// Its history.
    pub history: Vec<Entry>,
}

/// What changes about an order besides its state.
#[derive(Clone, Copy, Debug, Default)]
pub struct With<'a> {
    /// The history's note.
    pub note: &'a str,
    /// Who did it.
    pub actor: &'a str,
    /// Set when paid.
    pub payment_id: Option<&'a str>,
    /// Set when cancelled.
    pub reason: Option<&'a str>,
    /// Set when shipped.
    pub tracking: Option<&'a str>,
}

const COLUMNS: &str = "id, user_id, status, sub_total, tax, shipping, total, currency, street, city, state, zip_code, \
                       country, shipping_method, notes, payment_id, cancel_reason, tracking_number, version, \
                       created_at, updated_at";

fn order(row: &Row) -> Result<Order, sqlx::Error> {
    Ok(Order {
        id: row.id(0)?,
        user_id: row.text(1)?,
        status: status(&row.text(2)?)?,
        sums: Sums {
            sub_total: row.int(3)?,
            tax: row.int(4)?,
            shipping: row.int(5)?,
            total: row.int(6)?,
        },
        currency: row.text(7)?,
        address: Address {
            street: row.text(8)?,
            city: row.text(9)?,
            state: row.text(10)?,
            zip_code: row.text(11)?,
            country: row.text(12)?,
        },
        shipping_method: row.text(13)?,
        notes: row.text(14)?,
        payment_id: row.optional_text(15)?,
        cancel_reason: row.optional_text(16)?,
        tracking_number: row.optional_text(17)?,
        version: row.int(18)?,
        created_at: row.int(19)?,
        updated_at: row.int(20)?,
        items: Vec::new(),
        history: Vec::new(),
    })
}

pub(super) fn status(word: &str) -> Result<Status, sqlx::Error> {
    Status::of(word).ok_or_else(|| sqlx::Error::Decode("no state of an order".into()))
}

/// One order with its lines and history.
pub async fn find(database: &Database, id: Uuid) -> Result<Option<Order>, sqlx::Error> {
    let sql = format!("SELECT {COLUMNS} FROM orders WHERE id = $1");
    let Some(row) = database.first(AssertSqlSafe(sql), values![id]).await? else {
        return Ok(None);
    };
    let mut found = order(&row)?;
    let sql = "SELECT product_id, quantity, unit_price, shipped FROM order_items WHERE order_id = $1 ORDER BY line";
    for row in database.fetch(sql, values![id]).await? {
        found.items.push(Item {
            line: Line {
                product_id: row.text(0)?,
                quantity: row.int(1)?,
                unit_price: row.int(2)?,
            },
            shipped: row.int(3)?,
        });
    }
    let sql = "SELECT status, note, at, actor FROM order_status_history WHERE order_id = $1 ORDER BY entry";
    for row in database.fetch(sql, values![id]).await? {
        found.history.push(Entry {
            status: status(&row.text(0)?)?,
            note: row.text(1)?,
            at: row.int(2)?,
            actor: row.text(3)?,
        });
    }
    Ok(Some(found))
}

/// State and version of an order, within a change.
pub async fn standing(
    write: &mut Transaction,
    id: Uuid,
) -> Result<Option<(Status, i64)>, sqlx::Error> {
    let sql = "SELECT status, version FROM orders WHERE id = $1";
    let row = write.first(sql, values![id]).await?;
    row.map(|row| Ok((status(&row.text(0)?)?, row.int(1)?)))
        .transpose()
}

/// Step 3: the order's row, `RESERVED`. Again it does nothing.
pub async fn insert(write: &mut Transaction, saga: &Saga, now: i64) -> Result<(), sqlx::Error> {
    let (asked, sums) = (&saga.data.asked, saga.data.sums);
    let sql = "INSERT INTO orders (id, user_id, status, sub_total, tax, shipping, total, currency, street, city, state, \
               zip_code, country, shipping_method, notes, version, created_at, updated_at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 1, $16, $17) \
               ON CONFLICT (id) DO NOTHING";
    let row = values![
        saga.order_id,
        &saga.user_id,
        Status::Reserved.word(),
        sums.sub_total,
        sums.tax,
        sums.shipping,
        sums.total,
        &saga.data.currency,
        &asked.address.street,
        &asked.address.city,
        &asked.address.state,
        &asked.address.zip_code,
        &asked.address.country,
        &asked.shipping_method,
        &asked.notes,
        saga.created_at,
        now,
    ];
    if write.execute(sql, row).await? == 0 {
        return Ok(());
    }
    for (index, line) in asked.lines.iter().enumerate() {
        let sql = "INSERT INTO order_items (order_id, line, product_id, quantity, unit_price) VALUES ($1, $2, $3, $4, $5)";
        let (index, price) = (index as i64, line.unit_price);
        let row = values![saga.order_id, index, &line.product_id, line.quantity, price];
        write.execute(sql, row).await?;
    }
    let actor = &saga.user_id;
    entry(
        write,
        saga.order_id,
        Status::Created,
        "",
        saga.created_at,
        actor,
    )
    .await?;
    entry(write, saga.order_id, Status::Reserved, "", now, "saga").await?;
    let items = asked.lines.iter().map(|line| {
        json!({
            "product_id": line.product_id,
            "quantity": line.quantity,
            "price": crate::kit::money::Money::from_minor(line.unit_price).to_string(),
        })
    });
    let payload = json!({
        "order_id": saga.order_id.to_string(),
        "customer_id": saga.user_id,
        "items": items.collect::<Vec<_>>(),
    });
    tell(
        write,
        saga.order_id,
        "order.created.v2",
        1,
        actor,
        &payload,
        now,
    )
    .await
}

/// Changes an order's state, if it may; `false` when it stood there already.
pub async fn change(
    write: &mut Transaction,
    id: Uuid,
    next: Status,
    with: With<'_>,
    now: i64,
) -> Result<bool, Refusal> {
    let Some((before, version)) = standing(write, id).await? else {
        return Err(Refusal::not_found("order", "order_id", &id.to_string()));
    };
    if before == next {
        return Ok(false);
    }
    if !before.may_become(next) {
        return Err(before.refuse(next.word()));
    }
    let sql = "UPDATE orders SET status = $2, version = version + 1, updated_at = $3, \
               payment_id = COALESCE($4, payment_id), cancel_reason = COALESCE($5, cancel_reason), \
               tracking_number = COALESCE($6, tracking_number) WHERE id = $1 AND version = $7";
    let row = values![
        id,
        next.word(),
        now,
        with.payment_id,
        with.reason,
        with.tracking,
        version
    ];
    if write.execute(sql, row).await? != 1 {
        return Err(conflict());
    }
    entry(write, id, next, with.note, now, with.actor).await?;
    notices::owe(write, id, next, with.reason, now).await?;
    let kind = match next {
        Status::Confirmed => "order.confirmed.v1",
        Status::Shipped => "order.shipped.v1",
        Status::Delivered => "order.delivered.v1",
        Status::Cancelled => "order.cancelled.v1",
        Status::Returned => "order.returned.v1",
        Status::Created | Status::Reserved | Status::Paid => return Ok(true),
    };
    let payload = json!({ "order_id": id.to_string(), "note": with.note, "reason": with.reason });
    tell(write, id, kind, version + 1, with.actor, &payload, now).await?;
    Ok(true)
}

/// Somebody else changed it meanwhile (SHOP-409).
pub fn conflict() -> Refusal {
    Refusal::new(
        tonic::Code::Aborted,
        "VERSION_CONFLICT",
        "the order was changed meanwhile; read it again",
    )
}

async fn tell(
    write: &mut Transaction,
    id: Uuid,
    kind: &str,
    version: i64,
    actor: &str,
    payload: &serde_json::Value,
    now: i64,
) -> Result<(), sqlx::Error> {
    let id = id.to_string();
    let event = events::Event {
        kind,
        aggregate_id: &id,
        version,
        actor,
    };
    events::append(write, event, payload, now).await
}

/// A line of the history that is no change of the state, such as a part that was shipped.
pub async fn entry(
    write: &mut Transaction,
    id: Uuid,
    status: Status,
    note: &str,
    at: i64,
    actor: &str,
) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO order_status_history (order_id, entry, status, note, at, actor) \
               SELECT $1, COUNT(*) + 1, $2, $3, $4, $5 FROM order_status_history WHERE order_id = $1";
    write
        .execute(sql, values![id, status.word(), note, at, actor])
        .await
        .map(drop)
}

/// Something besides the state changes: whoever read the order before has to read it again.
pub async fn touch(
    write: &mut Transaction,
    id: Uuid,
    version: i64,
    now: i64,
) -> Result<(), Refusal> {
    let sql =
        "UPDATE orders SET version = version + 1, updated_at = $3 WHERE id = $1 AND version = $2";
    match write.execute(sql, values![id, version, now]).await? {
        1 => Ok(()),
        _ => Err(conflict()),
    }
}

/// So many more of a product are on their way. `false`: it is not part of the order, or not so many are left.
pub async fn ship(
    write: &mut Transaction,
    id: Uuid,
    product: &str,
    quantity: i64,
) -> Result<bool, sqlx::Error> {
    let sql = "UPDATE order_items SET shipped = shipped + $3 \
               WHERE order_id = $1 AND product_id = $2 AND shipped + $3 <= quantity";
    Ok(write.execute(sql, values![id, product, quantity]).await? == 1)
}

/// All of it is on its way.
pub async fn ship_all(write: &mut Transaction, id: Uuid) -> Result<(), sqlx::Error> {
    let sql = "UPDATE order_items SET shipped = quantity WHERE order_id = $1";
    write.execute(sql, values![id]).await.map(drop)
}

/// How many are not on their way.
pub async fn unshipped(write: &mut Transaction, id: Uuid) -> Result<i64, sqlx::Error> {
    let sql = "SELECT CAST(COALESCE(SUM(quantity - shipped), 0) AS BIGINT) FROM order_items WHERE order_id = $1";
    write
        .first(sql, values![id])
        .await?
        .map_or(Ok(0), |row| row.int(0))
}
