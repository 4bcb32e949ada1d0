//! `capture`: what a short file says about redirected connections, given to the kernel (`crate::capture`).

use std::path::Path;
use std::process::ExitCode;

use clap::ValueEnum;
use tollgate_config::sidecar::{self, Capture, User};
use tollgate_engine::process::exit;
use tollgate_engine::program;

use crate::capture::{self, Settings};
use crate::source::unreadable;

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum What {
    Install,
    Remove,
    Show,
}

pub(crate) fn redirect(what: What, file: Option<&Path>) -> ExitCode {
    let settings = match settings(file) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let done = match what {
        What::Install => capture::install(&settings),
        What::Remove => capture::remove(&settings),
        What::Show => capture::show(&settings),
    };
    match done {
        Ok(words) => {
            println!("{}", words.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(exit::FAILURE)
        }
    }
}

fn settings(file: Option<&Path>) -> Result<Settings, ExitCode> {
    let found = match file {
        None => Some(Capture::default()),
        Some(path) => {
            let refused = |problems| program::refused(&problems);
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|error| refused(unreadable(path, &error)))?;
            let folder = path.parent().unwrap_or(Path::new(""));
            sidecar::capture(&path.display().to_string(), &text, folder).map_err(refused)?
        }
    };
    let Some(found) = found else {
        eprintln!("the file has no `[capture]`, or says that it is off: write `[capture]` into it");
        return Err(ExitCode::from(exit::BAD_DOCUMENT));
    };
    Ok(Settings {
        inbound_port: found.inbound_port,
        outbound_port: found.outbound_port,
        uid: number(found.user.as_ref())?,
        exclude_inbound: found.exclude_inbound,
        exclude_outbound_ports: found.exclude_outbound,
        exclude_cidrs: found.exclude_cidrs,
    })
}

/// The number of the user that the sidecar runs as.
fn number(user: Option<&User>) -> Result<u32, ExitCode> {
    let name = match user {
        None => return Ok(rustix::process::getuid().as_raw()),
        Some(User::Number(number)) => return Ok(*number),
        Some(User::Name(name)) => name,
    };
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    number_of(name, &users).ok_or_else(|| {
        eprintln!("there is no user `{name}` in /etc/passwd: write the number into `capture.user`");
        ExitCode::from(exit::BAD_DOCUMENT)
    })
}

fn number_of(name: &str, users: &str) -> Option<u32> {
    let mut lines = users.lines().map(|line| line.split(':'));
    let mut found = lines.find_map(|mut fields| (fields.next() == Some(name)).then_some(fields))?;
    found.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::number_of;

    #[test]
    fn a_user_has_a_number() {
        let users = "root:x:0:0:root:/root:/bin/sh\ntollgate:x:1337:1337::/:/bin/false\nodd\n";
        assert_eq!(number_of("tollgate", users), Some(1337));
        assert_eq!(number_of("root", users), Some(0));
        assert_eq!(number_of("odd", users), None);
        assert_eq!(number_of("x", users), None);
    }
}
