//! The service's `main`: settings, database, the other services, ports, and work in the background.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge};
use serde_json::{Value, json};
use tonic::service::RoutesBuilder;

use super::{
    breaker::Rule,
    conductor::{Conductor, Rules},
    domain::Charges,
    grpc::Orders,
    http::{self, Pages, Report},
    notices::{self, Notices, adapters::Simulated},
    partners::Partners,
    saga::Policy,
    sagas, store,
};
use crate::{
    contracts::orders::orders_service_server::OrdersServiceServer,
    kit::{
        caller::Trust,
        channel::Identity,
        database::{Database, Dialect},
        events,
        health::Health,
        idempotency,
        listen::{Ports, Served},
        log,
        metrics::Metrics,
        money::Money,
        program,
        settings::{self, Command, Key, Settings, key},
        stop::{self, Stop},
        time,
    },
};

const NAME: &str = "orders";

const KEYS: [Key; 31] = [
    key("http", "127.0.0.1:8003", "where HTTP is served"),
    key("grpc", "127.0.0.1:9003", "where gRPC is served"),
    key(
        "database",
        "sqlite:orders.db",
        "sqlite:FILE or postgres://…",
    ),
    key("users", "http://127.0.0.1:9001", "gRPC of users"),
    key("products", "http://127.0.0.1:9002", "gRPC of products"),
    key("payments", "http://127.0.0.1:9004", "gRPC of payments"),
    key(
        "wait",
        "25s",
        "how long the request for an order waits for its end, when the caller's deadline is no shorter",
    ),
    key(
        "step_timeout",
        "5s",
        "how long users and products may take for one call",
    ),
    key(
        "payment_timeout",
        "15s",
        "how long payments may take for one call",
    ),
    key(
        "retries",
        "3",
        "retries of a step whose failure is temporary",
    ),
    key("confirm_retries", "6", "the same for the last step"),
    key(
        "compensation_tries",
        "5",
        "tries to take a step back before somebody has to look at it",
    ),
    key(
        "retry_pause",
        "200ms",
        "the pause before the first retry; it doubles, and is up to a half shorter by chance",
    ),
    key("retry_pause_most", "5s", "the longest of these pauses"),
    key(
        "recover_every",
        "60s",
        "how often sagas are picked up that nobody drives",
    ),
    key(
        "verify_after",
        "60s",
        "when a failed saga is looked at again for what arrived late",
    ),
    key(
        "reconcile_every",
        "10m",
        "how often the services' views of ended orders are compared",
    ),
    key(
        "payment_breaker",
        "5",
        "calls in a row that payments may leave unanswered before it is not asked for a while; 0: always asked",
    ),
    key(
        "payment_breaker_open",
        "5s",
        "how long it is not asked then",
    ),
    key(
        "payment_queue",
        "0s",
        "how long an order waits for payments that are away, less than products hold stock for it; 0s: it is refused",
    ),
    key(
        "payment_queue_limit",
        "1000",
        "how many orders may wait; more are refused",
    ),
    key(
        "payment_queue_every",
        "1s",
        "how often those who wait are looked after",
    ),
    key(
        "mail",
        "simulated",
        "who carries mail: simulated, or simulated:FILE, which writes a line for each",
    ),
    key("sms", "simulated", "the same for short messages"),
    key("saga_limit", "1000", "how many sagas are driven at once"),
    key(
        "saga_kept",
        "30d",
        "how long the saga of an order is kept that cannot change any more",
    ),
    key("tax", "0", "hundredths of a percent of the items' sum"),
    key("shipping_standard", "4.99", "in the products' currency"),
    key("shipping_express", "9.99", "in the products' currency"),
    key("shipping_overnight", "24.99", "in the products' currency"),
    key("events_kept", "7d", "how long events can be read"),
];

/// Numbers about sagas. Clones share them.
#[derive(Clone)]
pub struct Counts {
    pub(super) running: IntGauge,
    pub(super) queued: IntGauge,
    pub(super) ended: IntCounterVec,
    pub(super) seconds: HistogramVec,
    pub(super) recovered: IntCounter,
    pub(super) manual: IntGauge,
    pub(super) inconsistent: IntGauge,
}

impl Counts {
    fn new(metrics: &Metrics) -> Self {
        let outcome = ["outcome"];
        Self {
            running: metrics.gauge("sagas_running", "Sagas that are driven here."),
            queued: metrics.gauge("sagas_queued", "Orders that wait for payments."),
            ended: metrics.counters("sagas_ended_total", "Sagas by their end.", &outcome),
            seconds: metrics.histogram("saga_duration_seconds", "From start to end.", &outcome),
            recovered: metrics.counter("sagas_recovered_total", "Sagas that were picked up."),
            manual: metrics.gauge("sagas_manual", "Sagas that somebody has to look at."),
            inconsistent: metrics.gauge(
                "sagas_inconsistent",
                "Ended orders on which the services did not agree, at the last comparison.",
            ),
        }
    }
}

impl Conductor {
    pub(super) fn counts_inconsistent(&self, count: usize) {
        self.counts.inconsistent.set(count as i64);
    }
}

/// Runs the service with these arguments.
pub fn main(arguments: Vec<String>) -> Result<(), String> {
    let keys: [&[Key]; 2] = [&KEYS, &settings::COMMON];
    let (command, settings) =
        Settings::read(NAME, &keys, arguments, |name| std::env::var(name).ok())?;
    match command {
        Command::Help => {
            print!("{}", settings::help(NAME, &keys));
            Ok(())
        }
        Command::Descriptors(file) => program::write_descriptors(&file),
        Command::Migrate { up } => {
            program::block_on(program::migrate(&settings, &store::MIGRATIONS, up))
        }
        Command::Run => program::block_on(run(settings)),
    }
}

fn rules(settings: &Settings) -> Result<Rules, String> {
    let money = |name: &str| {
        Money::parse(settings.text(name)).map_err(|what| format!("`{name}`: it {what}"))
    };
    Ok(Rules {
        policy: Policy {
            retries: settings.value("retries")?,
            confirm_retries: settings.value("confirm_retries")?,
            undo_tries: settings.value("compensation_tries")?,
            base: settings.span("retry_pause")?,
            most: settings.span("retry_pause_most")?,
            queue: settings.span("payment_queue")?,
        },
        charges: Charges {
            tax: settings.value("tax")?,
            shipping: [
                money("shipping_standard")?,
                money("shipping_express")?,
                money("shipping_overnight")?,
            ],
        },
        verify_after: settings.span("verify_after")?,
        most: settings.value("saga_limit")?,
        queue_limit: settings.value("payment_queue_limit")?,
    })
}

async fn run(settings: Settings) -> Result<(), String> {
    program::start_log(&settings)?;
    let rules = rules(&settings)?;
    let ports = Ports::bind(settings.text("http"), settings.text("grpc")).await?;
    let addresses = ports.addresses().map_err(|error| error.to_string())?;
    program::check_open(&settings, addresses)?;
    let database = program::open(&settings).await?;
    program::bring_up(&settings, &database, &store::MIGRATIONS).await?;
    if database.dialect() == Dialect::Sqlite {
        // The file is this process's alone, so whoever drove a saga is gone.
        let freed = async {
            sagas::release_all(&database).await?;
            notices::release_all(&database).await
        };
        freed
            .await
            .map_err(|error| format!("`database`: {error}"))?;
    }
    let secret = settings.text("service_token");
    let others = ["users", "products", "payments"].map(|name| settings.text(name));
    let spans = [
        settings.span("step_timeout")?,
        settings.span("payment_timeout")?,
    ];
    let rule = Rule {
        failures: settings.value("payment_breaker")?,
        open_for: settings.span("payment_breaker_open")?,
    };
    let partners = Partners::new(others, Identity::new(NAME, secret)?, spans, rule)?;
    let metrics = Metrics::new(NAME);
    let notices = Notices {
        database: database.clone(),
        partners: partners.clone(),
        mail: Arc::new(Simulated::read(settings.text("mail"))?),
        sms: Arc::new(Simulated::read(settings.text("sms"))?),
        counts: metrics.counters("notices_total", "Tries to tell a customer.", &["result"]),
    };
    let counts = Counts::new(&metrics);
    let conductor = Conductor::new(database.clone(), partners, rules, counts);
    let trust = Trust::new(secret);

    let stop = stop::by_signal().map_err(|error| error.to_string())?;
    let report = Report::default();
    background(&settings, &stop, &conductor, &database, &report)?;
    let carrying = stop.clone().every(Duration::from_secs(1), move || {
        let notices = notices.clone();
        async move { notices.carry().await }
    });
    tokio::spawn(carrying);

    let mut routes = RoutesBuilder::default();
    routes.add_service(OrdersServiceServer::new(Orders {
        conductor: conductor.clone(),
        database: database.clone(),
        trust: trust.clone(),
        patience: settings.span("wait")?,
    }));
    let driving = conductor.clone();
    let drain = settings.span("drain")?;
    let pages = Pages {
        conductor,
        trust: trust.clone(),
        report,
    };
    let served = Served {
        service: NAME,
        contract: "orders.v1.OrdersService",
        routes,
        pages: http::router(pages).merge(events::router(database.clone(), trust.clone())),
        health: Health::new(NAME, database.clone()),
        metrics,
        trust,
        drain,
    };
    let ended = ports.serve(served, stop).await;
    // Nothing new comes in; a saga that is nearly through need not wait for the next start.
    driving.rest(drain.min(Duration::from_secs(5))).await;
    database.close().await;
    ended
}

/// Work that nobody waits for (SHOP-707). All of it ends with the stop, or is cut with the process.
fn background(
    settings: &Settings,
    stop: &Stop,
    conductor: &Conductor,
    database: &Database,
    report: &Report,
) -> Result<(), String> {
    let recovering = conductor.clone();
    let every = settings.span("recover_every")?;
    tokio::spawn(stop.clone().every(every, move || {
        let conductor = recovering.clone();
        async move { conductor.recover().await }
    }));

    let waiting = conductor.clone();
    let every = settings.span("payment_queue_every")?;
    tokio::spawn(stop.clone().every(every, move || {
        let conductor = waiting.clone();
        async move { conductor.look_after_queue().await }
    }));

    let (comparing, report) = (conductor.clone(), report.clone());
    let not_agree = Arc::new(tokio::sync::Mutex::new(Vec::new()));
    let every = settings.span("reconcile_every")?;
    // What ended just now may still be on its way elsewhere, and is left to the next comparison.
    let rest = conductor.verify_after.as_millis() as i64;
    let since = Arc::new(AtomicI64::new(
        time::now() - every.as_millis() as i64 - rest,
    ));
    tokio::spawn(stop.clone().every(every, move || {
        let (conductor, report, since) = (comparing.clone(), report.clone(), since.clone());
        let not_agree = not_agree.clone();
        async move {
            let to = time::now() - rest;
            let from = since.load(Ordering::Relaxed);
            // One comparison at a time.
            let mut not_agree = not_agree.lock().await;
            let told = match conductor.reconcile(from, to, &mut not_agree).await {
                // A whole page ends where it ends; the next comparison begins there.
                Ok((told, end)) => {
                    since.store(end, Ordering::Relaxed);
                    told
                }
                // Compared again from the same time.
                Err(refusal) => json!({ "error": refusal.message() }),
            };
            if told["consistent"] == Value::Bool(false) {
                log::error(
                    "the services do not agree; GET /consistency tells where",
                    &[],
                );
            }
            *report.lock().unwrap_or_else(PoisonError::into_inner) = told;
        }
    }));

    let (swept, kept) = (database.clone(), settings.span("saga_kept")?);
    let told = settings.span("events_kept")?;
    tokio::spawn(stop.clone().every(Duration::from_secs(60), move || {
        let database = swept.clone();
        async move {
            let now = time::now();
            let done = async {
                idempotency::sweep(&database, now).await?;
                events::sweep(&database, now - told.as_millis() as i64).await?;
                let before = now - kept.as_millis() as i64;
                notices::sweep(&database, before).await?;
                sagas::sweep(&database, before).await
            };
            if let Err(error) = done.await {
                log::warn("what is over was not forgotten", &[("error", &error)]);
            }
        }
    }));
    Ok(())
}
