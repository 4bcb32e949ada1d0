//! The data plane of Tollgate: one way of a request, used by the gateway and by the sidecar.

pub mod upstream;
