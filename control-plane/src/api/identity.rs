//! The authority of the mesh over HTTP (MESH-301 to 307): certificates for whoever proves who they are, whom to trust for
//! everybody, and the desk of whoever runs the mesh. What is proven, `authority` decides.

use std::sync::Arc;
use std::time::Duration;

use axum::Json as Answer;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, header};
use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_config::identity::{CertificateRequest, Trust};
use tollgate_config::unit;

use super::Api;
use super::fields::{Fields, short};
use super::guard::{By, Changed, Who};
use super::problem::{Code, Field, Problem};
use crate::audit::moment;
use crate::authority::{Refused, Which};
use crate::keeper;

/// The longest life of a join token.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
/// Where nobody says otherwise.
const NAMESPACE: &str = "default";

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Problem {
        let time = |seconds: u64| moment(seconds.saturating_mul(1000));
        match refused {
            Refused::Off => Problem::new(
                Code::NoAuthority,
                "this control plane is no authority: its document says `identity.enabled = false`",
            ),
            Refused::NotReady(why) => Problem::new(
                Code::AuthorityNotReady,
                format!("the authority cannot sign: {why}; try again later"),
            ),
            Refused::Field(field, reason, hint) => Problem::fields(vec![Field {
                field: field.to_owned(),
                reason,
                hint: hint.to_owned(),
            }]),
            Refused::NotProven(why) => Problem::new(Code::NotProven, why),
            Refused::TokenUsed {
                time: first,
                address,
            } => Problem::new(
                Code::TokenUsed,
                format!(
                    "the join token was used at {} from {address}; if that was not you, it was stolen: `tollgate identity \
                     revoke --service NAME --bar`, then find out how, and make another token",
                    time(first)
                ),
            ),
            Refused::Barred(identity) => Problem::new(
                Code::Barred,
                format!("{identity} is barred; `tollgate identity allow NAME` lets it in again"),
            ),
            Refused::TooMany(wait) => {
                let seconds = wait.as_secs().max(1);
                let title = format!(
                    "too many proofs from this address were none; try again in {seconds} s"
                );
                Problem::too_many(title, wait)
            }
            Refused::Full(what) => Problem::new(Code::AuthorityFull, what),
            Refused::Rotating(from) => Problem::new(
                Code::RotationActive,
                format!(
                    "another key is announced already, and signs from {} on; wait for that",
                    time(from)
                ),
            ),
            Refused::Own => Problem::new(
                Code::OwnKey,
                "the key is your own: let `identity.roots` hold the new authority, too, start anew, and then replace \
                 `identity.cert` and `identity.key`",
            ),
            Refused::Unknown(serial) => Problem::new(
                Code::UnknownCertificate,
                format!(
                    "no certificate with the serial number `{}` is out; `tollgate identity status --service NAME` shows all",
                    short(&serial)
                ),
            ),
            Refused::Store(error) => Problem::refused(keeper::Refused::Store(error), ""),
        }
    }
}

/// `POST /identity/certificate`.
pub(super) async fn certificate(
    State(api): State<Arc<Api>>,
    Who(caller): Who,
    body: Bytes,
) -> Response {
    let request: CertificateRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        // The library could quote a token.
        Err(error) => {
            let title = format!(
                "the body is not what a member asks for, at column {}: send `csr`, `service`, `namespace` and `proof`",
                error.column()
            );
            return Problem::new(Code::BadRequest, title).into_response();
        }
    };
    match api.authority.issue(&request, &caller.address).await {
        Ok(given) => {
            let changed = Changed {
                target: given.answer.identity.to_string(),
                note: format!(
                    "{}; serial {}, until {}",
                    given.proof,
                    given.serial,
                    moment(given.answer.not_after.saturating_mul(1000))
                ),
                ..Changed::default()
            };
            let mut response = secret(Answer(given.answer).into_response());
            response.extensions_mut().insert(changed);
            response
        }
        Err(refused) => {
            // Worth a line however many others are refused: somebody has a token that is not theirs.
            let theft = matches!(refused, Refused::TokenUsed { .. });
            let changed = Changed {
                target: short(&format!("{}/{}", request.namespace, request.service)),
                note: "a join token was used twice: possible theft".to_owned(),
                ..Changed::default()
            };
            let mut response = Problem::from(refused).into_response();
            if theft {
                response.extensions_mut().insert(changed);
            }
            response
        }
    }
}

/// Nobody on the way keeps a copy.
fn secret(mut response: Response) -> Response {
    let never = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, never);
    response
}

/// `GET /identity/trust`.
pub(super) async fn trust(State(api): State<Arc<Api>>) -> Result<Answer<Trust>, Problem> {
    Ok(Answer(api.authority.told()?.trust.clone()))
}

#[derive(Deserialize)]
pub(super) struct Look {
    service: Option<String>,
    namespace: Option<String>,
}

/// `GET /identity`, or of one service: `GET /identity?service=orders`.
pub(super) async fn look(
    State(api): State<Arc<Api>>,
    Query(look): Query<Look>,
) -> Result<Answer<Value>, Problem> {
    let namespace = look.namespace.as_deref().unwrap_or(NAMESPACE);
    let service = look.service.as_deref();
    let service = service.map(|service| api.authority.identity(namespace, service));
    let service = service.transpose()?;
    Ok(Answer(api.authority.standing(service.as_ref()).await?))
}

/// The service that a body names.
fn named(fields: &mut Fields) -> (Option<String>, String) {
    let namespace = fields.text(&["namespace"]);
    let namespace = namespace.unwrap_or_else(|| NAMESPACE.to_owned());
    (fields.text(&["service"]), namespace)
}

fn span(fields: &mut Fields, name: &'static str, longest: Duration) -> Option<Duration> {
    let text = fields.text(&[name])?;
    let hint = || {
        format!(
            "write a duration such as \"1h\", at most \"{}h\"",
            longest.as_secs() / 3600
        )
    };
    match unit::duration(&text) {
        Ok(duration) if duration <= longest => Some(duration),
        Ok(_) => {
            fields.wrong(name, "is too long", hint());
            None
        }
        Err(fault) => {
            fields.wrong(name, fault.message, hint());
            None
        }
    }
}

/// `POST /identity/token`.
pub(super) async fn token(
    State(api): State<Arc<Api>>,
    By(by): By,
    body: Bytes,
) -> Result<Response, Problem> {
    let mut fields = Fields::read(&body)?;
    let (service, namespace) = named(&mut fields);
    let lifetime = span(&mut fields, "for", LONGEST);
    if service.is_none() && fields.count() == 0 {
        fields.wrong("service", "is missing", "send \"service\": \"orders\"");
    }
    fields.finish()?;
    let service = service.unwrap_or_default();
    let identity = api.authority.identity(&namespace, &service)?;
    let (text, until) = api.authority.token(&identity, lifetime, &by).await?;
    let until = moment(until.saturating_mul(1000));
    let answer = Answer(json!({
        "token": text, "identity": identity, "namespace": namespace, "service": service, "until": until,
    }));
    let mut response = secret(answer.into_response());
    response.extensions_mut().insert(Changed {
        target: identity.to_string(),
        note: format!("good until {until}"),
        ..Changed::default()
    });
    Ok(response)
}

/// `POST /identity/revoke`.
pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    By(by): By,
    body: Bytes,
) -> Result<Response, Problem> {
    let mut fields = Fields::read(&body)?;
    let (service, namespace) = named(&mut fields);
    let serial = fields.text(&["serial"]);
    let bar = fields.flag("bar");
    let which = match (serial, service) {
        (Some(serial), None) => Some(Err(serial)),
        (None, Some(service)) => Some(Ok(service)),
        _ => {
            let hint = "send \"serial\": \"4f…\", or \"service\": \"orders\"";
            fields.wrong("serial", "or `service` must be there, one of both", hint);
            None
        }
    };
    fields.finish()?;
    let which = match which {
        Some(Ok(service)) => Which::Service(api.authority.identity(&namespace, &service)?),
        // As they are shown elsewhere: in either case, with colons and leading zeros.
        Some(Err(serial)) => {
            let serial = serial.replace(':', "").to_ascii_lowercase();
            Which::Serial(serial.trim_start_matches('0').to_owned())
        }
        None => return Err(Problem::new(Code::BadRequest, "nothing is named")),
    };
    let count = api.authority.revoke(&which, bar, &by).await?;
    let target = match &which {
        Which::Serial(serial) => format!("serial {}", short(serial)),
        Which::Service(identity) => identity.to_string(),
    };
    let barred = if bar { ", and barred" } else { "" };
    let changed = Changed {
        target,
        note: format!("{count} certificates{barred}"),
        ..Changed::default()
    };
    let mut response = Answer(json!({ "revoked": count, "barred": bar })).into_response();
    response.extensions_mut().insert(changed);
    Ok(response)
}

/// `POST /identity/allow`.
pub(super) async fn allow(State(api): State<Arc<Api>>, body: Bytes) -> Result<Response, Problem> {
    let mut fields = Fields::read(&body)?;
    let (service, namespace) = named(&mut fields);
    if service.is_none() && fields.count() == 0 {
        fields.wrong("service", "is missing", "send \"service\": \"orders\"");
    }
    fields.finish()?;
    let service = service.unwrap_or_default();
    let identity = api.authority.identity(&namespace, &service)?;
    let was_barred = api.authority.allow(&identity).await?;
    let note = if was_barred { "" } else { "it was not barred" };
    let changed = Changed {
        target: identity.to_string(),
        note: note.to_owned(),
        ..Changed::default()
    };
    let answer = json!({ "identity": identity, "was_barred": was_barred });
    let mut response = Answer(answer).into_response();
    response.extensions_mut().insert(changed);
    Ok(response)
}

/// `POST /identity/rotate`.
pub(super) async fn rotate(State(api): State<Arc<Api>>, body: Bytes) -> Result<Response, Problem> {
    let mut fields = match body.is_empty() {
        true => Fields::read(b"{}")?,
        false => Fields::read(&body)?,
    };
    let overlap = span(&mut fields, "overlap", LONGEST);
    fields.finish()?;
    let from = api.authority.rotate(overlap).await?;
    let from = moment(from.saturating_mul(1000));
    let changed = Changed {
        target: "the authority's key".to_owned(),
        note: format!("another one is announced, and signs from {from} on"),
        ..Changed::default()
    };
    let mut response = Answer(json!({ "signs_from": from })).into_response();
    response.extensions_mut().insert(changed);
    Ok(response)
}
