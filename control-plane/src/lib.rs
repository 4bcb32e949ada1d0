//! The control plane of Tollgate: where services announce themselves, and where data planes learn of them.

pub mod registry;
pub mod store;
