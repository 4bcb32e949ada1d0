//! What a payment is, and how it may change (SHOP-451, SHOP-453). Nothing here reads a clock, a store or a network.

use uuid::Uuid;

use crate::{contracts::payments as contract, kit::money::Money};

/// Where a payment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing is known to have happened at the processor.
    Pending,
    /// The processor holds the amount.
    Authorized,
    /// The amount is being taken.
    Processing,
    /// Taken; also when a part was given back.
    Completed,
    /// Nothing is taken, and nothing will be.
    Failed,
    /// Something is being given back.
    Refunding,
    /// Everything was given back.
    Refunded,
}

/// What happens to a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The processor holds the amount.
    Authorized,
    /// The processor refuses for good.
    Declined,
    /// We are about to take what is held.
    CaptureStarted,
    /// It is taken.
    Captured,
    /// The processor does not let us take it.
    CaptureRejected,
    /// It is wanted no more, and was not taken.
    Voided,
    /// We are about to give something back.
    RefundStarted,
    /// Everything is given back.
    Refunded,
    /// A part is given back.
    RefundedInPart,
    /// The processor refuses to give back.
    RefundFailed,
}

/// All states, for stores and tests.
pub const STATUSES: [Status; 7] = [
    Status::Pending,
    Status::Authorized,
    Status::Processing,
    Status::Completed,
    Status::Failed,
    Status::Refunding,
    Status::Refunded,
];

impl Status {
    /// The next state, if this may happen now (SHOP-453). Beside the table a payment can be voided as long as nothing was
    /// taken, also when the processor never heard of it.
    pub fn after(self, event: Event) -> Option<Self> {
        use Event as E;
        Some(match (self, event) {
            (Self::Pending, E::Authorized) => Self::Authorized,
            (Self::Pending, E::Declined) => Self::Failed,
            (Self::Authorized, E::CaptureStarted) => Self::Processing,
            (Self::Processing, E::Captured) => Self::Completed,
            (Self::Processing, E::CaptureRejected) => Self::Failed,
            (Self::Pending | Self::Authorized | Self::Processing, E::Voided) => Self::Failed,
            (Self::Completed, E::RefundStarted) => Self::Refunding,
            (Self::Refunding, E::Refunded) => Self::Refunded,
            (Self::Refunding, E::RefundedInPart | E::RefundFailed) => Self::Completed,
            _ => return None,
        })
    }

    /// As stores keep it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Authorized => "AUTHORIZED",
            Self::Processing => "PROCESSING",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Refunding => "REFUNDING",
            Self::Refunded => "REFUNDED",
        }
    }

    /// Back from a store.
    pub fn of(word: &str) -> Option<Self> {
        STATUSES.into_iter().find(|status| status.word() == word)
    }

    /// As the contract has it.
    pub fn contract(self) -> contract::PaymentStatus {
        match self {
            Self::Pending => contract::PaymentStatus::Pending,
            Self::Authorized => contract::PaymentStatus::Authorized,
            Self::Processing => contract::PaymentStatus::Processing,
            Self::Completed => contract::PaymentStatus::Completed,
            Self::Failed => contract::PaymentStatus::Failed,
            Self::Refunding => contract::PaymentStatus::Refunding,
            Self::Refunded => contract::PaymentStatus::Refunded,
        }
    }
}

impl Event {
    /// As the log of transactions has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Authorized => "authorized",
            Self::Declined => "declined",
            Self::CaptureStarted => "capture_started",
            Self::Captured => "captured",
            Self::CaptureRejected => "capture_rejected",
            Self::Voided => "voided",
            Self::RefundStarted => "refund_started",
            Self::Refunded => "refunded",
            Self::RefundedInPart => "refunded_in_part",
            Self::RefundFailed => "refund_failed",
        }
    }
}

/// Methods that are known. Others fail when a payment is made with them, not before (SHOP-454).
pub const METHODS: [&str; 4] = [
    "card",
    "digital_wallet",
    "bank_transfer",
    "cash_on_delivery",
];

/// One payment.
#[derive(Clone, Debug, PartialEq)]
pub struct Payment {
    /// Ours.
    pub id: Uuid,
    /// At most one payment for each.
    pub order_id: Uuid,
    /// Who pays.
    pub user_id: String,
    /// More than nothing.
    pub amount: Money,
    /// ISO 4217.
    pub currency: String,
    /// Empty for an intent without one yet.
    pub method: String,
    /// Stands for what is paid with, at the processor.
    pub token: String,
    /// Where it stands.
    pub status: Status,
    /// Under which the processor and our callers know the charge.
    pub key: String,
    /// The processor's name for it.
    pub external: Option<String>,
    /// Why it failed.
    pub failure: Option<String>,
    /// What was given back.
    pub refunded: Money,
    /// Somebody has to look at it.
    pub needs_attention: bool,
    /// When it was taken.
    pub processed_at: Option<i64>,
    /// When it came.
    pub created_at: i64,
    /// When it changed.
    pub updated_at: i64,
}

impl Payment {
    /// What can still be given back.
    pub fn left(&self) -> Money {
        self.amount.minus(self.refunded).unwrap_or(Money::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVENTS: [Event; 10] = [
        Event::Authorized,
        Event::Declined,
        Event::CaptureStarted,
        Event::Captured,
        Event::CaptureRejected,
        Event::Voided,
        Event::RefundStarted,
        Event::Refunded,
        Event::RefundedInPart,
        Event::RefundFailed,
    ];

    proptest! {
        /// SHOP-453, SHOP-456: whatever is tried in whatever order, money is taken at most once, never after the end,
        /// and given back only after it was taken.
        #[test]
        fn no_order_of_events_takes_twice(tried in prop::collection::vec(0..EVENTS.len(), 0..60)) {
            let mut status = Status::Pending;
            let mut taken = 0;
            for event in tried.into_iter().map(|index| EVENTS[index]) {
                let Some(next) = status.after(event) else { continue };
                taken += i32::from(event == Event::Captured);
                prop_assert!(!matches!(status, Status::Failed | Status::Refunded), "an end is an end");
                prop_assert!(event != Event::RefundStarted || taken == 1);
                prop_assert!(next != Status::Failed || taken == 0);
                status = next;
            }
            prop_assert!(taken <= 1);
        }
    }

    #[test]
    fn words_are_read_back() {
        for status in STATUSES {
            assert_eq!(Status::of(status.word()), Some(status));
        }
    }
}
