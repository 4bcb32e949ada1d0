//! What of the catalog somebody looks for, as the conditions of a statement (SHOP-302, SHOP-309).

use uuid::Uuid;

use super::domain;
use crate::{
    contracts::products::{self as wire, ProductStatus},
    kit::{
        database::{Dialect, Value},
        money::Money,
        page::Page,
        refusal::Refusal,
        rules::Fields,
    },
};

/// The columns that a list may be sorted by; the first is the default.
const COLUMNS: [&str; 4] = ["created_at", "updated_at", "price", "name"];

/// What is looked for.
#[derive(Clone, Debug)]
pub struct Search {
    /// Each must be found, as the beginning of a word.
    words: Vec<String>,
    category: Option<String>,
    category_id: Option<Uuid>,
    least: Option<Money>,
    most: Option<Money>,
    status: ProductStatus,
    shop_id: Option<String>,
    /// Which part of what is found.
    pub page: Page,
}

impl Search {
    /// Out of a request; every bad field at once. Only who may see all products sees inactive ones.
    pub fn read(request: &wire::SearchProductsRequest, sees_all: bool) -> Result<Self, Refusal> {
        let mut fields = Fields::default();
        let some = |text: String| (!text.is_empty()).then_some(text);
        let text = fields.text("text", &request.text, 0, 200);
        let price = |fields: &mut Fields, field: &str, text: &str| {
            (!text.is_empty()).then(|| domain::price(fields, field, text))
        };
        let mut status = request.status();
        if !sees_all {
            if status == ProductStatus::Inactive {
                fields.wrong("status", "is for administrators");
            }
            if status == ProductStatus::Unspecified {
                // Both that are in the catalog.
                status = ProductStatus::Active;
            }
        }
        let search = Self {
            words: text
                .split(|letter: char| !letter.is_alphanumeric())
                .filter(|word| !word.is_empty())
                .take(10)
                .map(str::to_lowercase)
                .collect(),
            category: some(fields.text("category", &request.category, 0, 100)),
            category_id: (!request.category_id.is_empty())
                .then(|| fields.id("category_id", &request.category_id)),
            least: price(&mut fields, "min_price", &request.min_price),
            most: price(&mut fields, "max_price", &request.max_price),
            status,
            shop_id: some(fields.text("shop_id", &request.shop_id, 0, 100)),
            page: Page::read(
                &mut fields,
                request.page,
                request.limit,
                &request.sort_by,
                &request.order,
                &COLUMNS,
            ),
        };
        if search.words.is_empty() && !text.is_empty() {
            fields.wrong("text", "has no words");
        }
        if let (Some(least), Some(most)) = (search.least, search.most)
            && least > most
        {
            fields.wrong("min_price", "is more than max_price");
        }
        fields.check()?;
        Ok(search)
    }

    /// The words in the search language of a database. They hold letters and digits only, so nothing in them is syntax.
    pub(super) fn pattern(&self, dialect: Dialect) -> Option<String> {
        if self.words.is_empty() {
            return None;
        }
        let words = self.words.iter();
        Some(match dialect {
            Dialect::Sqlite => words
                .map(|word| format!("\"{word}\"*"))
                .collect::<Vec<_>>()
                .join(" "),
            Dialect::Postgres => words
                .map(|word| format!("{word}:*"))
                .collect::<Vec<_>>()
                .join(" & "),
        })
    }

    /// ` WHERE …`, made of constants only, and the values of its placeholders. `pattern` is [`Search::pattern`].
    pub(super) fn condition<'a>(
        &'a self,
        dialect: Dialect,
        pattern: Option<&'a str>,
    ) -> (String, Vec<Value<'a>>) {
        let mut conditions = Vec::new();
        let mut values: Vec<Value<'a>> = Vec::new();
        let mut add = |condition: &str, value: Value<'a>| {
            values.push(value);
            conditions.push(condition.replace('?', &format!("${}", values.len())));
        };
        if let Some(pattern) = pattern {
            let condition = match dialect {
                Dialect::Sqlite => {
                    "id IN (SELECT product_id FROM product_words WHERE product_words MATCH ?)"
                }
                Dialect::Postgres => "words @@ to_tsquery('simple', ?)",
            };
            add(condition, pattern.into());
        }
        if let Some(category) = &self.category {
            add("category = ?", category.into());
        }
        if let Some(category) = self.category_id {
            add("category_id = ?", category.into());
        }
        if let Some(least) = self.least {
            add("price >= ?", least.minor().into());
        }
        if let Some(most) = self.most {
            add("price <= ?", most.minor().into());
        }
        if let Some(shop) = &self.shop_id {
            add("shop_id = ?", shop.into());
        }
        match self.status {
            ProductStatus::Unspecified => {}
            ProductStatus::Active => add("is_active = ?", true.into()),
            ProductStatus::Inactive => add("is_active = ?", false.into()),
            ProductStatus::OutOfStock => {
                add("is_active = ?", true.into());
                add("stock - reserved <= ?", 0i64.into());
            }
        }
        let text = if conditions.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", conditions.join(" AND "))
        };
        (text, values)
    }
}
