//! The products service of the example shop.

use std::process::ExitCode;

use tollgate_example_services::{kit::program, products};

fn main() -> ExitCode {
    program::exit(products::run::main)
}
