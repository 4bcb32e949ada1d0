//! What each part runs, once it is in a process of its own: `tollgate part …`, which only `tollgate up` calls.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde_json::json;
use tollgate_engine::engine::StartError;
use tollgate_engine::process::exit;
use tollgate_engine::telemetry::log;
use tollgate_example_services::{orders, payments, products, users};

use super::part::{ready, unready};
use super::{Failure, taken};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    ControlPlane {
        document: PathBuf,
    },
    Gateway {
        document: PathBuf,
    },
    /// One of these for each service; they are alike but for their documents.
    #[command(aliases = ["users-sidecar", "products-sidecar", "orders-sidecar", "payments-sidecar"])]
    Sidecar {
        document: PathBuf,
    },
    Users(Service),
    Products(Service),
    Orders(Service),
    Payments(Service),
}

/// One of the shop's services, with its own command line.
#[derive(Debug, Args)]
struct Service {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Runs a part until it is told to end.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    // Whatever becomes of whoever started us, nothing is left behind.
    let _unsupported = set_parent_process_death_signal(Some(Signal::TERM));
    let ended = match arguments.part {
        Part::ControlPlane { document } => control_plane(&document),
        Part::Gateway { document } => gateway(&document),
        Part::Sidecar { document } => {
            return tollgate_sidecar::run(document, || ready("sidecar", json!({})));
        }
        Part::Users(service) => shop(users::run::main, service),
        Part::Products(service) => shop(products::run::main, service),
        Part::Orders(service) => shop(orders::main, service),
        Part::Payments(service) => shop(payments::main, service),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("{}", failure.0);
            unready(&failure);
            ExitCode::from(failure.1)
        }
    }
}

fn shop(main: fn(Vec<String>) -> Result<(), String>, service: Service) -> Result<u8, Failure> {
    main(service.words).map_err(|why| (why, exit::FAILURE))?;
    Ok(exit::OK)
}

fn control_plane(document: &Path) -> Result<u8, Failure> {
    log::come_from("control-plane");
    let settings = tollgate_config::control_plane::load(document)
        .map_err(|problems| (problems.to_string(), exit::BAD_DOCUMENT))?;
    let options = tollgate_control_plane::Options {
        file: Some(document.to_owned()),
        signals: true,
    };
    let running =
        tollgate_control_plane::start(settings, options).map_err(|error| match error {
            tollgate_control_plane::StartError::Bind(address, error) => {
                taken(address, &error, "--control")
            }
            other => (other.to_string(), exit::FAILURE),
        })?;
    ready("control-plane", json!({ "control": running.address }));
    let report = running.wait();
    eprintln!("stopped: {report}");
    Ok(if report.cut == 0 { exit::OK } else { exit::CUT })
}

fn gateway(document: &Path) -> Result<u8, Failure> {
    let running = tollgate_gateway::start_file(document).map_err(refused)?;
    let (listens, admin) = (running.listener("public"), running.admin());
    ready("gateway", json!({ "gateway": listens, "admin": admin }));
    let report = running.wait();
    eprintln!("stopped: {report}");
    Ok(if report.cut == 0 { exit::OK } else { exit::CUT })
}

/// An address that is taken is named with the option that chooses another.
fn refused(error: StartError) -> Failure {
    let code = error.exit_code();
    match error {
        StartError::Bind {
            what,
            address,
            error,
        } => {
            let option = if what == "admin" {
                "--admin"
            } else {
                "--listen"
            };
            let (message, _) = taken(address, &error, option);
            (message, code)
        }
        error => (error.to_string(), code),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

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
