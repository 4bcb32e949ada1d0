//! Accounts: made, found, validated, left.

use tollgate_example_services::{
    contracts::users as wire, kit::refusal::Refusal, users::MIGRATIONS,
};
use tonic::Code;

use super::{PASSWORD, client, login, person, start};
use crate::support::{sqlite, stores};

/// SHOP-203, SHOP-204, SHOP-205, SHOP-206, ACC-106.
#[tokio::test]
async fn people_sign_up_and_in_are_found_validated_and_leave() {
    for store in stores(&MIGRATIONS).await {
        let program = start(&store, &[]);
        let mut users = client(&program).await;
        let ada = users
            .create_user(person("Ada@Example.org"))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            (ada.email.as_str(), ada.is_active),
            ("ada@example.org", true)
        );

        let twice = users
            .create_user(person("ada@example.org"))
            .await
            .unwrap_err();
        assert_eq!(twice.code(), Code::AlreadyExists);

        let session = users
            .authenticate_user(login("ADA@example.org", PASSWORD))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            (session.user_id.as_str(), session.expires_in),
            (ada.user_id.as_str(), 900)
        );

        for (email, password, code) in [
            ("ada@example.org", "wrong-horse-1", Code::Unauthenticated),
            ("nobody@example.org", PASSWORD, Code::Unauthenticated),
            ("", PASSWORD, Code::InvalidArgument),
            ("ada@example.org", "", Code::InvalidArgument),
        ] {
            assert_eq!(
                users
                    .authenticate_user(login(email, password))
                    .await
                    .unwrap_err()
                    .code(),
                code
            );
        }

        let get = |id: &str| wire::GetUserRequest { user_id: id.into() };
        assert_eq!(
            users
                .get_user(get(&ada.user_id))
                .await
                .unwrap()
                .into_inner(),
            ada
        );
        let unknown = uuid::Uuid::now_v7().to_string();
        let status = users.get_user(get(&unknown)).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(
            Refusal::from_status(&status).metadata(),
            [("user_id".to_string(), unknown.clone())]
        );

        let valid = |user_id: &str| wire::ValidateUserRequest {
            user_id: user_id.into(),
        };
        for (id, expected) in [
            (ada.user_id.as_str(), true),
            (&unknown, false),
            ("no id", false),
        ] {
            assert_eq!(
                users
                    .validate_user(valid(id))
                    .await
                    .unwrap()
                    .into_inner()
                    .is_valid,
                expected
            );
        }

        let delete = wire::DeleteUserRequest {
            user_id: ada.user_id.clone(),
        };
        users.delete_user(delete.clone()).await.unwrap();
        users.delete_user(delete).await.unwrap();
        assert!(
            !users
                .validate_user(valid(&ada.user_id))
                .await
                .unwrap()
                .into_inner()
                .is_valid
        );
        let gone = users
            .authenticate_user(login("ada@example.org", PASSWORD))
            .await
            .unwrap_err();
        assert_eq!(gone.code(), Code::PermissionDenied);
        let refresh = wire::RefreshTokenRequest {
            refresh_token: session.refresh_token,
        };
        assert_eq!(
            users.refresh_token(refresh).await.unwrap_err().code(),
            Code::Unauthenticated
        );
    }
}

/// SHOP-203, SHOP-805: all bad fields at once, each by its name.
#[tokio::test]
async fn every_bad_field_is_named() {
    let store = sqlite(&MIGRATIONS).await;
    let program = start(&store, &[]);
    let mut users = client(&program).await;
    let request = wire::CreateUserRequest {
        email: "not an address".into(),
        password: "short".into(),
        first_name: " ".into(),
        last_name: "x".repeat(101),
        address: Some(wire::Address {
            street: String::new(),
            city: "C".into(),
            state: "California".into(),
            zip_code: "1234".into(),
            country: "USA".into(),
        }),
        username: Some("a b".into()),
        profile: Some(wire::Profile {
            phone: "call me".into(),
            avatar_url: "javascript:1".into(),
            date_of_birth: "1990-02-30".into(),
            gender: String::new(),
        }),
        preferences: Some(wire::Preferences {
            language: "English".into(),
            currency: "usd".into(),
            notifications: None,
        }),
    };
    let refusal = Refusal::from_status(&users.create_user(request).await.unwrap_err());
    assert_eq!(
        (refusal.code(), refusal.reason()),
        (Code::InvalidArgument, "VALIDATION_ERROR")
    );
    let mut names: Vec<_> = refusal
        .bad_fields()
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    names.sort_unstable();
    let mut expected = [
        "email",
        "password",
        "first_name",
        "last_name",
        "address.street",
        "address.state",
        "address.zip_code",
        "username",
        "profile.phone",
        "profile.avatar_url",
        "profile.date_of_birth",
        "preferences.language",
        "preferences.currency",
    ];
    expected.sort_unstable();
    assert_eq!(names, expected);
}

/// Of many who take one address at once, one gets it (SHOP-203).
#[tokio::test(flavor = "multi_thread")]
async fn one_address_is_one_account() {
    for store in stores(&MIGRATIONS).await {
        let program = start(&store, &[]);
        let users = client(&program).await;
        let tries: Vec<_> = (0..12)
            .map(|_| {
                let mut users = users.clone();
                tokio::spawn(async move { users.create_user(person("ada@example.org")).await })
            })
            .collect();
        let mut made = 0;
        for result in tries {
            match result.await.unwrap() {
                Ok(_) => made += 1,
                Err(status) => assert_eq!(status.code(), Code::AlreadyExists),
            }
        }
        assert_eq!(made, 1);
    }
}

/// SHOP-809: who is looked at is kept in memory, and is what was written last; the hash is not among it.
#[tokio::test]
async fn shop_809_a_user_who_changed_is_seen_at_once() {
    for store in stores(&MIGRATIONS).await {
        let program = start(&store, &["--cache-lifetime=1h"]);
        let mut client = client(&program).await;
        let made = client.create_user(person("kept@example.com")).await;
        let id = made.unwrap().into_inner().user_id;
        let asked = wire::GetUserRequest {
            user_id: id.clone(),
        };
        for name in ["Ada", "Grace", "Edith"] {
            let change = wire::UpdateUserRequest {
                user_id: id.clone(),
                first_name: Some(name.into()),
                ..Default::default()
            };
            client.update_user(change).await.unwrap();
            for _ in 0..2 {
                let seen = client.get_user(asked.clone()).await.unwrap();
                assert_eq!(seen.into_inner().first_name, name);
            }
        }
        let gone = wire::DeleteUserRequest {
            user_id: id.clone(),
        };
        client.delete_user(gone).await.unwrap();
        let seen = client.get_user(asked).await.unwrap().into_inner();
        assert!(!seen.is_active);
        // Who signs in is not asked of what is kept.
        let refused = client
            .authenticate_user(login("kept@example.com", PASSWORD))
            .await;
        assert_eq!(refused.unwrap_err().code(), tonic::Code::PermissionDenied);
    }
}
