//! The users service of the example shop.

use std::process::ExitCode;

use tollgate_example_services::{kit::program, users};

fn main() -> ExitCode {
    program::exit(users::run::main)
}
