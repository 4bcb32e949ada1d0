//! The kit's tables, on both databases: migrations, idempotency keys, events.

mod support;

use prost::Message;
use serde_json::json;
use tollgate_example_services::{
    kit::{
        database::Database,
        events::{self, Event},
        idempotency::{self, Claim},
        migrations::{self, KIT},
        refusal::Refusal,
    },
    values,
};
use tonic::Code;

use support::stores;

/// SHOP-106.
#[tokio::test(flavor = "multi_thread")]
async fn migrations_go_forth_and_back_and_two_at_once_do_no_harm() {
    for store in stores(&[]).await {
        let (one, other) = (store.database.clone(), store.database.clone());
        let both = tokio::join!(migrations::up(&one, &[KIT]), migrations::up(&other, &[KIT]));
        assert_eq!((both.0.unwrap(), both.1.unwrap()), (1, 1));
        assert_eq!(migrations::down(&one, &[KIT]).await.unwrap(), 0);
        assert_eq!(migrations::down(&one, &[KIT]).await.unwrap(), 0);
        assert_eq!(migrations::up(&one, &[KIT]).await.unwrap(), 1);
    }
}

async fn once(database: &Database, key: &str, hash: &str) -> Result<(bool, Vec<u8>), Refusal> {
    let mut write = database.write().await?;
    match idempotency::claim(&mut write, key, hash, 1000).await? {
        Claim::Ours => {
            let effect = "INSERT INTO events (id, type, aggregate_id, version, at, payload, metadata) \
                          VALUES ($1, 'e', 'a', 1, 1, '{}', '{}')";
            write.execute(effect, values![uuid::Uuid::now_v7()]).await?;
            idempotency::complete(&mut write, key, b"answer", 1000).await?;
            write.commit().await?;
            Ok((true, b"answer".to_vec()))
        }
        Claim::Done(answer) => Ok((false, answer)),
        other => panic!("{other:?}"),
    }
}

/// SHOP-603: of many identical requests at once, exactly one runs, and all get its answer.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_exactly_one_runs() {
    for store in stores(&[KIT]).await {
        let tasks: Vec<_> = (0..24)
            .map(|_| {
                let database = store.database.clone();
                tokio::spawn(async move { once(&database, "k", "h").await.unwrap() })
            })
            .collect();
        let mut ran = 0;
        for task in tasks {
            let (first, answer) = task.await.unwrap();
            assert_eq!(answer, b"answer");
            ran += i32::from(first);
        }
        assert_eq!(ran, 1);
        let rows = store
            .database
            .fetch("SELECT count(*) FROM events", &[])
            .await
            .unwrap();
        assert_eq!(rows[0].int(0).unwrap(), 1);
    }
}

/// DEC-22, SHOP-605: and what is known of keys is counted.
#[tokio::test]
async fn a_key_with_other_content_is_refused() {
    // Other tests of this process count as well.
    let counted = || {
        ["new", "done", "reused"]
            .map(|result| idempotency::claims().with_label_values(&[result]).get())
    };
    for store in stores(&[KIT]).await {
        let before = counted();
        once(&store.database, "k", "h").await.unwrap();
        once(&store.database, "k", "h").await.unwrap();
        let refusal = once(&store.database, "k", "other").await.unwrap_err();
        assert_eq!(refusal.reason(), "IDEMPOTENCY_KEY_REUSED");
        for (before, after) in before.into_iter().zip(counted()) {
            assert!(after > before);
        }
    }
}

/// SHOP-605.
#[tokio::test]
async fn permanent_refusals_are_kept_temporary_ones_are_not_and_crashed_claims_stay() {
    for store in stores(&[KIT]).await {
        let permanent = Refusal::new(Code::FailedPrecondition, "DECLINED", "no").with("a", 1);
        let temporary = Refusal::unavailable("away", std::time::Duration::from_secs(1));
        for (key, refusal, then) in [
            ("p", &permanent, Claim::Refused(permanent.clone())),
            ("t", &temporary, Claim::Ours),
        ] {
            let mut write = store.database.write().await.unwrap();
            assert_eq!(
                idempotency::claim(&mut write, key, "h", 0).await,
                Ok(Claim::Ours)
            );
            idempotency::refuse(&mut write, key, refusal, 0)
                .await
                .unwrap();
            assert_eq!(idempotency::claim(&mut write, key, "h", 1).await, Ok(then));
            write.commit().await.unwrap();
        }
        // "t" is claimed and was never answered: neither time nor the sweep lets anybody else have it.
        let later = idempotency::KEPT.as_millis() as i64 * 2;
        assert_eq!(idempotency::sweep(&store.database, later).await.unwrap(), 1);
        let mut write = store.database.write().await.unwrap();
        assert_eq!(
            idempotency::claim(&mut write, "t", "h", later).await,
            Ok(Claim::InProgress)
        );
        assert_eq!(
            idempotency::claim(&mut write, "p", "other", later).await,
            Ok(Claim::Ours)
        );
        assert!(permanent.to_rpc().encoded_len() > 0);
    }
}

/// All events, when there are as many: on PostgreSQL they are told when every older transaction of the server has ended,
/// also those of other tests.
async fn told(database: &Database, count: usize) -> events::Page {
    loop {
        let page = events::read(database, "", &[], 100).await.unwrap();
        if page.events.len() >= count {
            return page;
        }
        tokio::task::yield_now().await;
    }
}

/// SHOP-703: events of changes that were not made do not exist, and readers find each event once, in one order.
#[tokio::test]
async fn events_come_with_their_change_and_are_read_on_from_a_position() {
    for store in stores(&[KIT]).await {
        let event = |kind| Event {
            kind,
            aggregate_id: "1",
            version: 1,
            actor: "test",
        };
        for (kind, commit) in [
            ("a.x.v1", true),
            ("a.y.v1", false),
            ("b.x.v1", true),
            ("a.x.v2", true),
        ] {
            let mut write = store.database.write().await.unwrap();
            events::append(&mut write, event(kind), &json!({ "n": 1 }), 5)
                .await
                .unwrap();
            if commit {
                write.commit().await.unwrap();
            }
        }
        let all = told(&store.database, 3).await;
        let kinds: Vec<_> = all
            .events
            .iter()
            .map(|event| event["type"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, ["a.x.v1", "b.x.v1", "a.x.v2"]);
        assert_eq!(all.events[0]["payload"]["n"], 1);
        let first = events::read(&store.database, "", &[], 1).await.unwrap();
        let rest = events::read(&store.database, &first.next, &["a.x"], 100)
            .await
            .unwrap();
        assert_eq!(rest.events.len(), 1);
        assert_eq!(
            events::read(&store.database, &rest.next, &[], 9)
                .await
                .unwrap()
                .events
                .len(),
            0
        );
    }
}

/// What an earlier writer commits late is not passed over (PostgreSQL numbers rows before they are committed).
#[tokio::test]
async fn no_event_appears_behind_a_reader() {
    for store in stores(&[KIT]).await.into_iter().skip(1) {
        let event = |kind| Event {
            kind,
            aggregate_id: "1",
            version: 1,
            actor: "test",
        };
        let mut slow = store.database.write().await.unwrap();
        events::append(&mut slow, event("slow"), &json!({}), 5)
            .await
            .unwrap();
        let mut fast = store.database.write().await.unwrap();
        events::append(&mut fast, event("fast"), &json!({}), 5)
            .await
            .unwrap();
        fast.commit().await.unwrap();
        let before = events::read(&store.database, "", &[], 9).await.unwrap();
        slow.commit().await.unwrap();
        assert_eq!(told(&store.database, 2).await.events.len(), 2);
        let after = events::read(&store.database, &before.next, &[], 9)
            .await
            .unwrap();
        assert_eq!(before.events.len() + after.events.len(), 2);
    }
}
