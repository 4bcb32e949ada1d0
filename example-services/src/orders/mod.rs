//! What was bought, and the saga that makes an order of a request (SHOP-4xx, SHOP-5xx).
//!
//! `domain` has an order's states and sums; `saga` the five steps as a state machine that knows no clock, no store and no
//! network; `conductor` does what the machine says, and keeps its state before and after, with its `effect` on the order;
//! `running` knows what is driven here and waits for ends; `recovery` picks up what was left, `queue` what waits for payments;
//! `partners` calls the other services, payments unless its `breaker` is open; `notices` tells customers. `store` and `sagas` are the tables, `intake` and `changes` what clients can ask for, `examine` compares what
//! the services hold, `grpc` and `http` are the doors. No order is ever confirmed anywhere but in a saga.

pub mod breaker;
mod changes;
pub mod conductor;
pub mod domain;
mod effect;
mod examine;
mod grpc;
mod http;
mod intake;
mod listing;
mod messages;
pub mod notices;
pub mod partners;
mod queue;
mod recovery;
mod run;
mod running;
pub mod saga;
pub mod sagas;
pub mod store;

pub use run::main;
