//! The store against real etcd servers: what every store does, who leads, who may write, and what is read when nobody
//! can write. Waits are for answers and roles, never for a time.

mod secured;
#[path = "../../../../tests/support/etcd.rs"]
mod servers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use servers::{Servers, missing};
use tollgate_config::control_plane::Etcd as Settings;

use super::super::tests::{conforms, run, value};
use super::Etcd;
use super::link::{Connection, Credentials};
use super::wire::kv_client::KvClient;
use super::wire::{CompactionRequest, DeleteRangeRequest, RangeRequest, revision};
use crate::store::{Compare, Role, Store, StoreError, Transaction};

const PATIENCE: Duration = Duration::from_secs(60);

fn settings(servers: &Servers) -> Settings {
    Settings {
        endpoints: servers.urls(),
        prefix: "t".to_owned(),
        user: None,
        tls: None,
        lease: Duration::from_secs(5),
        node: None,
        advertise: None,
        peers: None,
    }
}

fn open(settings: &Settings, node: &str) -> Etcd {
    let url = format!("http://{node}");
    Etcd::open(settings, node, &url).unwrap_or_else(|error| panic!("{error}"))
}

/// Somebody else in the same cluster.
async fn client(servers: &Servers) -> KvClient<Connection> {
    let credentials = Credentials::read(&settings(servers)).expect("read");
    let url = &servers.urls()[0];
    KvClient::new(credentials.open(url, PATIENCE).await.expect("connected"))
}

#[track_caller]
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn leads(store: &Etcd) -> bool {
    let cluster = store.cluster().expect("a cluster");
    cluster.leads() && matches!(cluster.role(), Role::Leads(_))
}

fn term(store: &Etcd) -> Option<u64> {
    match store.cluster()?.role() {
        Role::Leads(term) => Some(term),
        Role::Follows(_) => None,
    }
}

fn put(store: &Etcd, key: &str, text: &str) -> Result<u64, StoreError> {
    let mut answer = None;
    run(async {
        answer = Some(store.commit(Transaction::put(key, text)).await);
    });
    answer
        .expect("answered")
        .map(|committed| committed.revision)
}

fn read(store: &Etcd, key: &str) -> Option<String> {
    let mut found = None;
    run(async {
        found = value(store, key).await;
    });
    found
}

#[test]
fn a_store_in_etcd_conforms_and_another_process_has_the_same() {
    if missing() {
        return;
    }
    let servers = Servers::start(1);
    let mut settings = settings(&servers);
    // Nothing is about leases here, and there is much to write.
    settings.lease = Duration::from_secs(30);
    let one = open(&settings, "one");
    until("one to lead", || leads(&one));
    let two = open(&settings, "two");
    run(conforms(&one));
    assert_eq!(one.epoch(), two.epoch());
    // Everything, with the same revisions, the pieces of what was large included.
    run(async {
        let here = one.range("").await.expect("read");
        until("two to follow", || two.figures().revision == here.revision);
        assert_eq!(two.range("").await.expect("read"), here);
        // And whoever comes later, from the base.
        until("a base", || one.figures().compactions > 0);
        let three = open(&settings, "three");
        assert_eq!(three.range("").await.expect("read"), here);
        assert_eq!(three.epoch(), one.epoch());
    });
    assert_eq!(put(&two, "k", "v"), Err(StoreError::NotLeader));
    let leader = two
        .cluster()
        .and_then(|cluster| cluster.leader())
        .expect("known");
    assert_eq!((&*leader.node, &*leader.url), ("one", "http://one"));
}

#[test]
fn who_goes_gives_the_lease_back_and_another_leads_at_once_with_all_there_was() {
    if missing() {
        return;
    }
    let servers = Servers::start(1);
    let settings = settings(&servers);
    let one = open(&settings, "one");
    until("one to lead", || leads(&one));
    let two = open(&settings, "two");
    let revision = put(&one, "k", "v").expect("written");
    let first = term(&one).expect("a term");
    let names = |store: &Etcd| -> Vec<String> {
        let members = store.cluster().expect("a cluster").members();
        members
            .iter()
            .map(|member| member.node.to_string())
            .collect()
    };
    until("both to be known", || names(&two) == ["one", "two"]);
    drop(one);
    until("two to lead", || leads(&two));
    assert!(term(&two) > Some(first), "terms rise");
    assert_eq!(read(&two, "k").as_deref(), Some("v"));
    assert_eq!(put(&two, "k", "w"), Ok(revision + 1));
    until("one to be forgotten", || names(&two) == ["two"]);
}

#[test]
fn one_of_three_servers_is_not_missed_and_without_a_majority_nothing_is_written_but_all_is_read() {
    if missing() {
        return;
    }
    let mut servers = Servers::start(3);
    let settings = settings(&servers);
    let one = open(&settings, "one");
    until("one to lead", || leads(&one));
    let two = open(&settings, "two");
    let mut last = put(&one, "k", "0").expect("written");
    for number in 0..3 {
        // The one that both are connected to is among them, and the one that leads the cluster.
        servers.kill(number);
        let text = format!("{number}");
        until("a write without one of three", || {
            match put(&one, "k", &text) {
                Ok(revision) => {
                    assert_eq!(revision, last + 1, "what is refused is not written");
                    last = revision;
                    true
                }
                Err(StoreError::Unsure(_)) => {
                    // Whether it was is known once somebody leads.
                    until("a leader", || leads(&one) || leads(&two));
                    last = [one.figures().revision, two.figures().revision]
                        .into_iter()
                        .max()
                        .expect("two");
                    false
                }
                Err(_) => leads(&two),
            }
        });
        if leads(&two) {
            return;
        }
        servers.run(number);
        servers.wait_for(number);
    }
    until("two to follow", || read(&two, "k").as_deref() == Some("2"));
    servers.kill(0);
    servers.kill(1);
    // First nobody knows, then nobody leads.
    until("no leader", || {
        !leads(&one) && put(&one, "k", "lost") == Err(StoreError::NotLeader)
    });
    assert!(!leads(&two));
    assert_eq!(put(&two, "k", "lost"), Err(StoreError::NotLeader));
    for store in [&one, &two] {
        assert_eq!(read(store, "k").as_deref(), Some("2"));
        assert!(store.figures().failing);
    }
    servers.run(0);
    servers.run(1);
    until("a leader", || leads(&one) || leads(&two));
    let leader = if leads(&one) { &one } else { &two };
    put(leader, "k", "again").expect("written");
    for store in [&one, &two] {
        until("all to follow", || {
            read(store, "k").as_deref() == Some("again")
        });
    }
}

#[test]
fn a_leader_whose_cluster_is_stopped_stops_by_itself_and_cannot_write_what_it_could_not() {
    if missing() {
        return;
    }
    let servers = Servers::start(1);
    let settings = settings(&servers);
    let one = open(&settings, "one");
    until("one to lead", || leads(&one));
    put(&one, "k", "before").expect("written");
    servers.signal(0, Signal::STOP);
    // Sent, and never answered.
    let lost = put(&one, "k", "unknown");
    assert!(matches!(lost, Err(StoreError::Unsure(_))), "{lost:?}");
    assert!(!leads(&one));
    assert_eq!(put(&one, "k", "refused"), Err(StoreError::NotLeader));
    assert_eq!(read(&one, "k").as_deref(), Some("before"));
    servers.signal(0, Signal::CONT);
    until("one to lead again", || leads(&one));
    // What was not known is either there for good or not at all, and what was refused is not.
    let found = read(&one, "k").expect("there");
    assert!(found == "before" || found == "unknown", "{found}");
    put(&one, "k", "after").expect("written");
    assert_eq!(read(&one, "k").as_deref(), Some("after"));
}

#[test]
fn whoever_deletes_the_leaders_key_ends_its_term_and_its_writes_are_fenced() {
    if missing() {
        return;
    }
    let servers = Servers::start(1);
    let settings = settings(&servers);
    let one = Arc::new(open(&settings, "one"));
    until("one to lead", || leads(&one));
    let two = open(&settings, "two");
    let first = term(&one).expect("a term");
    // Many writers, while the key goes again and again: every number that was answered is there, in its place.
    let writing: Vec<_> = { 0..4 }
        .map(|writer| {
            let store = one.clone();
            std::thread::spawn(move || {
                let mut written = Vec::new();
                for number in 0..200 {
                    let key = format!("f/{writer}/{number}");
                    match put(&store, &key, "x") {
                        Ok(revision) => written.push((key, revision)),
                        Err(StoreError::NotWritten(_) | StoreError::NotLeader) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                written
            })
        })
        .collect();
    run(async {
        let mut client = client(&servers).await;
        let mut last = Some(first);
        for _ in 0..5 {
            let leader = DeleteRangeRequest {
                key: "t/leader".into(),
                ..DeleteRangeRequest::default()
            };
            client.delete_range(leader).await.expect("deleted");
            until("another term", || term(&one).max(term(&two)) > last);
            last = term(&one).max(term(&two));
        }
    });
    let leader = if term(&one) > term(&two) { &*one } else { &two };
    for thread in writing {
        for (key, revision) in thread.join().expect("a writer") {
            run(async {
                let kept = leader
                    .one(&key)
                    .await
                    .expect("read")
                    .expect("it was answered");
                assert_eq!((kept.created, kept.revision), (revision, revision), "{key}");
            });
        }
    }
}

#[test]
fn a_compaction_of_etcd_and_a_long_absence_are_caught_up_with() {
    if missing() {
        return;
    }
    let servers = Servers::start(1);
    let mut settings = settings(&servers);
    let one = open(&settings, "one");
    until("one to lead", || leads(&one));
    settings.lease = Duration::from_secs(60);
    let two = open(&settings, "two");
    let mut watch = two.watch("", two.figures().revision);
    let text = "x".repeat(100_000);
    for number in 0..60 {
        put(&one, &format!("c/{}", number % 3), &text).expect("written");
    }
    until("a base", || one.figures().compactions > 0);
    run(async {
        let mut client = client(&servers).await;
        let head = RangeRequest {
            key: "t/head".into(),
            ..RangeRequest::default()
        };
        let now = client.range(head).await.expect("read").into_inner();
        let revision = revision(now.header.as_ref());
        let compaction = CompactionRequest { revision };
        client.compact(compaction).await.expect("compacted");
    });
    servers.signal(0, Signal::STOP);
    servers.signal(0, Signal::CONT);
    put(&one, "c/last", "1").expect("written");
    until("two to follow", || read(&two, "c/last").is_some());
    run(async {
        assert_eq!(
            two.range("").await.expect("read"),
            one.range("").await.expect("read")
        );
        let told = watch.next().await;
        assert!(
            matches!(told, Ok(_) | Err(StoreError::Compacted(_))),
            "{told:?}"
        );
    });
    let refused = put(&one, "k", "v").map(drop);
    assert_eq!(refused, Ok(()));
    run(async {
        let stale = Transaction::put("k", "w").when(Compare::Absent("k".into()));
        assert!(!one.commit(stale).await.expect("answered").written);
    });
}
