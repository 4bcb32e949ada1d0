//! Who called whom, for the books (MESH-501, MESH-503): a worker keeps the handle of every service that called, so that a
//! request of a known one costs a look-up. Counts what rules of access said, too. Decides nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use http::StatusCode;
use tollgate_config::feed::Direction;
use tollgate_config::identity::SpiffeId;
use tollgate_config::{AccessMode, Member};

use super::Exchange;
use crate::filter::access::{Access, Met};
use crate::snapshot::OutboundEdge;
use crate::telemetry::access::Judged;
use crate::telemetry::metrics::{EdgeSeries, Metrics, RefusedCall, UNKNOWN};

/// Services that are remembered; whoever meets more begins anew.
const MOST_KNOWN: usize = 4096;

/// Who called, in this worker.
#[derive(Debug, Default)]
pub(super) struct Callers {
    /// The rules that it was learned under: they say who is called.
    access: Option<Arc<Access>>,
    callee: Option<Arc<str>>,
    known: HashMap<Option<SpiffeId>, Known, RandomState>,
}

#[derive(Debug, Clone)]
struct Known {
    source: Arc<str>,
    series: Arc<EdgeSeries>,
}

impl Callers {
    /// The source of a call, the callee and what counts such calls.
    fn of(
        &mut self,
        caller: &Option<SpiffeId>,
        access: &Arc<Access>,
        metrics: &Metrics,
    ) -> (Known, Arc<str>) {
        let current = self.access.as_ref();
        if !current.is_some_and(|known| Arc::ptr_eq(known, access)) || self.known.len() > MOST_KNOWN
        {
            self.known.clear();
            let callee = access.callee().map(Member::to_string);
            self.callee = Some(callee.unwrap_or_else(|| UNKNOWN.to_owned()).into());
            self.access = Some(access.clone());
        }
        let callee = self.callee.get_or_insert_with(|| UNKNOWN.into()).clone();
        if let Some(known) = self.known.get(caller) {
            return (known.clone(), callee);
        }
        let source = match caller {
            Some(caller) => Member::from(caller).to_string(),
            None => UNKNOWN.to_owned(),
        };
        let known = Known {
            series: metrics.edge(&source, &callee, Direction::Inbound),
            source: source.into(),
        };
        self.known.insert(caller.clone(), known.clone());
        (known, callee)
    }
}

/// Both ends of an exchange, as far as they are services.
#[derive(Debug, Default)]
pub(super) struct Ends {
    source: Option<Arc<str>>,
    destination: Option<Arc<str>>,
}

impl Ends {
    pub(super) fn both(&self) -> Option<(&str, &str)> {
        Some((self.source.as_deref()?, self.destination.as_deref()?))
    }
}

impl Exchange {
    /// What became of a request. A refusal of ours that gRPC tells in its own way, and a call that failed behind a good
    /// head, are failures.
    pub(super) fn outcome_status(&self) -> StatusCode {
        match self.error {
            Some(code) => code.status(),
            None if self.pass.belied => StatusCode::SERVICE_UNAVAILABLE,
            None => self.status,
        }
    }

    /// Counts the edges that this exchange was, and what rules of access said to it.
    pub(super) fn count_edges(&self, status: StatusCode, duration: Duration, now: Instant) -> Ends {
        let mut ends = Ends::default();
        let worker = self.proxy.worker;
        let met = self.notes.access();
        let listener = self.world.listener(self.connection.listener);
        let came_in = self.connection.caller.is_some()
            || met != Met::Unasked
            || listener.is_some_and(|listener| listener.is_mesh());
        if came_in {
            let mut callers = self.proxy.callers.borrow_mut();
            let (known, callee) = callers.of(
                &self.connection.caller,
                &self.world.access,
                &self.proxy.metrics,
            );
            drop(callers);
            known.series.observe(worker, status.as_u16(), duration, now);
            self.count_access(met, &known.source, &callee);
            ends.source = Some(known.source);
            ends.destination = Some(callee);
        }
        if let Some(OutboundEdge {
            source,
            destination,
            series,
        }) = self.outbound()
        {
            series.observe(worker, status.as_u16(), duration, now);
            ends.source.get_or_insert_with(|| source.clone());
            ends.destination = Some(destination.clone());
        }
        ends
    }

    /// The service that was asked.
    fn outbound(&self) -> Option<&OutboundEdge> {
        let branches = &self.route()?.compiled.branches;
        branches.get(self.branch?)?.upstream.edge.as_ref()
    }

    fn count_access(&self, met: Met, source: &Arc<str>, callee: &Arc<str>) {
        let access = &self.world.access;
        match met {
            Met::Unasked => {}
            Met::Allowed(rule) => {
                if let Some(rule) = access.rule(rule) {
                    rule.series.allowed(self.proxy.worker);
                }
            }
            Met::Refused(near, mode) => {
                let rule = near.and_then(|near| access.rule(near));
                self.proxy.metrics.access_refused(RefusedCall {
                    source: source.clone(),
                    destination: callee.clone(),
                    rule: rule.map_or("none", |rule| &rule.item.name).into(),
                    mode: mode.word(),
                });
            }
        }
    }

    /// For the access line.
    pub(super) fn judged(&self) -> Option<Judged<'_>> {
        let name = |rule: u32| {
            let rule = self.world.access.rule(rule)?;
            Some(rule.item.name.as_str())
        };
        Some(match self.notes.access() {
            Met::Unasked => return None,
            Met::Allowed(rule) => Judged {
                verdict: "allowed",
                rule: name(rule),
            },
            Met::Refused(near, mode) => Judged {
                verdict: match mode {
                    AccessMode::Enforce => "refused",
                    AccessMode::Audit => "would_refuse",
                },
                rule: near.and_then(name),
            },
        })
    }
}
