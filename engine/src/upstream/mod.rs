//! Where requests go.

pub mod discovery;
