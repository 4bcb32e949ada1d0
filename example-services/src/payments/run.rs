//! The service's `main`: settings, database, processor, ports, and work in the background.

use std::sync::Arc;

use tonic::service::RoutesBuilder;

use super::{
    desk::Desk,
    grpc::Payments,
    http::{self, Pages},
    simulated::{self, Simulated},
    store,
};
use crate::{
    contracts::payments::payments_service_server::PaymentsServiceServer,
    kit::{
        caller::Trust,
        database::{Database, Dialect},
        events,
        health::Health,
        idempotency,
        listen::{Ports, Served},
        metrics::Metrics,
        migrations, program,
        settings::{self, Command, Key, Settings, key},
        stop, time,
    },
};

const NAME: &str = "payments";

const KEYS: [Key; 9] = [
    key("http", "127.0.0.1:8004", "where HTTP is served"),
    key("grpc", "127.0.0.1:9004", "where gRPC is served"),
    key(
        "database",
        "sqlite:payments.db",
        "sqlite:FILE or postgres://…",
    ),
    key(
        "processor",
        "sqlite:payments-processor.db",
        "the ledger of the simulated payment processor, a database of its own",
    ),
    key(
        "processor_latency",
        "0ms",
        "how long the simulated processor takes for each answer",
    ),
    key(
        "processor_timeout",
        "10s",
        "how long an answer of the processor is waited for",
    ),
    key(
        "tidy",
        "30s",
        "how often payments that were left half done are brought on",
    ),
    key(
        "webhook_secret",
        "",
        "what the processor signs its news with; empty: none are taken",
    ),
    key("events_kept", "7d", "how long events can be read"),
];

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

async fn run(settings: Settings) -> Result<(), String> {
    program::start_log(&settings)?;
    let ports = Ports::bind(settings.text("http"), settings.text("grpc")).await?;
    let addresses = ports.addresses().map_err(|error| error.to_string())?;
    program::check_open(&settings, addresses)?;
    let database = program::open(&settings).await?;
    program::bring_up(&settings, &database, &store::MIGRATIONS).await?;
    let patience = settings.span("database_patience")?;
    let ledger = Database::open(settings.text("processor"), 4, patience)
        .await
        .map_err(|error| format!("`processor`: {error}"))?;
    migrations::up(&ledger, &simulated::MIGRATIONS)
        .await
        .map_err(|error| format!("`processor`: {error}"))?;
    if database.dialect() == Dialect::Sqlite {
        // The file is this process's alone, so whoever had a lease is gone.
        store::release_all(&database)
            .await
            .map_err(|error| format!("`database`: {error}"))?;
    }
    let processor = Arc::new(Simulated::new(ledger, settings.span("processor_latency")?));
    let desk = Desk::new(
        database.clone(),
        processor,
        settings.span("processor_timeout")?,
    );
    let trust = Trust::new(settings.text("service_token"));

    let stop = stop::by_signal().map_err(|error| error.to_string())?;
    let (tidy, every) = (desk.clone(), settings.span("tidy")?);
    // Both end with the stop.
    tokio::spawn(stop.clone().every(every, move || {
        let desk = tidy.clone();
        async move { desk.tidy(every).await }
    }));
    let (kept, told) = (database.clone(), settings.span("events_kept")?);
    tokio::spawn(
        stop.clone()
            .every(std::time::Duration::from_secs(60), move || {
                let database = kept.clone();
                async move {
                    let now = time::now();
                    // What fails now is tried again in a minute.
                    idempotency::sweep(&database, now).await.ok();
                    let before = now - told.as_millis() as i64;
                    events::sweep(&database, before).await.ok();
                }
            }),
    );

    let kept_open = database.clone();
    let mut routes = RoutesBuilder::default();
    routes.add_service(PaymentsServiceServer::new(Payments {
        desk: desk.clone(),
        trust: trust.clone(),
    }));
    let pages = Pages {
        desk,
        trust: trust.clone(),
        secret: settings.text("webhook_secret").into(),
    };
    let served = Served {
        service: NAME,
        contract: "payments.v1.PaymentsService",
        routes,
        pages: http::router(pages).merge(events::router(database.clone(), trust.clone())),
        health: Health::new(NAME, database),
        metrics: Metrics::new(NAME),
        trust,
        drain: settings.span("drain")?,
    };
    let ended = ports.serve(served, stop).await;
    kept_open.close().await;
    ended
}
