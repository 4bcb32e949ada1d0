//! One command that measures Tollgate side by side with nginx, HAProxy and Envoy, prints Markdown tables and can write
//! JSON. `docs/benchmarks.md` says what each case means.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tollgate_benches::peers::{Case, Peer, Programs, Report, Settings, find, measure};
use tollgate_benches::thread;

/// Measure Tollgate side by side with nginx, HAProxy and Envoy.
#[derive(Parser)]
struct Arguments {
    /// Only these cases (all but the three of Tollgate alone, unless it is there)
    #[arg(long, value_enum, value_delimiter = ',')]
    case: Vec<Case>,
    /// Only these proxies
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Peer::ALL)]
    peers: Vec<Peer>,
    /// Rounds for each case
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Counted seconds for each proxy in a round
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Seconds of load before the counting
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    /// Three short rounds, 1,000 idle connections, 100 reloads
    #[arg(long)]
    quick: bool,
    /// Count system calls, too, in a separate run under strace
    #[arg(long)]
    strace: bool,
    /// Write everything that was measured to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// The core of the proxies
    #[arg(long, default_value_t = 0)]
    proxy_core: usize,
    /// The core of the load and the upstream
    #[arg(long, default_value_t = 1)]
    load_core: usize,
    #[arg(long, default_value_t = 5_000)]
    idle_connections: usize,
    /// Routes in `routes` and `change-one`
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(2..))]
    routes: u64,
    #[arg(long, default_value_t = 1_000)]
    reloads: usize,
    /// Changes in `change-one`
    #[arg(long, default_value_t = 20)]
    changes: usize,
    /// Minutes of `soak`, after two to warm up
    #[arg(long, default_value_t = 30)]
    soak_minutes: u64,
    #[arg(long, value_name = "PATH")]
    tollgate: Option<PathBuf>,
    #[arg(long, value_name = "PATH")]
    nginx: Option<PathBuf>,
    #[arg(long, value_name = "PATH")]
    haproxy: Option<PathBuf>,
    #[arg(long, value_name = "PATH")]
    envoy: Option<PathBuf>,
}

impl Arguments {
    fn settings(&self) -> Settings {
        let quick = |least: usize, given: usize| if self.quick { given.min(least) } else { given };
        Settings {
            rounds: quick(3, self.rounds).max(1),
            seconds: if self.quick {
                self.seconds.min(1.0)
            } else {
                self.seconds
            }
            .max(0.1),
            warm_up: self.warm_up.max(0.0),
            proxy_core: self.proxy_core,
            load_core: self.load_core,
            idle_connections: quick(1_000, self.idle_connections).max(1),
            routes: usize::try_from(self.routes).unwrap_or(usize::MAX),
            reloads: quick(100, self.reloads).max(1),
            changes: quick(5, self.changes).max(1),
            soak_minutes: self.soak_minutes.max(2),
            strace: self.strace,
        }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("not measured: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> io::Result<()> {
    let settings = arguments.settings();
    if settings.proxy_core == settings.load_core {
        return Err(io::Error::other(
            "the proxies and the load need a core each; give --proxy-core and --load-core",
        ));
    }
    // Thousands of idle connections have both their ends' descriptors in this process.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;

    let programs = Programs {
        tollgate: arguments.tollgate.clone(),
        nginx: arguments.nginx.clone(),
        haproxy: arguments.haproxy.clone(),
        envoy: arguments.envoy.clone(),
    };
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for peer in Peer::ALL
        .into_iter()
        .filter(|peer| arguments.peers.contains(peer))
    {
        match find(peer, &programs) {
            Ok(program) => found.push(program),
            Err(reason) => {
                eprintln!("skipped: {reason}");
                missing.push(reason);
            }
        }
    }
    let own = [Case::Routes, Case::Reload, Case::ChangeOne];
    let mut cases = arguments.case.clone();
    if cases.is_empty() {
        cases = [
            Case::Http1,
            Case::Tls,
            Case::Http2,
            Case::LargeBody,
            Case::NewConnection,
            Case::Idle,
        ]
        .to_vec();
        if found.iter().any(|found| found.peer == Peer::Tollgate) {
            cases.extend(own);
        }
    }
    if found.is_empty() {
        return Err(io::Error::other("no proxy is there to be measured"));
    }

    // What is not the proxies' must not run on their core.
    thread::pin(settings.load_core)?;
    let mut report = Report::new(settings.clone(), found.clone(), missing);
    let outcome = thread::runtime()?.block_on(async {
        let mut signals = [
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ];
        let [interrupt, terminate, hangup] = &mut signals;
        let say = |line: &str| eprintln!("{line}");
        tokio::select! {
            outcome = measure(&cases, &settings, &found, &mut report, &say) => outcome,
            _ = interrupt.recv() => Err(io::Error::other("interrupted")),
            _ = terminate.recv() => Err(io::Error::other("told to stop")),
            _ = hangup.recv() => Err(io::Error::other("the terminal is gone")),
        }
    });
    // What was measured before an end that came early is still worth reading.
    println!("{}", report.markdown());
    if let Some(file) = arguments.json {
        fs::write(
            file,
            serde_json::to_string_pretty(&report).map_err(io::Error::other)?,
        )?;
    }
    outcome
}
