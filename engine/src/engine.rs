//! The one file that builds everything: binds all sockets, then serves. `Engine::start` returns a running proxy or
//! the reason why not; nothing half-started is left behind.

mod changes;
mod conductor;
mod ending;
mod handing;
mod learning;
mod running;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::Instant;

use tokio::sync::{mpsc, watch};
use tollgate_config::{Document, Loader, Problems};

use crate::drain::Ledger;
use crate::identity;
use crate::net::accept;
use crate::net::handover::{Handed, Kind, Taken};
use crate::process;
use crate::reload::control_plane::{self, Beginning};
use crate::reload::inputs::Inputs;
use crate::reload::learned::Learned;
use crate::reload::place::Place;
use crate::reload::{Origin, Reloader};
use crate::server::workers::{Common, Workers};
use crate::snapshot::Snapshot;
use crate::snapshot::compile::compile;
use crate::snapshot::memory::Memory;
use crate::snapshot::proof::prove;
use crate::snapshot::store::Store;
use crate::state::State;
use crate::telemetry::access::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::spans::Spans;
use crate::transcode::Reflected;
use crate::upstream::learning::Learning;
use conductor::{Left, control};
pub use running::{Handle, Running};

#[derive(Default)]
pub struct Options {
    /// Reads the document, now and at every reload.
    pub loader: Loader,
    /// Listen to SIGTERM, SIGINT and SIGHUP; only the program's own process should.
    pub signals: bool,
    /// Reload when the document's files change.
    pub watch: bool,
    /// Offer the sockets to a successor, and take a predecessor's over if there is one.
    pub handover: bool,
    /// What a predecessor handed over.
    pub taken: Option<Taken>,
    /// Who decides how to stop when the admin address is asked to (`POST /drain`). `None`: it simply does.
    pub drain_asked: Option<watch::Sender<bool>>,
}

#[derive(Debug)]
pub enum StartError {
    Problems(Problems),
    /// A socket could not be bound.
    Bind {
        what: String,
        address: SocketAddr,
        error: std::io::Error,
    },
    Io(std::io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartError::Problems(problems) => problems.fmt(f),
            StartError::Bind {
                what,
                address,
                error,
            } => {
                write!(
                    f,
                    "{what}: cannot bind {address}: {error}; choose a free address, stop what uses it, or take it over with `upgrade`"
                )
            }
            StartError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl StartError {
    /// The exit code that tells this apart.
    pub fn exit_code(&self) -> u8 {
        match self {
            StartError::Problems(_) => process::exit::BAD_DOCUMENT,
            StartError::Bind { .. } => process::exit::ADDRESS_IN_USE,
            StartError::Io(_) => process::exit::FAILURE,
        }
    }
}

pub struct Engine;

impl Engine {
    pub fn start(path: &Path, options: Options) -> Result<Running, StartError> {
        Self::start_origin(Origin::File(path.to_owned()), options)
    }

    /// Starts on a document that has no file.
    pub fn start_document(document: Document, options: Options) -> Result<Running, StartError> {
        Self::start_origin(Origin::Fixed(Box::new(document)), options)
    }

    fn start_origin(origin: Origin, mut options: Options) -> Result<Running, StartError> {
        let started = Instant::now();
        let mut loader = std::mem::take(&mut options.loader);
        let file = origin.load(&mut loader).map_err(StartError::Problems)?;
        let count = file.server.workers.unwrap_or_else(|| {
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
        });
        let metrics = Arc::new(Metrics::new(count));
        let mut memory = Memory::default();
        let mut state = None;
        if let Some(folder) = &file.server.state_dir {
            let limits;
            (state, limits) = State::open(folder);
            memory.limits = Arc::new(limits);
            memory.reflected = Arc::new(Reflected::kept_in(folder));
        }
        let mut learned = Learned::open(file.server.state_dir.as_deref());
        // Nobody is asked: what an earlier process left makes us a member before the first connection.
        let membership = identity::restore(
            file.identity.as_ref(),
            file.server.state_dir.as_deref(),
            &memory.member,
        );
        let services = memory.services.clone();
        let Beginning {
            pair,
            document,
            snapshot: first,
            restored,
        } = control_plane::begin(file, &mut loader, &services, |document| {
            learned.knows(&services);
            memory.learned = learned.names();
            let first = compile(document, None, &mut memory, &metrics, count)?;
            prove(document, &first)?;
            Ok(first)
        })
        .map_err(StartError::Problems)?;
        if let Some(held) = &first.held {
            memory.hold(held);
        }
        let inputs = Inputs::new(pair);
        let mut inherited: Vec<Handed> = options
            .taken
            .as_mut()
            .map(|taken| std::mem::take(&mut taken.sockets))
            .unwrap_or_default();
        let sockets = bind_listeners(&first, &mut inherited, count)?;
        let admin_socket = bind_admin(document.server.admin, &mut inherited)?;
        drop(inherited);
        let admin_address = admin_socket
            .as_ref()
            .and_then(|socket| socket.local_addr().ok());
        let access_log = Arc::new(AccessLog::start(&document.telemetry).map_err(StartError::Io)?);
        metrics.watch_access_log(access_log.dropped_counter());
        metrics.label(&document.telemetry.labels);
        let store = Arc::new(Store::new(Arc::new(first)));
        let common = Common {
            store,
            metrics: metrics.clone(),
            access_log,
            spans: Arc::new(Spans::new(count, metrics.spans().clone())),
            ledger: Arc::new(Ledger::default()),
            learning: Arc::new(Learning::new(started)),
        };
        let workers = Workers::start(count, &common).map_err(StartError::Io)?;
        let (orders, inbox) = mpsc::unbounded_channel();
        let (becoming, ready_now) = watch::channel(false);
        let (told, ready) = blocking::channel();
        let shared = common.clone();
        let build = move || {
            let inputs = (inputs, document);
            Reloader::new(origin, loader, inputs, memory, workers, sockets, &shared)
        };
        let thread = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                control(
                    build,
                    common,
                    admin_socket,
                    inbox,
                    &told,
                    options,
                    Left {
                        state,
                        restored,
                        membership,
                        learned,
                        started,
                        becoming,
                    },
                )
            })
            .map_err(StartError::Io)?;
        match ready.recv() {
            Ok(Ok(addresses)) => Ok(Running {
                handle: Handle {
                    orders,
                    ready: ready_now,
                },
                thread: Some(thread),
                addresses,
                admin: admin_address,
            }),
            Ok(Err(error)) => Err(StartError::Io(error)),
            Err(_) => Err(StartError::Io(std::io::Error::other(
                "the control thread died while starting",
            ))),
        }
    }
}

/// For each listener a socket for each worker.
fn bind_listeners(
    first: &Snapshot,
    inherited: &mut Vec<Handed>,
    workers: usize,
) -> Result<HashMap<Place, Vec<TcpListener>>, StartError> {
    let mut sockets = HashMap::new();
    for plan in first.listeners.iter().flatten() {
        let bind = plan.item.bind;
        let bound = match take(inherited, Kind::Listener, &plan.item.name, bind) {
            Some(taken) => {
                accept::share(taken, workers).map(|shares| shares.into_iter().flatten().collect())
            }
            None => accept::bind_workers(bind, workers),
        };
        let bound = bound.map_err(|error| StartError::Bind {
            what: format!("listener {}", plan.item.name),
            address: bind,
            error,
        })?;
        sockets.insert(Place::of(&plan.item), bound);
    }
    Ok(sockets)
}

fn bind_admin(
    address: Option<SocketAddr>,
    inherited: &mut Vec<Handed>,
) -> Result<Option<TcpListener>, StartError> {
    let Some(address) = address else {
        return Ok(None);
    };
    let taken = take(inherited, Kind::Admin, "admin", address);
    if let Some(socket) = taken.and_then(|mut sockets| sockets.pop()) {
        return Ok(Some(socket));
    }
    let bound = accept::bind(address, false, 128).map_err(|error| StartError::Bind {
        what: "admin".into(),
        address,
        error,
    })?;
    Ok(Some(bound))
}

/// Sockets for an address that a predecessor handed over.
fn take(
    inherited: &mut Vec<Handed>,
    kind: Kind,
    name: &str,
    bind: SocketAddr,
) -> Option<Vec<TcpListener>> {
    let wanted = Place::new(name, bind);
    let position = inherited.iter().position(|handed| {
        handed.kind == kind && Place::new(&handed.name, handed.bind) == wanted
    })?;
    let sockets = inherited.swap_remove(position).sockets;
    (!sockets.is_empty()).then_some(sockets)
}
