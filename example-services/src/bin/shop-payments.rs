//! The shop's payments service.

use std::process::ExitCode;

fn main() -> ExitCode {
    tollgate_example_services::kit::program::exit(tollgate_example_services::payments::main)
}
