//! Money movement: at most one charge for an order, never more refunded than was paid (SHOP-45x).
//!
//! `domain` has the states, `processor` what a payment processor must be able to do, `simulated` one that has a ledger of
//! its own, `desk` brings a payment from state to state, `store` keeps it, `grpc` and `http` are its doors. A payment's
//! state is durable before the processor is called; after a crash the processor is asked what became of the call before
//! it is called again. Card numbers come in, and go on to the processor only; what is kept is a token and four digits.

pub mod desk;
pub mod domain;
mod grpc;
pub mod http;
mod intents;
mod messages;
pub mod processor;
pub mod refunds;
mod run;
pub mod simulated;
pub mod store;

pub use run::main;
