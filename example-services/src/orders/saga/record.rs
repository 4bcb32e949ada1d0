//! What is kept of a saga (SHOP-502, SHOP-503). Written as JSON into one column: its fields are this program's own, and a
//! field that is added later has a default.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    super::domain::{Address, Line, Sums},
    failure::Failure,
};
use crate::kit::time;

/// The steps, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Step {
    /// users: exists and is active. Nothing to take back.
    ValidateUser,
    /// products: all items are held.
    ReserveInventory,
    /// Here: the order's row.
    CreateOrder,
    /// payments: authorized and captured.
    ProcessPayment,
    /// products and here: the stock is committed, the order confirmed.
    ConfirmOrder,
}

/// All steps.
pub const STEPS: [Step; 5] = [
    Step::ValidateUser,
    Step::ReserveInventory,
    Step::CreateOrder,
    Step::ProcessPayment,
    Step::ConfirmOrder,
];

impl Step {
    /// As shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::ValidateUser => "ValidateUser",
            Self::ReserveInventory => "ReserveInventory",
            Self::CreateOrder => "CreateOrder",
            Self::ProcessPayment => "ProcessPayment",
            Self::ConfirmOrder => "ConfirmOrder",
        }
    }

    /// Who makes it.
    pub fn service(self) -> &'static str {
        match self {
            Self::ValidateUser => "users",
            Self::ReserveInventory => "products",
            Self::CreateOrder => "orders",
            Self::ProcessPayment => "payments",
            Self::ConfirmOrder => "products, orders",
        }
    }

    /// What takes it back.
    pub fn compensation(self) -> &'static str {
        match self {
            Self::ValidateUser => "none",
            Self::ReserveInventory => "ReleaseInventory",
            Self::CreateOrder => "CancelOrder",
            Self::ProcessPayment => "RefundPayment",
            Self::ConfirmOrder => "with ReserveInventory",
        }
    }

    pub(super) fn can_be_undone(self) -> bool {
        !matches!(self, Self::ValidateUser | Self::ConfirmOrder)
    }
}

/// Where a saga stands (SHOP-501).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Kept; nothing is done yet.
    Initiated,
    /// Step 1 is done.
    UserValidated,
    /// Step 2 is done.
    InventoryReserved,
    /// Step 3 is done.
    OrderCreated,
    /// Step 4 is done.
    PaymentProcessed,
    /// Step 5 is done. Left for `Completed` at once.
    OrderConfirmed,
    /// The good end.
    Completed,
    /// Giving back what was paid.
    CompensatePayment,
    /// Cancelling the order.
    CompensateOrder,
    /// Giving back what was held.
    CompensateInventory,
    /// Nothing to do for users.
    CompensateUser,
    /// The other end.
    Failed,
}

impl State {
    /// As stores keep it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Initiated => "initiated",
            Self::UserValidated => "user_validated",
            Self::InventoryReserved => "inventory_reserved",
            Self::OrderCreated => "order_created",
            Self::PaymentProcessed => "payment_processed",
            Self::OrderConfirmed => "order_confirmed",
            Self::Completed => "completed",
            Self::CompensatePayment => "compensate_payment",
            Self::CompensateOrder => "compensate_order",
            Self::CompensateInventory => "compensate_inventory",
            Self::CompensateUser => "compensate_user",
            Self::Failed => "failed",
        }
    }
}

/// How a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// Not begun.
    Pending,
    /// Begun; the outcome is not known.
    InProgress,
    /// It took effect.
    Completed,
    /// It was given up.
    Failed,
    /// It was taken back.
    Compensated,
}

/// One step, as it went (SHOP-502). Service and compensation follow from the step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Which.
    pub step: Step,
    /// How it stands.
    pub status: StepStatus,
    /// Tries that failed.
    pub tries: u32,
    /// A try may have taken effect without our knowing.
    pub in_doubt: bool,
    /// Not before.
    pub retry_at: i64,
    /// First begun.
    pub started_at: Option<i64>,
    /// Ended, either way.
    pub completed_at: Option<i64>,
    /// Of the last try.
    pub error: Option<Failure>,
}

/// How taking back one step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UndoStatus {
    /// To be done.
    Pending,
    /// Done.
    Done,
    /// Not possible, or not within the tries.
    Failed,
}

/// Taking back one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Undo {
    /// Which.
    pub step: Step,
    /// How it stands.
    pub status: UndoStatus,
    /// Tries that failed.
    pub tries: u32,
    /// Not before.
    pub retry_at: i64,
    /// Of the last try.
    pub error: Option<Failure>,
}

impl Undo {
    pub(super) fn new(step: Step) -> Self {
        Self {
            step,
            status: UndoStatus::Pending,
            tries: 0,
            retry_at: 0,
            error: None,
        }
    }
}

/// Everything about going back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Compensation {
    /// Set: the saga goes back.
    pub started_at: Option<i64>,
    /// When nothing was left to do.
    pub ended_at: Option<i64>,
    /// In the order in which it is done.
    pub undo: Vec<Undo>,
    /// All tries together.
    pub attempts: u32,
    /// Something could not be undone: somebody has to look at it.
    pub manual: bool,
}

/// How often it was picked up again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    /// Times.
    pub attempts: u32,
    /// The last time.
    pub last: Option<i64>,
    /// What was decided then.
    pub status: String,
}

/// What was ordered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// Which products and how many; prices are those of the reservation.
    pub lines: Vec<Line>,
    /// Where it goes.
    pub address: Address,
    /// Passed on unchecked (SHOP-454).
    pub payment_method: String,
    /// Passed on unchecked.
    pub payment_token: String,
    /// One of `domain::SHIPPING`.
    pub shipping_method: String,
    /// Up to 500 characters.
    pub notes: String,
}

/// What was ordered, and what the steps brought.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Of the client.
    pub asked: Asked,
    /// Of step 2.
    pub currency: String,
    /// Of step 2.
    pub sums: Sums,
    /// Of step 4.
    pub payment_id: String,
}

/// One saga (SHOP-503).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saga {
    /// Its own.
    #[serde(with = "ids")]
    pub id: Uuid,
    /// One saga for each.
    #[serde(with = "ids")]
    pub order_id: Uuid,
    /// Whose.
    pub user_id: String,
    /// Of the user's token, if there was one.
    pub tenant: String,
    /// The idempotency key of the request (SHOP-510).
    pub operation: String,
    /// Where it stands.
    pub state: State,
    /// All five.
    pub steps: Vec<StepRecord>,
    /// Steps that took effect and were not taken back, in order.
    pub stack: Vec<Step>,
    /// What the steps work with.
    pub data: Data,
    /// Why it goes back.
    pub why: Option<Failure>,
    /// Going back.
    pub compensation: Compensation,
    /// Picked up again.
    pub recovery: Recovery,
    /// It waits for payments, and nobody drives it (SHOP-511).
    #[serde(default)]
    pub queued: bool,
    /// Since it first had to: until when it may.
    #[serde(default)]
    pub queued_until: Option<i64>,
    /// When it came.
    pub created_at: i64,
    /// When it changed.
    pub updated_at: i64,
}

impl Saga {
    /// A new one.
    pub fn new(user_id: &str, operation: &str, asked: Asked, now: i64) -> Self {
        let steps = STEPS.map(|step| StepRecord {
            step,
            status: StepStatus::Pending,
            tries: 0,
            in_doubt: false,
            retry_at: 0,
            started_at: None,
            completed_at: None,
            error: None,
        });
        Self {
            id: Uuid::now_v7(),
            order_id: Uuid::now_v7(),
            user_id: user_id.into(),
            tenant: String::new(),
            operation: operation.into(),
            state: State::Initiated,
            steps: steps.into(),
            stack: Vec::new(),
            data: Data {
                asked,
                ..Data::default()
            },
            why: None,
            compensation: Compensation::default(),
            recovery: Recovery::default(),
            queued: false,
            queued_until: None,
            created_at: now,
            updated_at: now,
        }
    }

    /// The key under which a step is made or taken back (SHOP-601): the same over all retries.
    pub fn key(&self, step: Step) -> String {
        let (saga, order) = (self.id, self.order_id);
        match step {
            Step::ValidateUser => format!("saga:{saga}:validateuser:{}", self.user_id),
            Step::ReserveInventory => format!("saga:{saga}:reserve:{order}"),
            Step::CreateOrder => {
                let second = time::text(self.created_at);
                let second = second.get(..19).unwrap_or_default();
                format!("saga:{saga}:createorder:{}:{second}", self.user_id)
            }
            Step::ProcessPayment => format!("saga:{saga}:payment:{order}"),
            Step::ConfirmOrder => format!("saga:{saga}:confirm:{order}"),
        }
    }

    /// The key of a compensation.
    pub fn undo_key(&self, what: &str) -> String {
        let (saga, order) = (self.id, self.order_id);
        match what {
            "refund" => format!("saga:{saga}:refund:{order}"),
            what => format!("saga:{saga}:compensate:{what}:{order}"),
        }
    }
}

mod ids {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use uuid::Uuid;

    pub(super) fn serialize<S: Serializer>(id: &Uuid, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Uuid, D::Error> {
        let text = String::deserialize(from)?;
        Uuid::try_parse(&text).map_err(D::Error::custom)
    }
}
