//! What an order is, how it may change, and what it costs (SHOP-401, SHOP-405 to SHOP-407). Nothing here reads a clock or
//! a store.

use serde::{Deserialize, Serialize};
use tonic::Code;

use crate::{
    contracts::orders as contract,
    kit::{money::Money, refusal::Refusal},
};

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Accepted.
    Created,
    /// All items are held.
    Reserved,
    /// And paid for.
    Paid,
    /// Its saga is through.
    Confirmed,
    /// All of it is on its way.
    Shipped,
    /// It arrived.
    Delivered,
    /// Given up; nothing is held or kept of what was paid.
    Cancelled,
    /// It came back.
    Returned,
}

/// All states.
pub const STATUSES: [Status; 8] = [
    Status::Created,
    Status::Reserved,
    Status::Paid,
    Status::Confirmed,
    Status::Shipped,
    Status::Delivered,
    Status::Cancelled,
    Status::Returned,
];

impl Status {
    /// Whether an order may go from here to there (SHOP-405).
    pub fn may_become(self, next: Self) -> bool {
        use Status as S;
        matches!(
            (self, next),
            (S::Created, S::Reserved)
                | (S::Reserved, S::Paid)
                | (S::Paid, S::Confirmed)
                | (S::Paid | S::Confirmed, S::Shipped)
                | (S::Shipped, S::Delivered | S::Returned)
                | (
                    S::Created | S::Reserved | S::Paid | S::Confirmed,
                    S::Cancelled
                )
        )
    }

    /// As stores and messages name it.
    pub fn word(self) -> &'static str {
        self.contract().as_str_name()
    }

    /// Back from a store.
    pub fn of(word: &str) -> Option<Self> {
        STATUSES.into_iter().find(|status| status.word() == word)
    }

    /// As the contract has it.
    pub fn contract(self) -> contract::OrderStatus {
        match self {
            Self::Created => contract::OrderStatus::Created,
            Self::Reserved => contract::OrderStatus::Reserved,
            Self::Paid => contract::OrderStatus::Paid,
            Self::Confirmed => contract::OrderStatus::Confirmed,
            Self::Shipped => contract::OrderStatus::Shipped,
            Self::Delivered => contract::OrderStatus::Delivered,
            Self::Cancelled => contract::OrderStatus::Cancelled,
            Self::Returned => contract::OrderStatus::Returned,
        }
    }

    /// From the contract.
    pub fn from_contract(number: i32) -> Option<Self> {
        let named = contract::OrderStatus::try_from(number).ok()?;
        Self::of(named.as_str_name())
    }

    /// For simple clients (SHOP-406).
    pub fn phase(self) -> contract::order::Phase {
        match self {
            Self::Created | Self::Reserved | Self::Paid => contract::order::Phase::Pending,
            Self::Cancelled => contract::order::Phase::Failed,
            _ => contract::order::Phase::Confirmed,
        }
    }

    /// What is told about a change that may not be.
    pub fn refuse(self, action: &str) -> Refusal {
        Refusal::new(
            Code::FailedPrecondition,
            "WRONG_ORDER_STATE",
            "the order's state does not allow this",
        )
        .with("status", self.word())
        .with("action", action)
    }
}

/// One line of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Products' name for it.
    pub product_id: String,
    /// 1 to 100.
    pub quantity: i64,
    /// Minor units, as it was when the stock was held (SHOP-407).
    pub unit_price: i64,
}

/// Where it goes: a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// 1 to 200 characters.
    pub street: String,
    /// 1 to 100 characters.
    pub city: String,
    /// By the country's rules.
    pub state: String,
    /// By the country's rules.
    pub zip_code: String,
    /// Three letters.
    pub country: String,
}

/// How it goes.
pub const SHIPPING: [&str; 3] = ["standard", "express", "overnight"];

/// What is added to the items' prices.
#[derive(Clone, Copy, Debug)]
pub struct Charges {
    /// Hundredths of a percent of the items' sum.
    pub tax: u32,
    /// By the index in [`SHIPPING`].
    pub shipping: [Money; 3],
}

/// What an order costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Minor units, all of them.
    pub sub_total: i64,
    /// Of the items.
    pub tax: i64,
    /// For the way.
    pub shipping: i64,
    /// The sum of the others.
    pub total: i64,
}

/// Nothing, when it is more than can be kept.
pub fn sums(lines: &[Line], shipping: &str, charges: &Charges) -> Option<Sums> {
    let mut sub_total = Money::ZERO;
    for line in lines {
        let price = Money::from_minor(line.unit_price).times(line.quantity)?;
        sub_total = sub_total.plus(price)?;
    }
    let tax = sub_total.share(charges.tax)?;
    let way = SHIPPING.iter().position(|method| *method == shipping)?;
    let way = charges.shipping[way];
    let total = sub_total.plus(tax)?.plus(way)?;
    Some(Sums {
        sub_total: sub_total.minor(),
        tax: tax.minor(),
        shipping: way.minor(),
        total: total.minor(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// DEC-26, SHOP-401: the total is the sum of its parts, to the cent, whatever was bought.
        #[test]
        fn totals_are_exact(
            lines in prop::collection::vec((0i64..10_000_000, 1i64..=100), 1..50),
            tax in 0u32..3000,
            way in 0usize..3,
        ) {
            let lines: Vec<_> = lines.into_iter().map(|(unit_price, quantity)| Line {
                product_id: String::new(), quantity, unit_price,
            }).collect();
            let charges = Charges { tax, shipping: [499, 999, 2499].map(Money::from_minor) };
            let exact: i128 = lines.iter().map(|line| i128::from(line.unit_price) * i128::from(line.quantity)).sum();
            match sums(&lines, SHIPPING[way], &charges) {
                Some(sums) => {
                    prop_assert_eq!(i128::from(sums.sub_total), exact);
                    prop_assert_eq!(sums.total, sums.sub_total + sums.tax + sums.shipping);
                    // Rounded to the nearest cent, so off by half a cent at most.
                    let off = exact * i128::from(tax) - i128::from(sums.tax) * 10_000;
                    prop_assert!(off.abs() <= 5_000, "{}", off);
                }
                None => prop_assert!(exact * 2 > 9_999_999_999),
            }
        }

        /// SHOP-405: a cancelled, returned or delivered order stays so, and nothing is shipped that was not paid.
        #[test]
        fn ends_are_ends(tried in prop::collection::vec(0..STATUSES.len(), 0..60)) {
            let (mut now, mut paid) = (Status::Created, false);
            for next in tried.into_iter().map(|index| STATUSES[index]) {
                if now.may_become(next) {
                    prop_assert!(!matches!(now, Status::Cancelled | Status::Returned | Status::Delivered));
                    paid |= next == Status::Paid;
                    prop_assert!(paid || !matches!(next, Status::Confirmed | Status::Shipped));
                    now = next;
                }
            }
        }
    }
}
