//! The shop's orders service.

use std::process::ExitCode;

fn main() -> ExitCode {
    tollgate_example_services::kit::program::exit(tollgate_example_services::orders::main)
}
