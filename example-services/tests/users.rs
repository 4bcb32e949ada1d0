//! The users service: the program, over gRPC and HTTP, on both databases.

mod support;

use std::process::Command;

use serde_json::{Value, json};
use tollgate_example_services::{
    contracts::users::{self as wire, users_service_client::UsersServiceClient},
    kit::refusal::Refusal,
    users::MIGRATIONS,
};
use tonic::{Code, Request, transport::Channel};

use support::{Store, service::Program, stores};

const PROGRAM: &str = env!("CARGO_BIN_EXE_shop-users");
const PASSWORD: &str = "correct-horse-1";

/// The program on this store, with hashing that is quick.
fn start(store: &Store, settings: &[&str]) -> Program {
    let mut all = vec![
        "--database",
        &store.address,
        "--password-memory",
        "8",
        "--password-rounds",
        "1",
    ];
    all.extend(settings);
    Program::start(PROGRAM, &all)
}

async fn client(program: &Program) -> UsersServiceClient<Channel> {
    UsersServiceClient::connect(program.grpc.clone())
        .await
        .unwrap()
}

fn person(email: &str) -> wire::CreateUserRequest {
    wire::CreateUserRequest {
        email: email.into(),
        password: PASSWORD.into(),
        first_name: "Ada".into(),
        last_name: "Lovelace".into(),
        ..Default::default()
    }
}

fn login(email: &str, password: &str) -> wire::AuthenticateUserRequest {
    wire::AuthenticateUserRequest {
        email: email.into(),
        password: password.into(),
    }
}

/// A call as this user, the way a gateway makes it.
fn by<T>(user: &str, roles: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("x-service-id", "gateway".parse().unwrap());
    request
        .metadata_mut()
        .insert("x-user-id", user.parse().unwrap());
    request
        .metadata_mut()
        .insert("x-user-roles", roles.parse().unwrap());
    request
}

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
    let store = support::sqlite(&MIGRATIONS).await;
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

/// `curl`, with the status before the body.
fn curl(arguments: &[&str]) -> (u16, Value) {
    let out = Command::new("curl")
        .args([
            "--silent",
            "--max-time",
            "20",
            "--write-out",
            "\n%{http_code}",
        ])
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (
        status.parse().unwrap(),
        serde_json::from_str(body).unwrap_or(Value::Null),
    )
}

/// SHOP-105, SHOP-801, OBS-701, OBS-702, ACC-102: REST, health and metrics of the service itself.
#[tokio::test]
async fn the_same_over_http() {
    let store = support::sqlite(&MIGRATIONS).await;
    let mut program = start(&store, &["--sample-data"]);
    let url = |path: &str| format!("{}{path}", program.http);
    for path in ["/health", "/health/live", "/health/ready", "/ready"] {
        let (status, body) = curl(&[&url(path)]);
        assert_eq!(
            (status, &body["status"], &body["service"]),
            (200, &json!("healthy"), &json!("users")),
            "{path}"
        );
    }
    let body = json!({
        "email": "ada@example.org", "password": PASSWORD, "firstName": "Ada", "last_name": "Lovelace",
    });
    let (status, made) = curl(&["--json", &body.to_string(), &url("/users")]);
    assert_eq!((status, &made["success"]), (201, &json!(true)), "{made}");
    assert_eq!(made["data"]["status"], "active");
    let id = made["data"]["user_id"].as_str().unwrap();
    let (status, found) = curl(&[&url(&format!("/users/{id}"))]);
    assert_eq!((status, &found["data"]), (200, &made["data"]));

    let credentials = json!({ "email": "ada@example.org", "password": PASSWORD }).to_string();
    let (status, session) = curl(&["--json", &credentials, &url("/auth/login")]);
    assert_eq!(status, 200, "{session}");
    assert_eq!(
        session["data"]["access_token"]
            .as_str()
            .unwrap()
            .split('.')
            .count(),
        3
    );
    let (_, keys) = curl(&[&url("/.well-known/jwks.json")]);
    assert_eq!(
        (&keys["keys"][0]["kty"], &keys["keys"][0]["crv"]),
        (&json!("OKP"), &json!("Ed25519"))
    );

    let (status, page) = curl(&[&url("/users?limit=2&sort_by=email&order=asc")]);
    assert_eq!(
        (status, &page["pagination"]["total"]),
        (200, &json!(4)),
        "{page}"
    );
    assert_eq!(page["data"].as_array().unwrap().len(), 2);

    for (arguments, status, code) in [
        (vec![url("/users/5")], 400, "VALIDATION_ERROR"),
        (
            vec![url(&format!("/users/{}", uuid::Uuid::now_v7()))],
            404,
            "USER_NOT_FOUND",
        ),
        (vec![url("/users?nonsense=1")], 400, "VALIDATION_ERROR"),
        (vec![url("/nowhere")], 404, "NOT_FOUND"),
        (
            vec!["--json".into(), "{".into(), url("/users")],
            400,
            "VALIDATION_ERROR",
        ),
        (
            vec!["--json".into(), "[]".into(), url("/users")],
            400,
            "VALIDATION_ERROR",
        ),
        (
            vec!["--json".into(), r#"{"unknown": 1}"#.into(), url("/users")],
            400,
            "VALIDATION_ERROR",
        ),
        (
            vec!["--json".into(), r#"{"email": 1}"#.into(), url("/users")],
            400,
            "VALIDATION_ERROR",
        ),
        (
            vec!["--json".into(), body.to_string(), url("/users")],
            409,
            "EMAIL_TAKEN",
        ),
    ] {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let (found, body) = curl(&arguments);
        assert_eq!(
            (found, &body["error"]["code"]),
            (status, &json!(code)),
            "{arguments:?}: {body}"
        );
        assert_eq!(body["error"]["trace_id"].as_str().unwrap().len(), 32);
    }

    let out = Command::new("curl")
        .args(["--silent", &url("/metrics")])
        .output()
        .unwrap();
    let metrics = String::from_utf8(out.stdout).unwrap();
    assert!(metrics.contains("users_registered_total 4"), "{metrics}");
    assert!(
        metrics.contains(r#"path="/users/{user_id}""#) && !metrics.contains(id),
        "{metrics}"
    );

    let (_, told) = curl(&[&url("/events?types=user.registered")]);
    assert_eq!(told["events"].as_array().unwrap().len(), 4, "{told}");
    assert_eq!(program.stop(), Some(0), "SIGTERM is a clean end");
}

/// SHOP-106: `kill -9` while people sign up. Whoever was told they have an account has one, each account has its event, and
/// nothing is half there.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_loses_nobody_who_was_told() {
    for store in stores(&MIGRATIONS).await {
        let mut told = Vec::new();
        for round in 0..3 {
            let mut program = start(&store, &[]);
            let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
            for task in 0..4 {
                let (mut users, sender) = (client(&program).await, sender.clone());
                tokio::spawn(async move {
                    for count in 0.. {
                        let email = format!("p{round}.{task}.{count}@example.org");
                        match users.create_user(person(&email)).await {
                            Ok(made) => sender.send(made.into_inner().user_id).unwrap(),
                            Err(_) => return,
                        }
                    }
                });
            }
            drop(sender);
            for _ in 0..20 {
                told.push(receiver.recv().await.unwrap());
            }
            program.kill();
            while let Some(id) = receiver.recv().await {
                told.push(id);
            }
        }
        let count = |sql: &'static str| {
            let database = store.database.clone();
            async move { database.fetch(sql, &[]).await.unwrap()[0].int(0).unwrap() }
        };
        let accounts = count("SELECT count(*) FROM users").await;
        assert!(accounts >= told.len() as i64);
        assert_eq!(
            accounts,
            count("SELECT count(*) FROM events WHERE type = 'user.registered.v1'").await
        );
        for id in told {
            let id = uuid::Uuid::parse_str(&id).unwrap();
            let sql = "SELECT 1 FROM users WHERE id = $1";
            assert!(
                store
                    .database
                    .first(sql, tollgate_example_services::values![id])
                    .await
                    .unwrap()
                    .is_some()
            );
        }
    }
}

/// PROD-9, GW-909: beyond loopback, and with settings that mean nothing, it does not start.
#[test]
fn settings_that_are_wrong_or_careless_end_the_program() {
    for (arguments, word) in [
        (
            vec!["--http", "0.0.0.0:0", "--grpc", "0.0.0.0:0"],
            "service_token",
        ),
        (vec!["--token-algorithm", "none"], "token_algorithm"),
        (vec!["--nonsense", "1"], "--nonsense"),
        (vec!["serve"], "no command"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let out = Command::new(PROGRAM)
            .args(&arguments)
            .args(if arguments[0] == "--http" {
                vec![]
            } else {
                vec!["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]
            })
            .current_dir(folder.path())
            .output()
            .unwrap();
        let text = String::from_utf8(out.stderr).unwrap();
        assert!(
            out.status.code() == Some(2) && text.contains(word),
            "{arguments:?}: {text}"
        );
    }
}

/// GW-201: the descriptor set for a gateway.
#[test]
fn the_contracts_are_written_for_a_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.binpb");
    let status = Command::new(PROGRAM)
        .args(["descriptors", file.to_str().unwrap()])
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(
        std::fs::read(file).unwrap(),
        tollgate_example_services::contracts::DESCRIPTORS
    );
}
