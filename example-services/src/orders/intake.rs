//! New orders: from a request to a saga that runs, once for each request (SHOP-403, SHOP-510, SHOP-606).
//!
//! The claim of the request's key and the saga are one transaction, so there is never one without the other, and nobody
//! ever meets a claim without an answer: the answer is the order's id, and what became of it is the saga's to tell.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::{
    conductor::Conductor,
    domain::{Address, Line, SHIPPING},
    partners::payments_away,
    saga::{Asked, Saga},
};
use crate::{
    contracts::orders as contract,
    kit::{
        idempotency::{self, Claim},
        refusal::Refusal,
        rules::Fields,
        time,
    },
};

/// Two identical orders without a key of their own within this are one: a double click.
const DOUBLE_CLICK: Duration = Duration::from_secs(10);

/// Checks the fields of an order, all at once (SHOP-805).
pub(super) fn read(request: &contract::CreateOrderRequest, user: &str) -> Result<Asked, Refusal> {
    let mut fields = Fields::default();
    if user.is_empty() {
        fields.wrong("user_id", "is missing");
    }
    if request.items.is_empty() || request.items.len() > 50 {
        fields.wrong("items", "needs 1 to 50 items");
    }
    let mut lines: Vec<Line> = Vec::new();
    for (index, item) in request.items.iter().take(50).enumerate() {
        let product = fields.id(&format!("items[{index}].product_id"), &item.product_id);
        let quantity = fields.number(&format!("items[{index}].quantity"), item.quantity, 1, 100);
        let product_id = product.to_string();
        if lines.iter().any(|line| line.product_id == product_id) {
            fields.wrong(&format!("items[{index}].product_id"), "is listed twice");
        }
        lines.push(Line {
            product_id,
            quantity,
            unit_price: 0,
        });
    }
    let given = request.shipping_address.clone();
    if given.is_none() {
        fields.wrong("shipping_address", "is missing");
    }
    let address = given.map(|given| {
        let address = Address {
            street: fields.text("shipping_address.street", &given.street, 1, 200),
            city: fields.text("shipping_address.city", &given.city, 1, 100),
            state: given.state.trim().into(),
            zip_code: given.zip_code.trim().into(),
            country: given.country,
        };
        fields.three_letters("shipping_address.country", &address.country);
        let (state, zip) = (&address.state, &address.zip_code);
        fields.region("shipping_address.", state, zip, &address.country);
        address
    });
    let way = match contract::ShippingMethod::try_from(request.shipping_method) {
        Ok(contract::ShippingMethod::Unspecified) => SHIPPING[0],
        Ok(method) => SHIPPING
            .into_iter()
            .find(|known| *known == method.as_str_name())
            .unwrap_or(SHIPPING[0]),
        Err(_) => {
            fields.wrong("shipping_method", "must be standard, express or overnight");
            SHIPPING[0]
        }
    };
    let asked = Asked {
        lines,
        address: address.unwrap_or_default(),
        payment_method: fields.text("payment_method", &request.payment_method, 1, 100),
        payment_token: fields.text("payment_token", &request.payment_token, 0, 200),
        shipping_method: way.into(),
        notes: fields.text("notes", &request.notes, 0, 500),
    };
    fields.text("idempotency_key", &request.idempotency_key, 0, 200);
    fields.check()?;
    Ok(asked)
}

impl Conductor {
    /// Starts the saga of an order, or finds the one that the same request started before. The order's id.
    pub(super) async fn accept(
        &self,
        user: &str,
        tenant: &str,
        key: Option<&str>,
        asked: Asked,
    ) -> Result<Uuid, Refusal> {
        let hash = idempotency::hash(&json!({
            "user": user,
            "asked": serde_json::to_value(&asked).map_err(|_| Refusal::internal())?,
        }));
        let now = time::now();
        let operation = match key {
            Some(key) => idempotency::client_key(user, "createorder", key),
            None => idempotency::client_key(user, "createorder:content", &hash),
        };
        let mut write = self.database.write().await?;
        match idempotency::claim(&mut write, &operation, &hash, now).await? {
            Claim::Ours => {}
            Claim::Done(answer) => {
                return Uuid::from_slice(&answer).map_err(|_| Refusal::internal());
            }
            Claim::Refused(refusal) => return Err(refusal),
            Claim::InProgress => return Err(idempotency::in_progress()),
        }
        // Known requests are answered also when there is no room for new ones.
        self.admit()?;
        if !self.queues() && self.partners.payments_rest() {
            // Nothing is held for what cannot be paid (SHOP-511).
            return Err(payments_away());
        }
        let mut saga = Saga::new(user, &operation, asked, now);
        saga.tenant = tenant.into();
        saga.begin(now);
        let lease = self.insert(&mut write, &saga).await?;
        let order = saga.order_id;
        let until = match key {
            Some(_) => time::after(now, idempotency::KEPT),
            None => time::after(now, DOUBLE_CLICK),
        };
        idempotency::complete_until(&mut write, &operation, order.as_bytes(), now, until).await?;
        write.commit().await?;
        self.drive(saga, lease);
        Ok(order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> contract::CreateOrderRequest {
        contract::CreateOrderRequest {
            user_id: "u".into(),
            items: vec![contract::NewItem {
                product_id: Uuid::nil().to_string(),
                quantity: 1,
            }],
            shipping_address: Some(contract::Address {
                street: "1 Main St".into(),
                city: "Springfield".into(),
                state: "IL".into(),
                zip_code: "62701".into(),
                country: "USA".into(),
            }),
            payment_method: "card".into(),
            ..contract::CreateOrderRequest::default()
        }
    }

    /// SHOP-805: each rule has a case that breaks it, and names its field.
    #[test]
    fn every_rule_refuses() {
        type Change = fn(&mut contract::CreateOrderRequest);
        let address = |request: &mut contract::CreateOrderRequest| {
            request.shipping_address.get_or_insert_default().clone()
        };
        assert!(read(&request(), "u").is_ok() && address(&mut request()).city == "Springfield");
        let cases: [(&str, Change); 14] = [
            ("items", |request| request.items.clear()),
            ("items", |request| {
                request.items = vec![request.items[0].clone(); 51];
            }),
            ("items[0].product_id", |request| {
                request.items[0].product_id = "x".into();
            }),
            ("items[0].quantity", |request| request.items[0].quantity = 0),
            ("items[0].quantity", |request| {
                request.items[0].quantity = 101;
            }),
            ("items[1].product_id", |request| {
                request.items.push(request.items[0].clone());
            }),
            ("shipping_address", |request| {
                request.shipping_address = None
            }),
            ("shipping_address.street", |request| {
                request.shipping_address.as_mut().unwrap().street = " ".into();
            }),
            ("shipping_address.city", |request| {
                request.shipping_address.as_mut().unwrap().city = "x".repeat(101);
            }),
            ("shipping_address.state", |request| {
                request.shipping_address.as_mut().unwrap().state = "Illinois".into();
            }),
            ("shipping_address.zip_code", |request| {
                request.shipping_address.as_mut().unwrap().zip_code = "1234".into();
            }),
            ("shipping_address.country", |request| {
                request.shipping_address.as_mut().unwrap().country = "US".into();
            }),
            ("shipping_method", |request| request.shipping_method = 9),
            ("notes", |request| request.notes = "x".repeat(501)),
        ];
        for (field, change) in cases {
            let mut broken = request();
            change(&mut broken);
            let refusal = read(&broken, "u").unwrap_err();
            let named = refusal.bad_fields().iter().any(|(name, _)| name == field);
            assert!(named, "{field}: {refusal:?}");
        }
    }
}
