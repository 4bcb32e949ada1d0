//! The door of every page: who asks, whether the page is for them, and, once it has answered, the line of the audit log
//! (CP-202). Bodies are read behind it: whoever may not ask is not listened to.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use tollgate_config::control_plane::Role;

use super::problem::{self, Code, Problem};
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

/// What a request asks for.
struct Asked {
    method: Method,
    /// The router's: nothing that a caller wrote.
    path: Option<MatchedPath>,
    page: Option<&'static Page>,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.as_ref().map_or("no page", MatchedPath::as_str);
        write!(f, "{} {path}", self.method)
    }
}

pub(super) async fn guard(
    State(api): State<Arc<Api>>,
    path: Option<MatchedPath>,
    Peer(peer): Peer,
    mut request: Request,
    next: Next,
) -> Response {
    let method = request.method().clone();
    let known = path.as_ref().map(MatchedPath::as_str);
    let roles = pages::wanted(method.as_str(), known);
    let page = pages::find(method.as_str(), known);
    let asked = Asked { method, path, page };
    let (response, action) = match admitted(&api, &request, &asked, roles, peer) {
        Ok(caller) => {
            request.extensions_mut().insert(caller.clone());
            let answered = answered(api, next, request, caller, asked);
            if page.is_none_or(|page| page.change.is_none()) {
                return answered.await;
            }
            // A change that has begun is finished and written down, also when who asked hangs up. Ends by itself: it
            // waits for the disk and for nobody else.
            return tokio::spawn(answered).await.unwrap_or_else(|_| {
                let title = "the change could not be finished; look at what became of it";
                Problem::new(Code::StoreUnavailable, title).into_response()
            });
        }
        Err(refused) => *refused,
    };
    if let Some(action) = action {
        api.audit.denied(action);
    }
    read_away(request).await;
    response
}

/// Who asks, if the page is for them; else what they are told, and what is written down of it.
fn admitted(
    api: &Api,
    request: &Request,
    asked: &Asked,
    roles: &'static [Role],
    peer: Arc<str>,
) -> Result<Caller, Box<(Response, Option<Action>)>> {
    if roles.is_empty() {
        return Ok(Caller::anybody(peer));
    }
    let mut lines = { request.headers() }.get_all(header::AUTHORIZATION).iter();
    // Of two, neither is believed.
    let sent = lines.next().filter(|_| lines.next().is_none());
    let sent = sent.map(|value| value.as_bytes());
    let caller = api.access.who(sent, peer.clone()).map_err(|denied| {
        let (problem, told) = refusal(denied, asked, roles);
        let response = problem.into_response();
        let action = told.then(|| Action {
            address: peer,
            ..action(asked, &response)
        });
        Box::new((response, action))
    })?;
    if roles.contains(&caller.role) {
        return Ok(caller);
    }
    let response = forbidden(asked, roles, caller.role).into_response();
    let action = by(action(asked, &response), &caller);
    Err(Box::new((response, Some(action))))
}

/// What the page says, and the line of it.
async fn answered(
    api: Arc<Api>,
    next: Next,
    request: Request,
    caller: Caller,
    asked: Asked,
) -> Response {
    let response = next.run(request).await;
    let change = asked.page.is_some_and(|page| page.change.is_some());
    let open = asked.page.is_some_and(|page| page.roles.is_empty());
    // What strangers can cause is bounded, but for what the page itself finds worth a line.
    let flood = open && !response.status().is_success();
    if change && flood && response.extensions().get::<Changed>().is_none() {
        api.audit.denied(by(action(&asked, &response), &caller));
    } else if change {
        // On disk before it is answered: a crash afterwards cannot take it away.
        let action = by(action(&asked, &response), &caller);
        api.audit.changed(action).await;
    } else if response.status() == StatusCode::FORBIDDEN {
        api.audit.denied(by(action(&asked, &response), &caller));
    }
    response
}

/// Who is still sending would not hear the refusal if the connection was torn down under it. A little, and not for long:
/// nothing is kept of it.
async fn read_away(request: Request) {
    const MOST: usize = 1 << 20;
    const PATIENCE: Duration = Duration::from_secs(2);
    let mut body = Limited::new(request.into_body(), MOST);
    let reading = async { while let Some(Ok(_)) = body.frame().await {} };
    // Who needs longer is not waited for.
    drop(tokio::time::timeout(PATIENCE, reading).await);
}

fn by(action: Action, caller: &Caller) -> Action {
    Action {
        who: caller.name.clone(),
        role: caller.name.as_ref().map(|_| caller.role.word()),
        address: caller.address.clone(),
        ..action
    }
}

fn action(asked: &Asked, response: &Response) -> Action {
    let status = response.status();
    let changed = response.extensions().get::<Changed>().cloned();
    let why = response.extensions().get::<Why>();
    let denied = matches!(status.as_u16(), 401 | 403 | 429);
    let changed = changed.unwrap_or_default();
    Action {
        time: millis(),
        what: match asked.page.and_then(|page| page.change) {
            Some(what) => what,
            None if denied => "denied",
            None => "change",
        },
        request: asked.to_string().into(),
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
fn refusal(denied: Denied, asked: &Asked, roles: &'static [Role]) -> (Problem, bool) {
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
            problem.denied = Some(Box::new(problem::Denied {
                retry_after: Some(wait.as_secs()),
                ..problem::Denied::default()
            }));
            (problem, false)
        }
    }
}

fn forbidden(asked: &Asked, roles: &'static [Role], has: Role) -> Problem {
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
