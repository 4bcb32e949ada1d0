//! What the operating system knows of this process, read from `/proc` at each scrape (OBS-305).
//!
//! Where there is no `/proc`, or a file reads differently, the series are left out: a wrong number is worse than none.

use std::fs;
use std::sync::OnceLock;

use super::text::{Kind, Text};

/// The unit of times in `/proc/self/stat`: `USER_HZ`, which is 100 on every platform we build for.
const TICKS_PER_SECOND: u64 = 100;

/// The `process_…` families.
pub fn write(text: &mut Text) {
    if let Some(stat) = stat() {
        text.family(
            "process_cpu_seconds_total",
            Kind::Counter,
            "User and system CPU time spent, in seconds.",
        );
        text.sample(&[], hundredths(stat.cpu_ticks));
        if let Some(start) = start_seconds(stat.start_ticks) {
            text.family(
                "process_start_time_seconds",
                Kind::Gauge,
                "When the process started, in Unix time.",
            );
            text.sample(&[], start);
        }
    }
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        if let Some(bytes) = kilobytes(&status, "VmRSS:") {
            text.family(
                "process_resident_memory_bytes",
                Kind::Gauge,
                "Resident memory.",
            );
            text.sample(&[], bytes);
        }
        if let Some(bytes) = kilobytes(&status, "VmSize:") {
            text.family(
                "process_virtual_memory_bytes",
                Kind::Gauge,
                "Virtual memory.",
            );
            text.sample(&[], bytes);
        }
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        text.family("process_open_fds", Kind::Gauge, "Open file descriptors.");
        // The directory that is being read is one of them.
        text.sample(&[], files.count().saturating_sub(1));
    }
    if let Some(limit) = open_files_limit() {
        text.family(
            "process_max_fds",
            Kind::Gauge,
            "How many file descriptors may be open.",
        );
        text.sample(&[], limit);
    }
}

struct Stat {
    cpu_ticks: u64,
    /// Since the machine started.
    start_ticks: u64,
}

fn stat() -> Option<Stat> {
    parse_stat(&fs::read_to_string("/proc/self/stat").ok()?)
}

fn parse_stat(stat: &str) -> Option<Stat> {
    // The second field is the program's name in brackets and may itself hold spaces and brackets.
    let (_, rest) = stat.rsplit_once(')')?;
    let field = |number: usize| rest.split_whitespace().nth(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        cpu_ticks: field(14)?.checked_add(field(15)?)?,
        start_ticks: field(22)?,
    })
}

/// The machine's start is kept from the first scrape: the kernel computes it anew and it wavers by a second.
fn start_seconds(ticks: u64) -> Option<String> {
    static BOOT: OnceLock<Option<u64>> = OnceLock::new();
    let boot = (*BOOT.get_or_init(|| {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        stat.lines()
            .find_map(|line| line.strip_prefix("btime "))?
            .trim()
            .parse()
            .ok()
    }))?;
    Some(hundredths(
        boot.checked_mul(TICKS_PER_SECOND)?.checked_add(ticks)?,
    ))
}

fn hundredths(ticks: u64) -> String {
    format!(
        "{}.{:02}",
        ticks / TICKS_PER_SECOND,
        ticks % TICKS_PER_SECOND
    )
}

fn kilobytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

fn open_files_limit() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_spaces_and_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 25 13 14 15 16 17 18 4242 20";
        let stat = parse_stat(stat).expect("well-formed");
        assert_eq!(hundredths(stat.cpu_ticks), "1.75");
        assert_eq!(stat.start_ticks, 4242);
    }

    #[test]
    fn kilobytes_become_bytes() {
        assert_eq!(
            kilobytes("VmSize:\t 12 kB\nVmRSS:\t  34 kB\n", "VmRSS:"),
            Some(34 * 1024)
        );
        assert_eq!(kilobytes("VmSize:\t 12 kB\n", "VmRSS:"), None);
    }
}
