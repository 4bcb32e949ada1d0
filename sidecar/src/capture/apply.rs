//! Gives rules to the kernel by the programs that a machine has for that. `nft` first: one transaction for both families.
//! `iptables` and `ip6tables` where it is missing; whichever was used before, its rules are gone afterwards.

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::rules::{self, Family};
use super::{By, Error, Settings};

/// Often not in the path of those who may run what is there.
const FOLDERS: [&str; 2] = ["/usr/sbin", "/sbin"];
/// Bit of CAP_NET_ADMIN.
const NET_ADMIN: u64 = 1 << 12;

/// A program, found.
struct Program {
    name: &'static str,
    path: PathBuf,
}

/// `iptables` for one family, and its way to change much at once.
struct Iptables {
    family: Family,
    one: Program,
    many: Program,
}

pub(super) fn install(settings: &Settings, by: Option<By>) -> Result<String, Error> {
    let (nft, iptables) = programs()?;
    permitted()?;
    match by {
        Some(By::Nft) if nft.is_none() => return Err(Error::NoProgram),
        Some(By::Iptables) if iptables.is_empty() => return Err(Error::NoProgram),
        _ => {}
    }
    if let Some(nft) = nft.as_ref().filter(|_| by != Some(By::Iptables)) {
        nft.run(&["-f", "-"], &rules::nft(settings))?;
        remove_from(Some(nft), &iptables)?;
        return Ok("redirected by nft, for IPv4 and IPv6".to_owned());
    }
    if let Some(nft) = &nft {
        nft.run(&["-f", "-"], &rules::nft_removal())?;
    }
    let mut done = Vec::new();
    for tables in &iptables {
        let hooked = rules::hooked(&tables.listed()?);
        tables.change(&rules::iptables(settings, tables.family, hooked))?;
        done.push(tables.one.name);
    }
    Ok(match iptables.as_slice() {
        [_, _] => "redirected by iptables, for IPv4 and IPv6".to_owned(),
        _ => format!(
            "redirected by {}, for one family only: the other's program is not installed here",
            done.join(" and ")
        ),
    })
}

pub(super) fn installed() -> Result<Option<By>, Error> {
    let (nft, iptables) = programs()?;
    permitted()?;
    if let Some(nft) = &nft {
        if nft.has_table()? {
            return Ok(Some(By::Nft));
        }
        let chains = nft.run(&["list", "chains"], "")?;
        let ours = rules::CHAINS.iter().any(|chain| chains.contains(chain));
        return Ok(ours.then_some(By::Iptables));
    }
    for tables in &iptables {
        if rules::iptables_removal(&tables.listed()?).is_some() {
            return Ok(Some(By::Iptables));
        }
    }
    Ok(None)
}

pub(super) fn remove() -> Result<String, Error> {
    let (nft, iptables) = programs()?;
    permitted()?;
    let mut removed = Vec::new();
    if let Some(nft) = &nft
        && nft.has_table()?
    {
        nft.run(&["-f", "-"], &rules::nft_removal())?;
        removed.push("nft");
    }
    removed.extend(remove_from(nft.as_ref(), &iptables)?);
    Ok(match removed.as_slice() {
        [] => "nothing was redirected".to_owned(),
        some => format!("rules of {} removed", some.join(" and ")),
    })
}

pub(super) fn show(settings: &Settings) -> Result<String, Error> {
    let (nft, iptables) = programs()?;
    if nft.is_some() {
        return Ok(rules::nft(settings));
    }
    let mut text = String::new();
    for tables in &iptables {
        text.push_str(&format!("# {}\n", tables.many.name));
        text.push_str(&rules::iptables(settings, tables.family, [false, false]));
    }
    Ok(text)
}

/// Takes our rules out of `iptables`; says of which.
fn remove_from(nft: Option<&Program>, iptables: &[Iptables]) -> Result<Vec<&'static str>, Error> {
    let seen = match nft {
        // The newer `iptables` keeps its chains where `nft` sees them. Where it has none, asking it would leave some.
        Some(nft) => nft.run(&["list", "chains"], "")?,
        None => String::new(),
    };
    let mut removed = Vec::new();
    for tables in iptables {
        let seen = nft.is_none() || rules::CHAINS.iter().any(|chain| seen.contains(chain));
        if !seen && !tables.is_old() {
            continue;
        }
        if let Some(text) = rules::iptables_removal(&tables.listed()?) {
            tables.change(&text)?;
            removed.push(tables.one.name);
        }
    }
    Ok(removed)
}

fn programs() -> Result<(Option<Program>, Vec<Iptables>), Error> {
    let nft = Program::find("nft");
    let tables = Family::BOTH.into_iter().filter_map(|family| {
        let (one, many) = match family {
            Family::V4 => ("iptables", "iptables-restore"),
            Family::V6 => ("ip6tables", "ip6tables-restore"),
        };
        Some(Iptables {
            family,
            one: Program::find(one)?,
            many: Program::find(many)?,
        })
    });
    let tables: Vec<_> = tables.collect();
    if nft.is_none() && tables.is_empty() {
        return Err(Error::NoProgram);
    }
    Ok((nft, tables))
}

/// Looked at before: what the programs say without it is not for people.
fn permitted() -> Result<(), Error> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    match effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()) {
        Some(bits) if bits & NET_ADMIN == 0 => Err(Error::NotPermitted),
        // Where nobody says, the programs will.
        _ => Ok(()),
    }
}

impl Iptables {
    fn listed(&self) -> Result<String, Error> {
        self.one.run(&["-w", "-t", "nat", "-S"], "")
    }

    /// Whether the kernel has a table of the older kind, which `nft` does not see.
    fn is_old(&self) -> bool {
        let names = match self.family {
            Family::V4 => "/proc/net/ip_tables_names",
            Family::V6 => "/proc/net/ip6_tables_names",
        };
        fs::read_to_string(names).is_ok_and(|names| names.lines().any(|name| name == "nat"))
    }

    fn change(&self, text: &str) -> Result<(), Error> {
        self.many.run(&["--noflush", "--wait"], text).map(drop)
    }
}

impl Program {
    /// Of `nft`.
    fn has_table(&self) -> Result<bool, Error> {
        let tables = self.run(&["list", "tables", "inet"], "")?;
        let ours = format!("table inet {}", rules::TABLE);
        Ok(tables.lines().any(|line| line.trim() == ours))
    }

    fn find(name: &'static str) -> Option<Program> {
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = env::split_paths(&path).chain(FOLDERS.map(PathBuf::from));
        let mut files = folders.map(|folder| folder.join(name));
        let path = files.find(|file| Path::is_file(file))?;
        Some(Program { name, path })
    }

    /// Runs it with this on its standard input; what it printed.
    fn run(&self, arguments: &[&str], input: &str) -> Result<String, Error> {
        let failed = |error| Error::Io {
            program: self.name,
            error,
        };
        let mut child = Command::new(&self.path)
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        // A program that ends before it has read everything says why on its standard error.
        let written = match child.stdin.take() {
            Some(mut stdin) => stdin.write_all(input.as_bytes()),
            None => Ok(()),
        };
        let output = child.wait_with_output().map_err(failed)?;
        if output.status.success() && written.is_ok() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let words = String::from_utf8_lossy(&output.stderr);
        let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
        if words.contains("Operation not permitted") || words.contains("Permission denied") {
            return Err(Error::NotPermitted);
        }
        Err(Error::Refused {
            program: self.name,
            words: if words.is_empty() {
                output.status.to_string()
            } else {
                words.chars().take(400).collect()
            },
        })
    }
}
