//! A processor that is not one (SHOP-454): it lives in our process, but keeps a ledger of its own that knows nothing of
//! ours, so that tests can count charges over any number of kills.
//!
//! It is harsher than real ones: it does not know repetitions. The same again is done again, so that whoever does not ask
//! first is found out. What it does is said by the token (or the method):
//!
//! | token | what happens |
//! |---|---|
//! | `declined`, `card_expired`, `insufficient_funds`, `fraud`; method `invalid` | refused for good |
//! | `capture_rejected` | held, but cannot be taken |
//! | `outage` | never answers, nothing happens |
//! | `flaky` | every first request fails without effect, the next works |
//! | `lost_answer` | every first request takes effect, but nobody is told |
//! | `slow` | answers after half a second |
//! | `refund_refused` | cannot be given back |
//! | anything else | works |

use std::time::Duration;

use uuid::Uuid;

use super::processor::{Answer, Card, Charge, Found, FoundState, Processor, Trouble};
use crate::{
    kit::{
        crash,
        database::{Database, Transaction},
        log,
        migrations::Migration,
        money::Money,
        time,
    },
    migration, values,
};

/// The ledger's versions.
pub const MIGRATIONS: [Migration; 1] = [migration!(1, "001_ledger")];

/// Card numbers that processors give out for tests, and what they stand for here. Others work.
const CARDS: [(&str, &str); 6] = [
    ("4000000000000002", "declined"),
    ("4000000000009995", "insufficient_funds"),
    ("4000000000000069", "card_expired"),
    ("4100000000000019", "fraud"),
    ("4000000000000119", "flaky"),
    ("4000000000000341", "capture_rejected"),
];

/// The processor. Clones share the ledger.
#[derive(Clone, Debug)]
pub struct Simulated {
    ledger: Database,
    latency: Duration,
}

impl Simulated {
    /// With a ledger at its newest version. Every answer takes at least `latency`.
    pub fn new(ledger: Database, latency: Duration) -> Self {
        Self { ledger, latency }
    }

    /// What happens, by the token; one that we gave out stands for its card's.
    async fn behaviour(&self, method: &str, token: &str) -> Result<String, sqlx::Error> {
        if !super::domain::METHODS.contains(&method) {
            return Ok("declined".into());
        }
        let sql = "SELECT behaviour FROM tokens WHERE token = $1";
        match self.ledger.first(sql, values![token]).await? {
            Some(row) => row.text(0),
            None => Ok(token.to_string()),
        }
    }

    /// How a request goes that is asked for under this name: whether it takes effect, and whether the answer arrives.
    async fn fate(
        &self,
        write: &mut Transaction,
        behaviour: &str,
        name: &str,
    ) -> Result<(bool, bool), sqlx::Error> {
        let sql = "INSERT INTO requests (key, count) VALUES ($1, 1) \
                   ON CONFLICT (key) DO UPDATE SET count = requests.count + 1 RETURNING count";
        let row = write.first(sql, values![name]).await?;
        let first = row.map_or(Ok(1), |row| row.int(0))? == 1;
        Ok(match behaviour {
            "outage" => (false, false),
            "flaky" if first => (false, false),
            "lost_answer" if first => (true, false),
            _ => (true, true),
        })
    }

    /// Waits for whoever has asked under this name and is about to commit, even if they were given up on: what is found
    /// then is final, and nobody charges again because a commit was slow.
    async fn after_all(&self, write: &mut Transaction, name: &str) -> Result<(), sqlx::Error> {
        let sql = "INSERT INTO requests (key, count) VALUES ($1, 0) \
                   ON CONFLICT (key) DO UPDATE SET count = requests.count";
        write.execute(sql, values![name]).await.map(drop)
    }

    async fn pause(&self, behaviour: &str) {
        let slow = if behaviour == "slow" { 500 } else { 0 };
        let pause = self.latency + Duration::from_millis(slow);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }

    async fn charge(&self, id: &str) -> Result<(String, String, i64), Trouble> {
        let sql = "SELECT behaviour, state, amount FROM charges WHERE id = $1";
        match self.ledger.first(sql, values![id]).await.map_err(away)? {
            Some(row) => Ok((
                row.text(0).map_err(away)?,
                row.text(1).map_err(away)?,
                row.int(2).map_err(away)?,
            )),
            None => Err(Trouble::Declined("CHARGE_UNKNOWN".into())),
        }
    }

    async fn move_money(
        &self,
        write: &mut Transaction,
        id: &str,
        kind: &str,
        key: &str,
        amount: i64,
    ) -> Result<(), sqlx::Error> {
        let sql = "INSERT INTO movements (id, charge_id, kind, key, amount, at) VALUES ($1, $2, $3, $4, $5, $6)";
        let name = Uuid::now_v7().to_string();
        write
            .execute(sql, values![&name, id, kind, key, amount, time::now()])
            .await
            .map(drop)
    }
}

/// A ledger that fails is a processor that does not answer.
fn away(error: sqlx::Error) -> Trouble {
    log::error("the ledger failed", &[("error", &error)]);
    Trouble::Away
}

fn answer(arrives: bool) -> Result<(), Trouble> {
    crash::at(&["processed"]);
    if arrives { Ok(()) } else { Err(Trouble::Away) }
}

impl Processor for Simulated {
    fn authorize<'a>(&'a self, charge: Charge<'a>) -> Answer<'a, String> {
        Box::pin(async move {
            let behaviour = self.behaviour(charge.method, charge.token).await;
            let behaviour = behaviour.map_err(away)?;
            self.pause(&behaviour).await;
            let reason = match behaviour.as_str() {
                "declined" => Some("DECLINED"),
                "card_expired" => Some("CARD_EXPIRED"),
                "insufficient_funds" => Some("INSUFFICIENT_FUNDS"),
                "fraud" => Some("FRAUD_SUSPECTED"),
                _ => None,
            };
            let mut write = self.ledger.write().await.map_err(away)?;
            let name = format!("authorize {}", charge.key);
            let (effect, arrives) = self
                .fate(&mut write, &behaviour, &name)
                .await
                .map_err(away)?;
            let id = format!("ch_{}", Uuid::now_v7().simple());
            if effect {
                let sql = "INSERT INTO charges (id, key, amount, currency, behaviour, state, reason, created_at) \
                           VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
                let state = if reason.is_some() {
                    "declined"
                } else {
                    "authorized"
                };
                let row = values![
                    &id,
                    charge.key,
                    charge.amount.minor(),
                    charge.currency,
                    &behaviour,
                    state,
                    reason,
                    time::now()
                ];
                write.execute(sql, row).await.map_err(away)?;
            }
            write.commit().await.map_err(away)?;
            answer(arrives)?;
            match reason {
                Some(reason) => Err(Trouble::Declined(reason.into())),
                None => Ok(id),
            }
        })
    }

    fn capture<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let (behaviour, state, amount) = self.charge(id).await?;
            self.pause(&behaviour).await;
            if behaviour == "capture_rejected" || state == "voided" || state == "declined" {
                return Err(Trouble::Declined("CAPTURE_REJECTED".into()));
            }
            let mut write = self.ledger.write().await.map_err(away)?;
            let name = format!("capture {id}");
            let (effect, arrives) = self
                .fate(&mut write, &behaviour, &name)
                .await
                .map_err(away)?;
            if effect {
                let sql = "UPDATE charges SET state = 'captured' WHERE id = $1";
                write.execute(sql, values![id]).await.map_err(away)?;
                self.move_money(&mut write, id, "charge", &name, amount)
                    .await
                    .map_err(away)?;
            }
            write.commit().await.map_err(away)?;
            answer(arrives)
        })
    }

    fn void<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let (behaviour, ..) = self.charge(id).await?;
            self.pause(&behaviour).await;
            let mut write = self.ledger.write().await.map_err(away)?;
            let name = format!("void {id}");
            let (effect, arrives) = self
                .fate(&mut write, &behaviour, &name)
                .await
                .map_err(away)?;
            let mut done = 1;
            if effect {
                let sql =
                    "UPDATE charges SET state = 'voided' WHERE id = $1 AND state <> 'captured'";
                done = write.execute(sql, values![id]).await.map_err(away)?;
            }
            write.commit().await.map_err(away)?;
            answer(arrives)?;
            if done == 1 {
                Ok(())
            } else {
                Err(Trouble::Declined("ALREADY_CAPTURED".into()))
            }
        })
    }

    fn refund<'a>(&'a self, id: &'a str, key: &'a str, amount: Money) -> Answer<'a, ()> {
        Box::pin(async move {
            let (behaviour, ..) = self.charge(id).await?;
            self.pause(&behaviour).await;
            if behaviour == "refund_refused" {
                return Err(Trouble::Declined("REFUND_REFUSED".into()));
            }
            let mut write = self.ledger.write().await.map_err(away)?;
            let name = format!("refund {key}");
            let (effect, arrives) = self
                .fate(&mut write, &behaviour, &name)
                .await
                .map_err(away)?;
            if effect {
                self.move_money(&mut write, id, "refund", key, amount.minor())
                    .await
                    .map_err(away)?;
            }
            write.commit().await.map_err(away)?;
            answer(arrives)
        })
    }

    fn find<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Found>> {
        Box::pin(async move {
            let mut write = self.ledger.write().await.map_err(away)?;
            let name = format!("authorize {key}");
            self.after_all(&mut write, &name).await.map_err(away)?;
            // Sets nothing anew: it waits for a capture that is being made.
            let sql = "UPDATE charges SET key = key WHERE key = $1 RETURNING id, state, reason";
            let found = write.first(sql, values![key]).await.map_err(away)?;
            write.commit().await.map_err(away)?;
            let Some(row) = found else {
                return Ok(None);
            };
            let state = match row.text(1).map_err(away)?.as_str() {
                "authorized" => FoundState::Authorized,
                "captured" => FoundState::Captured,
                "voided" => FoundState::Voided,
                _ => {
                    let reason = row.optional_text(2).map_err(away)?;
                    FoundState::Declined(reason.unwrap_or_else(|| "DECLINED".into()))
                }
            };
            let id = row.text(0).map_err(away)?;
            Ok(Some(Found { id, state }))
        })
    }

    fn find_refund<'a>(&'a self, key: &'a str) -> Answer<'a, bool> {
        Box::pin(async move {
            let mut write = self.ledger.write().await.map_err(away)?;
            let name = format!("refund {key}");
            self.after_all(&mut write, &name).await.map_err(away)?;
            let sql = "SELECT 1 FROM movements WHERE kind = 'refund' AND key = $1";
            let found = write.first(sql, values![key]).await.map_err(away)?;
            write.commit().await.map_err(away)?;
            Ok(found.is_some())
        })
    }

    fn tokenize<'a>(&'a self, card: Card<'a>) -> Answer<'a, String> {
        Box::pin(async move {
            let known = CARDS.iter().find(|(number, _)| *number == card.number);
            let behaviour = known.map_or("works", |(_, behaviour)| behaviour);
            let token = format!("tok_{}", Uuid::new_v4().simple());
            let mut write = self.ledger.write().await.map_err(away)?;
            let sql = "INSERT INTO tokens (token, behaviour) VALUES ($1, $2)";
            let row = values![&token, behaviour];
            write.execute(sql, row).await.map_err(away)?;
            write.commit().await.map_err(away)?;
            Ok(token)
        })
    }
}
