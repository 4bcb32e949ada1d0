//! What customers are told of their orders: that one is confirmed, or cancelled (SHOP-902). A notice is written in the
//! transaction of the change that it is about, so there is one for each and none without; it is carried later, by whoever
//! holds its line of the table, and under its own key, so that a carrier can tell a repetition.
//!
//! What goes wrong here is logged, tried again a few times and then dropped. No saga ever hears of it. Addresses are asked of
//! users each time and kept nowhere.

pub mod adapters;

use std::{sync::Arc, time::Duration};

use prometheus::IntCounterVec;
use serde_json::json;
use uuid::Uuid;

use super::{domain::Status, partners::Partners};
use crate::{
    contracts::users,
    kit::{
        database::{Database, Row, Transaction},
        events::{self, Event},
        log, time,
    },
    values,
};
use adapters::{Letter, Mail, Sms, Undelivered};

/// How often one is tried before it is dropped.
const TRIES: i64 = 5;

/// The pause after the first try that failed. It doubles.
const PAUSE: Duration = Duration::from_secs(2);

/// Nobody else tries one that somebody is at.
const HELD: Duration = Duration::from_secs(60);

/// So many at a time.
const AT_ONCE: i64 = 50;

/// Puts a notice beside the change that an order makes, if customers are told of that.
pub(super) async fn owe(
    write: &mut Transaction,
    order: Uuid,
    next: Status,
    reason: Option<&str>,
    now: i64,
) -> Result<(), sqlx::Error> {
    let kind = match next {
        Status::Confirmed => "confirmed",
        Status::Cancelled => "cancelled",
        _ => return Ok(()),
    };
    let sql = "INSERT INTO notices (id, order_id, user_id, kind, reason, state, tries, due_at, at) \
               SELECT $1, id, user_id, $3, $4, 'waiting', 0, $5, $5 FROM orders WHERE id = $2";
    let reason = reason.unwrap_or_default();
    let row = values![Uuid::now_v7(), order, kind, reason, now];
    write.execute(sql, row).await.map(drop)
}

/// Whoever carries notices. Clones share it.
#[derive(Clone)]
pub(super) struct Notices {
    pub(super) database: Database,
    pub(super) partners: Partners,
    pub(super) mail: Arc<dyn Mail>,
    pub(super) sms: Arc<dyn Sms>,
    /// `notices_total` by result.
    pub(super) counts: IntCounterVec,
}

/// One line of the table.
struct Notice {
    id: Uuid,
    order: Uuid,
    user: String,
    kind: String,
    reason: String,
    tries: i64,
}

impl Notices {
    /// Carries what is due. Again and again, by any number of processes.
    pub(super) async fn carry(&self) {
        if let Err(error) = self.try_carry().await {
            log::error("notices were not looked after", &[("error", &error)]);
        }
    }

    async fn try_carry(&self) -> Result<(), sqlx::Error> {
        let sql = "SELECT id FROM notices WHERE state = 'waiting' AND due_at <= $1 ORDER BY due_at LIMIT $2";
        for row in self
            .database
            .fetch(sql, values![time::now(), AT_ONCE])
            .await?
        {
            let Some(notice) = self.take(row.id(0)?).await? else {
                continue;
            };
            let carried = self.deliver(&notice).await;
            self.note(&notice, carried).await?;
        }
        Ok(())
    }

    async fn take(&self, id: Uuid) -> Result<Option<Notice>, sqlx::Error> {
        let now = time::now();
        let sql = "UPDATE notices SET due_at = $3, tries = tries + 1 WHERE id = $1 AND state = 'waiting' AND due_at <= $2 \
                   RETURNING id, order_id, user_id, kind, reason, tries";
        let mut write = self.database.write().await?;
        let row = write
            .first(sql, values![id, now, time::after(now, HELD)])
            .await?;
        write.commit().await?;
        row.as_ref().map(notice).transpose()
    }

    /// To everywhere where the customer wants it.
    async fn deliver(&self, notice: &Notice) -> Result<(), Undelivered> {
        let user = self.partners.user(&notice.user).await;
        let user = user.map_err(|failure| Undelivered {
            why: failure.message,
            temporary: failure.temporary,
        })?;
        let (subject, text) = words(notice);
        let key = notice.id.to_string();
        let wanted = user.preferences.as_ref();
        let wanted = wanted.and_then(|wanted| wanted.notifications.as_ref());
        if wanted.is_none_or(|wanted| wanted.email) {
            let letter = Letter {
                key: &key,
                to: &user.email,
                subject: &subject,
                text: &text,
            };
            self.mail.send(letter).await?;
        }
        if let Some(phone) = phone(&user).filter(|_| wanted.is_some_and(|wanted| wanted.sms)) {
            self.sms.send(&key, phone, &subject).await?;
        }
        Ok(())
    }

    /// Keeps what came of a try.
    async fn note(
        &self,
        notice: &Notice,
        carried: Result<(), Undelivered>,
    ) -> Result<(), sqlx::Error> {
        let now = time::now();
        let (state, due_at) = match &carried {
            Ok(()) => ("sent", now),
            Err(trouble) if trouble.temporary && notice.tries < TRIES => {
                let pause = PAUSE.saturating_mul(1 << (notice.tries - 1).clamp(0, 16));
                ("waiting", time::after(now, pause))
            }
            Err(_) => ("dropped", now),
        };
        if let Err(trouble) = &carried {
            let fields: [(&str, &dyn std::fmt::Display); 3] = [
                ("order_id", &notice.order),
                ("tries", &notice.tries),
                ("error", &trouble.why),
            ];
            match state {
                "dropped" => log::error("a notice was not carried, and is dropped", &fields),
                _ => log::warn("a notice was not carried; it is tried again", &fields),
            }
        }
        let mut write = self.database.write().await?;
        let sql = "UPDATE notices SET state = $2, due_at = $3 WHERE id = $1";
        write
            .execute(sql, values![notice.id, state, due_at])
            .await?;
        if carried.is_ok() {
            let event = Event {
                kind: "notification.sent.v1",
                aggregate_id: &notice.order.to_string(),
                version: 1,
                actor: "orders",
            };
            let payload = json!({ "order_id": notice.order.to_string(), "kind": notice.kind, "notice_id": notice.id.to_string() });
            events::append(&mut write, event, &payload, now).await?;
        }
        write.commit().await?;
        self.counts.with_label_values(&[state]).inc();
        Ok(())
    }
}

fn notice(row: &Row) -> Result<Notice, sqlx::Error> {
    Ok(Notice {
        id: row.id(0)?,
        order: row.id(1)?,
        user: row.text(2)?,
        kind: row.text(3)?,
        reason: row.text(4)?,
        tries: row.int(5)?,
    })
}

fn phone(user: &users::User) -> Option<&str> {
    let profile = user.profile.as_ref()?;
    (!profile.phone.is_empty()).then_some(profile.phone.as_str())
}

/// Subject and text.
fn words(notice: &Notice) -> (String, String) {
    let Notice { order, reason, .. } = notice;
    match notice.kind.as_str() {
        "confirmed" => (
            format!("Your order {order} is confirmed"),
            format!("We have your order {order}, and it is paid for. Thank you."),
        ),
        _ => (
            format!("Your order {order} is cancelled"),
            format!(
                "Your order {order} is cancelled ({reason}). What you paid for it goes back to you."
            ),
        ),
    }
}

/// What a process held that is no more is due again. Only where no other process has this database.
pub(super) async fn release_all(database: &Database) -> Result<(), sqlx::Error> {
    let mut write = database.write().await?;
    let sql = "UPDATE notices SET due_at = 0 WHERE state = 'waiting'";
    write.execute(sql, &[]).await?;
    write.commit().await
}

/// Forgets what was sent or dropped before.
pub(super) async fn sweep(database: &Database, before: i64) -> Result<(), sqlx::Error> {
    let mut write = database.write().await?;
    let sql = "DELETE FROM notices WHERE state <> 'waiting' AND at < $1";
    write.execute(sql, values![before]).await?;
    write.commit().await
}
