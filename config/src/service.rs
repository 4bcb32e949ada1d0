//! The service that a host names, for whoever calls services by name: the data plane that looks one up at first use, and
//! the control plane that chooses which documents concern it. Both must agree, so both ask here. Pure.
//!
//! A service is called as people do inside of Kubernetes: `orders`, `orders.default`, `orders.default.svc` and
//! `orders.default.svc.cluster.local` all name `orders`. Every other host has a meaning outside: that of `api.example.com`
//! names no service, however its first label is spelled.

/// No label of a host is longer in DNS.
const LONGEST: usize = 63;

/// The service that this host names. The host is in its normal form: lower case, without port and without a last dot.
pub fn service_of(host: &str) -> Option<&str> {
    let mut labels = host.split('.');
    let name = labels.next()?;
    let (namespace, inside) = (labels.next(), labels.next());
    let domain_fits = labels.all(is_label);
    let fits = is_label(name)
        && namespace.is_none_or(is_label)
        && inside.is_none_or(|word| word == "svc")
        && domain_fits
        && !is_number(host);
    fits.then_some(name)
}

/// As the registry takes names, without the dots.
fn is_label(label: &str) -> bool {
    let mut letters = label.bytes();
    let first = letters.next();
    label.len() <= LONGEST
        && first.is_some_and(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit())
        && letters.all(|l| l.is_ascii_lowercase() || l.is_ascii_digit() || b"-_".contains(&l))
}

/// A name of numbers alone is an address, or meant to be one.
fn is_number(host: &str) -> bool {
    host.bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MESH-103
    #[test]
    fn a_host_names_a_service_as_people_call_it_inside_of_kubernetes() {
        for host in [
            "orders",
            "orders.default",
            "orders.default.svc",
            "orders.default.svc.cluster.local",
            "orders.default.svc.corp",
        ] {
            assert_eq!(service_of(host), Some("orders"), "{host}");
        }
        for name in ["a", "orders-v2", "orders_v2", "2fa"] {
            assert_eq!(service_of(name), Some(name));
        }
    }

    #[test]
    fn what_means_something_outside_names_no_service() {
        for host in [
            "",
            ".",
            ".orders",
            "orders.",
            "orders..svc",
            "api.example.com",
            "orders.default.pod",
            "10.0.0.1",
            "10",
            "::1",
            "-orders",
            "ord ers",
            "orders/../x",
            "Orders",
            "bücher",
            "orders.default.svc..local",
            &"o".repeat(64),
        ] {
            assert_eq!(service_of(host), None, "{host}");
        }
        assert!(service_of(&"o".repeat(63)).is_some());
    }
}
