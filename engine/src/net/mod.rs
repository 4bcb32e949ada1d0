//! Sockets and what secures them: nothing in this room knows a request.

pub mod accept;
pub mod batched;
pub mod connect;
pub mod handover;
mod keepalive;
pub mod original;
pub mod relay;
pub mod stream;
pub mod tls;
