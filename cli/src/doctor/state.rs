//! What a process keeps in its folder for the next one: whether it can be read and is whole, who may read it, who has it open, and
//! whether there is room for more. Takes no lock, and leaves what is damaged where it is.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use tollgate_control_plane::store::Embedded;
use tollgate_engine::identity;
use tollgate_engine::reload::control_plane::LastGood;

use super::files::secret;
use super::finding::Finding;
use super::ports;
use super::subjects::{Content, Paper};

/// Less room than this is told.
const LITTLE: u64 = 256 << 20;
/// And with less than this a write may fail any moment.
const NONE: u64 = 16 << 20;
/// Files of a folder that are looked at.
const MOST: usize = 1000;

/// What nobody else should read.
const SECRETS: [&str; 4] = ["identity", "identity.joining", "last_good", "store"];

pub(super) fn look(paper: &Paper) -> Vec<Finding> {
    let Some(folder) = paper.state_dir() else {
        return Vec::new();
    };
    let name = folder.display().to_string();
    if !folder.is_dir() {
        let why = "this folder is not there: nothing was kept yet";
        let next = format!(
            "it is made at the start; if {} has run before, look whether `server.state_dir` is the folder that it had",
            paper.name()
        );
        return match folder.exists() {
            true => vec![Finding::problem(name, "this is no folder", "name a folder")],
            false => vec![Finding::warning(name, why, next)],
        };
    }
    let mut found = vec![room(folder)];
    found.extend(aside(folder));
    let present = SECRETS.iter().map(|file| folder.join(file));
    let present = present.filter(|path| path.exists());
    found.extend(present.filter_map(|path| secret(&path, &paper.name())));
    match &paper.content {
        Content::Plane(_) => found.extend(of_plane(folder)),
        Content::Control(_) => found.extend(of_control(folder)),
        Content::Refused(_) | Content::Hangs => {}
    }
    found
}

fn room(folder: &Path) -> Finding {
    let name = folder.display().to_string();
    let about = match rustix::fs::statvfs(folder) {
        Ok(about) => about,
        Err(error) => {
            let why = format!("the kernel does not say how much room there is: {error}");
            return Finding::unknown(name, why, "");
        }
    };
    let free = about.f_bavail.saturating_mul(about.f_frsize);
    let why = format!("{} MiB are free on its disk", free >> 20);
    let next = "make room: what is learned and registered is not kept once a write fails";
    if free < NONE {
        Finding::problem(name, why, next)
    } else if free < LITTLE {
        Finding::warning(name, why, next)
    } else if about.f_files > 0 && about.f_favail == 0 {
        Finding::problem(name, "its file system can hold no more files", next)
    } else {
        Finding::ok(name, why)
    }
}

/// What a process found damaged, and moved out of its way.
fn aside(folder: &Path) -> Vec<Finding> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.take(MOST).map(|entry| entry.path());
    let aside = paths.filter(|path| {
        let extension = path
            .extension()
            .map(|extension| extension.to_string_lossy());
        extension.is_some_and(|extension| extension == "damaged" || extension == "torn")
    });
    let told = aside.map(|path| {
        let why =
            "a process found this damaged when it started, put it aside, and began without it";
        let next =
            "look why (a full disk, a broken one, a copy that was cut); then it can be removed";
        Finding::warning(path.display().to_string(), why, next)
    });
    told.collect()
}

fn of_plane(folder: &Path) -> Vec<Finding> {
    let file = folder.join("last_good");
    let name = file.display().to_string();
    let last_good = match LastGood::new(folder).look() {
        Ok(None) => None,
        Ok(Some(known)) => {
            let why = format!(
                "whole: revision {}, epoch {}",
                known.revision(),
                known.epoch()
            );
            Some(Finding::ok(name, why))
        }
        Err(why) => {
            let why = format!("what served last is of no use: {why}");
            let next = "while a control plane answers, it is written anew; a start without one would serve nothing of it. Remove the \
                        file, or restore it from a copy";
            Some(Finding::problem(name, why, next))
        }
    };
    let file = folder.join("identity");
    let identity = identity::left(folder).err().map(|why| {
        let why = format!("the certificate that was kept is of no use: {why}");
        let next = "where a process holds it in memory, its next renewal writes it anew; else make a new join token: tollgate identity \
                    token --service NAME";
        Finding::problem(file.display().to_string(), why, next)
    });
    last_good.into_iter().chain(identity).collect()
}

fn of_control(folder: &Path) -> Vec<Finding> {
    let holder = holder(&Embedded::lock_of(folder));
    let held = match &holder {
        Some(holder) => format!("; {holder} has it open"),
        None => "; no process has it open".to_owned(),
    };
    let name = folder.join("store").display().to_string();
    match Embedded::glance(folder) {
        Ok(None) => Vec::new(),
        Ok(Some(store)) if store.torn > 0 && holder.is_none() => {
            let why = format!("{} bytes at its end are no whole record{held}", store.torn);
            let next = "nothing is to be done: a crash cut a write that nobody was told had been made, and the next start puts it aside";
            vec![Finding::warning(name, why, next)]
        }
        Ok(Some(store)) => {
            let (revision, keys, bytes) = (store.revision, store.keys, store.bytes);
            let why = format!("whole: {keys} keys at revision {revision}, {bytes} bytes{held}");
            vec![Finding::ok(name, why)]
        }
        Err(error) => vec![Finding::problem(name, format!("{error}{held}"), "")],
    }
}

/// The process that holds a lock on this file, as the kernel tells it.
fn holder(file: &Path) -> Option<String> {
    let inode = std::fs::metadata(file).ok()?.ino().to_string();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let pid = locks.lines().find_map(|line| locked(line, &inode))?;
    Some(ports::process(pid))
}

/// `1: FLOCK  ADVISORY  WRITE 42 fe:00:1234 0 EOF`: which process has locked this inode.
fn locked(line: &str, inode: &str) -> Option<u32> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, "FLOCK", _, _, pid, file, ..] = words[..] else {
        return None;
    };
    (file.rsplit(':').next() == Some(inode)).then(|| pid.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_who_holds_a_lock() {
        let line = "1: FLOCK  ADVISORY  WRITE 42 fe:00:1234 0 EOF";
        assert_eq!(locked(line, "1234"), Some(42));
        assert_eq!(locked(line, "234"), None);
        assert_eq!(locked("1: -> POSIX", "1234"), None);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let file = std::fs::File::create(&path).unwrap();
        assert_eq!(holder(&path), None);
        file.lock().unwrap();
        let own = format!("pid {}", std::process::id());
        assert!(holder(&path).unwrap().contains(&own));
    }
}
