//! Orders that wait for payments (SHOP-511, GW-702): rows of the table of sagas that nobody drives, so that they take no room and
//! outlive the process. They go on when payments answers, and are given up when they waited for as long as they may.

use tonic::Code;

use super::{conductor::Conductor, saga::Failure, sagas};
use crate::kit::{log, time};

/// So many go on at once, and the next ones a turn later.
const AT_ONCE: i64 = 100;

impl Conductor {
    /// Looks after those who wait. Again and again, by any number of processes.
    pub(super) async fn look_after_queue(&self) {
        if let Err(error) = self.try_queue().await {
            log::error(
                "orders that wait for payments were not looked after",
                &[("error", &error)],
            );
        }
    }

    async fn try_queue(&self) -> Result<(), sqlx::Error> {
        let waiting = sagas::queue_length(&self.database).await?;
        self.counts.queued.set(waiting);
        if waiting == 0 {
            return Ok(());
        }
        for order in sagas::queued(&self.database, Some(time::now()), AT_ONCE).await? {
            self.pick_up(order, &mut None).await?;
        }
        if !self.partners.payments_up().await {
            return Ok(());
        }
        let room = i64::try_from(self.room()).unwrap_or(AT_ONCE).min(AT_ONCE);
        for order in sagas::queued(&self.database, None, room).await? {
            self.pick_up(order, &mut None).await?;
        }
        Ok(())
    }
}

/// What the order that is given up says of it.
pub(super) fn waited_in_vain() -> Failure {
    Failure::new(
        Code::Unavailable,
        "PAYMENT_QUEUE_EXPIRED",
        "payments did not come back in time; send the order again",
    )
}
