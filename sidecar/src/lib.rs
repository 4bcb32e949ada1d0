//! Beside an application: a thin program around the engine. `main` here is the door that others call too.
//!
//! Commands parse their arguments, call the engine and print. What is this package's own is the order of things: who
//! starts first, who is told first, and who stops last (`life`, `exec`). No decision about traffic is taken here.

mod app;
pub mod capture;
mod exec;
mod life;
mod ready;
mod redirect;
mod signals;
mod source;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tollgate_engine::program::{self, Question};

pub use source::{Quick, Source};

/// Tollgate beside an application: encryption, identity, discovery and policy for any process.
#[derive(Debug, Parser)]
#[command(name = "tollgate-sidecar", version, about, long_about = None)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves beside an application that somebody else starts.
    Run {
        #[command(flatten)]
        told: Told,
    },
    /// Serves, starts the application when ready, and ends with it and with its exit code.
    Exec(Exec),
    /// Reports every problem and runs the document's `[[test]]`s; exits with 0 or 2.
    Check {
        #[command(flatten)]
        told: Told,
        /// Prints the full document that the short one stands for.
        #[arg(long)]
        print: bool,
    },
    /// Tells which route a request takes and why, its filters, upstreams and every timer with its line.
    Explain {
        file: PathBuf,
        method: String,
        /// `http://host/path?query`, or only `/path`.
        url: String,
        /// A request header, `name: value`; may be repeated.
        #[arg(short = 'H', long = "header")]
        headers: Vec<String>,
        /// The door: `outbound` is where the application goes out, `inbound` where others come in.
        #[arg(long, default_value = "outbound")]
        listener: String,
        /// The service that calls, for rules of access: `orders`, or `shop/orders`.
        #[arg(long, value_name = "SERVICE")]
        caller: Option<String>,
        #[arg(long)]
        json: bool,
    },
    /// Rules of the kernel that redirect the application's connections to the sidecar; needs CAP_NET_ADMIN, but for
    /// `show`.
    Capture {
        /// `install` (again: the same), `remove` (nothing is left) or `show`.
        what: redirect::What,
        /// The short file; what it says under `[capture]`. Without one, the usual ports.
        file: Option<PathBuf>,
    },
    /// Whether a running sidecar is ready: exits with 0 or 1. For probes that can start a program.
    Ready {
        /// Its admin address.
        #[arg(long, default_value = "127.0.0.1:15000")]
        admin: std::net::SocketAddr,
    },
    /// Prints the short file's JSON Schema, for editors.
    Schema,
}

/// What the sidecar is told: a file, or the few words that a file would hold.
#[derive(Debug, Args)]
pub struct Told {
    /// A short file or a full document; reloaded when it changes.
    #[arg(required_unless_present = "service", conflicts_with = "Quick")]
    file: Option<PathBuf>,
    #[command(flatten)]
    quick: Quick,
}

#[derive(Debug, Args)]
pub struct Exec {
    #[command(flatten)]
    told: Told,
    /// How long the application may take to end once it was told to, before it is killed.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    kill_after: Duration,
    /// Leaves `http_proxy` as it is.
    #[arg(long)]
    no_http_proxy: bool,
    /// The application and its arguments, behind `--`.
    #[arg(last = true, required = true, value_name = "APPLICATION")]
    words: Vec<std::ffi::OsString>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: u32 = text
        .parse()
        .map_err(|_| "write whole seconds, such as 30")?;
    Ok(Duration::from_secs(seconds.into()))
}

/// What `run` does with a file, for callers that want to know when it serves.
pub fn run(file: PathBuf, serving: impl FnOnce()) -> ExitCode {
    tollgate_engine::telemetry::log::come_from("sidecar");
    life::run(&Source::File(file), serving)
}

/// Runs a command; the exit code is the process's.
pub fn main(arguments: Arguments) -> ExitCode {
    tollgate_engine::telemetry::log::come_from("sidecar");
    match arguments.command {
        Command::Run { told } => life::run(&told.source(), || {}),
        Command::Exec(exec) => exec::exec(&exec),
        Command::Check { told, print } => check(&told.source(), print),
        Command::Explain {
            file,
            method,
            url,
            headers,
            listener,
            caller,
            json,
        } => program::explain(
            Source::File(file).load(),
            &Question {
                method,
                url,
                headers,
                listener: Some(listener),
                caller,
                json,
            },
        ),
        Command::Capture { what, file } => redirect::redirect(what, file.as_deref()),
        Command::Ready { admin } => ready::ready(admin),
        Command::Schema => {
            program::print_json(&tollgate_config::sidecar::schema());
            ExitCode::SUCCESS
        }
    }
}

impl Told {
    fn source(&self) -> Source {
        match &self.file {
            Some(file) => Source::File(file.clone()),
            None => Source::Words(self.quick.text()),
        }
    }
}

fn check(source: &Source, print: bool) -> ExitCode {
    if !print {
        return program::check(&source.name(), source.load());
    }
    if let Err(problems) = program::compiled(source.load()) {
        return program::refused(&problems);
    }
    match source.written_out() {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(problems) => program::refused(&problems),
    }
}
