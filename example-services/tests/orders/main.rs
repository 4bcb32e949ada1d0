//! Orders and payments, with all four programs running: what clients see (SHOP-4xx, SHOP-45x, ACC-3xx).

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod clients;
mod failures;
mod money;
mod notices;
mod postgres;
mod waiting;
