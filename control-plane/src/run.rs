//! One control plane from its start to its end: opens the store, restores the registry, serves, follows signals.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tollgate_config::control_plane::{ControlPlane, Store as Where, load, warnings};
use tollgate_engine::drain::DrainReport;
use tollgate_engine::net::tls::{ServerTls, TlsError};
use tollgate_engine::process::{Request, Signals, exit, exit_code_of_bind};
use tollgate_engine::telemetry::log;

use crate::access::Access;
use crate::api::Api;
use crate::api::elsewhere::hand_signs_on;
use crate::api::peers::Peers;
use crate::audit::{self, Audit};
use crate::authority::{self, Authority, NotStarted, Unusable};
use crate::catalog::{Catalog, files};
use crate::feed::Feed;
use crate::keeper::Keeper;
use crate::lending::Lending;
use crate::registry::Rules;
use crate::rollout::Rollouts;
use crate::store::EtcdError;
use crate::store::{Embedded, OpenError, Store, StoreError};

/// Where the settings come from, and what the process does by itself.
#[derive(Debug, Default)]
pub struct Options {
    /// Read again on SIGHUP.
    pub file: Option<PathBuf>,
    /// Stop on SIGTERM and SIGINT. One per process.
    pub signals: bool,
}

/// A control plane that serves, on a thread of its own.
pub struct Running {
    pub address: SocketAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
    stop: watch::Sender<bool>,
    thread: JoinHandle<DrainReport>,
}

impl Running {
    /// Begins to drain; [`Running::wait`] tells when that is done.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits for the end.
    pub fn wait(self) -> DrainReport {
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Why a control plane does not start.
#[derive(Debug)]
pub enum StartError {
    Store(OpenError),
    Etcd(EtcdError),
    Read(StoreError),
    /// The authority's key, in files.
    Identity(Unusable),
    Audit(io::Error),
    Tls(TlsError),
    PeersTls(TlsError),
    Bind(SocketAddr, io::Error),
    Other(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Store(error) => write!(f, "{error}"),
            StartError::Etcd(error) => write!(f, "{error}"),
            StartError::Read(error) => write!(f, "{error}"),
            StartError::Identity(why) => {
                write!(
                    f,
                    "the authority's key in `[identity]` cannot be used: {why}"
                )
            }
            StartError::Audit(error) => write!(f, "the audit log cannot be written: {error}"),
            StartError::Tls(error) => write!(f, "`server.tls` cannot be used: {error}"),
            StartError::PeersTls(error) => write!(f, "`store.peers` cannot be used: {error}"),
            StartError::Bind(address, error) => write!(f, "cannot listen on {address}: {error}"),
            StartError::Other(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl StartError {
    pub fn exit_code(&self) -> ExitCode {
        match self {
            StartError::Bind(_, error) => exit_code_of_bind(error),
            StartError::Tls(_) | StartError::PeersTls(_) | StartError::Identity(_) => {
                ExitCode::from(exit::BAD_DOCUMENT)
            }
            _ => ExitCode::from(exit::FAILURE),
        }
    }
}

/// Opens the store that the document names. `address` is where this process will be reached.
fn open(document: &ControlPlane, address: SocketAddr) -> Result<Arc<dyn Store>, StartError> {
    match &document.store {
        Where::Embedded => {}
        Where::Etcd(etcd) => {
            let node = etcd.node.clone();
            let node = node.unwrap_or_else(|| format!("{}-{}", machine(), address.port()));
            let url = etcd.advertise.clone();
            let scheme = match document.server.tls {
                Some(_) => "https",
                None => "http",
            };
            let url = url.unwrap_or_else(|| format!("{scheme}://{address}"));
            let store = crate::store::Etcd::open(etcd, &node, &url).map_err(StartError::Etcd)?;
            return Ok(Arc::new(store));
        }
    }
    let store = match &document.server.state_dir {
        Some(folder) => Embedded::open(folder).map_err(StartError::Store)?,
        None => Embedded::in_memory(),
    };
    if store.torn > 0 {
        log::warn(
            "the store ended in the middle of a write that nobody was told of; it was put aside as store.torn",
            &[("bytes", &store.torn)],
        );
    }
    Ok(Arc::new(store))
}

/// How the other control planes are reached.
fn peers(document: &ControlPlane) -> Result<Peers, TlsError> {
    match &document.store {
        Where::Etcd(etcd) => Peers::new(etcd.peers.as_ref()),
        Where::Embedded => Ok(Peers::default()),
    }
}

/// A socket that has its address and is not served yet: whoever comes early is refused, and asks elsewhere.
fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Starts, and returns when it serves.
pub fn start(document: ControlPlane, options: Options) -> Result<Running, StartError> {
    let tls = document.server.tls.as_ref().map(crate::tls::load);
    let tls = tls.transpose().map_err(StartError::Tls)?;
    let peers = peers(&document).map_err(StartError::PeersTls)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Other)?;
    let wanted = document.server.bind;
    let not_bound = |error| StartError::Bind(wanted, error);
    let socket = runtime
        .block_on(async { bind(wanted) })
        .map_err(not_bound)?;
    let address = socket.local_addr().map_err(StartError::Other)?;
    let store = open(&document, address)?;
    let folder = document
        .server
        .state_dir
        .as_ref()
        .map(|dir| dir.join("audit"));
    let audit = Audit::start(folder, document.audit.clone()).map_err(StartError::Audit)?;
    let listener = runtime
        .block_on(async { socket.listen(1024) })
        .map_err(not_bound)?;
    let (stop, stopped) = watch::channel(false);
    let (started, has_started) = std::sync::mpsc::channel();
    let signal = stop.clone();
    let thread = std::thread::Builder::new()
        .name("control-plane".to_owned())
        .spawn(move || {
            runtime.block_on(async move {
                let house = House {
                    document,
                    options,
                    store,
                    audit: Arc::new(audit),
                    tls,
                    peers,
                };
                house.live(listener, signal, stopped, &started).await
            })
        })
        .map_err(StartError::Other)?;
    match has_started.recv() {
        Ok(Ok(())) => Ok(Running {
            address,
            scheme,
            stop,
            thread,
        }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(StartError::Other(io::Error::other(
            "the process died at its start",
        ))),
    }
}

struct House {
    document: ControlPlane,
    options: Options,
    store: Arc<dyn Store>,
    audit: Arc<Audit>,
    tls: Option<ServerTls>,
    peers: Peers,
}

impl House {
    async fn live(
        self,
        listener: TcpListener,
        stop: watch::Sender<bool>,
        stopped: watch::Receiver<bool>,
        started: &std::sync::mpsc::Sender<Result<(), StartError>>,
    ) -> DrainReport {
        let server = &self.document.server;
        // From here on no signal ends the process by itself.
        let signals = match self.options.signals {
            true => Signals::new().map(Some),
            false => Ok(None),
        };
        let rules = rules(&self.document);
        let kept = Keeper::start(self.store.clone(), self.audit.clone(), rules).await;
        let catalog = Catalog::start(
            self.store.clone(),
            self.document.catalog.clone(),
            self.document.rollout.clone(),
        )
        .await;
        // The next one that leads lends, too; whoever begins then does not know what was lent.
        let lasting = server.state_dir.is_some() && self.store.cluster().is_none();
        let lending = Lending::start(self.store.clone(), lasting).await;
        let identity = self.document.identity.clone();
        let authority = Authority::start(self.store.clone(), self.audit.clone(), identity).await;
        let authority = authority.map_err(|why| match why {
            NotStarted::Store(error) => StartError::Read(error),
            NotStarted::Files(why) => StartError::Identity(why),
        });
        let mut result = match (&signals, &kept, &catalog) {
            (Err(error), ..) => Err(StartError::Other(io::Error::new(
                error.kind(),
                error.to_string(),
            ))),
            (_, Err(error), _) | (.., Err(error)) => Err(StartError::Read(error.clone())),
            _ => lending
                .as_ref()
                .map(|_| ())
                .map_err(|error| StartError::Read(error.clone())),
        };
        let authority = match authority {
            Ok(authority) => Some(authority),
            Err(why) => {
                result = result.and(Err(why));
                None
            }
        };
        let good = result.is_ok();
        // Whoever starts us waits for this.
        drop(started.send(result));
        let (
            Ok(signals),
            Ok((keeper, tasks)),
            Ok(catalog),
            Ok(lending),
            Some((authority, signing)),
            true,
        ) = (signals, kept, catalog, lending, authority, good)
        else {
            return tollgate_engine::drain::Ledger::default().report(std::time::Duration::ZERO);
        };
        let feed = self.document.feed.clone();
        let name = match self.store.cluster() {
            Some(cluster) => cluster.node.to_string(),
            None => machine(),
        };
        let (feed, feeding) = Feed::start(
            catalog.clone(),
            keeper.clone(),
            authority.changes(),
            feed,
            name,
        );
        let shared = self.store.cluster().is_some();
        let sharing = shared.then(|| tokio::spawn(catalog.clone().follow()));
        let (rollouts, rolling) =
            Rollouts::start(catalog.clone(), feed.clone(), self.audit.clone());
        let following = self.document.catalog.folder.clone();
        let following =
            following.map(|folder| tokio::spawn(files::follow(catalog.clone(), folder)));
        let noting = tokio::spawn(audit::follow(self.audit.clone(), catalog.clone()));
        // Files are looked at by the task, connections take what it found.
        let tls = self.tls.map(|tls| Arc::new(watch::Sender::new(tls)));
        let certificates = { tls.as_ref().zip(server.tls.clone()) }
            .map(|(serves, tls)| tokio::spawn(crate::tls::follow(tls, serves.clone())));
        let api = Arc::new(Api::new(
            keeper.clone(),
            self.audit.clone(),
            self.store.clone(),
            catalog,
            (feed.clone(), lending, rollouts),
            (Arc::new(Access::new(&self.document.tokens)), authority),
            server.bind.ip().is_loopback(),
            (server.max_body, self.document.catalog.max_change),
            self.peers,
        ));
        let handing_on = tokio::spawn(hand_signs_on(api.clone()));
        let follow = follow(
            signals,
            &stop,
            &api,
            self.options.file.as_deref(),
            &self.document,
        );
        let mut ready = stopped.clone();
        let report = {
            let tls = tls.as_ref().map(|tls| tls.subscribe());
            let serve = crate::server::serve(listener, api.clone(), server, tls, stopped);
            let mut serve = std::pin::pin!(serve);
            let mut follow = std::pin::pin!(follow);
            loop {
                tokio::select! {
                    report = &mut serve => break report,
                    now = &mut follow => if now { break cut(&api) },
                    _ = ready.wait_for(|stop| *stop), if api.is_ready() => {
                        api.ready.store(false, Ordering::Release);
                        // They would never end by themselves; nodes go on with what they have, or elsewhere.
                        feed.stop();
                        self.store.resign();
                    }
                }
            }
        };
        for task in [
            following,
            sharing,
            certificates,
            Some(noting),
            Some(handing_on),
        ]
        .into_iter()
        .flatten()
        {
            task.abort();
        }
        rolling.abort();
        drop((tasks, feeding, signing));
        report
    }
}

/// The machine's name.
fn machine() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name
        .trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect();
    match name.is_empty() {
        true => "control-plane".to_owned(),
        false => name,
    }
}

/// A second signal: nobody is waited for.
fn cut(api: &Api) -> DrainReport {
    let ledger = tollgate_engine::drain::Ledger::default();
    let open = api.connections.load(Ordering::Relaxed);
    (0..open).for_each(|_| ledger.accepted());
    (0..open).for_each(|_| ledger.finished());
    ledger.cut(open);
    ledger.report(std::time::Duration::ZERO)
}

/// Follows the signals; returns when a second one says: now.
async fn follow(
    signals: Option<Signals>,
    stop: &watch::Sender<bool>,
    api: &Api,
    file: Option<&Path>,
    started_with: &ControlPlane,
) -> bool {
    let Some(mut signals) = signals else {
        return std::future::pending().await;
    };
    loop {
        match signals.next().await {
            Request::Stop if *stop.borrow() => return true,
            Request::Stop => {
                stop.send_replace(true);
            }
            Request::Reload => reload(api, file, started_with),
        }
    }
}

/// Takes over the settings that can change while it runs.
fn reload(api: &Api, file: Option<&Path>, started_with: &ControlPlane) {
    let Some(file) = file else {
        log::warn("there is no document to read again", &[]);
        return;
    };
    match load(file) {
        Ok(document) => {
            api.keeper.change(rules(&document));
            api.audit.change(document.audit.clone());
            // The address stays what it was at start, whatever the document says now.
            match document.tokens.is_empty() && !started_with.server.bind.ip().is_loopback() {
                true => log::error(
                    "the document has no token any more, but other machines reach this address: the former tokens stay",
                    &[],
                ),
                false => api.access.change(&document.tokens),
            }
            warned(&document);
            log::info("the document was read again", &[]);
            for (section, same) in [
                ("server", document.server == started_with.server),
                ("store", document.store == started_with.store),
                ("catalog", document.catalog == started_with.catalog),
                ("feed", document.feed == started_with.feed),
                ("rollout", document.rollout == started_with.rollout),
                ("identity", document.identity == started_with.identity),
            ] {
                if !same {
                    let words = "a section has changed that needs a restart";
                    log::warn(words, &[("section", &section)]);
                }
            }
        }
        Err(problems) => log::error(
            "the document was refused; the former settings stay",
            &[("problems", &problems)],
        ),
    }
}

fn warned(document: &ControlPlane) {
    for warning in warnings(document) {
        log::warn(&warning, &[]);
    }
}

fn rules(document: &ControlPlane) -> Rules {
    Rules {
        lifecycle: document.registry.clone(),
        probe: document.probe.clone(),
    }
}

/// `run`.
pub(crate) fn run(file: Option<PathBuf>) -> ExitCode {
    log::come_from("control-plane");
    let document = match file.as_deref().map(load) {
        None => ControlPlane::default(),
        Some(Ok(document)) => document,
        Some(Err(problems)) => return refused(&problems),
    };
    let options = Options {
        file,
        signals: true,
    };
    warned(&document);
    let running = match start(document, options) {
        Ok(running) => running,
        Err(error) => {
            eprintln!("{error}");
            return error.exit_code();
        }
    };
    eprintln!(
        "serving on {}://{} (register, services, health, metrics)",
        running.scheme, running.address
    );
    let report = running.wait();
    eprintln!("stopped: {report}");
    ExitCode::from(if report.cut == 0 { exit::OK } else { exit::CUT })
}

/// Whether the files that a document names are what a start needs.
pub fn look_over(document: &ControlPlane) -> Result<(), StartError> {
    let tls = document.server.tls.as_ref().map(crate::tls::load);
    tls.transpose().map_err(StartError::Tls)?;
    peers(document).map_err(StartError::PeersTls)?;
    authority::check(&document.identity).map_err(StartError::Identity)?;
    Ok(())
}

/// `check`.
pub(crate) fn check(file: &Path) -> ExitCode {
    match load(file) {
        Ok(document) => {
            if let Err(error) = look_over(&document) {
                eprintln!("{}: {error}", file.display());
                return ExitCode::from(exit::BAD_DOCUMENT);
            }
            for warning in warnings(&document) {
                eprintln!("{}: warning: {warning}", file.display());
            }
            println!("{}: good", file.display());
            ExitCode::SUCCESS
        }
        Err(problems) => refused(&problems),
    }
}

fn refused(problems: &tollgate_config::Problems) -> ExitCode {
    eprintln!("{problems}");
    ExitCode::from(exit::BAD_DOCUMENT)
}
