//! Input that nobody sends by accident: every one is refused by name, and none is our failure.

use tollgate_example_services::{
    contracts::users as wire, kit::refusal::Refusal, users::MIGRATIONS,
};
use tonic::Code;

use super::{PASSWORD, client, login, person, start};
use crate::support::{service::curl, sqlite, stores};

/// SHOP-203, SHOP-805: characters that a database would choke on, in every text.
#[tokio::test]
async fn texts_that_no_database_takes_are_refused_by_name() {
    for store in stores(&MIGRATIONS).await {
        let program = start(&store, &[]);
        let mut users = client(&program).await;
        let refused = users
            .authenticate_user(login("a\0b@example.org", PASSWORD))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        let nul = || "a\0b".to_string();
        let request = wire::CreateUserRequest {
            email: "a\0b@example.org".into(),
            password: PASSWORD.into(),
            first_name: nul(),
            last_name: nul(),
            address: Some(wire::Address {
                street: nul(),
                city: nul(),
                state: nul(),
                zip_code: nul(),
                country: "FRA".into(),
            }),
            username: Some(nul()),
            profile: Some(wire::Profile {
                phone: nul(),
                avatar_url: "https://a\0b".into(),
                date_of_birth: nul(),
                gender: nul(),
            }),
            preferences: Some(wire::Preferences {
                language: nul(),
                currency: nul(),
                notifications: None,
            }),
        };
        let refusal = Refusal::from_status(&users.create_user(request).await.unwrap_err());
        assert_eq!(
            (refusal.code(), refusal.bad_fields().len()),
            (Code::InvalidArgument, 14),
            "{refusal:?}"
        );
        let search = wire::SearchUsersRequest {
            text: nul(),
            page: -1,
            limit: 101,
            ..Default::default()
        };
        let refusal = Refusal::from_status(&users.search_users(search).await.unwrap_err());
        assert_eq!(refusal.bad_fields().len(), 3);
        let far = wire::SearchUsersRequest {
            page: i32::MAX,
            limit: 100,
            ..Default::default()
        };
        assert_eq!(
            users
                .search_users(far)
                .await
                .unwrap()
                .into_inner()
                .users
                .len(),
            0
        );
        // A password may be anything; it is never stored as it is.
        let odd = wire::CreateUserRequest {
            password: "pässwörd\0 1".into(),
            ..person("odd@example.org")
        };
        users.create_user(odd).await.unwrap();
        assert!(
            users
                .authenticate_user(login("odd@example.org", "pässwörd\0 1"))
                .await
                .is_ok()
        );
    }
}

/// Bad JSON over the service's own REST: 400 with a field, never our failure, and the service goes on.
#[tokio::test]
async fn bodies_that_mean_nothing_are_told_so() {
    let store = sqlite(&MIGRATIONS).await;
    let program = start(&store, &[]);
    let url = format!("{}/users", program.http);
    let folder = tempfile::tempdir().unwrap();
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let wide = format!("{{\"first_name\": \"{}\"}}", "x".repeat(2 << 20));
    let bodies: [&[u8]; 12] = [
        b"",
        b"null",
        b"{",
        b"{\"email\": \"a",
        b"{\"email\": \"\xff\xfe\"}",
        b"{\"email\": \"\\ud800\"}",
        b"{\"email\": 1e999}",
        b"{\"email\": 9223372036854775808}",
        b"{\"address\": [1]}",
        b"{\"address\": {\"street\": {\"street\": {}}}}",
        &deep,
        wide.as_bytes(),
    ];
    for (at, body) in bodies.iter().enumerate() {
        let file = folder.path().join(at.to_string());
        std::fs::write(&file, body).unwrap();
        let (status, told) = curl(&["--data-binary", &format!("@{}", file.display()), &url]);
        assert_eq!(
            (status, told["error"]["code"].as_str()),
            (400, Some("VALIDATION_ERROR")),
            "{at}: {told}"
        );
        assert!(
            told["error"]["details"]["fields"][0]["field"].is_string(),
            "{at}: {told}"
        );
    }
    let (status, _) = curl(&[&format!("{}/health", program.http)]);
    assert_eq!(status, 200);
}
