//! Finds the endpoint we already know: under upstream name, address, name and the TLS identity expected there. Called
//! by compile and discovery, never by a request. Forgets an endpoint when nobody uses it any more: no set, no slot, no
//! worker's pool.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::endpoint::Endpoint;

/// An address that was found for an upstream, and what was written about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    pub address: SocketAddr,
    /// As it was written or found: `host:port`.
    pub name: String,
    /// Zero: drained.
    pub weight: u32,
    pub zone: Option<String>,
}

/// Every living endpoint of a process.
#[derive(Debug, Default)]
pub struct EndpointMemory {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The strong ends are held by sets, slots and pools.
    endpoints: HashMap<Key, Weak<Endpoint>>,
    /// Dead entries are swept when the map has grown to this.
    sweep_at: usize,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    upstream: String,
    tls_name: Option<String>,
    address: SocketAddr,
    /// Two names may lead to one address; they are counted, logged and shown apart.
    name: String,
}

impl EndpointMemory {
    /// The endpoint we know, with its new weight and zone, or a new one.
    pub fn endpoint(
        &self,
        upstream: &str,
        tls_name: Option<&str>,
        resolved: &Resolved,
    ) -> Arc<Endpoint> {
        let key = Key {
            upstream: upstream.to_owned(),
            tls_name: tls_name.map(str::to_owned),
            address: resolved.address,
            name: resolved.name.clone(),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = known.endpoints.get(&key).and_then(Weak::upgrade) {
            endpoint.set_plan(resolved.weight, resolved.zone.as_deref());
            return endpoint;
        }
        if known.endpoints.len() >= known.sweep_at {
            known
                .endpoints
                .retain(|_, endpoint| endpoint.strong_count() > 0);
            known.sweep_at = (known.endpoints.len() * 2).max(64);
        }
        let endpoint = Arc::new(Endpoint::new(
            resolved.address,
            resolved.name.clone(),
            resolved.weight,
            resolved.zone.clone(),
        ));
        known.endpoints.insert(key, Arc::downgrade(&endpoint));
        endpoint
    }

    /// How many endpoints are remembered.
    pub fn len(&self) -> usize {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .endpoints
            .values()
            .filter(|endpoint| endpoint.strong_count() > 0)
            .count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(port: u16) -> Resolved {
        Resolved {
            address: ([127, 0, 0, 1], port).into(),
            name: format!("localhost:{port}"),
            weight: 1,
            zone: None,
        }
    }

    #[test]
    fn an_endpoint_is_found_again_with_its_new_weight_and_zone() {
        let memory = EndpointMemory::default();
        let first = memory.endpoint("orders", None, &resolved(1));
        let changed = Resolved {
            weight: 7,
            zone: Some("b".into()),
            ..resolved(1)
        };
        let second = memory.endpoint("orders", None, &changed);
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!((second.weight(), second.zone().as_deref()), (7, Some("b")));
    }

    #[test]
    fn another_upstream_address_or_tls_identity_is_another_endpoint() {
        let memory = EndpointMemory::default();
        let endpoints = [
            memory.endpoint("orders", None, &resolved(1)),
            memory.endpoint("users", None, &resolved(1)),
            memory.endpoint("orders", None, &resolved(2)),
            memory.endpoint("orders", Some("orders.internal"), &resolved(1)),
        ];
        assert_eq!(memory.len(), 4);
        assert!(
            endpoints
                .iter()
                .enumerate()
                .all(|(i, a)| endpoints[..i].iter().all(|b| !Arc::ptr_eq(a, b)))
        );
    }

    #[test]
    fn what_nobody_uses_is_forgotten() {
        let memory = EndpointMemory::default();
        for port in 1..1000 {
            drop(memory.endpoint("orders", None, &resolved(port)));
        }
        assert!(memory.is_empty());
        assert!(memory.known.lock().unwrap().endpoints.len() <= 64);
    }
}
