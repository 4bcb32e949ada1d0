//! One command that measures two sidecars of ours side by side with two HAProxy and two Envoy, prints a Markdown table and
//! can write JSON. `docs/benchmarks.md` says what each case means.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tollgate_benches::mesh::{Case, Ours, Report, Settings, measure};
use tollgate_benches::peers::{Peer, Programs, find};
use tollgate_benches::thread;

const CASES: [Case; 6] = [
    Case::Hops,
    Case::Memory,
    Case::Ready,
    Case::Handshakes,
    Case::Tcp,
    Case::Learn,
];

/// Measure two sidecars side by side with two HAProxy and two Envoy.
#[derive(Parser)]
struct Arguments {
    /// Only these cases
    #[arg(long, value_enum, value_delimiter = ',')]
    case: Vec<Case>,
    /// Only these
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Peer::Tollgate, Peer::Haproxy, Peer::Envoy])]
    peers: Vec<Peer>,
    /// Rounds for each case
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Counted seconds of each turn
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Two short rounds, ten dependencies, a thousand others
    #[arg(long)]
    quick: bool,
    /// Write everything that was measured to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// The core of the sidecars
    #[arg(long, default_value_t = 0)]
    sidecar_core: usize,
    /// The core of load, application and control plane
    #[arg(long, default_value_t = 1)]
    load_core: usize,
    /// Services that a sidecar uses
    #[arg(long, default_value_t = 50)]
    dependencies: usize,
    /// Services that are registered and that nobody asks for
    #[arg(long, default_value_t = 10_000)]
    others: usize,
    /// Folder of our programs; this one's by default
    #[arg(long)]
    programs: Option<PathBuf>,
    #[arg(long, value_name = "PATH")]
    haproxy: Option<PathBuf>,
    #[arg(long, value_name = "PATH")]
    envoy: Option<PathBuf>,
}

impl Arguments {
    fn settings(&self) -> Settings {
        let quick = |least: usize, given: usize| if self.quick { given.min(least) } else { given };
        Settings {
            rounds: quick(2, self.rounds).max(1),
            seconds: {
                if self.quick {
                    self.seconds.min(1.0)
                } else {
                    self.seconds
                }
            }
            .max(0.1),
            sidecar_core: self.sidecar_core,
            load_core: self.load_core,
            dependencies: quick(10, self.dependencies),
            others: quick(1_000, self.others),
        }
    }

    /// Our programs, or what to do where they are not.
    fn ours(&self) -> Result<Ours, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let beside = own.parent().unwrap_or(Path::new("."));
        let folder = self.programs.as_deref().unwrap_or(beside);
        let program = |name: &str| match folder.join(name) {
            program if program.is_file() => Ok(program),
            _ => Err(format!(
                "{name} is not there: build it with `cargo build --release`, or give --programs FOLDER"
            )),
        };
        Ok(Ours {
            sidecar: program("tollgate-sidecar")?,
            control_plane: program("tollgate-control-plane")?,
        })
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("not measured: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let settings = arguments.settings();
    if settings.sidecar_core == settings.load_core {
        return Err(io::Error::other(
            "the sidecars and the load need a core each; give --sidecar-core and --load-core",
        ));
    }
    let programs = Programs {
        haproxy: arguments.haproxy.clone(),
        envoy: arguments.envoy.clone(),
        ..Programs::default()
    };
    let (mut ours, mut others, mut missing) = (None, Vec::new(), Vec::new());
    for peer in &arguments.peers {
        let reason = match peer {
            Peer::Tollgate => arguments.ours().map(|found| ours = Some(found)).err(),
            Peer::Nginx => Some(
                "nginx is no sidecar: it keeps no connections in mutual TLS by name".to_owned(),
            ),
            _ => find(*peer, &programs).map(|found| others.push(found)).err(),
        };
        if let Some(reason) = reason {
            eprintln!("skipped: {reason}");
            missing.push(reason);
        }
    }
    if ours.is_none() && others.is_empty() {
        return Err(io::Error::other("nobody is there to be measured"));
    }
    let cases = match arguments.case.as_slice() {
        [] => &CASES,
        cases => cases,
    };
    // What is not the sidecars' must not run on their core.
    thread::pin(settings.load_core)?;
    let mut report = Report::new(settings.clone(), others.clone(), missing);
    let outcome = thread::runtime()?.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let say = |line: &str| eprintln!("{line}");
        tokio::select! {
            outcome = measure(cases, &settings, ours.as_ref(), &others, &mut report, &say) => outcome,
            _ = interrupt.recv() => Err(io::Error::other("interrupted")),
            _ = terminate.recv() => Err(io::Error::other("told to stop")),
            _ = hangup.recv() => Err(io::Error::other("the terminal is gone")),
        }
    });
    // What was measured before an end that came early is still worth reading.
    println!("{}", report.markdown());
    if let Some(file) = &arguments.json {
        fs::write(
            file,
            serde_json::to_string_pretty(&report).map_err(io::Error::other)?,
        )?;
    }
    outcome
}
