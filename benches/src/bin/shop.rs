//! The whole shop under a crowd: starts `tollgate up`, sends customers who browse and order, and prints what they met.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tollgate_benches::shop::{Report, Size, run};
use tollgate_benches::thread;

/// `tollgate up` and a crowd of customers; ends with failure when a goal is missed.
#[derive(Parser)]
struct Arguments {
    /// The program; beside this one by default
    #[arg(long)]
    tollgate: Option<PathBuf>,
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..))]
    customers: u16,
    /// Requests a second, of all customers together
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// Which part of them are orders
    #[arg(long, default_value_t = 0.2)]
    orders: f64,
    /// Seconds that do not count
    #[arg(long, default_value_t = 5)]
    warm_up: u64,
    /// Seconds that count
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(Some(report)) => {
            print!("{report}");
            let missed = report.missed();
            for goal in &missed {
                eprintln!("missed: {goal}");
            }
            match missed.is_empty() {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            }
        }
        Ok(None) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot measure: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Nothing when somebody ended it.
fn measure(arguments: &Arguments) -> io::Result<Option<Report>> {
    if !(arguments.rate > 0.0 && arguments.rate.is_finite()) {
        return Err(io::Error::other("--rate must be above zero"));
    }
    let beside = || Ok::<_, io::Error>(std::env::current_exe()?.with_file_name("tollgate"));
    let program = arguments.tollgate.clone().map_or_else(beside, Ok)?;
    let size = Size {
        customers: arguments.customers.into(),
        rate: arguments.rate,
        orders: arguments.orders,
        warm_up: Duration::from_secs(arguments.warm_up),
        span: Duration::from_secs(arguments.seconds.max(1)),
    };
    thread::runtime()?.block_on(async {
        let mut term = signal(SignalKind::terminate())?;
        tokio::select! {
            report = run(&program, size) => report.map(Some),
            // What was begun is dropped, and the system ends with it.
            _ = tokio::signal::ctrl_c() => Ok(None),
            _ = term.recv() => Ok(None),
        }
    })
}
