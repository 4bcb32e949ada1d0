//! What several tests need: databases of both kinds, empty, and gone afterwards.

#![allow(dead_code, reason = "each test program uses its part")]

pub(crate) mod books;
pub(crate) mod postgres;
pub(crate) mod service;
pub(crate) mod shop;

use tollgate_example_services::kit::{
    database::Database,
    migrations::{self, Migration},
};

/// An empty database at the newest version. It is gone when this is dropped.
pub(crate) struct Store {
    pub(crate) database: Database,
    pub(crate) address: String,
    _file: Option<tempfile::TempDir>,
    _server: Option<std::sync::Arc<postgres::Server>>,
}

/// One on SQLite, and one on PostgreSQL where its programs are on this machine.
pub(crate) async fn stores(versions: &[Migration]) -> Vec<Store> {
    let mut stores = vec![sqlite(versions).await];
    if let Some(server) = postgres::server() {
        let address = server.database();
        let database = Database::open(&address, 16, shop::PATIENCE).await.unwrap();
        migrations::up(&database, versions).await.unwrap();
        stores.push(Store {
            database,
            address,
            _file: None,
            _server: Some(server),
        });
    }
    stores
}

pub(crate) async fn sqlite(versions: &[Migration]) -> Store {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("sqlite:{}", folder.path().join("store.db").display());
    let database = Database::open(&address, 8, shop::PATIENCE).await.unwrap();
    migrations::up(&database, versions).await.unwrap();
    Store {
        database,
        address,
        _file: Some(folder),
        _server: None,
    }
}
