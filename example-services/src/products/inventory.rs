//! What is held of the stock, and for whom (SHOP-303 to SHOP-307).
//!
//! Each step is one transaction. A product's numbers change only by statements that say themselves what must hold
//! (`… WHERE stock - reserved >= quantity`), so no interleaving holds more than there is, whatever was read before. That
//! condition, rather than the version, is what two buyers of one product compete with: buyers who can both be served are
//! both served, and nobody has to start over because somebody else bought, too. The tables' own checks stand behind it.

use std::time::Duration;

use prost::Message;
use serde_json::json;
use uuid::Uuid;

use super::{
    catalog::{Products, changing},
    domain::{self, Held, Reservation, Wanted},
    reservations::{by_order, insert, tell},
};
use crate::{
    contracts::products::{self as wire, ReservationState},
    kit::{
        caller::Caller,
        database::{Database, Transaction},
        events::{self, Event},
        idempotency::{self, Claim},
        money::Money,
        refusal::Refusal,
        time,
    },
    values,
};

/// How often somebody who lost a race begins again (SHOP-304).
const TRIES: usize = 4;

/// Reservations. Clones share the database.
#[derive(Clone, Debug)]
pub struct Inventory {
    pub(super) database: Database,
    /// How long something is held.
    lifetime: Duration,
    /// Below this many, somebody is told.
    low: i64,
    pub(super) currency: String,
    /// Is told of every change.
    pub(super) cache: Products,
}

/// How a try to reserve ended.
enum Try {
    Held(Reservation),
    /// Somebody else was there between two of our statements.
    Again,
}

impl Inventory {
    /// In this database.
    pub fn new(
        database: Database,
        lifetime: Duration,
        low: i64,
        currency: &str,
        cache: Products,
    ) -> Self {
        Self {
            database,
            lifetime,
            low,
            currency: currency.into(),
            cache,
        }
    }

    /// Holds all of it for an order, or nothing. The same again answers the same.
    pub async fn reserve(
        &self,
        order: Uuid,
        wanted: &Wanted,
        key: Option<&str>,
        caller: &Caller,
        now: i64,
    ) -> Result<wire::Reservation, Refusal> {
        let key = key.map(|key| idempotency::client_key(caller.actor(), "ReserveInventory", key));
        let items: Vec<_> = wanted
            .0
            .iter()
            .map(|(product, quantity)| json!([product.to_string(), quantity]))
            .collect();
        let hash = idempotency::hash(&json!({ "order_id": order.to_string(), "items": items }));
        for _ in 0..TRIES {
            let mut write = self.database.write().await?;
            if let Some(key) = &key {
                match idempotency::claim(&mut write, key, &hash, now).await? {
                    Claim::Ours => {}
                    Claim::Done(answer) => {
                        return wire::Reservation::decode(answer.as_slice())
                            .map_err(|_| Refusal::internal());
                    }
                    Claim::Refused(refusal) => return Err(refusal),
                    Claim::InProgress => return Err(idempotency::in_progress()),
                }
            }
            let refusal = match self
                .try_reserve(&mut write, order, wanted, caller, now)
                .await
            {
                Ok(Try::Held(reservation)) => {
                    let answer = reservation.to_wire(&self.currency);
                    if let Some(key) = &key {
                        idempotency::complete(&mut write, key, &answer.encode_to_vec(), now)
                            .await?;
                    }
                    let items = reservation.items.iter().map(|held| held.product);
                    let _changing = changing(&self.cache, items);
                    write.commit().await?;
                    return Ok(answer);
                }
                Ok(Try::Again) => continue,
                Err(refusal) => refusal,
            };
            // Undone first: only the refusal is kept.
            drop(write);
            if let Some(key) = key.as_deref().filter(|_| !refusal.is_temporary()) {
                let mut write = self.database.write().await?;
                if idempotency::claim(&mut write, key, &hash, now).await? == Claim::Ours {
                    idempotency::refuse(&mut write, key, &refusal, now).await?;
                    write.commit().await?;
                }
            }
            return Err(refusal);
        }
        Err(Refusal::new(
            tonic::Code::Aborted,
            "CONFLICT",
            "others were faster each time; try again",
        )
        .retry_after(Duration::from_millis(100)))
    }

    async fn try_reserve(
        &self,
        write: &mut Transaction,
        order: Uuid,
        wanted: &Wanted,
        caller: &Caller,
        now: i64,
    ) -> Result<Try, Refusal> {
        if let Some(there) = by_order(write, order).await? {
            return match there.state {
                ReservationState::Held | ReservationState::Committed if there.is_for(wanted) => {
                    Ok(Try::Held(there))
                }
                ReservationState::Held | ReservationState::Committed => Err(Refusal::new(
                    tonic::Code::AlreadyExists,
                    "RESERVATION_DIFFERS",
                    "this order holds something else already",
                )
                .with("order_id", order)),
                _ => Err(there.ended()),
            };
        }
        let mut reservation = Reservation {
            id: Uuid::now_v7(),
            order,
            items: Vec::with_capacity(wanted.0.len()),
            state: ReservationState::Held,
            created_at: now,
            expires_at: time::after(now, self.lifetime),
        };
        for (product, quantity) in &wanted.0 {
            let sql = "UPDATE products SET reserved = reserved + $2, version = version + 1 \
                       WHERE id = $1 AND is_active AND stock - reserved >= $2 RETURNING price, stock - reserved";
            let Some(row) = write.first(sql, values![*product, *quantity]).await? else {
                let sql = "SELECT is_active, stock - reserved FROM products WHERE id = $1";
                return match write.first(sql, values![*product]).await? {
                    Some(row) if row.flag(0)? => {
                        let available = row.int(1)?;
                        // It came back between the two statements.
                        if available >= *quantity {
                            Ok(Try::Again)
                        } else {
                            Err(domain::insufficient(*product, available, *quantity))
                        }
                    }
                    _ => Err(domain::unavailable(*product)),
                };
            };
            let left = row.int(1)?;
            self.tell_low(write, *product, left + quantity, left, now)
                .await?;
            reservation.items.push(Held {
                product: *product,
                quantity: *quantity,
                unit_price: Money::from_minor(row.int(0)?),
            });
        }
        if !insert(write, &reservation).await? {
            return Ok(Try::Again);
        }
        for held in &reservation.items {
            write
                .execute(
                    "INSERT INTO reservation_items (reservation_id, product_id, quantity, unit_price) VALUES ($1, $2, $3, $4)",
                    values![reservation.id, held.product, held.quantity, held.unit_price.minor()],
                )
                .await?;
        }
        tell(
            write,
            "inventory.reserved.v1",
            &reservation,
            caller.actor(),
            now,
        )
        .await?;
        Ok(Try::Held(reservation))
    }

    /// Adds to the stock, or takes what is not held out of it. The same key again changes nothing.
    pub async fn adjust(
        &self,
        product: Uuid,
        change: i64,
        reason: &str,
        key: Option<&str>,
        caller: &Caller,
        now: i64,
    ) -> Result<(), Refusal> {
        let mut write = self.database.write().await?;
        let key = key.map(|key| idempotency::client_key(caller.actor(), "AdjustStock", key));
        if let Some(key) = &key {
            let hash =
                idempotency::hash(&json!({ "product_id": product.to_string(), "change": change }));
            match idempotency::claim(&mut write, key, &hash, now).await? {
                Claim::Ours => {}
                Claim::Done(_) => return Ok(()),
                Claim::Refused(refusal) => return Err(refusal),
                Claim::InProgress => return Err(idempotency::in_progress()),
            }
        }
        let sql = "UPDATE products SET stock = stock + $2, version = version + 1, updated_at = $3 \
                   WHERE id = $1 AND stock + $2 >= reserved AND stock + $2 <= 1000000000 RETURNING stock - reserved, version, stock";
        let Some(row) = write.first(sql, values![product, change, now]).await? else {
            let sql = "SELECT stock - reserved FROM products WHERE id = $1";
            return Err(match write.first(sql, values![product]).await? {
                Some(row) => domain::insufficient(product, row.int(0)?, -change),
                None => Refusal::not_found("product", "product_id", &product.to_string()),
            });
        };
        let (left, version, stock) = (row.int(0)?, row.int(1)?, row.int(2)?);
        self.tell_low(&mut write, product, left - change, left, now)
            .await?;
        let event = Event {
            kind: "product.updated.v1",
            aggregate_id: &product.to_string(),
            version,
            actor: caller.actor(),
        };
        let payload =
            json!({ "product_id": product.to_string(), "stock_quantity": stock, "reason": reason });
        events::append(&mut write, event, &payload, now).await?;
        if let Some(key) = &key {
            idempotency::complete(&mut write, key, &[], now).await?;
        }
        let _changing = changing(&self.cache, [product]);
        Ok(write.commit().await?)
    }

    /// Once, when the last of many are about to go (SHOP-308).
    async fn tell_low(
        &self,
        write: &mut Transaction,
        product: Uuid,
        before: i64,
        after: i64,
        now: i64,
    ) -> Result<(), sqlx::Error> {
        if before < self.low || after >= self.low {
            return Ok(());
        }
        let event = Event {
            kind: "inventory.low.v1",
            aggregate_id: &product.to_string(),
            version: 0,
            actor: "products",
        };
        events::append(
            write,
            event,
            &json!({ "product_id": product.to_string(), "available": after }),
            now,
        )
        .await
    }
}
