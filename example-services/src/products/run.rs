//! The program: settings, the database, the service, its upkeep, and the two ports.

use std::time::Duration;

use tonic::service::Routes;

use super::{MIGRATIONS, catalog::Catalog, grpc::Products, inventory::Inventory, sample};
use crate::{
    contracts::products::products_service_server::ProductsServiceServer,
    kit::{
        cache::{self, Cache},
        caller::Trust,
        events,
        health::Health,
        idempotency,
        listen::{Ports, Served},
        log,
        metrics::Metrics,
        program,
        refusal::Refusal,
        settings::{self, COMMON, Command, Key, Settings, key},
        stop, time,
    },
};

const SERVICE: &str = "products";

const KEYS: [Key; 10] = [
    key("http", "127.0.0.1:8002", "address for HTTP"),
    key("grpc", "127.0.0.1:9002", "address for gRPC"),
    key(
        "database",
        "sqlite:products.db",
        "sqlite:PATH, or postgres://…",
    ),
    key("currency", "USD", "what all prices are in (ISO 4217)"),
    key(
        "reservation_lifetime",
        "15m",
        "how long stock is held for an order; more than the longest saga takes",
    ),
    key(
        "expiry_every",
        "30s",
        "how often what was held for too long is returned",
    ),
    key(
        "low_stock",
        "5",
        "below this many left, an event is written",
    ),
    key(
        "cache_products",
        "1000",
        "how many products are kept in memory for those who look around; 0: none",
    ),
    key(
        "cache_lifetime",
        "1s",
        "how long at most, which matters when several processes share the database",
    ),
    key("events_kept", "7d", "how long events can be read"),
];

/// Runs the program with these arguments.
pub fn main(arguments: Vec<String>) -> Result<(), String> {
    let keys: [&[Key]; 2] = [&KEYS, &COMMON];
    let (command, settings) =
        Settings::read(SERVICE, &keys, arguments, |name| std::env::var(name).ok())?;
    match command {
        Command::Run => program::block_on(serve(settings)),
        Command::Migrate { up } => program::block_on(program::migrate(&settings, &MIGRATIONS, up)),
        Command::Descriptors(file) => program::write_descriptors(&file),
        Command::Help => {
            print!("{}", settings::help(SERVICE, &keys));
            Ok(())
        }
    }
}

async fn serve(settings: Settings) -> Result<(), String> {
    program::start_log(&settings)?;
    let stop = stop::by_signal().map_err(|error| error.to_string())?;
    let ports = Ports::bind(settings.text("http"), settings.text("grpc")).await?;
    let addresses = ports.addresses().map_err(|error| error.to_string())?;
    program::check_open(&settings, addresses)?;
    let database = program::open(&settings).await?;
    program::bring_up(&settings, &database, &MIGRATIONS).await?;

    let metrics = Metrics::new(SERVICE);
    let currency = settings.text("currency").to_string();
    let low = settings.value("low_stock")?;
    let lifetime = settings.span("reservation_lifetime")?;
    let cache = Cache::new(
        "product",
        settings.value("cache_products")?,
        settings.span("cache_lifetime")?,
        &cache::counters(&metrics),
    );
    let products = Products {
        catalog: Catalog::new(database.clone(), cache.clone()),
        inventory: Inventory::new(database.clone(), lifetime, low, &currency, cache),
        trust: Trust::new(settings.text("service_token")),
        currency,
        steps: metrics.counters(
            "inventory_steps_total",
            "Steps of reservations.",
            &["step", "result"],
        ),
    };
    if settings.value("sample_data")? {
        sample::fill(&products.catalog)
            .await
            .map_err(|refusal| format!("{refusal:?}"))?;
    }

    let expired = metrics.counter(
        "reservations_expired_total",
        "Reservations that were held for too long.",
    );
    let lows = metrics.gauge(
        "products_low_stock",
        "Products with fewer left than the setting low_stock.",
    );
    let (inventory, catalog) = (products.inventory.clone(), products.catalog.clone());
    // Both end with the stop; what they are at is finished first, or cut with the process, which does no harm.
    tokio::spawn(stop.clone().every(settings.span("expiry_every")?, move || {
        let (inventory, catalog) = (inventory.clone(), catalog.clone());
        let (expired, lows) = (expired.clone(), lows.clone());
        async move {
            let done = async {
                expired.inc_by(inventory.expire(time::now()).await?);
                lows.set(catalog.low(low).await?);
                Ok::<_, Refusal>(())
            };
            told("reservations were not looked through", done.await);
        }
    }));
    let (kept, swept) = (settings.span("events_kept")?, database.clone());
    tokio::spawn(stop.clone().every(Duration::from_secs(60), move || {
        let database = swept.clone();
        async move {
            let now = time::now();
            let done = async {
                idempotency::sweep(&database, now).await?;
                events::sweep(&database, now - kept.as_millis() as i64).await?;
                Ok::<_, sqlx::Error>(())
            };
            told(
                "what is over was not forgotten",
                done.await.map_err(Refusal::from),
            );
        }
    }));

    let trust = products.trust.clone();
    let pages = events::router(database.clone(), trust.clone());
    let mut routes = Routes::builder();
    routes.add_service(ProductsServiceServer::new(products));
    let served = Served {
        service: SERVICE,
        contract: "products.v1.ProductsService",
        routes,
        pages,
        health: Health::new(SERVICE, database.clone()),
        metrics,
        trust,
        drain: settings.span("drain")?,
    };
    let ended = ports.serve(served, stop).await;
    database.close().await;
    ended
}

fn told(message: &str, result: Result<(), Refusal>) {
    if let Err(refusal) = result {
        log::warn(message, &[("error", &refusal.message())]);
    }
}
