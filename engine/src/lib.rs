//! The data plane of Tollgate: one way of a request, used by the gateway and by the sidecar.

pub mod net;
pub mod process;
#[cfg(feature = "testing")]
pub mod testing;
pub mod upstream;
