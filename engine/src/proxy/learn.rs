//! A route to whichever service the request names (`service = "*"`): which one that is, and, at its first use, waiting until
//! it is known.
//!
//! A request waits before its route's filters, so nothing was done with it yet: when the service is known it looks for
//! its route again, in the world that the service came with. The control plane may have told of a route for just this
//! service, and that one is taken. This is the one case in which a request reads the snapshot twice.
//!
//! What cannot be learned is kept until somebody forwards: the route's filters have their word first, and its fallback
//! answers as for an upstream that cannot be reached.

use std::time::Instant;

use tokio::sync::watch;
use tollgate_config::{Learn, service_of};

use super::Proxy;
use super::books::Exchange;
use crate::clock;
use crate::exchange::Request;
use crate::exchange::error::{Code, Error, written};
use crate::route::normal_host;
use crate::snapshot::{RoutePlan, UpstreamPlan};
use crate::upstream::learning::{Heard, Refusal};

/// The service that a request names.
#[derive(Default)]
pub(super) enum Named {
    /// Its route does not ask.
    #[default]
    Nothing,
    /// Its position among those that are known.
    Service(usize),
    /// It cannot be sent anywhere; why.
    Refused(Box<Error>),
}

impl Proxy {
    /// After the route: finds the service that the request names, if it goes by that. Whether it has to be learned.
    pub(super) fn lacks_service(&self, exchange: &mut Exchange, request: &Request) -> bool {
        let plan = exchange.route();
        let Some(services) = plan.and_then(|plan| plan.compiled.services.as_ref()) else {
            return false;
        };
        exchange.named = match service_of(&normal_host(&request.authority)) {
            Some(service) => match services.names.take(service) {
                Some(position) => Named::Service(position),
                None => return true,
            },
            None => Named::Refused(Box::new(Error::because(
                Code::BadServiceName,
                "a service is called by its name, as in http://orders/ or http://orders.default.svc/",
            ))),
        };
        false
    }

    /// Waits until the service is known, and looks for the route again. What stands in the way is told when somebody
    /// forwards.
    pub(super) async fn learn(
        &self,
        exchange: &mut Exchange,
        request: &Request,
    ) -> Result<(), Error> {
        if let Err(error) = self.ask(exchange, request).await {
            exchange.named = Named::Refused(Box::new(error));
            return Ok(());
        }
        exchange.look_again();
        self.route(exchange, request)?;
        if self.lacks_service(exchange, request) {
            exchange.named = Named::Refused(Box::new(Error::because(
                Code::ServiceLookupFailed,
                "the service was known, and was forgotten at once",
            )));
        }
        Ok(())
    }

    /// Returns when the service is known, or with the reason why it is not.
    async fn ask(&self, exchange: &Exchange, request: &Request) -> Result<(), Error> {
        let host = normal_host(&request.authority);
        let service = service_of(&host).ok_or(Code::BadServiceName)?;
        let plan = exchange.route().ok_or(Code::NoRoute)?;
        let (upstream, learn) = plan.compiled.learns().ok_or(Code::Internal)?;
        let now = clock::now();
        let (most, patience) = (learn.max_services.value, learn.timeout.value);
        let asked = self.learning.ask(service, most, patience, now);
        let refused = |refusal| refused(service, &refusal, upstream, learn);
        let mut heard = asked.map_err(refused)?;
        let (by, why) = end(exchange, plan, request, learn, now);
        let waited = exchange.alarm.until(Some(by), answer(&mut heard)).await;
        clock::now();
        match waited {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refusal)) => Err(refused(refusal)),
            Err(_) => Err(match why {
                Code::RouteTimeout => Error::governed_by(
                    why,
                    "route.timeout",
                    plan.item.timeout.value.map_or_else(String::new, written),
                    plan.place(plan.item.timeout.at),
                ),
                Code::DeadlineExceeded => why.into(),
                _ => {
                    let away = self.learning.why_away();
                    let away = away.unwrap_or_else(|| "it did not answer in time".into());
                    refused(Refusal::Away(away))
                }
            }),
        }
    }
}

async fn answer(heard: &mut watch::Receiver<Heard>) -> Result<(), Refusal> {
    let told = heard.wait_for(Option::is_some).await;
    // The sender goes without a word only when the process ends.
    let told = told.ok().and_then(|told| told.clone());
    told.unwrap_or_else(|| Err(Refusal::Away("the process is stopping".into())))
}

/// When waiting is over, and what it is called then.
fn end(
    exchange: &Exchange,
    plan: &RoutePlan,
    request: &Request,
    learn: &Learn,
    now: Instant,
) -> (Instant, Code) {
    // A body that still comes has not used up any of the route's time yet.
    let whole = plan.item.timeout.value.filter(|_| request.body.is_empty());
    let ends = [
        whole.map(|timeout| (exchange.started + timeout, Code::RouteTimeout)),
        exchange
            .deadline
            .map(|deadline| (deadline, Code::DeadlineExceeded)),
    ];
    let patience = (now + learn.timeout.value, Code::ServiceLookupFailed);
    let earlier = |first: (Instant, Code), other: (Instant, Code)| {
        if other.0 < first.0 { other } else { first }
    };
    ends.into_iter().flatten().fold(patience, earlier)
}

#[cold]
fn refused(service: &str, refusal: &Refusal, upstream: &UpstreamPlan, learn: &Learn) -> Error {
    let item = &upstream.item;
    match refusal {
        Refusal::Unknown => Error::because(
            Code::UnknownService,
            format!("nobody has registered service {service}"),
        ),
        Refusal::Away(why) => Error {
            cause: Some(format!("service {service}: the control plane: {why}").into()),
            ..Error::governed_by(
                Code::ServiceLookupFailed,
                "upstream.learn.timeout",
                written(learn.timeout.value),
                item.place(learn.timeout.at),
            )
        },
        Refusal::Full => Error {
            cause: Some(format!("service {service} would be one more").into()),
            ..Error::governed_by(
                Code::TooManyServices,
                "upstream.learn.max_services",
                learn.max_services.value.to_string(),
                item.place(learn.max_services.at),
            )
        },
        Refusal::Busy => Error::because(
            Code::ServiceLookupFailed,
            format!("service {service}: too many others are asked about at once"),
        ),
    }
}

/// The branch that is meant by one that is written: of a template, that of the service which the request names.
pub(super) fn branch(exchange: &Exchange, plan: &RoutePlan, branch: usize) -> Result<usize, Error> {
    if !plan.compiled.is_template(branch) {
        return Ok(branch);
    }
    let service = match &exchange.named {
        Named::Service(position) => Some(*position),
        Named::Refused(error) => return Err(Error::clone(error)),
        Named::Nothing => None,
    };
    let found = plan.compiled.of_service(branch, service);
    found.ok_or_else(|| Code::Internal.into())
}
