//! Users: accounts, sign-in, profiles (SHOP-2xx). Nobody else reads or writes them; other services hold a user id and ask.
//!
//! `grpc` speaks the contract and asks who calls; `domain` has the rules; `store` and `sessions` keep things; `passwords`
//! and `tokens` are the two crafts; `run` puts it together. `http` has what browsers and gateways ask besides.

pub mod domain;
pub mod grpc;
pub mod http;
pub mod passwords;
pub mod run;
mod sample;
pub mod sessions;
pub mod store;
pub mod tokens;

use crate::kit::migrations::{KIT, Migration};

/// The versions of this service's database.
pub const MIGRATIONS: [Migration; 2] = [KIT, crate::migration!(2, "002_accounts")];
