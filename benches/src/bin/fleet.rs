//! How fast a fleet follows its control plane, beside Envoy told the same through files; and how much memory listeners take.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use tollgate_benches::fleet::{Size, envoy, ours};

/// A control plane, a gateway that follows it, and many listeners; with `--envoy`, Envoy beside them.
#[derive(Parser)]
struct Arguments {
    /// Folder of the programs; this one's by default
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Envoy's program
    #[arg(long)]
    envoy: Option<PathBuf>,
    #[arg(long, default_value_t = 5000)]
    routes: usize,
    /// Routes of one document
    #[arg(long, default_value_t = 100)]
    document: usize,
    #[arg(long, default_value_t = 200)]
    changes: usize,
    #[arg(long, default_value_t = 100)]
    instances: usize,
    #[arg(long, default_value_t = 1000)]
    listeners: usize,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> io::Result<()> {
    let size = Size {
        routes: arguments.routes,
        document: arguments.document,
        changes: arguments.changes,
        instances: arguments.instances,
        listeners: arguments.listeners,
    };
    let own = std::env::current_exe()?;
    let programs = arguments.programs.clone();
    let programs = programs.unwrap_or_else(|| own.parent().unwrap_or(Path::new(".")).to_owned());
    println!("Tollgate");
    ours(&programs, tempfile::tempdir()?.path(), size)?;
    if let Some(program) = &arguments.envoy {
        println!("\nEnvoy, told through files");
        envoy(program, tempfile::tempdir()?.path(), size)?;
    }
    Ok(())
}
