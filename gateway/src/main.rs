//! `tollgate-gateway`.

use std::process::ExitCode;

use clap::Parser;

/// Many small allocations, most of them freed by the thread that made them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tollgate_gateway::modest_pages();
    tollgate_gateway::main(tollgate_gateway::Arguments::parse())
}
