//! `tollgate-gateway`.

use std::process::ExitCode;

use clap::Parser;

/// Many small allocations on one thread each: measured against the system's and jemalloc in `docs/benchmarks.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tollgate_gateway::modest_pages();
    tollgate_gateway::main(tollgate_gateway::Arguments::parse())
}
