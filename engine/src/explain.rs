//! Why a request goes where it goes: the same table, the same filters and the same timers that a request meets, told
//! in words with the line that each comes from. Used by `explain` on a file and by `POST /explain` on the running
//! process. Nothing is sent anywhere.

use std::time::{Duration, Instant};

use http::{HeaderMap, Method};
use serde::Serialize;
use tollgate_config::{Action, ApiKeyUse, At, Filter, Item, Member, Place, path, service_of};

use crate::exchange::Target;
use crate::exchange::error::written;
use crate::filter::access::{Call, Standing};
use crate::reload::learned::Shown;
use crate::route::{Explanation, Found, Lookup, normal_host, pattern_of, rewritten};
use crate::snapshot::{Branch, Snapshot, UpstreamPlan};
use crate::upstream::{HealthStatus, UpstreamStatus};

/// The request to explain.
pub struct Ask {
    /// `None`: the first listener.
    pub listener: Option<String>,
    pub method: Method,
    pub host: String,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    /// The service that calls; `None`: nobody that is known.
    pub caller: Option<Member>,
}

#[derive(Serialize)]
pub struct Explained {
    pub generation: u64,
    pub listener: String,
    pub method: String,
    pub host: String,
    /// The normal form, which is matched and sent.
    pub path: String,
    /// 200 when a route was found; else the status of our answer.
    pub status: u16,
    pub route: Option<String>,
    pub at: Option<String>,
    pub action: Option<String>,
    /// The path an upstream is sent.
    pub sent_path: Option<String>,
    pub filters: Vec<String>,
    /// The rules about who may call, in order, where the route asks them.
    pub access: Vec<Ruled>,
    /// Where the route goes to whichever service the host names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    pub upstreams: Vec<Chosen>,
    pub timers: Vec<Timer>,
    pub candidates: Explanation,
    /// Names of all routes, by number.
    #[serde(skip)]
    names: Vec<String>,
}

/// The service that a host names.
#[derive(Serialize)]
pub struct Service {
    /// `None`: the host can be no service's.
    pub name: Option<String>,
    /// Whether it has an upstream; if not, the first request asks the control plane.
    pub known: bool,
    #[serde(flatten)]
    pub learned: Option<Shown>,
}

#[derive(Serialize)]
pub struct Chosen {
    pub name: String,
    /// Share of requests, 0 to 1.
    pub share: f64,
    pub at: String,
    pub state: UpstreamStatus,
}

/// What a rule of access says to the request.
#[derive(Serialize)]
pub struct Ruled {
    pub rule: String,
    pub at: String,
    pub says: String,
    pub standing: Standing,
}

#[derive(Serialize)]
pub struct Timer {
    pub setting: &'static str,
    pub value: String,
    /// File and line, or "default".
    pub at: String,
}

/// Explains, or says why the request is not one.
pub fn explain(snapshot: &Snapshot, ask: &Ask) -> Result<Explained, String> {
    let listener = snapshot
        .listeners
        .iter()
        .flatten()
        .find(|plan| {
            ask.listener
                .as_ref()
                .is_none_or(|name| *name == plan.item.name)
        })
        .ok_or_else(|| {
            format!(
                "there is no listener {}",
                ask.listener.as_deref().unwrap_or("at all")
            )
        })?;
    let (raw, query) = ask
        .target
        .split_once('?')
        .map_or((ask.target.as_str(), None), |(raw, query)| {
            (raw, Some(query))
        });
    let normal = path::normalize(raw).map_err(|error| format!("bad_path: {error}"))?;
    let target = Target::new(&normal, query);
    let lookup = Lookup {
        listener: listener.index,
        host: &ask.host,
        path: target.path(),
        query: target.query(),
        method: &ask.method,
        headers: &ask.headers,
    };
    let mut explained = Explained {
        generation: snapshot.generation,
        listener: listener.item.name.clone(),
        method: ask.method.to_string(),
        host: ask.host.clone(),
        path: target.path().to_owned(),
        status: 404,
        route: None,
        at: None,
        action: None,
        sent_path: None,
        filters: Vec::new(),
        access: Vec::new(),
        service: None,
        upstreams: Vec::new(),
        timers: Vec::new(),
        candidates: snapshot.table.explain(&lookup),
        names: snapshot
            .routes
            .iter()
            .map(|plan| plan.item.name.clone())
            .collect(),
    };
    let plan = match snapshot.table.find(&lookup) {
        Found::Route(id) => snapshot.route(id),
        Found::MethodNotAllowed(_) => {
            explained.status = 405;
            return Ok(explained);
        }
        Found::NotFound => return Ok(explained),
    };
    let item = &plan.item;
    explained.status = 200;
    explained.route = Some(item.name.clone());
    explained.at = Some(item.begins().to_string());
    explained.sent_path = match &item.rewrite {
        Some(rewrite) => rewritten(rewrite, pattern_of(&item.matches), target.path()).ok(),
        None => Some(target.path().to_owned()),
    };
    explained.action = Some(match &item.action {
        Action::Upstream(name) => format!("upstream {}", name.value),
        Action::Split { sticky, .. } => if sticky.is_some() {
            "sticky split"
        } else {
            "split by weight"
        }
        .into(),
        Action::Respond { status, .. } => format!("respond {}", status.as_u16()),
        Action::Redirect { to, status } => format!("redirect {} to {to}", status.as_u16()),
    });
    let mut limits = plan.compiled.chain.limits();
    explained.filters = item
        .filters
        .iter()
        .map(|filter| {
            let mut word = filter_word(&filter.value).to_owned();
            if let Filter::RateLimit(_) = &filter.value
                && let Some(limit) = limits.next()
            {
                word = format!("{word} {}", limit.told());
            }
            if let Filter::Fault(fault) = &filter.value {
                word = format!("{word} {}", crate::filter::fault::told(fault));
            }
            if let Filter::Jwt(used) = &filter.value {
                let token = if used.optional {
                    "optional"
                } else {
                    "required"
                };
                word = format!("{word} {}, token {token}", used.name);
            }
            if let Filter::Allow(rules) = &filter.value {
                word = format!("{word} {rules}");
            }
            if let Filter::Access(mode) = &filter.value {
                let caller = ask.caller.as_ref().map(Member::to_string);
                let caller = caller.as_deref().unwrap_or("nobody that is known");
                word = format!("{word} {}, called by {caller}", mode.word());
                explained.access = ruled(snapshot, ask, target.path());
            }
            format!("{word} ({})", at(item, filter.at))
        })
        .collect();
    let now = Instant::now();
    let compiled = &plan.compiled;
    let host = normal_host(&ask.host);
    let named = service_of(&host);
    let known = compiled.services.as_ref().zip(named);
    let known = known.and_then(|(services, name)| services.names.position(name));
    explained.service = compiled.services.as_ref().map(|_| Service {
        name: named.map(str::to_owned),
        known: known.is_some(),
        learned: None,
    });
    if compiled.services.is_some() && named.is_none() {
        explained.status = 400;
    }
    let chosen = |(place, written): (usize, &Branch)| {
        let learned = compiled.of_service(place, known);
        let branch = learned.map_or(written, |place| &compiled.branches[place]);
        Chosen {
            name: branch.upstream.item.name.clone(),
            share: f64::from(written.weight) / f64::from(compiled.total_weight),
            at: branch.upstream.item.begins().to_string(),
            state: branch.upstream.upstream.status(now),
        }
    };
    explained.upstreams = compiled.written().iter().enumerate().map(chosen).collect();
    explained.timers.push(timer(
        "listener.header_timeout",
        Some(listener.item.header_timeout.value),
        at(&listener.item, listener.item.header_timeout.at),
    ));
    explained.timers.push(timer(
        "listener.idle_timeout",
        Some(listener.item.idle_timeout.value),
        at(&listener.item, listener.item.idle_timeout.at),
    ));
    explained.timers.push(timer(
        "route.timeout",
        item.timeout.value,
        at(item, item.timeout.at),
    ));
    explained.timers.push(timer(
        "route.idle_timeout",
        item.idle_timeout.value,
        at(item, item.idle_timeout.at),
    ));
    if let Some(retry) = &item.retry.value {
        explained.timers.push(timer(
            "route.retry.per_try_timeout",
            retry.per_try_timeout.value,
            at(item, retry.per_try_timeout.at),
        ));
    }
    for branch in plan.compiled.written() {
        explained.timers.push(connect_timer(&branch.upstream));
        if let Some(learn) = branch.upstream.learns() {
            explained.timers.push(timer(
                "upstream.learn.timeout",
                Some(learn.timeout.value),
                at(&branch.upstream.item, learn.timeout.at),
            ));
        }
    }
    Ok(explained)
}

fn ruled(snapshot: &Snapshot, ask: &Ask, path: &str) -> Vec<Ruled> {
    let caller = ask.caller.as_ref();
    let call = Call {
        caller: caller.map(|caller| (caller.namespace.as_str(), caller.service.as_str())),
        method: &ask.method,
        path,
        is_bytes: false,
        person: None,
    };
    let rules = snapshot.access.rules().iter();
    let told = rules.map(|rule| Ruled {
        rule: rule.item.name.clone(),
        at: rule.item.begins().to_string(),
        says: rule.item.to_string(),
        standing: snapshot.access.standing(rule, &call),
    });
    told.collect()
}

fn connect_timer(upstream: &UpstreamPlan) -> Timer {
    let setting = upstream.item.connect_timeout;
    timer(
        "upstream.connect_timeout",
        Some(setting.value),
        at(&upstream.item, setting.at),
    )
}

fn timer(setting: &'static str, value: Option<Duration>, at: String) -> Timer {
    Timer {
        setting,
        value: value.map_or_else(|| "off".into(), written),
        at,
    }
}

fn at<T>(item: &Item<T>, at: At) -> String {
    item.place(at)
        .map_or_else(|| "default".into(), |place: Place| place.to_string())
}

fn filter_word(filter: &Filter) -> &'static str {
    match filter {
        Filter::SetHeaders(_) => "set_headers",
        Filter::RateLimit(_) => "rate_limit",
        Filter::ApiKey(ApiKeyUse::Required) => "api_key required",
        Filter::ApiKey(ApiKeyUse::Optional) => "api_key optional",
        Filter::Fault(_) => "fault",
        Filter::Transcode(_) => "transcode",
        Filter::GrpcWeb => "grpc_web",
        Filter::Validate(_) => "validate",
        Filter::Jwt(_) => "jwt",
        Filter::Allow(_) => "allow",
        Filter::Access(_) => "access",
        Filter::Cors(_) => "cors",
        Filter::SecurityHeaders(_) => "security_headers",
    }
}

impl std::fmt::Display for Explained {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{} {}{} on listener {}",
            self.method, self.host, self.path, self.listener
        )?;
        match (&self.route, self.status) {
            (Some(route), _) => writeln!(
                f,
                "  route      {route}  ({})",
                self.at.as_deref().unwrap_or("")
            )?,
            (None, 405) => writeln!(
                f,
                "  no route: the path is known, but not with this method (405 method_not_allowed)"
            )?,
            (None, _) => writeln!(f, "  no route matches (404 no_route)")?,
        }
        if let Some(action) = &self.action {
            writeln!(f, "  action     {action}")?;
        }
        if let Some(path) = self
            .sent_path
            .as_ref()
            .filter(|_| !self.upstreams.is_empty())
        {
            writeln!(f, "  path sent  {path}")?;
        }
        for filter in &self.filters {
            writeln!(f, "  filter     {filter}")?;
        }
        for ruled in &self.access {
            writeln!(
                f,
                "    rule {}: {}: {}  ({})",
                ruled.rule,
                ruled.says,
                ruled.standing.words(),
                ruled.at
            )?;
        }
        if let Some(service) = &self.service {
            let known = match &service.name {
                None => "none: the host can be no service's (400 bad_service_name)".to_owned(),
                Some(name) if service.known => format!("{name}, which is known"),
                Some(name) => {
                    format!("{name}, which the control plane is asked for at its first use")
                }
            };
            writeln!(f, "  service    {known}")?;
        }
        for chosen in &self.upstreams {
            writeln!(
                f,
                "  upstream   {} {:.0} %  ({})",
                chosen.name,
                chosen.share * 100.0,
                chosen.at
            )?;
            for endpoint in &chosen.state.endpoints {
                let latency = endpoint
                    .latency_ms
                    .map_or("no answer yet".into(), |ms| format!("{ms:.1} ms"));
                let health = match &endpoint.health {
                    HealthStatus::Healthy => "healthy".to_owned(),
                    HealthStatus::Ejected { returns_in_seconds } => {
                        format!("ejected for {returns_in_seconds:.1} s more")
                    }
                    HealthStatus::FailingProbes { reason } => format!("fails its probes: {reason}"),
                };
                writeln!(
                    f,
                    "    endpoint {} weight {}, {health}, in flight {}, {latency}",
                    endpoint.name, endpoint.weight, endpoint.in_flight
                )?;
            }
        }
        for timer in &self.timers {
            writeln!(
                f,
                "  timer      {} = {}  ({})",
                timer.setting, timer.value, timer.at
            )?;
        }
        writeln!(f, "  candidates, most specific first:")?;
        for candidate in &self.candidates.candidates {
            let name = self
                .names
                .get(candidate.route.0 as usize)
                .map_or("", String::as_str);
            writeln!(
                f,
                "    {name}: {} {} ({}): {}",
                candidate.host, candidate.path, candidate.specificity, candidate.verdict
            )?;
        }
        write!(
            f,
            "  {} other routes do not fit its listener, host or path",
            self.candidates.others.len()
        )
    }
}
