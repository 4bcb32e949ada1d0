//! `up`: the whole system on this machine, in this process: two sample services and a gateway in front of them, served
//! from a document that can be edited while it runs.
//!
//! Everything that is started here ends here: the document's folder is removed, the services are stopped after the
//! gateway has drained. The gateway is started exactly as `tollgate-gateway run` starts it.

mod backends;
mod load;
mod server;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Instant;

use clap::Args;
use tempfile::TempDir;
use tollgate_engine::engine::{Running, StartError};
use tollgate_engine::process::exit;

use crate::table::{print, row, table};
use backends::Backends;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where the gateway listens; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// Where health, metrics and status are served; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9901")]
    admin: SocketAddr,
    /// Sends a steady trickle of requests, so that there is something to see.
    #[arg(long)]
    load: bool,
}

pub(crate) fn up(arguments: &Arguments) -> ExitCode {
    match run(arguments) {
        Ok(code) => code,
        Err((message, code)) => {
            eprintln!("{message}");
            ExitCode::from(code)
        }
    }
}

/// Why it could not start, and the exit code that says so.
type Failure = (String, u8);

fn failed(what: &str) -> impl Fn(io::Error) -> Failure + '_ {
    move |error| (format!("{what}: {error}"), exit::FAILURE)
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let began = Instant::now();
    print("starting\n");
    let backends = Backends::start().map_err(failed("the sample services cannot start"))?;
    print(&table(
        "  ",
        &[
            row(&[
                "catalog",
                &backends.catalog.to_string(),
                "answers at once; has a stream of events",
            ]),
            row(&[
                "orders ",
                &backends.orders.to_string(),
                "takes 30 to 70 ms; every tenth answer is a 503",
            ]),
        ],
    ));
    let folder = tempfile::Builder::new()
        .prefix("tollgate-up-")
        .tempdir()
        .map_err(failed("no folder can be made for the document"))?;
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, document(arguments, &backends))
        .and_then(|()| std::fs::create_dir(folder.path().join("log")))
        .map_err(failed("the document cannot be written"))?;
    let running = tollgate_gateway::start_file(&file).map_err(refused)?;
    let listen = running.listener("public").unwrap_or(arguments.listen);
    print(&format!(
        "  gateway  {listen}  ready after {} ms\n\n",
        began.elapsed().as_millis()
    ));
    print(&greeting(listen, &running, &file));
    if arguments.load {
        load::start(listen.to_string(), backends.stopping.clone())
            .map_err(failed("the load cannot start"))?;
    }
    // A signal that came while the gateway was starting was heard by the services alone.
    let report = if backends.stopping.load(Ordering::Acquire) {
        running.stop()
    } else {
        running.wait()
    };
    drop(backends);
    remove(folder)?;
    print(&format!("stopped: {report}; nothing is left behind\n"));
    Ok(ExitCode::from(if report.cut == 0 {
        exit::OK
    } else {
        exit::CUT
    }))
}

fn remove(folder: TempDir) -> Result<(), Failure> {
    let path = folder.path().to_owned();
    folder.close().map_err(|error| {
        (
            format!("{} cannot be removed: {error}", path.display()),
            exit::FAILURE,
        )
    })
}

fn document(arguments: &Arguments, backends: &Backends) -> String {
    format!(
        include_str!("gateway.toml.in"),
        listen = arguments.listen,
        admin = arguments.admin,
        catalog = backends.catalog,
        orders = backends.orders,
    )
}

/// An address that is taken is named with the option that chooses another.
fn refused(error: StartError) -> Failure {
    let code = error.exit_code();
    let StartError::Bind {
        what,
        address,
        error,
    } = error
    else {
        return (error.to_string(), code);
    };
    let option = if what == "admin" {
        "--admin"
    } else {
        "--listen"
    };
    let cause = match error.kind() {
        io::ErrorKind::AddrInUse => "is in use by another process".to_owned(),
        _ => format!("cannot be used: {error}"),
    };
    let free = SocketAddr::new(address.ip(), 0);
    (
        format!(
            "{address} {cause}\n  = choose another address with {option}, for example {option} {free} for any free port\n  = `ss -ltnp 'sport = :{}'` shows who has it",
            address.port()
        ),
        code,
    )
}

fn greeting(listen: SocketAddr, running: &Running, file: &Path) -> String {
    let admin = running
        .admin()
        .map_or_else(|| "off".to_owned(), |admin| format!("http://{admin}"));
    let log = file.with_file_name("log").join("access.log");
    let program = std::env::args()
        .next()
        .filter(|program| !program.contains([' ', '\'', '"']))
        .unwrap_or_else(|| "tollgate".to_owned());
    let base = format!("http://{listen}");
    let facts = table(
        "  ",
        &[
            row(&["gateway", &base]),
            row(&["admin", &admin]),
            row(&["document", &file.display().to_string()]),
            row(&[
                "",
                "edit it: what you save is served at once, or refused with the line",
            ]),
            row(&["requests", &log.display().to_string()]),
        ],
    );
    let tries = [
        ("a fixed answer", format!("curl -i {base}/hello")),
        ("a service", format!("curl {base}/catalog/items/2")),
        ("a stream", format!("curl -N {base}/catalog/events")),
        (
            "orders refuses every tenth; it is asked again",
            format!("curl '{base}/orders/[1-12]'"),
        ),
        (
            "a POST is never sent twice",
            format!("curl -d '{{}}' {base}/orders"),
        ),
        ("a split, three to one", format!("curl '{base}/who?[1-8]'")),
        (
            "an error that explains itself",
            format!("curl {base}/nowhere"),
        ),
        ("for Prometheus", format!("curl {admin}/metrics")),
        (
            "endpoints, health, reloads",
            format!("{program} status --admin {admin}"),
        ),
        (
            "which route, and why",
            format!("{program} explain --live --admin {admin} GET {base}/orders/7"),
        ),
    ];
    let tries: String = tries
        .iter()
        .map(|(what, line)| format!("  {what}\n    {line}\n"))
        .collect();
    format!("{facts}\ntry\n{tries}\nCtrl-C stops all of it and leaves nothing behind\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_the_option_that_chooses_another() {
        let bind = |what: &str, address: &str| {
            refused(StartError::Bind {
                what: what.into(),
                address: address.parse().unwrap(),
                error: io::ErrorKind::AddrInUse.into(),
            })
        };
        let (message, code) = bind("listener public", "127.0.0.1:8000");
        assert!(message.contains("127.0.0.1:8000 is in use"), "{message}");
        assert!(message.contains("--listen 127.0.0.1:0"), "{message}");
        assert_eq!(code, exit::ADDRESS_IN_USE);
        let (message, _) = bind("admin", "[::1]:9901");
        assert!(message.contains("--admin [::1]:0"), "{message}");
    }
}
