//! What a route does to requests and answers besides passing them on: a list, run in the order written, and in reverse
//! on the way back. A filter may edit or refuse; it never waits, so the chain is a loop over an enum and nothing else.

pub mod access;
mod allow;
pub(crate) mod cors;
pub(crate) mod fault;
pub mod jwt;
pub mod rate_limit;
mod security_headers;
mod set_headers;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate_config::identity::SpiffeId;
use tollgate_config::{
    AccessMode, ApiKeyUse, At, Cidr, Filter as Settings, Item, RateLimit, Route, SecurityHeaders,
    SetHeaders, Validate,
};

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
    Jwt(jwt::Bearer),
    Allow(allow::Rules),
    Access(AccessMode, At),
    SecurityHeaders(SecurityHeaders),
}

/// A route's filters.
#[derive(Debug, Default)]
pub struct Chain {
    filters: Vec<Filter>,
    /// What limits and keys are read from; absent where no filter needs it.
    policies: Option<Arc<Policies>>,
    /// What upstreams are told of callers, and no client may say; absent where nothing is.
    issuers: Option<Arc<jwt::Issuers>>,
    /// Stands before all filters.
    cors: Option<cors::Cors>,
    limits: bool,
    tokens: bool,
    claims: bool,
    faults: bool,
    /// What is not gRPC becomes it behind the chain, by these descriptors.
    transcoder: Option<Arc<Transcoder>>,
    grpc_web: bool,
    /// What bodies must be like.
    bodies: Option<Arc<Validate>>,
}

/// What a chain is compiled with besides its own settings.
pub struct Surroundings<'a> {
    pub policies: &'a Arc<Policies>,
    pub issuers: &'a Arc<jwt::Issuers>,
    pub memory: &'a LimitMemory,
    pub metrics: &'a Metrics,
    pub transcoders: &'a Transcoders,
}

/// Who asks, and when: what a filter may know besides the request.
pub struct Caller<'a> {
    pub peer: IpAddr,
    /// The listener's.
    pub trusted: &'a [Cidr],
    /// The client came over TLS.
    pub secure: bool,
    /// The number of the worker that runs this.
    pub worker: usize,
    /// Tokens that this worker has verified.
    pub tokens: &'a jwt::Cache,
    pub now: Instant,
    /// Seconds since 1970.
    pub unix: u64,
    /// Chance, uniform.
    pub draw: u64,
    /// The service that calls, proven by its certificate.
    pub member: Option<&'a SpiffeId>,
    /// The rules about who may.
    pub access: &'a access::Access,
}

/// What a chain remembers of one request until its answer: nothing, for most.
#[derive(Debug, Default)]
pub struct Notes {
    said: rate_limit::AllSaid,
    claim: rate_limit::Claim,
    client: Option<IpAddr>,
    unix: u64,
    met: fault::Met,
    access: access::Met,
    who: Option<std::rc::Rc<jwt::Identity>>,
    origin: cors::Origin,
    /// Its answer has said all about origins.
    is_preflight: bool,
    secure: bool,
}

impl<'a> Caller<'a> {
    fn when(&self) -> jwt::Now<'a> {
        jwt::Now {
            worker: self.worker,
            cache: self.tokens,
            now: self.now,
            unix: self.unix,
        }
    }

    fn case<'c>(
        &self,
        rules: &allow::Rules,
        request: &'c Request,
        notes: &'c Notes,
    ) -> allow::Case<'c> {
        allow::Case {
            who: notes.who.as_deref(),
            path: request.target.path(),
            address: match rules.asks_address() {
                true => rate_limit::client(self.peer, &request.headers, self.trusted),
                false => self.peer,
            },
        }
    }
}

impl Notes {
    /// How long the request is to wait before anything else is done for it.
    pub fn delay(&self) -> Option<Duration> {
        self.met.delay()
    }

    /// What the rules of access said.
    pub fn access(&self) -> access::Met {
        self.access
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
            issuers,
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
                    // They wait for the request's body, so they are the proxy's, behind the chain.
                    Settings::Transcode(_) | Settings::GrpcWeb | Settings::Validate(_) => {
                        return None;
                    }
                    Settings::Jwt(used) => Filter::Jwt(jwt::Bearer {
                        issuer: issuers.named(&used.name),
                        optional: used.optional,
                    }),
                    Settings::Allow(rules) => {
                        Filter::Allow(allow::Rules::compile(rules, setting.at, route))
                    }
                    Settings::Access(mode) => Filter::Access(*mode, setting.at),
                    Settings::SecurityHeaders(fields) => Filter::SecurityHeaders(fields.clone()),
                    Settings::Cors(_) => return None,
                })
            })
            .collect();
        let asks = |filter: &Filter| match filter {
            Filter::ApiKey(_) => true,
            Filter::RateLimit(limit) => limit.needs_claim(),
            _ => false,
        };
        let limits = filters
            .iter()
            .any(|filter| matches!(filter, Filter::RateLimit(_)));
        let claims = filters.iter().any(asks);
        let faults = filters
            .iter()
            .any(|filter| matches!(filter, Filter::Fault(_)));
        let cors = route.filters.iter().find_map(|filter| match &filter.value {
            Settings::Cors(settings) => Some(cors::Cors::compile(settings)),
            _ => None,
        });
        Chain {
            issuers: issuers.tells().then(|| (*issuers).clone()),
            cors,
            tokens: filters
                .iter()
                .any(|filter| matches!(filter, Filter::Jwt(_))),
            policies: (limits || claims).then(|| (*policies).clone()),
            filters,
            limits,
            claims,
            faults,
            transcoder: transcoders.of(route).cloned(),
            bodies: route.filters.iter().find_map(|filter| match &filter.value {
                Settings::Validate(bodies) => Some(bodies.clone()),
                _ => None,
            }),
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

    pub fn bodies(&self) -> Option<&Arc<Validate>> {
        self.bodies.as_ref()
    }

    pub fn transcoder(&self) -> Option<&Arc<Transcoder>> {
        self.transcoder.as_ref()
    }

    pub fn has_grpc_web(&self) -> bool {
        self.grpc_web
    }

    pub fn is_empty(&self) -> bool {
        self.filters.is_empty() && self.issuers.is_none() && self.cors.is_none()
    }

    /// Whether what it was compiled with is still what holds.
    pub fn is_current(
        &self,
        policies: &Arc<Policies>,
        issuers: &Arc<jwt::Issuers>,
        transcoder: Option<&Arc<Transcoder>>,
    ) -> bool {
        let translates = match (&self.transcoder, transcoder) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            _ => false,
        };
        let same = translates
            && self
                .policies
                .as_ref()
                .is_none_or(|ours| Arc::ptr_eq(ours, policies));
        same && match &self.issuers {
            Some(ours) => Arc::ptr_eq(ours, issuers),
            None => !issuers.tells() && !self.tokens,
        }
    }

    /// Whether it wants to know the time of day.
    pub fn wants_time(&self) -> bool {
        self.limits || self.tokens
    }

    /// Whether a preflight for this route is answered here.
    pub fn has_cors(&self) -> bool {
        self.cors.is_some()
    }

    /// The answer to a preflight, before and instead of everything else.
    pub fn preflight(&self, request: &Request, notes: &mut Notes) -> Option<Response> {
        let cors = self.cors.as_ref()?;
        cors::preflight_of(request)?;
        notes.is_preflight = true;
        Some(cors.preflight(&cors.origin(&request.headers)))
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
        notes.secure = caller.secure;
        if let Some(cors) = &self.cors {
            notes.origin = cors.origin(&request.headers);
        }
        if let Some(issuers) = &self.issuers {
            issuers.strip(&mut request.headers);
        }
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
                Filter::Jwt(bearer) => {
                    notes.who = bearer.ask(&mut request.headers, caller.when())?;
                }
                Filter::Allow(rules) => rules.ask(&caller.case(rules, request, notes), route)?,
                Filter::Access(mode, at) => {
                    let call = access::Call {
                        caller: caller.member.map(access::Call::names),
                        method: &request.method,
                        path: request.target.path(),
                        // A request for a tunnel says where to.
                        is_bytes: request.is_tunnel() && request.authority.is_empty(),
                        person: notes.who.as_deref(),
                    };
                    let rules = caller.access;
                    rules.ask(&call, (*mode, *at), &mut notes.access, route)?;
                }
                Filter::SecurityHeaders(_) => {}
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
                Filter::SecurityHeaders(fields) => {
                    security_headers::apply(fields, notes.secure, &mut response.headers);
                }
                _ => {}
            }
        }
        if let Some(cors) = self.cors.as_ref().filter(|_| !notes.is_preflight) {
            cors.tell(&notes.origin, &mut response.headers);
        }
        fault::tell(&notes.met, response);
    }
}
