//! `up --load`: a few customers who browse and buy, so that status, metrics and logs have something to show, and live
//! figures of what they met. It measures nothing but what it tells; for measuring there is `benches`.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{Answer, Client};
use crate::table;

const CUSTOMERS: usize = 4;
/// Each customer's next request comes so long after the last one began.
const PACE: Duration = Duration::from_millis(40);
const REPORT: Duration = Duration::from_secs(5);
const SIGN_IN: &str = r#"{"email": "ada@shop.example", "password": "correct-horse-1"}"#;
/// Tokens last for fifteen minutes.
const SIGN_IN_EVERY: Duration = Duration::from_secs(600);

/// What one kind of request met since the last report.
#[derive(Default)]
struct Tally {
    answered: Vec<Duration>,
    failed: u64,
}

/// Begins; ends by itself when `stopping` turns true or nobody listens any more.
pub(super) fn start(authority: &str, stopping: &Arc<AtomicBool>) -> io::Result<()> {
    let tallies = Arc::<Mutex<[Tally; 2]>>::default();
    for number in 0..CUSTOMERS {
        let (authority, stopping, tallies) =
            (authority.to_owned(), stopping.clone(), tallies.clone());
        let thread = std::thread::Builder::new().name(format!("customer-{number}"));
        // Not joined: it holds nothing that must be put away, and the process ends without it.
        thread.spawn(move || {
            let customer = Customer {
                authority,
                stopping,
                tallies,
            };
            while !customer.stopping.load(Ordering::Acquire) {
                // A connection that broke; the next one may be better.
                let _broken = customer.shop();
                std::thread::sleep(PACE);
            }
        })?;
    }
    let stopping = stopping.clone();
    let thread = std::thread::Builder::new().name("load-report".to_owned());
    thread.spawn(move || {
        while !stopping.load(Ordering::Acquire) {
            std::thread::sleep(REPORT);
            let now = std::mem::take(&mut *tallies.lock().unwrap_or_else(PoisonError::into_inner));
            let [browse, order] = now.map(words);
            table::print(&format!("load: browse {browse}; order {order}\n"));
        }
    })?;
    Ok(())
}

/// One customer, signed in.
struct Customer {
    authority: String,
    stopping: Arc<AtomicBool>,
    tallies: Arc<Mutex<[Tally; 2]>>,
}

impl Customer {
    /// Browses and buys until the connection breaks or the token is old.
    fn shop(&self) -> io::Result<()> {
        let mut client = Client::connect(&self.authority)?;
        let key = "x-api-key: test-key\r\ncontent-type: application/json\r\n";
        let signed_in = json(client.send_with(key, "POST", "/auth/login", SIGN_IN)?);
        let token = data(&signed_in)["access_token"]
            .as_str()
            .unwrap_or_default();
        let head = format!("{key}authorization: Bearer {token}\r\n");
        let found = json(client.send_with(&head, "GET", "/products?limit=100", "")?);
        let products = data(&found).as_array().cloned();
        let products = products.unwrap_or_default();
        let began = Instant::now();
        for turn in 0.. {
            if self.stopping.load(Ordering::Acquire) || began.elapsed() > SIGN_IN_EVERY {
                return Ok(());
            }
            let sent = Instant::now();
            let product = products.get(turn % products.len().max(1));
            let id = product.and_then(|product| product["product_id"].as_str());
            let id = id.unwrap_or_default();
            let answer = match turn % 10 {
                9 => client.send_with(&head, "POST", "/orders", &order(id)),
                _ => client.send_with(&head, "GET", &format!("/products/{id}"), ""),
            };
            let good = answer
                .as_ref()
                .is_ok_and(|answer| matches!(answer.status, 200..=202));
            self.note(turn % 10 == 9, good, sent.elapsed());
            if answer?.last {
                return Ok(());
            }
            std::thread::sleep(PACE.saturating_sub(sent.elapsed()));
        }
        Ok(())
    }

    fn note(&self, order: bool, good: bool, took: Duration) {
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = &mut tallies[usize::from(order)];
        match good {
            true => tally.answered.push(took),
            false => tally.failed += 1,
        }
    }
}

fn order(product: &str) -> String {
    let address = r#"{"street": "1 Main St", "city": "Springfield", "state": "IL", "zip_code": "62701", "country": "USA"}"#;
    format!(
        r#"{{"items": [{{"product_id": "{product}", "quantity": 1}}], "payment_method": "card", "shipping_address": {address}, "idempotency_key": "load-{}"}}"#,
        fresh()
    )
}

/// A word that was not used before.
fn fresh() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    format!("{name}-{}", since.unwrap_or_default().as_nanos())
}

fn json(answer: Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

/// Of an envelope, what is in it.
fn data(answer: &Value) -> &Value {
    match answer.get("data") {
        Some(data) => data,
        None => answer,
    }
}

fn words(mut tally: Tally) -> String {
    tally.answered.sort_unstable();
    let count = tally.answered.len();
    let at = |share: usize| {
        let one = tally
            .answered
            .get((count * share / 100).min(count.saturating_sub(1)));
        one.map_or(0, Duration::as_millis)
    };
    format!(
        "{count} answered (p50 {} ms, p95 {} ms), {} not",
        at(50),
        at(95),
        tally.failed
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_requests() {
        let answered = (1..=100).map(Duration::from_millis).collect();
        let words = words(Tally {
            answered,
            failed: 3,
        });
        assert_eq!(words, "100 answered (p50 51 ms, p95 96 ms), 3 not");
        assert_eq!(
            super::words(Tally::default()),
            "0 answered (p50 0 ms, p95 0 ms), 0 not"
        );
    }

    #[test]
    fn an_order_is_json_and_each_has_a_key_of_its_own() {
        let [one, other] = [order("p-1"), order("p-1")]
            .map(|text| serde_json::from_str::<Value>(&text).unwrap()["idempotency_key"].clone());
        assert_ne!(one, other);
    }
}
