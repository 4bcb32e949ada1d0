//! Sagas, as the services tell that drive them: which are under way, which failed, and what is wrong with one (CP-301,
//! CP-304, SHOP-512). Every instance that offers debug pages is asked; who has none of sagas is left out.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::Api;
use super::fields::short;
use super::problem::{Code, Problem};
use crate::audit::moment;
use crate::catalog::millis;
use crate::diagnose::pages::{self, Found, Place};
use crate::diagnose::saga::{self, List, Saga};
use crate::feed::Silent;

/// Sagas that are told at once.
const MOST: usize = 1_000;

/// `GET /debug/sagas/active`.
pub(super) async fn active(State(api): State<Arc<Api>>) -> Result<Answer<Value>, Problem> {
    list(&api, "active").await
}

/// `GET /debug/sagas/failed`.
pub(super) async fn failed(State(api): State<Arc<Api>>) -> Result<Answer<Value>, Problem> {
    list(&api, "failed").await
}

async fn list(api: &Api, which: &str) -> Result<Answer<Value>, Problem> {
    let found: Vec<Found<List>> = read(api, &format!("/debug/sagas/{which}")).await;
    let (mut sagas, mut silent, mut tellers) = (BTreeMap::new(), Vec::new(), Vec::new());
    for (place, page) in found {
        match page {
            Ok(Some(list)) => {
                tellers.push(place.instance.clone());
                for mut one in list.sagas {
                    let Some(id) = one["saga_id"].as_str().map(str::to_owned) else {
                        continue;
                    };
                    one["service"] = (&*place.service).into();
                    one["told_by"] = (&*place.instance).into();
                    // Instances that share a database tell the same ones.
                    if sagas.len() < MOST {
                        sagas.entry(id).or_insert(one);
                    }
                }
            }
            Ok(None) => {}
            Err(why) => silent.push(silence(&place, why)),
        }
    }
    let sagas: Vec<Value> = sagas.into_values().collect();
    Ok(Answer(
        json!({ "sagas": sagas, "told_by": tellers, "silent": silent }),
    ))
}

/// `GET /debug/diagnose/saga/{id}`: by its own id, or by the order's.
pub(super) async fn diagnose(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Answer<saga::Report>, Problem> {
    if !is_saga(&id) {
        let id = short(&id).replace(char::is_control, " ");
        let title = format!("`{id}` cannot be the id of a saga or an order");
        return Err(Problem::new(Code::BadRequest, title));
    }
    match find(&api, &id).await {
        Ok(report) => Ok(Answer(report)),
        Err(silent) => {
            let mut title = format!("no service that offers debug pages knows a saga `{id}`");
            if silent.is_empty() {
                title += "; it is known by its own id and by the order's, for as long as the service keeps it";
            }
            for one in silent.iter().take(5) {
                title += &format!("; {} did not answer: {}", one.who, one.why);
            }
            Err(Problem::new(Code::UnknownSaga, title))
        }
    }
}

/// One segment of a path.
fn is_saga(id: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    (1..=100).contains(&id.len()) && id.bytes().all(fits) && !matches!(id, "." | "..")
}

/// What is wrong with a saga; or who did not answer.
pub(super) async fn find(api: &Api, id: &str) -> Result<saga::Report, Vec<Silent>> {
    if !is_saga(id) {
        return Err(Vec::new());
    }
    let found: Vec<Found<Saga>> = read(api, &format!("/debug/sagas/{id}")).await;
    let mut silent = Vec::new();
    for (place, page) in found {
        match page {
            Ok(Some(told)) => {
                let by = format!("instance {}", place.instance);
                return Ok(saga::report(told, by, moment(millis())));
            }
            Ok(None) => {}
            Err(why) => silent.push(silence(&place, why)),
        }
    }
    Err(silent)
}

/// The same page of every instance that offers debug pages. Few at a time, like every question that connects to many.
pub(super) async fn read<T>(api: &Api, path: &str) -> Vec<Found<T>>
where
    T: serde::de::DeserializeOwned + Send + 'static,
{
    let places = api.keeper.read(|registry, _, _| {
        let names = registry.names();
        let all = names.iter().flat_map(|name| registry.all(name));
        let places = all.filter_map(|seen| Place::of(&seen.record));
        places.collect::<Vec<Place>>()
    });
    // Never closed; who asks waits for others to be answered.
    let _place = api.diagnoses.acquire().await;
    pages::read(places, path, api.feed.answer_timeout()).await
}

pub(super) fn silence(place: &Place, why: String) -> Silent {
    Silent {
        who: format!("instance {} of {}", place.instance, place.service),
        why,
    }
}
