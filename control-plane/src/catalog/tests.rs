//! What a control plane makes of a store whose newest revision it refuses, and how that is put right.

use http_body_util::BodyExt as _;
use tollgate_config::control_plane::ControlPlane;
use tollgate_config::feed::{Have, Line, NodeKind, Put, Routed, Subscribe, Wanted};

use super::history::Revision;
use super::*;
use crate::audit::Audit;
use crate::feed::{Feed, HangUp, Lines};
use crate::keeper::Keeper;
use crate::store::Embedded;

fn route(name: &str, body: &str) -> String {
    format!(
        "[[route]]\nname = \"{name}\"\nmatch = {{ path = \"/{name}\" }}\nrespond = {{ status = 200, body = \"{body}\" }}\n"
    )
}

fn request(name: &str, text: Option<String>) -> Request {
    Request {
        wish: Wish::Documents(BTreeMap::from([(name.to_owned(), text)])),
        origin: Origin::Api,
        if_revision: None,
        by: "test".to_owned(),
        note: String::new(),
        files: BTreeMap::new(),
        plan: None,
        ends: None,
    }
}

fn settings() -> Settings {
    Settings {
        folder: None,
        revisions: 50,
        max_change: 1 << 20,
    }
}

/// A store whose third revision another version of the program accepted: block `bad.toml#route:later` is none that
/// this one can read.
async fn store_of_another_version() -> Arc<dyn Store> {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory());
    let catalog = Catalog::start(store.clone(), settings(), Rollout::default())
        .await
        .expect("started");
    let first = request("a.toml", Some(route("one", "x")));
    assert_eq!(catalog.apply(first).await.expect("taken").revision, 1);
    let second = request("bad.toml", Some(route("two", "x")));
    assert_eq!(catalog.apply(second).await.expect("taken").revision, 2);
    let block = Put {
        id: "bad.toml#route:later".to_owned(),
        kind: tollgate_config::feed::Kind::Route,
        file: "bad.toml".to_owned(),
        line: 5,
        text: "[[route]]\nname = \"later\"\nmatch = { path = \"/later\" }\nteleport = true\n"
            .to_owned(),
        uses: Vec::new(),
    };
    let revision = Revision {
        number: 3,
        time: 0,
        by: "another".to_owned(),
        note: String::new(),
        origin: Origin::Api,
        changes: vec![Change {
            id: block.id.as_str().into(),
            before: None,
            after: Some(Arc::new(Block::new(block.clone()))),
        }],
    };
    let head = r#"{"revision": 3, "files": {}}"#;
    let mut transaction = Transaction::put(HEAD, head);
    for (key, value) in [
        (
            format!("{BLOCKS}{}", block.id),
            serde_json::to_string(&block).expect("JSON"),
        ),
        (format!("{REVISIONS}{:020}", 3), revision.write()),
    ] {
        transaction.then.push(Write::Put {
            key: key.into(),
            value: value.into(),
            lease: None,
        });
    }
    assert!(store.commit(transaction).await.expect("written").written);
    store
}

fn ids(world: &World) -> Vec<&str> {
    world.blocks.iter().map(|block| &*block.id).collect()
}

#[tokio::test]
async fn it_starts_serves_the_newest_that_it_accepts_and_says_what_is_wrong() {
    let store = store_of_another_version().await;
    let catalog = Catalog::start(store, settings(), Rollout::default())
        .await
        .expect("started");
    let now = catalog.now();
    assert_eq!(ids(&now), ["a.toml#route:one", "bad.toml#route:two"]);
    // Under the newest number, which is no lie: it is marked.
    assert_eq!(now.revision, 3);
    assert!(catalog.is_stale(&now));
    let (revision, why) = catalog.store_refused().expect("refused");
    assert_eq!(revision, 3);
    assert!(
        why.problems.to_string().contains("teleport"),
        "{}",
        why.problems
    );
    assert_eq!(catalog.history().newest(), 3);
}

#[tokio::test]
async fn a_document_that_is_put_right_is_the_next_revision_and_nothing_else_of_the_store_is_lost() {
    let store = store_of_another_version().await;
    let catalog = Catalog::start(store.clone(), settings(), Rollout::default())
        .await
        .expect("started");
    // As long as it is wrong, nothing else can be changed: the whole would be refused.
    let other = catalog
        .apply(request("a.toml", Some(route("one", "y"))))
        .await;
    assert!(matches!(other, Err(Refused::Problems(_))), "{other:?}");
    let right = request("bad.toml", Some(route("two", "z")));
    let applied = catalog.apply(right).await.expect("taken");
    assert_eq!(applied.revision, 4);
    let now = catalog.now();
    assert_eq!(ids(&now), ["a.toml#route:one", "bad.toml#route:two"]);
    assert!(!catalog.is_stale(&now) && catalog.store_refused().is_none());
    // The block that was refused is gone from the store, too: the next start refuses nothing.
    let again = Catalog::start(store, settings(), Rollout::default())
        .await
        .expect("started");
    assert_eq!(ids(&again.now()), ids(&now));
    assert!(again.store_refused().is_none());
}

#[tokio::test]
async fn a_rollback_puts_it_right_as_well() {
    let store = store_of_another_version().await;
    let catalog = Catalog::start(store, settings(), Rollout::default())
        .await
        .expect("started");
    let mut back = request("a.toml", None);
    back.wish = Wish::Rollback(2);
    assert_eq!(catalog.apply(back).await.expect("taken").revision, 4);
    assert!(catalog.store_refused().is_none());
}

#[tokio::test]
async fn a_follower_takes_over_what_it_accepts_and_stays_behind_what_it_refuses() {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory());
    let leader = Catalog::start(store.clone(), settings(), Rollout::default())
        .await
        .expect("started");
    let follower = Catalog::start(store.clone(), settings(), Rollout::default())
        .await
        .expect("started");
    let following = tokio::spawn(follower.clone().follow());
    let mut worlds = follower.changes();
    for body in ["x", "y"] {
        let one = request("a.toml", Some(route("one", body)));
        leader.apply(one).await.expect("taken");
        worlds.changed().await.expect("it lives");
    }
    let (here, there) = (leader.now(), follower.now());
    assert_eq!((here.revision, ids(&here)), (there.revision, ids(&there)));
    assert_eq!(here.blocks[0].text, there.blocks[0].text);
    assert_eq!(leader.history().newest(), follower.history().newest());
    assert!(
        follower.former(1).is_some(),
        "differences to it can be told"
    );
    // A precondition of the store holds for whoever knows everything, and only for them.
    let one = request("b.toml", Some(route("two", "x")));
    assert_eq!(follower.apply(one).await.expect("taken").revision, 3);
    let stale = request("c.toml", Some(route("three", "x")));
    assert!(matches!(
        leader.apply(stale).await,
        Err(Refused::Conflict(_))
    ));
    following.abort();
}

#[tokio::test]
async fn a_follower_tells_each_node_what_the_one_that_leads_would_tell_it() {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory());
    let catalog = || Catalog::start(store.clone(), settings(), Rollout::default());
    let leader = catalog().await.expect("started");
    let follower = catalog().await.expect("started");
    let following = tokio::spawn(follower.clone().follow());
    let mut stagings = follower.stagings();
    let seen = |node: &str| follower.world_of(node, false).revision;
    let staged = |body: &str| {
        let mut request = request("a.toml", Some(route("one", body)));
        let stages = tollgate_config::control_plane::Stage::list("1, all").expect("good");
        let settings = Rollout {
            stages,
            ..Rollout::default()
        };
        request.plan = Some(Plan {
            settings,
            first: Vec::new(),
        });
        request
    };
    let first = request("a.toml", Some(route("one", "x")));
    leader.apply(first).await.expect("taken");
    // Begins, and one is chosen.
    leader.apply(staged("y")).await.expect("taken");
    stagings.changed().await.expect("it lives");
    let mut worlds = follower.changes();
    worlds
        .wait_for(|now| now.revision == 2)
        .await
        .expect("it lives");
    assert_eq!((seen("a"), seen("b")), (1, 1));
    let mut record = leader.staging().expect("one").record.clone();
    record.chosen.insert("a".to_owned());
    leader.save(record.clone()).await.expect("written");
    stagings.changed().await.expect("it lives");
    assert_eq!((seen("a"), seen("b")), (2, 1));
    // Another process that begins now knows the same, and one that was overtaken writes nothing.
    let late = catalog().await.expect("started");
    assert_eq!(late.world_of("b", false).revision, 1);
    late.save(record.clone()).await.expect("written");
    assert!(leader.save(record.clone()).await.is_err());
    assert!(leader.finish(record.clone()).await.is_err());
    // Ends.
    record.ended = Some(crate::rollout::Ended {
        time: 0,
        how: crate::rollout::How::Done,
        why: String::new(),
        returned_as: None,
    });
    late.finish(record).await.expect("written");
    stagings.wait_for(Option::is_none).await.expect("it lives");
    assert_eq!((seen("a"), seen("b")), (2, 2));
    assert!(follower.ended(2).is_some());
    following.abort();
}

/// One who listens.
struct Ear(Lines, String);

impl Ear {
    fn open(feed: &Arc<Feed>, node: &str, have: Option<(&str, u64)>) -> Ear {
        let subscribe = Subscribe {
            node: node.to_owned(),
            kind: NodeKind::Gateway,
            instance: "i".to_owned(),
            version: "1".to_owned(),
            have: have.map(|(epoch, revision)| Have {
                epoch: epoch.to_owned(),
                revision,
            }),
            services: Wanted::Routed(Routed::Routed),
            also: Vec::new(),
            listeners: vec!["in".to_owned()],
            callee: None,
            stands_for: None,
            trust: false,
            answers: false,
        };
        let lines = feed.open(&subscribe, "127.0.0.1", HangUp::default());
        Ear(lines.expect("opened"), String::new())
    }

    async fn next(&mut self) -> Line {
        loop {
            if let Some((line, rest)) = self.1.split_once('\n') {
                let line = Line::read(line.as_bytes()).expect("a line");
                self.1 = rest.to_owned();
                return line;
            }
            let frame = self.0.frame().await.expect("it goes on").expect("bytes");
            let bytes = frame.into_data().expect("bytes");
            self.1 += std::str::from_utf8(&bytes).expect("text");
        }
    }

    async fn epoch(&mut self) -> String {
        match self.next().await {
            Line::Hello(hello) => hello.epoch,
            other => panic!("{other:?}"),
        }
    }

    /// The next batch: whether it is full, the ids in it, and its revision.
    async fn batch(&mut self) -> (bool, Vec<String>, u64) {
        let mut full = false;
        let mut ids = Vec::new();
        loop {
            match self.next().await {
                Line::Begin(begin) => full = begin.full,
                Line::Put(put) => ids.push(put.id),
                Line::End(end) => return (full, ids, end.revision),
                Line::Beat(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn nodes_that_have_what_is_refused_keep_it_and_others_are_told_what_is_accepted() {
    let store = store_of_another_version().await;
    let catalog = Catalog::start(store.clone(), settings(), Rollout::default())
        .await
        .expect("started");
    let document = ControlPlane::default();
    let audit = Arc::new(Audit::start(None, document.audit.clone()).expect("started"));
    let rules = crate::registry::Rules::default();
    let (keeper, _tasks) = Keeper::start(store, audit, rules).await.expect("started");
    let mut told = document.feed;
    told.beat = std::time::Duration::from_millis(40);
    let (feed, _feeding) = Feed::start(
        catalog.clone(),
        keeper,
        tokio::sync::watch::Sender::new(None).subscribe(),
        told,
        "cp".to_owned(),
    );
    let mut fresh = Ear::open(&feed, "fresh", None);
    let older = fresh.epoch().await;
    let both = ["a.toml#route:one", "bad.toml#route:two"].map(str::to_owned);
    assert_eq!(fresh.batch().await, (true, both.to_vec(), 3));
    // Told by another control plane, which could tell it.
    let epoch = older.strip_suffix("-older").expect("marked");
    let mut has = Ear::open(&feed, "has", Some((epoch, 3)));
    assert_eq!(has.epoch().await, epoch);
    assert!(
        matches!(has.next().await, Line::Beat(beat) if beat.revision == 3),
        "it keeps what it has"
    );
    // Who was told the older one here goes on from there, and is never taken for one who has the other.
    let mut again = Ear::open(&feed, "again", Some((&older, 3)));
    assert_eq!(again.epoch().await, older);
    assert!(matches!(again.next().await, Line::Beat(_)));
    let right = request("bad.toml", Some(route("two", "z")));
    catalog.apply(right).await.expect("taken");
    assert_eq!(fresh.batch().await, (false, both[1..].to_vec(), 4));
    assert_eq!(
        has.batch().await,
        (true, both.to_vec(), 4),
        "whatever it had"
    );
}
