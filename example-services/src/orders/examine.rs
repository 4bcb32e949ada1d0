//! What became of a saga, for people (SHOP-512): its steps, what can be done about it, and whether the services agree on
//! the order. Reads only, but for the retry that a person asks for.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    conductor::Conductor,
    domain::Status,
    partners::{Paid, Stock},
    saga::{Saga, State, StepStatus, UndoStatus},
    sagas::{self, Change, Which},
    store,
};
use crate::kit::{idempotency, refusal::Refusal, time};

/// The most that is compared at once.
const PAGE: i64 = 500;

/// What one service should hold for an order, and what it holds.
#[derive(Clone, Debug)]
struct Compared {
    service: &'static str,
    expected: &'static str,
    actual: String,
    good: bool,
    /// It does not answer, which proves nothing.
    silent: bool,
}

impl Compared {
    fn json(&self, order: Uuid) -> Value {
        json!({
            "service": self.service,
            "order_id": order.to_string(),
            "expected": self.expected,
            "actual": self.actual,
            "consistent": self.good,
        })
    }
}

/// Sagas that are listed at once.
const LISTED: i64 = 200;

impl Conductor {
    /// Sagas in a line each.
    pub(super) async fn list(&self, which: Which) -> Result<Value, Refusal> {
        let found = sagas::list(&self.database, which, LISTED).await?;
        let lines = found.iter().map(|kept| {
            let saga = &kept.saga;
            let mut steps = saga.steps.iter();
            let failed = steps.find(|step| step.status == StepStatus::Failed);
            json!({
                "saga_id": saga.id.to_string(),
                "order_id": saga.order_id.to_string(),
                "status": saga.state,
                "failed_step": failed.map(|step| step.step.name()),
                "completed_steps": saga.stack.iter().map(|step| step.name()).collect::<Vec<_>>(),
                "error": saga.why,
                "created_at": time::text(saga.created_at),
                "updated_at": time::text(saga.updated_at),
                "manual_intervention_required": saga.compensation.manual,
            })
        });
        Ok(json!({ "sagas": lines.collect::<Vec<_>>() }))
    }

    /// The order that this is the saga of, or that this is.
    pub(super) async fn order_of(&self, id: Uuid) -> Result<Uuid, Refusal> {
        let order = sagas::order_of(&self.database, id).await?;
        Ok(order.unwrap_or(id))
    }

    /// Everything about the saga of an order.
    pub(super) async fn analysis(&self, order: Uuid) -> Result<Value, Refusal> {
        let kept = sagas::of_order(&self.database, order).await?;
        let unknown = || Refusal::not_found("order", "order_id", &order.to_string());
        let kept = kept.ok_or_else(unknown)?;
        let saga = &kept.saga;
        let compared = self.compare(saga).await?;
        let failed = saga
            .steps
            .iter()
            .find(|step| step.status == StepStatus::Failed);
        let steps = saga.steps.iter().map(|step| {
            json!({
                "step": step.step as usize + 1,
                "name": step.step.name(),
                "service": step.step.service(),
                "compensation": step.step.compensation(),
                "idempotency_key": saga.key(step.step),
                "status": step.status,
                "retry_count": step.tries,
                "in_doubt": step.in_doubt,
                "started_at": step.started_at.map(time::text),
                "completed_at": step.completed_at.map(time::text),
                "error": step.error,
            })
        });
        let undo = |status: UndoStatus| {
            let undo = saga.compensation.undo.iter();
            undo.filter(|undo| undo.status == status)
                .map(|undo| json!({ "step": undo.step.name(), "tries": undo.tries, "error": undo.error }))
                .collect::<Vec<_>>()
        };
        Ok(json!({
            "saga_id": saga.id.to_string(),
            "order_id": order.to_string(),
            "user_id": saga.user_id,
            "operation_id": saga.operation,
            "status": saga.state,
            "settled": kept.settled,
            "queued_until": saga.queued_until.filter(|_| saga.queued).map(time::text),
            "created_at": time::text(saga.created_at),
            "updated_at": time::text(saga.updated_at),
            "steps": steps.collect::<Vec<_>>(),
            "failed_step": failed.map(|step| step.step.name()),
            "completed_steps": saga.stack.iter().map(|step| step.name()).collect::<Vec<_>>(),
            "error": saga.why,
            "compensation": {
                "started_at": saga.compensation.started_at.map(time::text),
                "attempts": saga.compensation.attempts,
                "succeeded": undo(UndoStatus::Done),
                "pending": undo(UndoStatus::Pending),
                "failed": undo(UndoStatus::Failed),
                "manual_intervention_required": saga.compensation.manual,
            },
            "recovery": saga.recovery,
            "recovery_options": options(saga),
            "system_state": compared.iter().map(|one| one.json(order)).collect::<Vec<_>>(),
        }))
    }

    /// What the services hold for an order whose saga has ended. Those that do not answer are told as such.
    async fn compare(&self, saga: &Saga) -> Result<Vec<Compared>, Refusal> {
        let order = saga.order_id;
        if !saga.is_ended() {
            return Ok(Vec::new());
        }
        let row = store::find(&self.database, order).await?;
        let paid = self.partners.paid(order).await;
        let stock = self.partners.stock(order).await;
        let through = saga.state == State::Completed;
        let free = saga.data.sums.total == 0;
        let status = row.map(|row| row.status);
        let ended = matches!(status, None | Some(Status::Cancelled | Status::Returned));
        Ok(vec![
            Compared {
                service: "orders",
                expected: if through {
                    "confirmed or later"
                } else {
                    "cancelled, or never made"
                },
                actual: status.map_or("none", Status::word).into(),
                good: ended != through
                    && !matches!(
                        status,
                        Some(Status::Created | Status::Reserved | Status::Paid)
                    ),
                silent: false,
            },
            Compared {
                service: "payments",
                expected: if through {
                    "taken once"
                } else {
                    "nothing taken, or given back"
                },
                good: match &paid {
                    Ok(Paid::Taken(_)) => through,
                    // Administrators may give back parts.
                    Ok(Paid::GivenBack) => true,
                    Ok(Paid::Unknown) => !through || free,
                    Ok(Paid::Failed(_)) => !through,
                    Ok(Paid::Open) | Err(_) => false,
                },
                silent: paid.is_err(),
                actual: match paid {
                    Ok(Paid::Unknown) => "nothing".into(),
                    Ok(Paid::Open) => "at no end".into(),
                    Ok(Paid::Taken(_)) => "taken".into(),
                    Ok(Paid::GivenBack) => "given back, or in part".into(),
                    Ok(Paid::Failed(reason)) => format!("not taken: {reason}"),
                    Err(failure) => failure.reason,
                },
            },
            Compared {
                service: "products",
                expected: if through { "committed" } else { "nothing held" },
                good: match &stock {
                    Ok(Stock::Committed) => through,
                    Ok(Stock::Unknown | Stock::Gone) => !through,
                    Ok(Stock::Held(..)) | Err(_) => false,
                },
                silent: stock.is_err(),
                actual: match stock {
                    Ok(Stock::Unknown) => "nothing".into(),
                    Ok(Stock::Held(..)) => "held".into(),
                    Ok(Stock::Committed) => "committed".into(),
                    Ok(Stock::Gone) => "given back".into(),
                    Err(failure) => failure.reason,
                },
            },
        ])
    }

    /// Compares what ended between two times, and what did `not_agree` before, and names what does not agree (SHOP-512):
    /// an order stays in the report until it does. Also tells how far it came.
    pub(super) async fn reconcile(
        &self,
        from: i64,
        to: i64,
        not_agree: &mut Vec<Uuid>,
    ) -> Result<(Value, i64), Refusal> {
        let ended = sagas::ended(&self.database, from, to, PAGE).await?;
        let mut again = Vec::new();
        for order in not_agree.iter() {
            let kept = sagas::of_order(&self.database, *order).await?;
            let saga = kept.map(|kept| kept.saga);
            // One that goes on is compared when it has ended anew.
            again.extend(saga.filter(|saga| {
                saga.is_ended() && !ended.iter().any(|other| other.order_id == *order)
            }));
        }
        let (mut wrong, mut orders) = (Vec::new(), Vec::new());
        for saga in ended.iter().chain(&again) {
            let compared = self.compare(saga).await?;
            if let Some(silent) = compared.iter().find(|one| one.silent) {
                let what = format!("{} does not answer", silent.service);
                return Err(Refusal::unavailable(what, std::time::Duration::ZERO));
            }
            if compared.iter().all(|one| one.good) {
                continue;
            }
            // It may have been cancelled, or be examined, between two of the questions.
            let now = sagas::of_order(&self.database, saga.order_id).await?;
            if now.is_none_or(|now| now.saga.updated_at != saga.updated_at) {
                continue;
            }
            orders.push(saga.order_id);
            let parts = compared.iter().filter(|one| !one.good);
            wrong.push(json!({
                "saga_id": saga.id.to_string(),
                "order_id": saga.order_id.to_string(),
                "state": saga.state,
                "differences": parts.map(|one| one.json(saga.order_id)).collect::<Vec<_>>(),
                "repair": if saga.state == State::Completed {
                    "look at it: a confirmed order lacks its payment or its stock"
                } else {
                    "POST /sagas/{order_id}/retry"
                },
            }));
        }
        let end = match ended.last() {
            Some(last) if ended.len() == PAGE as usize => last.updated_at,
            _ => to,
        };
        self.counts_inconsistent(wrong.len());
        // However many there are, the next comparison is one of so many.
        orders.truncate(PAGE as usize);
        *not_agree = orders;
        let told = json!({
            "consistent": wrong.is_empty(),
            "examined": ended.len() + again.len(),
            "from": time::text(from),
            "to": time::text(end),
            "inconsistent": wrong,
        });
        Ok((told, end))
    }

    /// Tries again what could not be undone, because a person says so.
    pub(super) async fn retry(&self, order: Uuid) -> Result<(), Refusal> {
        let unknown = || Refusal::not_found("order", "order_id", &order.to_string());
        sagas::of_order(&self.database, order)
            .await?
            .ok_or_else(unknown)?;
        let (write, kept, lease) = self.take_soon(order).await?;
        let (mut saga, now) = (kept.saga, time::now());
        if saga.state == State::Completed {
            return Ok(());
        }
        // Other services are asked under the lease, not within the change, which others wait for.
        write.commit().await?;
        saga.undo_again(true, now);
        saga.resumed(now);
        if saga.state == State::Failed {
            match self.leftovers(&saga).await {
                Ok(left) => left.into_iter().for_each(|step| saga.undo_late(step, now)),
                Err(failure) => {
                    sagas::release(&self.database, saga.id, lease).await?;
                    return Err(failure.refusal());
                }
            }
        }
        let mut write = self.database.write().await?;
        if self.keep(&mut write, &saga, lease).await? == Change::Lost {
            return Err(idempotency::in_progress());
        }
        write.commit().await?;
        self.drive(saga, lease);
        Ok(())
    }
}

/// What can be done about it, by whom.
fn options(saga: &Saga) -> Value {
    let option = |kind: &str, description: &str, requirements: &str, risk: &str| json!({ "type": kind, "description": description, "requirements": requirements, "risk": risk });
    match saga.state {
        State::Completed => json!([]),
        State::Failed if saga.compensation.manual => json!([
            option(
                "retry",
                "try the compensation again: POST /sagas/{order_id}/retry",
                "the service that refused accepts it now",
                "low",
            ),
            option(
                "manual",
                "do in that service by hand what `compensation.failed` names",
                "access to it",
                "high",
            ),
        ]),
        State::Failed => json!([]),
        _ if saga.is_turned() => json!([option(
            "compensate",
            "it goes on by itself",
            "the services answer",
            "low",
        )]),
        _ => json!([
            option(
                "retry",
                "it goes on by itself",
                "the services answer",
                "low"
            ),
            option(
                "compensate",
                "cancel the order: POST /orders/{order_id}/cancel",
                "the owner or an administrator",
                "medium",
            ),
        ]),
    }
}
