//! The two sample services behind `up`. `catalog` is quick and has a stream of events; `orders` takes its time and refuses
//! every tenth request, so that retries can be seen. Both register with the control plane and know nothing of the gateway.
//!
//! Told to reload, the streams of events end: so that one that somebody is watching does not hold up the gateway's drain.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tollgate_discovery::{Announced, Registration, Registry, Settings};
use tollgate_engine::process::{Request as Told, Signals, exit};

use super::part::ready;
use super::server::{self, Asked, Reply, Service};
use super::{Failure, failed};

/// Serves both until told to stop.
pub(super) fn run(control: &str, catalog: SocketAddr, orders: SocketAddr) -> Result<u8, Failure> {
    let registry = Registry::new(Settings::of(control))
        .map_err(|error| (error.to_string(), exit::BAD_DOCUMENT))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default());
    let runtime = runtime.map_err(failed("no runtime can be made"))?;
    let served = runtime.block_on(serve(&registry, catalog, orders));
    served.map_err(failed("the sample services cannot start"))?;
    Ok(exit::OK)
}

async fn serve(registry: &Registry, catalog: SocketAddr, orders: SocketAddr) -> io::Result<()> {
    let mut signals = Signals::new()?;
    let (stop, stopping) = watch::channel(false);
    let catalog = TcpListener::bind(catalog).await?;
    let orders = TcpListener::bind(orders).await?;
    let (at_catalog, at_orders) = (catalog.local_addr()?, orders.local_addr()?);
    let announced = [
        announce(registry, "catalog", at_catalog),
        announce(registry, "orders", at_orders),
    ];
    ready(&json!({ "catalog": at_catalog, "orders": at_orders }));
    let told = async {
        while signals.next().await != Told::Stop {
            stop.send_replace(true);
        }
    };
    tokio::select! {
        () = server::serve(catalog, Catalog, stopping.clone()) => {}
        () = server::serve(orders, Orders::default(), stopping) => {}
        () = told => {}
    }
    for announced in announced {
        announced.deregister().await;
    }
    Ok(())
}

fn announce(registry: &Registry, name: &str, address: SocketAddr) -> Announced {
    registry.register(Registration::new(name, address.to_string()).health_endpoint("/health"))
}

const ITEMS: [(&str, u32); 4] = [
    ("lantern", 4200),
    ("kettle", 2650),
    ("umbrella", 1990),
    ("notebook", 350),
];

/// Answers at once.
struct Catalog;

impl Service for Catalog {
    async fn answer(&self, asked: &Asked) -> Reply {
        if asked.method != "GET" && asked.method != "HEAD" {
            return Reply::Json(405, json!({ "error": "catalog is read only" }).to_string());
        }
        match asked.path.as_str() {
            "/health" => Reply::Json(200, json!({ "status": "healthy" }).to_string()),
            "/who" => Reply::Json(200, json!({ "service": "catalog" }).to_string()),
            "/catalog" | "/catalog/items" => {
                let items: Vec<_> = (1..=ITEMS.len()).filter_map(item).collect();
                Reply::Json(200, json!({ "items": items }).to_string())
            }
            "/catalog/events" if asked.method == "GET" => {
                Reply::Events(Duration::from_secs(1), price)
            }
            path => {
                let found = path
                    .strip_prefix("/catalog/items/")
                    .and_then(|id| id.parse().ok())
                    .and_then(item);
                match found {
                    Some(item) => Reply::Json(200, item.to_string()),
                    None => Reply::Json(
                        404,
                        json!({ "error": "catalog has no such item" }).to_string(),
                    ),
                }
            }
        }
    }
}

/// An item by its number, from 1.
fn item(id: usize) -> Option<serde_json::Value> {
    let (name, cents) = ITEMS.get(id.checked_sub(1)?)?;
    Some(json!({ "id": id, "name": name, "cents": cents }))
}

fn price(number: u64) -> String {
    let place = usize::try_from(number).unwrap_or(0) % ITEMS.len();
    let (name, cents) = ITEMS.get(place).copied().unwrap_or(("nothing", 0));
    json!({ "item": name, "cents": cents + u32::try_from(number % 50).unwrap_or(0) }).to_string()
}

/// Takes 30 to 70 ms, and refuses every tenth request.
#[derive(Default)]
struct Orders {
    asked: Cell<u64>,
    taken: Cell<u64>,
}

impl Service for Orders {
    async fn answer(&self, asked: &Asked) -> Reply {
        match asked.path.as_str() {
            "/health" => return Reply::Json(200, json!({ "status": "healthy" }).to_string()),
            "/who" => return Reply::Json(200, json!({ "service": "orders" }).to_string()),
            _ => {}
        }
        let number = self.asked.get() + 1;
        self.asked.set(number);
        tokio::time::sleep(Duration::from_millis(30 + number * 7 % 41)).await;
        if number.is_multiple_of(10) {
            return Reply::Json(
                503,
                json!({ "error": "orders is busy, ask again" }).to_string(),
            );
        }
        let id = asked.path.strip_prefix("/orders/");
        match (asked.method.as_str(), asked.path.as_str(), id) {
            ("POST", "/orders", _) => {
                let id = self.taken.get() + 1;
                self.taken.set(id);
                Reply::Json(
                    201,
                    json!({ "id": id, "state": "accepted", "bytes": asked.body.len() }).to_string(),
                )
            }
            ("GET" | "HEAD", "/orders", _) => Reply::Json(
                200,
                json!({ "accepted": self.taken.get(), "requests": number }).to_string(),
            ),
            ("GET" | "HEAD", _, Some(id)) if id.parse::<u32>().is_ok() => Reply::Json(
                200,
                json!({ "id": id, "state": "shipped", "request": number }).to_string(),
            ),
            _ => Reply::Json(
                404,
                json!({ "error": "orders has no such page" }).to_string(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_numbered_from_one() {
        assert_eq!(item(2).unwrap()["name"], "kettle");
        assert_eq!(item(0), None);
        assert_eq!(item(5), None);
    }
}
