//! `tollgate-sidecar`.

use std::process::ExitCode;

use clap::Parser;

/// Many small allocations, most of them freed by the thread that made them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tollgate_engine::process::modest_pages();
    tollgate_sidecar::main(tollgate_sidecar::Arguments::parse())
}
