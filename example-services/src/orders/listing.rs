//! Pages of orders (SHOP-803).

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{domain::Status, store::status};
use crate::{
    kit::{database::Database, page::Page},
    values,
};

/// One order in a list.
#[derive(Clone, Debug)]
pub(super) struct Summary {
    /// Ours.
    pub(super) id: Uuid,
    /// Whose.
    pub(super) user_id: String,
    /// Where it stands.
    pub(super) status: Status,
    /// Minor units.
    pub(super) total: i64,
    /// ISO 4217.
    pub(super) currency: String,
    /// Lines.
    pub(super) item_count: i64,
    /// When it came.
    pub(super) created_at: i64,
    /// When it changed.
    pub(super) updated_at: i64,
}

/// A page of orders: of a user, or of all; in one of these states, or in any.
pub(super) async fn list(
    database: &Database,
    user: Option<&str>,
    states: &[Status],
    page: &Page,
) -> Result<(Vec<Summary>, i64), sqlx::Error> {
    // Words of our own, never the client's.
    let words: Vec<_> = states
        .iter()
        .map(|status| format!("'{}'", status.word()))
        .collect();
    let mut filter = String::from(" WHERE ($1 IS NULL OR user_id = $1)");
    if !words.is_empty() {
        filter.push_str(&format!(" AND status IN ({})", words.join(", ")));
    }
    // PostgreSQL has to be told what a lone placeholder is.
    let filter = filter.replace("$1 IS NULL", "CAST($1 AS TEXT) IS NULL");
    let sql = format!("SELECT COUNT(*) FROM orders{filter}");
    let total = match database.first(AssertSqlSafe(sql), values![user]).await? {
        Some(row) => row.int(0)?,
        None => 0,
    };
    let sql = format!(
        "SELECT id, user_id, status, total, currency, \
         (SELECT COUNT(*) FROM order_items WHERE order_items.order_id = orders.id), created_at, updated_at \
         FROM orders{filter}{} LIMIT $2 OFFSET $3",
        page.order()
    );
    let row = values![user, page.limit, page.offset()];
    let rows = database.fetch(AssertSqlSafe(sql), row).await?;
    let rows = rows.iter().map(|row| {
        Ok(Summary {
            id: row.id(0)?,
            user_id: row.text(1)?,
            status: status(&row.text(2)?)?,
            total: row.int(3)?,
            currency: row.text(4)?,
            item_count: row.int(5)?,
            created_at: row.int(6)?,
            updated_at: row.int(7)?,
        })
    });
    Ok((rows.collect::<Result<_, sqlx::Error>>()?, total))
}
