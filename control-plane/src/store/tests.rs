//! What every kind of store does alike: the same suite for a file, for nothing at all, and for etcd.

use std::sync::Arc;
use std::time::Duration;

use super::*;

fn put(key: &str, value: &str, lease: Option<LeaseId>) -> Write {
    Write::Put {
        key: key.into(),
        value: value.into(),
        lease,
    }
}

pub(super) async fn value(store: &dyn Store, key: &str) -> Option<String> {
    let kept = store.one(key).await.expect("read");
    kept.map(|kept| kept.value.to_string())
}

/// Everything that the rooms above rely on.
pub(super) async fn conforms(store: &dyn Store) {
    transactions(store).await;
    watches(store).await;
    leases(store).await;
    many_at_once(store).await;
    large(store).await;
}

async fn transactions(store: &dyn Store) {
    let begun = store.range("").await.expect("read").revision;
    let first = store
        .commit(Transaction::put("a/1", "one"))
        .await
        .expect("written");
    assert_eq!((first.written, first.revision), (true, begun + 1));
    // All of the comparisons, or nothing of what is written.
    let refused = Transaction::put("a/2", "two")
        .when(Compare::At("a/1".into(), first.revision))
        .when(Compare::Present("a/9".into()));
    let refused = store.commit(refused).await.expect("answered");
    assert_eq!((refused.written, refused.revision), (false, begun + 1));
    assert_eq!(value(store, "a/2").await, None);
    let mut both = Transaction::put("a/1", "uno")
        .when(Compare::At("a/1".into(), first.revision))
        .when(Compare::Absent("a/2".into()));
    both.then.push(put("a/2", "due", None));
    let both = store.commit(both).await.expect("written");
    assert_eq!((both.written, both.revision), (true, begun + 2));
    let range = store.range("a/").await.expect("read");
    assert_eq!(range.revision, begun + 2);
    let of = |kept: &Kept| (kept.key.to_string(), kept.created, kept.revision);
    assert_eq!(
        range.kept.iter().map(of).collect::<Vec<_>>(),
        [
            ("a/1".to_owned(), begun + 1, begun + 2),
            ("a/2".to_owned(), begun + 2, begun + 2)
        ]
    );
    let gone = store
        .commit(Transaction::delete("a/1"))
        .await
        .expect("written");
    assert!(gone.written);
    assert_eq!(value(store, "a/1").await, None);
    assert_eq!(value(store, "a/2").await.as_deref(), Some("due"));
    let sum = (16 << 20) + 1;
    let large = store.commit(Transaction::put("a/3", "x".repeat(sum))).await;
    assert_eq!(large, Err(StoreError::TooLarge));
}

async fn watches(store: &dyn Store) {
    let from = store.range("").await.expect("read").revision;
    let mut early = store.watch("w/", from);
    let mut batch = Transaction::put("w/1", "one");
    batch.then.push(put("x/1", "elsewhere", None));
    batch.then.push(put("w/2", "two", None));
    store.commit(batch).await.expect("written");
    store
        .commit(Transaction::delete("w/1"))
        .await
        .expect("written");
    let event = |revision, key: &str, value: Option<&str>| Event {
        revision,
        key: key.into(),
        value: value.map(Arc::from),
    };
    let wanted = [
        event(from + 1, "w/1", Some("one")),
        event(from + 1, "w/2", Some("two")),
        event(from + 2, "w/1", None),
    ];
    let mut late = store.watch("w/", from);
    for watch in [&mut early, &mut late] {
        let mut events = Vec::new();
        while events.len() < wanted.len() {
            events.extend(watch.next().await.expect("events"));
        }
        assert_eq!(events, wanted);
    }
    if from > 0 {
        let forgotten = store.watch("w/", 0).next().await;
        assert!(!matches!(forgotten, Ok(events) if events.is_empty()));
    }
}

async fn leases(store: &dyn Store) {
    let hour = Duration::from_secs(3600);
    let kept = store.grant(hour).await.expect("granted");
    let short = store
        .grant(Duration::from_millis(50))
        .await
        .expect("granted");
    assert_ne!(kept, short);
    let with = |key: &str, lease| Transaction {
        when: Vec::new(),
        then: vec![put(key, "held", Some(lease))],
    };
    let from = store
        .commit(with("l/kept", kept))
        .await
        .expect("written")
        .revision;
    match store.commit(with("l/short", short)).await {
        Ok(_) => {
            let mut watch = store.watch("l/short", from);
            let mut gone = false;
            while !gone {
                let events = watch.next().await.expect("events");
                gone = events.iter().any(|event| event.value.is_none());
            }
        }
        // It took so long that the lease was over.
        Err(error) => assert_eq!(error, StoreError::NoLease),
    }
    assert_eq!(store.keep_alive(short).await, Err(StoreError::NoLease));
    assert_eq!(store.keep_alive(kept).await, Ok(()));
    assert_eq!(
        store.commit(with("l/short", short)).await,
        Err(StoreError::NoLease)
    );
    assert_eq!(value(store, "l/kept").await.as_deref(), Some("held"));
    assert_eq!(store.revoke(kept).await, Ok(()));
    assert_eq!(value(store, "l/kept").await, None);
    assert_eq!(store.revoke(kept).await, Err(StoreError::NoLease));
}

async fn many_at_once(store: &dyn Store) {
    let begun = store.range("").await.expect("read").revision;
    let before = store.figures();
    let answers: Vec<_> = { 0..500 }
        .map(|number| store.commit(Transaction::put(format!("m/{number:03}"), "x")))
        .collect();
    for (number, answer) in answers.into_iter().enumerate() {
        let committed = answer.await.expect("written");
        assert_eq!(committed.revision, begun + 1 + number as u64);
    }
    let after = store.figures();
    assert_eq!(after.transactions - before.transactions, 500);
    assert!(after.syncs - before.syncs < 250, "{after:?}");
    assert_eq!(store.range("m/").await.expect("read").kept.len(), 500);
}

/// More than a cluster takes at once: whole all the same.
async fn large(store: &dyn Store) {
    let from = store.range("").await.expect("read").revision;
    let mut watch = store.watch("big/", from);
    let text = "0123456789".repeat(200);
    let then = (0..5000).map(|number| put(&format!("big/{number}"), &text, None));
    let large = Transaction {
        when: Vec::new(),
        then: then.collect(),
    };
    let committed = store.commit(large).await.expect("written");
    assert_eq!(committed.revision, from + 1);
    let events = watch.next().await.expect("events");
    assert_eq!(events.len(), 5000);
    assert_eq!(store.range("big/").await.expect("read").kept.len(), 5000);
}

pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(test);
}

#[test]
fn a_store_in_memory_conforms() {
    run(conforms(&Embedded::in_memory()));
}

#[test]
fn a_store_in_a_file_conforms_and_does_again_after_it_was_opened_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    for _ in 0..2 {
        run(conforms(&Embedded::open(folder.path()).expect("opened")));
        run(async {
            let store = Embedded::open(folder.path()).expect("opened");
            let all = store.range("").await.expect("read");
            let ours = |kept: &&Kept| !kept.key.starts_with("l/");
            let then = all.kept.iter().filter(ours);
            let all = Transaction {
                when: Vec::new(),
                then: then.map(|kept| Write::Delete(kept.key.clone())).collect(),
            };
            store.commit(all).await.expect("written");
        });
    }
}
