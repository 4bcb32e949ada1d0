//! The words all parts of Tollgate share: what a person writes, how it is read, and what is refused.
//!
//! `Loader` reads files into a `Document`, or says everything that is wrong with them at once. This crate knows no
//! sockets, no proxy and no clock; the control plane reads, checks and sends the same documents with the same code.

pub mod document;
pub mod path;
pub mod problem;

pub use document::*;
pub use problem::{Problem, Problems};
