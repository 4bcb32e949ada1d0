//! `doctor`: looks at everything that it finds, needs nothing of it to work, and says of each how it is, why, what to do next,
//! and which line is the cause.
//!
//! Every check stands for itself, on a thread of its own and for a bounded time: where certificates have expired, a file is cut
//! or a machine is gone, that is what is told, and all the others go on. Nothing is changed, anywhere; a door of the mesh that is
//! looked at counts a handshake that came to nothing. `subjects` finds what there is, `wire` goes to it, the others look.

mod authority;
mod control_plane;
mod data_plane;
mod files;
mod finding;
mod fleet;
mod identity;
mod machine;
mod paper;
mod parallel;
mod ports;
mod service;
mod state;
mod subjects;
mod times;
mod trust;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use tollgate_config::unit;

use crate::client::Admin;
use crate::control::Failed;
use crate::desk::{Control, Desk};
use crate::table::print;
use finding::Finding;
use paper::Section;
use parallel::Job;
use subjects::{Named, Subjects};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Documents of gateways, sidecars and control planes; without any, those in this folder and in /etc/tollgate.
    files: Vec<PathBuf>,
    /// The admin address of a data plane, besides those that documents name; may be repeated.
    #[arg(long, value_name = "URL")]
    admin: Vec<Admin>,
    /// Follows the way of calls to this service: registered, healthy, reachable, a handshake, rules, limits.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only these sections.
    #[arg(long, value_name = "SECTION", value_delimiter = ',')]
    only: Vec<What>,
    /// How long any one check may take, such as `10s`.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    timeout: Duration,
    /// The report as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    desk: Desk,
}

/// The sections, in the order in which they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Documents, their keys and folders, what is kept for the next process.
    Files,
    /// Clock, limits, ports, kernel.
    Machine,
    /// Whether control planes are reached, and what they say of the fleet.
    ControlPlane,
    /// What gateways and sidecars on this machine say of themselves.
    DataPlanes,
    /// Certificates of the mesh, on disk and on the wire, and who signed them.
    Identity,
    /// The way to one service.
    Service,
}

impl What {
    const ALL: [What; 6] = [
        What::Files,
        What::Machine,
        What::ControlPlane,
        What::DataPlanes,
        What::Identity,
        What::Service,
    ];

    fn word(self) -> &'static str {
        match self {
            What::Files => "files",
            What::Machine => "machine",
            What::ControlPlane => "control plane",
            What::DataPlanes => "data planes",
            What::Identity => "identity",
            What::Service => "service",
        }
    }
}

/// How much longer than its limit a check is waited for: it ends by itself, and then its own words are better.
const GRACE: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(600);

fn time(text: &str) -> Result<Duration, String> {
    let time = unit::duration(text).map_err(|fault| fault.message)?;
    match (Duration::from_millis(100)..=LONGEST).contains(&time) {
        true => Ok(time),
        false => Err("write a time from 100ms to 10m".to_owned()),
    }
}

/// What looks at one thing, and its name for the case that it does not come to an end.
struct Check {
    section: What,
    subject: String,
    look: Job<Vec<Finding>>,
}

impl Check {
    fn new(
        section: What,
        subject: impl Into<String>,
        look: impl FnOnce() -> Vec<Finding> + Send + 'static,
    ) -> Check {
        Check {
            section,
            subject: subject.into(),
            look: Box::new(look),
        }
    }
}

pub(crate) fn doctor(arguments: &Arguments) -> ExitCode {
    let named = match named(arguments) {
        Ok(named) => named,
        Err(Failed(code, words)) => {
            eprintln!("{words}");
            return ExitCode::from(code);
        }
    };
    let subjects = subjects::gather(named);
    let sections = sections(arguments, &subjects);
    match arguments.json {
        true => print(&format!("{:#}\n", paper::json(&sections))),
        false => print(&paper::text(&sections)),
    }
    ExitCode::from(paper::worst(&sections).code())
}

fn named(arguments: &Arguments) -> Result<Named, Failed> {
    let bad = |why: String| Failed(tollgate_engine::process::exit::BAD_DOCUMENT, why);
    if arguments.service.is_none() && arguments.only.contains(&What::Service) {
        let words = "the section `service` is about one: name it with --service";
        return Err(bad(words.to_owned()));
    }
    let control = arguments.desk.named();
    let control = control.map(|url| {
        let parsed = url.parse::<Control>();
        parsed.map_err(|why| bad(format!("{url} is no control plane: {why}")))
    });
    let control = control.transpose()?;
    Ok(Named {
        files: arguments.files.clone(),
        admins: arguments.admin.clone(),
        control: control.map(|one| (one.tls, one.authority)),
        tls: arguments.desk.files(),
        token: arguments.desk.token()?,
        limit: arguments.timeout,
    })
}

/// Runs what is wanted, all at once.
fn sections(arguments: &Arguments, subjects: &Arc<Subjects>) -> Vec<Section> {
    let wanted = |what: &What| match what {
        What::Service => arguments.service.is_some() && is_wanted(arguments, *what),
        _ => is_wanted(arguments, *what),
    };
    let wanted: Vec<What> = What::ALL.into_iter().filter(wanted).collect();
    let mut checks = Vec::new();
    for what in &wanted {
        match what {
            What::Files => checks.extend(files::checks(subjects)),
            What::Machine => checks.extend(machine::checks(subjects)),
            What::ControlPlane => checks.extend(control_plane::checks(subjects)),
            What::DataPlanes => checks.extend(data_plane::checks(subjects)),
            What::Identity => checks.extend(identity::checks(subjects)),
            What::Service => {
                let name = arguments.service.as_deref().unwrap_or_default();
                checks.extend(service::checks(subjects, name));
            }
        }
    }
    let mut sections: Vec<Section> = { wanted.iter() }
        .map(|what| Section {
            name: what.word(),
            findings: Vec::new(),
            note: None,
        })
        .collect();
    let names: Vec<(What, String)> = { checks.iter() }
        .map(|check| (check.section, check.subject.clone()))
        .collect();
    let jobs = checks.into_iter().map(|check| check.look).collect();
    let results = parallel::all(jobs, subjects.limit + GRACE);
    for ((what, subject), found) in names.into_iter().zip(results) {
        let found = found.unwrap_or_else(|| vec![unfinished(&subject, subjects.limit)]);
        if let Some(section) = { sections.iter_mut() }.find(|one| one.name == what.word()) {
            section.findings.extend(found);
        }
    }
    for section in sections.iter_mut().filter(|one| one.findings.is_empty()) {
        section.note = Some(nothing(section.name).to_owned());
    }
    sections
}

fn is_wanted(arguments: &Arguments, what: What) -> bool {
    arguments.only.is_empty() || arguments.only.contains(&what)
}

fn unfinished(subject: &str, limit: Duration) -> Finding {
    Finding::unknown(
        subject,
        format!("this was not known after {} s", limit.as_secs_f64()),
        "ask again with a longer --timeout; where that is no help, a file system or a name server hangs",
    )
}

/// What there was nothing to look at, and how to name something.
fn nothing(section: &str) -> &'static str {
    match section {
        "files" => "no document is named or in a usual place: tollgate doctor FILE…",
        "control plane" => "none is named, and none is where one usually is: --control URL",
        "data planes" => "none is named, and none is where one usually is: --admin URL",
        "identity" => "no document that was read makes a member of the mesh",
        _ => "nothing to look at",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_time_that_somebody_waits() {
        assert_eq!(time("10s"), Ok(Duration::from_secs(10)));
        assert!(time("1ms").is_err() && time("1h").is_err() && time("soon").is_err());
    }
}
