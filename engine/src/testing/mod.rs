//! What the tests stand on: a gateway in this process, upstreams that do exactly as they are told, and clients that
//! send exactly the bytes they are given.
//!
//! Everything here is behind the feature `testing`; nothing of the engine imports it. Nothing here sleeps in place of
//! a condition: whoever waits, waits for an event under one hard limit (`PATIENCE`), after which the test fails with
//! what it has seen so far. Nothing here uses the engine's own codec, so a mistake there cannot hide itself; `fuzz`
//! alone leads to it, for those who judge it.

pub mod apart;
pub mod certificates;
pub mod client;
pub mod codec;
pub mod control_plane;
pub mod demand;
pub mod fuzz;
pub mod gateway;
pub mod grpc;
pub mod h2_client;
pub mod h2_raw;
pub mod hpack;
pub mod http2;
pub mod journal;
pub mod members;
pub mod store;
pub mod tokens;
pub mod upstream;
pub mod waiting;

use std::time::Duration;

/// The longest a test waits for anything before it fails: far longer than any machine stands still, for nothing that holds
/// is ever waited for to the end.
pub const PATIENCE: Duration = Duration::from_secs(60);
