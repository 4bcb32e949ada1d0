//! The document's limits, tiers and keys, compiled once for all routes that use them. Made on the control thread;
//! taken over from the snapshot before where nothing of them changed.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use tollgate_config::{
    ANONYMOUS, ApiKey, Bucket, Document, Item, Limit as Written, LimitBy, Place, Tier,
};

use super::bucket::Pace;
use super::fields::Policy;
use super::lease::Through;
use super::leased::Lease;
use super::who::{Claim, Keys, Kind, Known, Seed};
use super::{By, Governing, Grade, Limit, LimitMemory, Standpoint};
use crate::telemetry::metrics::Metrics;

/// Limits that have names, the tiers, and who has which key.
#[derive(Debug)]
pub struct Policies {
    limits: HashMap<Box<str>, Arc<Limit>, RandomState>,
    tiers: Arc<Limit>,
    keys: Keys,
    source: Source,
}

#[derive(Debug)]
struct Source {
    limits: Vec<Item<Written>>,
    tiers: Vec<Item<Tier>>,
    keys: Vec<Item<ApiKey>>,
    through: Option<Through>,
}

impl Policies {
    pub fn compile(
        document: &Document,
        former: Option<&Arc<Policies>>,
        memory: &LimitMemory,
        metrics: &Metrics,
    ) -> Arc<Self> {
        if let Some(former) = former.filter(|former| former.source.says(document)) {
            return former.clone();
        }
        let limits = document.limits.iter().map(|item| {
            let places = |at| Standpoint::Fixed(item.place(at).or_else(|| Some(item.begins())));
            // A word means another thing where it is leased.
            let shared = document.sharing.as_ref().filter(|_| item.shared);
            let memory_name = match shared {
                Some(_) => format!("shared {}", item.name),
                None => format!("limit {}", item.name),
            };
            let mut limit = limit(
                &item.name,
                &memory_name,
                "limit.rate",
                &item.what,
                places,
                memory,
                metrics,
            );
            if let Some(sharing) = shared {
                limit.seed = Seed::shared(Some(sharing));
                limit.lease = Some(Lease::new(sharing, item.what.burst.value, memory));
            }
            (Box::from(item.name.as_str()), Arc::new(limit))
        });
        Arc::new(Policies {
            limits: limits.collect(),
            tiers: Arc::new(tiers(document, memory, metrics)),
            keys: Keys(
                document
                    .api_keys
                    .iter()
                    .map(|item| (Keys::place(&item.key), known(item, document, memory)))
                    .collect(),
            ),
            source: Source {
                limits: document.limits.clone(),
                tiers: document.tiers.clone(),
                keys: document.api_keys.clone(),
                through: through(document),
            },
        })
    }

    pub(in crate::filter) fn named(&self, name: &str) -> Option<Arc<Limit>> {
        self.limits.get(name).cloned()
    }

    pub fn tiers(&self) -> Arc<Limit> {
        self.tiers.clone()
    }

    /// Where limits are shared.
    pub(crate) fn through(&self) -> Option<&Through> {
        self.source.through.as_ref()
    }

    /// The limits that have names.
    pub fn limits(&self) -> impl Iterator<Item = &Arc<Limit>> {
        self.limits.values()
    }

    pub(in crate::filter) fn claim(&self, headers: &http::HeaderMap) -> Claim {
        self.keys.ask(headers)
    }

    /// A limit of one route alone.
    pub(in crate::filter) fn own(
        bucket: &Bucket,
        route: &str,
        filter: usize,
        memory: &LimitMemory,
        metrics: &Metrics,
    ) -> Limit {
        // Limits that have names may be called as a route is; and the first of a route needs no number.
        let name = match filter {
            0 => format!("route:{route}"),
            _ => format!("route:{route} #{}", filter + 1),
        };
        limit(
            &name,
            &format!("route {route} {filter}"),
            "route.filters.rate_limit.rate",
            bucket,
            Standpoint::Route,
            memory,
            metrics,
        )
    }
}

impl Source {
    fn says(&self, document: &Document) -> bool {
        same(&self.limits, &document.limits)
            && same(&self.tiers, &document.tiers)
            && same(&self.keys, &document.api_keys)
            && self.through == through(document)
    }
}

fn through(document: &Document) -> Option<Through> {
    let sharing = document.sharing.as_ref()?;
    Some(Through::new(sharing, document.control_plane.as_ref()))
}

/// The same values in the same places.
fn same<T: PartialEq>(ours: &[Item<T>], theirs: &[Item<T>]) -> bool {
    ours.len() == theirs.len()
        && ours.iter().zip(theirs).all(|(a, b)| {
            a.line == b.line && a.file == b.file && (Arc::ptr_eq(&a.value, &b.value) || **a == **b)
        })
}

fn limit(
    name: &str,
    remembered: &str,
    setting: &'static str,
    bucket: &Bucket,
    place: impl Fn(tollgate_config::At) -> Standpoint,
    memory: &LimitMemory,
    metrics: &Metrics,
) -> Limit {
    let series = metrics.limit(name, "");
    let rate = bucket.rate.value;
    let grade = Grade {
        name: name.into(),
        pace: Pace::new(rate, bucket.burst.value),
        policy: Policy::of_rate(name, rate),
        quota: None,
        series: series.clone(),
        rate: Governing {
            setting,
            value: rate.to_string().into(),
            place: place(bucket.rate.at),
        },
        quota_at: Governing {
            setting,
            value: Box::default(),
            place: Standpoint::Fixed(None),
        },
    };
    Limit {
        name: name.into(),
        by: match &bucket.by {
            LimitBy::ClientIp => By::ClientIp,
            LimitBy::ApiKey => By::ApiKey,
            LimitBy::Header(name) => By::Header(name.clone()),
            LimitBy::Route => By::Route,
            LimitBy::Caller => By::Caller,
            LimitBy::Host => By::Host,
        },
        meter: memory.meter(remembered),
        series,
        grades: vec![Some(grade)],
        anonymous: 0,
        seed: memory.seed,
        lease: None,
    }
}

fn tiers(document: &Document, memory: &LimitMemory, metrics: &Metrics) -> Limit {
    let mut grades: Vec<Option<Grade>> = Vec::new();
    for tier in document.all_tiers() {
        let class = usize::from(memory.class(&tier.name));
        if grades.len() <= class {
            grades.resize_with(class + 1, || None);
        }
        let item = document.tiers.iter().find(|item| item.name == tier.name);
        let place = |at| -> Option<Place> { item?.place(at) };
        let rate = tier.rate.value;
        // A month is told as 31 days: the longest that a quota has to last.
        let quota = tier.monthly_quota.value.map(|quota| {
            let name = format!("{}-month", tier.name);
            (quota, Policy::new(&name, quota, 31 * 86_400))
        });
        grades[class] = Some(Grade {
            pace: Pace::new(rate, tier.burst.value),
            policy: Policy::of_rate(&tier.name, rate),
            rate: Governing {
                setting: "tiers.rate",
                value: rate.to_string().into(),
                place: Standpoint::Fixed(place(tier.rate.at)),
            },
            quota_at: Governing {
                setting: "tiers.monthly_quota",
                value: quota
                    .as_ref()
                    .map_or_else(|| "off".into(), |(quota, _)| quota.to_string().into()),
                place: Standpoint::Fixed(place(tier.monthly_quota.at)),
            },
            quota,
            series: metrics.limit("tiers", &tier.name),
            name: tier.name.into(),
        });
    }
    Limit {
        name: "tiers".into(),
        by: By::Tier,
        meter: memory.tiers.clone(),
        series: metrics.limit("tiers", ""),
        grades,
        anonymous: memory.class(ANONYMOUS),
        seed: memory.seed,
        lease: None,
    }
}

fn known(item: &ApiKey, document: &Document, memory: &LimitMemory) -> Known {
    let key = |seed: Seed| seed.key(Kind::Client, item.client.as_bytes());
    Known {
        hash: item.key,
        key: key(memory.seed).in_class(memory.class(&item.tier)),
        shared: key(Seed::shared(document.sharing.as_ref())),
    }
}
