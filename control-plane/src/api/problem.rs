//! What a caller is told when something is not done: problem JSON (RFC 9457) with a stable code, and for every field
//! that is wrong its name, why, and what to write instead. The only file that chooses a status for a refusal.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use tollgate_config::control_plane::Role;
use tollgate_config::feed::Trouble;

use super::guard::Why;
use crate::catalog;
use crate::keeper::{self, Refused};
use crate::registry::Refusal;
use crate::store::StoreError;

/// Of every refusal.
pub(crate) const CONTENT_TYPE: &str = "application/problem+json";

/// Why a request is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    BadRequest,
    UnknownInstance,
    NotFound,
    MethodNotAllowed,
    SlowBody,
    OtherService,
    TooLarge,
    RegistryFull,
    StoreUnavailable,
    Refused,
    Conflict,
    UnknownRevision,
    UnknownNode,
    UnknownQuestion,
    UnknownTrace,
    UnknownSaga,
    TooManyFeeds,
    TooManyQuestions,
    NoLeader,
    OutcomeUnknown,
    RolloutActive,
    NoRollout,
    LeasesFull,
    Unauthorized,
    Forbidden,
    TooManyFailures,
    NotProven,
    TokenUsed,
    Barred,
    NoAuthority,
    UnknownCertificate,
    RotationActive,
    OwnKey,
    AuthorityFull,
    AuthorityNotReady,
}

impl Code {
    #[cfg(test)]
    pub(crate) const ALL: [Code; 35] = [
        Code::BadRequest,
        Code::UnknownInstance,
        Code::NotFound,
        Code::MethodNotAllowed,
        Code::SlowBody,
        Code::OtherService,
        Code::TooLarge,
        Code::RegistryFull,
        Code::StoreUnavailable,
        Code::Refused,
        Code::Conflict,
        Code::UnknownRevision,
        Code::UnknownNode,
        Code::UnknownQuestion,
        Code::UnknownTrace,
        Code::UnknownSaga,
        Code::TooManyFeeds,
        Code::TooManyQuestions,
        Code::NoLeader,
        Code::OutcomeUnknown,
        Code::RolloutActive,
        Code::NoRollout,
        Code::LeasesFull,
        Code::Unauthorized,
        Code::Forbidden,
        Code::TooManyFailures,
        Code::NotProven,
        Code::TokenUsed,
        Code::Barred,
        Code::NoAuthority,
        Code::UnknownCertificate,
        Code::RotationActive,
        Code::OwnKey,
        Code::AuthorityFull,
        Code::AuthorityNotReady,
    ];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Code::BadRequest => "bad_request",
            Code::UnknownInstance => "unknown_instance",
            Code::NotFound => "not_found",
            Code::MethodNotAllowed => "method_not_allowed",
            Code::SlowBody => "slow_body",
            Code::OtherService => "other_service",
            Code::TooLarge => "too_large",
            Code::RegistryFull => "registry_full",
            Code::StoreUnavailable => "store_unavailable",
            Code::Refused => "refused",
            Code::Conflict => "conflict",
            Code::UnknownRevision => "unknown_revision",
            Code::UnknownNode => "unknown_node",
            Code::UnknownQuestion => "unknown_question",
            Code::UnknownTrace => "unknown_trace",
            Code::UnknownSaga => "unknown_saga",
            Code::TooManyFeeds => "too_many_feeds",
            Code::TooManyQuestions => "too_many_questions",
            Code::NoLeader => "no_leader",
            Code::OutcomeUnknown => "outcome_unknown",
            Code::RolloutActive => "rollout_active",
            Code::NoRollout => "no_rollout",
            Code::LeasesFull => "leases_full",
            Code::Unauthorized => "unauthorized",
            Code::Forbidden => "forbidden",
            Code::TooManyFailures => "too_many_failures",
            Code::NotProven => "not_proven",
            Code::TokenUsed => "token_used",
            Code::Barred => "barred",
            Code::NoAuthority => "no_authority",
            Code::UnknownCertificate => "unknown_certificate",
            Code::RotationActive => "rotation_active",
            Code::OwnKey => "own_key",
            Code::AuthorityFull => "authority_full",
            Code::AuthorityNotReady => "authority_not_ready",
        }
    }

    pub(crate) fn status(self) -> StatusCode {
        match self {
            Code::BadRequest => StatusCode::BAD_REQUEST,
            Code::UnknownInstance
            | Code::NotFound
            | Code::UnknownRevision
            | Code::UnknownNode
            | Code::UnknownQuestion
            | Code::UnknownTrace
            | Code::UnknownSaga
            | Code::NoAuthority
            | Code::UnknownCertificate => StatusCode::NOT_FOUND,
            Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Code::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Code::OtherService
            | Code::Conflict
            | Code::RolloutActive
            | Code::NoRollout
            | Code::RotationActive
            | Code::OwnKey => StatusCode::CONFLICT,
            Code::Refused => StatusCode::UNPROCESSABLE_ENTITY,
            Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Code::RegistryFull
            | Code::StoreUnavailable
            | Code::TooManyFeeds
            | Code::TooManyQuestions
            | Code::LeasesFull
            | Code::NoLeader
            | Code::AuthorityFull
            | Code::AuthorityNotReady
            | Code::OutcomeUnknown => StatusCode::SERVICE_UNAVAILABLE,
            Code::Unauthorized => StatusCode::UNAUTHORIZED,
            Code::Forbidden | Code::NotProven | Code::TokenUsed | Code::Barred => {
                StatusCode::FORBIDDEN
            }
            Code::TooManyFailures => StatusCode::TOO_MANY_REQUESTS,
        }
    }
}

/// A field that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Field {
    pub(crate) field: String,
    pub(crate) reason: String,
    pub(crate) hint: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) code: Code,
    pub(crate) title: String,
    pub(crate) fields: Vec<Field>,
    /// Of a document.
    pub(crate) problems: Vec<Trouble>,
    /// The catalog's revision, where the caller thinks of another.
    pub(crate) revision: Option<u64>,
    /// Of a caller who might not.
    pub(crate) denied: Option<Box<Denied>>,
}

/// Whom a page is for, and who asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Denied {
    pub(crate) wanted: &'static [Role],
    /// The role of the token, if it is somebody's.
    pub(crate) has: Option<Role>,
    /// In seconds.
    pub(crate) retry_after: Option<u64>,
}

impl Problem {
    pub(crate) fn new(code: Code, title: impl Into<String>) -> Problem {
        Problem {
            code,
            title: title.into(),
            fields: Vec::new(),
            problems: Vec::new(),
            revision: None,
            denied: None,
        }
    }

    /// A page that is for others.
    pub(crate) fn denied(
        code: Code,
        title: String,
        wanted: &'static [Role],
        has: Option<Role>,
    ) -> Problem {
        Problem {
            denied: Some(Box::new(Denied {
                wanted,
                has,
                retry_after: None,
            })),
            ..Problem::new(code, title)
        }
    }

    /// A bad request; at least one field is wrong.
    pub(crate) fn fields(fields: Vec<Field>) -> Problem {
        let title = match fields.as_slice() {
            [one] => format!("`{}` {}", one.field, one.reason),
            more => format!("{} fields are wrong", more.len()),
        };
        Problem {
            fields,
            ..Problem::new(Code::BadRequest, title)
        }
    }

    /// A change of the catalog that is not made.
    pub(crate) fn change(refused: catalog::Refused) -> Problem {
        use catalog::Refused;
        match refused {
            Refused::Problems(problems) => {
                let count = problems.0.len();
                let many = if count == 1 { "" } else { "s" };
                let title = format!("{count} problem{many}; nothing was changed");
                let mut problem = Problem::new(Code::Refused, title);
                problem.problems = problems.0.iter().map(Trouble::from).collect();
                problem
            }
            Refused::Conflict(revision) => {
                let title = format!(
                    "the catalog is at revision {revision}; look at what changed and try again"
                );
                let mut problem = Problem::new(Code::Conflict, title);
                problem.revision = Some(revision);
                problem
            }
            Refused::NotKept(oldest) => Problem::new(
                Code::UnknownRevision,
                format!("that revision is not kept; the oldest that is known is {oldest}"),
            ),
            Refused::Name(name, why) => {
                Problem::new(Code::BadRequest, format!("document `{name}` {why}"))
            }
            Refused::Rollout(revision, how_far) => {
                let title = format!(
                    "revision {revision} is being rolled out, {how_far}; promote or abort it first, or wait for its end"
                );
                let mut problem = Problem::new(Code::RolloutActive, title);
                problem.revision = Some(revision);
                problem
            }
            Refused::Store(StoreError::TooLarge) => Problem::new(
                Code::TooLarge,
                "the change is larger than the store takes at once",
            ),
            Refused::Store(error) => Problem::refused(keeper::Refused::Store(error), ""),
        }
    }

    /// Too many proofs from there were none.
    pub(crate) fn too_many(title: String, wait: std::time::Duration) -> Problem {
        let mut problem = Problem::new(Code::TooManyFailures, title);
        problem.denied = Some(Box::new(Denied {
            retry_after: Some(wait.as_secs().max(1)),
            ..Denied::default()
        }));
        problem
    }

    pub(crate) fn unknown(id: &str) -> Problem {
        Problem::new(
            Code::UnknownInstance,
            format!("no instance `{id}` is registered; register it again"),
        )
    }

    pub(crate) fn other_service(id: &str, service: &str) -> Problem {
        let mut problem = Problem::new(
            Code::OtherService,
            format!("`{id}` is an instance of `{service}`"),
        );
        problem.fields.push(Field {
            field: "id".to_owned(),
            reason: format!("belongs to an instance of `{service}`"),
            hint: "use another id, or deregister that instance first".to_owned(),
        });
        problem
    }

    pub(crate) fn refused(refused: Refused, id: &str) -> Problem {
        match refused {
            Refused::Registry(Refusal::OtherService(service)) => {
                Problem::other_service(id, &service)
            }
            Refused::Registry(Refusal::Full) => Problem::new(
                Code::RegistryFull,
                "as many instances are registered as `registry.max_instances` allows",
            ),
            Refused::Registry(Refusal::ServiceFull) => Problem::new(
                Code::RegistryFull,
                "as many instances of the service are registered as `registry.max_per_service` allows",
            ),
            Refused::Store(StoreError::Closed) => {
                Problem::new(Code::StoreUnavailable, "the control plane is stopping")
            }
            Refused::Store(StoreError::NotLeader) => Problem::new(
                Code::NoLeader,
                "no control plane leads at the moment; nothing was changed, try again",
            ),
            Refused::Store(StoreError::Unsure(why)) => Problem::new(
                Code::OutcomeUnknown,
                format!("it is not known whether the store has written it: {why}"),
            ),
            Refused::Store(error) => Problem::new(
                Code::StoreUnavailable,
                format!("{error}; nothing was changed, try again later"),
            ),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let mut body = serde_json::json!({
            "type": "about:blank",
            "title": self.title,
            "status": status.as_u16(),
            "code": self.code.word(),
        });
        if !self.fields.is_empty() {
            body["errors"] = serde_json::to_value(&self.fields).unwrap_or_default();
        }
        if !self.problems.is_empty() {
            body["problems"] = serde_json::to_value(&self.problems).unwrap_or_default();
        }
        if let Some(revision) = self.revision {
            body["revision"] = revision.into();
        }
        let denied = self.denied.unwrap_or_default();
        if let Code::Unauthorized | Code::Forbidden = self.code {
            let words = denied.wanted.iter().map(|role| role.word());
            body["wanted"] = words.collect::<Vec<_>>().into();
            body["has"] = denied.has.map(Role::word).into();
        }
        let why = Why {
            code: self.code.word(),
            title: self.title,
        };
        let mut response = Response::new(Body::from(format!("{body}\n")));
        *response.status_mut() = status;
        response.extensions_mut().insert(why);
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"tollgate\"");
            { response.headers_mut() }.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = denied.retry_after {
            { response.headers_mut() }.insert(header::RETRY_AFTER, seconds.into());
        }
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_and_its_status_stand_in_the_documentation() {
        let page =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/control-plane.md");
        let page = std::fs::read_to_string(page).expect("the page");
        for code in Code::ALL {
            let row = format!("| `{}` | {} |", code.word(), code.status().as_u16());
            assert!(page.contains(&row), "{row}");
        }
    }
}
