//! Products: the catalog, and the stock with what is held of it (SHOP-3xx). Orders hold a product id and ask.
//!
//! `grpc` speaks the contract and asks who calls; `domain` has the rules; `catalog` and `inventory` keep things, `settle` is what
//! becomes of a reservation; `run` puts
//! it together.

pub mod catalog;
pub mod domain;
pub mod grpc;
pub mod inventory;
mod reservations;
pub mod run;
mod sample;
mod search;
mod settle;
mod steps;

use crate::kit::migrations::{KIT, Migration};

/// The versions of this service's database.
pub const MIGRATIONS: [Migration; 3] = [
    KIT,
    crate::migration!(2, "002_catalog"),
    crate::migration!(3, "003_search", each),
];
