//! The control plane of Tollgate: where services announce themselves, and where data planes learn of them.
//!
//! From the ground: `registry` (pure: which instances there are) and `store` (what outlives a process); `audit`; `access` (who
//! may do what);
//! `keeper` (the one who calls the registry); `catalog` (documents and revisions), `view` (pure: what one node should see of
//! them), `figures` (pure: what nodes served), `feed` (who listens, and what each was told) and `rollout` (a revision goes to
//! some first); `lease` (pure: tokens of shared limits) and `lending` (who calls it); `authority` (who is who in a mesh); `api` (HTTP in, HTTP out); `server`
//! (sockets); `run` (a process).
//! docs/architecture.md is the map, docs/control-plane.md tells what all of it is for.

pub mod access;
pub mod api;
pub mod audit;
pub mod authority;
pub mod catalog;
pub mod diagnose;
pub mod feed;
pub mod figures;
pub mod keeper;
pub mod lease;
pub mod lending;
pub mod registry;
pub mod rollout;
mod run;
mod server;
pub mod store;
mod tls;
pub mod view;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use run::{Options, Running, StartError, look_over, start};

/// Tollgate's control plane: the registry of services.
#[derive(Debug, Parser)]
#[command(name = "tollgate-control-plane", version, about, long_about = None)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves the registry; SIGTERM drains.
    Run {
        /// The document; without one every setting has its default.
        file: Option<PathBuf>,
    },
    /// Reports every problem of a document; exits with 0 or 2.
    Check { file: PathBuf },
}

/// Runs a command; the exit code is the process's.
pub fn main(arguments: Arguments) -> ExitCode {
    match arguments.command {
        Command::Run { file } => run::run(file),
        Command::Check { file } => run::check(&file),
    }
}
