//! One customer: signs up and in, then browses and orders over one keep-alive connection, as whoever uses the shop would.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use serde_json::{Value, json};

use crate::load::{Got, Wire};
use crate::summary::Failure;

const PASSWORD: &str = "correct-horse-1";
/// Enough for any run; the sample data have 1,000 of each.
const STOCK: i64 = 1_000_000;

/// What a customer does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A page of products, or one of them.
    Browse,
    /// A saga over four services.
    Order,
}

/// What all customers know.
pub(super) struct Shop {
    gateway: SocketAddr,
    products: Vec<String>,
}

impl Shop {
    /// Looks around, and as an administrator makes sure that nothing is sold out.
    pub(super) async fn open(gateway: SocketAddr, from: IpAddr) -> io::Result<Shop> {
        let mut wire = Wire::open(from, gateway).await?;
        let token = sign_in(&mut wire, "admin@shop.example").await?;
        let found = wire
            .ask(&request("GET", "/products?limit=100", "", ""))
            .await;
        let found = good(found, "the list of products")?;
        let ids = found["data"].as_array().into_iter().flatten();
        let products: Vec<_> = ids
            .filter_map(|product| text(&product["product_id"]))
            .collect();
        if products.is_empty() {
            return Err(io::Error::other(format!("no products are listed: {found}")));
        }
        for product in &products {
            let more = json!({ "change": STOCK, "reason": "a benchmark" }).to_string();
            let path = format!("/products/{product}/stock");
            let told = wire.ask(&request("POST", &path, &token, &more)).await;
            good(told, "more stock")?;
        }
        Ok(Shop { gateway, products })
    }
}

/// One who signed up and in.
pub(super) struct Customer {
    shop: Rc<Shop>,
    from: IpAddr,
    pub(super) number: usize,
    token: String,
    /// `None` after it broke.
    wire: Option<Wire>,
    turn: usize,
}

impl Customer {
    pub(super) async fn sign_up(
        shop: Rc<Shop>,
        from: IpAddr,
        number: usize,
    ) -> io::Result<Customer> {
        let mut wire = Wire::open(from, shop.gateway).await?;
        let email = format!("customer-{number}@shop.example");
        let account = json!({ "email": email, "password": PASSWORD, "first_name": "Customer", "last_name": number.to_string() });
        let told = wire
            .ask(&request("POST", "/users", "", &account.to_string()))
            .await;
        good(told, "a new account")?;
        let token = sign_in(&mut wire, &email).await?;
        Ok(Customer {
            shop,
            from,
            number,
            token,
            wire: Some(wire),
            turn: 0,
        })
    }

    /// One request; its status when there is an answer.
    pub(super) async fn ask(&mut self, kind: Kind) -> Result<u16, Failure> {
        self.turn += 1;
        let products = &self.shop.products;
        let product = &products[(self.number + self.turn) % products.len()];
        let request = match kind {
            Kind::Browse if self.turn.is_multiple_of(2) => {
                request("GET", "/products?limit=10", &self.token, "")
            }
            Kind::Browse => request("GET", &format!("/products/{product}"), &self.token, ""),
            Kind::Order => {
                let key = format!("{}-{}", self.number, self.turn);
                request("POST", "/orders", &self.token, &order(product, &key))
            }
        };
        // Taken out, so that a request that is given up half-way leaves no connection on which its answer still comes.
        let mut wire = match self.wire.take() {
            Some(wire) => wire,
            None => Wire::open(self.from, self.shop.gateway)
                .await
                .map_err(|_| Failure::Connect)?,
        };
        let answer = wire.ask(&request).await?;
        self.wire = (!wire.closes).then_some(wire);
        Ok(answer.status)
    }
}

fn order(product: &str, key: &str) -> String {
    json!({
        "items": [{ "product_id": product, "quantity": 1 }],
        "payment_method": "card",
        "shipping_address": { "street": "1 Main St", "city": "Springfield", "state": "IL", "zip_code": "62701", "country": "USA" },
        "idempotency_key": key,
    })
    .to_string()
}

async fn sign_in(wire: &mut Wire, email: &str) -> io::Result<String> {
    let who = json!({ "email": email, "password": PASSWORD }).to_string();
    let told = wire.ask(&request("POST", "/auth/login", "", &who)).await;
    let told = good(told, "a sign-in")?;
    text(&told["data"]["access_token"])
        .ok_or_else(|| io::Error::other(format!("a sign-in gave no token: {told}")))
}

/// A whole request, with the shop's key for tests.
fn request(method: &str, path: &str, token: &str, body: &str) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: shop\r\nx-api-key: test-key\r\n");
    if !token.is_empty() {
        text += &format!("authorization: Bearer {token}\r\n");
    }
    if !body.is_empty() {
        let length = body.len();
        text += &format!("content-type: application/json\r\ncontent-length: {length}\r\n");
    }
    (text + "\r\n" + body).into_bytes()
}

/// What must have worked before anything is measured.
fn good(answer: Result<Got, Failure>, what: &str) -> io::Result<Value> {
    let answer =
        answer.map_err(|failure| io::Error::other(format!("{what} had no answer: {failure:?}")))?;
    let said = String::from_utf8_lossy(&answer.body);
    match answer.status {
        200..=201 => serde_json::from_str(&said).map_err(io::Error::other),
        status => Err(io::Error::other(format!(
            "{what} was answered {status}: {said}"
        ))),
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(ToOwned::to_owned)
}
