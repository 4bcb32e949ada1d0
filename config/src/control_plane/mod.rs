//! The document of a control plane: where it serves, and how long it believes whom. The same reader, references and
//! words of refusal as a gateway's document, with a grammar of its own. One file, without includes. Nothing here knows
//! what the settings do.

mod access;
mod identity;
mod read;
mod rollout;
mod store;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use access::token;
pub use access::{Role, Tls, Token, warnings};
pub use identity::{AuthorityFiles, Identity, Kubernetes};
pub use read::{load, load_text, reference};
pub use rollout::{MOST_STAGES, Rollout, Stage, WithoutTraffic, duration};
pub use store::{Etcd, Secret, Store, StoreTls};

/// Everything that one control plane is told.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ControlPlane {
    pub server: Server,
    pub store: Store,
    pub registry: Registry,
    pub probe: Probe,
    pub audit: Audit,
    pub catalog: Catalog,
    pub feed: Feed,
    pub rollout: Rollout,
    pub identity: Identity,
    /// Empty: whoever reaches the address may do everything.
    pub tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    pub bind: SocketAddr,
    /// `None`: clear text.
    pub tls: Option<Tls>,
    /// `None` = "off": nothing outlives the process.
    pub state_dir: Option<PathBuf>,
    pub drain: Duration,
    pub max_connections: usize,
    pub idle_timeout: Duration,
    /// In bytes.
    pub max_body: usize,
}

/// Lifecycle of instances (REG-302 to REG-305).
#[derive(Debug, Clone, PartialEq)]
pub struct Registry {
    pub heartbeat: Duration,
    pub suspect_after: Duration,
    pub service_timeout: Duration,
    pub drain_after_silence: Duration,
    pub drain_after_probes: Duration,
    pub cleanup: Duration,
    /// From 0 to 1.
    pub loss_share: f64,
    pub loss_interval: Duration,
    pub flap_count: usize,
    pub flap_window: Duration,
    pub observation_nodes: usize,
    pub observation_age: Duration,
    pub max_instances: usize,
    pub max_per_service: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    pub enabled: bool,
    pub interval: Duration,
    pub timeout: Duration,
    /// `None` = "off": who beats is not probed.
    pub healthy_interval: Option<Duration>,
    pub failures: u32,
    pub successes: u32,
    pub max_in_flight: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Audit {
    pub retention: Duration,
    /// In bytes, of all files together.
    pub max_size: u64,
}

/// What the fleet is told to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Catalog {
    /// Of documents, read while they change; `None` = "off": documents come over the API only.
    pub folder: Option<PathBuf>,
    /// Revisions that are kept.
    pub revisions: usize,
    /// In bytes, of the body of one change.
    pub max_change: usize,
}

/// How data planes are told.
#[derive(Debug, Clone, PartialEq)]
pub struct Feed {
    /// A feed that is silent for longer is dead.
    pub beat: Duration,
    /// A listener that takes nothing for so long is let go.
    pub write_timeout: Duration,
    pub max_feeds: usize,
    /// How long a node that is gone is shown.
    pub forget_nodes: Duration,
    /// How often nodes tell what they served; `None` = "off": never.
    pub figures: Option<Duration>,
    /// How long nodes, and services' debug pages, are waited for when somebody asks them something.
    pub answer_timeout: Duration,
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

impl Default for Server {
    fn default() -> Self {
        Server {
            bind: SocketAddr::from(([127, 0, 0, 1], 8080)),
            tls: None,
            state_dir: Some(PathBuf::from("control-plane-state")),
            drain: seconds(30),
            max_connections: 20_000,
            idle_timeout: seconds(60),
            max_body: 64 << 10,
        }
    }
}

impl Default for Registry {
    fn default() -> Self {
        Registry {
            heartbeat: seconds(15),
            suspect_after: seconds(30),
            service_timeout: seconds(45),
            drain_after_silence: seconds(30),
            drain_after_probes: seconds(60),
            cleanup: seconds(30),
            loss_share: 0.3,
            loss_interval: seconds(60),
            flap_count: 3,
            flap_window: seconds(600),
            observation_nodes: 2,
            observation_age: seconds(60),
            max_instances: 100_000,
            max_per_service: 10_000,
        }
    }
}

impl Default for Probe {
    fn default() -> Self {
        Probe {
            enabled: true,
            interval: seconds(15),
            timeout: seconds(5),
            healthy_interval: None,
            failures: 3,
            successes: 2,
            max_in_flight: 64,
        }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Audit {
            retention: seconds(90 * 24 * 3600),
            max_size: 256 << 20,
        }
    }
}

impl Default for Catalog {
    fn default() -> Self {
        Catalog {
            folder: None,
            revisions: 50,
            max_change: 16 << 20,
        }
    }
}

impl Default for Feed {
    fn default() -> Self {
        Feed {
            beat: seconds(5),
            write_timeout: seconds(10),
            max_feeds: 10_000,
            forget_nodes: seconds(3600),
            figures: Some(seconds(5)),
            answer_timeout: seconds(2),
        }
    }
}
