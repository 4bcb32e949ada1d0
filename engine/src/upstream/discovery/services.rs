//! Instances of services, as the control plane told them last. Written by `reload::control_plane`, read by whoever
//! compiles or tends an upstream with `service = "…"`; never by a request. What is here stands until something else is
//! told: that nothing is heard for a while takes no endpoint away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tollgate_config::EndpointSource;
use tollgate_config::feed::{Health, Instance};

use super::{Source, question};

#[derive(Debug, Default)]
pub struct Services {
    lists: Mutex<HashMap<String, Arc<[Instance]>>>,
}

impl Services {
    /// All instances of a service from now on.
    pub fn set(&self, name: &str, instances: Arc<[Instance]>) {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        lists.insert(name.to_owned(), instances);
    }

    /// Whether anything was told of it, be it that it has no instances.
    pub fn has(&self, name: &str) -> bool {
        let lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        lists.contains_key(name)
    }

    pub fn forget(&self, name: &str) {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        lists.remove(name);
    }

    /// Where an upstream's endpoints are, whatever its document says; `None` for what the document should have refused.
    pub fn source(&self, endpoints: &EndpointSource) -> Option<Source> {
        let EndpointSource::Service { name, with, .. } = endpoints else {
            return Source::new(endpoints).ok();
        };
        let lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let instances = lists.get(name).map_or(&[][..], |list| list);
        let questions = usable(instances, with).into_iter().filter_map(|instance| {
            question(&instance.address, instance.weight, instance.zone.clone()).ok()
        });
        Some(Source {
            questions: questions.collect(),
        })
    }
}

/// The healthy instances with all of this metadata; the degraded ones when none of them is healthy (REG-202).
fn usable<'i>(instances: &'i [Instance], with: &[(String, String)]) -> Vec<&'i Instance> {
    let of = |health: Health| -> Vec<&'i Instance> {
        let fits = |instance: &&Instance| {
            let mut with = with.iter();
            instance.health == health
                && with.all(|(key, value)| instance.metadata.get(key) == Some(value))
        };
        instances.iter().filter(fits).collect()
    };
    let healthy = of(Health::Healthy);
    if healthy.is_empty() {
        return of(Health::Degraded);
    }
    healthy
}

#[cfg(test)]
mod tests {
    use tollgate_config::At;

    use super::*;

    fn instance(address: &str, health: Health, version: &str) -> Instance {
        Instance {
            id: address.to_owned(),
            address: address.to_owned(),
            health,
            weight: 2,
            zone: Some("b".to_owned()),
            metadata: [("version".to_owned(), version.to_owned())].into(),
        }
    }

    fn addresses(services: &Services, with: &[(&str, &str)]) -> Vec<String> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let source = services.source(&EndpointSource::Service {
            name: "orders".to_owned(),
            with: with.iter().map(owned).collect(),
            at: At(None),
        });
        let found = source.and_then(|source| source.fixed()).expect("addresses");
        found.into_iter().map(|one| one.name).collect()
    }

    #[test]
    fn reg_202_healthy_instances_are_used_and_degraded_ones_when_there_is_no_other() {
        let services = Services::default();
        assert!(addresses(&services, &[]).is_empty());
        let list = [
            instance("10.0.0.1:1", Health::Healthy, "1"),
            instance("10.0.0.2:1", Health::Degraded, "1"),
            instance("10.0.0.3:1", Health::Unhealthy, "1"),
            instance("10.0.0.4:1", Health::Unknown, "1"),
            instance("10.0.0.5:1", Health::Healthy, "2"),
        ];
        services.set("orders", list.clone().into());
        assert_eq!(addresses(&services, &[]), ["10.0.0.1:1", "10.0.0.5:1"]);
        assert_eq!(addresses(&services, &[("version", "2")]), ["10.0.0.5:1"]);
        assert!(addresses(&services, &[("version", "3")]).is_empty());
        assert!(addresses(&services, &[("colour", "blue")]).is_empty());
        services.set("orders", list[1..4].into());
        assert_eq!(addresses(&services, &[]), ["10.0.0.2:1"]);
        services.forget("orders");
        assert!(addresses(&services, &[]).is_empty());
    }

    #[test]
    fn an_instance_with_a_name_is_looked_up() {
        let services = Services::default();
        let named = instance("orders.internal:1", Health::Healthy, "1");
        services.set("orders", [named].into());
        let source = services.source(&EndpointSource::Service {
            name: "orders".to_owned(),
            with: Vec::new(),
            at: At(None),
        });
        assert_eq!(source.expect("a source").fixed(), None);
    }
}
