//! A process that has ended: its code, what it printed, and the report of its drain.

use std::fmt;
use std::process::{Command, Output, Stdio};

/// A process that has ended.
pub struct Finished {
    /// None: a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// The counts of the report: accepted, finished, cut.
    pub fn report(&self) -> [u64; 3] {
        let line = self
            .stderr
            .lines()
            .find_map(|line| line.strip_prefix("stopped: "))
            .unwrap_or_else(|| panic!("no report in:\n{}", self.stderr));
        ["accepted ", "finished ", "cut "].map(|word| {
            let rest = line.split(word).nth(1).unwrap_or_default();
            let number = rest.split(',').next().unwrap_or_default();
            number.parse().unwrap_or_else(|_| panic!("{word}: {line}"))
        })
    }

    /// Fails the test unless it drained whole.
    pub fn assert_nothing_cut(&self) {
        assert_eq!(self.code, Some(0), "{self:?}");
        let [accepted, finished, cut] = self.report();
        assert_eq!((accepted, cut), (finished, 0), "{self:?}");
    }
}

impl fmt::Debug for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "exit {:?}\n--- standard output\n{}\n--- standard error\n{}",
            self.code, self.stdout, self.stderr
        )
    }
}

/// Runs a command to its end.
pub fn finish(command: &mut Command) -> Finished {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Finished {
        code: status.code(),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}
