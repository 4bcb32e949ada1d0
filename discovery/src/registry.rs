//! What a service holds: looking up, choosing, and telling what failed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::addresses::Addresses;
use crate::announce::Announced;
use crate::cache::{Cache, CacheStats, Found};
use crate::instance::{Instance, Registration, Wanted};
use crate::select::{Balance, Strategy};
use crate::settings::Settings;
use crate::wire::{Wire, escaped};

/// Why there is no instance to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// A setting is wrong; nothing was started.
    Settings(String),
    /// Nothing is registered under this name that is healthy and fits.
    NoHealthyInstances { service: String },
    /// No registry answered, nothing was known from before, and the settings name no address.
    Unavailable { service: String, why: String },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Settings(what) => write!(f, "{what}"),
            Error::NoHealthyInstances { service } => {
                write!(f, "no healthy instances of `{service}`")
            }
            Error::Unavailable { service, why } => {
                write!(
                    f,
                    "no healthy instances of `{service}` are known, and no registry answers: {why}"
                )
            }
        }
    }
}

impl std::error::Error for Error {}

/// One for a process; clones share everything. To be used inside of a tokio runtime.
#[derive(Clone)]
pub struct Registry(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    wires: Vec<Wire>,
    fallback: BTreeMap<String, Vec<String>>,
    addresses: Mutex<Addresses>,
    cache: Mutex<Cache>,
    /// One question at a time for a name, so that many callers who miss it ask once.
    asking: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<_> = self
            .0
            .wires
            .iter()
            .map(|wire| wire.url.to_string())
            .collect();
        f.debug_struct("Registry")
            .field("urls", &urls)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// Asks nobody yet.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let urls = settings.check()?;
        let wire = |url| {
            let (token, ca) = (settings.token.as_deref(), settings.ca.as_deref());
            Wire::new(url, token, ca, settings.timeout).map_err(Error::Settings)
        };
        let wires: Vec<Wire> = urls.into_iter().map(wire).collect::<Result<_, _>>()?;
        Ok(Registry(Arc::new(Inner {
            addresses: Mutex::new(Addresses::new(wires.len())),
            cache: Mutex::new(Cache::new(settings.fresh_for)),
            fallback: settings.fallback,
            wires,
            asking: Mutex::default(),
        })))
    }

    /// Announces an instance, and keeps it announced until it is taken back. Never fails: while no registry answers it is
    /// tried again, and the service goes on (REG-402).
    pub fn register(&self, registration: Registration) -> Announced {
        Announced::start(self.clone(), registration)
    }

    /// All that may be called now. From the cache if that is fresh, else from a registry, else what was known, however
    /// old, else the addresses of the settings (REG-404).
    pub async fn resolve(&self, service: &str) -> Result<Vec<Instance>, Error> {
        self.resolve_with_filter(service, &Wanted::default()).await
    }

    /// Those that fit: of the best health, compatible, near (REG-406).
    pub async fn resolve_with_filter(
        &self,
        service: &str,
        wanted: &Wanted,
    ) -> Result<Vec<Instance>, Error> {
        let instances = wanted.of(&self.find(service).await?);
        match instances.is_empty() {
            true => Err(Error::NoHealthyInstances {
                service: service.to_owned(),
            }),
            false => Ok(instances),
        }
    }

    async fn find(&self, service: &str) -> Result<Arc<[Instance]>, Error> {
        let found = lock(&self.0.cache).look(service, Instant::now());
        match found {
            Found::Fresh { instances, refresh } => {
                if refresh {
                    self.refresh_beside(service);
                }
                return Ok(instances);
            }
            Found::Old(_) | Found::Nothing => {}
        }
        let why = match self.ask_once(service).await {
            Ok(instances) => return Ok(instances),
            Err(why) => why,
        };
        if let Some(old) = lock(&self.0.cache).known(service, Instant::now()) {
            lock(&self.0.cache).served_stale();
            return Ok(old);
        }
        let fixed = self.0.fallback.get(service).into_iter().flatten();
        let fixed: Vec<_> = fixed
            .map(|address| Instance::fixed(service, address))
            .collect();
        match fixed.is_empty() {
            true => Err(Error::Unavailable {
                service: service.to_owned(),
                why,
            }),
            false => Ok(fixed.into()),
        }
    }

    /// Asks a registry now, whatever the cache says; true when one answered.
    pub async fn refresh_cache(&self, service: &str) -> bool {
        self.learn(service).await.is_ok()
    }

    fn refresh_beside(&self, service: &str) {
        let (registry, service) = (self.clone(), service.to_owned());
        tokio::spawn(async move { registry.learn(&service).await });
    }

    /// Of many who ask for a name at once, one asks; the others find what it brought.
    async fn ask_once(&self, service: &str) -> Result<Arc<[Instance]>, String> {
        let turn = lock(&self.0.asking)
            .entry(service.to_owned())
            .or_default()
            .clone();
        let held = turn.lock().await;
        let known = lock(&self.0.cache).look_again(service, Instant::now());
        let asked = match known {
            Some(instances) => Ok(instances),
            None => self.learn(service).await,
        };
        drop(held);
        let mut asking = lock(&self.0.asking);
        // Ours and the map's: nobody else waits.
        if Arc::strong_count(&turn) == 2 {
            asking.remove(service);
        }
        asked
    }

    async fn learn(&self, service: &str) -> Result<Arc<[Instance]>, String> {
        let asked = self
            .ask(
                Method::GET,
                &format!("/services/{}", escaped(service)),
                Vec::new(),
            )
            .await;
        let read = asked.and_then(|(status, body)| match status {
            StatusCode::OK => serde_json::from_slice::<Vec<Instance>>(&body)
                .map_err(|error| format!("its answer is no list of instances: {error}")),
            other => Err(format!("it answered {other}: {}", text(&body))),
        });
        let mut cache = lock(&self.0.cache);
        match read {
            Ok(instances) => {
                cache.learned(service, instances, Instant::now());
                Ok(cache.known(service, Instant::now()).unwrap_or_default())
            }
            Err(why) => {
                cache.not_learned(service);
                Err(why)
            }
        }
    }

    /// One question to the first registry that answers it. An answer that says "not now" is none.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), String> {
        let mut last =
            "every registry has failed too often, and is not asked for a while".to_owned();
        let order = lock(&self.0.addresses).order(Instant::now());
        for number in order {
            if !lock(&self.0.addresses).admits(number, Instant::now()) {
                continue;
            }
            let asked = self.0.wires[number]
                .ask(method.clone(), path, body.clone())
                .await;
            match asked {
                Ok((status, answer)) if !status.is_server_error() => {
                    lock(&self.0.addresses).succeeded(number);
                    return Ok((status, answer));
                }
                Ok((status, answer)) => {
                    last = format!(
                        "{}: it answered {status}: {}",
                        self.0.wires[number].url,
                        text(&answer)
                    );
                }
                Err(why) => last = why,
            }
            lock(&self.0.addresses).failed(number, Instant::now());
        }
        Err(last)
    }

    /// A call to this instance failed: it is avoided for ten seconds, and the name is asked for at once (REG-405).
    pub fn failed(&self, service: &str, id: &str) {
        lock(&self.0.cache).failed(service, id, Instant::now());
        self.refresh_beside(service);
    }

    /// Chooses among the instances of a service.
    pub fn load_balancer(&self, service: impl Into<String>, strategy: Strategy) -> LoadBalancer {
        LoadBalancer {
            registry: self.clone(),
            service: service.into(),
            strategy,
            wanted: Wanted::default(),
            balance: Arc::default(),
        }
    }

    pub fn cache_stats(&self) -> CacheStats {
        let now = Instant::now();
        CacheStats {
            degraded: lock(&self.0.addresses).all_open(now),
            ..lock(&self.0.cache).stats(now)
        }
    }

    /// The same for Prometheus.
    pub fn metrics(&self) -> String {
        let stats = self.cache_stats();
        let mut text = String::new();
        for (name, kind, value) in [
            ("discovery_cache_hits_total", "counter", stats.hits as f64),
            (
                "discovery_cache_misses_total",
                "counter",
                stats.misses as f64,
            ),
            ("discovery_cache_stale_total", "counter", stats.stale as f64),
            (
                "discovery_refreshes_total",
                "counter",
                stats.refreshes as f64,
            ),
            ("discovery_failures_total", "counter", stats.failures as f64),
            (
                "discovery_cache_oldest_seconds",
                "gauge",
                stats.oldest.as_secs_f64(),
            ),
            (
                "discovery_degraded",
                "gauge",
                f64::from(u8::from(stats.degraded)),
            ),
        ] {
            text.push_str(&format!("# TYPE {name} {kind}\n{name} {value}\n"));
        }
        text
    }
}

/// What a registry said, for an error: the beginning of it.
fn text(body: &Bytes) -> String {
    String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned()
}

/// Chooses among the instances of a service; remembers whose turn it is and who is busy.
#[derive(Debug, Clone)]
pub struct LoadBalancer {
    registry: Registry,
    service: String,
    strategy: Strategy,
    wanted: Wanted,
    balance: Arc<Mutex<Balance>>,
}

impl LoadBalancer {
    /// Only those that fit.
    #[must_use]
    pub fn wanting(mut self, wanted: Wanted) -> Self {
        self.wanted = wanted;
        self
    }

    pub async fn pick(&self) -> Result<Picked, Error> {
        self.pick_for(None).await
    }

    /// With [`Strategy::ConsistentHash`], the same key gets the same instance.
    pub async fn pick_for(&self, key: Option<&str>) -> Result<Picked, Error> {
        let found = self
            .registry
            .resolve_with_filter(&self.service, &self.wanted)
            .await?;
        let mut balance = lock(&self.balance);
        let number = balance.choose(self.strategy, &found, key, fastrand::f64());
        let Some(instance) = number.and_then(|number| found.get(number)) else {
            return Err(Error::NoHealthyInstances {
                service: self.service.clone(),
            });
        };
        balance.began(&instance.id, &found);
        Ok(Picked {
            instance: instance.clone(),
            balancer: self.clone(),
        })
    }
}

/// An instance that a call goes to; the call counts as under way until this is dropped.
#[derive(Debug)]
#[must_use = "the call counts as ended once this is dropped"]
pub struct Picked {
    instance: Instance,
    balancer: LoadBalancer,
}

impl Picked {
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The call failed: others are chosen for a while.
    pub fn failed(self) {
        self.balancer
            .registry
            .failed(&self.balancer.service, &self.instance.id);
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        lock(&self.balancer.balance).ended(&self.instance.id);
    }
}
