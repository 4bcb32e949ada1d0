//! `GET /debug/diagnose/service/{name}` (CP-302): gathers what is known of a service, goes and looks, and says what to
//! do. A few at a time: a question is many connections.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use tollgate_config::EndpointSource;

use super::Api;
use super::fields::short;
use super::problem::{Code, Problem};
use crate::catalog::{World, millis};
use crate::diagnose::{Facts, Use, reach, report};

/// Questions at the same time.
pub(super) const AT_ONCE: usize = 2;

pub(super) async fn service(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    if name.len() > 200 || name.chars().any(char::is_control) {
        let title = format!("`{}` cannot be the name of a service", short(&name));
        return Err(Problem::new(Code::BadRequest, title));
    }
    // Never closed; who asks waits for others to be answered.
    let place = api.diagnoses.acquire().await;
    let records = api.keeper.read(|registry, _, _| registry.all(&name));
    let records = records.into_iter().map(|seen| seen.record).collect();
    let tests = reach::look(records).await;
    drop(place);
    let rules = api.keeper.rules();
    // One moment for all of it, after the looking.
    let (details, resolved, others) = api.keeper.read(|registry, rules, now| {
        let resolved = registry.lookup(rules, &name, now);
        (
            registry.details(rules, &name, now),
            resolved.iter().map(|seen| seen.record.id.clone()).collect(),
            registry.names(),
        )
    });
    let nodes = api.feed.all_nodes();
    let facts = Facts {
        service: &name,
        time: millis(),
        rules: &rules,
        details,
        resolved,
        tests,
        upstreams: uses(&api.catalog.now(), &name),
        nodes: nodes.iter().filter(|node| node.connected).count(),
        others,
    };
    Ok(Answer(report(&facts)).into_response())
}

/// Upstreams of the fleet's documents that send to it.
fn uses(world: &World, service: &str) -> Vec<Use> {
    let upstreams = world.document.upstreams.iter();
    upstreams
        .filter_map(|upstream| match &upstream.endpoints {
            EndpointSource::Service { name, with, .. } if name == service => Some(Use {
                name: upstream.name.clone(),
                place: format!("{}:{}", upstream.file, upstream.line),
                with: with.clone(),
            }),
            _ => None,
        })
        .collect()
}
