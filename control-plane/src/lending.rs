//! The one who calls the lender: it knows the time, and sees to it that whoever comes after us knows that something was
//! lent. One lock, held for the arithmetic of one question. Levels are in memory alone; a write for each token would make
//! a disk the bound of a limit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tollgate_config::leases::{Answer, Question};

use crate::lease::{Counts, GatewayStatus, Lender, LimitStatus, Refusal};
use crate::store::{Store, StoreError, Transaction};

/// Stands in the store as soon as anything was lent.
const LENT: &str = "lease/lent";

pub struct Lending {
    lender: Mutex<Lender>,
    store: Arc<dyn Store>,
    noted: AtomicBool,
    started: Instant,
}

/// Why nothing is lent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    Lender(Refusal),
    Store(StoreError),
}

impl Lending {
    /// `lasting`: what the store says outlives processes. Where it does not, nobody can know what was lent before us.
    pub async fn start(store: Arc<dyn Store>, lasting: bool) -> Result<Arc<Lending>, StoreError> {
        let lent = store.one(LENT).await?.is_some();
        let epoch = format!("{:032x}", fastrand::u128(..));
        Ok(Arc::new(Lending {
            lender: Mutex::new(Lender::new(epoch, lent || !lasting, Duration::ZERO)),
            store,
            noted: AtomicBool::new(lent || !lasting),
            started: Instant::now(),
        }))
    }

    /// Lends.
    pub async fn ask(&self, question: &Question) -> Result<Answer, Refused> {
        if !question.limits.is_empty() && !self.noted.load(Ordering::Acquire) {
            let noting = self.store.commit(Transaction::put(LENT, "true"));
            noting.await.map_err(Refused::Store)?;
            self.noted.store(true, Ordering::Release);
        }
        let now = self.now();
        self.lender().ask(question, now).map_err(Refused::Lender)
    }

    /// Its epoch, the limits, and who holds what.
    pub fn look(&self) -> (String, Vec<LimitStatus>, Vec<GatewayStatus>) {
        let now = self.now();
        let mut lender = self.lender();
        let (limits, gateways) = lender.look(now);
        (lender.epoch().to_owned(), limits, gateways)
    }

    /// What happened; and how many limits, clients and gateways there are.
    pub fn figures(&self) -> (Counts, (usize, usize, usize)) {
        let lender = self.lender();
        (lender.counts, lender.sizes())
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn lender(&self) -> MutexGuard<'_, Lender> {
        self.lender.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
