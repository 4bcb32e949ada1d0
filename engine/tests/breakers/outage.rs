//! From fault to return, with everything on.

use tollgate_engine::testing::gateway::{Gateway, document};

use super::*;

/// Nothing near a storm ever reaches the upstream.
#[test]
fn hi_49_an_outage_and_the_return_load_the_upstream_by_no_more_than_the_demand() {
    const CLIENTS: usize = 4;
    const EACH: usize = 50;
    let (upstream, state) = moody(CLOSING);
    let keys = breaker("open_for = \"300ms\"");
    let gateway = Arc::new(Gateway::start(&document(upstream.address(), "", "", &keys)));
    let demand = |wanted: fn(u16) -> bool| {
        let threads: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let gateway = gateway.clone();
                std::thread::spawn(move || {
                    let answers = (0..EACH).map(|_| gateway.get("/").status);
                    answers.filter(|status| wanted(*status)).count()
                })
            })
            .collect();
        let counts = threads.into_iter().map(|thread| thread.join());
        counts.map(|count| count.expect("no panic")).sum::<usize>()
    };
    let refused = demand(|status| status >= 500);
    assert_eq!(refused, CLIENTS * EACH, "the upstream is away");
    let during = upstream.requests().len();
    assert!(during <= CLIENTS * EACH * 12 / 10, "{during} tries");
    assert_eq!(
        of_app(&gateway)["trips"].as_u64().map(|n| n > 0),
        Some(true)
    );

    state.set(WELL);
    wait(&gateway, "half-open", |it| it["state"] != "open");
    let before = upstream.requests().len();
    let served = demand(|status| status == 200);
    let after = upstream.requests().len() - before;
    assert!(after <= CLIENTS * EACH * 12 / 10, "{after} tries");
    assert!(served > 0);
    assert_eq!(of_app(&gateway)["state"], "closed");
    assert!(after >= served);
}
