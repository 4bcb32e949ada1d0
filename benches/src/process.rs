//! What a running process costs, read from `/proc`: CPU time, resident memory and context switches of a process and all
//! its descendants, dead threads included.
//!
//! It only reads. A process that ends between two readings counts as nothing rather than as an error, because workers
//! come and go while a proxy reloads.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::param::{clock_ticks_per_second, page_size};

/// The fields of `/proc/PID/stat` that are used here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    pub name: String,
    pub parent: u32,
    /// Clock ticks in user mode.
    pub user: u64,
    /// Clock ticks in the kernel.
    pub system: u64,
    pub threads: u64,
    /// Resident pages.
    pub resident: u64,
}

impl Stat {
    /// Parses one line. The name stands in parentheses and may hold spaces and parentheses itself, so it ends at the
    /// last `)` of the line.
    pub fn parse(line: &str) -> Option<Stat> {
        let open = line.find('(')?;
        let close = line.rfind(')')?;
        let name = line.get(open + 1..close)?.to_owned();
        let fields: Vec<&str> = line.get(close + 1..)?.split_ascii_whitespace().collect();
        // proc(5) counts from 1 with the state, the first field here, as number 3.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Stat {
            name,
            parent: fields.get(1)?.parse().ok()?,
            user: field(14)?,
            system: field(15)?,
            threads: field(20)?,
            resident: field(24)?,
        })
    }

    fn read(pid: u32) -> Option<Stat> {
        // A name need not be UTF-8.
        Stat::parse(&String::from_utf8_lossy(
            &fs::read(format!("/proc/{pid}/stat")).ok()?,
        ))
    }
}

/// What a process and its descendants have used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// User and system time together.
    pub cpu: Duration,
    /// Bytes.
    pub resident: u64,
    pub voluntary_switches: u64,
    pub involuntary_switches: u64,
}

/// The process and all its descendants, itself first.
pub fn tree(root: u32) -> io::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        if let Some(stat) = Stat::read(pid) {
            parents.push((pid, stat.parent));
        }
    }
    Ok(descendants(root, &parents))
}

/// The command line of a process; nothing for one that has ended.
pub fn words(pid: u32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

fn descendants(root: u32, parents: &[(u32, u32)]) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(
            parents
                .iter()
                .filter(|(pid, of)| *of == parent && *pid != parent)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    found
}

/// Sums up the given processes.
pub fn usage(pids: &[u32]) -> Usage {
    let mut usage = Usage::default();
    let mut ticks = 0;
    for pid in pids {
        let Some(stat) = Stat::read(*pid) else {
            continue;
        };
        ticks += stat.user + stat.system;
        usage.resident += stat.resident * page_size() as u64;
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
            continue;
        };
        for task in tasks.flatten() {
            let Ok(status) = fs::read(task.path().join("status")) else {
                continue;
            };
            let (voluntary, involuntary) = switches(&String::from_utf8_lossy(&status));
            usage.voluntary_switches += voluntary;
            usage.involuntary_switches += involuntary;
        }
    }
    usage.cpu = Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64);
    usage
}

/// The time that the living threads of these processes have run, to the nanosecond: where little is done, a clock tick
/// is too coarse to count in.
pub fn ran(pids: &[u32]) -> Duration {
    let mut nanos = 0;
    for pid in pids {
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
            continue;
        };
        nanos += tasks
            .flatten()
            .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
            .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
            .sum::<u64>();
    }
    Duration::from_nanos(nanos)
}

/// Resident memory by what stands behind it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resident {
    pub all: u64,
    /// The process's own.
    pub own: u64,
    /// Pages of files, above all the program: one copy for all processes that run it.
    pub of_files: u64,
}

/// What of a process is in memory; nothing, once it has ended.
pub fn resident(pid: u32) -> Resident {
    let status = fs::read(format!("/proc/{pid}/status")).unwrap_or_default();
    by_kind(&String::from_utf8_lossy(&status))
}

fn by_kind(status: &str) -> Resident {
    let bytes = |key: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(key))?;
        let kibibytes = value.trim().strip_suffix("kB")?.trim();
        Some(kibibytes.parse::<u64>().ok()? << 10)
    };
    Resident {
        all: bytes("VmRSS:").unwrap_or(0),
        own: bytes("RssAnon:").unwrap_or(0),
        of_files: bytes("RssFile:").unwrap_or(0),
    }
}

fn switches(status: &str) -> (u64, u64) {
    let after = |key: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(key))?;
        value.trim().parse::<u64>().ok()
    };
    (
        after("voluntary_ctxt_switches:").unwrap_or(0),
        after("nonvoluntary_ctxt_switches:").unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: &str = "S 17 4242 4242 0 -1 4194560 900 0 0 0 321 123 0 0 20 0 3 0 5000 10485760 2048 18446744073709551615";

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        for name in [
            "nginx",
            "nginx: worker process",
            "a) S 1 (b",
            "",
            ")(",
            "(sd-pam)",
        ] {
            let stat = Stat::parse(&format!("4242 ({name}) {REST}\n")).unwrap();
            assert_eq!(
                stat,
                Stat {
                    name: name.into(),
                    parent: 17,
                    user: 321,
                    system: 123,
                    threads: 3,
                    resident: 2048
                },
                "{name}"
            );
        }
    }

    #[test]
    fn a_line_that_is_cut_short_is_no_process() {
        for line in ["", "42", "42 (x", "42 )x( S 1", "42 (x) S 17 4242"] {
            assert_eq!(Stat::parse(line), None, "{line}");
        }
    }

    #[test]
    fn descendants_are_found_through_generations_and_others_are_not() {
        let parents = [(1, 0), (20, 10), (10, 1), (30, 20), (11, 1), (31, 20)];
        assert_eq!(descendants(10, &parents), [10, 20, 30, 31]);
    }

    #[test]
    fn switches_are_read_by_their_whole_key() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t545\n";
        assert_eq!(switches(status), (150, 545));
    }

    #[test]
    fn memory_is_told_by_kind() {
        let status = "VmRSS:\t   14000 kB\nRssAnon:\t    4000 kB\nRssFile:\t   10000 kB\n";
        assert_eq!(
            by_kind(status),
            Resident {
                all: 14_000 << 10,
                own: 4_000 << 10,
                of_files: 10_000 << 10
            }
        );
        assert_eq!(by_kind(""), Resident::default());
    }

    #[test]
    fn this_process_uses_memory_and_time() {
        let pid = std::process::id();
        assert!(ran(&[pid]) > Duration::ZERO);
        assert!(resident(pid).all > 100_000);
        assert!(tree(pid).unwrap().contains(&pid));
        assert!(usage(&[pid]).resident > 100_000);
        assert!(!words(pid).is_empty());
    }
}
