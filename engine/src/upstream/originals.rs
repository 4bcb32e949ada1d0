//! The endpoints of an upstream that goes where captured connections were going. They are met rather than listed: one is
//! made at first use and kept for a while, so that what was learned of it and its idle connections serve the next
//! request; it is forgotten when nobody goes there any more. There is never a choice, so nobody is ejected.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;

use super::endpoint::Endpoint;
use super::moment::Moment;

/// Kept at once. Whoever comes beyond is served, too, but its connection is not kept for the next request.
const MOST: usize = 1024;
/// Kept so long after its last use, in nanoseconds.
const KEPT: u64 = 60_000_000_000;

/// Destinations by address.
#[derive(Debug, Default)]
pub(super) struct Originals {
    known: Mutex<HashMap<SocketAddr, Known, RandomState>>,
}

#[derive(Debug)]
struct Known {
    endpoint: Arc<Endpoint>,
    used: Moment,
}

impl Originals {
    pub(super) fn endpoint(&self, address: SocketAddr, now: Moment) -> Arc<Endpoint> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get_mut(&address) {
            known.used = now;
            return known.endpoint.clone();
        }
        known.retain(|_, known| now.since(known.used) < KEPT);
        let endpoint = Arc::new(Endpoint::new(address, address.to_string(), 1, None));
        if known.len() < MOST {
            // As if it were listed: its pools may keep connections.
            endpoint.enter_set();
            let used = now;
            let endpoint = endpoint.clone();
            known.insert(address, Known { endpoint, used });
        }
        endpoint
    }

    /// Those that are kept, for operators.
    pub(super) fn all(&self) -> Vec<Arc<Endpoint>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().map(|known| known.endpoint.clone()).collect()
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        self.endpoint.leave_set();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn address(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    #[test]
    fn a_destination_is_known_again_until_nobody_goes_there_any_more() {
        let (originals, start) = (Originals::default(), Instant::now());
        let at = |seconds| Moment::from(start + Duration::from_secs(seconds));
        let first = originals.endpoint(address(1), at(0));
        assert!(!first.is_removed());
        assert!(Arc::ptr_eq(&first, &originals.endpoint(address(1), at(50))));
        originals.endpoint(address(2), at(100));
        assert!(!first.is_removed());
        originals.endpoint(address(3), at(111));
        assert!(first.is_removed());
        assert!(!Arc::ptr_eq(
            &first,
            &originals.endpoint(address(1), at(112))
        ));
    }

    #[test]
    fn however_many_destinations_there_are_a_bounded_number_is_kept() {
        let (originals, now) = (Originals::default(), Instant::now().into());
        let all: Vec<_> = (1..=2048)
            .map(|port| originals.endpoint(address(port), now))
            .collect();
        let kept = all.iter().filter(|endpoint| !endpoint.is_removed()).count();
        assert_eq!(kept, MOST);
    }
}
