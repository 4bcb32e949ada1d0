//! The whole shop: four programs with a folder of databases, on addresses that they keep over restarts.
//!
//! They listen on a loopback address of their own, so that a port that was free once is free again: nobody else uses it.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use tollgate_example_services::{
    contracts::{
        orders::orders_service_client::OrdersServiceClient,
        payments::payments_service_client::PaymentsServiceClient,
        products::{self, products_service_client::ProductsServiceClient},
        users::{self, users_service_client::UsersServiceClient},
    },
    kit::database::Database,
};
use tonic::transport::{Channel, Endpoint};

use super::postgres::Server;

pub(crate) const NAMES: [&str; 4] = ["users", "products", "payments", "orders"];

/// Everything that a test waits for comes within this, however busy the machine is.
pub(crate) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(180);

/// One program of the shop, which can be started again and again.
pub(crate) struct Service {
    name: &'static str,
    program: &'static str,
    settings: Vec<String>,
    /// HTTP, gRPC; chosen at the first start.
    pub(crate) addresses: [String; 2],
    process: Option<Child>,
    folder: PathBuf,
}

impl Service {
    /// Starts it; with a place at which it dies, if one is given.
    pub(crate) fn start(&mut self, crash: Option<&str>) {
        // A port that is only just given back may not be free at once.
        for _ in 0..100 {
            if self.try_start(crash) {
                return;
            }
        }
        panic!("{} does not start", self.name);
    }

    fn try_start(&mut self, crash: Option<&str>) -> bool {
        let mut command = Command::new(self.program);
        command
            .args(["--http", &self.addresses[0], "--grpc", &self.addresses[1]])
            .args(["--log-level", "error"])
            .args(&self.settings)
            .current_dir(&self.folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .env_remove("SHOP_CRASH_AT");
        if let Some(place) = crash {
            command.env("SHOP_CRASH_AT", place);
        }
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let told = lines
            .by_ref()
            .map_while(Result::ok)
            .find(|line| line.contains("\"listening\""));
        let Some(told) = told else {
            process.wait().unwrap();
            // It may have died at its place before it listened, such as in a migration.
            return crash.is_some_and(|_| {
                self.process = Some(process);
                true
            });
        };
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        self.addresses = ["http", "grpc"].map(|port| told[port].as_str().unwrap().to_string());
        let name = self.name;
        let loud = std::env::var_os("SHOP_TEST_LOG").is_some();
        // Ends with the process, whose output it keeps from filling its pipe.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok).filter(|_| loud) {
                eprintln!("{name}: {line}");
            }
        });
        self.process = Some(process);
        true
    }

    pub(crate) fn grpc(&self) -> String {
        format!("http://{}", self.addresses[1])
    }

    pub(crate) fn http(&self) -> String {
        format!("http://{}", self.addresses[0])
    }

    /// Whether it has ended by itself.
    pub(crate) fn is_dead(&mut self) -> bool {
        let process = self.process.as_mut().unwrap();
        process.try_wait().unwrap().is_some()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().ok();
            process.wait().ok();
        }
    }

    /// A signal, such as SIGSTOP.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = self.process.as_ref().unwrap().id();
        let pid = rustix::process::Pid::from_raw(id as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

/// All four.
pub(crate) struct Shop {
    pub(crate) services: HashMap<&'static str, Service>,
    pub(crate) folder: tempfile::TempDir,
    /// Databases by name: the services', and the processor's ledger.
    databases: HashMap<&'static str, String>,
    _server: Option<Arc<Server>>,
}

impl Shop {
    /// Starts them with short times, and more settings for orders and payments.
    pub(crate) fn start(more: &[(&str, &str)]) -> Self {
        Self::on(None, more)
    }

    /// The same on a PostgreSQL server, with a database for each.
    pub(crate) fn on(server: Option<Arc<Server>>, more: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let id = std::process::id();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (high, low) = (id / 250 % 250 + 1, id % 250 + 1);
        let host = format!("127.{high}.{low}.{number}:0");
        let folder = tempfile::tempdir().unwrap();
        let names = NAMES.into_iter().chain(["payments-processor"]);
        let databases: HashMap<_, _> = names
            .map(|name| {
                let file = folder.path().join(format!("{name}.db"));
                let address = match &server {
                    Some(server) => server.database(),
                    None => format!("sqlite:{}", file.display()),
                };
                (name, address)
            })
            .collect();
        let mut services = HashMap::new();
        let programs = [
            env!("CARGO_BIN_EXE_shop-users"),
            env!("CARGO_BIN_EXE_shop-products"),
            env!("CARGO_BIN_EXE_shop-payments"),
            env!("CARGO_BIN_EXE_shop-orders"),
        ];
        for (name, program) in NAMES.into_iter().zip(programs) {
            let mut settings: Vec<String> = match name {
                "payments" => ["--processor-timeout=1s", "--tidy=300ms"]
                    .map(String::from)
                    .into(),
                "orders" => {
                    let mut settings: Vec<String> = [
                        // Who asks is told the end, unless the test wants it otherwise.
                        "--wait=180s",
                        "--step-timeout=2s",
                        "--payment-timeout=4s",
                        "--retry-pause=20ms",
                        "--retry-pause-most=300ms",
                        "--retries=6",
                        "--confirm-retries=10",
                        "--recover-every=200ms",
                        "--verify-after=500ms",
                        "--reconcile-every=300ms",
                        // Tests that want it to rest say so.
                        "--payment-breaker=0",
                    ]
                    .map(String::from)
                    .into();
                    for other in ["users", "products", "payments"] {
                        let other: (&str, &Service) = (other, &services[other]);
                        settings.push(format!("--{}={}", other.0, other.1.grpc()));
                    }
                    settings
                }
                // Hashing is not what is tested here.
                "users" => vec!["--password-memory=8".into(), "--password-rounds=1".into()],
                _ => Vec::new(),
            };
            settings.push(format!("--database={}", databases[name]));
            settings.push("--database-patience=60s".into());
            if name == "payments" {
                settings.push(format!("--processor={}", databases["payments-processor"]));
            }
            for (of, setting) in more {
                if *of == name {
                    settings.push((*setting).into());
                }
            }
            let mut service = Service {
                name,
                program,
                settings,
                addresses: [host.clone(), host.clone()],
                process: None,
                folder: folder.path().into(),
            };
            service.start(None);
            services.insert(name, service);
        }
        Self {
            services,
            folder,
            databases,
            _server: server,
        }
    }

    /// Another process of a service beside its first one, on the same database.
    pub(crate) fn another(&self, name: &str) -> Service {
        let first = &self.services[name];
        let host = first.addresses[0].rsplit_once(':').unwrap().0;
        let mut another = Service {
            name: first.name,
            program: first.program,
            settings: first.settings.clone(),
            addresses: [format!("{host}:0"), format!("{host}:0")],
            process: None,
            folder: first.folder.clone(),
        };
        another.start(None);
        another
    }

    pub(crate) fn service(&mut self, name: &str) -> &mut Service {
        self.services.get_mut(name).unwrap()
    }

    fn channel(&self, name: &str) -> Channel {
        channel(&self.services[name])
    }

    pub(crate) fn orders(&self) -> OrdersServiceClient<Channel> {
        OrdersServiceClient::new(self.channel("orders"))
    }

    pub(crate) fn payments(&self) -> PaymentsServiceClient<Channel> {
        PaymentsServiceClient::new(self.channel("payments"))
    }

    pub(crate) fn products(&self) -> ProductsServiceClient<Channel> {
        ProductsServiceClient::new(self.channel("products"))
    }

    /// A product with so many in stock, at 10.00.
    pub(crate) async fn product(&self, stock: i32) -> String {
        let request = products::CreateProductRequest {
            name: "Kettle".into(),
            description: "Copper".into(),
            price: "10.00".into(),
            category: "kitchen".into(),
            sku: uuid::Uuid::new_v4().to_string(),
            stock_quantity: stock,
            ..Default::default()
        };
        let product = self.products().create_product(request).await.unwrap();
        product.into_inner().product_id
    }

    pub(crate) async fn user(&self) -> String {
        let request = users::CreateUserRequest {
            email: format!("{}@example.com", uuid::Uuid::new_v4().simple()),
            password: "correct horse 1".into(),
            first_name: "Ada".into(),
            last_name: "Lovelace".into(),
            ..Default::default()
        };
        let mut users = UsersServiceClient::new(self.channel("users"));
        users
            .create_user(request)
            .await
            .unwrap()
            .into_inner()
            .user_id
    }

    /// The database of a service, read beside it.
    pub(crate) async fn database(&self, name: &str) -> Database {
        let address = &self.databases[name];
        Database::open(address, 2, PATIENCE).await.unwrap()
    }
}

/// A connection that is made when it is needed, and that no stillness of the machine ends.
pub(crate) fn channel(service: &Service) -> Channel {
    Endpoint::from_shared(service.grpc())
        .unwrap()
        .connect_lazy()
}

/// Asks again until it is so.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let asking = async {
        let mut turns = tokio::time::interval(std::time::Duration::from_millis(20));
        loop {
            turns.tick().await;
            if is_so().await {
                return;
            }
        }
    };
    let within = tokio::time::timeout(PATIENCE, asking).await;
    assert!(within.is_ok(), "never came: {what}");
}
