//! What a route does to requests and answers besides passing them on: a list, run in the order written, and in reverse
//! on the way back. A filter may edit or refuse; it never waits, so the chain is a loop over an enum and nothing else.

pub(crate) mod fault;
pub mod rate_limit;
mod set_headers;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate_config::{ApiKeyUse, Cidr, Filter as Settings, Item, RateLimit, Route, SetHeaders};

use crate::exchange::error::{Code, Error};
use crate::exchange::{Request, Response};
use crate::telemetry::metrics::Metrics;
use crate::transcode::{Transcoder, Transcoders};
use rate_limit::{Limit, LimitMemory, Policies};

/// One filter, ready to run.
#[derive(Debug)]
enum Filter {
    SetHeaders(SetHeaders),
    RateLimit(Arc<Limit>),
    ApiKey(ApiKeyUse),
    Fault(fault::Fault),
}

/// A route's filters.
#[derive(Debug, Default)]
pub struct Chain {
    filters: Vec<Filter>,
    /// What limits and keys are read from; absent where no filter needs it.
    policies: Option<Arc<Policies>>,
    limits: bool,
    claims: bool,
    faults: bool,
    /// What is not gRPC becomes it behind the chain, by these descriptors.
    transcoder: Option<Arc<Transcoder>>,
    grpc_web: bool,
}

/// What a chain is compiled with besides its own settings.
pub struct Surroundings<'a> {
    pub policies: &'a Arc<Policies>,
    pub memory: &'a LimitMemory,
    pub metrics: &'a Metrics,
    pub transcoders: &'a Transcoders,
}

/// Who asks, and when: what a filter may know besides the request.
pub struct Caller<'a> {
    pub peer: IpAddr,
    /// The listener's.
    pub trusted: &'a [Cidr],
    /// The number of the worker that runs this.
    pub worker: usize,
    pub now: Instant,
    /// Seconds since 1970.
    pub unix: u64,
    /// Chance, uniform.
    pub draw: u64,
}

/// What a chain remembers of one request until its answer: nothing, for most.
#[derive(Debug, Default)]
pub struct Notes {
    said: rate_limit::AllSaid,
    claim: rate_limit::Claim,
    client: Option<IpAddr>,
    unix: u64,
    met: fault::Met,
}

impl Notes {
    /// How long the request is to wait before anything else is done for it.
    pub fn delay(&self) -> Option<Duration> {
        self.met.delay()
    }

    /// The faults that were injected, for the access line.
    pub fn fault(&self) -> Option<&'static str> {
        self.met.word()
    }
}

impl Chain {
    pub fn compile(route: &Arc<Route>, surroundings: &Surroundings<'_>) -> Self {
        let Surroundings {
            policies,
            memory,
            metrics,
            transcoders,
        } = surroundings;
        let filters: Vec<Filter> = route
            .filters
            .iter()
            .enumerate()
            .filter_map(|(index, setting)| {
                Some(match &setting.value {
                    Settings::SetHeaders(edit) => Filter::SetHeaders(edit.clone()),
                    // A name that nobody defined was refused with the document.
                    Settings::RateLimit(RateLimit::Named(name)) => {
                        Filter::RateLimit(policies.named(name)?)
                    }
                    Settings::RateLimit(RateLimit::Tiers) => Filter::RateLimit(policies.tiers()),
                    Settings::RateLimit(RateLimit::Own(bucket)) => {
                        let own = Policies::own(bucket, &route.name, index, memory, metrics);
                        Filter::RateLimit(Arc::new(own))
                    }
                    Settings::ApiKey(wanted) => Filter::ApiKey(*wanted),
                    Settings::Fault(fault) => {
                        Filter::Fault(fault::Fault::compile(fault, metrics.fault(&route.name)))
                    }
                    // Both wait for the request's body, so they are the proxy's, behind the chain.
                    Settings::Transcode(_) | Settings::GrpcWeb => return None,
                })
            })
            .collect();
        let asks = |filter: &Filter| match filter {
            Filter::ApiKey(_) => true,
            Filter::RateLimit(limit) => limit.needs_claim(),
            Filter::SetHeaders(_) | Filter::Fault(_) => false,
        };
        let limits = filters
            .iter()
            .any(|filter| matches!(filter, Filter::RateLimit(_)));
        let claims = filters.iter().any(asks);
        let faults = filters
            .iter()
            .any(|filter| matches!(filter, Filter::Fault(_)));
        Chain {
            policies: (limits || claims).then(|| (*policies).clone()),
            filters,
            limits,
            claims,
            faults,
            transcoder: transcoders.of(route).cloned(),
            grpc_web: route
                .filters
                .iter()
                .any(|filter| matches!(filter.value, Settings::GrpcWeb)),
        }
    }

    /// Whether requests may have to become gRPC behind it.
    pub fn translates(&self) -> bool {
        self.grpc_web || self.transcoder.is_some()
    }

    pub fn transcoder(&self) -> Option<&Arc<Transcoder>> {
        self.transcoder.as_ref()
    }

    pub fn has_grpc_web(&self) -> bool {
        self.grpc_web
    }

    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Whether what it was compiled with is still what holds.
    pub fn is_current(
        &self,
        policies: &Arc<Policies>,
        transcoder: Option<&Arc<Transcoder>>,
    ) -> bool {
        let same = match (&self.transcoder, transcoder) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            _ => false,
        };
        same && self
            .policies
            .as_ref()
            .is_none_or(|ours| Arc::ptr_eq(ours, policies))
    }

    /// Whether it wants to know the time of day.
    pub fn has_limits(&self) -> bool {
        self.limits
    }

    /// Whether it wants chance.
    pub fn has_faults(&self) -> bool {
        self.faults
    }

    /// Its limits, in order.
    pub fn limits(&self) -> impl Iterator<Item = &Arc<Limit>> {
        self.filters.iter().filter_map(|filter| match filter {
            Filter::RateLimit(limit) => Some(limit),
            _ => None,
        })
    }

    /// The first refusal ends the exchange. `route` is where the chain stands in the document.
    pub fn on_request(
        &self,
        request: &mut Request,
        caller: &Caller<'_>,
        notes: &mut Notes,
        route: &Item<Route>,
    ) -> Result<(), Error> {
        if self.claims
            && let Some(policies) = &self.policies
        {
            notes.claim = policies.claim(&request.headers);
        }
        notes.unix = caller.unix;
        for (index, filter) in self.filters.iter().enumerate() {
            match filter {
                Filter::SetHeaders(edit) => {
                    set_headers::apply(&mut request.headers, &edit.remove, &edit.request)
                }
                Filter::RateLimit(limit) => limit.ask(index, request, caller, notes, route)?,
                Filter::Fault(fault) => {
                    let chance = (caller.worker, caller.draw);
                    fault.meet(index, &request.headers, chance, &mut notes.met, route)?;
                }
                Filter::ApiKey(wanted) => match (notes.claim, wanted) {
                    (rate_limit::Claim::Known(..), _)
                    | (rate_limit::Claim::Absent, ApiKeyUse::Optional) => {}
                    (rate_limit::Claim::Absent, ApiKeyUse::Required) => {
                        return Err(Error::because(Code::ApiKeyRefused, "no key"));
                    }
                    (rate_limit::Claim::Unknown, _) => {
                        return Err(Error::because(Code::ApiKeyRefused, "unknown key"));
                    }
                },
            }
        }
        Ok(())
    }

    /// Sees our own answers too.
    pub fn on_response(&self, response: &mut Response, notes: &Notes) {
        if !notes.said.is_empty() {
            let limit = |index: usize| match self.filters.get(index) {
                Some(Filter::RateLimit(limit)) => Some(&**limit),
                _ => None,
            };
            rate_limit::tell(&notes.said, limit, notes.unix, response);
        }
        for filter in self.filters.iter().rev() {
            match filter {
                Filter::SetHeaders(edit) => {
                    set_headers::apply(&mut response.headers, &edit.remove, &edit.response)
                }
                Filter::RateLimit(_) | Filter::ApiKey(_) | Filter::Fault(_) => {}
            }
        }
        fault::tell(&notes.met, response);
    }
}
