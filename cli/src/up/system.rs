//! The parts of the system: which there are, how each is started, and where each listens once it has been. Started again, a
//! part listens where it listened. Every service has a sidecar beside it, and the gateway is a member of the mesh like them:
//! what one of them says to another is mutual TLS.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::part::{Part, Start};
use super::pod::{Pod, SERVICES, Service};
use super::{Arguments, Failure, failed};
use crate::client::Client;
use crate::table::print;

const GATEWAY: &str = "gateway";
const CONTROL_PLANE: &str = "control-plane";

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

pub(super) struct System<'a> {
    pub(super) folder: &'a Path,
    pub(super) listen: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) control: SocketAddr,
    pods: BTreeMap<&'static str, Pod>,
    /// Somebody asked for a free port.
    any_port: bool,
    /// In the order in which they were started.
    pub(super) parts: Vec<Part>,
}

impl<'a> System<'a> {
    pub(super) fn new(folder: &'a Path, arguments: &Arguments) -> Self {
        System {
            folder,
            listen: arguments.listen,
            admin: arguments.admin,
            control: arguments.control,
            pods: BTreeMap::new(),
            any_port: [arguments.listen, arguments.admin, arguments.control]
                .map(|address| address.port())
                .contains(&0),
            parts: Vec::new(),
        }
    }

    /// Starts all parts, one after the other. They end in the opposite order: the gateway has drained before anything
    /// behind it goes, and a service before its sidecar, which lets it finish.
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
        for (number, service) in (0..).zip(&SERVICES) {
            let pod = Pod::new(std::process::id(), number, service);
            let pod = pod.map_err(failed("no address of loopback can be had for a service"))?;
            self.pods.insert(service.name, pod);
        }
        self.start_new(CONTROL_PLANE).await?;
        for Service { name, sidecar, .. } in &SERVICES {
            self.invite(name)?;
            self.start_new(sidecar).await?;
            self.start_new(name).await?;
        }
        self.invite(GATEWAY)?;
        self.start_new(GATEWAY).await
    }

    async fn start_new(&mut self, name: &'static str) -> Result<(), Failure> {
        let part = self.start_part(name).await?;
        self.parts.push(part);
        Ok(())
    }

    /// Starts a part that has died.
    pub(super) async fn start_again(&mut self, number: usize) -> Result<(), Failure> {
        let Some(name) = self.parts.get(number).map(|part| part.name) else {
            return Ok(());
        };
        print(&format!("{name} is started again\n"));
        let part = self.start_part(name).await?;
        if let Some(place) = self.parts.get_mut(number) {
            *place = part;
        }
        Ok(())
    }

    /// Has a join token made, which lets a member into the mesh once.
    fn invite(&self, member: &str) -> Result<(), Failure> {
        let failed = |why: String| {
            let why = format!("{member} gets no join token of the control plane: {why}");
            (why, tollgate_engine::process::exit::FAILURE)
        };
        let body = json!({ "service": member }).to_string();
        let answer = Client::connect(&self.control.to_string())
            .and_then(|mut client| client.send("POST", "/identity/token", &body))
            .map_err(|error| failed(error.to_string()))?;
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let Some(token) = value["token"].as_str() else {
            return Err(failed(format!("it answered {}: {value}", answer.status)));
        };
        let path = self.folder.join(format!("{member}.token"));
        std::fs::write(path, token).map_err(|error| failed(error.to_string()))
    }

    async fn start_part(&mut self, name: &'static str) -> Result<Part, Failure> {
        self.write_document(name)
            .map_err(failed("the documents cannot be written"))?;
        let how = Start {
            arguments: self.arguments(name),
            variables: match name {
                CONTROL_PLANE => vec![("SHOP_DESCRIPTORS", self.descriptors())],
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
        let places = match (self.pods.get(name), self.pod_of(name)) {
            (Some(pod), _) => format!("gRPC {}, HTTP {}", pod.grpc, pod.http),
            (None, Some(pod)) => format!("{}, admin {}", pod.inbound, pod.admin),
            (None, None) if name == GATEWAY => format!("{}, admin {}", self.listen, self.admin),
            (None, None) => self.control.to_string(),
        };
        print(&format!("  {name:16}  {places}\n"));
        Ok(part)
    }

    fn descriptors(&self) -> String {
        self.folder.join("shop.binpb").display().to_string()
    }

    /// Of a sidecar: where it and its service listen.
    fn pod_of(&self, sidecar: &str) -> Option<&Pod> {
        let service = SERVICES.iter().find(|service| service.sidecar == sidecar)?;
        self.pods.get(service.name)
    }

    /// The words after a part's name.
    fn arguments(&self, name: &str) -> Vec<String> {
        let path = |name: String| self.folder.join(name).display().to_string();
        let Some(pod) = self.pods.get(name) else {
            return vec![path(format!("{name}.toml"))];
        };
        let mut words = vec![
            format!("--http={}", pod.http),
            format!("--grpc={}", pod.grpc),
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
        let doors = pod.doors.iter();
        words.extend(doors.map(|(other, door)| format!("--{other}=http://{door}")));
        words
    }

    /// What the part needs to read. Once it is there it belongs to whoever edits it, unless it would take another free
    /// port each time.
    fn write_document(&self, part: &str) -> io::Result<()> {
        let (listen, admin, control) = (self.listen, self.admin, self.control);
        let control_url = format!("http://{control}");
        let text = match part {
            CONTROL_PLANE => format!(include_str!("control-plane.toml.in"), control = control),
            GATEWAY => format!(
                include_str!("gateway.toml.in"),
                listen = listen,
                admin = admin,
                control = control_url,
                users = self.pods.get("users").map_or(listen, |pod| pod.http),
            ),
            _ => match (
                SERVICES.iter().find(|one| one.sidecar == part),
                self.pod_of(part),
            ) {
                (Some(service), Some(pod)) => sidecar_document(service, pod, &control_url),
                _ => return Ok(()),
            },
        };
        let path = self.folder.join(format!("{part}.toml"));
        match path.exists() && !self.any_port {
            true => Ok(()),
            false => std::fs::write(path, text),
        }
    }
}

fn sidecar_document(service: &Service, pod: &Pod, control: &str) -> String {
    let door = |(name, listen): &(&str, SocketAddr)| {
        format!("\n[[outbound.port]]\nlisten  = \"{listen}\"\nservice = \"{name}\"\n")
    };
    format!(
        include_str!("sidecar.toml.in"),
        name = service.name,
        grpc = service.grpc,
        app = pod.grpc,
        debug = pod.http.port(),
        inbound = pod.inbound,
        outbound = pod.outbound,
        admin = pod.admin,
        control = control,
        doors = pod.doors.iter().map(door).collect::<String>(),
    )
}
