//! What a product and a reservation are, and what may be written into them (SHOP-301, SHOP-305). Pure.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::{
    contracts::products::{self as wire, ProductStatus, ReservationState},
    kit::{money::Money, refusal::Refusal, rules::Fields, time},
};

/// The most of one product that there can be, or that can be asked for.
const MOST: i32 = 1_000_000_000;

/// A product.
#[derive(Clone, Debug, PartialEq)]
pub struct Product {
    /// Its name everywhere.
    pub id: Uuid,
    /// For people.
    pub name: String,
    /// For people.
    pub description: String,
    /// Of one.
    pub price: Money,
    /// As text.
    pub category: String,
    /// In the tree.
    pub category_id: Option<Uuid>,
    /// The seller's own name of it, unique.
    pub sku: String,
    /// A picture.
    pub image_url: Option<String>,
    /// In kilograms, an exact decimal.
    pub weight: Option<String>,
    /// In centimetres, exact decimals.
    pub dimensions: Option<wire::Dimensions>,
    /// How many there are.
    pub stock: i64,
    /// How many of them are held for open orders.
    pub reserved: i64,
    /// Rises with each change.
    pub version: i64,
    /// In the catalog.
    pub is_active: bool,
    /// Who sells it.
    pub shop_id: Option<String>,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub updated_at: i64,
}

impl Product {
    /// A new one out of a request; every bad field at once.
    pub fn new(request: &wire::CreateProductRequest, id: Uuid, now: i64) -> Result<Self, Refusal> {
        let mut fields = Fields::default();
        let product = Self {
            id,
            name: fields.text("name", &request.name, 1, 255),
            description: fields.text("description", &request.description, 1, 10_000),
            price: price(&mut fields, "price", &request.price),
            category: fields.text("category", &request.category, 1, 100),
            category_id: optional_id(&mut fields, &request.category_id),
            sku: sku(&mut fields, &request.sku),
            image_url: web(&mut fields, &request.image_url),
            weight: decimal(&mut fields, "weight", &request.weight),
            dimensions: request
                .dimensions
                .as_ref()
                .and_then(|given| dimensions(&mut fields, given)),
            stock: fields.number("stock_quantity", request.stock_quantity, 0, MOST),
            reserved: 0,
            version: 1,
            is_active: true,
            shop_id: shop(&mut fields, &request.shop_id),
            created_at: now,
            updated_at: now,
        };
        fields.check()?;
        Ok(product)
    }

    /// Applies what a request changes; nothing when it is meant for another version.
    pub fn change(
        &mut self,
        request: &wire::UpdateProductRequest,
        now: i64,
    ) -> Result<(), Refusal> {
        if request
            .version
            .is_some_and(|version| i64::from(version) != self.version)
        {
            return Err(Refusal::new(
                tonic::Code::Aborted,
                "VERSION_CONFLICT",
                "the product was changed meanwhile; read it again",
            )
            .with("version", self.version));
        }
        let mut fields = Fields::default();
        if let Some(value) = &request.name {
            self.name = fields.text("name", value, 1, 255);
        }
        if let Some(value) = &request.description {
            self.description = fields.text("description", value, 1, 10_000);
        }
        if let Some(value) = &request.price {
            self.price = price(&mut fields, "price", value);
        }
        if let Some(value) = &request.category {
            self.category = fields.text("category", value, 1, 100);
        }
        if let Some(value) = &request.category_id {
            self.category_id = optional_id(&mut fields, value);
        }
        if let Some(value) = &request.sku {
            self.sku = sku(&mut fields, value);
        }
        if let Some(value) = &request.image_url {
            self.image_url = web(&mut fields, value);
        }
        if let Some(value) = &request.weight {
            self.weight = decimal(&mut fields, "weight", value);
        }
        if let Some(value) = &request.dimensions {
            self.dimensions = dimensions(&mut fields, value);
        }
        if let Some(value) = &request.shop_id {
            self.shop_id = shop(&mut fields, value);
        }
        if let Some(value) = request.is_active {
            self.is_active = value;
        }
        fields.check()?;
        self.version += 1;
        self.updated_at = now;
        Ok(())
    }

    /// How many can still be had.
    pub fn available(&self) -> i64 {
        (self.stock - self.reserved).max(0)
    }

    /// As the contract tells it.
    pub fn to_wire(&self, currency: &str) -> wire::Product {
        let status = match (self.is_active, self.available()) {
            (false, _) => ProductStatus::Inactive,
            (true, 0) => ProductStatus::OutOfStock,
            (true, _) => ProductStatus::Active,
        };
        wire::Product {
            product_id: self.id.to_string(),
            name: self.name.clone(),
            description: self.description.clone(),
            price: self.price.to_string(),
            currency: currency.into(),
            category: self.category.clone(),
            category_id: self
                .category_id
                .map(|id| id.to_string())
                .unwrap_or_default(),
            sku: self.sku.clone(),
            image_url: self.image_url.clone().unwrap_or_default(),
            weight: self.weight.clone().unwrap_or_default(),
            dimensions: self.dimensions.clone(),
            stock_quantity: narrow(self.stock),
            reserved_quantity: narrow(self.reserved),
            available_quantity: narrow(self.available()),
            version: narrow(self.version),
            created_at: Some(time::timestamp(self.created_at)),
            updated_at: Some(time::timestamp(self.updated_at)),
            is_active: self.is_active,
            shop_id: self.shop_id.clone().unwrap_or_default(),
            status: status.into(),
        }
    }
}

/// What an order holds of one product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Of which.
    pub product: Uuid,
    /// How many.
    pub quantity: i64,
    /// What one cost when it was held.
    pub unit_price: Money,
}

/// What an order holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Its name.
    pub id: Uuid,
    /// Whose; an order has one.
    pub order: Uuid,
    /// By product id.
    pub items: Vec<Held>,
    /// What became of it.
    pub state: ReservationState,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970; means something only while it is held.
    pub expires_at: i64,
}

impl Reservation {
    /// Whether it is for just these.
    pub fn is_for(&self, items: &Wanted) -> bool {
        let held = self.items.iter().map(|held| (held.product, held.quantity));
        held.eq(items
            .0
            .iter()
            .map(|(product, quantity)| (*product, *quantity)))
    }

    /// It can no longer become what was asked.
    pub fn ended(&self) -> Refusal {
        Refusal::new(
            tonic::Code::FailedPrecondition,
            "RESERVATION_ENDED",
            "what was held for this order is no longer held",
        )
        .with("order_id", self.order)
        .with("state", self.state.as_str_name())
    }

    /// As the contract tells it.
    pub fn to_wire(&self, currency: &str) -> wire::Reservation {
        let item = |held: &Held| wire::ReservedItem {
            product_id: held.product.to_string(),
            quantity: narrow(held.quantity),
            unit_price: held.unit_price.to_string(),
        };
        wire::Reservation {
            reservation_id: self.id.to_string(),
            order_id: self.order.to_string(),
            items: self.items.iter().map(item).collect(),
            state: self.state.into(),
            created_at: Some(time::timestamp(self.created_at)),
            expires_at: Some(time::timestamp(self.expires_at)),
            currency: currency.into(),
        }
    }
}

/// What an order wants, by product id: everybody takes products in this order, so that no two wait for each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted(pub BTreeMap<Uuid, i64>);

impl Wanted {
    /// Out of a request. A product that is named twice is wanted as often as both say.
    pub fn read(fields: &mut Fields, items: &[wire::Item]) -> Self {
        let mut wanted = BTreeMap::new();
        if items.is_empty() {
            fields.wrong("items", "is empty");
        }
        if items.len() > 100 {
            fields.wrong("items", "has more than 100 items");
        }
        for (at, item) in items.iter().take(100).enumerate() {
            let product = fields.id(&format!("items[{at}].product_id"), &item.product_id);
            let quantity =
                fields.number(&format!("items[{at}].quantity"), item.quantity, 1, 10_000);
            *wanted.entry(product).or_insert(0) += quantity;
        }
        Self(wanted)
    }
}

/// Too few of a product (SHOP-303).
pub fn insufficient(product: Uuid, available: i64, requested: i64) -> Refusal {
    Refusal::new(
        tonic::Code::FailedPrecondition,
        "INSUFFICIENT_STOCK",
        "there is not enough of a product; order fewer of it",
    )
    .with("product_id", product)
    .with("available", available)
    .with("requested", requested)
}

/// Not sold (any more).
pub fn unavailable(product: Uuid) -> Refusal {
    Refusal::new(
        tonic::Code::FailedPrecondition,
        "PRODUCT_UNAVAILABLE",
        "a product is not in the catalog",
    )
    .with("product_id", product)
}

/// Counts as contracts carry them.
pub(super) fn narrow(count: i64) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// A price; zero beside a complaint.
pub(super) fn price(fields: &mut Fields, field: &str, text: &str) -> Money {
    let price = if text.is_empty() {
        Err("is missing")
    } else {
        Money::parse(text)
    };
    fields.take(field, price).unwrap_or_default()
}

fn sku(fields: &mut Fields, text: &str) -> String {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !(1..=64).contains(&text.len()) || !text.bytes().all(good) {
        fields.wrong(
            "sku",
            if text.is_empty() {
                "is missing"
            } else {
                "must be at most 64 letters, digits, `.`, `_` or `-`"
            },
        );
    }
    text.into()
}

fn web(fields: &mut Fields, text: &str) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    fields.web_address("image_url", text);
    Some(text.into())
}

fn shop(fields: &mut Fields, text: &str) -> Option<String> {
    let text = fields.text("shop_id", text, 0, 100);
    (!text.is_empty()).then_some(text)
}

fn optional_id(fields: &mut Fields, text: &str) -> Option<Uuid> {
    (!text.is_empty()).then(|| fields.id("category_id", text))
}

/// Up to six digits and three decimals, kept as they were written.
fn decimal(fields: &mut Fields, field: &str, text: &str) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str, most| {
        (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !digits(whole, 6) || !digits(fraction, 3) {
        fields.wrong(field, "is no decimal number such as 12.5");
    }
    Some(text.into())
}

fn dimensions(fields: &mut Fields, given: &wire::Dimensions) -> Option<wire::Dimensions> {
    if *given == wire::Dimensions::default() {
        return None;
    }
    let mut part = |name: &str, text: &str| {
        let field = format!("dimensions.{name}");
        if text.is_empty() {
            fields.wrong(&field, "is missing");
        }
        decimal(fields, &field, text).unwrap_or_default()
    };
    Some(wire::Dimensions {
        length: part("length", &given.length),
        width: part("width", &given.width),
        height: part("height", &given.height),
    })
}
