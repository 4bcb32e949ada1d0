//! A PostgreSQL server for tests: in a temporary folder, reached over a socket in that folder, gone with the last test
//! that holds it. It does not run as root, so root runs it as `nobody`.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());

/// A server that runs.
pub(crate) struct Server {
    folder: tempfile::TempDir,
    programs: PathBuf,
    process: Child,
    databases: AtomicU32,
}

/// The one that the tests of this program share; `None`, said aloud, where there is no PostgreSQL.
pub(crate) fn server() -> Option<Arc<Server>> {
    let mut shared = SHARED
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(server) = shared.upgrade() {
        return Some(server);
    }
    let Some(programs) = programs() else {
        eprintln!("skipped: PostgreSQL is not on this machine");
        return None;
    };
    let server = Arc::new(Server::start(programs));
    *shared = Arc::downgrade(&server);
    Some(server)
}

/// Where all the programs are that this needs: the newest of Debian's folders, or one of `PATH`.
fn programs() -> Option<PathBuf> {
    let mut folders: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    folders.sort();
    folders.reverse();
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&path));
    let needed = ["initdb", "postgres", "pg_isready", "createdb"];
    folders
        .into_iter()
        .find(|folder| needed.iter().all(|program| folder.join(program).exists()))
}

/// The program, as somebody who is not root.
fn humble(program: &Path) -> Command {
    if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"])
            .arg(program);
        command
    } else {
        Command::new(program)
    }
}

impl Server {
    fn start(programs: PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if rustix::process::geteuid().is_root() {
            let owned = Command::new("chown")
                .arg("nobody:nogroup")
                .arg(folder.path())
                .status();
            assert!(owned.unwrap().success());
        }
        let data = folder.path().join("data");
        let made = humble(&programs.join("initdb"))
            .args([
                "--no-sync",
                "--auth=trust",
                "--username=shop",
                "--encoding=UTF8",
                "--locale=C",
                "--pgdata",
            ])
            .arg(&data)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .status();
        assert!(made.unwrap().success(), "initdb failed");
        let process = humble(&programs.join("postgres"))
            .args([
                "-c",
                "fsync=off",
                "-c",
                "listen_addresses=",
                "-c",
                "max_connections=300",
                "-c",
            ])
            .arg(format!(
                "unix_socket_directories={}",
                folder.path().display()
            ))
            .arg("-D")
            .arg(&data)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let server = Self {
            folder,
            programs,
            process,
            databases: AtomicU32::new(0),
        };
        let up = || {
            let asked = Command::new(server.programs.join("pg_isready"))
                .arg("--timeout=1")
                .arg("--host")
                .arg(server.folder.path())
                .stdout(Stdio::null())
                .status();
            asked.is_ok_and(|status| status.success())
        };
        let begun = std::time::Instant::now();
        while !up() {
            assert!(
                begun.elapsed() < super::shop::PATIENCE,
                "PostgreSQL does not start"
            );
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        }
        server
    }

    /// The address of a new, empty database.
    pub(crate) fn database(&self) -> String {
        let name = format!("shop{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let made = Command::new(self.programs.join("createdb"))
            .args(["--username=shop", "--host"])
            .arg(self.folder.path())
            .arg(&name)
            .status();
        assert!(made.unwrap().success(), "createdb failed");
        format!(
            "postgres://shop@localhost/{name}?host={}",
            self.folder.path().display()
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // At once, with everything of it removed: nobody needs these data again.
        if let Some(pid) = rustix::process::Pid::from_raw(self.process.id() as i32) {
            rustix::process::kill_process(pid, rustix::process::Signal::QUIT).ok();
        }
        self.process.wait().ok();
    }
}
