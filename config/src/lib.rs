//! The words all parts of Tollgate share: what a person writes, how it is read, and what is refused.
//!
//! `Loader` reads files into a `Document`, or says everything that is wrong with them at once. This crate knows no
//! sockets, no proxy and no clock; the control plane reads, checks and sends the same documents with the same code, in
//! the words of `feed`.

mod binding;
mod body_schema;
mod check;
pub mod control_plane;
mod cut;
mod decode;
pub mod document;
pub mod feed;
pub mod fleet;
mod grammar;
pub mod identity;
mod interpolate;
mod ladder;
pub mod leases;
mod loader;
mod nearest;
mod parse;
pub mod path;
pub mod problem;
mod quick;
mod reference;
mod report;
mod rule;
mod schema;
mod service;
pub mod sidecar;
pub mod span;
pub mod unit;
mod validate;
mod warning;

pub use body_schema::{
    BodyFormat, BodyKind, BodyNode, BodySchema, Bounds, NodeId, OtherProperties, Sanitize,
};
pub use document::*;
pub use loader::Loader;
pub use problem::{Fault, Problem, Problems};
pub use quick::quick;
pub use reference::reference;
pub use schema::schema;
pub use service::service_of;
pub use warning::warnings;

/// Reads `orders`, which is of the namespace `default`, or `shop/orders`.
pub fn member(text: &str) -> Result<Member, Fault> {
    decode::member(text)
}

/// Whether a text is `host:port`, as an endpoint of an upstream is written.
pub fn endpoint(text: &str) -> Result<(), Fault> {
    rule::endpoint(text)
}
