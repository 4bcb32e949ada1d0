//! Who listens on which port, and which process has a socket, from /proc. A process of another user is told without its name when
//! the kernel does not let us look.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Processes that are looked through for one socket.
const MOST: usize = 20_000;
/// What /proc/net/tcp calls a socket that listens.
const LISTENS: &str = "0A";

/// Sockets that listen, each with its inode.
pub(super) fn listening() -> Vec<(SocketAddr, u64)> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let texts = tables.map(|table| fs::read_to_string(table).unwrap_or_default());
    let lines = texts.iter().flat_map(|text| text.lines().skip(1));
    lines.filter_map(line).collect()
}

/// Of those, who has this address, also as one for every address.
pub(super) fn on(listening: &[(SocketAddr, u64)], address: SocketAddr) -> Option<u64> {
    let same = |known: IpAddr, ip: IpAddr| {
        let known = known.to_canonical();
        known == ip.to_canonical() || known.is_unspecified() || ip.is_unspecified()
    };
    let mut all = listening.iter();
    all.find(|(known, _)| known.port() == address.port() && same(known.ip(), address.ip()))
        .map(|(_, inode)| *inode)
}

fn line(line: &str) -> Option<(SocketAddr, u64)> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let (local, state, inode) = (words.get(1)?, words.get(3)?, words.get(9)?);
    if *state != LISTENS {
        return None;
    }
    let (ip, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((SocketAddr::new(ip_of(ip)?, port), inode.parse().ok()?))
}

/// Words of four bytes, each in the machine's own order.
fn ip_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok();
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?.to_ne_bytes()).into()),
        32 => {
            let mut bytes = [0; 16];
            for (number, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(number * 8)?.to_ne_bytes());
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

/// The processes that have these sockets.
pub(super) fn owners(inodes: &[u64]) -> HashMap<u64, u32> {
    let mut owners = HashMap::new();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids.take(MOST) {
        let open = fs::read_dir(format!("/proc/{pid}/fd"));
        for entry in open.into_iter().flatten().flatten() {
            let link = fs::read_link(entry.path()).unwrap_or_default();
            let inode = link.to_str().and_then(|text| {
                let text = text.strip_prefix("socket:[")?.strip_suffix(']')?;
                text.parse().ok()
            });
            if let Some(inode) = inode.filter(|inode| inodes.contains(inode)) {
                owners.entry(inode).or_insert(pid);
            }
        }
    }
    owners
}

/// A process in words: its number and its name.
pub(super) fn process(pid: u32) -> String {
    match name_of(pid) {
        Some(name) => format!("pid {pid} ({name})"),
        None => format!("pid {pid}"),
    }
}

pub(super) fn name_of(pid: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim().escape_debug().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_known_by_address_and_process() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let six = std::net::TcpListener::bind("[::1]:0");
        let all = listening();
        let inode = on(&all, held.local_addr().unwrap()).expect("it listens");
        assert_eq!(owners(&[inode])[&inode], std::process::id());
        if let Ok(six) = six {
            assert!(on(&all, six.local_addr().unwrap()).is_some());
        }
    }

    #[test]
    fn a_line_that_is_none_of_the_kernels_is_none() {
        assert_eq!(line("0: 0100007F:ZZ 00000000:0000 0A 0 0 0 0 0 7"), None);
        assert_eq!(line(""), None);
    }
}
