//! `tollgate-control-plane`.

use std::process::ExitCode;

use clap::Parser;

/// Many small allocations, most of them of one thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tollgate_control_plane::main(tollgate_control_plane::Arguments::parse())
}
