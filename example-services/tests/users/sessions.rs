//! Who is signed in, and who may do what.

use tollgate_example_services::{contracts::users as wire, users::MIGRATIONS};
use tonic::{Code, Request};

use super::{PASSWORD, by, client, login, person, start};
use crate::support::stores;

/// SHOP-207: a refresh token is good once, and its copy ends the session.
#[tokio::test]
async fn a_refresh_token_that_is_shown_twice_ends_its_session() {
    for store in stores(&MIGRATIONS).await {
        let program = start(&store, &[]);
        let mut users = client(&program).await;
        users.create_user(person("ada@example.org")).await.unwrap();
        let first = users
            .authenticate_user(login("ada@example.org", PASSWORD))
            .await
            .unwrap()
            .into_inner();
        let with = |token: &str| wire::RefreshTokenRequest {
            refresh_token: token.into(),
        };
        let second = users
            .refresh_token(with(&first.refresh_token))
            .await
            .unwrap()
            .into_inner();
        assert_ne!(second.refresh_token, first.refresh_token);
        let copied = users
            .refresh_token(with(&first.refresh_token))
            .await
            .unwrap_err();
        assert_eq!(copied.code(), Code::Unauthenticated);
        assert!(
            users
                .refresh_token(with(&second.refresh_token))
                .await
                .is_err(),
            "the whole session ended"
        );

        let other = users
            .authenticate_user(login("ada@example.org", PASSWORD))
            .await
            .unwrap()
            .into_inner();
        let out = wire::RevokeTokenRequest {
            refresh_token: other.refresh_token.clone(),
            all_sessions: false,
        };
        users.revoke_token(out).await.unwrap();
        assert!(
            users
                .refresh_token(with(&other.refresh_token))
                .await
                .is_err()
        );
    }
}

/// SHOP-201, GW-903, GW-909: who may do what.
#[tokio::test]
async fn people_see_and_change_themselves_and_administrators_everybody() {
    for store in stores(&MIGRATIONS).await {
        let program = start(&store, &["--service-token", "a secret of services"]);
        let mut users = client(&program).await;
        let ada = users
            .create_user(person("ada@example.org"))
            .await
            .unwrap()
            .into_inner()
            .user_id;
        let bob = users
            .create_user(person("bob@example.org"))
            .await
            .unwrap()
            .into_inner()
            .user_id;
        let get = || wire::GetUserRequest {
            user_id: ada.clone(),
        };
        // Without the secret nobody is believed, whatever they say.
        assert_eq!(
            users.get_user(get()).await.unwrap_err().code(),
            Code::Unauthenticated
        );
        assert_eq!(
            users
                .get_user(by(&ada, "admin", get()))
                .await
                .unwrap_err()
                .code(),
            Code::Unauthenticated
        );
        let shown = |mut request: Request<wire::GetUserRequest>| {
            request.metadata_mut().insert(
                "authorization",
                "Bearer a secret of services".parse().unwrap(),
            );
            request
        };
        assert!(users.get_user(shown(by(&ada, "user", get()))).await.is_ok());
        assert_eq!(
            users
                .get_user(shown(by(&bob, "user", get())))
                .await
                .unwrap_err()
                .code(),
            Code::PermissionDenied
        );
        assert!(
            users
                .get_user(shown(by(&bob, "user,admin", get())))
                .await
                .is_ok()
        );
        drop(program);

        let program = start(&store, &[]);
        let mut users = client(&program).await;
        let change = |status, first: &str| wire::UpdateUserRequest {
            user_id: ada.clone(),
            first_name: Some(first.into()),
            status,
            ..Default::default()
        };
        let changed = users
            .update_user(by(&ada, "user", change(0, "Augusta")))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            (changed.first_name.as_str(), changed.last_name.as_str()),
            ("Augusta", "Lovelace")
        );
        let suspended = wire::UserStatus::Suspended.into();
        let own = users
            .update_user(by(&ada, "user", change(suspended, "A")))
            .await;
        assert_eq!(own.unwrap_err().code(), Code::PermissionDenied);
        let other = users
            .update_user(by(&bob, "admin", change(suspended, "A")))
            .await
            .unwrap()
            .into_inner();
        assert!(!other.is_active);

        let search = wire::SearchUsersRequest {
            text: "_".into(),
            ..Default::default()
        };
        assert_eq!(
            users
                .search_users(by(&ada, "user", search.clone()))
                .await
                .unwrap_err()
                .code(),
            Code::PermissionDenied
        );
        assert_eq!(
            users
                .search_users(search)
                .await
                .unwrap()
                .into_inner()
                .users
                .len(),
            0,
            "`_` is no wildcard"
        );
        let search = wire::SearchUsersRequest {
            text: "OVELA".into(),
            limit: 1,
            ..Default::default()
        };
        let found = users.search_users(search).await.unwrap().into_inner();
        let pages = found.pagination.unwrap();
        assert_eq!(
            (found.users.len(), pages.total, pages.has_next),
            (1, 2, true)
        );
    }
}

/// SHOP-201: a new password needs the old one, and ends every session.
#[tokio::test]
async fn a_new_password_ends_all_sessions() {
    for store in stores(&MIGRATIONS).await {
        let program = start(&store, &[]);
        let mut users = client(&program).await;
        let ada = users
            .create_user(person("ada@example.org"))
            .await
            .unwrap()
            .into_inner()
            .user_id;
        let session = users
            .authenticate_user(login("ada@example.org", PASSWORD))
            .await
            .unwrap()
            .into_inner();
        let change = |current: Option<&str>| wire::UpdateUserRequest {
            user_id: ada.clone(),
            password: Some("battery-staple-2".into()),
            current_password: current.map(str::to_string),
            ..Default::default()
        };
        for current in [None, Some("wrong-horse-1")] {
            let refused = users
                .update_user(by(&ada, "user", change(current)))
                .await
                .unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
        }
        users
            .update_user(by(&ada, "user", change(Some(PASSWORD))))
            .await
            .unwrap();
        let refresh = wire::RefreshTokenRequest {
            refresh_token: session.refresh_token,
        };
        assert!(users.refresh_token(refresh).await.is_err());
        assert!(
            users
                .authenticate_user(login("ada@example.org", PASSWORD))
                .await
                .is_err()
        );
        assert!(
            users
                .authenticate_user(login("ada@example.org", "battery-staple-2"))
                .await
                .is_ok()
        );
    }
}
