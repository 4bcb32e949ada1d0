//! Speaks to a Redis-compatible store: as much of its protocol as leases need, over one connection. Believes nothing that
//! it reads, waits for nothing without a limit, and shows no password. Which tokens are asked for is not decided here.
//!
//! Why not a library: a dozen more packages for one connection, three commands and one answer at a time; and the bounds
//! on what a broken store may say, and for how long, would have been its own to choose.

mod link;
mod resp;

pub(crate) use link::Link;
