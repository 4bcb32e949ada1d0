//! Who lends tokens: a store that all gateways ask, or a control plane. What a lender is asked and what it says,
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
    /// Tokens that are here, before any that are wanted.
    pub(crate) held: u64,
}

/// One limit's part of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) limit: String,
    pub(crate) rate: Rate,
    pub(crate) burst: u64,
    pub(crate) asks: Vec<Ask>,
}

/// How it stands between a lender and this gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// How many gateways share.
    pub(crate) gateways: u32,
    /// The lender took back what this gateway held: it had not heard of it for too long.
    pub(crate) lapsed: bool,
    /// Which of several lenders it is.
    pub(crate) lender: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lent {
    pub(crate) told: Option<Told>,
    /// For each slice, a grant for each ask, in order.
    pub(crate) grants: Vec<Vec<Grant>>,
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

    /// Slices in one question; at least one.
    const SLICES: usize;

    /// After a failure, nobody knows whether it was carried out.
    async fn lend(&mut self, slices: &[Slice]) -> Result<Lent, Self::Failure>;

    /// Says that we are here.
    async fn greet(&mut self) -> Result<Told, Self::Failure>;
}
