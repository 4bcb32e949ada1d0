//! What is fast, and how we know.
//!
//! `load` makes requests and times them, `upstream` answers them for next to nothing, and `peers` sets Tollgate beside
//! nginx, HAProxy and Envoy and counts what each spends on a request; `fleet` measures how fast
//! changes arrive; `mesh` sets two sidecars of ours beside two of others, and `shop` sends customers into the whole
//! system. The binaries in `src/bin` only read their
//! arguments; `docs/benchmarks.md` says how to run them and what each number means.
//!
//! Nothing here is linked into the gateway, and nothing here trusts a certificate: it measures, it does not protect.

pub mod case;
pub mod fleet;
pub mod load;
pub mod mesh;
pub mod peers;
pub mod process;
pub mod shop;
pub mod summary;
pub mod thread;
pub mod upstream;
