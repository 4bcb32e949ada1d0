//! What a person writes, as values: the shape of a whole document after reading, before anything is compiled.
//!
//! Every setting remembers where it was written (`Setting::at`), so that an answer, an explanation or a refusal can
//! point at a line. Positions inside an item are relative to the item (`Item::place` makes them absolute): an item
//! whose text did not change is the *same* `Arc` after a reload, even when lines above it came or went, and whoever
//! compiles it may compare pointers. Nothing in this file reads files, checks or decides.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::path::PathPattern;
use crate::unit::Rate;

mod access;
mod browsers;
mod callers;
mod control_plane;
mod faults;
mod identity;
mod limits;
mod telemetry;
mod transcode;
mod validate;

pub use access::*;
pub use browsers::*;
pub use callers::*;
pub use control_plane::*;
pub use faults::*;
pub use identity::*;
pub use limits::*;
pub use telemetry::*;
pub use transcode::*;
pub use validate::*;

/// A whole document: everything one data plane needs to serve.
#[derive(Debug, Clone)]
pub struct Document {
    pub server: Server,
    /// Absent: the file is everything.
    pub control_plane: Option<ControlPlane>,
    /// Absent: this data plane is no member of a mesh.
    pub identity: Option<Identity>,
    pub listeners: Vec<Item<Listener>>,
    pub routes: Vec<Item<Route>>,
    pub upstreams: Vec<Item<Upstream>>,
    pub limits: Vec<Item<Limit>>,
    /// Only those that were written; `tier::shipped` has the others.
    pub tiers: Vec<Item<Tier>>,
    pub api_keys: Vec<Item<ApiKey>>,
    pub jwts: Vec<Item<Jwt>>,
    /// Who may call whom in the mesh, in order.
    pub accesses: Vec<Item<Access>>,
    /// How the proxy's own answers look.
    pub errors: ErrorBody,
    /// `None`: every limit is this process's own.
    pub sharing: Option<Sharing>,
    pub tests: Vec<Item<Test>>,
    pub telemetry: Telemetry,
    /// The file named on the command line, then every included one; also every `${file:…}` and certificate read.
    /// Whoever watches for changes watches the folders of these.
    pub sources: Vec<PathBuf>,
    /// Hex of a hash over all text that was read: two documents with the same hash are the same document.
    pub hash: String,
    /// Differs when a private key's content does. It says nothing about the keys and means nothing to another loader.
    pub keys: u64,
}

/// One named thing of a document, and where it stands.
#[derive(Debug)]
pub struct Item<T> {
    pub value: Arc<T>,
    pub file: Arc<str>,
    /// Line of the item's header (`[[route]]`), counted from 1.
    pub line: u32,
}

impl<T> Clone for Item<T> {
    fn clone(&self) -> Self {
        Item {
            value: self.value.clone(),
            file: self.file.clone(),
            line: self.line,
        }
    }
}

impl<T> Deref for Item<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Item<T> {
    /// Where a setting of this item was written; `None` when it has its default.
    pub fn place(&self, at: At) -> Option<Place> {
        at.0.map(|(line, column)| Place {
            file: self.file.clone(),
            line: self.line + line,
            column,
        })
    }

    /// Where the item itself begins.
    pub fn begins(&self) -> Place {
        Place {
            file: self.file.clone(),
            line: self.line,
            column: 1,
        }
    }
}

/// A line and column relative to an item (line 0 is the item's header line, columns count from 1); `None` = default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct At(pub Option<(u32, u32)>);

/// A line and column in a file, both counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    pub file: Arc<str>,
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A value that someone set, or its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Setting<T> {
    pub value: T,
    pub at: At,
}

impl<T> Setting<T> {
    pub fn default_of(value: T) -> Self {
        Setting {
            value,
            at: At(None),
        }
    }
}

impl<T> Deref for Setting<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `None` = "auto": one per core.
    pub workers: Option<usize>,
    /// `None` = "off".
    pub admin: Option<SocketAddr>,
    pub drain: Duration,
    /// How long a stopping process goes on accepting after readiness has turned false. Default 0.
    pub drain_lag: Duration,
    pub state_dir: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct Listener {
    pub name: String,
    pub bind: SocketAddr,
    pub protocol: ListenerProtocol,
    pub tls: Option<ListenerTls>,
    /// Never together with `tls`.
    pub mesh: Setting<Mesh>,
    pub max_connections: Setting<u64>,
    pub header_timeout: Setting<Duration>,
    pub idle_timeout: Setting<Duration>,
    pub max_header_size: Setting<u64>,
    pub trusted_proxies: Vec<Cidr>,
    /// Where bytes go that are not HTTP: a route that no request takes. Its `idle_timeout` is `relay_idle_timeout`.
    pub forward: Option<Arc<Route>>,
    /// With `protocol = "detect"`: a client that has said nothing for so long is relayed.
    pub detect_timeout: Setting<Duration>,
    /// Connections were redirected here by the kernel, which knows where they were going.
    pub capture: Setting<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerProtocol {
    Auto,
    Http1,
    Http2,
    /// Bytes, whatever they are.
    Tcp,
    /// As `Auto` if the first bytes are HTTP, else bytes.
    Detect,
}

#[derive(Debug, Clone)]
pub struct ListenerTls {
    /// At least one. The first is served when SNI names none of them and it has no `names` of its own.
    pub certificates: Vec<Certificate>,
    pub client_ca: Option<PathBuf>,
    pub client_auth: ClientAuth,
    pub at: At,
}

#[derive(Debug, Clone)]
pub struct Certificate {
    /// Exact names or `*.example.com`, lower case; empty = any.
    pub names: Vec<String>,
    pub cert: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    None,
    Optional,
    Required,
}

/// An address block such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    pub address: std::net::IpAddr,
    pub prefix: u8,
}

impl Cidr {
    /// An IPv4-mapped IPv6 address is compared as IPv4.
    pub fn contains(&self, address: std::net::IpAddr) -> bool {
        use std::net::IpAddr::{V4, V6};
        match (self.address.to_canonical(), address.to_canonical()) {
            (V4(block), V4(a)) => {
                let shift = 32u32.saturating_sub(self.prefix.into());
                shift == 32 || u32::from(block) >> shift == u32::from(a) >> shift
            }
            (V6(block), V6(a)) => {
                let shift = 128u32.saturating_sub(self.prefix.into());
                shift == 128 || u128::from(block) >> shift == u128::from(a) >> shift
            }
            _ => false,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Route {
    /// Default: methods and path, such as `GET /orders/{id}`.
    pub name: String,
    pub matches: Match,
    pub action: Action,
    /// The whole exchange up to the response head; `None` = "off". Default 5 s.
    pub timeout: Setting<Option<Duration>>,
    /// The shortest that a try may take when how long is found by watching answers; `None` = "off", the default.
    pub adaptive_timeout: Setting<Option<Duration>>,
    /// No byte in either direction on a body, stream or tunnel. Default 60 s.
    pub idle_timeout: Setting<Option<Duration>>,
    /// Bytes of request body; `None` = "off".
    pub max_body: Setting<Option<u64>>,
    pub rewrite: Option<Rewrite>,
    pub priority: Setting<Priority>,
    pub filters: Vec<Setting<Filter>>,
    /// `None` = "off".
    pub retry: Setting<Option<Retry>>,
    /// What is answered when the upstream cannot.
    pub fallback: Option<Fallback>,
}

#[derive(Debug, Clone)]
pub struct Fallback {
    pub action: FallbackAction,
    pub on: Vec<FallbackOn>,
    pub at: At,
}

#[derive(Debug, Clone)]
pub enum FallbackAction {
    Respond {
        status: StatusCode,
        body: String,
        headers: Vec<(HeaderName, HeaderValue)>,
    },
    /// Another upstream is asked.
    Upstream(Setting<String>),
}

/// What a fallback stands in for, after all tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FallbackOn {
    /// No endpoint, or no connection to one.
    Connect,
    /// The connection or stream broke before an answer, or the answer was no answer.
    Reset,
    /// The upstream took too long.
    Timeout,
    /// The request was not sent, to spare the upstream.
    Overloaded,
    /// 500 to 599.
    Status(u16),
}

/// What a request must be for a route. An absent part matches everything.
#[derive(Debug, Clone, Default)]
pub struct Match {
    /// Names of listeners; empty = every listener.
    pub listeners: Vec<String>,
    pub host: Option<HostPattern>,
    pub path: Option<PathMatch>,
    pub methods: Vec<Method>,
    pub headers: Vec<(HeaderName, ValueMatch)>,
    pub query: Vec<(String, ValueMatch)>,
    pub at: At,
}

/// Lower case, no port, no trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    Exact(String),
    /// `*.example.com` is kept as `example.com`; it matches one or more labels before it, never `example.com` itself.
    Wildcard(String),
}

#[derive(Debug, Clone)]
pub enum PathMatch {
    Pattern(PathPattern),
    /// Matched against the whole normal path (anchored at both ends).
    Regex(regex::Regex),
}

#[derive(Debug, Clone)]
pub enum ValueMatch {
    Exact(String),
    Present,
    /// Anchored at both ends.
    Regex(regex::Regex),
}

#[derive(Debug, Clone)]
pub enum Action {
    Upstream(Setting<String>),
    Split {
        branches: Vec<Branch>,
        sticky: Option<Sticky>,
        at: At,
    },
    Respond {
        status: StatusCode,
        body: String,
        headers: Vec<(HeaderName, HeaderValue)>,
    },
    /// `to` may be a full URL or a path; `{name}` captures and `{path}` (the whole normal path) and `{query}` are
    /// replaced.
    Redirect {
        to: String,
        status: StatusCode,
    },
}

#[derive(Debug, Clone)]
pub struct Branch {
    pub upstream: Setting<String>,
    pub weight: u32,
}

#[derive(Debug, Clone)]
pub enum Sticky {
    Header(HeaderName),
    Cookie(String),
    /// By client address.
    Client,
}

#[derive(Debug, Clone)]
pub struct Rewrite {
    pub path: RewritePath,
    pub host: Option<HeaderValue>,
    pub at: At,
}

#[derive(Debug, Clone)]
pub enum RewritePath {
    Keep,
    /// A template whose `{name}`s are captures of the route's path; a trailing `/*` stands for what the match's `/*`
    /// held.
    Template(PathPattern),
    StripPrefix(String),
}

/// Who goes first when an upstream cannot serve all. The number is the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    Critical,
    Default,
    Sheddable,
}

#[derive(Debug, Clone)]
pub enum Filter {
    SetHeaders(SetHeaders),
    RateLimit(RateLimit),
    ApiKey(ApiKeyUse),
    Fault(InjectedFault),
    /// Boxed: it is large, and rare.
    Transcode(Box<Transcode>),
    GrpcWeb,
    Validate(Arc<Validate>),
    Jwt(JwtUse),
    Allow(Allow),
    Access(AccessMode),
    Cors(Cors),
    SecurityHeaders(SecurityHeaders),
}

/// Sets replace what is there; `remove` acts on both request and response, before the sets.
#[derive(Debug, Clone, Default)]
pub struct SetHeaders {
    pub request: Vec<(HeaderName, HeaderValue)>,
    pub response: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

#[derive(Debug, Clone)]
pub struct Retry {
    /// Where the defaults of the rest come from (GW-503).
    pub preset: Option<Setting<RetryPreset>>,
    /// After the first try. Default 2.
    pub attempts: Setting<u32>,
    pub on: Vec<RetryOn>,
    pub backoff_base: Duration,
    pub backoff_max: Duration,
    pub methods: RetryMethods,
    pub per_try_timeout: Setting<Option<Duration>>,
    /// Bytes. A larger body is never sent twice. Default 64 KiB.
    pub max_replay: u64,
    /// A second try beside a late first one; `None` = "off", the default.
    pub hedge: Setting<Option<Hedge>>,
}

impl Route {
    /// `None`: off.
    pub fn hedge(&self) -> Option<Hedge> {
        self.retry.value.as_ref()?.hedge.value
    }
}

/// When a second try is made although the first is still under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hedge {
    pub after: HedgeAfter,
    /// Never sooner, whatever the route's answers say. Default 10 ms.
    pub least: Duration,
}

/// How long the first try is waited for alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HedgeAfter {
    /// As long as 95 of 100 of the route's latest answers took at most.
    P95,
    Fixed(Duration),
}

/// How eager a route's retries are (GW-503).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryPreset {
    Read,
    Write,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryOn {
    Connect,
    Reset,
    /// 502, 503, 504 and any other 5xx written as a number.
    Status(u16),
    /// gRPC `UNAVAILABLE`.
    Unavailable,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetryMethods {
    Idempotent,
    /// Only what brings an `Idempotency-Key`.
    Keyed,
    /// An explicit list of methods.
    Only(Vec<Method>),
}

#[derive(Debug, Clone)]
pub struct Upstream {
    pub name: String,
    pub endpoints: EndpointSource,
    pub protocol: UpstreamProtocol,
    pub tls: Option<UpstreamTls>,
    /// Never together with `tls`.
    pub mesh: Option<MeshPeer>,
    pub balance: Balance,
    pub connect_timeout: Setting<Duration>,
    /// Per endpoint; `None` = "off".
    pub max_connections: Setting<Option<u64>>,
    /// For the whole upstream; `None` = "off".
    pub max_in_flight: Setting<Option<MaxInFlight>>,
    /// Who waits when `max_in_flight` are. `None` = "off": nobody.
    pub queue: Option<Queue>,
    /// Kept per endpoint and worker. Default 512.
    pub idle_connections: Setting<usize>,
    /// `None` = "off".
    pub outlier: Option<Outlier>,
    /// `None` = "off".
    pub breaker: Option<Breaker>,
    /// `None` = "off".
    pub retry_budget: Option<RetryBudget>,
    pub health: Option<Health>,
}

#[derive(Debug, Clone)]
pub enum EndpointSource {
    Static(Vec<Endpoint>),
    /// `name:port`; for SRV the port may be absent.
    Dns {
        name: String,
        port: Option<u16>,
        srv: bool,
        at: At,
    },
    /// Instances that the control plane knows.
    Service {
        name: String,
        /// Metadata that an instance must have.
        with: Vec<(String, String)>,
        at: At,
    },
    /// Instances of whatever service a request's authority names: a template for one upstream each.
    Asked {
        /// Metadata that an instance must have.
        with: Vec<(String, String)>,
        learn: Learn,
        at: At,
    },
    /// Where a captured connection was going.
    Original {
        at: At,
    },
}

/// How services are learned that requests ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learn {
    /// Services that are known at once.
    pub max_services: Setting<usize>,
    /// How long a request waits until its service is known.
    pub timeout: Setting<Duration>,
    /// A service that nobody asked for in this time is forgotten.
    pub forget: Setting<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `host:port`; an IP address, or a name that is resolved like `dns`.
    pub address: String,
    pub weight: u32,
    pub zone: Option<String>,
    pub at: At,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProtocol {
    Http1,
    Http2,
    /// ALPN on TLS, HTTP/1.1 on clear text.
    Auto,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Absent: the system's roots.
    pub ca: Option<PathBuf>,
    /// The name the certificate must bear, and SNI. Absent: the endpoint's host.
    pub name: Option<String>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub at: At,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    PeakEwma,
    LeastRequests,
    RoundRobin,
    Random,
    Hash(HashKey),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    Header(HeaderName),
    Cookie(String),
    Client,
    Path,
}

/// How many requests may be in flight at an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxInFlight {
    Fixed(u32),
    /// Found by watching how long answers take, within these bounds.
    Adaptive {
        least: u32,
        most: u32,
    },
}

#[derive(Debug, Clone)]
pub struct Queue {
    /// How many wait. Default 100.
    pub length: Setting<u32>,
    /// The longest that one waits. Default 100 ms.
    pub timeout: Setting<Duration>,
}

#[derive(Debug, Clone)]
pub struct Outlier {
    /// Consecutive failures. Default 5.
    pub failures: Setting<u32>,
    /// How much larger an endpoint's share of failures is than that of the others; `None` = "off". Default 0.3.
    pub deviation: Setting<Option<f64>>,
    /// Requests an endpoint must have had in the last 10 s for its share to mean anything. Default 50.
    pub volume: u32,
}

/// When an upstream is no longer asked, and when it is again (GW-403).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Breaker {
    /// Failures in a row that open. Default 5.
    pub failures: Setting<u32>,
    /// Tries in the window without which nothing opens. Default 20.
    pub volume: Setting<u32>,
    /// 1 to 60 s; seconds are counted whole. Default 60 s.
    pub window: Setting<Duration>,
    /// A larger share of failures in the window opens, 0.0 to below 1.0; `None` = "off".
    pub error_rate: Setting<Option<f64>>,
    /// Default 60 s.
    pub open_for: Setting<Duration>,
    /// Let through while half-open. Default 10.
    pub probes: Setting<u32>,
    /// In a row, to close; at most `probes`. Default 3.
    pub successes: Setting<u32>,
    pub grain: BreakerGrain,
    pub kind: Setting<BreakerKind>,
    /// An answer that was waited for longer is slow; the percentile kind alone asks. Default 1 s.
    pub slow_after: Setting<Duration>,
    /// A larger share of slow answers in the window opens a breaker of the percentile kind. Default 0.05: the 95th
    /// percentile is above `slow_after`.
    pub slow_share: Setting<f64>,
}

/// What a breaker opens on, beside failures in a row (GW-411).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BreakerKind {
    /// A share of failures that is written, and always the same time open.
    #[default]
    Fixed,
    /// Also a share of failures that is unusual for the upstream; opened again and again, it stays open for longer.
    Adaptive,
    /// Also too large a share of slow answers.
    Percentile,
}

/// What has a breaker of its own (GW-412).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BreakerGrain {
    #[default]
    Upstream,
    /// Each route that sends to the upstream.
    Route,
    /// What only reads, and the rest.
    Operation,
}

/// How many retries an upstream is sent (GW-506).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    /// For each first try in the window. Default 0.2.
    pub ratio: Setting<f64>,
    /// On top of that. Default 10/s.
    pub floor: Setting<Rate>,
    /// 1 to 60 s; seconds are counted whole. Default 10 s.
    pub window: Setting<Duration>,
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker {
            failures: Setting::default_of(5),
            volume: Setting::default_of(20),
            window: Setting::default_of(Duration::from_secs(60)),
            error_rate: Setting::default_of(None),
            open_for: Setting::default_of(Duration::from_secs(60)),
            probes: Setting::default_of(10),
            successes: Setting::default_of(3),
            grain: BreakerGrain::Upstream,
            kind: Setting::default_of(BreakerKind::Fixed),
            slow_after: Setting::default_of(Duration::from_secs(1)),
            slow_share: Setting::default_of(0.05),
        }
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        RetryBudget {
            ratio: Setting::default_of(0.2),
            floor: Setting::default_of(Rate {
                count: 10,
                per: second,
            }),
            window: Setting::default_of(second * 10),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    pub probe: Probe,
    pub interval: Duration,
    pub timeout: Duration,
    pub unhealthy_after: u32,
    pub healthy_after: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    Http { path: String },
    Grpc { service: String },
    Tcp,
}

/// A `[[test]]`: given this request, that must come of it.
#[derive(Debug, Clone)]
pub struct Test {
    pub method: Method,
    /// `None` = a host that no route names.
    pub host: Option<String>,
    /// Path and query as a client would send them.
    pub path: String,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Listener name; `None` = the first listener.
    pub listener: Option<String>,
    /// Who calls whom, and what the rules about that shall say.
    pub access: Option<AccessTest>,
    pub expect: Expect,
    pub at: At,
}

/// Absent parts are not checked.
#[derive(Debug, Clone, Default)]
pub struct Expect {
    pub route: Option<Setting<String>>,
    pub upstream: Option<Setting<String>>,
    /// 404, 405, or the status of `respond` and `redirect`.
    pub status: Option<Setting<u16>>,
    /// The path the upstream would be sent.
    pub path: Option<Setting<String>>,
}
