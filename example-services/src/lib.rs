//! A shop of four services: users, products, orders and payments.
//!
//! They stand for somebody else's back end: they speak gRPC, keep a database each, know nothing of Tollgate and import
//! nothing of it. Each service is a folder that reads alone (`domain`, `store`, `grpc`, `http`, `run`); what they have in
//! common are functions in [`kit`] that they call. No service reads another one's store.

pub mod contracts;
pub mod kit;
pub mod orders;
pub mod payments;
pub mod products;
pub mod users;
