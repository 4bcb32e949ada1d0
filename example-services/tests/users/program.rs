//! The program: over HTTP, killed, and with settings that are wrong.

use std::{future::Future, process::Command};

use serde_json::json;
use tollgate_example_services::users::MIGRATIONS;

use super::{PASSWORD, PROGRAM, client, person, start};
use crate::support::{service::curl, sqlite, stores};

/// SHOP-105, SHOP-801, OBS-701, OBS-702, ACC-102: REST, health and metrics of the service itself.
#[tokio::test]
async fn the_same_over_http() {
    let store = sqlite(&MIGRATIONS).await;
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

/// SHOP-105: what is in flight when the program is told to stop is finished, and what comes later is not taken.
#[tokio::test]
async fn a_stop_lets_requests_in_flight_finish() {
    let store = sqlite(&MIGRATIONS).await;
    // One after another, so that after the first answer the others are in flight, and slow enough to be.
    let slow = [
        "--password-threads",
        "1",
        "--password-memory",
        "32768",
        "--password-rounds",
        "3",
    ];
    let mut program = start(&store, &slow);
    let users = client(&program).await;
    let mut calls: Vec<_> = (0..4)
        .map(|count| {
            let mut users = users.clone();
            Box::pin(async move {
                users
                    .create_user(person(&format!("p{count}@example.org")))
                    .await
            })
        })
        .collect();
    let first = std::future::poll_fn(|context| {
        // None is ready the first time, so all are sent before any is waited for.
        let ready = calls
            .iter_mut()
            .position(|call| call.as_mut().poll(context).is_ready());
        ready.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
    });
    let first = first.await;
    drop(calls.remove(first));
    let ended = tokio::task::spawn_blocking(move || (program.stop(), program.log()));
    for call in calls {
        call.await.unwrap();
    }
    let (code, log) = ended.await.unwrap();
    assert_eq!(code, Some(0), "{log:?}");
    assert!(
        users
            .clone()
            .create_user(person("late@example.org"))
            .await
            .is_err()
    );
}

/// OBS-201, OBS-202, OBS-205, OBS-209: the log is JSON with the caller's trace, and holds nothing secret or personal.
#[tokio::test]
async fn the_log_tells_what_happened_and_nothing_secret() {
    let store = sqlite(&MIGRATIONS).await;
    let mut program = start(&store, &["--log-level", "debug", "--environment", "test"]);
    let url = |path: &str| format!("{}{path}", program.http);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("traceparent: 00-{trace}-00f067aa0ba902b7-01");
    let email = "ada.secret@example.org";
    let person = json!({ "email": email, "password": PASSWORD, "first_name": "Augusta", "last_name": "Kingsley" });
    curl(&[
        "--header",
        &parent,
        "--json",
        &person.to_string(),
        &url("/users"),
    ]);
    let login = |password: &str| {
        let body = json!({ "email": email, "password": password }).to_string();
        curl(&["--header", &parent, "--json", &body, &url("/auth/login")]).1
    };
    login("wrong-horse-1");
    let session = login(PASSWORD);
    let refresh = json!({ "refresh_token": session["data"]["refresh_token"] }).to_string();
    curl(&["--json", &refresh, &url("/auth/refresh")]);
    curl(&["--json", &refresh, &url("/auth/refresh")]);
    assert_eq!(program.stop(), Some(0));
    let log = program.log();
    let text = log.join("\n");
    let data = &session["data"];
    let token = |key: &str| data[key].as_str().unwrap().to_string();
    for secret in [
        PASSWORD,
        "wrong-horse-1",
        email,
        "Augusta",
        "Kingsley",
        &token("access_token"),
        &token("refresh_token"),
        "$argon2id$",
    ] {
        assert!(!text.contains(secret), "{secret} is in the log: {text}");
    }
    for line in &log {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        for field in [
            "timestamp",
            "level",
            "service",
            "environment",
            "version",
            "message",
        ] {
            assert!(line[field].is_string(), "{field}: {line}");
        }
    }
    assert!(
        log.iter().filter(|line| line.contains(trace)).count() >= 3,
        "{text}"
    );
    assert!(
        text.contains("signed in")
            && text.contains("sign-in refused")
            && text.contains("shown twice"),
        "{text}"
    );
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
