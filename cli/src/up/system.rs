//! The parts of the system: which there are, how each is started, and where each listens once it has been. Started again, a
//! part listens where it listened.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use tollgate_discovery::{Announced, Health, Registration, Registry, Settings};

use super::part::{Part, Start};
use super::{Arguments, Failure, failed};
use crate::table::print;

/// The shop's services, in the order in which they are started: who is asked before who asks.
const SERVICES: [&str; 4] = ["users", "products", "payments", "orders"];
/// All parts. They end in the opposite order, so that the gateway has drained before anything behind it goes.
const PARTS: [&str; 6] = [
    "users",
    "products",
    "payments",
    "orders",
    "control-plane",
    "gateway",
];
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// The documents of the fleet: their names, and what is in them. The first is made for this system, the others are the
/// samples of `config/shop`.
const FLEET: [(&str, &str); 6] = [
    ("upstreams.toml", include_str!("upstreams.toml.in")),
    (
        "routes.toml",
        include_str!("../../../config/shop/routes.toml"),
    ),
    ("api.toml", include_str!("../../../config/shop/api.toml")),
    (
        "api-v1.toml",
        include_str!("../../../config/shop/api-v1.toml"),
    ),
    (
        "callers.toml",
        include_str!("../../../config/shop/callers.toml"),
    ),
    (
        "access.toml",
        include_str!("../../../config/shop/access.toml"),
    ),
];

/// Where a service listens.
#[derive(Debug, Clone, Copy)]
struct Ports {
    http: SocketAddr,
    grpc: SocketAddr,
}

pub(super) struct System<'a> {
    pub(super) folder: &'a Path,
    pub(super) listen: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) control: SocketAddr,
    services: BTreeMap<&'static str, Ports>,
    /// Somebody asked for a free port.
    any_port: bool,
    /// In the order in which they were started.
    pub(super) parts: Vec<Part>,
    /// The services, as the control plane is told of them. They know nothing of it, as services do not that have somebody
    /// beside them for this.
    announced: BTreeMap<&'static str, Announced>,
}

impl<'a> System<'a> {
    pub(super) fn new(folder: &'a Path, arguments: &Arguments) -> Self {
        let any = Ports {
            http: ANY,
            grpc: ANY,
        };
        System {
            folder,
            listen: arguments.listen,
            admin: arguments.admin,
            control: arguments.control,
            services: SERVICES.map(|name| (name, any)).into(),
            any_port: [arguments.listen, arguments.admin, arguments.control]
                .map(|address| address.port())
                .contains(&0),
            parts: Vec::new(),
            announced: BTreeMap::new(),
        }
    }

    /// Starts all parts, one after the other.
    pub(super) async fn start(&mut self) -> Result<(), Failure> {
        let write = |error| failed("the documents cannot be written")(error);
        for folder in ["fleet", "log", "data"] {
            std::fs::create_dir_all(self.folder.join(folder)).map_err(write)?;
        }
        for (name, text) in FLEET {
            std::fs::write(self.folder.join("fleet").join(name), text).map_err(write)?;
        }
        let contracts = tollgate_example_services::contracts::DESCRIPTORS;
        std::fs::write(self.descriptors(), contracts).map_err(write)?;
        for name in PARTS {
            let part = self.start_part(name).await?;
            self.parts.push(part);
            if name == "control-plane" {
                self.announce()?;
            }
        }
        Ok(())
    }

    /// Starts a part that has died.
    pub(super) async fn start_again(&mut self, number: usize) -> Result<(), Failure> {
        let Some(name) = self.parts.get(number).map(|part| part.name) else {
            return Ok(());
        };
        if let Some(announced) = self.announced.get(name) {
            announced.set_health(Health::Unhealthy);
        }
        print(&format!("{name} is started again\n"));
        let part = self.start_part(name).await?;
        if let Some(place) = self.parts.get_mut(number) {
            *place = part;
        }
        if let Some(announced) = self.announced.get(name) {
            announced.set_health(Health::Healthy);
        }
        Ok(())
    }

    async fn start_part(&mut self, name: &'static str) -> Result<Part, Failure> {
        self.write_document(name)
            .map_err(failed("the documents cannot be written"))?;
        let how = Start {
            arguments: self.arguments(name),
            variables: match name {
                "control-plane" => vec![("SHOP_DESCRIPTORS", self.descriptors())],
                _ => Vec::new(),
            },
            logs: &self.folder.join("log"),
        };
        let part = Part::start(name, how).await?;
        let said = |key: &str, known: SocketAddr| {
            let address = part.says[key].as_str();
            address
                .and_then(|address| address.parse().ok())
                .unwrap_or(known)
        };
        self.control = said("control", self.control);
        self.listen = said("gateway", self.listen);
        self.admin = said("admin", self.admin);
        let places = match self.services.get_mut(name) {
            Some(ports) => {
                *ports = Ports {
                    http: said("http", ports.http),
                    grpc: said("grpc", ports.grpc),
                };
                format!("gRPC {}, HTTP {}", ports.grpc, ports.http)
            }
            None if name == "gateway" => format!("{}, admin {}", self.listen, self.admin),
            None => self.control.to_string(),
        };
        print(&format!("  {name:13}  {places}\n"));
        Ok(part)
    }

    fn descriptors(&self) -> String {
        self.folder.join("shop.binpb").display().to_string()
    }

    fn url(&self, service: &str, of: impl Fn(&Ports) -> SocketAddr) -> String {
        let address = self.services.get(service).map_or(ANY, of);
        format!("http://{address}")
    }

    /// The words after a part's name.
    fn arguments(&self, name: &str) -> Vec<String> {
        let path = |name: String| self.folder.join(name).display().to_string();
        let Some(ports) = self.services.get(name) else {
            return vec![path(format!("{name}.toml"))];
        };
        let mut words = vec![
            format!("--http={}", ports.http),
            format!("--grpc={}", ports.grpc),
            format!("--database=sqlite:{}", path(format!("data/{name}.db"))),
            "--drain=5s".to_owned(),
        ];
        if matches!(name, "users" | "products") {
            words.push("--sample-data=true".to_owned());
        }
        if name == "payments" {
            words.push(format!(
                "--processor=sqlite:{}",
                path("data/processor.db".to_owned())
            ));
        }
        if name == "orders" {
            for other in ["users", "products", "payments"] {
                words.push(format!("--{other}={}", self.url(other, |ports| ports.grpc)));
            }
        }
        words
    }

    /// What the part needs to read. Once it is there it belongs to whoever edits it, unless it would take another free
    /// port each time.
    fn write_document(&self, part: &str) -> io::Result<()> {
        let (listen, admin, control) = (self.listen, self.admin, self.control);
        let text = match part {
            "control-plane" => format!(include_str!("control-plane.toml.in"), control = control),
            "gateway" => format!(
                include_str!("gateway.toml.in"),
                listen = listen,
                admin = admin,
                control = format_args!("http://{control}"),
                users = self.url("users", |ports| ports.http)
            ),
            _ => return Ok(()),
        };
        let path = self.folder.join(format!("{part}.toml"));
        match path.exists() && !self.any_port {
            true => Ok(()),
            false => std::fs::write(path, text),
        }
    }

    fn announce(&mut self) -> Result<(), Failure> {
        let registry = Registry::new(Settings::of(format!("http://{}", self.control)));
        let registry = registry.map_err(|error| (error.to_string(), 1))?;
        for (name, ports) in &self.services {
            let registration = Registration::new(*name, ports.grpc.to_string())
                .metadata("protocol", "grpc")
                .metadata("version", env!("CARGO_PKG_VERSION"));
            self.announced.insert(name, registry.register(registration));
        }
        Ok(())
    }
}
