//! Traces, as nodes and services remember them: which were there lately, one as it is told, and what became of a request
//! (CP-301, CP-303). Nothing is kept here: every page asks anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{Path, Query, State};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_config::feed::{Told as FromNode, What};
use tollgate_config::span::{MOST_SPANS, Span, SpanStatus};
use tollgate_config::{Action, EndpointSource};

use super::problem::{Code, Problem};
use super::{Api, asking, sagas};
use crate::audit::moment;
use crate::catalog::millis;
use crate::diagnose::pages::Place;
use crate::diagnose::request::{Facts, LogLine, Registered, ServiceLog, Silent, Told, report};

/// Traces that are listed, if nothing is said, and at most.
const USUAL: u32 = 50;
const MOST: u32 = 500;
/// Spans that are asked for to find one trace.
const SPANS_OF_ONE: u32 = 8;
/// Lines of one service that are read.
const MOST_LINES: usize = 1_000;

/// What a service tells of a trace.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Page {
    spans: Vec<Span>,
    logs: Vec<LogLine>,
}

#[derive(Deserialize)]
pub(super) struct Few {
    limit: Option<u32>,
}

/// `GET /debug/traces/recent`: the latest first, as the nodes saw them.
pub(super) async fn recent(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    Query(few): Query<Few>,
) -> Result<Answer<Value>, Problem> {
    let limit = few.limit.unwrap_or(USUAL).clamp(1, MOST);
    let what = What::Traces(limit.saturating_mul(SPANS_OF_ONE));
    let asked = asking::all(&api, &headers, what).await?;
    let mut traces: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for answer in &asked.answers {
        if let FromNode::Spans(spans) = &answer.told {
            for span in spans {
                traces.entry(&span.trace_id).or_default().push(span);
            }
        }
    }
    let mut traces: Vec<(u64, Value)> = { traces.into_iter() }
        .map(|(id, spans)| summary(id, &spans))
        .collect();
    traces.sort_by_key(|(began, _)| std::cmp::Reverse(*began));
    traces.truncate(limit as usize);
    let traces: Vec<Value> = traces.into_iter().map(|(_, trace)| trace).collect();
    Ok(Answer(json!({
        "traces": traces,
        "answered": asked.answers.len(),
        "silent": asked.silent,
    })))
}

/// One trace in a line: what is told of it lately, not all of it. When it began, too.
fn summary(id: &str, spans: &[&Span]) -> (u64, Value) {
    let began = { spans.iter() }
        .map(|span| span.start_us)
        .min()
        .unwrap_or_default();
    let ended = { spans.iter() }
        .map(|span| span.end_us())
        .max()
        .unwrap_or_default();
    let first = { spans.iter() }.min_by_key(|span| (span.start_us, u64::MAX - span.duration_us));
    let services: BTreeSet<&str> = spans.iter().map(|span| &*span.service).collect();
    let errors = { spans.iter() }.filter(|span| span.status == SpanStatus::Error);
    let trace = json!({
        "trace_id": id,
        "began": moment(began / 1000),
        "duration_ms": (ended - began) as f64 / 1000.0,
        "service": first.map(|span| &span.service),
        "operation": first.map(|span| &span.operation),
        "status": first.and_then(|span| span.tags.get("status")),
        "services": services,
        "spans": spans.len(),
        "errors": errors.count(),
    });
    (began, trace)
}

/// `GET /debug/traces/{trace_id}`: all spans that are told of it.
pub(super) async fn trace(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Answer<Value>, Problem> {
    let report = report(facts(&api, &headers, &id).await?);
    Ok(Answer(json!({
        "trace_id": report.trace_id,
        "complete": report.completeness.complete,
        "spans": report.spans,
        "silent": report.silent,
    })))
}

/// `GET /debug/diagnose/request/{trace_id}`.
pub(super) async fn diagnose(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Answer<Value>, Problem> {
    let mut facts = facts(&api, &headers, &id).await?;
    // A request is about one order, or none.
    if let Some(id) = facts.sagas().first() {
        match sagas::find(&api, id).await {
            Ok(saga) => facts.saga = Some(saga),
            Err(silent) => facts.silent.extend(silent.into_iter().map(shown)),
        }
    }
    let report = report(facts);
    Ok(Answer(serde_json::to_value(&report).unwrap_or_default()))
}

fn shown(silent: crate::feed::Silent) -> Silent {
    Silent {
        who: silent.who,
        why: silent.why,
    }
}

/// Asks everybody who may know something; nobody does: that is told as a refusal.
async fn facts(api: &Api, headers: &HeaderMap, id: &str) -> Result<Facts, Problem> {
    let id = asking::trace_id(id)?;
    let page = format!("/debug/traces/{id}");
    let (asked, pages) = tokio::join!(
        asking::all(api, headers, What::Trace(id.clone())),
        sagas::read::<Page>(api, &page)
    );
    let asked = asked?;
    let mut facts = Facts {
        time: moment(millis()),
        silent: asked.silent.into_iter().map(shown).collect(),
        services: registered(api),
        routes: routes(api),
        upstreams: upstreams(api),
        cut: asked.cut,
        trace_id: id,
        ..Facts::default()
    };
    let mut room = MOST_SPANS;
    for answer in asked.answers {
        if let FromNode::Spans(spans) = answer.told {
            let by = format!("node {}", answer.node);
            take(
                &mut facts,
                &mut room,
                Told {
                    by,
                    spans,
                    log: None,
                },
            );
        }
    }
    for (place, page) in pages {
        match from_service(&facts.trace_id, &place, page) {
            Ok(told) => take(&mut facts, &mut room, told),
            Err(why) => facts.silent.push(shown(sagas::silence(&place, why))),
        }
    }
    if facts.is_known() {
        return Ok(facts);
    }
    let mut title = format!(
        "nobody knows trace `{}`: it may never have come here, or is older than what nodes and services remember",
        facts.trace_id
    );
    for one in facts.silent.iter().take(5) {
        title += &format!("; {} did not answer: {}", one.who, one.why);
    }
    Err(Problem::new(Code::UnknownTrace, title))
}

fn take(facts: &mut Facts, room: &mut usize, mut told: Told) {
    facts.cut |= told.spans.len() > *room;
    told.spans.truncate(*room);
    *room -= told.spans.len();
    facts.told.push(told);
}

/// What a service tells, judged: a page that speaks of another trace is not believed.
fn from_service(
    trace_id: &str,
    place: &Place,
    page: Result<Option<Page>, String>,
) -> Result<Told, String> {
    let page = page?.unwrap_or_default();
    for span in &page.spans {
        span.check()?;
        if span.trace_id != trace_id {
            return Err("it tells a span of another trace".to_owned());
        }
    }
    let lines = { page.logs.into_iter() }.take(MOST_LINES);
    Ok(Told {
        by: format!("instance {}", place.instance),
        spans: page.spans,
        log: Some(ServiceLog {
            service: place.service.to_string(),
            lines: lines.map(LogLine::bounded).collect(),
        }),
    })
}

/// How every service stands.
fn registered(api: &Api) -> BTreeMap<String, Registered> {
    let mut all = api.keeper.read(|registry, rules, now| {
        let names = registry.names();
        let all = names.iter().map(|name| {
            let records = registry.all(name);
            let one = Registered {
                instances: records.len(),
                resolved: registry.lookup(rules, name, now).len(),
                tells: records.iter().any(|seen| Place::of(&seen.record).is_some()),
            };
            (name.to_string(), one)
        });
        all.collect::<BTreeMap<_, _>>()
    });
    for node in api.feed.everybody() {
        if let Some(one) = { node.stands_for.as_deref() }.and_then(|name| all.get_mut(name)) {
            one.tells |= node.connected;
        }
    }
    all
}

/// Which service a route of the fleet's documents sends to, if it is one alone.
fn routes(api: &Api) -> BTreeMap<String, String> {
    let (world, upstreams) = (api.catalog.now(), upstreams(api));
    let routes = world.document.routes.iter();
    routes
        .filter_map(|route| match &route.action {
            Action::Upstream(upstream) => {
                let service = upstreams.get(&upstream.value)?;
                Some((route.name.clone(), service.clone()))
            }
            _ => None,
        })
        .collect()
}

/// Which service an upstream of the fleet's documents stands for.
fn upstreams(api: &Api) -> BTreeMap<String, String> {
    let world = api.catalog.now();
    let upstreams = world.document.upstreams.iter();
    upstreams
        .filter_map(|upstream| match &upstream.endpoints {
            EndpointSource::Service { name, .. } => Some((upstream.name.clone(), name.clone())),
            _ => None,
        })
        .collect()
}
