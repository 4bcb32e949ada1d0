//! Envoy, told through files: routes by a route table and endpoints by a load assignment that it watches, each replaced by
//! a rename, which is how its documentation has them changed without a management server. What is measured begins before the
//! file is written, as with ours before the request is sent.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::caller::wait_for;
use super::{CHANGING, Follower, Instance, Program, Size, changes, instances};
use crate::process::usage;

/// Measures what Envoy can be measured in.
pub fn envoy(program: &Path, folder: &Path, size: Size) -> io::Result<()> {
    let stays = Instance::start("stays")?;
    let mut files = Files {
        folder: folder.to_owned(),
        version: 0,
        bodies: vec![0; size.routes],
        stays: stays.address,
    };
    let at = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    files.routes()?;
    files.endpoints(None)?;
    let bootstrap = folder.join("bootstrap.json");
    std::fs::write(&bootstrap, bootstrap_of(folder, at).to_string())?;
    let child = Command::new(program)
        .args(["--concurrency", "1", "--base-id-path"])
        .arg(folder.join("base-id"))
        .args(["--use-dynamic-base-id", "--log-level", "error", "-c"])
        .arg(&bootstrap)
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()?;
    let envoy = Program(child);
    drop(wait_for(at, "/r0")?);
    let resident = usage(&[envoy.id()]).resident >> 20;
    println!("with {} routes: {resident} MiB", size.routes);
    changes(&mut files, at, size)?;
    instances(&mut files, at, size)
}

struct Files {
    folder: PathBuf,
    version: u64,
    /// What each route answers.
    bodies: Vec<usize>,
    stays: SocketAddr,
}

impl Follower for Files {
    fn change(&mut self, size: Size, document: usize, number: usize) -> io::Result<()> {
        if let Some(body) = self.bodies.get_mut(document * size.document + CHANGING) {
            *body = number;
        }
        self.routes()
    }

    fn add(&mut self, comes: SocketAddr) -> io::Result<()> {
        self.endpoints(Some(comes))
    }

    fn remove(&mut self) -> io::Result<()> {
        self.endpoints(None)
    }
}

impl Files {
    fn routes(&mut self) -> io::Result<()> {
        let fixed = { self.bodies.iter().enumerate() }.map(|(route, body)| {
            json!({
                "match": { "path": format!("/r{route}") },
                "direct_response": { "status": 200, "body": { "inline_string": body.to_string() } }
            })
        });
        let orders = json!({ "match": { "path": "/orders" }, "route": { "cluster": "orders" } });
        let routes: Vec<Value> = fixed.chain([orders]).collect();
        let table = json!({
            "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            "name": "routes",
            "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }]
        });
        self.replace("routes.json", table)
    }

    fn endpoints(&mut self, comes: Option<SocketAddr>) -> io::Result<()> {
        let endpoints: Vec<Value> = { [Some(self.stays), comes].into_iter().flatten() }
            .map(|address| json!({ "endpoint": { "address": socket(address) } }))
            .collect();
        let assignment = json!({
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": "orders",
            "endpoints": [{ "lb_endpoints": endpoints }]
        });
        self.replace("endpoints.json", assignment)
    }

    /// Whole, by a rename: what Envoy watches for.
    fn replace(&mut self, name: &str, resource: Value) -> io::Result<()> {
        self.version += 1;
        let text = json!({ "version_info": self.version.to_string(), "resources": [resource] });
        let new = self.folder.join(format!("{name}.new"));
        std::fs::write(&new, text.to_string())?;
        std::fs::rename(new, self.folder.join(name))
    }
}

fn socket(address: SocketAddr) -> Value {
    let (ip, port) = (address.ip().to_string(), address.port());
    json!({ "socket_address": { "address": ip, "port_value": port } })
}

fn bootstrap_of(folder: &Path, at: SocketAddr) -> Value {
    let file = |name: &str| {
        json!({
            "path_config_source": { "path": folder.join(name) },
            "resource_api_version": "V3"
        })
    };
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "rds": { "route_config_name": "routes", "config_source": file("routes.json") },
        "http_filters": [{
            "name": "router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" }
        }]
    });
    json!({
        "node": { "id": "edge-1", "cluster": "fleet" },
        "static_resources": {
            "listeners": [{
                "name": "in",
                "address": socket(at),
                "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }]
            }],
            "clusters": [{
                "name": "orders",
                "type": "EDS",
                "eds_cluster_config": { "service_name": "orders", "eds_config": file("endpoints.json") }
            }]
        }
    })
}
