//! `users.v1.UsersService`: who may ask for what, and the steps of each method. Rules are in `domain`.

use std::sync::Arc;

use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use super::{
    domain::User,
    passwords::Passwords,
    sessions::{Renewed, Sessions},
    store::Store,
    tokens::Tokens,
};
use crate::{
    contracts::users::{self as wire, UserStatus, users_service_server::UsersService},
    kit::{
        caller::Trust, log, metrics::Metrics, page::Page, refusal::Refusal, rules::Fields, time,
    },
};

/// The service. Its parts are shared by clones.
#[derive(Clone)]
pub struct Users {
    /// Accounts.
    pub store: Store,
    /// Who is signed in.
    pub sessions: Sessions,
    /// Hashing.
    pub passwords: Passwords,
    /// Signing.
    pub tokens: Tokens,
    /// Whom we believe.
    pub trust: Trust,
    /// `users_registered_total`.
    pub registered: prometheus::IntCounter,
    /// `logins_total` by result.
    pub logins: prometheus::IntCounterVec,
}

/// The service's own series.
pub fn counters(metrics: &Metrics) -> (prometheus::IntCounter, prometheus::IntCounterVec) {
    (
        metrics.counter("users_registered_total", "Accounts that were made."),
        metrics.counters("logins_total", "Tries to sign in.", &["result"]),
    )
}

impl Users {
    /// Makes an account; `roles` beside the one that everyone has.
    pub async fn register(
        &self,
        request: &wire::CreateUserRequest,
        roles: &[&str],
        actor: &str,
    ) -> Result<User, Refusal> {
        let mut user = User::new(request, Uuid::now_v7(), time::now())?;
        user.roles.extend(roles.iter().map(ToString::to_string));
        // What is taken is found before the work of hashing; the store decides again.
        if self.store.by_email(&user.email).await?.is_some() {
            return Err(Refusal::new(
                Code::AlreadyExists,
                "EMAIL_TAKEN",
                "there is a user with this email already",
            )
            .with("field", "email"));
        }
        user.password_hash = self.passwords.hash(&request.password).await?;
        self.store.create(&user, actor).await?;
        self.registered.inc();
        Ok(user)
    }

    async fn sign_in(
        &self,
        request: &wire::AuthenticateUserRequest,
    ) -> Result<(User, Renewed), Refusal> {
        let mut fields = Fields::default();
        let email = request.email.trim().to_lowercase();
        fields.text("email", &email, 1, 254);
        // Longer ones are nobody's, and would be work.
        if request.password.is_empty() {
            fields.wrong("password", "is missing");
        } else if request.password.len() > 1000 {
            fields.wrong("password", "is too long");
        }
        fields.check()?;
        let now = time::now();
        let user = self.store.by_email(&email).await?;
        let hash = user.as_ref().map(|user| user.password_hash.as_str());
        let matches = self.passwords.matches(&request.password, hash).await?;
        let Some(user) = user.filter(|_| matches) else {
            self.logins.with_label_values(&["refused"]).inc();
            log::warn("sign-in refused", &[]);
            self.sessions.failed(&email, "credentials", now).await?;
            return Err(Refusal::new(
                Code::Unauthenticated,
                "INVALID_CREDENTIALS",
                "sign-in failed",
            ));
        };
        if !user.is_active() {
            self.logins.with_label_values(&["inactive"]).inc();
            self.sessions.failed(&email, "inactive", now).await?;
            return Err(Refusal::new(
                Code::PermissionDenied,
                "USER_INACTIVE",
                "this account is not active",
            ));
        }
        let session = self.sessions.begin(user.id, now).await?;
        self.logins.with_label_values(&["ok"]).inc();
        log::info("signed in", &[("user_id", &user.id)]);
        Ok((user, session))
    }

    fn lifetime(&self) -> i32 {
        i32::try_from(self.tokens.lifetime.as_secs()).unwrap_or(i32::MAX)
    }

    /// For whoever only looks.
    async fn seen(&self, id: &str) -> Result<Arc<User>, Refusal> {
        let id = user_id(id)?;
        let user = self.store.seen(id).await?;
        user.ok_or_else(|| Refusal::not_found("user", "user_id", &id.to_string()))
    }

    async fn one(&self, id: &str) -> Result<User, Refusal> {
        let id = user_id(id)?;
        let user = self.store.user(id).await?;
        user.ok_or_else(|| Refusal::not_found("user", "user_id", &id.to_string()))
    }

    async fn update(&self, request: Request<wire::UpdateUserRequest>) -> Result<User, Refusal> {
        let caller = self.trust.caller(request.metadata());
        let request = request.into_inner();
        let id = user_id(&request.user_id)?;
        caller.need_self(&request.user_id)?;
        if request.status() != UserStatus::Unspecified {
            caller.need_admin()?;
        }
        let mut new_hash = None;
        if let Some(password) = &request.password {
            let now = self.one(&request.user_id).await?;
            // Checked before the work of hashing.
            now.clone().change(&request, 0)?;
            if !caller.is_admin() {
                let current = request.current_password.as_deref().unwrap_or_default();
                if !self
                    .passwords
                    .matches(current, Some(&now.password_hash))
                    .await?
                {
                    let mut fields = Fields::default();
                    fields.wrong("current_password", "is not the password");
                    fields.check()?;
                }
            }
            new_hash = Some(self.passwords.hash(password).await?);
        }
        let now = time::now();
        self.store
            .change(id, caller.actor(), now, |user| {
                let changed = user.change(&request, now)?;
                if let Some(hash) = new_hash {
                    user.password_hash = hash;
                }
                Ok(changed)
            })
            .await
    }
}

#[tonic::async_trait]
impl UsersService for Users {
    async fn authenticate_user(
        &self,
        request: Request<wire::AuthenticateUserRequest>,
    ) -> Result<Response<wire::AuthenticateUserResponse>, Status> {
        let (user, session) = self.sign_in(request.get_ref()).await?;
        Ok(Response::new(wire::AuthenticateUserResponse {
            user_id: user.id.to_string(),
            access_token: self.tokens.access(&user, session.session, time::now()),
            token_type: "Bearer".into(),
            expires_in: self.lifetime(),
            refresh_token: session.refresh,
            user: Some(user.to_wire()),
        }))
    }

    async fn refresh_token(
        &self,
        request: Request<wire::RefreshTokenRequest>,
    ) -> Result<Response<wire::RefreshTokenResponse>, Status> {
        let now = time::now();
        let renewed = self
            .sessions
            .renew(&request.get_ref().refresh_token, now)
            .await?;
        let user = self.store.user(renewed.user).await?;
        let Some(user) = user.filter(User::is_active) else {
            return Err(Refusal::unauthenticated().into());
        };
        Ok(Response::new(wire::RefreshTokenResponse {
            access_token: self.tokens.access(&user, renewed.session, now),
            token_type: "Bearer".into(),
            expires_in: self.lifetime(),
            refresh_token: renewed.refresh,
        }))
    }

    async fn revoke_token(
        &self,
        request: Request<wire::RevokeTokenRequest>,
    ) -> Result<Response<()>, Status> {
        let request = request.get_ref();
        self.sessions
            .end(&request.refresh_token, request.all_sessions, time::now())
            .await?;
        Ok(Response::new(()))
    }

    async fn create_user(
        &self,
        request: Request<wire::CreateUserRequest>,
    ) -> Result<Response<wire::User>, Status> {
        let caller = self.trust.caller(request.metadata());
        let user = self
            .register(request.get_ref(), &[], caller.actor())
            .await?;
        Ok(Response::new(user.to_wire()))
    }

    async fn get_user(
        &self,
        request: Request<wire::GetUserRequest>,
    ) -> Result<Response<wire::User>, Status> {
        let id = &request.get_ref().user_id;
        user_id(id)?;
        self.trust.caller(request.metadata()).need_self(id)?;
        Ok(Response::new(self.seen(id).await?.to_wire()))
    }

    async fn update_user(
        &self,
        request: Request<wire::UpdateUserRequest>,
    ) -> Result<Response<wire::User>, Status> {
        Ok(Response::new(self.update(request).await?.to_wire()))
    }

    async fn delete_user(
        &self,
        request: Request<wire::DeleteUserRequest>,
    ) -> Result<Response<()>, Status> {
        let caller = self.trust.caller(request.metadata());
        let id = user_id(&request.get_ref().user_id)?;
        caller.need_self(&request.get_ref().user_id)?;
        let now = time::now();
        self.store
            .change(id, caller.actor(), now, |user| {
                if user.status == UserStatus::Deleted {
                    return Ok(Vec::new());
                }
                user.status = UserStatus::Deleted;
                user.touch(now);
                Ok(vec!["status"])
            })
            .await?;
        Ok(Response::new(()))
    }

    async fn validate_user(
        &self,
        request: Request<wire::ValidateUserRequest>,
    ) -> Result<Response<wire::ValidateUserResponse>, Status> {
        self.trust.caller(request.metadata()).need_service()?;
        // What is no id is no user's id (SHOP-206).
        let is_valid = match Uuid::try_parse(&request.get_ref().user_id) {
            Ok(id) => self
                .store
                .user(id)
                .await?
                .is_some_and(|user| user.is_active()),
            Err(_) => false,
        };
        Ok(Response::new(wire::ValidateUserResponse { is_valid }))
    }

    async fn get_user_profile(
        &self,
        request: Request<wire::GetUserProfileRequest>,
    ) -> Result<Response<wire::UserProfile>, Status> {
        let id = &request.get_ref().user_id;
        user_id(id)?;
        self.trust.caller(request.metadata()).need_self(id)?;
        Ok(Response::new(self.seen(id).await?.to_profile()))
    }

    async fn update_user_profile(
        &self,
        request: Request<wire::UpdateUserProfileRequest>,
    ) -> Result<Response<wire::UserProfile>, Status> {
        let user = self.update(request.map(|request| wire::UpdateUserRequest {
            user_id: request.user_id,
            first_name: request.first_name,
            last_name: request.last_name,
            address: request.address,
            profile: request.profile,
            preferences: request.preferences,
            ..Default::default()
        }));
        Ok(Response::new(user.await?.to_profile()))
    }

    async fn batch_get_users(
        &self,
        request: Request<wire::BatchGetUsersRequest>,
    ) -> Result<Response<wire::BatchGetUsersResponse>, Status> {
        self.trust.caller(request.metadata()).need_admin()?;
        let asked = &request.get_ref().user_ids;
        let mut fields = Fields::default();
        if asked.len() > 100 {
            fields.wrong("user_ids", "has more than 100 ids");
        }
        let ids: Vec<_> = asked
            .iter()
            .take(100)
            .enumerate()
            .map(|(at, id)| fields.id(&format!("user_ids[{at}]"), id))
            .collect();
        fields.check().map_err(Status::from)?;
        let users = self.store.users(&ids).await?;
        let users = users.iter().map(User::to_wire).collect();
        Ok(Response::new(wire::BatchGetUsersResponse { users }))
    }

    async fn search_users(
        &self,
        request: Request<wire::SearchUsersRequest>,
    ) -> Result<Response<wire::SearchUsersResponse>, Status> {
        self.trust.caller(request.metadata()).need_admin()?;
        let request = request.get_ref();
        let mut fields = Fields::default();
        let columns = ["created_at", "updated_at", "email", "last_name"];
        let page = Page::read(
            &mut fields,
            request.page,
            request.limit,
            &request.sort_by,
            &request.order,
            &columns,
        );
        let text = fields.text("text", &request.text, 0, 100);
        fields.check().map_err(Status::from)?;
        let (users, total) = self.store.search(&text, request.status(), &page).await?;
        let extent = page.extent(total);
        Ok(Response::new(wire::SearchUsersResponse {
            users: users.iter().map(User::to_wire).collect(),
            pagination: Some(wire::Pagination {
                page: extent.page,
                limit: extent.limit,
                total: extent.total,
                pages: extent.pages,
                has_next: extent.has_next,
                has_prev: extent.has_prev,
            }),
        }))
    }
}

fn user_id(id: &str) -> Result<Uuid, Refusal> {
    let mut fields = Fields::default();
    let id = fields.id("user_id", id);
    fields.check()?;
    Ok(id)
}
