//! The steps of a service's `main` that are the same in all of them, each a function to call.

use std::{future::Future, net::SocketAddr, process::ExitCode};

use super::{
    database::Database,
    log,
    migrations::{self, Migration},
    settings::Settings,
};
use crate::contracts::DESCRIPTORS;

/// Runs a service's `main`: its arguments without the program's name, an error on standard error with code 2.
pub fn exit(main: impl FnOnce(Vec<String>) -> Result<(), String>) -> ExitCode {
    match main(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{}", problem.trim_end());
            ExitCode::from(2)
        }
    }
}

/// Runs the future on a runtime of several threads, which ends with it.
pub fn block_on<T>(future: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the runtime does not start: {error}"))?
        .block_on(future)
}

/// Writes the contracts of all services for a gateway to read.
pub fn write_descriptors(file: &str) -> Result<(), String> {
    std::fs::write(file, DESCRIPTORS).map_err(|error| format!("{file}: {error}"))
}

/// Starts the log as the settings say.
pub fn start_log(settings: &Settings) -> Result<(), String> {
    let json = match settings.text("log_format") {
        "json" => true,
        "text" => false,
        other => return Err(format!("`log_format`: `{other}` is neither json nor text")),
    };
    log::start(
        settings.service(),
        settings.text("environment"),
        settings.text("log_level"),
        json,
    )
}

/// Opens the service's database.
pub async fn open(settings: &Settings) -> Result<Database, String> {
    let address = settings.text("database");
    let patience = settings.span("database_patience")?;
    // The address may hold a password, so it is not in the message.
    Database::open(address, settings.value("readers")?, patience)
        .await
        .map_err(|error| format!("`database`: {error}"))
}

/// Brings the database up to date, unless the settings leave that to somebody else.
pub async fn bring_up(
    settings: &Settings,
    database: &Database,
    versions: &[Migration],
) -> Result<(), String> {
    if settings.value("migrate")? {
        let version = migrations::up(database, versions)
            .await
            .map_err(|error| format!("migrations: {error}"))?;
        log::info("the database is up to date", &[("version", &version)]);
    }
    Ok(())
}

/// `migrate up` and `migrate down`.
pub async fn migrate(
    settings: &Settings,
    versions: &[Migration],
    forward: bool,
) -> Result<(), String> {
    let database = open(settings).await?;
    let version = if forward {
        migrations::up(&database, versions).await
    } else {
        migrations::down(&database, versions).await
    };
    database.close().await;
    let version = version.map_err(|error| format!("migrations: {error}"))?;
    println!("the database is at version {version}");
    Ok(())
}

/// Refuses to be reachable from elsewhere while everyone who reaches us is believed.
pub fn check_open(settings: &Settings, addresses: (SocketAddr, SocketAddr)) -> Result<(), String> {
    let loopback = addresses.0.ip().is_loopback() && addresses.1.ip().is_loopback();
    if loopback || !settings.text("service_token").is_empty() || settings.value("open")? {
        return Ok(());
    }
    Err("beyond loopback the setting `service_token` is needed, because without it everyone who reaches the port is believed; `open = true` allows that".into())
}
