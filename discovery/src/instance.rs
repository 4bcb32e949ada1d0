//! What is known of one instance, and what a caller wants of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What an instance says of itself (REG-101).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    #[default]
    Healthy,
    Degraded,
    Unhealthy,
    /// Known, but not ready: never returned to lookups (REG-106).
    #[serde(other)]
    Unknown,
}

/// An instance as a lookup answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub id: String,
    pub name: String,
    /// `host:port`.
    pub address: String,
    #[serde(default)]
    pub health: Health,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

impl Instance {
    /// One that is known without a registry.
    pub(crate) fn fixed(name: &str, address: &str) -> Self {
        Instance {
            id: format!("{name}-{address}"),
            name: name.to_owned(),
            address: address.to_owned(),
            health: Health::Unknown,
            metadata: BTreeMap::new(),
        }
    }

    /// How much of the traffic it should get beside others: `weight` of its metadata, or 1.
    pub(crate) fn weight(&self) -> f64 {
        let weight = self.metadata.get("weight");
        let weight = weight.and_then(|weight| weight.parse::<f64>().ok());
        weight
            .filter(|weight| weight.is_finite() && *weight >= 0.0)
            .unwrap_or(1.0)
    }
}

/// What a service announces of an instance of itself.
#[derive(Debug, Clone, Serialize)]
pub struct Registration {
    pub id: String,
    pub name: String,
    pub address: String,
    pub health: Health,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_endpoint: Option<String>,
    pub metadata: BTreeMap<String, String>,
}

impl Registration {
    /// With an id of its own, `{service}-{hostname}-{port}-{uuid}`. Register only when everything is up (REG-105).
    pub fn new(name: impl Into<String>, address: impl Into<String>) -> Self {
        let (name, address) = (name.into(), address.into());
        let port = address.rsplit(':').next().unwrap_or_default();
        Registration {
            id: format!("{name}-{}-{port}-{}", host(), uuid(fastrand::u128(..))),
            name,
            address,
            health: Health::Healthy,
            health_endpoint: None,
            metadata: BTreeMap::new(),
        }
    }

    #[must_use]
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(name.into(), value.into());
        self
    }

    /// Where a probe asks whether it is ready; `/health/ready` unless it is said.
    #[must_use]
    pub fn health_endpoint(mut self, path: impl Into<String>) -> Self {
        self.health_endpoint = Some(path.into());
        self
    }
}

/// This machine's name, as far as it may stand in an id.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let allowed =
        |letter: &char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    let name: String = name.trim().chars().filter(allowed).take(63).collect();
    match name.is_empty() {
        true => "host".to_owned(),
        false => name,
    }
}

/// RFC 9562 section 5.4, of random bits.
fn uuid(random: u128) -> String {
    let bits = random & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let text = format!("{bits:032x}");
    let parts = [
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..],
    ];
    parts.join("-")
}

/// What a caller demands of the instances it is given (REG-406, REG-411).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Must be equal.
    pub metadata: BTreeMap<String, String>,
    /// The `version` of its metadata must be compatible with this one: the same major version (of 0.x also the same
    /// minor one), and not older. `1`, `1.4` and `1.4.2` are all good.
    pub version: Option<String>,
    /// Instances of this zone first; others only when there are none.
    pub zone: Option<String>,
}

impl Wanted {
    pub fn version(version: impl Into<String>) -> Self {
        Wanted {
            version: Some(version.into()),
            ..Wanted::default()
        }
    }

    /// Those that fit, in the order of REG-406: health, version, zone. Degraded ones only when no healthy one is left.
    pub(crate) fn of(&self, instances: &[Instance]) -> Vec<Instance> {
        let fits = |instance: &&Instance| {
            let mut wanted = self.metadata.iter();
            let compatible = self.version.as_ref().is_none_or(|wanted| {
                let offered = instance.metadata.get("version");
                offered.is_some_and(|offered| is_compatible(offered, wanted))
            });
            let usable = instance.health != Health::Unhealthy;
            usable
                && compatible
                && wanted.all(|(name, value)| instance.metadata.get(name) == Some(value))
        };
        let fitting: Vec<&Instance> = instances.iter().filter(fits).collect();
        let best = fitting.iter().map(|instance| instance.health).min();
        let fitting = fitting.into_iter().filter(|i| Some(i.health) == best);
        let (near, far): (Vec<Instance>, Vec<Instance>) = fitting.cloned().partition(|instance| {
            self.zone.is_none() || instance.metadata.get("zone") == self.zone.as_ref()
        });
        if near.is_empty() { far } else { near }
    }
}

fn is_compatible(offered: &str, wanted: &str) -> bool {
    let (Some(offered), Some(wanted)) = (numbers(offered), numbers(wanted)) else {
        return offered == wanted;
    };
    let line = if wanted[0] == 0 { 2 } else { 1 };
    offered[..line] == wanted[..line] && offered >= wanted
}

/// Major, minor and patch; what is not said is zero, and what stands after `-` or `+` is not looked at.
fn numbers(version: &str) -> Option<[u64; 3]> {
    let version = version.strip_prefix('v').unwrap_or(version);
    let version = version.split(['-', '+']).next()?;
    let mut numbers = [0; 3];
    let mut parts = version.split('.');
    for (place, part) in numbers.iter_mut().zip(&mut parts) {
        *place = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str, health: Health, metadata: &[(&str, &str)]) -> Instance {
        let metadata = metadata.iter();
        Instance {
            id: id.to_owned(),
            health,
            metadata: metadata
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Instance::fixed("orders", "127.0.0.1:1")
        }
    }

    fn ids(wanted: &Wanted, of: &[Instance]) -> Vec<String> {
        wanted
            .of(of)
            .into_iter()
            .map(|instance| instance.id)
            .collect()
    }

    #[test]
    fn reg_406_health_goes_before_version_and_version_before_zone() {
        let all = [
            instance(
                "old-near",
                Health::Healthy,
                &[("version", "1.1.9"), ("zone", "a")],
            ),
            instance(
                "far",
                Health::Healthy,
                &[("version", "1.2.0"), ("zone", "b")],
            ),
            instance(
                "near",
                Health::Healthy,
                &[("version", "1.3.1"), ("zone", "a")],
            ),
            instance(
                "weak-near",
                Health::Degraded,
                &[("version", "1.2.5"), ("zone", "a")],
            ),
        ];
        let mut wanted = Wanted::version("1.2");
        wanted.zone = Some("a".to_owned());
        assert_eq!(ids(&wanted, &all), ["near"]);
        assert_eq!(
            ids(&wanted, &all[..2]),
            ["far"],
            "remote is better than none"
        );
        wanted.version = Some("1.2.1".to_owned());
        assert_eq!(ids(&wanted, &all[3..]), ["weak-near"], "degraded as well");
        wanted.version = Some("2".to_owned());
        assert!(ids(&wanted, &all).is_empty());
        assert_eq!(ids(&Wanted::default(), &all), ["old-near", "far", "near"]);
    }

    #[test]
    fn reg_411_versions_are_compatible_within_a_major_one_and_not_backwards() {
        for (offered, wanted, good) in [
            ("1.2.3", "1.2.3", true),
            ("1.10.0", "1.9", true),
            ("v1.2.3+linux", "1.2", true),
            ("1.2.2", "1.2.3", false),
            ("2.0.0", "1.2.3", false),
            ("0.3.9", "0.3.1", true),
            ("0.4.0", "0.3.1", false),
            ("blue", "blue", true),
            ("blue", "1", false),
            ("1.2.3.4", "1", false),
        ] {
            assert_eq!(
                is_compatible(offered, wanted),
                good,
                "{offered} for {wanted}"
            );
        }
    }

    #[test]
    fn dec_37_an_id_names_service_machine_port_and_is_unique() {
        let one = Registration::new("orders", "10.0.0.7:7000").id;
        assert!(
            one.starts_with("orders-") && one.contains("-7000-"),
            "{one}"
        );
        assert_ne!(one, Registration::new("orders", "10.0.0.7:7000").id);
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
    }

    #[test]
    fn a_weight_that_is_none_is_one() {
        for (text, weight) in [
            ("2.5", 2.5),
            ("0", 0.0),
            ("-1", 1.0),
            ("NaN", 1.0),
            ("x", 1.0),
        ] {
            let instance = instance("a", Health::Healthy, &[("weight", text)]);
            assert!((instance.weight() - weight).abs() < 1e-9, "{text}");
        }
    }
}
