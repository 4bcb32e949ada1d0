//! One service's database: an SQLite file, or PostgreSQL (PROD-6). Both speak the same SQL here: placeholders `$1`, numbers
//! and times as BIGINT, ids as UUID, so that a store is written once; where they differ, it asks for the [`Dialect`].
//!
//! SQLite has one connection that writes, which takes its turn at once (`BEGIN IMMEDIATE`), and several that read. A
//! transaction that is dropped did nothing.

use std::{str::FromStr, time::Duration};

use sqlx::{Row as _, SqlSafeStr, ValueRef, sqlite};
use uuid::Uuid;

/// Which SQL is spoken, where it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Embedded.
    Sqlite,
    /// A server.
    Postgres,
}

/// A database that is open. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Database(Pools);

#[derive(Clone, Debug)]
enum Pools {
    Sqlite {
        writer: sqlx::SqlitePool,
        readers: sqlx::SqlitePool,
    },
    #[cfg(feature = "postgres")]
    Postgres(sqlx::PgPool),
}

/// Changes that happen together, or not at all.
#[derive(Debug)]
pub struct Transaction(Open);

#[derive(Debug)]
enum Open {
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
    #[cfg(feature = "postgres")]
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
}

/// One row of an answer, read by position.
#[derive(Debug)]
pub struct Row(Kind);

#[derive(Debug)]
enum Kind {
    Sqlite(sqlite::SqliteRow),
    #[cfg(feature = "postgres")]
    Postgres(sqlx::postgres::PgRow),
}

/// What a placeholder stands for. Made with `into()`, or many at once with [`values!`](crate::values).
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// TEXT
    Text(Option<&'a str>),
    /// BIGINT
    Int(Option<i64>),
    /// BOOLEAN
    Bool(bool),
    /// UUID
    Id(Option<Uuid>),
    /// BLOB, BYTEA
    Bytes(Option<&'a [u8]>),
}

/// The values of a statement's placeholders, in order.
#[macro_export]
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$($crate::kit::database::Value::from($value)),*] };
}

impl Database {
    /// `sqlite:PATH` (the file is made), or `postgres://…`. `readers` is how many may read at once; on PostgreSQL, how
    /// many connections there are. `patience` is how long anybody waits for a connection, or for the writer before.
    pub async fn open(
        address: &str,
        readers: u32,
        patience: Duration,
    ) -> Result<Self, sqlx::Error> {
        #[cfg(feature = "postgres")]
        if address.starts_with("postgres:") || address.starts_with("postgresql:") {
            let pool = sqlx::postgres::PgPoolOptions::new()
                .max_connections(readers.max(2))
                .acquire_timeout(patience)
                .connect(address)
                .await?;
            return Ok(Self(Pools::Postgres(pool)));
        }
        let options = sqlite::SqliteConnectOptions::from_str(address)?
            .foreign_keys(true)
            .busy_timeout(patience)
            .synchronous(sqlite::SqliteSynchronous::Normal);
        let pool = |connections| {
            sqlite::SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(patience)
        };
        let journal = sqlite::SqliteJournalMode::Wal;
        let writer = pool(1).connect_with(
            options
                .clone()
                .create_if_missing(true)
                .journal_mode(journal),
        );
        let writer = writer.await?;
        let readers = pool(readers.max(1))
            .connect_with(options.read_only(true))
            .await?;
        Ok(Self(Pools::Sqlite { writer, readers }))
    }

    /// Which SQL this one speaks.
    pub fn dialect(&self) -> Dialect {
        match &self.0 {
            Pools::Sqlite { .. } => Dialect::Sqlite,
            #[cfg(feature = "postgres")]
            Pools::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Begins to write. On SQLite this waits for the writer before.
    pub async fn write(&self) -> Result<Transaction, sqlx::Error> {
        Ok(Transaction(match &self.0 {
            Pools::Sqlite { writer, .. } => {
                Open::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?)
            }
            #[cfg(feature = "postgres")]
            Pools::Postgres(pool) => Open::Postgres(pool.begin().await?),
        }))
    }

    /// Reads outside of a transaction.
    pub async fn fetch(
        &self,
        sql: impl SqlSafeStr,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, sqlx::Error> {
        Ok(match &self.0 {
            Pools::Sqlite { readers, .. } => {
                let rows = sqlite(sql, values).fetch_all(readers).await?;
                rows.into_iter().map(|row| Row(Kind::Sqlite(row))).collect()
            }
            #[cfg(feature = "postgres")]
            Pools::Postgres(pool) => {
                let rows = postgres(sql, values).fetch_all(pool).await?;
                rows.into_iter()
                    .map(|row| Row(Kind::Postgres(row)))
                    .collect()
            }
        })
    }

    /// Reads the first row, if there is one.
    pub async fn first(
        &self,
        sql: impl SqlSafeStr,
        values: &[Value<'_>],
    ) -> Result<Option<Row>, sqlx::Error> {
        Ok(self.fetch(sql, values).await?.into_iter().next())
    }

    /// Whether it answers, over the same connections as requests.
    pub async fn ping(&self) -> Result<(), sqlx::Error> {
        self.fetch("SELECT 1", &[]).await.map(drop)
    }

    /// Lets go of all connections.
    pub async fn close(&self) {
        match &self.0 {
            Pools::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            #[cfg(feature = "postgres")]
            Pools::Postgres(pool) => pool.close().await,
        }
    }
}

impl Transaction {
    /// Which SQL this one speaks.
    pub fn dialect(&self) -> Dialect {
        match &self.0 {
            Open::Sqlite(_) => Dialect::Sqlite,
            #[cfg(feature = "postgres")]
            Open::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Changes something, and tells how many rows.
    pub async fn execute(
        &mut self,
        sql: impl SqlSafeStr,
        values: &[Value<'_>],
    ) -> Result<u64, sqlx::Error> {
        Ok(match &mut self.0 {
            Open::Sqlite(open) => sqlite(sql, values)
                .execute(&mut **open)
                .await?
                .rows_affected(),
            #[cfg(feature = "postgres")]
            Open::Postgres(open) => postgres(sql, values)
                .execute(&mut **open)
                .await?
                .rows_affected(),
        })
    }

    /// Reads within the transaction.
    pub async fn fetch(
        &mut self,
        sql: impl SqlSafeStr,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, sqlx::Error> {
        Ok(match &mut self.0 {
            Open::Sqlite(open) => {
                let rows = sqlite(sql, values).fetch_all(&mut **open).await?;
                rows.into_iter().map(|row| Row(Kind::Sqlite(row))).collect()
            }
            #[cfg(feature = "postgres")]
            Open::Postgres(open) => {
                let rows = postgres(sql, values).fetch_all(&mut **open).await?;
                rows.into_iter()
                    .map(|row| Row(Kind::Postgres(row)))
                    .collect()
            }
        })
    }

    /// Reads the first row, if there is one.
    pub async fn first(
        &mut self,
        sql: impl SqlSafeStr,
        values: &[Value<'_>],
    ) -> Result<Option<Row>, sqlx::Error> {
        Ok(self.fetch(sql, values).await?.into_iter().next())
    }

    /// Runs a script of several statements without values, as migrations are.
    pub(super) async fn script(&mut self, script: &'static str) -> Result<(), sqlx::Error> {
        match &mut self.0 {
            Open::Sqlite(open) => sqlx::raw_sql(script).execute(&mut **open).await.map(drop),
            #[cfg(feature = "postgres")]
            Open::Postgres(open) => sqlx::raw_sql(script).execute(&mut **open).await.map(drop),
        }
    }

    /// Makes it true.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        super::crash::at(&["committing"]);
        match self.0 {
            Open::Sqlite(open) => open.commit().await,
            #[cfg(feature = "postgres")]
            Open::Postgres(open) => open.commit().await,
        }?;
        super::crash::at(&["committed"]);
        Ok(())
    }
}

type Statement<DB> = sqlx::query::Query<'static, DB, <DB as sqlx::Database>::Arguments>;

fn sqlite(sql: impl SqlSafeStr, values: &[Value<'_>]) -> Statement<sqlx::Sqlite> {
    values
        .iter()
        .fold(sqlx::query(sql), |query, value| match *value {
            Value::Text(text) => query.bind(text),
            Value::Int(number) => query.bind(number),
            Value::Bool(flag) => query.bind(flag),
            Value::Id(id) => query.bind(id),
            Value::Bytes(bytes) => query.bind(bytes),
        })
}

#[cfg(feature = "postgres")]
fn postgres(sql: impl SqlSafeStr, values: &[Value<'_>]) -> Statement<sqlx::Postgres> {
    values
        .iter()
        .fold(sqlx::query(sql), |query, value| match *value {
            Value::Text(text) => query.bind(text),
            Value::Int(number) => query.bind(number),
            Value::Bool(flag) => query.bind(flag),
            Value::Id(id) => query.bind(id),
            Value::Bytes(bytes) => query.bind(bytes),
        })
}

/// One column, by whichever database the row came from. Types are the statement's promise: SQLite has no UUID and no
/// BOOLEAN of its own that could be compared with.
macro_rules! column {
    ($name:ident, $optional:ident, $type:ty, $about:literal) => {
        #[doc = $about]
        pub fn $name(&self, at: usize) -> Result<$type, sqlx::Error> {
            match &self.0 {
                Kind::Sqlite(row) => row.try_get_unchecked(at),
                #[cfg(feature = "postgres")]
                Kind::Postgres(row) => row.try_get_unchecked(at),
            }
        }

        #[doc = concat!($about, " Or nothing.")]
        pub fn $optional(&self, at: usize) -> Result<Option<$type>, sqlx::Error> {
            let nothing = match &self.0 {
                Kind::Sqlite(row) => row.try_get_raw(at)?.is_null(),
                #[cfg(feature = "postgres")]
                Kind::Postgres(row) => row.try_get_raw(at)?.is_null(),
            };
            if nothing {
                Ok(None)
            } else {
                self.$name(at).map(Some)
            }
        }
    };
}

impl Row {
    column!(text, optional_text, String, "TEXT.");
    column!(int, optional_int, i64, "BIGINT.");
    column!(flag, optional_flag, bool, "BOOLEAN.");
    column!(id, optional_id, Uuid, "UUID.");
    column!(bytes, optional_bytes, Vec<u8>, "BLOB or BYTEA.");
}

macro_rules! value_from {
    ($type:ty, $value:ident => $made:expr) => {
        impl<'a> From<$type> for Value<'a> {
            fn from($value: $type) -> Self {
                $made
            }
        }
    };
}

value_from!(&'a str, value => Self::Text(Some(value)));
value_from!(&'a String, value => Self::Text(Some(value)));
value_from!(Option<&'a str>, value => Self::Text(value));
value_from!(&'a Option<String>, value => Self::Text(value.as_deref()));
value_from!(i64, value => Self::Int(Some(value)));
value_from!(i32, value => Self::Int(Some(value.into())));
value_from!(Option<i64>, value => Self::Int(value));
value_from!(bool, value => Self::Bool(value));
value_from!(Uuid, value => Self::Id(Some(value)));
value_from!(Option<Uuid>, value => Self::Id(value));
value_from!(&'a [u8], value => Self::Bytes(Some(value)));
value_from!(Option<&'a [u8]>, value => Self::Bytes(value));

/// Whether somebody else held what was needed for too long, or PostgreSQL asks to do it again.
pub fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    // SQLITE_BUSY and its kinds; serialization failure, deadlock, lock not available.
    matches!(
        code.as_deref(),
        Some("5" | "261" | "517" | "773" | "6" | "40001" | "40P01" | "55P03")
    )
}

/// Whether a value exists already that may exist only once.
pub fn is_duplicate(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.is_unique_violation())
}
