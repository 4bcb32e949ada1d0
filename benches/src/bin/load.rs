//! The load generator on its own: asks a server for a path, in an open or a closed loop, and prints what it saw as JSON.

use std::io;
use std::net::ToSocketAddrs;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tollgate_benches::load::{Arrivals, Plan, Protocol, Running};
use tollgate_benches::thread;

/// Ask for a URL many times and print latency percentiles as JSON.
///
/// With --rate, requests are sent at fixed moments and latency counts from the moment a request was due. Without it, each
/// connection sends its next request when the last answer is complete.
#[derive(Parser)]
struct Arguments {
    /// http://HOST[:PORT]/PATH or https://…; several URLs of one server are asked in turn
    #[arg(required = true)]
    urls: Vec<http::Uri>,
    /// Connections at once
    #[arg(short, long, default_value_t = 64)]
    connections: usize,
    /// How requests travel
    #[arg(short, long, value_enum, default_value = "http1")]
    protocol: Way,
    /// Streams at once on each HTTP/2 connection
    #[arg(short, long, default_value_t = 16)]
    streams: usize,
    /// Requests a second, evenly spaced (open loop); without it a closed loop
    #[arg(short, long)]
    rate: Option<f64>,
    /// Stop after so many seconds
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Stop after so many requests
    #[arg(long, default_value_t = 0)]
    requests: u64,
    /// A shorter body is a failure
    #[arg(long, default_value_t = 0)]
    expect_body: usize,
    /// A header for each request, `name: value`
    #[arg(short = 'H', long = "header")]
    headers: Vec<String>,
    /// Stay on this core
    #[arg(long)]
    core: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Way {
    /// HTTP/1.1 with keep-alive
    Http1,
    /// HTTP/1.1, a connection for every request
    NewConnection,
    /// HTTP/2: prior knowledge, or ALPN on https
    Http2,
}

impl Arguments {
    fn plan(self) -> Result<Plan, String> {
        let first = &self.urls[0];
        let authority = first
            .authority()
            .ok_or("the URL has no host; write http://HOST/PATH")?;
        let tls = first.scheme_str() == Some("https");
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let to = (host, port)
            .to_socket_addrs()
            .map_err(|error| format!("{authority}: {error}"))?
            .next();
        let mut paths = Vec::new();
        for url in &self.urls {
            if url.authority() != Some(authority) || url.scheme() != first.scheme() {
                return Err(format!(
                    "{url} is another server than {first}; run one load for each"
                ));
            }
            paths.push(
                url.path_and_query()
                    .map_or("/", |path| path.as_str())
                    .to_owned(),
            );
        }
        let mut headers = Vec::new();
        for header in &self.headers {
            let (name, value) = header
                .split_once(':')
                .ok_or_else(|| format!("{header:?} is not `name: value`"))?;
            headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        if self
            .rate
            .is_some_and(|rate| !(rate > 0.0 && rate.is_finite()))
        {
            return Err("--rate must be above zero".into());
        }
        Ok(Plan {
            to: to.ok_or_else(|| format!("{authority} has no address"))?,
            host: authority.to_string(),
            paths,
            headers,
            protocol: match self.protocol {
                Way::Http1 => Protocol::KeepAlive,
                Way::NewConnection => Protocol::NewConnection,
                Way::Http2 => Protocol::Http2 {
                    streams: self.streams.max(1),
                },
            },
            tls,
            connections: self.connections.max(1),
            expect_body: self.expect_body,
            arrivals: self
                .rate
                .map_or(Arrivals::Closed, |per_second| Arrivals::Open { per_second }),
            requests: self.requests,
            duration: Some(
                Duration::try_from_secs_f64(self.seconds)
                    .map_err(|error| format!("--seconds: {error}"))?,
            ),
        })
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let core = arguments.core;
    let plan = match arguments.plan() {
        Ok(plan) => plan,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    let summary = thread::runtime().and_then(|runtime| {
        runtime.block_on(async {
            let mut running = Running::start(plan, core)?;
            let live = running.live.clone();
            tokio::select! {
                summary = running.wait() => summary,
                // The first Ctrl-C ends the run and shows what it saw so far.
                _ = tokio::signal::ctrl_c() => {
                    live.stop();
                    running.wait().await
                }
            }
        })
    });
    let text = summary
        .and_then(|summary| serde_json::to_string_pretty(&summary).map_err(io::Error::other));
    match text {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cannot measure: {error}");
            ExitCode::FAILURE
        }
    }
}
