//! The machine under everything: its clock beside others', how many files a process may open, who has the ports that documents
//! name, IPv6, what the kernel redirects, and how much memory there may be.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rustix::process::{Resource, getrlimit};
use serde_json::Value;
use tollgate_config::control_plane::Server;
use tollgate_engine::net::tls::SKEW;
use tollgate_sidecar::capture;

use super::finding::Finding;
use super::ports;
use super::subjects::{Paper, Subjects};
use super::times::{self, Skew};
use super::wire::{Patience, Site, Target};
use super::{Check, What};

/// A clock that is so far away is told; members of a mesh refuse one another from `SKEW` on.
const MUCH: u64 = 5;
/// Files that a process opens besides connections.
const SPARE: u64 = 256;
/// A process that may open fewer is told, whatever its document says.
const FEW: u64 = 1024;
/// A cgroup with less than this share left is told, in percent.
const LITTLE: u64 = 10;
const CGROUP: &str = "/sys/fs/cgroup";

type Look = fn(&Subjects) -> Vec<Finding>;

pub(super) fn checks(subjects: &Arc<Subjects>) -> Vec<Check> {
    let mut checks = Vec::new();
    for number in 0..subjects.controls.len() {
        let all = subjects.clone();
        checks.push(Check::new(What::Machine, "the clock", move || {
            let target = all.controls.get(number);
            target
                .and_then(|target| clock(&all, target))
                .into_iter()
                .collect()
        }));
    }
    let parts: [(&str, Look); 5] = [
        ("open files", open_files),
        ("ports", listened),
        ("IPv6", six),
        ("redirected connections", redirected),
        ("memory", memory),
    ];
    for (subject, look) in parts {
        let all = subjects.clone();
        checks.push(Check::new(What::Machine, subject, move || look(&all)));
    }
    checks
}

/// The time by a control plane's clock beside ours; `None`: it is none, or does not say it.
pub(super) fn skew_of(site: &Site) -> Option<Skew> {
    let before = times::now();
    let answer = site.get("/health/ready").ok()?;
    let health: Value = serde_json::from_slice(&answer.body).ok()?;
    if health["service"] != "control-plane" {
        return None;
    }
    let date = times::of_date(answer.date.as_deref()?)?;
    Some(times::skew(before, date, times::now()))
}

/// A difference in words; `None`: none that matters.
pub(super) fn apart(skew: Skew, whose: &str) -> Option<String> {
    match skew {
        Skew::Ahead(much) if much >= MUCH => Some(format!(
            "the clock of {whose} is {} ahead of this machine's",
            times::span_words(much)
        )),
        Skew::Behind(much) if much >= MUCH => Some(format!(
            "the clock of {whose} is {} behind this machine's",
            times::span_words(much)
        )),
        _ => None,
    }
}

fn clock(subjects: &Subjects, target: &Target) -> Option<Finding> {
    let patience = Patience::of(subjects.limit);
    // Why there is no way to it is told elsewhere. A time is no secret, and asked for without a token.
    let site = target.reach(None, patience).0?;
    let url = &target.url;
    let what = format!("the clock, beside {url}");
    let Some(skew) = skew_of(&site) else {
        if target.is_guess {
            return None;
        }
        let why = "no control plane there says what time it is";
        return Some(Finding::unknown(what, why, ""));
    };
    let Some(why) = apart(skew, url) else {
        let why = "both say the same time, to a few seconds";
        return Some(Finding::ok(what, why));
    };
    let (Skew::Ahead(much) | Skew::Behind(much)) = skew else {
        return None;
    };
    let next = "find out which of the two is wrong (`timedatectl`, `chronyc tracking`), and let both follow a time server";
    let refused = format!(
        "{why}; certificates that one of them just made are not yet valid for the other, or over too early: members refuse each \
         other from {} s on",
        SKEW.as_secs()
    );
    Some(match much >= SKEW.as_secs() {
        true => Finding::problem(what, refused, next),
        false => Finding::warning(what, why, next),
    })
}

/// What a document lets be open at once where somebody wrote that, and the line. A default is a bound, and nobody's wish.
fn wanted(paper: &Paper) -> Option<(u64, String)> {
    if let Some(document) = paper.plane() {
        let listeners = document.listeners.iter();
        let written = listeners.filter_map(|one| {
            let place = one.place(one.max_connections.at)?;
            Some((one.max_connections.value, place.to_string()))
        });
        let (largest, place) = written.max_by_key(|(count, _)| *count)?;
        // One to the client, one to the endpoint.
        return Some((largest.saturating_mul(2), place));
    }
    let connections = paper.control()?.server.max_connections;
    let written = connections != Server::default().max_connections;
    let connections = u64::try_from(connections).unwrap_or(u64::MAX);
    written.then(|| (connections, paper.name()))
}

fn open_files(subjects: &Subjects) -> Vec<Finding> {
    let limit = getrlimit(Resource::Nofile);
    let told =
        |limit: Option<u64>| limit.map_or_else(|| "any number".to_owned(), |n| n.to_string());
    let (soft, hard) = (told(limit.current), told(limit.maximum));
    let least = limit.current.unwrap_or(u64::MAX);
    let next = format!(
        "raise it where the service is started (`LimitNOFILE=` of systemd, `ulimit -n`; at most {hard} here), or lower \
         `max_connections`"
    );
    let mut found = Vec::new();
    for paper in &subjects.papers {
        let Some((wanted, place)) = wanted(paper) else {
            continue;
        };
        if wanted.saturating_add(SPARE) > least {
            let why = format!(
                "`max_connections` needs {wanted}, and a process that is started here may have {soft} open (ulimit -n): from there \
                 on nobody is accepted"
            );
            let what = format!("open files of {}", paper.name());
            found.push(Finding::warning(what, why, next.as_str()).at(Some(place)));
        }
    }
    if least < FEW {
        let why = format!(
            "a process that is started here may have {soft} open (ulimit -n), each connection one or two"
        );
        found.push(Finding::warning("open files", why, next.as_str()));
    }
    if found.is_empty() {
        let why = format!("{soft} may be open in a process that is started here");
        found.push(Finding::ok("open files", why));
    }
    found
}

/// The addresses that a document listens on, each with its line, by the port of which somebody else would be in the way.
fn addresses(paper: &Paper) -> Vec<(SocketAddr, String)> {
    if let Some(document) = paper.plane() {
        let listeners = document.listeners.iter();
        let listeners = listeners.map(|one| (one.bind, one.begins().to_string()));
        let admin = document.server.admin;
        return listeners
            .chain(admin.map(|admin| (admin, paper.name())))
            .collect();
    }
    let control = paper.control().map(|control| control.server.bind);
    control
        .map(|bind| (bind, paper.name()))
        .into_iter()
        .collect()
}

fn listened(subjects: &Subjects) -> Vec<Finding> {
    let listening = ports::listening();
    let mut wanted = Vec::new();
    for paper in &subjects.papers {
        for (address, place) in addresses(paper) {
            if address.port() != 0 {
                wanted.push((address, place, ports::on(&listening, address)));
            }
        }
    }
    let inodes: Vec<u64> = wanted.iter().filter_map(|(_, _, inode)| *inode).collect();
    let owners = ports::owners(&inodes);
    let mut found = Vec::new();
    let mut ours: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (address, place, inode) in wanted {
        let what = format!("port {address}");
        let Some(inode) = inode else {
            found.extend(free(address, place));
            continue;
        };
        match owners.get(&inode) {
            Some(pid) if is_ours(*pid) => {
                let all = ours.entry(ports::process(*pid)).or_default();
                all.push(address.to_string());
            }
            Some(pid) => {
                let why = format!(
                    "{} listens there, which is none of Tollgate's",
                    ports::process(*pid)
                );
                let next = "end it, or choose another address in this line";
                found.push(Finding::problem(what, why, next).at(Some(place)));
            }
            None => {
                let why = "somebody listens there, and this user may not see who";
                let next = "ask as root, or as the user that the service runs as";
                found.push(Finding::unknown(what, why, next).at(Some(place)));
            }
        }
    }
    let served = ours.into_iter().map(|(process, all)| {
        let why = format!("{process} listens there");
        Finding::ok(format!("ports {}", all.join(", ")), why)
    });
    found.extend(served);
    found
}

/// Whether a process is a program of ours, under whichever of their names.
fn is_ours(pid: u32) -> bool {
    ports::name_of(pid).is_some_and(|name| name.starts_with("tollgate"))
}

/// Nobody has it: whether it can be had.
fn free(address: SocketAddr, place: String) -> Option<Finding> {
    let what = format!("port {address}");
    let error = TcpListener::bind(address).err()?;
    let next = match error.kind() {
        std::io::ErrorKind::AddrNotAvailable => {
            "no interface of this machine has this address: correct the line, or bring the interface up"
        }
        std::io::ErrorKind::PermissionDenied => {
            "choose a port from 1024 on, or give the service CAP_NET_BIND_SERVICE"
        }
        _ => "choose another address in this line",
    };
    let why = format!("nobody listens there, and nobody like us may: {error}");
    Some(Finding::problem(what, why, next).at(Some(place)))
}

fn six(subjects: &Subjects) -> Vec<Finding> {
    let all = subjects.papers.iter().flat_map(addresses);
    let mut wanted = all.filter(|(address, _)| address.is_ipv6());
    let Some((address, place)) = wanted.next() else {
        return Vec::new();
    };
    let off = fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6");
    let is_off = off.is_ok_and(|text| text.trim() == "1");
    match TcpListener::bind("[::1]:0") {
        Ok(_) if !is_off => vec![Finding::ok("IPv6", "the kernel speaks it")],
        _ => {
            let why = format!("{address} is an IPv6 address, and this kernel does not speak IPv6");
            let next =
                "switch it on (sysctl net.ipv6.conf.all.disable_ipv6=0), or write an IPv4 address";
            vec![Finding::problem("IPv6", why, next).at(Some(place))]
        }
    }
}

/// Listeners that take what the kernel redirects.
fn redirected(subjects: &Subjects) -> Vec<Finding> {
    let planes = subjects.papers.iter().filter_map(Paper::plane);
    let mut captured = planes.flat_map(|document| &document.listeners);
    let Some(listener) = captured.find(|one| one.capture.value) else {
        return Vec::new();
    };
    let what = "redirected connections";
    let place = listener.place(listener.capture.at);
    let place = Some(place.unwrap_or_else(|| listener.begins()).to_string());
    let found = match capture::installed() {
        Ok(Some(by)) => {
            let by = match by {
                capture::By::Nft => "nft",
                capture::By::Iptables => "iptables",
            };
            Finding::ok(what, format!("the kernel has the rules, by {by}"))
        }
        Ok(None) => {
            let why = "a listener takes what is redirected, and the kernel has no rule of ours that would";
            Finding::warning(what, why, "tollgate-sidecar capture install FILE")
        }
        Err(capture::Error::NoProgram) => {
            let why = "a listener takes what is redirected, and neither `nft` nor `iptables` is here to ask for the rules";
            let next = "install nftables, unless the rules are made in another place, such as an init container";
            Finding::unknown(what, why, next)
        }
        Err(error) => Finding::unknown(what, error.to_string(), "ask as root"),
    };
    vec![found.at(place)]
}

fn memory(_: &Subjects) -> Vec<Finding> {
    let number = |file: &str| -> Option<u64> {
        let text = fs::read_to_string(format!("{CGROUP}/{file}")).ok()?;
        text.trim().parse().ok()
    };
    let (limit, used) = (number("memory.max"), number("memory.current"));
    let events = fs::read_to_string(format!("{CGROUP}/memory.events")).unwrap_or_default();
    let killed = events
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "));
    let killed: u64 = killed.and_then(|count| count.parse().ok()).unwrap_or(0);
    let Some(limit) = limit else {
        return vec![Finding::ok("memory", "no cgroup of this process limits it")];
    };
    let used = used.unwrap_or(0);
    let left = limit.saturating_sub(used).saturating_mul(100) / limit.max(1);
    let why = format!(
        "{} of {} MiB of this cgroup are used",
        used >> 20,
        limit >> 20
    );
    let next = "give it more, or lower `max_connections` and what is buffered";
    if killed > 0 {
        let why = format!("{why}, and the kernel has killed {killed} processes for it");
        vec![Finding::warning("memory", why, next)]
    } else if left < LITTLE {
        // Pages of files count, too, and are given back when they are wanted.
        vec![Finding::warning("memory", why, next)]
    } else {
        vec![Finding::ok("memory", why)]
    }
}
