//! What is done with a saga that nobody drives, by its state and age: the table of SHOP-508. In doubt it compensates.

use super::State;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Go on forward.
    Continue,
    /// Turn back.
    Compensate,
    /// It is through; only the record has to say so.
    Finish,
    /// Go on back.
    Resume,
    /// Look whether everything was taken back.
    Verify,
    /// Nothing.
    Leave,
}

/// Younger ones go on forward, in milliseconds.
const YOUNG: i64 = 5 * 60 * 1000;

/// By state, milliseconds since the last change, and whether payments answers.
pub fn recover(state: State, age: i64, payments_up: bool) -> Action {
    match state {
        State::Initiated
        | State::UserValidated
        | State::InventoryReserved
        | State::OrderCreated => {
            if age < YOUNG {
                Action::Continue
            } else {
                Action::Compensate
            }
        }
        State::PaymentProcessed if payments_up => Action::Continue,
        State::PaymentProcessed => Action::Compensate,
        State::OrderConfirmed => Action::Finish,
        State::CompensatePayment
        | State::CompensateOrder
        | State::CompensateInventory
        | State::CompensateUser => Action::Resume,
        State::Failed => Action::Verify,
        State::Completed => Action::Leave,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHOP-508, row by row.
    #[test]
    fn the_table_is_the_requirement() {
        let old = YOUNG + 1;
        for (state, age, up, action) in [
            (State::Initiated, 0, true, Action::Continue),
            (State::Initiated, old, true, Action::Compensate),
            (State::PaymentProcessed, old, true, Action::Continue),
            (State::PaymentProcessed, 0, false, Action::Compensate),
            (State::UserValidated, 0, true, Action::Continue),
            (State::InventoryReserved, old, true, Action::Compensate),
            (State::OrderCreated, old, true, Action::Compensate),
            (State::OrderConfirmed, old, false, Action::Finish),
            (State::CompensatePayment, old, false, Action::Resume),
            (State::CompensateOrder, 0, true, Action::Resume),
            (State::CompensateInventory, 0, true, Action::Resume),
            (State::Failed, old, true, Action::Verify),
            (State::Completed, old, false, Action::Leave),
        ] {
            assert_eq!(recover(state, age, up), action, "{state:?} {age} {up}");
        }
    }
}
