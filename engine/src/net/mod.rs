//! Sockets and what secures them: nothing in this room knows a request.

pub mod accept;
pub mod handover;
pub mod tls;
