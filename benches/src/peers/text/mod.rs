//! The configuration of each proxy: one worker, no access log, upstream connections kept and used again, every limit that
//! the load could meet raised, and nothing else changed.
//!
//! `protected` switches on what people switch on at an edge, in each proxy's own way: a rate limit by API key, a JSON
//! access log into a file, a request id, counted failures that take an endpoint out, and another try at another one.

#![expect(
    clippy::let_underscore_must_use,
    reason = "writing to a string cannot fail"
)]

mod envoy;
mod haproxy;
mod nginx;
mod tollgate;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

pub(super) use envoy::envoy;
pub(super) use haproxy::haproxy;
pub(super) use nginx::nginx;
pub(super) use tollgate::tollgate;

/// The API key that the load of a `protected` case sends.
pub(super) const KEY: &str = "bench-key-1";

/// One front address and one upstream: what every proxy is asked to be.
#[derive(Debug, Clone)]
pub(super) struct Front {
    pub(super) listen: SocketAddr,
    pub(super) upstream: SocketAddr,
    /// Clear-text HTTP/2 on both sides instead of HTTP/1.1.
    pub(super) http2: bool,
    pub(super) certificate: Option<Certificate>,
    /// Limit, log, request id, ejection and retries.
    pub(super) protected: bool,
    /// JSON is made gRPC by the descriptors in this file.
    pub(super) descriptors: Option<PathBuf>,
    /// Where `/chaos/*` goes; Tollgate only.
    pub(super) chaos: Option<SocketAddr>,
    /// For files that the proxy wants to write.
    pub(super) directory: PathBuf,
    /// Tollgate only.
    pub(super) admin: SocketAddr,
    /// Tollgate only.
    pub(super) routes: Routes,
}

/// Files of a certificate.
#[derive(Debug, Clone)]
pub(super) struct Certificate {
    pub(super) chain: PathBuf,
    pub(super) key: PathBuf,
    /// Both in one file.
    pub(super) both: PathBuf,
}

/// Tollgate's routes. Route 0 takes `/*`; route n takes `/group-G/route-n/{name}`.
#[derive(Debug, Clone, Default)]
pub(super) struct Routes {
    /// Beside route 0.
    pub(super) more: usize,
    /// A route and the value of the `x-mark` header that its answers bear, so that a change is seen from outside.
    pub(super) marks: Vec<(usize, u64)>,
}

impl Routes {
    /// A request path that ends at this route.
    pub(super) fn path(number: usize, last: &str) -> String {
        if number == 0 {
            format!("/{last}")
        } else {
            format!("/group-{}/route-{number}/{last}", number % 50)
        }
    }

    /// `filters`: of every route, as written in a list.
    fn text(&self, filters: &str) -> String {
        let mut text = String::new();
        for number in 0..=self.more {
            let pattern = if number == 0 {
                "/*".to_owned()
            } else {
                Routes::path(number, "{name}")
            };
            let _ = write!(
                text,
                "\n[[route]]\nname = \"route-{number}\"\nmatch = {{ path = \"{pattern}\" }}\nupstream = \"back\"\n"
            );
            let mark = self.marks.iter().find(|(marked, _)| *marked == number);
            let mark = mark.map(|(_, mark)| {
                format!("{{ set_headers = {{ response = {{ x-mark = \"{mark}\" }} }} }}")
            });
            let all: Vec<&str> = [Some(filters), mark.as_deref()]
                .into_iter()
                .flatten()
                .filter(|one| !one.is_empty())
                .collect();
            if !all.is_empty() {
                let _ = writeln!(text, "filters = [{}]", all.join(", "));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loader reads what the benchmarks write; a key that changes its meaning is noticed here and not in a figure.
    #[test]
    fn the_gateway_reads_its_own_configuration() {
        let any = SocketAddr::from(([127, 0, 0, 1], 9));
        for (http2, protected) in [(false, false), (true, false), (false, true)] {
            let directory = tempfile::tempdir().unwrap();
            let front = Front {
                listen: any,
                upstream: any,
                http2,
                certificate: None,
                descriptors: None,
                protected,
                chaos: Some(any),
                directory: directory.path().to_owned(),
                admin: ([127, 0, 0, 1], 10).into(),
                routes: Routes {
                    more: 3,
                    marks: vec![(0, 7), (2, 8)],
                },
            };
            let file = directory.path().join("gateway.toml");
            std::fs::write(&file, tollgate(&front)).unwrap();
            let read = tollgate_config::Loader::new().load(&file);
            let document = read.unwrap_or_else(|problems| panic!("{problems:?}"));
            assert_eq!(document.routes.len(), 5);
        }
    }
}
