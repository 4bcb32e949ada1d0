//! What the four services have in common, as functions and plain types that they call. Nothing here knows a service, and
//! nothing here is a trait that one would have to implement.

pub mod cache;
pub mod caller;
pub mod channel;
pub mod crash;
pub mod database;
pub mod events;
pub mod health;
pub mod idempotency;
pub mod listen;
pub mod log;
pub mod metrics;
pub mod migrations;
pub mod money;
pub mod observe;
pub mod page;
pub mod program;
mod recent;
pub mod reflection;
pub mod refusal;
pub mod rest;
pub mod rules;
pub mod settings;
pub mod stop;
pub mod time;
