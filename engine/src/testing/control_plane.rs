//! A control plane that does as it is told: it keeps blocks and services, sends who subscribes what it lacks, and
//! tells changes when the test makes them. It can fall silent, hang up, lie and be gone. On a thread and runtime of its
//! own, over HTTP/2 in clear text or TLS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tollgate_config::feed::{
    Answer, Beat, Begin, End, Figures, Health, Hello, Instance, Kind, Line, Observed, Outcome, Put,
    Remove, Report, Service, Subscribe, Wants, WantsAnswer,
};
use tollgate_config::identity::{CertificateRequest, Trust};

use super::PATIENCE;
use super::h2_client::runtime;

/// What nodes asked and reported.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    pub subscriptions: Vec<Subscribe>,
    pub outcomes: Vec<Outcome>,
    pub observed: Vec<Observed>,
    pub figures: Vec<Figures>,
    /// What nodes answered to questions, by the question's id.
    pub answers: Vec<(String, Answer)>,
    /// What nodes wanted besides what they subscribed with; noted when they are answered.
    pub wants: Vec<Wants>,
    /// Feeds that are open.
    pub open: usize,
    /// Requests of the registry, as `METHOD PATH BODY`.
    pub registry: Vec<String>,
    /// Certificates that were asked for.
    pub certificates: Vec<CertificateRequest>,
}

/// What whoever asks for a certificate is answered.
type Signs = Arc<dyn Fn(&CertificateRequest) -> (u16, String) + Send + Sync>;

struct Model {
    epoch: String,
    revision: u64,
    blocks: BTreeMap<String, Put>,
    services: BTreeMap<String, Service>,
    /// Ids of instances that were registered.
    registered: BTreeSet<String>,
    trust: Option<Trust>,
    journal: Journal,
}

struct Shared {
    model: Mutex<Model>,
    changed: Condvar,
    beat: Duration,
    figures: Option<Duration>,
    /// No beat, no answer to whoever comes: as if the cable were cut.
    silent: AtomicBool,
    /// Tells of services only those who name them.
    minimal: bool,
    /// Nodes that want something wait.
    holds: watch::Sender<bool>,
    /// What whoever wants tokens of shared limits is answered.
    leases: Mutex<(StatusCode, String)>,
    authority: Mutex<Option<Signs>>,
    orders: broadcast::Sender<Order>,
}

#[derive(Clone)]
enum Order {
    Say(Bytes),
    /// To whoever wants it.
    Service(Service),
    Wants(Wants),
    HangUp,
}

/// A listening control plane; gone when dropped.
pub struct ControlPlane {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// How one is started.
pub struct Setup {
    pub bind: SocketAddr,
    pub epoch: &'static str,
    pub beat: Duration,
    /// How often nodes are asked for figures.
    pub figures: Option<Duration>,
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Tells of services only those who name them, as a real one does.
    pub minimal: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            bind: ([127, 0, 0, 1], 0).into(),
            epoch: "first",
            beat: Duration::from_secs(10),
            figures: None,
            tls: None,
            minimal: false,
        }
    }
}

impl ControlPlane {
    /// Knows nothing yet, at revision 0.
    pub fn start() -> ControlPlane {
        ControlPlane::with(Setup::default())
    }

    pub fn with(setup: Setup) -> ControlPlane {
        let (bound, address) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let shared = Arc::new(Shared {
            model: Mutex::new(Model {
                epoch: setup.epoch.to_owned(),
                revision: 0,
                blocks: BTreeMap::new(),
                services: BTreeMap::new(),
                registered: BTreeSet::new(),
                trust: None,
                journal: Journal::default(),
            }),
            changed: Condvar::new(),
            beat: setup.beat,
            figures: setup.figures,
            silent: AtomicBool::new(false),
            minimal: setup.minimal,
            holds: watch::Sender::new(false),
            leases: Mutex::new((StatusCode::NOT_FOUND, "{}".to_owned())),
            authority: Mutex::default(),
            orders: broadcast::channel(1024).0,
        });
        let theirs = shared.clone();
        let acceptor = setup.tls.map(tokio_rustls::TlsAcceptor::from);
        let thread = thread::spawn(move || {
            runtime().block_on(async move {
                let listener = TcpListener::bind(setup.bind).await.expect("a free port");
                let address = listener.local_addr().expect("a bound socket has one");
                let _asked = bound.send(address);
                let serve = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        let _nodelay = stream.set_nodelay(true);
                        let (shared, acceptor) = (theirs.clone(), acceptor.clone());
                        tokio::spawn(async move {
                            match acceptor {
                                None => connection(stream, shared).await,
                                Some(tls) => {
                                    if let Ok(stream) = tls.accept(stream).await {
                                        connection(stream, shared).await;
                                    }
                                }
                            }
                        });
                    }
                };
                tokio::select! { () = serve => {}, _ = stopped => {} }
            });
        });
        ControlPlane {
            address: address.recv().expect("the control plane's thread lives"),
            shared,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Puts these blocks and takes those away, and tells everyone; the new revision.
    pub fn change(&self, puts: impl IntoIterator<Item = Put>, removes: &[&str]) -> u64 {
        let mut lines = vec![Line::Begin(Begin { full: false })];
        let mut model = self.shared.lock();
        for put in puts {
            lines.push(Line::Put(put.clone()));
            model.blocks.insert(put.id.clone(), put);
        }
        for id in removes {
            model.blocks.remove(*id);
            let id = (*id).to_owned();
            lines.push(Line::Remove(Remove { id }));
        }
        model.revision += 1;
        let revision = model.revision;
        lines.push(Line::End(End { revision }));
        // Told while nobody can subscribe in between.
        self.say_lines(&lines);
        revision
    }

    /// All instances of a service from now on, each with its weight.
    pub fn service(&self, name: &str, instances: &[(SocketAddr, u32)]) {
        let mut model = self.shared.lock();
        let version = model.services.get(name).map_or(1, |list| list.version + 1);
        let service = Service {
            name: name.to_owned(),
            version,
            instances: instances.iter().map(instance).collect(),
        };
        model.services.insert(name.to_owned(), service.clone());
        let _nobody_may_listen = self.shared.orders.send(Order::Service(service));
    }

    /// Nobody has registered it any more; who was told of it is not told so.
    pub fn forget_service(&self, name: &str) {
        self.shared.lock().services.remove(name);
    }

    /// Nodes that want something wait for their answer, or do no longer.
    pub fn hold_wants(&self, hold: bool) {
        self.shared.holds.send_replace(hold);
    }

    /// Tells every listener this, whatever it is.
    pub fn say(&self, text: impl Into<Bytes>) {
        let _nobody_may_listen = self.shared.orders.send(Order::Say(text.into()));
    }

    pub fn say_lines(&self, lines: &[Line]) {
        self.say(lines.iter().map(Line::write).collect::<String>());
    }

    /// Falls silent without a word, or speaks again to who comes.
    pub fn silent(&self, silent: bool) {
        self.shared.silent.store(silent, Ordering::SeqCst);
    }

    /// Knows no instance any more.
    pub fn forget_instances(&self) {
        self.shared.lock().registered.clear();
    }

    /// Ends every feed.
    pub fn hang_up(&self) {
        let _nobody_may_listen = self.shared.orders.send(Order::HangUp);
    }

    pub fn journal(&self) -> Journal {
        self.shared.lock().journal.clone()
    }

    /// Waits until the journal is as wanted; fails the test with the journal when it never is.
    pub fn wait(&self, what: &str, wanted: impl Fn(&Journal) -> bool) -> Journal {
        let deadline = Instant::now() + PATIENCE;
        let mut model = self.shared.lock();
        while !wanted(&model.journal) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "waited for {what} in vain: {:#?}",
                model.journal
            );
            let waited = self.shared.changed.wait_timeout(model, left);
            model = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        model.journal.clone()
    }

    /// Signs from now on as this says: a status and a body.
    pub fn sign(
        &self,
        signs: impl Fn(&CertificateRequest) -> (u16, String) + Send + Sync + 'static,
    ) {
        let mut authority =
            { self.shared.authority.lock() }.unwrap_or_else(PoisonError::into_inner);
        *authority = Some(Arc::new(signs));
    }

    /// Tells whoever listens, and whoever comes and wants to know, whom to trust.
    pub fn trust(&self, trust: Trust) {
        let mut model = self.shared.lock();
        model.trust = Some(trust.clone());
        self.say_lines(&[Line::Trust(trust)]);
    }

    /// What whoever wants tokens of shared limits is answered from now on. At first: that there is no such page.
    pub fn answer_leases(&self, status: u16, text: impl Into<String>) {
        let status = StatusCode::from_u16(status).expect("a status");
        *self
            .shared
            .leases
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = (status, text.into());
    }

    /// Waits until a node reports this revision, and returns the report.
    pub fn outcome(&self, revision: u64) -> Outcome {
        let of = |outcome: &&Outcome| outcome.revision == revision;
        let journal = self.wait(&format!("a report of revision {revision}"), |journal| {
            journal.outcomes.iter().any(|outcome| of(&outcome))
        });
        let found = journal.outcomes.iter().rev().find(of);
        found.expect("waited for").clone()
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _gone = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

fn instance((address, weight): &(SocketAddr, u32)) -> Instance {
    Instance {
        id: address.to_string(),
        address: address.to_string(),
        health: Health::Healthy,
        weight: *weight,
        zone: None,
        metadata: BTreeMap::new(),
    }
}

/// A block of a file `shop.toml`, known by its name.
pub fn block(kind: Kind, name: &str, line: u32, text: &str) -> Put {
    Put {
        id: format!("shop.toml#{}:{name}", kind.word()),
        kind,
        file: "shop.toml".to_owned(),
        line,
        text: text.to_owned(),
        uses: Vec::new(),
    }
}

/// A route that answers by itself.
pub fn answering(name: &str, path: &str, body: &str) -> Put {
    let text = format!(
        "[[route]]\nname = \"{name}\"\nmatch = {{ path = \"{path}\" }}\nrespond = {{ status = 200, body = \"{body}\" }}\n"
    );
    block(Kind::Route, name, 10, &text)
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note<R>(&self, change: impl FnOnce(&mut Journal) -> R) -> R {
        let result = change(&mut self.lock().journal);
        self.changed.notify_all();
        result
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    if shared.silent.load(Ordering::SeqCst) {
        return std::future::pending().await;
    }
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    let mut orders = shared.orders.subscribe();
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else { return };
                tokio::spawn(answer(request, respond, shared.clone()));
            }
            // Falls with the connection, as when a process is killed.
            order = orders.recv() => if let Ok(Order::HangUp) = order { return },
        }
    }
}

async fn answer(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: Arc<Shared>,
) {
    let (method, path) = (
        request.method().to_string(),
        request.uri().path().to_owned(),
    );
    let mut body = request.into_body();
    let mut whole = Vec::new();
    while let Some(Ok(piece)) = body.data().await {
        let _released = body.flow_control().release_capacity(piece.len());
        whole.extend_from_slice(&piece);
    }
    let head = |status: StatusCode| {
        let builder = Response::builder().status(status);
        builder.body(()).expect("a valid head")
    };
    if let Some((_, id)) = path.split_once("/answers/") {
        let status = match serde_json::from_slice::<Answer>(&whole) {
            Ok(answer) => {
                shared.note(|journal| journal.answers.push((id.to_owned(), answer)));
                StatusCode::OK
            }
            Err(_) => StatusCode::BAD_REQUEST,
        };
        let _gone = respond.send_response(head(status), true);
        return;
    }
    if path.starts_with("/nodes/") && path.ends_with("/report") {
        match serde_json::from_slice(&whole) {
            Ok(Report::Outcome(outcome)) => shared.note(|journal| journal.outcomes.push(outcome)),
            Ok(Report::Observed { observed }) => {
                shared.note(|journal| journal.observed.extend(observed));
            }
            Ok(Report::Figures { figures }) => {
                shared.note(|journal| journal.figures.push(figures));
            }
            Err(_) => {}
        }
        let _sent = respond.send_response(head(StatusCode::OK), true);
        return;
    }
    if path.starts_with("/nodes/") && path.ends_with("/wants") {
        let answer = wants(&shared, &whole).await;
        let status = answer
            .as_ref()
            .map_or(StatusCode::NOT_FOUND, |_| StatusCode::OK);
        let text = serde_json::to_vec(&answer.unwrap_or_default()).expect("an answer");
        if let Ok(mut send) = respond.send_response(head(status), false) {
            let _sent = send.send_data(text.into(), true);
        }
        return;
    }
    if path == "/leases" {
        let leases = shared.leases.lock();
        let (status, text) = leases.unwrap_or_else(PoisonError::into_inner).clone();
        if let Ok(mut send) = respond.send_response(head(status), false) {
            let _sent = send.send_data(text.into(), true);
        }
        return;
    }
    if path == "/identity/certificate" {
        let request: Option<CertificateRequest> = serde_json::from_slice(&whole).ok();
        let signs = { shared.authority.lock() }.unwrap_or_else(PoisonError::into_inner);
        let signs = signs.clone();
        let (status, text) = match (signs, &request) {
            (Some(signs), Some(request)) => signs(request),
            _ => (404, "{}".to_owned()),
        };
        shared.note(|journal| journal.certificates.extend(request));
        let status = StatusCode::from_u16(status).expect("a status");
        if let Ok(mut send) = respond.send_response(head(status), false) {
            let _sent = send.send_data(text.into(), true);
        }
        return;
    }
    if path != "/feed" {
        let (status, text) = registry(&shared, &method, &path, &whole);
        if let Ok(mut send) = respond.send_response(head(status), false) {
            let _sent = send.send_data(text.into(), true);
        }
        return;
    }
    let subscribe: Option<Subscribe> = serde_json::from_slice(&whole).ok();
    let Some(subscribe) = subscribe else {
        let _sent = respond.send_response(head(StatusCode::NOT_FOUND), true);
        return;
    };
    if let Ok(send) = respond.send_response(head(StatusCode::OK), false) {
        feed(subscribe, send, &shared).await;
        shared.note(|journal| journal.open -= 1);
    }
}

/// `None`: it does not listen.
async fn wants(shared: &Shared, body: &[u8]) -> Option<WantsAnswer> {
    let wants: Wants = serde_json::from_slice(body).ok()?;
    let mut holds = shared.holds.subscribe();
    let _held = holds.wait_for(|holds| !holds).await;
    // Both at one moment, so that no change is lost between them.
    let mut model = shared.lock();
    let unknown = { wants.also.iter() }.filter(|name| !model.services.contains_key(*name));
    let unknown = unknown.cloned().collect();
    model.journal.wants.push(wants.clone());
    let _nobody_may_listen = shared.orders.send(Order::Wants(wants));
    drop(model);
    shared.changed.notify_all();
    Some(WantsAnswer { unknown })
}

/// Three of the registry's requests (REG-201).
fn registry(shared: &Shared, method: &str, path: &str, body: &[u8]) -> (StatusCode, &'static str) {
    let text = String::from_utf8_lossy(body);
    shared.note(|journal| journal.registry.push(format!("{method} {path} {text}")));
    let registered = &mut shared.lock().registered;
    let id = path.rsplit('/').next().unwrap_or_default();
    match method {
        "POST" if path == "/register" => {
            let record: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
            let Some(id) = record["id"].as_str() else {
                return (StatusCode::BAD_REQUEST, "id is missing");
            };
            registered.insert(id.to_owned());
            (
                StatusCode::CREATED,
                r#"{"lease_seconds": 3, "heartbeat_seconds": 1}"#,
            )
        }
        "PUT" if registered.contains(id) => (StatusCode::OK, "{}"),
        "DELETE" => {
            registered.remove(id);
            (StatusCode::OK, "{}")
        }
        _ => (StatusCode::NOT_FOUND, "{}"),
    }
}

async fn feed(subscribe: Subscribe, mut send: SendStream<Bytes>, shared: &Shared) {
    let instance = subscribe.instance.clone();
    let mut wanted: BTreeSet<String> = subscribe.also.iter().cloned().collect();
    // Both at one moment, so that no change is lost between them.
    let (mut orders, first) = {
        let mut model = shared.lock();
        model.journal.open += 1;
        let told = shared.minimal.then_some(&wanted);
        let first = first_lines(&model, &subscribe, told, (shared.beat, shared.figures));
        model.journal.subscriptions.push(subscribe);
        (shared.orders.subscribe(), first)
    };
    shared.changed.notify_all();
    let mut sent = send.send_data(first.into(), false);
    let mut beat = tokio::time::interval(shared.beat / 2);
    while sent.is_ok() {
        let text = tokio::select! {
            order = orders.recv() => match order {
                Ok(Order::Say(text)) => text,
                Ok(Order::Service(service)) => {
                    if shared.minimal && !wanted.contains(&service.name) {
                        continue;
                    }
                    Line::Service(service).write().into()
                }
                Ok(Order::Wants(wants)) => {
                    if !shared.minimal || wants.instance != instance {
                        continue;
                    }
                    let before = std::mem::take(&mut wanted);
                    wanted.extend(wants.also);
                    let model = shared.lock();
                    let more = wanted.difference(&before);
                    let more = more.filter_map(|name| model.services.get(name).cloned());
                    let lines: String = more.map(|one| Line::Service(one).write()).collect();
                    if lines.is_empty() {
                        continue;
                    }
                    lines.into()
                }
                Ok(Order::HangUp) | Err(_) => return,
            },
            _ = beat.tick() => {
                let revision = shared.lock().revision;
                Line::Beat(Beat { revision }).write().into()
            }
            _reason = std::future::poll_fn(|cx| send.poll_reset(cx)) => return,
        };
        if !shared.silent.load(Ordering::SeqCst) {
            sent = send.send_data(text, false);
        }
    }
}

/// What a node lacks: everything, unless it has just this.
fn first_lines(
    model: &Model,
    subscribe: &Subscribe,
    wanted: Option<&BTreeSet<String>>,
    (beat, figures): (Duration, Option<Duration>),
) -> String {
    let hello = Line::Hello(Hello {
        server: "scripted".to_owned(),
        epoch: model.epoch.clone(),
        revision: model.revision,
        beat,
        figures,
    });
    let mut text = hello.write();
    let is_told = |service: &&Service| wanted.is_none_or(|wanted| wanted.contains(&service.name));
    let services = model.services.values().filter(is_told);
    let services: String = services
        .map(|service| Line::Service(service.clone()).write())
        .collect();
    if let Some(trust) = model.trust.clone().filter(|_| subscribe.trust) {
        text += &Line::Trust(trust).write();
    }
    let current = subscribe
        .have
        .as_ref()
        .is_some_and(|have| have.epoch == model.epoch && have.revision == model.revision);
    if !current {
        text += &Line::Begin(Begin { full: true }).write();
        for put in model.blocks.values() {
            text += &Line::Put(put.clone()).write();
        }
        text += &services;
        let revision = model.revision;
        text += &Line::End(End { revision }).write();
    } else {
        text += &services;
    }
    text
}
