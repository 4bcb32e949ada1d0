//! The door of every page: who asks, whether the page is for them, and, once it has answered, the line of the audit log
//! (CP-202). Bodies are read behind it: whoever may not ask is not listened to.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{StatusCode, header};
use tollgate_config::control_plane::Role;

use super::problem::{Code, Problem};
use super::{Api, Peer};
use crate::access::pages::{self, Page};
use crate::access::{Caller, Denied};
use crate::audit::{Action, Outcome};
use crate::catalog::millis;

/// What a page tells of a change, for the audit log.
#[derive(Debug, Clone, Default)]
pub(super) struct Changed {
    pub(super) target: String,
    pub(super) before: Option<u64>,
    pub(super) after: Option<u64>,
    pub(super) note: String,
}

/// What a refusal was.
#[derive(Debug, Clone)]
pub(super) struct Why {
    pub(super) code: &'static str,
    pub(super) title: String,
}

/// Who asks, as the audit log calls them.
pub(super) struct By(pub(super) Arc<str>);

impl<S: Sync> FromRequestParts<S> for By {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<By, Infallible> {
        let Who(caller) = Who::from_request_parts(parts, state).await?;
        Ok(By(caller.words()))
    }
}

/// Who asks.
pub(super) struct Who(pub(super) Caller);

impl<S: Sync> FromRequestParts<S> for Who {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Who, Infallible> {
        if let Some(caller) = parts.extensions.get::<Caller>() {
            return Ok(Who(caller.clone()));
        }
        // No page is reached without the guard; who came another way may nothing.
        let Peer(peer) = Peer::from_request_parts(parts, state).await?;
        let mut caller = Caller::anybody(peer);
        caller.role = Role::Read;
        Ok(Who(caller))
    }
}

pub(super) async fn guard(
    State(api): State<Arc<Api>>,
    path: Option<MatchedPath>,
    Peer(peer): Peer,
    mut request: Request,
    next: Next,
) -> Response {
    let path = path.as_ref().map(MatchedPath::as_str);
    let method = request.method().clone();
    let page = pages::find(method.as_str(), path);
    let roles = pages::wanted(method.as_str(), path);
    let asked = format!("{method} {}", path.unwrap_or("none"));
    let caller = match roles {
        [] => Ok(Caller::anybody(peer.clone())),
        _ => {
            let sent = request.headers().get(header::AUTHORIZATION);
            let sent = sent.map(|value| value.as_bytes());
            api.access.who(sent, peer.clone())
        }
    };
    let caller = match caller {
        Ok(caller) => caller,
        Err(denied) => {
            let (problem, told) = refusal(denied, &asked, roles);
            let response = problem.into_response();
            if told {
                let action = Action {
                    address: peer,
                    ..action(&asked, page, &response)
                };
                api.audit.denied(action);
            }
            return response;
        }
    };
    if !roles.is_empty() && !roles.contains(&caller.role) {
        let response = forbidden(&asked, roles, caller.role).into_response();
        api.audit
            .denied(by(action(&asked, page, &response), &caller));
        return response;
    }
    request.extensions_mut().insert(caller.clone());
    let mut response = next.run(request).await;
    let forbidden = response.status() == StatusCode::FORBIDDEN;
    if page.is_some_and(|page| page.change.is_some()) {
        // On disk before it is answered: a crash afterwards cannot take it away.
        api.audit
            .changed(by(action(&asked, page, &response), &caller))
            .await;
    } else if forbidden {
        api.audit
            .denied(by(action(&asked, page, &response), &caller));
    }
    response.extensions_mut().remove::<Changed>();
    response
}

fn by(action: Action, caller: &Caller) -> Action {
    Action {
        who: caller.name.clone(),
        role: caller.name.as_ref().map(|_| caller.role.word()),
        address: caller.address.clone(),
        ..action
    }
}

fn action(asked: &str, page: Option<&Page>, response: &Response) -> Action {
    let status = response.status();
    let changed = response.extensions().get::<Changed>().cloned();
    let why = response.extensions().get::<Why>();
    let denied = matches!(status.as_u16(), 401 | 403 | 429);
    let changed = changed.unwrap_or_default();
    Action {
        time: millis(),
        what: match page.and_then(|page| page.change) {
            Some(what) => what,
            None if denied => "denied",
            None => "change",
        },
        request: asked.into(),
        who: None,
        role: None,
        address: "".into(),
        target: changed.target,
        before: changed.before,
        after: changed.after,
        note: changed.note,
        result: match () {
            () if denied => Outcome::Denied,
            () if !status.is_success() => Outcome::Refused,
            () if changed.before.is_some() && changed.before == changed.after => Outcome::Same,
            () => Outcome::Done,
        },
        status: status.as_u16(),
        code: why.map(|why| why.code),
        reason: why.map(|why| why.title.clone()),
    }
}

/// The words, and whether it is worth a line: who is not looked at any more was told of when that began.
fn refusal(denied: Denied, asked: &str, roles: &'static [Role]) -> (Problem, bool) {
    let wanted = pages::words(roles);
    match denied {
        Denied::NoToken => {
            let title = format!(
                "{asked} wants a token of the role {wanted}, and none was sent; send `Authorization: Bearer …` (`tollgate`: --token-file, TOLLGATE_TOKEN)"
            );
            (
                Problem::denied(Code::Unauthorized, title, roles, None),
                true,
            )
        }
        Denied::NotKnown { blocked } => {
            let mut title = format!(
                "{asked} wants a token of the role {wanted}; the one that was sent is nobody's (taken out, or mistyped?)"
            );
            if blocked {
                title += "; no other from this address is looked at for some seconds";
            }
            (
                Problem::denied(Code::Unauthorized, title, roles, None),
                true,
            )
        }
        Denied::TooMany(wait) => {
            let wait = wait.max(Duration::from_secs(1));
            let title = format!(
                "too many tokens from this address were nobody's; try again in {} s",
                wait.as_secs()
            );
            let mut problem = Problem::new(Code::TooManyFailures, title);
            problem.retry_after = Some(wait.as_secs());
            (problem, false)
        }
    }
}

fn forbidden(asked: &str, roles: &'static [Role], has: Role) -> Problem {
    let title = format!(
        "{asked} wants a token of the role {}; this one has the role `{}`",
        pages::words(roles),
        has.word()
    );
    Problem::denied(Code::Forbidden, title, roles, Some(has))
}

/// A token whose role is right, but who may speak for another service alone, or be another node.
pub(super) fn not_yours(caller: &Caller, what: &str, name: &str) -> Problem {
    let own = match what {
        "service" => caller.service.as_deref(),
        _ => caller.node.as_deref(),
    };
    let title = match own {
        Some(own) => format!("this token may speak for the {what} `{own}`, and not for `{name}`"),
        None => format!(
            "this token may speak for no {what}; its `[[token]]` needs `{what} = \"{name}\"`"
        ),
    };
    Problem::denied(Code::Forbidden, title, &[], Some(caller.role))
}
