//! Reservations as rows, and the events of what becomes of them.

use serde_json::json;
use uuid::Uuid;

use super::domain::{Held, Reservation};
use crate::{
    contracts::products::ReservationState,
    kit::{
        database::{Database, Dialect, Row, Transaction},
        events::{self, Event},
        money::Money,
    },
    values,
};

const ITEMS: &str = "SELECT product_id, quantity, unit_price FROM reservation_items WHERE reservation_id = $1 ORDER BY product_id";

/// In the transaction.
pub(super) async fn by_order(
    write: &mut Transaction,
    order: Uuid,
) -> Result<Option<Reservation>, sqlx::Error> {
    let sql =
        "SELECT id, order_id, state, created_at, expires_at FROM reservations WHERE order_id = $1";
    with_items(write, sql, order).await
}

/// The same, and nobody else changes it until we are done. On SQLite nobody else writes at all.
pub(super) async fn locked(
    write: &mut Transaction,
    order: Uuid,
) -> Result<Option<Reservation>, sqlx::Error> {
    match write.dialect() {
        Dialect::Sqlite => by_order(write, order).await,
        Dialect::Postgres => {
            let sql = "SELECT id, order_id, state, created_at, expires_at FROM reservations WHERE order_id = $1 FOR UPDATE";
            with_items(write, sql, order).await
        }
    }
}

async fn with_items(
    write: &mut Transaction,
    sql: &'static str,
    order: Uuid,
) -> Result<Option<Reservation>, sqlx::Error> {
    let Some(row) = write.first(sql, values![order]).await? else {
        return Ok(None);
    };
    let mut reservation = read(&row)?;
    let items = write.fetch(ITEMS, values![reservation.id]).await?;
    reservation.items = items.iter().map(read_item).collect::<Result<_, _>>()?;
    Ok(Some(reservation))
}

/// Without a transaction.
pub(super) async fn seen(
    database: &Database,
    order: Uuid,
) -> Result<Option<Reservation>, sqlx::Error> {
    let sql =
        "SELECT id, order_id, state, created_at, expires_at FROM reservations WHERE order_id = $1";
    let Some(row) = database.first(sql, values![order]).await? else {
        return Ok(None);
    };
    let mut reservation = read(&row)?;
    let items = database.fetch(ITEMS, values![reservation.id]).await?;
    reservation.items = items.iter().map(read_item).collect::<Result<_, _>>()?;
    Ok(Some(reservation))
}

/// False when the order has one already.
pub(super) async fn insert(
    write: &mut Transaction,
    reservation: &Reservation,
) -> Result<bool, sqlx::Error> {
    let sql = "INSERT INTO reservations (id, order_id, state, created_at, expires_at, updated_at) \
               VALUES ($1, $2, $3, $4, $5, $4) ON CONFLICT (order_id) DO NOTHING";
    let Reservation {
        id,
        order,
        state,
        created_at,
        expires_at,
        ..
    } = reservation;
    let rows = write
        .execute(
            sql,
            values![*id, *order, state.as_str_name(), *created_at, *expires_at],
        )
        .await?;
    Ok(rows == 1)
}

/// Of the change that was made.
pub(super) async fn tell(
    write: &mut Transaction,
    kind: &str,
    reservation: &Reservation,
    actor: &str,
    now: i64,
) -> Result<(), sqlx::Error> {
    let item =
        |held: &Held| json!({ "product_id": held.product.to_string(), "quantity": held.quantity });
    let payload = json!({
        "order_id": reservation.order.to_string(),
        "reservation_id": reservation.id.to_string(),
        "state": reservation.state.as_str_name(),
        "items": reservation.items.iter().map(item).collect::<Vec<_>>(),
    });
    let event = Event {
        kind,
        aggregate_id: &reservation.id.to_string(),
        version: 1,
        actor,
    };
    events::append(write, event, &payload, now).await
}

fn read(row: &Row) -> Result<Reservation, sqlx::Error> {
    Ok(Reservation {
        id: row.id(0)?,
        order: row.id(1)?,
        items: Vec::new(),
        state: ReservationState::from_str_name(&row.text(2)?).unwrap_or_default(),
        created_at: row.int(3)?,
        expires_at: row.int(4)?,
    })
}

fn read_item(row: &Row) -> Result<Held, sqlx::Error> {
    Ok(Held {
        product: row.id(0)?,
        quantity: row.int(1)?,
        unit_price: Money::from_minor(row.int(2)?),
    })
}
