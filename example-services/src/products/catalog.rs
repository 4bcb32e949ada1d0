//! The catalog in the database: products and categories, and the events of their changes in the same transaction.

use serde_json::json;
use sqlx::AssertSqlSafe;
use tonic::Code;
use uuid::Uuid;

use super::{domain::Product, search::Search};
use crate::{
    contracts::products as wire,
    kit::{
        cache::{Cache, Changing},
        database::{self, Database, Dialect, Row},
        events::{self, Event},
        money::Money,
        refusal::Refusal,
    },
    values,
};

/// What every statement reads, in the order of `read`.
const COLUMNS: &str = "id, name, description, price, category, category_id, sku, image_url, weight, length, width, height, \
                       stock, reserved, version, is_active, shop_id, created_at, updated_at";

/// Products and categories. Clones share the database.
#[derive(Clone, Debug)]
pub struct Catalog {
    database: Database,
    cache: Products,
}

/// Products as they were read lately, for those who look around. What is charged and held is decided by statements alone.
pub type Products = Cache<Product>;

/// These products are about to change, also in stock.
pub(super) fn changing(cache: &Products, ids: impl IntoIterator<Item = Uuid>) -> Changing<Product> {
    cache.changing(ids.into_iter().map(key).collect())
}

fn key(id: Uuid) -> String {
    format!("product:{id}")
}

impl Catalog {
    /// In this database.
    pub fn new(database: Database, cache: Products) -> Self {
        Self { database, cache }
    }

    /// By id, as it was lately.
    pub async fn seen(&self, id: Uuid) -> Result<Option<Product>, Refusal> {
        self.cache.or_read(&key(id), self.product(id)).await
    }

    /// By id.
    pub async fn product(&self, id: Uuid) -> Result<Option<Product>, Refusal> {
        Ok(self.products(&[id]).await?.pop())
    }

    /// Those of these ids that exist, in one statement.
    pub async fn products(&self, ids: &[Uuid]) -> Result<Vec<Product>, Refusal> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let places: Vec<_> = (1..=ids.len()).map(|place| format!("${place}")).collect();
        let sql = format!(
            "SELECT {COLUMNS} FROM products WHERE id IN ({}) ORDER BY id",
            places.join(", ")
        );
        let ids: Vec<_> = ids.iter().map(|id| database::Value::from(*id)).collect();
        let rows = self.database.fetch(AssertSqlSafe(sql), &ids).await?;
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }

    /// A page of what is looked for, and how many there are in all.
    pub async fn search(&self, search: &Search) -> Result<(Vec<Product>, i64), Refusal> {
        let dialect = self.database.dialect();
        let pattern = search.pattern(dialect);
        let (condition, mut values) = search.condition(dialect, pattern.as_deref());
        let count = AssertSqlSafe(format!("SELECT count(*) FROM products{condition}"));
        let total = self.database.first(count, &values).await?;
        let total = total.map_or(Ok(0), |row| row.int(0))?;
        values.push(search.page.limit.into());
        values.push(search.page.offset().into());
        let (limit, offset) = (values.len() - 1, values.len());
        let order = search.page.order();
        let sql = format!(
            "SELECT {COLUMNS} FROM products{condition}{order}LIMIT ${limit} OFFSET ${offset}"
        );
        let rows = self.database.fetch(AssertSqlSafe(sql), &values).await?;
        Ok((rows.iter().map(read).collect::<Result<_, _>>()?, total))
    }

    /// A new product, unless its SKU is taken.
    pub async fn create(&self, product: &Product, actor: &str) -> Result<(), Refusal> {
        let mut write = self.database.write().await?;
        let sql = "INSERT INTO products (name, description, price, category, category_id, sku, image_url, weight, length, \
                   width, height, version, is_active, shop_id, updated_at, id, created_at, stock, reserved) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, 0)";
        let mut all = fields(product);
        all.push(product.created_at.into());
        all.push(product.stock.into());
        write.execute(sql, &all).await.map_err(refused)?;
        let payload = json!({ "product_id": product.id.to_string(), "sku": product.sku });
        let event = event("product.created.v1", product, actor);
        events::append(&mut write, event.as_event(), &payload, product.created_at).await?;
        Ok(write.commit().await?)
    }

    /// Changes a product by a rule that sees its newest state. What is in stock and held is not among what it can change.
    pub async fn change(
        &self,
        id: Uuid,
        actor: &str,
        rule: impl FnOnce(&mut Product) -> Result<(), Refusal>,
    ) -> Result<Product, Refusal> {
        let mut write = self.database.write().await?;
        let lock = match write.dialect() {
            Dialect::Sqlite => "",
            Dialect::Postgres => " FOR UPDATE",
        };
        let sql = AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM products WHERE id = $1{lock}"
        ));
        let Some(row) = write.first(sql, values![id]).await? else {
            return Err(Refusal::not_found("product", "product_id", &id.to_string()));
        };
        let mut product = read(&row)?;
        let before = product.version;
        rule(&mut product)?;
        if product.version == before {
            return Ok(product);
        }
        let sql = "UPDATE products SET name = $1, description = $2, price = $3, category = $4, category_id = $5, sku = $6, \
                   image_url = $7, weight = $8, length = $9, width = $10, height = $11, version = $12, is_active = $13, \
                   shop_id = $14, updated_at = $15 WHERE id = $16";
        write
            .execute(sql, &fields(&product))
            .await
            .map_err(refused)?;
        let payload = json!({ "product_id": id.to_string(), "is_active": product.is_active });
        let event = event("product.updated.v1", &product, actor);
        events::append(&mut write, event.as_event(), &payload, product.updated_at).await?;
        let _changing = changing(&self.cache, [id]);
        write.commit().await?;
        Ok(product)
    }

    /// A new category, unless its name is taken or there is no such parent.
    pub async fn create_category(
        &self,
        category: &wire::Category,
        id: Uuid,
        parent: Option<Uuid>,
    ) -> Result<(), Refusal> {
        let mut write = self.database.write().await?;
        let sql =
            "INSERT INTO categories (id, name, parent_id, description) VALUES ($1, $2, $3, $4)";
        let all = values![id, &category.name, parent, &category.description];
        write.execute(sql, all).await.map_err(refused)?;
        Ok(write.commit().await?)
    }

    /// All of them, by name.
    pub async fn categories(&self) -> Result<Vec<wire::Category>, Refusal> {
        let sql =
            "SELECT id, name, parent_id, description FROM categories ORDER BY name LIMIT 1000";
        let read = |row: Row| {
            Ok::<_, sqlx::Error>(wire::Category {
                category_id: row.id(0)?.to_string(),
                name: row.text(1)?,
                parent_id: row
                    .optional_id(2)?
                    .map(|id| id.to_string())
                    .unwrap_or_default(),
                description: row.text(3)?,
            })
        };
        let rows = self.database.fetch(sql, &[]).await?;
        Ok(rows.into_iter().map(read).collect::<Result<_, _>>()?)
    }

    /// How many products have fewer than this left.
    pub async fn low(&self, least: i64) -> Result<i64, Refusal> {
        let sql = "SELECT count(*) FROM products WHERE is_active = $1 AND stock - reserved < $2";
        let row = self.database.first(sql, values![true, least]).await?;
        Ok(row.map_or(Ok(0), |row| row.int(0))?)
    }

    /// Whether there is nothing.
    pub async fn is_empty(&self) -> Result<bool, Refusal> {
        Ok(self
            .database
            .first("SELECT 1 FROM products LIMIT 1", &[])
            .await?
            .is_none())
    }
}

/// An event that owns its text.
struct Told {
    kind: &'static str,
    id: String,
    version: i64,
    actor: String,
}

impl Told {
    fn as_event(&self) -> Event<'_> {
        Event {
            kind: self.kind,
            aggregate_id: &self.id,
            version: self.version,
            actor: &self.actor,
        }
    }
}

fn event(kind: &'static str, product: &Product, actor: &str) -> Told {
    Told {
        kind,
        id: product.id.to_string(),
        version: product.version,
        actor: actor.into(),
    }
}

/// What is written of a product, without its numbers of stock.
fn fields(product: &Product) -> Vec<database::Value<'_>> {
    let size = product.dimensions.as_ref();
    let part = |part: fn(&wire::Dimensions) -> &String| size.map(|size| part(size).as_str());
    values![
        &product.name,
        &product.description,
        product.price.minor(),
        &product.category,
        product.category_id,
        &product.sku,
        &product.image_url,
        &product.weight,
        part(|size| &size.length),
        part(|size| &size.width),
        part(|size| &size.height),
        product.version,
        product.is_active,
        &product.shop_id,
        product.updated_at,
        product.id,
    ]
    .to_vec()
}

/// A name that is taken, or a category that is not there.
fn refused(error: sqlx::Error) -> Refusal {
    let Some(told) = error.as_database_error() else {
        return error.into();
    };
    if told.is_unique_violation() {
        let field = if told.message().contains("sku") {
            "sku"
        } else {
            "name"
        };
        return Refusal::new(
            Code::AlreadyExists,
            &format!("{}_TAKEN", field.to_uppercase()),
            format!("this {field} is taken already"),
        )
        .with("field", field);
    }
    if told.is_foreign_key_violation() {
        return Refusal::fields(vec![("category_id".into(), "is no category".into())]);
    }
    error.into()
}

fn read(row: &Row) -> Result<Product, sqlx::Error> {
    let dimensions = match row.optional_text(9)? {
        Some(length) => Some(wire::Dimensions {
            length,
            width: row.optional_text(10)?.unwrap_or_default(),
            height: row.optional_text(11)?.unwrap_or_default(),
        }),
        None => None,
    };
    Ok(Product {
        id: row.id(0)?,
        name: row.text(1)?,
        description: row.text(2)?,
        price: Money::from_minor(row.int(3)?),
        category: row.text(4)?,
        category_id: row.optional_id(5)?,
        sku: row.text(6)?,
        image_url: row.optional_text(7)?,
        weight: row.optional_text(8)?,
        dimensions,
        stock: row.int(12)?,
        reserved: row.int(13)?,
        version: row.int(14)?,
        is_active: row.flag(15)?,
        shop_id: row.optional_text(16)?,
        created_at: row.int(17)?,
        updated_at: row.int(18)?,
    })
}
