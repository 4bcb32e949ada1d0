//! What a change of the saga does to the order, in one transaction with it (SHOP-504).

use super::{
    domain::Status,
    saga::Saga,
    store::{self, With},
};
use crate::kit::{database::Transaction, refusal::Refusal};

/// Which change of the order.
#[derive(Clone, Copy, Debug)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// Step 3.
    Insert,
    /// Step 4.
    Paid,
    /// Step 5.
    Confirmed,
    /// Step 3 taken back.
    Cancelled,
}

impl Effect {
    /// In the transaction that keeps the saga.
    pub(super) async fn apply(
        self,
        write: &mut Transaction,
        saga: &Saga,
        now: i64,
    ) -> Result<(), Refusal> {
        let (order, payment) = (saga.order_id, saga.data.payment_id.as_str());
        let with = With {
            actor: "saga",
            ..With::default()
        };
        match self {
            Self::None => {}
            Self::Insert => store::insert(write, saga, now).await?,
            Self::Paid => {
                let payment_id = (!payment.is_empty()).then_some(payment);
                let with = With { payment_id, ..with };
                store::change(write, order, Status::Paid, with, now).await?;
            }
            Self::Confirmed => {
                store::change(write, order, Status::Confirmed, with, now).await?;
            }
            Self::Cancelled => match store::standing(write, order).await? {
                // Never made; or ended by somebody else, with the refund and the stock left to us.
                None | Some((Status::Cancelled | Status::Returned, _)) => {}
                Some(_) => {
                    let reason = saga.why.as_ref().map_or("", |why| why.reason.as_str());
                    let with = With {
                        reason: Some(reason),
                        note: reason,
                        ..with
                    };
                    store::change(write, order, Status::Cancelled, with, now).await?;
                }
            },
        }
        Ok(())
    }
}
