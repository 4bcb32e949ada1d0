//! What the data plane tells about itself: metrics, one line per exchange, and the process's own log.
//!
//! Nothing here ever blocks a worker, takes a lock for a request, or lets a client choose the name of a series.
//! Called by every room above; calls none of them.

pub mod access;
pub(crate) mod json;
pub mod log;
pub mod metrics;
pub mod spans;
