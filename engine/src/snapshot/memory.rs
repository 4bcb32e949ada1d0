//! What outlives a snapshot, and under which name. Memory holds no setting; a plan holds no observation.
//!
//! Endpoints are remembered under upstream, address and TLS identity (`upstream::EndpointMemory`), breakers and budgets
//! under their upstream (`upstream::GuardMemory`), metric series under their names (`telemetry::metrics`), levels of rate
//! limits under the limit's name (`filter::rate_limit`), keys that an issuer publishes under its name and their URL
//! (`filter::jwt`), what is normal for a route's answers under the route's name
//! (`upstream::pace`), our certificate of the mesh in one place that connections read (`net::tls::Member`), services that
//! were asked for under their names (`upstream::learning`); here is what else keeps its place: a listener's number, which
//! connections hold on to while documents
//! come and go.

use std::sync::Arc;

use crate::filter::jwt::IssuerMemory;
use crate::filter::rate_limit::LimitMemory;
use crate::net::tls::{Held, Member};
use crate::route::ListenerIndex;
use crate::transcode::Reflected;
use crate::upstream::discovery::Services;
use crate::upstream::learning::Names;
use crate::upstream::pace::PaceMemory;
use crate::upstream::{EndpointMemory, GuardMemory};

#[derive(Default)]
pub struct Memory {
    pub endpoints: Arc<EndpointMemory>,
    /// Breakers and retry budgets, by upstream.
    pub guards: GuardMemory,
    pub limits: Arc<LimitMemory>,
    /// Keys that issuers publish.
    pub issuers: IssuerMemory,
    /// Instances that the control plane told of.
    pub services: Arc<Services>,
    pub paces: PaceMemory,
    /// Services that requests asked for: what every upstream with `service = "*"` is made for.
    pub learned: Arc<Names>,
    /// Who we are in the mesh, whatever document serves.
    pub member: Arc<Member>,
    /// Descriptors that upstreams told of themselves.
    pub reflected: Arc<Reflected>,
    /// Every listener name ever served; its position is its number.
    listeners: Vec<String>,
}

impl Memory {
    /// Files made us a member of the mesh.
    pub fn hold(&self, held: &Held) {
        self.member.hold(Some(held.own.clone()));
        self.member.trust(Some(held.trusted.clone()));
    }

    /// A listener's number; the same name gets the same number for as long as the process lives.
    pub fn listener(&mut self, name: &str) -> ListenerIndex {
        let position = self
            .listeners
            .iter()
            .position(|known| known == name)
            .unwrap_or_else(|| {
                self.listeners.push(name.to_owned());
                self.listeners.len() - 1
            });
        ListenerIndex(u16::try_from(position).unwrap_or(u16::MAX))
    }

    /// All listener names by number.
    pub fn listeners(&self) -> &[String] {
        &self.listeners
    }
}
