//! What a gateway tells a control plane of what it saw: instances that fail, and what it served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tollgate_config::feed::{Kind, Tally};
use tollgate_engine::testing::control_plane::{ControlPlane, Journal, Setup, answering, block};
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::upstream::Upstream;

use super::asking;

const UPSTREAM: &str =
    "[[upstream]]\nname = \"orders\"\nservice = \"orders\"\noutlier = \"off\"\nbreaker = \"off\"\n";
const ROUTE: &str = "[[route]]\nname = \"orders\"\nmatch = { path = \"/*\" }\nupstream = \"orders\"\ntimeout = \"60s\"\n";

#[test]
fn reg_304_an_instance_that_fails_is_told_once_and_so_is_its_recovery() {
    let bad = Arc::new(AtomicBool::new(true));
    let is_bad = bad.clone();
    let upstream = Upstream::http1(move |conn| {
        while let Some(_request) = conn.read_request() {
            let status = match is_bad.load(Ordering::SeqCst) {
                true => "503 Service Unavailable",
                false => "200 OK",
            };
            conn.respond(status, &[], "");
        }
    });
    let control = ControlPlane::start();
    control.service("orders", &[(upstream.address(), 1)]);
    control.change(
        [
            block(Kind::Upstream, "orders", 1, UPSTREAM),
            block(Kind::Route, "orders", 10, ROUTE),
        ],
        &[],
    );
    let gateway = Gateway::start(&asking(&[control.url()], None));
    control.outcome(1);
    let mut client = gateway.client();
    let mut asked = 0;
    let mut ask_until = |what: &str, wanted: &dyn Fn(&Journal) -> bool| {
        let began = std::time::Instant::now();
        while !wanted(&control.journal()) {
            client.get("/");
            asked += 1;
            assert!(
                began.elapsed() < tollgate_engine::testing::PATIENCE,
                "{what}"
            );
        }
        asked
    };
    ask_until("the failures", &|journal| !journal.observed.is_empty());
    let failing = control.journal().observed[0].clone();
    assert_eq!(failing.service, "orders");
    assert_eq!(failing.address, upstream.address().to_string());
    assert!(
        failing.failures >= 3 && failing.successes == 0,
        "{failing:?}"
    );
    bad.store(false, Ordering::SeqCst);
    let asked = ask_until("the recovery", &|journal| {
        journal
            .observed
            .last()
            .is_some_and(|last| last.failures == 0)
    });
    let observed = control.journal().observed;
    assert_eq!(observed.len(), 2, "of {asked} requests: {observed:?}");
    assert!(observed[1].successes > 0);
}

#[test]
fn cp_102_what_is_served_is_told_once_and_with_the_revision_that_served_it() {
    let control = ControlPlane::with(Setup {
        figures: Some(Duration::from_millis(50)),
        ..Setup::default()
    });
    let gone = Upstream::nobody();
    let broken =
        format!("[[upstream]]\nname = \"gone\"\nendpoints = [\"{gone}\"]\nbreaker = \"off\"\n");
    let route = "[[route]]\nname = \"gone\"\nmatch = { path = \"/gone\" }\nupstream = \"gone\"\n";
    control.change(
        [
            answering("a", "/a", "one"),
            block(Kind::Upstream, "gone", 1, &broken),
            block(Kind::Route, "gone", 10, route),
        ],
        &[],
    );
    let gateway = Gateway::start(&asking(&[control.url()], None));
    control.outcome(1);
    let mut client = gateway.client();
    (0..30).for_each(|_| assert_eq!(client.get("/a").status, 200));
    (0..5).for_each(|_| assert!(client.get("/gone").status >= 500));
    assert_eq!(client.get("/nothing").status, 404);
    control.change([answering("a", "/a", "two")], &[]);
    control.outcome(2);
    (0..7).for_each(|_| assert_eq!(client.get("/a").status, 200));
    let of = |journal: &Journal, revision: u64| {
        let mut sum = Tally::default();
        let figures = journal.figures.iter();
        { figures.clone() }
            .filter(|one| one.revision == revision)
            .for_each(|one| sum.add(&one.total));
        sum
    };
    let journal = control.wait("all figures", |journal| {
        of(journal, 1).requests + of(journal, 2).requests >= 43
    });
    let (first, second) = (of(&journal, 1), of(&journal, 2));
    assert_eq!((first.requests, first.errors, first.refused), (36, 5, 1));
    assert_eq!((second.requests, second.errors, second.refused), (7, 0, 0));
    assert_eq!(first.latency.iter().sum::<u64>(), 36);
    let named = |route: &str| -> u64 {
        let all = journal
            .figures
            .iter()
            .filter_map(|one| one.routes.get(route));
        all.map(|tally| tally.requests).sum()
    };
    assert_eq!((named("a"), named("gone"), named("none")), (37, 5, 1));
    let refused = journal
        .figures
        .iter()
        .filter_map(|one| one.refused.get("no_route"));
    assert_eq!(refused.sum::<u64>(), 1);
    for figures in &journal.figures {
        assert_eq!(figures.check(), Ok(()));
        assert!(figures.upstreams.keys().all(|name| name == "gone"));
    }
}
