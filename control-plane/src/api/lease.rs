//! Tokens of shared limits over HTTP (GW-315, CP-404): a question and its answer, and who holds what.

use std::sync::Arc;

use axum::Json as Answer;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tollgate_config::leases::Question;

use super::Api;
use super::fields::short;
use super::guard::{Who, not_yours};
use super::problem::{Code, Field, Problem};
use crate::lease::Refusal;
use crate::lending::Refused;

/// `POST /leases`.
pub(super) async fn lend(
    State(api): State<Arc<Api>>,
    Who(caller): Who,
    body: Bytes,
) -> Result<Response, Problem> {
    let question: Question = serde_json::from_slice(&body).map_err(|error| {
        let title = format!("the body is not what a gateway asks for: {error}");
        Problem::new(Code::BadRequest, title)
    })?;
    let faults = question.faults();
    if !faults.is_empty() {
        let field = |(field, reason): (&str, String)| Field {
            field: field.to_owned(),
            reason,
            hint: "keep to the bounds".to_owned(),
        };
        return Err(Problem::fields(faults.into_iter().map(field).collect()));
    }
    if !caller.is_node(&question.node) {
        return Err(not_yours(&caller, "node", &short(&question.node)));
    }
    match api.lending.ask(&question).await {
        Ok(answer) => Ok(Answer(answer).into_response()),
        Err(Refused::Store(error)) => Err(Problem::new(
            Code::StoreUnavailable,
            format!("{error}; nothing is lent before it is noted that something was"),
        )),
        Err(Refused::Lender(refusal)) => {
            let title = match refusal {
                Refusal::Gateways(most) => format!("{most} gateways share limits, no more can"),
                Refusal::Limits(most) => format!("{most} limits are shared, no more can be"),
            };
            Err(Problem::new(Code::LeasesFull, title))
        }
    }
}

/// `GET /leases`.
pub(super) async fn look(State(api): State<Arc<Api>>) -> Answer<Value> {
    let (epoch, limits, gateways) = api.lending.look();
    Answer(json!({ "epoch": epoch, "limits": limits, "gateways": gateways }))
}
