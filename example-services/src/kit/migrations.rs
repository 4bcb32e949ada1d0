//! Versions of a database's tables, forward and back (SHOP-106). Each version is a pair of scripts,
//! `NNN_name.up.sql` and `NNN_name.down.sql`; a table holds which are applied. One version is one transaction, so a kill
//! leaves a version or the next, and two processes that start at once do not both apply it.

use super::{
    database::{Database, Dialect},
    time,
};
use crate::values;

/// One version.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// From 1, without gaps.
    pub version: i64,
    /// The file's name without number.
    pub name: &'static str,
    /// Script forward: for SQLite, for PostgreSQL.
    pub up: [&'static str; 2],
    /// Script back.
    pub down: [&'static str; 2],
}

/// A [`Migration`] of the service's own folder `migrations`: the same scripts for both databases, or with the word
/// `each`, files of their own ending in `.sqlite.sql` and `.postgres.sql`.
#[macro_export]
macro_rules! migration {
    ($version:literal, $file:literal) => {
        $crate::kit::migrations::Migration {
            version: $version,
            name: $file,
            up: [include_str!(concat!("migrations/", $file, ".up.sql")); 2],
            down: [include_str!(concat!("migrations/", $file, ".down.sql")); 2],
        }
    };
    ($version:literal, $file:literal, each) => {
        $crate::kit::migrations::Migration {
            version: $version,
            name: $file,
            up: [
                include_str!(concat!("migrations/", $file, ".up.sqlite.sql")),
                include_str!(concat!("migrations/", $file, ".up.postgres.sql")),
            ],
            down: [
                include_str!(concat!("migrations/", $file, ".down.sqlite.sql")),
                include_str!(concat!("migrations/", $file, ".down.postgres.sql")),
            ],
        }
    };
}

/// The tables of [`idempotency`](super::idempotency) and [`events`](super::events), which every service has as its
/// first version.
pub const KIT: Migration = Migration {
    version: 1,
    name: "001_kit",
    up: [
        include_str!("migrations/001_kit.up.sqlite.sql"),
        include_str!("migrations/001_kit.up.postgres.sql"),
    ],
    down: [include_str!("migrations/001_kit.down.sql"); 2],
};

/// Which scripts of a pair.
fn of(dialect: Dialect, scripts: [&'static str; 2]) -> &'static str {
    match dialect {
        Dialect::Sqlite => scripts[0],
        Dialect::Postgres => scripts[1],
    }
}

/// Applies what is missing, in order, and tells the version reached.
pub async fn up(database: &Database, migrations: &[Migration]) -> Result<i64, sqlx::Error> {
    prepare(database).await?;
    for migration in migrations {
        let mut write = database.write().await?;
        lock(&mut write).await?;
        if current(&mut write).await? >= migration.version {
            continue;
        }
        write.script(of(database.dialect(), migration.up)).await?;
        let applied =
            "INSERT INTO schema_migrations (version, name, applied_at) VALUES ($1, $2, $3)";
        write
            .execute(
                applied,
                values![migration.version, migration.name, time::now()],
            )
            .await?;
        write.commit().await?;
    }
    let mut write = database.write().await?;
    current(&mut write).await
}

/// Takes the newest version back, and tells the version reached. Nothing happens at version 0.
pub async fn down(database: &Database, migrations: &[Migration]) -> Result<i64, sqlx::Error> {
    prepare(database).await?;
    let mut write = database.write().await?;
    lock(&mut write).await?;
    let version = current(&mut write).await?;
    if let Some(migration) = migrations
        .iter()
        .find(|migration| migration.version == version)
    {
        write.script(of(database.dialect(), migration.down)).await?;
        write
            .execute(
                "DELETE FROM schema_migrations WHERE version = $1",
                values![version],
            )
            .await?;
    }
    let version = current(&mut write).await?;
    write.commit().await?;
    Ok(version)
}

async fn prepare(database: &Database) -> Result<(), sqlx::Error> {
    let mut write = database.write().await?;
    write
        .execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations \
             (version BIGINT PRIMARY KEY, name TEXT NOT NULL, applied_at BIGINT NOT NULL)",
            &[],
        )
        .await?;
    write.commit().await
}

/// On SQLite the transaction itself is the lock.
async fn lock(write: &mut super::database::Transaction) -> Result<(), sqlx::Error> {
    if write.dialect() == Dialect::Postgres {
        write
            .execute("LOCK TABLE schema_migrations IN ACCESS EXCLUSIVE MODE", &[])
            .await?;
    }
    Ok(())
}

async fn current(write: &mut super::database::Transaction) -> Result<i64, sqlx::Error> {
    let sql = "SELECT COALESCE(MAX(version), 0) FROM schema_migrations";
    write.first(sql, &[]).await?.map_or(Ok(0), |row| row.int(0))
}
