//! `tollgate up` as a child: started on free ports, read until it serves, and told to end however the run ends.

use std::io::{self, BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::process::{tree, usage, words};

/// How long its parts may take to end, which drain first.
const END: Duration = Duration::from_secs(60);

pub(super) struct System {
    pub(super) gateway: SocketAddr,
    up: Up,
}

/// The child. Dropping it tells it to end and waits: it has parts to end and a folder to remove.
struct Up(Child);

impl System {
    /// Starts it, and waits until everything serves.
    pub(super) async fn start(program: &Path) -> io::Result<System> {
        let any = "127.0.0.1:0";
        let mut child = Command::new(program)
            .args(["up", "--listen", any, "--admin", any, "--control", any])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // A group of its own: Ctrl-C in a terminal reaches us, and we tell it once.
            .process_group(0)
            .spawn()
            .map_err(|error| io::Error::other(format!("{}: {error}", program.display())))?;
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let up = Up(child);
        // Not on this thread: whoever waits for us may be told to stop meanwhile.
        let (gateway, output) = tokio::task::spawn_blocking(move || greeting(output))
            .await
            .map_err(io::Error::other)??;
        // Ends with the child, whose last words are for whoever watches.
        std::thread::spawn(move || io::copy(&mut { output }, &mut io::stderr()));
        Ok(System { gateway, up })
    }

    /// An address of loopback for a customer, from a block that nothing else here uses.
    pub(super) fn address(&self, number: usize) -> IpAddr {
        let [high, low] = u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes();
        Ipv4Addr::new(127, 77, high, low).into()
    }

    /// Bytes that are resident now, by part.
    pub(super) fn memory(&self) -> io::Result<Vec<(String, u64)>> {
        let mut parts = Vec::new();
        for pid in tree(self.up.0.id())? {
            parts.push((part(&words(pid)), usage(&[pid]).resident));
        }
        Ok(parts)
    }

    /// Ends it in order, and says when that did not go well.
    pub(super) async fn end(self) -> io::Result<()> {
        let mut up = self.up;
        tokio::task::spawn_blocking(move || up.end())
            .await
            .map_err(io::Error::other)?
    }
}

/// What the lines say up to the one that says that it waits: where the gateway is.
fn greeting(output: ChildStdout) -> io::Result<(SocketAddr, BufReader<ChildStdout>)> {
    let mut output = BufReader::new(output);
    let (mut line, mut gateway) = (String::new(), None);
    loop {
        line.clear();
        if output.read_line(&mut line)? == 0 {
            return Err(io::Error::other("`tollgate up` ended before it was ready"));
        }
        gateway = address(&line).or(gateway);
        if line.starts_with("Ctrl-C") {
            break;
        }
    }
    match gateway {
        Some(gateway) => Ok((gateway, output)),
        None => Err(io::Error::other(
            "`tollgate up` does not say where its gateway is",
        )),
    }
}

/// Of a line such as `  gateway  http://127.0.0.1:8000`.
fn address(line: &str) -> Option<SocketAddr> {
    let rest = line.trim().strip_prefix("gateway")?;
    rest.trim().strip_prefix("http://")?.parse().ok()
}

/// Which part a process is: `tollgate part NAME …`, or `up` itself.
fn part(words: &[String]) -> String {
    let mut words = words.iter().map(String::as_str).skip(1);
    match words.next() {
        Some("part") => words.next().unwrap_or("part").to_owned(),
        Some(other) => other.to_owned(),
        None => "ended".to_owned(),
    }
}

impl Up {
    fn end(&mut self) -> io::Result<()> {
        if self.0.try_wait()?.is_none()
            && let Some(pid) = Pid::from_raw(self.0.id().cast_signed())
        {
            kill_process(pid, Signal::TERM)?;
        }
        let told = Instant::now();
        let status = loop {
            match self.0.try_wait()? {
                Some(status) => break status,
                None if told.elapsed() > END => {
                    self.0.kill()?;
                    break self.0.wait()?;
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        match status.success() {
            true => Ok(()),
            false => Err(io::Error::other(format!(
                "`tollgate up` ended with {status}"
            ))),
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_s_address_is_read_from_its_line_and_from_no_other() {
        let gateway = "  gateway    http://127.0.0.1:4711\n";
        assert_eq!(address(gateway), Some(([127, 0, 0, 1], 4711).into()));
        for line in [
            "  gateway  127.0.0.1:1, admin 127.0.0.1:2",
            "  admin  http://127.0.0.1:1",
            "",
        ] {
            assert_eq!(address(line), None, "{line}");
        }
    }

    #[test]
    fn a_part_has_the_name_that_it_was_started_with() {
        let of = |line: &str| part(&line.split(' ').map(ToOwned::to_owned).collect::<Vec<_>>());
        assert_eq!(of("tollgate part users-sidecar x.toml"), "users-sidecar");
        assert_eq!(of("tollgate up --listen 127.0.0.1:0"), "up");
        assert_eq!(part(&[]), "ended");
    }
}
