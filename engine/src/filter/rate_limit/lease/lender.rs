//! Who lends tokens: a store that all gateways ask, and later a control plane. What a lender is asked and what it says,
//! and nothing of how.

use std::time::Duration;

use tollgate_config::unit::Rate;

use super::super::shelf::Key;

/// The limit that a batch is about, as its lender has to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms<'a> {
    pub(crate) limit: &'a str,
    pub(crate) rate: Rate,
    pub(crate) burst: u64,
}

/// One client's part of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) key: Key,
    /// Tokens wanted.
    pub(crate) want: u64,
    /// Tokens that were used without the lender knowing; below zero: tokens that come back.
    pub(crate) debit: i64,
}

/// One client's part of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    /// At most what was wanted.
    pub(crate) tokens: u64,
    /// What is left in the lender's bucket, in thousandths; below zero: what was used on credit and has yet to come back.
    pub(crate) left: i64,
}

impl Grant {
    /// How long until the lender has a whole token again.
    pub(crate) fn until_one(&self, rate: Rate) -> Duration {
        let missing = u128::try_from(1000 - i128::from(self.left)).unwrap_or(0);
        let nanoseconds = missing * rate.per.as_nanos() / (u128::from(rate.count.max(1)) * 1000);
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

/// Lends. One question at a time; whoever asks sees to it that nothing waits for the answer but more questions.
pub(crate) trait Lender {
    /// Why it cannot be asked, for operators.
    type Failure: std::fmt::Display;

    /// A grant for each ask, in order. After a failure, nobody knows whether it was carried out.
    async fn lend(&mut self, terms: Terms<'_>, asks: &[Ask]) -> Result<Vec<Grant>, Self::Failure>;

    /// Says that we are here; how many gateways are.
    async fn greet(&mut self) -> Result<u32, Self::Failure>;
}
