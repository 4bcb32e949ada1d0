//! Why a service did not do what it was asked, and how that travels: a gRPC status with `google.rpc` details
//! (SHOP-806), from which a gateway makes status, code, message and details of an HTTP answer (GW-206, GW-207).
//!
//! A refusal is for the caller: its message holds no address, no SQL and no name of a part within.

use std::{collections::HashMap, time::Duration};

use prost::Message;
use tonic::{Code, Status};

use crate::contracts::rpc;

/// The `domain` of every reason.
const DOMAIN: &str = "shop.example";

/// One refusal.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    code: Code,
    reason: String,
    message: String,
    metadata: Vec<(String, String)>,
    fields: Vec<(String, String)>,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// With a stable reason in upper snake case, and what the client should do as message.
    pub fn new(code: Code, reason: &str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
            message: message.into(),
            metadata: Vec::new(),
            fields: Vec::new(),
            retry_after: None,
        }
    }

    /// `NOT_FOUND` with the id that was asked for.
    pub fn not_found(kind: &str, key: &str, id: &str) -> Self {
        Self::new(
            Code::NotFound,
            &format!("{}_NOT_FOUND", kind.to_uppercase()),
            format!("there is no {kind} with this id"),
        )
        .with(key, id)
    }

    /// All fields that are wrong, at once (SHOP-805).
    pub fn fields(fields: Vec<(String, String)>) -> Self {
        let mut refusal = Self::new(
            Code::InvalidArgument,
            "VALIDATION_ERROR",
            "fields are missing or wrong; details name each",
        );
        refusal.fields = fields;
        refusal
    }

    /// Nobody is signed in.
    pub fn unauthenticated() -> Self {
        Self::new(
            Code::Unauthenticated,
            "AUTHENTICATION_REQUIRED",
            "sign in first",
        )
    }

    /// Signed in, and still not allowed.
    pub fn forbidden() -> Self {
        Self::new(
            Code::PermissionDenied,
            "INSUFFICIENT_PERMISSIONS",
            "the caller may not do this",
        )
    }

    /// A part that is needed is away or busy; the same call may succeed later.
    pub fn unavailable(message: impl Into<String>, retry_after: Duration) -> Self {
        let mut refusal = Self::new(Code::Unavailable, "SERVICE_UNAVAILABLE", message);
        refusal.retry_after = Some(retry_after);
        refusal
    }

    /// Our fault. What happened goes into the log, not to the caller.
    pub fn internal() -> Self {
        Self::new(
            Code::Internal,
            "INTERNAL",
            "the service failed; try again later",
        )
    }

    /// Adds a detail.
    pub fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.metadata.push((key.into(), value.to_string()));
        self
    }

    /// Tells when to try again.
    pub fn retry_after(mut self, span: Duration) -> Self {
        self.retry_after = Some(span);
        self
    }

    /// The gRPC code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The stable reason, such as `INSUFFICIENT_STOCK`.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// For the caller to read.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The details.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    /// The fields that are wrong.
    pub fn bad_fields(&self) -> &[(String, String)] {
        &self.fields
    }

    /// When to try again, if that may help.
    pub fn retry_span(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether the same call may succeed later without a change: temporary ones are not kept for an idempotency key
    /// (SHOP-605).
    pub fn is_temporary(&self) -> bool {
        matches!(
            self.code,
            Code::Unavailable
                | Code::DeadlineExceeded
                | Code::Aborted
                | Code::ResourceExhausted
                | Code::Internal
                | Code::Unknown
                | Code::Cancelled
        )
    }

    /// The status as a `google.rpc.Status`, which also is how a refusal is kept.
    pub fn to_rpc(&self) -> rpc::Status {
        let mut details = vec![any(
            "ErrorInfo",
            &rpc::ErrorInfo {
                reason: self.reason.clone(),
                domain: DOMAIN.into(),
                metadata: self.metadata.iter().cloned().collect::<HashMap<_, _>>(),
            },
        )];
        if !self.fields.is_empty() {
            let field_violations = self
                .fields
                .iter()
                .map(|(field, description)| rpc::bad_request::FieldViolation {
                    field: field.clone(),
                    description: description.clone(),
                })
                .collect();
            details.push(any("BadRequest", &rpc::BadRequest { field_violations }));
        }
        if let Some(span) = self.retry_after {
            details.push(any(
                "RetryInfo",
                &rpc::RetryInfo {
                    retry_delay: Some(prost_types::Duration {
                        seconds: span.as_secs() as i64,
                        nanos: span.subsec_nanos() as i32,
                    }),
                },
            ));
        }
        rpc::Status {
            code: self.code as i32,
            message: self.message.clone(),
            details,
        }
    }

    /// Back from what [`Refusal::to_rpc`] made, or from another service's details.
    pub fn from_rpc(status: &rpc::Status) -> Self {
        let mut refusal = Self::new(Code::from_i32(status.code), "", status.message.clone());
        for detail in &status.details {
            let value = detail.value.as_slice();
            match detail.type_url.rsplit('/').next() {
                Some("google.rpc.ErrorInfo") => {
                    if let Ok(info) = rpc::ErrorInfo::decode(value) {
                        refusal.reason = info.reason;
                        refusal.metadata = info.metadata.into_iter().collect();
                        refusal.metadata.sort();
                    }
                }
                Some("google.rpc.BadRequest") => {
                    if let Ok(bad) = rpc::BadRequest::decode(value) {
                        let pair = |violation: rpc::bad_request::FieldViolation| {
                            (violation.field, violation.description)
                        };
                        refusal.fields = bad.field_violations.into_iter().map(pair).collect();
                    }
                }
                Some("google.rpc.RetryInfo") => {
                    refusal.retry_after = rpc::RetryInfo::decode(value)
                        .ok()
                        .and_then(|info| info.retry_delay)
                        .and_then(|delay| Duration::try_from(delay).ok());
                }
                _ => {}
            }
        }
        refusal
    }

    /// Whether a service of the shop said so itself, and not what stands between, or nobody.
    pub fn is_told_by_a_service(status: &Status) -> bool {
        let details = rpc::Status::decode(status.details())
            .unwrap_or_default()
            .details;
        details
            .iter()
            .filter_map(|detail| rpc::ErrorInfo::decode(detail.value.as_slice()).ok())
            .any(|info| info.domain == DOMAIN)
    }

    /// What another service answered, with its details.
    pub fn from_status(status: &Status) -> Self {
        match rpc::Status::decode(status.details()) {
            Ok(details) if !status.details().is_empty() => Self::from_rpc(&details),
            _ => Self::new(status.code(), plain_reason(status.code()), status.message()),
        }
    }
}

/// The reason of a status that came without one.
fn plain_reason(code: Code) -> &'static str {
    match code {
        Code::InvalidArgument | Code::OutOfRange => "VALIDATION_ERROR",
        Code::Unauthenticated => "AUTHENTICATION_REQUIRED",
        Code::PermissionDenied => "INSUFFICIENT_PERMISSIONS",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "CONFLICT",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::Unavailable => "SERVICE_UNAVAILABLE",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::Unimplemented => "NOT_IMPLEMENTED",
        _ => "INTERNAL",
    }
}

fn any(name: &str, message: &impl Message) -> prost_types::Any {
    prost_types::Any {
        type_url: format!("type.googleapis.com/google.rpc.{name}"),
        value: message.encode_to_vec(),
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let details = refusal.to_rpc().encode_to_vec();
        Self::with_details(refusal.code, refusal.message, details.into())
    }
}

/// A store that fails: written to the log, and told as busy or as our fault.
impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        crate::kit::log::error("the database failed", &[("error", &error.to_string())]);
        match error {
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_) => {
                Self::unavailable("the database is away", Duration::from_secs(1))
            }
            _ if super::database::is_busy(&error) => {
                Self::unavailable("the database is busy", Duration::from_secs(1))
            }
            _ => Self::internal(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_survives_the_wire() {
        let refusal = Refusal::new(Code::FailedPrecondition, "INSUFFICIENT_STOCK", "too few")
            .with("available", 1)
            .with("requested", 2)
            .retry_after(Duration::from_millis(1500));
        let status = Status::from(refusal.clone());
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(Refusal::from_status(&status), refusal);
    }

    #[test]
    fn all_bad_fields_travel_together() {
        let fields = vec![
            ("a".to_string(), "is missing".to_string()),
            ("b.c".into(), "is long".into()),
        ];
        let status = Status::from(Refusal::fields(fields.clone()));
        assert_eq!(Refusal::from_status(&status).bad_fields(), fields);
    }
}
