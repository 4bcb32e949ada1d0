//! The test upstream on its own: 1 KiB for any path, 1 MiB for a path that ends in `/1m`, over HTTP/1.1 and clear-text
//! HTTP/2, until Ctrl-C.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use tollgate_benches::{thread, upstream::Upstream};

/// Answer every request from memory.
#[derive(Parser)]
struct Arguments {
    /// Address for HTTP/1.1
    #[arg(long, default_value = "127.0.0.1:0")]
    http1: SocketAddr,
    /// Address for clear-text HTTP/2
    #[arg(long, default_value = "127.0.0.1:0")]
    http2: SocketAddr,
    /// Stay on this core
    #[arg(long)]
    core: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let served =
        Upstream::start(arguments.http1, arguments.http2, arguments.core).and_then(|upstream| {
            println!("http1 {}\nhttp2 {}", upstream.http1, upstream.http2);
            thread::runtime()?.block_on(tokio::signal::ctrl_c())
        });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot serve: {error}");
            ExitCode::FAILURE
        }
    }
}
