//! What four databases and the processor's ledger say about every order, and whether they agree (SHOP-509).

use std::collections::BTreeMap;

use tollgate_example_services::kit::{
    database::{Database, Row},
    time,
};
use uuid::Uuid;

use super::shop::{Shop, until};

/// One order, as everybody has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    pub(crate) saga: String,
    pub(crate) settled: bool,
    pub(crate) manual: bool,
    /// The reason why it went back, and the step that failed.
    pub(crate) why: String,
    /// Empty: there is no row.
    pub(crate) order: String,
    pub(crate) total: i64,
    /// What was bought.
    pub(crate) items: Vec<(String, i64)>,
    pub(crate) reservation: String,
    pub(crate) payment: String,
    pub(crate) refunded: i64,
    /// Amounts at the processor.
    pub(crate) charges: Vec<i64>,
    pub(crate) refunds: Vec<i64>,
    /// States of what it holds.
    pub(crate) held: Vec<String>,
}

impl Page {
    /// Why this is no end that an order may have.
    pub(crate) fn fault(&self) -> Option<String> {
        let charged: i64 = self.charges.iter().sum();
        let refunded: i64 = self.refunds.iter().sum();
        let say = |what: &str| Some(format!("{what}: {self:?}"));
        if !self.settled || self.manual {
            return say("not settled");
        }
        if self.charges.len() > 1 || self.held.len() > 1 {
            return say("charged more than once");
        }
        match self.saga.as_str() {
            "completed" => {
                if !matches!(self.order.as_str(), "CONFIRMED" | "SHIPPED" | "DELIVERED") {
                    return say("completed, and not confirmed");
                }
                if self.charges != [self.total] || refunded != 0 || self.payment != "COMPLETED" {
                    return say("confirmed, and not charged once");
                }
                if self.reservation != "committed" {
                    return say("confirmed, and its stock not committed");
                }
            }
            "failed" => {
                if !matches!(self.order.as_str(), "" | "CANCELLED" | "RETURNED") {
                    return say("failed, and not cancelled");
                }
                if charged != refunded || self.refunds.len() > 1 {
                    return say("failed, and not given back once");
                }
                if !matches!(self.payment.as_str(), "" | "FAILED" | "REFUNDED") {
                    return say("failed, and the payment has no end");
                }
                if self.held.iter().any(|state| state == "authorized") {
                    return say("failed, and the processor still holds the amount");
                }
                if matches!(self.reservation.as_str(), "held" | "committed") {
                    return say("failed, and its stock not given back");
                }
            }
            _ => return say("no end"),
        }
        None
    }
}

/// All orders, by id.
pub(crate) type Books = BTreeMap<Uuid, Page>;

async fn rows(database: &Database, sql: &'static str) -> Vec<Row> {
    database.fetch(sql, &[]).await.unwrap()
}

/// Five databases, held open.
pub(crate) struct Keeper {
    orders: Database,
    products: Database,
    payments: Database,
    ledger: Database,
}

impl Keeper {
    pub(crate) async fn open(shop: &Shop) -> Self {
        Self {
            orders: shop.database("orders").await,
            products: shop.database("products").await,
            payments: shop.database("payments").await,
            ledger: shop.database("payments-processor").await,
        }
    }

    /// Reads everything.
    pub(crate) async fn read(&self) -> Books {
        let mut books = Books::new();
        let sagas = "SELECT order_id, state, settled, manual, record FROM sagas";
        for row in rows(&self.orders, sagas).await {
            let page = books.entry(row.id(0).unwrap()).or_default();
            page.saga = row.text(1).unwrap();
            page.settled = row.flag(2).unwrap();
            page.manual = row.flag(3).unwrap();
            let record: serde_json::Value = serde_json::from_str(&row.text(4).unwrap()).unwrap();
            let mut steps = record["steps"].as_array().unwrap().iter();
            let failed = steps
                .find(|step| step["status"] == "failed")
                .map(|step| &step["step"]);
            page.why = match &record["why"]["reason"] {
                serde_json::Value::String(why) => {
                    format!("{why} {}", failed.unwrap_or(&serde_json::Value::Null))
                }
                _ => String::new(),
            };
        }
        for row in rows(&self.orders, "SELECT id, status, total FROM orders").await {
            let page = books.entry(row.id(0).unwrap()).or_default();
            page.order = row.text(1).unwrap();
            page.total = row.int(2).unwrap();
        }
        let items = "SELECT order_id, product_id, quantity FROM order_items";
        for row in rows(&self.orders, items).await {
            let page = books.entry(row.id(0).unwrap()).or_default();
            page.items.push((row.text(1).unwrap(), row.int(2).unwrap()));
        }
        let reservations = "SELECT order_id, state FROM reservations";
        for row in rows(&self.products, reservations).await {
            let page = books.entry(row.id(0).unwrap()).or_default();
            page.reservation = row.text(1).unwrap();
        }
        let mut keys = BTreeMap::new();
        let payments = "SELECT order_id, status, refunded, key FROM payments";
        for row in rows(&self.payments, payments).await {
            let order = row.id(0).unwrap();
            let page = books.entry(order).or_default();
            page.payment = row.text(1).unwrap();
            page.refunded = row.int(2).unwrap();
            keys.insert(row.text(3).unwrap(), order);
        }
        let mut charges = BTreeMap::new();
        for row in rows(&self.ledger, "SELECT id, key, state FROM charges").await {
            let order = keys[&row.text(1).unwrap()];
            books
                .entry(order)
                .or_default()
                .held
                .push(row.text(2).unwrap());
            charges.insert(row.text(0).unwrap(), order);
        }
        let movements = "SELECT charge_id, kind, amount FROM movements ORDER BY at";
        for row in rows(&self.ledger, movements).await {
            let page = books.entry(charges[&row.text(0).unwrap()]).or_default();
            let amount = row.int(2).unwrap();
            match row.text(1).unwrap().as_str() {
                "charge" => page.charges.push(amount),
                _ => page.refunds.push(amount),
            }
        }
        books
    }

    /// Waits until every saga is settled, and nobody works on a payment any more: whoever works lets it go after what came
    /// of it can be seen, and the lease of somebody who died runs out.
    pub(crate) async fn settle(&self) {
        let settled = || async {
            let sql = "SELECT COUNT(*) FROM sagas WHERE NOT settled";
            rows(&self.orders, sql).await[0].int(0).unwrap() == 0
        };
        until("all sagas are settled", settled).await;
        let free = || async { self.held().await.is_empty() };
        until("nobody works on a payment", free).await;
    }

    /// Orders whose payments somebody works on.
    async fn held(&self) -> Vec<Uuid> {
        let sql = "SELECT order_id, lease_until FROM payments WHERE lease IS NOT NULL";
        let rows = rows(&self.payments, sql).await;
        rows.iter()
            .filter(|row| row.int(1).unwrap() >= time::now())
            .map(|row| row.id(0).unwrap())
            .collect()
    }

    /// Everything that is wrong with the shop once it is settled, given what was in stock at the beginning.
    pub(crate) async fn faults(&self, stock: &BTreeMap<String, i64>) -> Vec<String> {
        self.settle().await;
        let books = self.read().await;
        let mut faults: Vec<_> = books
            .iter()
            .filter_map(|(order, page)| Some(format!("{order}: {}", page.fault()?)))
            .collect();
        let mut expected = stock.clone();
        for page in books.values().filter(|page| page.saga == "completed") {
            for (product, quantity) in &page.items {
                *expected.get_mut(product).unwrap() -= quantity;
            }
        }
        let sql = "SELECT id, stock, reserved FROM products";
        for row in rows(&self.products, sql).await {
            let product = row.id(0).unwrap().to_string();
            let (there, held) = (row.int(1).unwrap(), row.int(2).unwrap());
            if there != expected[&product] || held != 0 {
                let should = expected[&product];
                faults.push(format!(
                    "product {product}: {there} in stock, {held} held, expected {should} and 0"
                ));
            }
        }
        for order in self.held().await {
            faults.push(format!("the payment of {order} is still held"));
        }
        // Every end is told exactly once.
        let told = "SELECT aggregate_id, COUNT(*) FROM events WHERE type = 'order.confirmed.v1' GROUP BY aggregate_id";
        for row in rows(&self.orders, told).await {
            if row.int(1).unwrap() != 1 {
                faults.push(format!(
                    "{} was confirmed {} times",
                    row.text(0).unwrap(),
                    row.int(1).unwrap()
                ));
            }
        }
        faults
    }
}
