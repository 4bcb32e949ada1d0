//! Who calls: another service, and on behalf of which user (GW-903, GW-907, GW-909, SHOP-408).
//!
//! A gateway checks tokens and tells what they say in `x-user-id`, `x-user-roles` and `x-user-permissions`. That is
//! believed from whoever shows the services' secret. Without a secret (`service_token` empty, loopback only unless told
//! otherwise) everyone is believed, and a call without any of these headers is the operator's own.

use std::sync::Arc;

use http::HeaderMap;
use tonic::metadata::MetadataMap;

use super::refusal::Refusal;

/// The role that may do everything.
pub const ADMIN: &str = "admin";

/// Whom this service believes.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    secret: Option<Arc<str>>,
}

/// Who calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    user: Option<String>,
    roles: Vec<String>,
    service: Option<String>,
    internal: bool,
}

/// Names under which a gateway calls. A call from one is never the operator's own: without a user it is nobody's.
const EDGE: &str = "gateway";

impl Trust {
    /// With the secret of the setting `service_token`; empty: everyone.
    pub fn new(secret: &str) -> Self {
        Self {
            secret: (!secret.is_empty()).then(|| secret.into()),
        }
    }

    /// Who sent these headers.
    pub fn caller(&self, metadata: &MetadataMap) -> Caller {
        self.of(metadata.as_ref())
    }

    /// Who sent these headers. Nobody, when they claim something without the secret.
    pub fn of(&self, headers: &HeaderMap) -> Caller {
        let text = |name: &str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.map(str::trim).filter(|text| !text.is_empty())
        };
        if let Some(secret) = &self.secret {
            let shown = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
            let same = shown.is_some_and(|shown| {
                aws_lc_rs::constant_time::verify_slices_are_equal(
                    shown.as_bytes(),
                    secret.as_bytes(),
                )
                .is_ok()
            });
            if !same || text("x-service-id").is_none() {
                return Caller::default();
            }
        }
        let service = text("x-service-id").map(str::to_string);
        let user = text("x-user-id").map(str::to_string);
        let internal = user.is_none() && service.as_deref() != Some(EDGE);
        Caller {
            user,
            roles: text("x-user-roles")
                .map(|roles| {
                    roles
                        .split(',')
                        .map(|role| role.trim().to_string())
                        .collect()
                })
                .unwrap_or_default(),
            service,
            internal,
        }
    }
}

impl Caller {
    /// A user, as tests and background work need one.
    pub fn user(id: &str, roles: &[&str]) -> Self {
        Self {
            user: Some(id.into()),
            roles: roles.iter().map(ToString::to_string).collect(),
            ..Self::default()
        }
    }

    /// Another service, or the operator.
    pub fn internal(service: &str) -> Self {
        Self {
            service: Some(service.into()),
            internal: true,
            ..Self::default()
        }
    }

    /// On whose behalf.
    pub fn user_id(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Who stands in histories and events as the one who did it.
    pub fn actor(&self) -> &str {
        self.user
            .as_deref()
            .or(self.service.as_deref())
            .unwrap_or(if self.internal {
                "operator"
            } else {
                "anonymous"
            })
    }

    /// May do what administrators may.
    pub fn is_admin(&self) -> bool {
        self.internal || (self.user.is_some() && self.roles.iter().any(|role| role == ADMIN))
    }

    /// Is this user, or may act for every user.
    pub fn is_or_may_act_for(&self, user: &str) -> bool {
        self.is_admin() || self.user.as_deref() == Some(user)
    }

    /// Only other services.
    pub fn need_service(&self) -> Result<(), Refusal> {
        if self.internal {
            Ok(())
        } else {
            Err(self.refuse())
        }
    }

    /// Only administrators, and other services.
    pub fn need_admin(&self) -> Result<(), Refusal> {
        if self.is_admin() {
            Ok(())
        } else {
            Err(self.refuse())
        }
    }

    /// Only this user, administrators, and other services.
    pub fn need_self(&self, user: &str) -> Result<(), Refusal> {
        if self.is_or_may_act_for(user) {
            Ok(())
        } else {
            Err(self.refuse())
        }
    }

    fn refuse(&self) -> Refusal {
        if self.user.is_some() {
            Refusal::forbidden()
        } else {
            Refusal::unauthenticated()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (
                http::HeaderName::from_static(name),
                http::HeaderValue::from_static(value),
            )
        });
        pairs.collect()
    }

    #[test]
    fn with_a_secret_only_who_shows_it_is_believed() {
        let trust = Trust::new("s3cret");
        let claim = [
            ("x-user-id", "u"),
            ("x-user-roles", "admin"),
            ("x-service-id", "gateway"),
        ];
        assert_eq!(trust.of(&headers(&claim)), Caller::default());
        let mut shown = claim.to_vec();
        shown.push(("authorization", "Bearer s3cret"));
        assert!(trust.of(&headers(&shown)).is_admin());
        assert!(!trust.of(&headers(&[])).is_admin());
    }

    #[test]
    fn a_gateway_without_a_user_is_nobody() {
        let caller = Trust::default().of(&headers(&[("x-service-id", "gateway")]));
        assert_eq!(
            caller.need_admin().unwrap_err().reason(),
            "AUTHENTICATION_REQUIRED"
        );
        assert!(
            Trust::default().of(&headers(&[])).is_admin(),
            "the operator's own call"
        );
    }

    #[test]
    fn roles_without_a_user_are_worth_nothing() {
        let claim = [("x-service-id", "gateway"), ("x-user-roles", "admin")];
        assert!(!Trust::default().of(&headers(&claim)).is_admin());
    }
}
