//! `GET /debug/metrics/services`: rate, errors and durations of every service, who calls it, and how the breakers before it
//! stand (CP-301).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use http::HeaderMap;
use serde_json::{Value, json};
use tollgate_config::feed::{Breaker, Told, What};

use super::problem::Problem;
use super::{Api, asking, rollout};

/// Breakers of one service that are told one by one; the others are counted.
const MOST: usize = 100;

/// The breakers before one service.
#[derive(Default)]
struct Breakers {
    closed: usize,
    half_open: usize,
    open: usize,
    /// Those that are not closed.
    told: Vec<Value>,
}

impl Breakers {
    fn add(&mut self, node: &str, breaker: &Breaker) {
        match breaker.state.as_str() {
            "open" => self.open += 1,
            "half_open" => self.half_open += 1,
            _ => {
                self.closed += 1;
                return;
            }
        }
        if self.told.len() < MOST {
            self.told.push(json!({
                "node": node,
                "upstream": breaker.upstream,
                "part": breaker.part,
                "state": breaker.state,
            }));
        }
    }

    fn told(&self) -> Value {
        let state = match (self.open, self.half_open, self.closed) {
            (1.., ..) => "open",
            (0, 1.., _) => "half_open",
            (0, 0, 1..) => "closed",
            (0, 0, 0) => "none",
        };
        json!({
            "state": state,
            "open": self.open,
            "half_open": self.half_open,
            "closed": self.closed,
            "not_closed": self.told,
        })
    }
}

pub(super) async fn services(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
) -> Result<Answer<Value>, Problem> {
    let asked = asking::all(&api, &headers, What::Breakers).await?;
    let mut breakers: BTreeMap<String, Breakers> = BTreeMap::new();
    for answer in &asked.answers {
        let Told::Breakers(all) = &answer.told else {
            continue;
        };
        for breaker in all {
            if let Some(service) = &breaker.service {
                let of = breakers.entry(service.clone()).or_default();
                of.add(&answer.node, breaker);
            }
        }
    }
    let serves = rollout::services(&api);
    let callers = callers(&api);
    let registered = api.keeper.read(|registry, _, _| registry.names());
    let mut names: Vec<&str> = registered.iter().map(|name| &**name).collect();
    names.extend(serves.keys().map(String::as_str));
    names.extend(breakers.keys().map(String::as_str));
    names.sort_unstable();
    names.dedup();
    let none = Breakers::default();
    let services = names.into_iter().map(|name| {
        json!({
            "name": name,
            "serves": serves.get(name),
            "callers": callers.get(name).unwrap_or(&Vec::new()),
            "breakers": breakers.get(name).unwrap_or(&none).told(),
        })
    });
    let services: Vec<Value> = services.collect();
    Ok(Answer(json!({
        "services": services,
        "answered": asked.answers.len(),
        "silent": asked.silent,
    })))
}

/// Who calls a service, as the map has it, by the service's name.
fn callers(api: &Api) -> BTreeMap<String, Vec<Value>> {
    let now = api.feed.now();
    let mut callers: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    api.feed.figures(|book| {
        for edge in book.edges(now) {
            let mut told = edge.red.as_ref().map_or_else(|| json!({}), rollout::red);
            told["source"] = edge.source.into();
            // An edge's end is `namespace/service`.
            let name = edge.destination.rsplit('/').next().unwrap_or_default();
            callers.entry(name.to_owned()).or_default().push(told);
        }
    });
    callers
}
