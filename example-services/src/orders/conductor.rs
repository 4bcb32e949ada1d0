//! Drives sagas: does what the machine says, keeps it before and after (SHOP-504), and picks up what was left (SHOP-508).
//!
//! One task drives one saga, under a lease in the table; a change that finds the lease gone ends the task without a word.
//! Whoever waits for a saga waits until the table says that it has ended, whoever drives it: a wait that is abandoned stops
//! nothing. Tasks end by themselves; at the stop of the process they are cut, which is no different from a kill.

use std::time::Duration;

use tonic::Code;
use uuid::Uuid;

use super::{
    domain::{Charges, sums},
    effect::Effect,
    partners::{Paid, Partners, Stock, gone, payment_failed},
    running::Running,
    saga::{Failure, Policy, Saga, State, Step, Todo},
    sagas::{self, Change, Kept},
};
use crate::{
    kit::{
        crash,
        database::{Database, Transaction},
        idempotency, log, observe,
        refusal::Refusal,
        time,
    },
    orders::run::Counts,
};

/// Everything that drives sagas. Clones share it.
#[derive(Clone)]
pub struct Conductor {
    pub(super) database: Database,
    pub(super) partners: Partners,
    policy: Policy,
    charges: Charges,
    /// How long a saga is held after its last change.
    lease: Duration,
    /// A failed one is looked at again after this long, when nothing can be on its way any more.
    pub(super) verify_after: Duration,
    /// How many are driven at once.
    pub(super) most: usize,
    /// How many may wait for payments.
    queue_limit: i64,
    pub(super) counts: Counts,
    pub(super) running: Running,
}

/// What a conductor is told.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How often what is tried.
    pub policy: Policy,
    /// What is added to prices.
    pub charges: Charges,
    /// See the fields of [`Conductor`].
    pub verify_after: Duration,
    /// How many sagas are driven at once.
    pub most: usize,
    /// How many orders may wait for payments, about: those that begin to at the same moment all do.
    pub queue_limit: i64,
}

/// A saga that this task drives.
struct Held {
    saga: Saga,
    lease: Uuid,
}

/// Why a task stops before its saga's end.
enum Halt {
    /// Somebody else drives it.
    Lost,
    /// The database failed; the recovery picks it up.
    Store,
}

impl From<sqlx::Error> for Halt {
    fn from(error: sqlx::Error) -> Self {
        log::error("a saga's state was not kept", &[("error", &error)]);
        Self::Store
    }
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Self {
        log::error(
            "a saga's state was not kept",
            &[("error", &refusal.message())],
        );
        Self::Store
    }
}

impl Conductor {
    /// With the services that it calls.
    pub fn new(database: Database, partners: Partners, rules: Rules, counts: Counts) -> Self {
        let slowest = partners.payment.max(partners.step);
        Self {
            database,
            policy: rules.policy,
            charges: rules.charges,
            // A try asks first and then calls; the pause after it is kept with it.
            lease: slowest * 2 + rules.policy.most + Duration::from_secs(5),
            partners,
            verify_after: rules.verify_after,
            most: rules.most,
            queue_limit: rules.queue_limit,
            counts,
            running: Running::default(),
        }
    }

    /// Puts a new saga into its table, held by us.
    pub(super) async fn insert(
        &self,
        write: &mut Transaction,
        saga: &Saga,
    ) -> Result<Uuid, sqlx::Error> {
        let lease = Uuid::new_v4();
        let until = time::after(saga.updated_at, self.lease);
        sagas::insert(write, saga, lease, until).await?;
        Ok(lease)
    }

    /// Takes the saga of an order, unless somebody drives it.
    pub(super) async fn take(
        &self,
        write: &mut Transaction,
        order: Uuid,
        now: i64,
    ) -> Result<Option<(Kept, Uuid)>, sqlx::Error> {
        sagas::take(write, order, now, self.lease).await
    }

    /// Keeps a saga that was taken and is not driven yet.
    pub(super) async fn keep(
        &self,
        write: &mut Transaction,
        saga: &Saga,
        lease: Uuid,
    ) -> Result<Change, sqlx::Error> {
        let until = time::after(time::now(), self.lease);
        sagas::keep(write, saga, lease, until).await
    }

    /// Drives a saga that we hold, until its end.
    pub(super) fn drive(&self, saga: Saga, lease: Uuid) {
        let order = saga.order_id;
        let ended = self.running.begin(order, lease);
        self.counts.running.inc();
        let conductor = self.clone();
        let work = observe::within(observe::current(), async move {
            let mut held = Held { saga, lease };
            if let Err(Halt::Store) = conductor.go(&mut held).await {
                // What cannot be let go runs out.
                sagas::release(&conductor.database, held.saga.id, lease)
                    .await
                    .ok();
            }
            conductor.running.end(order, lease);
            conductor.counts.running.dec();
            drop(ended);
        });
        tokio::spawn(work);
    }

    async fn go(&self, held: &mut Held) -> Result<(), Halt> {
        loop {
            let now = time::now();
            match held.saga.todo(now) {
                Todo::Nothing => break,
                Todo::Queued => {
                    // Nobody drives it while it waits: it takes no room.
                    sagas::release(&self.database, held.saga.id, held.lease).await?;
                    return Ok(());
                }
                Todo::Wait(until) => {
                    let pause = Duration::from_millis(until.saturating_sub(now).unsigned_abs());
                    tokio::time::sleep(pause).await;
                    // A wish to cancel need not wait for the next outcome.
                    self.save(held, Effect::None).await?;
                }
                Todo::Forward { step, ask } => self.forward(held, step, ask).await?,
                Todo::Back(step) => self.back(held, step).await?,
            }
        }
        self.ended(&held.saga);
        if held.saga.state == State::Completed {
            sagas::settle(&self.database, &held.saga, held.lease).await?;
        } else {
            sagas::release(&self.database, held.saga.id, held.lease).await?;
        }
        Ok(())
    }

    /// One step, asked about or made, and what came of it kept.
    async fn forward(&self, held: &mut Held, step: Step, ask: bool) -> Result<(), Halt> {
        let saga = &mut held.saga;
        crash::at(&["before", step.name()]);
        let (id, order) = (saga.id, saga.order_id);
        let making = async {
            match step {
                Step::ValidateUser => self.partners.validate_user(saga).await,
                Step::ReserveInventory => self.reserve(saga, ask).await,
                Step::CreateOrder => Ok(()),
                Step::ProcessPayment => self.pay(saga, ask).await,
                Step::ConfirmOrder => self.confirm(saga, ask).await,
            }
        };
        let outcome = told(step.name(), id, order, making).await;
        crash::at(&["after", step.name()]);
        let now = time::now();
        let effect = match outcome {
            Ok(()) => {
                saga.done(step, now);
                saga.begin(now);
                match step {
                    Step::CreateOrder => Effect::Insert,
                    Step::ProcessPayment => Effect::Paid,
                    Step::ConfirmOrder => Effect::Confirmed,
                    Step::ValidateUser | Step::ReserveInventory => Effect::None,
                }
            }
            Err(failure) => {
                self.report(saga, step, &failure, "a step failed");
                let policy = self.policy_now(step).await?;
                saga.failed(step, failure, now, &policy, fastrand::f64());
                if saga.queued {
                    log::warn(
                        "an order waits for payments",
                        &[("order_id", &saga.order_id)],
                    );
                }
                Effect::None
            }
        };
        self.save(held, effect).await
    }

    /// The policy, without a queue that is full.
    async fn policy_now(&self, step: Step) -> Result<Policy, Halt> {
        let mut policy = self.policy;
        if step == Step::ProcessPayment
            && self.queues()
            && sagas::queue_length(&self.database).await? >= self.queue_limit
        {
            policy.queue = Duration::ZERO;
        }
        Ok(policy)
    }

    /// Whether orders wait for payments that are away.
    pub(super) fn queues(&self) -> bool {
        !self.policy.queue.is_zero()
    }

    async fn reserve(&self, saga: &mut Saga, ask: bool) -> Result<(), Failure> {
        let known = if ask {
            self.partners.stock(saga.order_id).await?
        } else {
            Stock::Unknown
        };
        let (lines, currency) = match known {
            Stock::Held(lines, currency) => (lines, currency),
            Stock::Unknown => self.partners.reserve(saga).await?,
            Stock::Committed | Stock::Gone => return Err(gone()),
        };
        let costs = sums(&lines, &saga.data.asked.shipping_method, &self.charges);
        // Held stock whose price we cannot add up is given back like any other.
        saga.data.sums = costs.ok_or_else(|| {
            let large = "the order's total is more than can be charged";
            Failure {
                effective: true,
                ..Failure::new(Code::FailedPrecondition, "TOTAL_TOO_LARGE", large)
            }
        })?;
        saga.data.asked.lines = lines;
        saga.data.currency = currency;
        Ok(())
    }

    async fn pay(&self, saga: &mut Saga, ask: bool) -> Result<(), Failure> {
        if saga.data.sums.total == 0 {
            return Ok(());
        }
        let known = if ask {
            self.partners.paid(saga.order_id).await?
        } else {
            Paid::Unknown
        };
        saga.data.payment_id = match known {
            Paid::Taken(id) => id,
            Paid::Unknown | Paid::Open => self.partners.pay(saga).await?,
            Paid::Failed(reason) => return Err(payment_failed(&reason)),
            Paid::GivenBack => return Err(payment_failed("GIVEN_BACK")),
        };
        Ok(())
    }

    async fn confirm(&self, saga: &Saga, ask: bool) -> Result<(), Failure> {
        let known = if ask {
            self.partners.stock(saga.order_id).await?
        } else {
            Stock::Unknown
        };
        match known {
            Stock::Committed => Ok(()),
            Stock::Gone => Err(gone()),
            Stock::Held(..) | Stock::Unknown => self.partners.commit(saga).await,
        }
    }

    /// Takes one step back, and keeps what came of it.
    async fn back(&self, held: &mut Held, step: Step) -> Result<(), Halt> {
        let saga = &mut held.saga;
        crash::at(&["before-undoing", step.name()]);
        let undoing = async {
            match step {
                Step::ReserveInventory => self.partners.release(saga).await,
                Step::ProcessPayment if saga.data.sums.total > 0 => {
                    self.partners.refund(saga).await
                }
                Step::ProcessPayment
                | Step::CreateOrder
                | Step::ValidateUser
                | Step::ConfirmOrder => Ok(()),
            }
        };
        let outcome = told(step.compensation(), saga.id, saga.order_id, undoing).await;
        crash::at(&["after-undoing", step.name()]);
        let now = time::now();
        let effect = match outcome {
            Ok(()) => {
                saga.undone(step, now);
                match step {
                    Step::CreateOrder => Effect::Cancelled,
                    _ => Effect::None,
                }
            }
            Err(failure) => {
                self.report(saga, step, &failure, "a step was not taken back");
                saga.undo_failed(step, failure, now, &self.policy, fastrand::f64());
                Effect::None
            }
        };
        self.save(held, effect).await
    }

    /// Keeps the saga together with what it does to the order, and hears whether the client wants it no more.
    async fn save(&self, held: &mut Held, effect: Effect) -> Result<(), Halt> {
        let now = time::now();
        let mut write = self.database.write().await?;
        let saga = &held.saga;
        effect.apply(&mut write, saga, now).await?;
        if saga.state == State::Failed && saga.why.as_ref().is_some_and(|why| why.temporary) {
            // The same request again is a new try (SHOP-605).
            idempotency::forget(&mut write, &saga.operation).await?;
        }
        crash::at(&["keeping", saga.state.word()]);
        let wish = match self.keep(&mut write, saga, held.lease).await? {
            Change::Lost => return Err(Halt::Lost),
            Change::Kept { cancel } => cancel,
        };
        write.commit().await?;
        crash::at(&["kept", held.saga.state.word()]);
        let turns = wish.is_some() && !held.saga.is_ended() && !held.saga.is_turned();
        if turns {
            held.saga.turn(cancelled(), now);
            let mut write = self.database.write().await?;
            if self.keep(&mut write, &held.saga, held.lease).await? == Change::Lost {
                return Err(Halt::Lost);
            }
            write.commit().await?;
        }
        Ok(())
    }

    fn report(&self, saga: &Saga, step: Step, failure: &Failure, what: &str) {
        log::warn(
            what,
            &[
                ("saga_id", &saga.id),
                ("order_id", &saga.order_id),
                ("step", &step.name()),
                ("reason", &failure.reason),
                ("temporary", &failure.temporary),
            ],
        );
    }

    fn ended(&self, saga: &Saga) {
        let outcome = match saga.state {
            State::Completed => "completed",
            _ if saga.compensation.manual => "manual",
            _ => "failed",
        };
        self.counts.ended.with_label_values(&[outcome]).inc();
        let seconds = (saga.updated_at - saga.created_at) as f64 / 1000.0;
        self.counts
            .seconds
            .with_label_values(&[outcome])
            .observe(seconds);
        let fields: [(&str, &dyn std::fmt::Display); 3] = [
            ("saga_id", &saga.id),
            ("order_id", &saga.order_id),
            ("outcome", &outcome),
        ];
        if saga.compensation.manual {
            log::error(
                "a saga could not be undone; somebody has to look at it",
                &fields,
            );
        } else {
            log::info("saga ended", &fields);
        }
    }
}

/// One step as a span of the request's trace (OBS-107).
async fn told(
    name: &str,
    saga: Uuid,
    order: Uuid,
    making: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let tags: [(&'static str, &(dyn std::fmt::Display + Sync)); 3] =
        [("saga_id", &saga), ("order_id", &order), ("step", &name)];
    observe::step(
        name,
        &tags,
        |failure: &Failure| failure.reason.clone(),
        making,
    )
    .await
}

/// The client wanted it no more.
pub(super) fn cancelled() -> Failure {
    Failure::new(
        Code::FailedPrecondition,
        "ORDER_CANCELLED",
        "the order was cancelled",
    )
}
