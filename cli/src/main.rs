//! `tollgate`: the operator's tool. `up` starts a whole system on this machine; `status`, `breakers` and
//! `explain --live` ask the admin address of a running part; `services`, `nodes`, `revisions`, `diff`, `apply`, `plan`,
//! `rollback`, `rollout`, `identity`, `audit`, `traces`, `sagas` and `diagnose` ask a control plane; `doctor` looks at all of it;
//! `gateway` and `sidecar` are the programs of these names.
//!
//! Commands parse their arguments, ask somebody and print. No decision about traffic is taken in this package.

mod breakers;
mod client;
mod control;
mod desk;
mod diagnose;
mod doctor;
mod edges;
mod explain;
mod fleet;
mod identity;
mod inspect;
mod rollout;
mod secure;
mod status;
mod table;
mod traces;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use tollgate_engine::process::exit;

use client::Admin;

/// The same allocator as the gateway's own program: `up` serves in this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Tollgate: runs it, asks it, explains it.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, about, long_about = None)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts the shop with a sidecar beside each service, a control plane and a gateway; prints requests to try. Ctrl-C stops all of it.
    Up(up::Arguments),
    #[command(hide = true)]
    Part(up::parts::Arguments),
    /// What a running gateway serves, since when, and how its endpoints are.
    Status {
        /// The admin address that is asked.
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9901")]
        admin: Admin,
        /// The answer as it came.
        #[arg(long)]
        json: bool,
    },
    /// Circuit breakers and retry budgets: their state and why; opens or closes one for a while.
    Breakers(breakers::Arguments),
    /// Which route a request takes and why: of a document, or with `--live` of a running gateway.
    Explain {
        /// Ask the running gateway; without this, the first word is a document.
        #[arg(long)]
        live: bool,
        /// The admin address that is asked, with `--live`.
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9901")]
        admin: Admin,
        /// A request header, `name: value`; may be repeated.
        #[arg(short = 'H', long = "header", value_name = "HEADER")]
        headers: Vec<String>,
        /// The listener's name; the first one without it.
        #[arg(long)]
        listener: Option<String>,
        /// The service that calls, for rules of access: `orders`, or `shop/orders`.
        #[arg(long, value_name = "SERVICE")]
        caller: Option<String>,
        /// The answer as JSON.
        #[arg(long)]
        json: bool,
        /// `METHOD URL` with `--live`, else `FILE METHOD URL`.
        #[arg(value_names = ["METHOD", "URL"], num_args = 2..=3, required = true)]
        words: Vec<String>,
    },
    /// Who registered with a control plane.
    Services(control::Plain),
    /// Who follows a control plane, what each runs, and what it refused.
    Nodes(control::Plain),
    /// Who changed the fleet's documents, when and why.
    Revisions(control::Plain),
    /// What differs between two revisions.
    Diff(control::Diff),
    /// Changes documents of the fleet: all that are named, or none.
    Apply(control::Change),
    /// What `apply` would change, and who would be told. Changes nothing.
    Plan(control::Change),
    /// Returns to a former revision, as a new one.
    Rollback(control::Rollback),
    /// A change on its way to all nodes: how far it is; pauses, resumes, promotes or aborts it.
    Rollout(rollout::Arguments),
    /// The authority of a mesh: makes tokens to join with, shows members, revokes, bars, changes the key.
    Identity(identity::Arguments),
    /// Which service calls which, how often, and how that goes: the edges of a service map.
    Edges(edges::Arguments),
    /// Who changed something, who was refused, what became of instances.
    Audit(inspect::Audit),
    /// What is wrong with a service, a request or a saga, and what to do. Exits with 1 if something is.
    Diagnose(diagnose::Arguments),
    /// Which requests there were lately, or all spans of one.
    Traces(traces::Traces),
    /// Sagas that are under way, or that failed.
    Sagas(traces::Sagas),
    /// Looks at everything that it finds here, and says of each how it is, why, and what to do; needs nothing to work. Exits with 0, 1 or 2.
    Doctor(doctor::Arguments),
    /// Writes what a shell needs to complete these commands: `source <(tollgate completion bash)`.
    Completion { shell: clap_complete::Shell },
    /// The gateway's own commands, as `tollgate-gateway` has them.
    Gateway(tollgate_gateway::Arguments),
    /// The sidecar's own commands, as `tollgate-sidecar` has them.
    Sidecar(tollgate_sidecar::Arguments),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Up(arguments) => up::up(&arguments),
        Command::Part(arguments) => up::parts::run(arguments),
        Command::Status { admin, json } => ended(status::status(&admin, json)),
        Command::Breakers(arguments) => ended(breakers::breakers(&arguments)),
        Command::Explain {
            live,
            admin,
            headers,
            listener,
            caller,
            json,
            words,
        } => {
            let question = explain::Question {
                headers,
                listener,
                caller,
                json,
            };
            match (live, words.as_slice()) {
                (true, [method, url]) => ended(explain::live(&admin, method, url, &question)),
                (false, [file, method, url]) => {
                    tollgate_gateway::main(tollgate_gateway::Arguments {
                        command: tollgate_gateway::Command::Explain {
                            file: PathBuf::from(file),
                            method: method.clone(),
                            url: url.clone(),
                            headers: question.headers,
                            listener: question.listener,
                            caller: question.caller,
                            json,
                        },
                    })
                }
                (true, _) => misused("explain --live takes METHOD and URL, and no file"),
                (false, _) => misused(
                    "explain takes FILE, METHOD and URL; add --live to ask the running gateway",
                ),
            }
        }
        Command::Services(arguments) => fleet::services(&arguments),
        Command::Nodes(arguments) => fleet::nodes(&arguments),
        Command::Revisions(arguments) => control::revisions(&arguments),
        Command::Diff(arguments) => control::diff(&arguments),
        Command::Apply(arguments) => control::apply(&arguments),
        Command::Plan(arguments) => control::plan(&arguments),
        Command::Rollback(arguments) => control::rollback(&arguments),
        Command::Rollout(arguments) => rollout::rollout(&arguments),
        Command::Identity(arguments) => identity::identity(&arguments),
        Command::Edges(arguments) => edges::edges(&arguments),
        Command::Audit(arguments) => inspect::audit(&arguments),
        Command::Traces(arguments) => traces::traces(&arguments),
        Command::Sagas(arguments) => traces::sagas(&arguments),
        Command::Diagnose(arguments) => diagnose::diagnose(&arguments),
        Command::Doctor(arguments) => doctor::doctor(&arguments),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            let name = "tollgate";
            clap_complete::generate(shell, &mut Arguments::command(), name, &mut script);
            ended(Ok(String::from_utf8_lossy(&script).into_owned()))
        }
        Command::Gateway(arguments) => tollgate_gateway::main(arguments),
        Command::Sidecar(arguments) => tollgate_sidecar::main(arguments),
    }
}

/// What a command has to say, or why it could not be done.
fn ended(result: Result<String, String>) -> ExitCode {
    match result {
        Ok(text) => {
            table::print(&text);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(exit::FAILURE)
        }
    }
}

fn misused(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::from(exit::BAD_DOCUMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn explain_takes_a_file_or_asks_live() {
        for line in [
            "tollgate explain gateway.toml GET /",
            "tollgate explain --live GET http://a.example/",
            "tollgate gateway run --to http://127.0.0.1:9000",
        ] {
            Arguments::try_parse_from(line.split(' ')).unwrap();
        }
        assert!(Arguments::try_parse_from(["tollgate", "explain", "GET"]).is_err());
    }
}
