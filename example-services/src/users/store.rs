//! Accounts in the database, and the events of their changes in the same transaction.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use sqlx::AssertSqlSafe;
use tonic::Code;
use uuid::Uuid;

use super::domain::{self, User};
use crate::{
    contracts::users::{Address, UserStatus},
    kit::{
        cache::Cache,
        database::{self, Database, Dialect, Row, Transaction},
        events::{self, Event},
        page::Page,
        refusal::Refusal,
    },
    values,
};

/// What every statement reads, in the order of `read`.
const COLUMNS: &str = "id, email, password_hash, first_name, last_name, street, city, state, zip_code, country, \
                       username, status, profile, preferences, roles, version, created_at, updated_at";

/// Accounts. Clones share the database.
#[derive(Clone, Debug)]
pub struct Store {
    database: Database,
    /// For those who look at somebody. Who may sign in and order is decided by the database alone.
    cache: Cache<Arc<User>>,
}

fn key(id: Uuid) -> String {
    format!("user:{id}")
}

impl Store {
    /// In this database.
    pub fn new(database: Database, cache: Cache<Arc<User>>) -> Self {
        Self { database, cache }
    }

    /// By id, as it was lately, and without the password's hash.
    pub async fn seen(&self, id: Uuid) -> Result<Option<Arc<User>>, Refusal> {
        let read = async {
            let user = self.user(id).await?;
            Ok::<_, Refusal>(user.map(|mut user| {
                user.password_hash.clear();
                Arc::new(user)
            }))
        };
        self.cache.or_read(&key(id), read).await
    }

    /// By id.
    pub async fn user(&self, id: Uuid) -> Result<Option<User>, Refusal> {
        let sql = AssertSqlSafe(format!("SELECT {COLUMNS} FROM users WHERE id = $1"));
        let row = self.database.first(sql, values![id]).await?;
        Ok(row.map(|row| read(&row)).transpose()?)
    }

    /// By login name, in lower case.
    pub async fn by_email(&self, email: &str) -> Result<Option<User>, Refusal> {
        let sql = AssertSqlSafe(format!("SELECT {COLUMNS} FROM users WHERE email = $1"));
        let row = self.database.first(sql, values![email]).await?;
        Ok(row.map(|row| read(&row)).transpose()?)
    }

    /// Those of these ids that exist, in one statement.
    pub async fn users(&self, ids: &[Uuid]) -> Result<Vec<User>, Refusal> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let places: Vec<_> = (1..=ids.len()).map(|place| format!("${place}")).collect();
        let sql = format!(
            "SELECT {COLUMNS} FROM users WHERE id IN ({}) ORDER BY id",
            places.join(", ")
        );
        let ids: Vec<_> = ids.iter().map(|id| database::Value::from(*id)).collect();
        let rows = self.database.fetch(AssertSqlSafe(sql), &ids).await?;
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }

    /// A page of those that have `text` in a name or the address and this status, and how many there are.
    pub async fn search(
        &self,
        text: &str,
        status: UserStatus,
        page: &Page,
    ) -> Result<(Vec<User>, i64), Refusal> {
        let pattern = format!("%{}%", escaped(&text.to_lowercase()));
        let status = (status != UserStatus::Unspecified).then(|| status.as_str_name());
        let found = "FROM users WHERE ($1 = '%%' OR lower(first_name) LIKE $1 ESCAPE '!' OR lower(last_name) LIKE $1 ESCAPE '!' \
                     OR email LIKE $1 ESCAPE '!' OR username LIKE $1 ESCAPE '!') \
                     AND (CAST($2 AS TEXT) IS NULL OR status = $2)";
        let count = AssertSqlSafe(format!("SELECT count(*) {found}"));
        let total = self
            .database
            .first(count, values![&pattern, status])
            .await?;
        let total = total.map_or(Ok(0), |row| row.int(0))?;
        let sql = AssertSqlSafe(format!(
            "SELECT {COLUMNS} {found} {} LIMIT $3 OFFSET $4",
            page.order()
        ));
        let rows = self
            .database
            .fetch(sql, values![&pattern, status, page.limit, page.offset()])
            .await?;
        Ok((rows.iter().map(read).collect::<Result<_, _>>()?, total))
    }

    /// A new account, unless its address or user name is taken. In one transaction with `user.registered`.
    pub async fn create(&self, user: &User, actor: &str) -> Result<(), Refusal> {
        let mut write = self.database.write().await?;
        self.insert(&mut write, user).await?;
        let event = Event {
            kind: "user.registered.v1",
            aggregate_id: &user.id.to_string(),
            version: user.version,
            actor,
        };
        let payload = json!({ "user_id": user.id.to_string() });
        events::append(&mut write, event, &payload, user.created_at).await?;
        Ok(write.commit().await?)
    }

    /// Changes an account by a rule that sees its newest state, and keeps the change with its event. The rule names what
    /// it changed; nothing named, nothing is written.
    pub async fn change(
        &self,
        id: Uuid,
        actor: &str,
        now: i64,
        rule: impl FnOnce(&mut User) -> Result<Vec<&'static str>, Refusal>,
    ) -> Result<User, Refusal> {
        let mut write = self.database.write().await?;
        let lock = match write.dialect() {
            Dialect::Sqlite => "",
            Dialect::Postgres => " FOR UPDATE",
        };
        let sql = AssertSqlSafe(format!("SELECT {COLUMNS} FROM users WHERE id = $1{lock}"));
        let Some(row) = write.first(sql, values![id]).await? else {
            return Err(Refusal::not_found("user", "user_id", &id.to_string()));
        };
        let mut user = read(&row)?;
        let changed = rule(&mut user)?;
        if changed.is_empty() {
            return Ok(user);
        }
        self.update(&mut write, &user).await?;
        // Whoever signed in with what is no longer true must sign in again.
        if !user.is_active() || changed.contains(&"password") {
            let sql =
                "UPDATE sessions SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL";
            write.execute(sql, values![id, now]).await?;
        }
        let event = Event {
            kind: "user.updated.v1",
            aggregate_id: &id.to_string(),
            version: user.version,
            actor,
        };
        let payload = json!({ "user_id": id.to_string(), "changed": changed });
        events::append(&mut write, event, &payload, now).await?;
        let _changing = self.cache.changing(vec![key(id)]);
        write.commit().await?;
        Ok(user)
    }

    /// Whether there is anybody.
    pub async fn is_empty(&self) -> Result<bool, Refusal> {
        Ok(self
            .database
            .first("SELECT 1 FROM users LIMIT 1", &[])
            .await?
            .is_none())
    }

    async fn insert(&self, write: &mut Transaction, user: &User) -> Result<(), Refusal> {
        let sql = "INSERT INTO users (email, password_hash, first_name, last_name, street, city, state, zip_code, country, \
                   username, status, is_active, profile, preferences, roles, version, updated_at, id, created_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)";
        self.put(write, sql, user, true).await
    }

    async fn update(&self, write: &mut Transaction, user: &User) -> Result<(), Refusal> {
        let sql = "UPDATE users SET email = $1, password_hash = $2, first_name = $3, last_name = $4, street = $5, city = $6, \
                   state = $7, zip_code = $8, country = $9, username = $10, status = $11, is_active = $12, profile = $13, \
                   preferences = $14, roles = $15, version = $16, updated_at = $17 WHERE id = $18";
        self.put(write, sql, user, false).await
    }

    async fn put(
        &self,
        write: &mut Transaction,
        sql: &'static str,
        user: &User,
        new: bool,
    ) -> Result<(), Refusal> {
        let address = user.address.as_ref();
        let part = |part: fn(&Address) -> &String| address.map(|address| part(address).as_str());
        let profile = user
            .profile
            .as_ref()
            .map(|profile| domain::profile_to_json(profile).to_string());
        let preferences = user.preferences.as_ref();
        let preferences =
            preferences.map(|preferences| domain::preferences_to_json(preferences).to_string());
        let roles = user.roles.join(",");
        let mut all = values![
            &user.email,
            &user.password_hash,
            &user.first_name,
            &user.last_name,
            part(|address| &address.street),
            part(|address| &address.city),
            part(|address| &address.state),
            part(|address| &address.zip_code),
            part(|address| &address.country),
            &user.username,
            user.status.as_str_name(),
            user.is_active(),
            &profile,
            &preferences,
            &roles,
            user.version,
            user.updated_at,
            user.id,
        ]
        .to_vec();
        if new {
            all.push(user.created_at.into());
        }
        match write.execute(sql, &all).await {
            Ok(_) => Ok(()),
            Err(error) if database::is_duplicate(&error) => Err(taken(&error)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Which of the two names somebody else has. Both databases name the column or its index in their message.
fn taken(error: &sqlx::Error) -> Refusal {
    let field = if error.to_string().contains("username") {
        "username"
    } else {
        "email"
    };
    Refusal::new(
        Code::AlreadyExists,
        &format!("{}_TAKEN", field.to_uppercase()),
        format!("there is a user with this {field} already"),
    )
    .with("field", field)
}

/// `%`, `_` and the escape itself stand for themselves.
fn escaped(text: &str) -> String {
    text.replace('!', "!!")
        .replace('%', "!%")
        .replace('_', "!_")
}

fn read(row: &Row) -> Result<User, sqlx::Error> {
    let json =
        |text: Option<String>| text.and_then(|text| serde_json::from_str::<Json>(&text).ok());
    let address = match row.optional_text(5)? {
        Some(street) => Some(Address {
            street,
            city: row.optional_text(6)?.unwrap_or_default(),
            state: row.optional_text(7)?.unwrap_or_default(),
            zip_code: row.optional_text(8)?.unwrap_or_default(),
            country: row.optional_text(9)?.unwrap_or_default(),
        }),
        None => None,
    };
    Ok(User {
        id: row.id(0)?,
        email: row.text(1)?,
        password_hash: row.text(2)?,
        first_name: row.text(3)?,
        last_name: row.text(4)?,
        address,
        username: row.optional_text(10)?,
        status: UserStatus::from_str_name(&row.text(11)?).unwrap_or_default(),
        profile: json(row.optional_text(12)?).map(|value| domain::profile_from_json(&value)),
        preferences: json(row.optional_text(13)?)
            .map(|value| domain::preferences_from_json(&value)),
        roles: row
            .text(14)?
            .split(',')
            .filter(|role| !role.is_empty())
            .map(str::to_string)
            .collect(),
        version: row.int(15)?,
        created_at: row.int(16)?,
        updated_at: row.int(17)?,
    })
}
