//! What nodes are asked over their feeds: the page that takes their answers, and the one that asks all of them, wherever
//! they listen. Other pages here make reports of the answers.

use std::sync::Arc;
use std::time::Duration;

use axum::Json as Answered;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_config::feed::{Answer, What};
use tollgate_config::span::is_id;

use super::fields::short;
use super::guard::{Who, not_yours};
use super::peers::GLANCE;
use super::problem::{Code, Field, Problem};
use super::{Api, elsewhere};
use crate::feed::{Asked, NotTaken, Silent};

/// Spans of each node that may be asked for at once.
const MOST_SPANS: u32 = 2_000;

/// `POST /nodes/{node}/answers/{id}`.
pub(super) async fn answer(
    State(api): State<Arc<Api>>,
    Who(caller): Who,
    Path((node, id)): Path<(String, String)>,
    body: Bytes,
) -> Result<Answered<Value>, Problem> {
    if !caller.is_node(&node) {
        return Err(not_yours(&caller, "node", &short(&node)));
    }
    let answer: Answer = serde_json::from_slice(&body).map_err(|error| {
        let why = error.to_string().replace(char::is_control, " ");
        let title = format!("the body is not an answer: {}", short(&why));
        Problem::new(Code::BadRequest, title)
    })?;
    let taken = api.feed.answer(&node, &id, answer);
    let (node, id) = (short(&node), short(&id));
    taken.map_err(|why| match why {
        NotTaken::Over => {
            let title = format!("nobody waits for an answer to `{id}` (any more)");
            Problem::new(Code::UnknownQuestion, title)
        }
        NotTaken::NotAsked => {
            let title = format!("this process of node `{node}` was not asked `{id}`");
            Problem::new(Code::UnknownQuestion, title)
        }
        NotTaken::Twice => {
            let title = format!("node `{node}` has answered `{id}` already");
            Problem::new(Code::Conflict, title)
        }
        NotTaken::Wrong(why) => {
            let title = format!("the answer cannot be right: {why}");
            Problem::new(Code::BadRequest, title)
        }
    })?;
    Ok(Answered(json!({ "status": "ok" })))
}

/// What to ask: exactly one of the first three.
#[derive(Deserialize)]
pub(super) struct Question {
    trace: Option<String>,
    traces: Option<u32>,
    breakers: Option<bool>,
    /// Those nodes that listen here alone.
    #[serde(default)]
    own: bool,
}

/// `GET /debug/answers`: what the nodes say, as they say it.
pub(super) async fn ask(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    Query(question): Query<Question>,
) -> Result<Answered<Asked>, Problem> {
    let what = match (question.trace, question.traces, question.breakers) {
        (Some(id), None, None) => What::Trace(trace_id(&id)?),
        (None, Some(count), None) => What::Traces(count.min(MOST_SPANS)),
        (None, None, Some(true)) => What::Breakers,
        _ => {
            let title = "send one of ?trace=ID, ?traces=COUNT and ?breakers=true";
            return Err(Problem::new(Code::BadRequest, title));
        }
    };
    let asked = match question.own {
        true => own(&api, what).await?,
        false => all(&api, &headers, what).await?,
    };
    Ok(Answered(asked))
}

/// The id of a trace, as it is kept.
pub(super) fn trace_id(text: &str) -> Result<String, Problem> {
    let id = text.to_ascii_lowercase();
    match is_id(&id, 32) {
        true => Ok(id),
        false => Err(Problem::fields(vec![Field {
            field: "trace_id".to_owned(),
            reason: format!("is `{}`", short(text).replace(char::is_control, " ")),
            hint: "32 hexadecimal digits, as in the second part of `traceparent` and in an error's `trace_id`".to_owned(),
        }])),
    }
}

async fn own(api: &Api, what: What) -> Result<Asked, Problem> {
    api.feed.ask(what).await.map_err(|busy| {
        let title = format!("{} questions to the nodes are under way; try again", busy.0);
        Problem::new(Code::TooManyQuestions, title)
    })
}

/// Asks every node, wherever it listens. Whoever does not answer in time is named.
pub(super) async fn all(api: &Api, headers: &HeaderMap, what: What) -> Result<Asked, Problem> {
    let page = match &what {
        What::Trace(id) => format!("/debug/answers?own=true&trace={id}"),
        What::Traces(count) => format!("/debug/answers?own=true&traces={count}"),
        What::Breakers => "/debug/answers?own=true&breakers=true".to_owned(),
    };
    let patience: Duration = api.feed.answer_timeout().saturating_add(GLANCE);
    let others = elsewhere::others(api, headers, &page, patience);
    let (asked, others) = tokio::join!(own(api, what), others);
    let mut asked = asked?;
    for (plane, answer) in others {
        let read = answer.and_then(|answer| {
            serde_json::from_value::<Asked>(answer).map_err(|error| error.to_string())
        });
        match read {
            Ok(read) => {
                asked.answers.extend(read.answers);
                asked.silent.extend(read.silent);
                asked.cut |= read.cut;
            }
            Err(why) => asked.silent.push(Silent {
                who: format!("control plane {plane}, and the nodes that listen to it"),
                why,
            }),
        }
    }
    Ok(asked)
}
