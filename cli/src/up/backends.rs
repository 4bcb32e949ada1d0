//! The two sample services behind `up`, on one thread of their own. `catalog` is quick and has a stream of events;
//! `orders` takes its time and refuses every tenth request, so that retries can be seen.
//!
//! They know nothing of the gateway. The thread also hears the signals that stop the process: event streams end at
//! once then, so that a stream somebody is watching does not hold up the drain.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tollgate_engine::process::{Request as Signal, Signals};

use super::server::{self, Asked, Reply, Service};

/// Both services, serving. Stopped when dropped.
pub(super) struct Backends {
    pub(super) catalog: SocketAddr,
    pub(super) orders: SocketAddr,
    /// Somebody asked this process to stop.
    pub(super) stopping: Arc<AtomicBool>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Backends {
    pub(super) fn start() -> io::Result<Self> {
        let (told, bound) = mpsc::channel();
        let (end, ended) = oneshot::channel();
        let stopping = Arc::new(AtomicBool::new(false));
        let heard = stopping.clone();
        let thread = std::thread::Builder::new()
            .name("samples".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build_local(Default::default());
                match runtime {
                    Ok(runtime) => runtime.block_on(run(&told, ended, &heard)),
                    Err(error) => {
                        let _starter_waits = told.send(Err(error));
                    }
                }
            })?;
        let (catalog, orders) = bound
            .recv()
            .map_err(|_| io::Error::other("the thread of the sample services died"))??;
        Ok(Backends {
            catalog,
            orders,
            stopping,
            end: Some(end),
            thread: Some(thread),
        })
    }
}

impl Drop for Backends {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // A panic over there was printed there.
            drop(thread.join());
        }
    }
}

type Told = mpsc::Sender<io::Result<(SocketAddr, SocketAddr)>>;

async fn run(told: &Told, ended: oneshot::Receiver<()>, heard: &AtomicBool) {
    let (stop, stopping) = watch::channel(false);
    let begun = async {
        let signals = Signals::new()?;
        let catalog = TcpListener::bind("127.0.0.1:0").await?;
        let orders = TcpListener::bind("127.0.0.1:0").await?;
        let addresses = (catalog.local_addr()?, orders.local_addr()?);
        Ok((signals, catalog, orders, addresses))
    };
    let (mut signals, catalog, orders, addresses) = match begun.await {
        Ok(begun) => begun,
        Err(error) => {
            let _starter_waits = told.send(Err(error));
            return;
        }
    };
    let _starter_waits = told.send(Ok(addresses));
    let listening = async {
        while signals.next().await != Signal::Stop {}
        heard.store(true, Ordering::Release);
        stop.send_replace(true);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = server::serve(catalog, Catalog, stopping.clone()) => {}
        () = server::serve(orders, Orders::default(), stopping) => {}
        () = listening => {}
        _ = ended => {}
    }
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
