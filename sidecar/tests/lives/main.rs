//! A sidecar's life beside an application: who starts first, who is told, who ends last, and with which exit code.

mod commands;
mod exec;
mod manifests;
mod members;
mod registering;
mod stopping;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use tollgate_engine::testing::control_plane::ControlPlane;
use tollgate_engine::testing::upstream::Upstream;

/// What an application says on the network: `/ready` as it is told, `/slow` when it is let, everything else at once.
struct App {
    upstream: Upstream,
    ready: Arc<AtomicBool>,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn open(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.opened.notify_all();
    }

    fn wait(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = self.opened.wait_while(open, |open| !*open);
        drop(opened.unwrap_or_else(PoisonError::into_inner));
    }
}

impl App {
    fn new(ready: bool) -> App {
        let (is_ready, gate) = (Arc::new(AtomicBool::new(ready)), Arc::new(Gate::default()));
        let (asked, way) = (is_ready.clone(), gate.clone());
        let upstream = Upstream::http1(move |conn| {
            while let Some(request) = conn.read_request() {
                let status = match request.target() {
                    "/ready" if !asked.load(Ordering::Acquire) => "503 Service Unavailable",
                    "/slow" => {
                        way.wait();
                        "200 OK"
                    }
                    _ => "200 OK",
                };
                if !conn.respond(status, &[], "hello") {
                    return;
                }
            }
        });
        App {
            upstream,
            ready: is_ready,
            gate,
        }
    }

    fn ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// How often it was asked for this.
    fn asked(&self, target: &str) -> usize {
        let requests = self.upstream.requests();
        requests
            .iter()
            .filter(|request| request.target() == target)
            .count()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.gate.open();
    }
}

/// Asked often, and never given up: a machine that stands still fails no probe three times in a row by that.
const READY: &str = "ready = { path = \"/ready\", interval = \"1s\", unhealthy_after = 100 }";

/// The sections that name a control plane.
fn with(control: &ControlPlane) -> String {
    format!(
        "[control_plane]\nurls = [\"{}\"]\nnode = \"here\"\n",
        control.url()
    )
}

/// How often the registry heard this.
fn heard(control: &ControlPlane, begin: &str) -> usize {
    let journal = control.journal();
    journal
        .registry
        .iter()
        .filter(|call| call.starts_with(begin))
        .count()
}

/// Whether the last that the registry heard is that the instance is gone.
fn is_taken_back(control: &ControlPlane) -> bool {
    let journal = control.journal();
    let last = journal.registry.last();
    last.is_some_and(|call| call.starts_with("DELETE /services/orders-"))
}
