//! The data plane of Tollgate: one way of a request, used by the gateway and by the sidecar.
//!
//! Rooms stand on floors; a room uses only what stands below it. From the ground: `clock`, `moment`, `alarm`, `drain`, `process`; `net`,
//! `http1`; `exchange`; `telemetry`, `filter`; `route`, `upstream`, `redis`, `validate`; `snapshot`; `proxy`; `reload`, `identity`, `explain`, `upkeep`, `state`, `leasing`, `jwks`,
//! `reflecting`;
//! `server`, `admin`; `engine`. `docs/architecture.md` is the map, `proxy::Proxy::handle` the page to read first.

pub mod admin;
pub mod alarm;
pub mod clock;
pub mod drain;
pub mod engine;
pub mod exchange;
pub mod explain;
mod exporting;
pub mod filter;
pub mod http1;
pub mod identity;
pub mod jwks;
mod kept;
pub mod leasing;
mod moment;
pub mod net;
pub mod process;
pub mod program;
pub mod proxy;
mod redis;
pub mod reflecting;
pub mod reload;
pub mod route;
pub mod server;
pub mod snapshot;
pub mod state;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod transcode;
pub mod upkeep;
pub mod upstream;
mod validate;
