//! What becomes of a reservation: released, expired, committed, restocked (SHOP-305 to SHOP-307).
//!
//! Every step may come again, late, or before what it undoes; then it does nothing, or says why it cannot.

use uuid::Uuid;

use super::{
    catalog::changing,
    domain::Reservation,
    inventory::Inventory,
    reservations::{insert, locked, seen, tell},
};
use crate::{
    contracts::products::{self as wire, ReservationState},
    kit::{caller::Caller, database::Transaction, refusal::Refusal},
    values,
};

/// From what, to what.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Release,
    Expire,
    Commit,
    Restock,
}

impl Inventory {
    /// Gives back what an order still holds (SHOP-306). For an order that holds nothing yet it leaves a note, so that a
    /// reservation that comes later, from a saga that was given up already, is refused.
    pub async fn release(
        &self,
        order: Uuid,
        caller: &Caller,
        now: i64,
    ) -> Result<wire::Reservation, Refusal> {
        let mut write = self.database.write().await?;
        loop {
            if let Some(there) = locked(&mut write, order).await? {
                return self.step(write, there, Step::Release, caller, now).await;
            }
            let note = Reservation {
                id: Uuid::now_v7(),
                order,
                items: Vec::new(),
                state: ReservationState::Released,
                created_at: now,
                expires_at: now,
            };
            if insert(&mut write, &note).await? {
                write.commit().await?;
                return Ok(note.to_wire(&self.currency));
            }
        }
    }

    /// The order of a reservation.
    pub async fn order_of(&self, reservation: Uuid) -> Result<Uuid, Refusal> {
        let sql = "SELECT order_id FROM reservations WHERE id = $1";
        match self.database.first(sql, values![reservation]).await? {
            Some(row) => Ok(row.id(0)?),
            None => Err(Refusal::not_found(
                "reservation",
                "reservation_id",
                &reservation.to_string(),
            )),
        }
    }

    /// The order is confirmed: stock and what is held go down together (SHOP-307, DEC-45).
    pub async fn commit(
        &self,
        order: Uuid,
        caller: &Caller,
        now: i64,
    ) -> Result<wire::Reservation, Refusal> {
        self.known(order, Step::Commit, caller, now).await
    }

    /// A confirmed order came back: what was committed is stock again (SHOP-307).
    pub async fn restock(
        &self,
        order: Uuid,
        caller: &Caller,
        now: i64,
    ) -> Result<wire::Reservation, Refusal> {
        self.known(order, Step::Restock, caller, now).await
    }

    async fn known(
        &self,
        order: Uuid,
        step: Step,
        caller: &Caller,
        now: i64,
    ) -> Result<wire::Reservation, Refusal> {
        let mut write = self.database.write().await?;
        match locked(&mut write, order).await? {
            Some(there) => self.step(write, there, step, caller, now).await,
            None => Err(Refusal::not_found(
                "reservation",
                "order_id",
                &order.to_string(),
            )),
        }
    }

    /// What became of an order's reservation.
    pub async fn reservation(&self, order: Uuid) -> Result<wire::Reservation, Refusal> {
        match seen(&self.database, order).await? {
            Some(reservation) => Ok(reservation.to_wire(&self.currency)),
            None => Err(Refusal::not_found(
                "reservation",
                "order_id",
                &order.to_string(),
            )),
        }
    }

    /// Returns what was held for too long (SHOP-305), and tells how many reservations that were. Several processes may do
    /// so at once.
    pub async fn expire(&self, now: i64) -> Result<u64, Refusal> {
        let sql = "SELECT order_id FROM reservations WHERE state = 'held' AND expires_at <= $1 ORDER BY expires_at LIMIT 200";
        let mut expired = 0;
        for row in self.database.fetch(sql, values![now]).await? {
            let mut write = self.database.write().await?;
            // Somebody may have been faster.
            let there = locked(&mut write, row.id(0)?).await?;
            let Some(there) = there
                .filter(|there| there.state == ReservationState::Held && there.expires_at <= now)
            else {
                continue;
            };
            self.step(
                write,
                there,
                Step::Expire,
                &Caller::internal("products"),
                now,
            )
            .await?;
            expired += 1;
        }
        Ok(expired)
    }

    async fn step(
        &self,
        mut write: Transaction,
        mut there: Reservation,
        step: Step,
        caller: &Caller,
        now: i64,
    ) -> Result<wire::Reservation, Refusal> {
        use ReservationState as State;
        let (sql, state, event) = match (step, there.state) {
            (Step::Release | Step::Expire, State::Held) => (
                "UPDATE products SET reserved = reserved - $2, version = version + 1 WHERE id = $1 RETURNING stock - reserved",
                if step == Step::Expire {
                    State::Expired
                } else {
                    State::Released
                },
                "inventory.released.v1",
            ),
            (Step::Commit, State::Held) => (
                "UPDATE products SET stock = stock - $2, reserved = reserved - $2, version = version + 1 WHERE id = $1 \
                 RETURNING stock - reserved",
                State::Committed,
                "inventory.committed.v1",
            ),
            (Step::Restock, State::Committed) => (
                "UPDATE products SET stock = stock + $2, version = version + 1 WHERE id = $1 RETURNING stock - reserved",
                State::Restocked,
                "inventory.restocked.v1",
            ),
            (Step::Commit, State::Released | State::Expired) => return Err(there.ended()),
            (Step::Restock, State::Held) => {
                return Err(Refusal::new(
                    tonic::Code::FailedPrecondition,
                    "RESERVATION_HELD",
                    "this is not committed yet; release it instead",
                )
                .with("order_id", there.order));
            }
            // It was done before, or there is nothing to do any more.
            _ => return Ok(there.to_wire(&self.currency)),
        };
        for held in &there.items {
            write
                .first(sql, values![held.product, held.quantity])
                .await?;
        }
        there.state = state;
        write
            .execute(
                "UPDATE reservations SET state = $2, updated_at = $3 WHERE id = $1",
                values![there.id, state.as_str_name(), now],
            )
            .await?;
        tell(&mut write, event, &there, caller.actor(), now).await?;
        let items = there.items.iter().map(|held| held.product);
        let _changing = changing(&self.cache, items);
        write.commit().await?;
        Ok(there.to_wire(&self.currency))
    }
}
