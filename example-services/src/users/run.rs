//! The program: settings, the database, the service, its upkeep, and the two ports.

use std::time::Duration;

use tonic::service::Routes;

use super::{
    MIGRATIONS,
    grpc::{self, Users},
    http,
    passwords::Passwords,
    sample,
    sessions::Sessions,
    store::Store,
    tokens::{Key as SigningKey, Tokens},
};
use crate::{
    contracts::users::{CreateUserRequest, users_service_server::UsersServiceServer},
    kit::{
        cache::{self, Cache},
        caller::Trust,
        database::Database,
        events,
        health::Health,
        idempotency,
        listen::{Ports, Served},
        log,
        metrics::Metrics,
        program,
        settings::{self, COMMON, Command, Key, Settings, key},
        stop, time,
    },
    values,
};

const SERVICE: &str = "users";

const KEYS: [Key; 20] = [
    key("http", "127.0.0.1:8001", "address for HTTP"),
    key("grpc", "127.0.0.1:9001", "address for gRPC"),
    key(
        "database",
        "sqlite:users.db",
        "sqlite:PATH, or postgres://…",
    ),
    key(
        "cache_users",
        "1000",
        "how many users are kept in memory for those who look at them; 0: none",
    ),
    key(
        "cache_lifetime",
        "30s",
        "how long at most, which matters when several processes share the database",
    ),
    key(
        "admin_email",
        "",
        "an administrator to make at start, if there is nobody of this address",
    ),
    key("admin_password", "", "their password"),
    key(
        "token_algorithm",
        "EdDSA",
        "EdDSA (its public key is told as a JWKS) or HS256",
    ),
    key("token_secret", "", "the secret of HS256, at least 32 bytes"),
    key(
        "token_key",
        "",
        "file with the Ed25519 key of EdDSA; empty: one is made and kept in the database",
    ),
    key("token_issuer", "https://users.shop.example", "claim iss"),
    key("token_audience", "shop", "claim aud"),
    key("token_tenant", "default", "claim tenant"),
    key("token_lifetime", "15m", "how long an access token is good"),
    key(
        "refresh_lifetime",
        "7d",
        "how long a session lasts that is not used",
    ),
    key("password_memory", "19456", "memory of one hashing, in KiB"),
    key("password_rounds", "2", "rounds of one hashing"),
    key("password_threads", "2", "how many are hashed at once"),
    key(
        "password_queue",
        "64",
        "how many wait for that; more are turned away",
    ),
    key("events_kept", "7d", "how long events can be read"),
];

/// Runs the program with these arguments.
pub fn main(arguments: Vec<String>) -> Result<(), String> {
    let keys: [&[Key]; 2] = [&KEYS, &COMMON];
    let (command, settings) =
        Settings::read(SERVICE, &keys, arguments, |name| std::env::var(name).ok())?;
    match command {
        Command::Run => program::block_on(serve(settings)),
        Command::Migrate { up } => program::block_on(program::migrate(&settings, &MIGRATIONS, up)),
        Command::Descriptors(file) => program::write_descriptors(&file),
        Command::Help => {
            print!("{}", settings::help(SERVICE, &keys));
            Ok(())
        }
    }
}

async fn serve(settings: Settings) -> Result<(), String> {
    program::start_log(&settings)?;
    let stop = stop::by_signal().map_err(|error| error.to_string())?;
    let ports = Ports::bind(settings.text("http"), settings.text("grpc")).await?;
    let addresses = ports.addresses().map_err(|error| error.to_string())?;
    program::check_open(&settings, addresses)?;
    let database = program::open(&settings).await?;
    program::bring_up(&settings, &database, &MIGRATIONS).await?;

    let metrics = Metrics::new(SERVICE);
    let (registered, logins) = grpc::counters(&metrics);
    let cache = Cache::new(
        "user",
        settings.value("cache_users")?,
        settings.span("cache_lifetime")?,
        &cache::counters(&metrics),
    );
    let users = Users {
        store: Store::new(database.clone(), cache),
        sessions: Sessions::new(database.clone(), settings.span("refresh_lifetime")?),
        passwords: Passwords::new(
            settings.value("password_memory")?,
            settings.value("password_rounds")?,
            settings.value("password_threads")?,
            settings.value("password_queue")?,
        )?,
        tokens: tokens(&settings, &database).await?,
        trust: Trust::new(settings.text("service_token")),
        registered,
        logins,
    };
    first_people(&settings, &users).await?;

    let kept = settings.span("events_kept")?;
    let (sessions, swept) = (users.sessions.clone(), database.clone());
    // Ends with the stop; what it is at is finished first, or cut with the process, which does no harm.
    tokio::spawn(stop.clone().every(Duration::from_secs(60), move || {
        let (sessions, database) = (sessions.clone(), swept.clone());
        async move {
            let now = time::now();
            let done = async {
                sessions.sweep(now).await?;
                idempotency::sweep(&database, now).await?;
                events::sweep(&database, now - kept.as_millis() as i64)
                    .await
                    .map_err(crate::kit::refusal::Refusal::from)
            };
            if let Err(refusal) = done.await {
                log::warn(
                    "what is over was not forgotten",
                    &[("error", &refusal.message())],
                );
            }
        }
    }));

    let trust = users.trust.clone();
    let pages =
        http::router(users.tokens.clone()).merge(events::router(database.clone(), trust.clone()));
    let mut routes = Routes::builder();
    routes.add_service(UsersServiceServer::new(users));
    let served = Served {
        service: SERVICE,
        contract: "users.v1.UsersService",
        routes,
        pages,
        health: Health::new(SERVICE, database.clone()),
        metrics,
        trust,
        drain: settings.span("drain")?,
    };
    let ended = ports.serve(served, stop).await;
    database.close().await;
    ended
}

async fn first_people(settings: &Settings, users: &Users) -> Result<(), String> {
    let failed = |refusal: crate::kit::refusal::Refusal| format!("{refusal:?}");
    if settings.value("sample_data")? {
        sample::fill(users).await.map_err(failed)?;
    }
    let email = settings.text("admin_email").to_lowercase();
    if !email.is_empty()
        && users
            .store
            .by_email(&email)
            .await
            .map_err(failed)?
            .is_none()
    {
        let request = CreateUserRequest {
            email,
            password: settings.text("admin_password").into(),
            first_name: "Admin".into(),
            last_name: "Admin".into(),
            ..Default::default()
        };
        users
            .register(&request, &["admin"], "settings")
            .await
            .map_err(failed)?;
    }
    Ok(())
}

async fn tokens(settings: &Settings, database: &Database) -> Result<Tokens, String> {
    let key = match settings.text("token_algorithm") {
        "HS256" => SigningKey::shared(settings.text("token_secret"))?,
        "EdDSA" => {
            let text = match settings.text("token_key") {
                "" => kept_key(database)
                    .await
                    .map_err(|error| format!("the signing key: {error}"))?,
                file => std::fs::read_to_string(file)
                    .map_err(|error| format!("`token_key`: {file}: {error}"))?,
            };
            SigningKey::from_text(text.trim())
                .ok_or("the signing key cannot be read; remove it to have a new one made")?
        }
        other => {
            return Err(format!(
                "`token_algorithm`: `{other}` is neither EdDSA nor HS256"
            ));
        }
    };
    Ok(Tokens::new(
        key,
        settings.text("token_issuer"),
        settings.text("token_audience"),
        settings.text("token_tenant"),
        settings.span("token_lifetime")?,
    ))
}

/// The key in the database, made by the first of all instances that asks for it.
async fn kept_key(database: &Database) -> Result<String, sqlx::Error> {
    let mut write = database.write().await?;
    let made = SigningKey::generate().ok_or(sqlx::Error::Protocol("no random numbers".into()))?;
    let sql = "INSERT INTO signing_keys (id, secret, created_at) VALUES ('access', $1, $2) ON CONFLICT (id) DO NOTHING";
    write.execute(sql, values![&made, time::now()]).await?;
    let kept = write
        .first("SELECT secret FROM signing_keys WHERE id = 'access'", &[])
        .await?;
    write.commit().await?;
    kept.map_or(Ok(made), |row| row.text(0))
}
