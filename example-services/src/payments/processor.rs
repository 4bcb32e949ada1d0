//! What a payment processor must be able to do (SHOP-454, SHOP-902). Whoever implements it speaks to one; nothing here
//! decides about payments.

use std::{fmt::Debug, future::Future, pin::Pin};

use crate::kit::money::Money;

/// An answer that takes its time.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Trouble>> + Send + 'a>>;

/// Why it is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Refused for good, with the reason in upper snake case. Nothing happened.
    Declined(String),
    /// No answer. It may have happened or not: [`Processor::find`] tells.
    Away,
}

/// What is to be paid.
#[derive(Clone, Copy, Debug)]
pub struct Charge<'a> {
    /// The processor knows it by this from now on.
    pub key: &'a str,
    /// How much.
    pub amount: Money,
    /// ISO 4217.
    pub currency: &'a str,
    /// card, bank_transfer …
    pub method: &'a str,
    /// Stands for a card.
    pub token: &'a str,
}

/// What became of a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The processor's name for it.
    pub id: String,
    /// How far it came.
    pub state: FoundState,
}

/// How far a charge came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundState {
    /// Held, not taken.
    Authorized,
    /// Taken.
    Captured,
    /// Given up before it was taken.
    Voided,
    /// Refused for good, and why.
    Declined(String),
}

/// A card, on its way to the processor. Not shown by `{:?}`.
pub struct Card<'a> {
    /// Digits only.
    pub number: &'a str,
    /// 1 to 12.
    pub month: i32,
    /// Four digits.
    pub year: i32,
}

/// One processor.
pub trait Processor: Send + Sync + Debug {
    /// Holds an amount, and tells its name.
    fn authorize<'a>(&'a self, charge: Charge<'a>) -> Answer<'a, String>;
    /// Takes what is held.
    fn capture<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// Gives up what is held.
    fn void<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// Gives back so much of what was taken.
    fn refund<'a>(&'a self, id: &'a str, key: &'a str, amount: Money) -> Answer<'a, ()>;
    /// What became of the charge with this key.
    fn find<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Found>>;
    /// Whether the refund with this key was made.
    fn find_refund<'a>(&'a self, key: &'a str) -> Answer<'a, bool>;
    /// A token that stands for the card from now on.
    fn tokenize<'a>(&'a self, card: Card<'a>) -> Answer<'a, String>;
}
