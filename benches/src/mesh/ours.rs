//! Ours: a control plane, which is authority and registry, and sidecars beside services, told with short files.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::pair::{CALLER, dependency};
use super::{Ours, Stage, free};
use crate::fleet::{Caller, Plane, Program, expect};
use crate::load::get;
use crate::thread;

/// How long anything may take to begin.
pub(super) const START: Duration = Duration::from_secs(20);

/// What a sidecar is asked to be.
#[derive(Debug, Clone)]
pub(super) struct Beside {
    pub(super) service: String,
    /// Where its application listens.
    pub(super) app: SocketAddr,
    /// Services that its file names, as addresses of their own.
    pub(super) ports: Vec<(SocketAddr, String)>,
    /// Mutual TLS, access rules, a limit, metrics and a log of every request; or none of it.
    pub(super) policy: bool,
    /// Whatever crosses it is bytes.
    pub(super) bytes: bool,
    pub(super) core: usize,
}

/// A control plane and its folder.
pub(super) struct Fleet {
    plane: Plane,
    programs: Ours,
    _folder: TempDir,
}

impl Fleet {
    pub(super) fn start(stage: &Stage<'_>, programs: &Ours) -> io::Result<Fleet> {
        let folder = TempDir::new_in(stage.folder.path())?;
        // Nobody that is registered and silent shall leave while it is measured.
        let settings = "[registry]\nsuspect_after = \"1h\"\nservice_timeout = \"2h\"\n";
        let plane = thread::pinned(stage.settings.load_core, || {
            Plane::start(&programs.control_plane, folder.path(), settings)
        })??;
        Ok(Fleet {
            plane,
            programs: programs.clone(),
            _folder: folder,
        })
    }

    /// The control plane's address.
    pub(super) fn address(&self) -> SocketAddr {
        self.plane.address
    }

    /// A connection to the control plane; an idle one would be closed.
    pub(super) fn control(&self) -> io::Result<Caller> {
        Caller::to(self.plane.address)
    }

    /// A proof that who shows it is this service; good once.
    pub(super) fn token(&self, service: &str) -> io::Result<String> {
        let body = json!({ "service": service }).to_string();
        let answer = self.control()?.ask("POST", "/identity/token", &body)?;
        expect(&answer, 200)?;
        let told: Value = serde_json::from_str(&answer.1).map_err(io::Error::other)?;
        let token = told["token"].as_str().map(str::to_owned);
        token.ok_or_else(|| io::Error::other(format!("no token: {}", answer.1)))
    }

    /// Starts a sidecar and waits until it is ready and, where it has an application, announced.
    pub(super) async fn sidecar(&self, beside: &Beside) -> io::Result<Sidecar> {
        let folder = TempDir::with_prefix("tollgate-mesh-")?;
        let [admin, inbound, outbound] = free()?;
        let token = folder.path().join("token");
        if beside.policy {
            fs::write(&token, self.token(&beside.service)?)?;
        }
        let doors = [admin, inbound, outbound];
        let text = document(beside, self.address(), &token, doors);
        let file = folder.path().join("sidecar.toml");
        fs::write(&file, text)?;
        let sidecar = Sidecar {
            program: start(&self.programs, &file, beside.core)?,
            programs: self.programs.clone(),
            core: beside.core,
            file,
            admin,
            inbound,
            outbound,
            _folder: folder,
        };
        sidecar.ready().await?;
        self.announced(&beside.service).await?;
        Ok(sidecar)
    }

    /// Starts so many services, each with a sidecar beside it, for others to depend on.
    pub(super) async fn dependencies(
        &self,
        stage: &Stage<'_>,
        count: usize,
    ) -> io::Result<Vec<Sidecar>> {
        let mut all = Vec::with_capacity(count);
        for number in 0..count {
            let beside = Beside {
                service: dependency(number),
                app: stage.upstream.http1,
                ports: Vec::new(),
                policy: true,
                bytes: false,
                core: stage.settings.sidecar_core,
            };
            all.push(self.sidecar(&beside).await?);
        }
        Ok(all)
    }

    /// A sidecar that names nobody whom it will call.
    pub(super) async fn caller(&self, stage: &Stage<'_>) -> io::Result<Sidecar> {
        let beside = Beside {
            service: CALLER.to_owned(),
            app: stage.upstream.http1,
            ports: Vec::new(),
            policy: true,
            bytes: false,
            core: stage.settings.sidecar_core,
        };
        self.sidecar(&beside).await
    }

    /// Waits until somebody is registered for the service.
    async fn announced(&self, service: &str) -> io::Result<()> {
        let began = Instant::now();
        let (path, mut control) = (format!("/services/{service}"), self.control()?);
        loop {
            let (_, answer) = control.ask("GET", &path, "")?;
            if answer.contains("\"address\"") {
                return Ok(());
            }
            if began.elapsed() > START {
                return Err(io::Error::other(format!(
                    "{service} is not announced: {answer}"
                )));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A sidecar that runs; it ends with this.
pub(super) struct Sidecar {
    program: Program,
    programs: Ours,
    core: usize,
    pub(super) file: PathBuf,
    admin: SocketAddr,
    pub(super) inbound: SocketAddr,
    pub(super) outbound: SocketAddr,
    _folder: TempDir,
}

impl Sidecar {
    pub(super) fn id(&self) -> u32 {
        self.program.id()
    }

    /// Waits until it says that it is ready.
    async fn ready(&self) -> io::Result<()> {
        let began = Instant::now();
        while get(self.admin, "/ready")
            .await
            .map_or(true, |got| got.status != 200)
        {
            if began.elapsed() > START {
                let log = fs::read_to_string(self.file.with_extension("log")).unwrap_or_default();
                return Err(io::Error::other(format!(
                    "a sidecar is not ready; it says:\n{log}"
                )));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Ends it, and starts it again with what it has kept.
    pub(super) fn restart(&mut self) -> io::Result<()> {
        self.program.end()?;
        self.program = start(&self.programs, &self.file, self.core)?;
        Ok(())
    }
}

fn start(programs: &Ours, file: &Path, core: usize) -> io::Result<Program> {
    let log = fs::File::create(file.with_extension("log"))?;
    // Not beside the document: whoever follows that would be woken by each line.
    let apart = file.with_extension("out");
    fs::create_dir_all(&apart)?;
    let lines = fs::File::create(apart.join("lines"))?;
    let mut command = Command::new(&programs.sidecar);
    command
        .arg("run")
        .arg(file)
        .current_dir(file.parent().unwrap_or(file))
        .stdin(Stdio::null())
        .stdout(lines)
        .stderr(log);
    thread::pinned(core, || Program::start(&mut command))?
}

/// The short file.
#[expect(
    clippy::let_underscore_must_use,
    reason = "writing to a string cannot fail"
)]
fn document(
    beside: &Beside,
    plane: SocketAddr,
    token: &Path,
    [admin, inbound, outbound]: [SocketAddr; 3],
) -> String {
    let Beside { service, app, .. } = beside;
    let mut text = format!(
        "[server]\nadmin = \"{admin}\"\nworkers = 1\n\
         [service]\nname = \"{service}\"\napp = \"{app}\"\nprotocol = \"{}\"\n\
         [control_plane]\nurls = [\"http://{plane}\"]\n\
         [outbound]\nbind = \"{outbound}\"\n",
        if beside.bytes { "tcp" } else { "http1" },
    );
    for (listen, service) in &beside.ports {
        let protocol = if beside.bytes { "tcp" } else { "auto" };
        let _ = writeln!(
            text,
            "[[outbound.port]]\nlisten = \"{listen}\"\nservice = \"{service}\"\nprotocol = \"{protocol}\""
        );
    }
    let _ = writeln!(text, "[inbound]\nbind = \"{inbound}\"");
    if !beside.policy {
        text.push_str("[telemetry]\naccess_log = \"off\"\n");
        return text;
    }
    if !beside.bytes {
        text.push_str("access = \"enforce\"\nlimit = \"1000000/s\"\n");
    }
    let token = token.display();
    let _ = write!(
        text,
        "[identity]\ntoken = \"${{file:{token}}}\"\n\
         [[access]]\nname = \"callers\"\nfrom = [\"{CALLER}\"]\n"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loader reads what the benchmark writes; a key that changes its meaning is noticed here and not in a figure.
    #[test]
    fn a_sidecar_reads_its_short_file() {
        let any = SocketAddr::from(([127, 0, 0, 1], 9));
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        fs::write(&token, "join-0123456789abcdef").unwrap();
        for (policy, bytes) in [(true, false), (false, true), (true, true)] {
            let beside = Beside {
                service: "orders".into(),
                app: any,
                ports: vec![(([127, 0, 0, 1], 10).into(), "products".into())],
                policy,
                bytes,
                core: 0,
            };
            let doors = [11, 12, 13].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
            let text = document(&beside, any, &token, doors);
            let file = folder.path().join("sidecar.toml");
            fs::write(&file, &text).unwrap();
            let read = tollgate_config::Loader::new().short().load(&file);
            read.unwrap_or_else(|problems| panic!("{problems:?}\n{text}"));
        }
    }
}
