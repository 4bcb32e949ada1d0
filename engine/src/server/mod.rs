//! Sockets become connections, connections become requests. One door per listener and worker; `http1` and `http2`
//! each serve one connection until it is done or drained; `workers` is the only file that knows which runtime runs.

mod desk;
mod detect;
pub mod door;
pub mod http1;
pub mod http2;
mod linger;
mod liveness;
mod relay;
pub(crate) mod request;
mod secure;
pub mod socket;
pub mod workers;
