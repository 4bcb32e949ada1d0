//! For services that find each other through a Tollgate registry: announce an instance and keep it alive, look others up,
//! choose one (REG-401 to REG-411). A service behind a sidecar needs none of this.
//!
//! ```no_run
//! # async fn example() -> Result<(), tollgate_discovery::Error> {
//! use tollgate_discovery::{Registration, Registry, Settings, Strategy};
//!
//! let registry = Registry::new(Settings::of("http://127.0.0.1:8080"))?;
//! let announced = registry.register(Registration::new("orders", "10.0.0.7:7000"));
//! let users = registry.load_balancer("users", Strategy::RoundRobin);
//! let picked = users.pick().await?;
//! println!("ask {}", picked.instance().address);
//! announced.deregister().await;
//! # Ok(())
//! # }
//! ```
//!
//! No registry that is away, slow or wrong ever stops a service: what was known is served on, and a registration is tried
//! again until it is there. From the ground: `instance` (what is known of one), `select` (which of several), `breaker` and
//! `addresses` (which registry is asked), `cache`; all of them pure, with `now` as an argument. `wire` is the only file that
//! knows sockets; `registry` and `announce` are what callers hold.

mod addresses;
mod announce;
mod breaker;
mod cache;
mod instance;
mod registry;
mod select;
mod settings;
mod wire;

pub use announce::Announced;
pub use cache::CacheStats;
pub use instance::{Health, Instance, Registration, Wanted};
pub use registry::{Error, LoadBalancer, Picked, Registry};
pub use select::{Strategy, select_instance};
pub use settings::Settings;
