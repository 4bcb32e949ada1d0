//! People who look around and buy, each request on a connection of its own, until they are told to leave.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use tollgate_engine::testing::client::Client;
use tollgate_engine::testing::waiting::until;

const PEOPLE: usize = 3;
/// Every so many requests of one of them are an order.
const ORDERS: usize = 4;

/// What was bought: how many of which product, and whoever may ask for it.
pub(crate) struct Bought {
    pub(crate) token: String,
    pub(crate) orders: Vec<String>,
    pub(crate) pieces: BTreeMap<String, i64>,
    /// What was there before.
    pub(crate) shelf: BTreeMap<String, i64>,
}

pub(crate) struct People {
    told: Arc<Told>,
    threads: Vec<JoinHandle<()>>,
    token: String,
    shelf: BTreeMap<String, i64>,
}

/// What happened so far.
#[derive(Default)]
struct Told {
    leave: AtomicBool,
    answered: AtomicUsize,
    failures: Mutex<Vec<String>>,
    orders: Mutex<Vec<(String, String)>>,
    /// What nobody has taken yet.
    left: Mutex<BTreeMap<String, i64>>,
}

/// One request; `Err` tells all that is known of why it failed.
pub(crate) fn ask(
    edge: SocketAddr,
    token: &str,
    line: &str,
    body: Option<&Value>,
) -> Result<Value, String> {
    let failed = |why: String| format!("{line}: {why}");
    let body = body.map(Value::to_string).unwrap_or_default();
    let request = format!(
        "{line} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nX-API-Key: test-key\r\n\
         Authorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut client = Client::try_connect(edge).map_err(|error| failed(error.to_string()))?;
    { client.try_send(request.as_bytes()) }.map_err(|error| failed(error.to_string()))?;
    let method = line.split(' ').next().unwrap_or_default();
    let answer = { client.try_response(method) }.map_err(|ended| failed(format!("{ended:?}")))?;
    let text = answer.text();
    if !(200..300).contains(&answer.status) || !answer.complete {
        return Err(failed(format!("{} {text}", answer.status)));
    }
    let value: Value = serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
    Ok(value["data"].clone())
}

impl People {
    /// They sign in, look at the shelves, and begin.
    pub(crate) fn arrive(edge: SocketAddr) -> People {
        let who = json!({ "email": "ada@shop.example", "password": "correct-horse-1" });
        let signed_in = ask(edge, "", "POST /auth/login", Some(&who)).expect("ada may come in");
        let token = signed_in["access_token"].as_str().expect("a token");
        let shelf = shelf(edge, token);
        let told = Arc::new(Told {
            left: Mutex::new(shelf.clone()),
            ..Told::default()
        });
        let threads = (0..PEOPLE).map(|number| {
            let (told, token) = (told.clone(), token.to_owned());
            let products: Vec<String> = shelf.keys().cloned().collect();
            std::thread::spawn(move || told.shop(number, edge, &token, &products))
        });
        People {
            threads: threads.collect(),
            told,
            token: token.to_owned(),
            shelf,
        }
    }

    /// Waits until so many more requests were answered.
    pub(crate) fn served(&self, more: usize) {
        let goal = self.told.answered.load(Ordering::Acquire) + more;
        until("people to be served", || {
            self.told.fails_not();
            self.told.answered.load(Ordering::Acquire) >= goal
        });
    }

    /// They finish what they are at, and say what they bought.
    pub(crate) fn leave(self) -> Bought {
        self.told.leave.store(true, Ordering::Release);
        for thread in self.threads {
            thread.join().expect("no panic");
        }
        self.told.fails_not();
        let made = self.told.orders.lock();
        let made = made.unwrap_or_else(PoisonError::into_inner).clone();
        let mut pieces = BTreeMap::new();
        for (_, product) in &made {
            *pieces.entry(product.clone()).or_default() += 1;
        }
        Bought {
            token: self.token,
            orders: made.into_iter().map(|(order, _)| order).collect(),
            pieces,
            shelf: self.shelf,
        }
    }
}

/// How many of each product may be bought.
pub(crate) fn shelf(edge: SocketAddr, token: &str) -> BTreeMap<String, i64> {
    let products = ask(edge, token, "GET /products?limit=100", None).expect("the catalog");
    let products = products.as_array().expect("a list").iter();
    let stock = products.filter_map(|product| {
        let count = product["available_quantity"].as_i64()?;
        Some((product["product_id"].as_str()?.to_owned(), count))
    });
    let stock: BTreeMap<String, i64> = stock.collect();
    assert!(!stock.is_empty(), "there is something to buy");
    stock
}

impl Told {
    fn fails_not(&self) {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(failures.is_empty(), "requests failed: {failures:#?}");
    }

    /// One of them, until told to leave.
    fn shop(&self, number: usize, edge: SocketAddr, token: &str, products: &[String]) {
        for turn in 0.. {
            if self.leave.load(Ordering::Acquire) {
                return;
            }
            let product = &products[(turn + number) % products.len()];
            let buys = turn % ORDERS == 1 && self.takes(product);
            let done = match turn % ORDERS {
                0 => ask(edge, token, "GET /products?limit=5", None).map(drop),
                1 if buys => self.buy(edge, token, product, &format!("{number}-{turn}")),
                _ => ask(edge, token, &format!("GET /products/{product}"), None).map(drop),
            };
            if let Err(why) = done {
                let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
                failures.push(why);
            }
            self.answered.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Whether there is still one of it, which is nobody else's then.
    fn takes(&self, product: &str) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let left = left.entry(product.to_owned()).or_default();
        *left -= 1;
        *left >= 0
    }

    fn buy(&self, edge: SocketAddr, token: &str, product: &str, key: &str) -> Result<(), String> {
        let order = json!({
            "items": [{ "product_id": product, "quantity": 1 }],
            "payment_method": "card",
            "shipping_address": {
                "street": "1 Main St", "city": "Springfield", "state": "IL", "zip_code": "62701", "country": "USA",
            },
            "idempotency_key": format!("rolling-{key}"),
        });
        let made = ask(edge, token, "POST /orders", Some(&order))?;
        let id = made["order_id"]
            .as_str()
            .ok_or("an order without a number")?;
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.push((id.to_owned(), product.to_owned()));
        Ok(())
    }
}
