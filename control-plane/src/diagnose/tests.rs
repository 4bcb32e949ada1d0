use std::time::Duration;

use super::*;
use crate::registry::{Cause, Health, Metadata, Record, Seen, State};

const MS: Duration = Duration::from_millis(1);

fn detail(id: &str, metadata: &[(&str, &str)]) -> Detail {
    let metadata: Metadata = { metadata.iter() }
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    Detail {
        seen: Seen {
            record: Arc::new(Record {
                id: id.into(),
                name: "orders".into(),
                address: format!("10.0.0.7:{}", 7000 + id.len()).into(),
                health: Health::Healthy,
                health_endpoint: "/health/ready".to_owned(),
                metadata,
                registered_at: 0,
            }),
            state: State::Active,
            last_seen: 0,
        },
        since: Duration::ZERO,
        age: Duration::ZERO,
        cause: Cause::Heartbeat,
        held: false,
        shown: true,
        last_probe: None,
        failed_probes: 0,
        observers: (0, 0),
    }
}

fn good() -> Test {
    Test {
        connected: Ok(MS),
        probed: Some(Ok((200, MS * 2))),
    }
}

/// The facts of instances that were found like this; lookups find those that are shown.
fn facts<'f>(rules: &'f Rules, found: Vec<(Detail, Test)>) -> Facts<'f> {
    let (details, tests): (Vec<Detail>, Vec<Test>) = found.into_iter().unzip();
    let ids: Vec<_> = { details.iter() }
        .map(|detail| detail.seen.record.id.clone())
        .collect();
    let shown = details.iter().filter(|detail| detail.shown);
    Facts {
        service: "orders",
        time: 0,
        rules,
        resolved: shown.map(|detail| detail.seen.record.id.clone()).collect(),
        details,
        tests: ids.into_iter().zip(tests).collect(),
        upstreams: Vec::new(),
        nodes: 1,
        others: Vec::new(),
    }
}

#[track_caller]
fn says(facts: &Facts<'_>, setting: Option<&str>, parts: &[&str]) -> Report {
    let report = report(facts);
    assert!(!report.well);
    let fits = |advice: &&Advice| {
        advice.setting == setting && parts.iter().all(|part| advice.text.contains(part))
    };
    let found = report.recommendations.iter().find(fits);
    assert!(found.is_some(), "{:#?}", report.recommendations);
    report
}

#[test]
fn a_service_that_is_well_gets_no_advice() {
    let rules = Rules::default();
    let report = report(&facts(&rules, vec![(detail("a", &[]), good())]));
    assert!(report.well, "{report:#?}");
    assert_eq!(report.registration.status, "registered");
    assert_eq!(report.health_checks.status, "passing");
    assert_eq!(report.resolution.status, "successful");
    assert_eq!(report.instances[0].response_ms, Some(2.0));
    assert_eq!(report.reachability[0].response_ms, Some(1.0));
}

#[test]
fn cp_302_a_service_that_is_missing_is_told_with_names_that_look_like_it() {
    let rules = Rules::default();
    let mut facts = facts(&rules, Vec::new());
    facts.others = vec!["users".into(), "order".into()];
    let report = says(
        &facts,
        Some("control_plane.register"),
        &["registered are order, users"],
    );
    assert_eq!(report.registration.status, "missing");
    assert_eq!(report.resolution.status, "no_instances");
    assert_eq!(report.health_checks.status, "not_tested");
}

#[test]
fn cp_302_each_way_to_be_in_trouble_has_its_own_words() {
    let rules = Rules::default();
    let one = |detail: Detail, test: Test| facts(&rules, vec![(detail, test)]);
    let connected = |probed| Test {
        connected: Ok(MS),
        probed: Some(probed),
    };
    let failed = |why| Test {
        connected: Err(why),
        probed: None,
    };
    let plain = || detail("a", &[]);

    let report = says(
        &one(plain(), failed(Why::Refused)),
        None,
        &["refuses connections", "10.0.0.7:7001"],
    );
    assert_eq!(
        (
            report.health_checks.status,
            report.reachability[0].reachable
        ),
        ("failing", false)
    );
    let report = says(&one(plain(), failed(Why::TimedOut)), None, &["firewall"]);
    assert_eq!(
        (report.health_checks.status, report.instances[0].status),
        ("timeout", "timeout")
    );
    let report = says(
        &one(plain(), connected(Ok((503, MS)))),
        Some("health_endpoint"),
        &["answers 503", "not ready"],
    );
    assert_eq!(
        (
            report.health_checks.status,
            report.reachability[0].reachable
        ),
        ("failing", true)
    );
    says(
        &one(plain(), connected(Ok((404, MS)))),
        Some("health_endpoint"),
        &["has no page /health/ready"],
    );
    says(
        &one(plain(), connected(Err(Why::TimedOut))),
        Some("probe.timeout"),
        &["hangs"],
    );
    says(
        &one(plain(), connected(Err(Why::Other("no".into())))),
        Some("metadata.protocol"),
        &["(no)"],
    );

    let mut silent = plain();
    silent.age = rules.lifecycle.suspect_after;
    let report = says(
        &one(silent, good()),
        Some("registry.suspect_after"),
        &["for 30 s", "every 15 s"],
    );
    assert_eq!(report.registration.status, "stale");
    let mut seen = plain();
    seen.observers = (2, 3);
    says(
        &one(seen, good()),
        Some("registry.observation_nodes"),
        &["2 of 3 data planes"],
    );
    let mut held = plain();
    held.held = true;
    says(
        &one(held, good()),
        Some("registry.loss_share"),
        &["/services/orders/confirm"],
    );
    let mut draining = plain();
    (draining.seen.state, draining.shown) = (State::Draining, false);
    let report = says(
        &one(draining, good()),
        Some("probe.successes"),
        &["after 2 good probes"],
    );
    assert!(!report.instances[0].in_lookups);
    let mut unknown = plain();
    let record = Record {
        health: Health::Unknown,
        ..(*unknown.seen.record).clone()
    };
    (unknown.seen.record, unknown.shown) = (Arc::new(record), false);
    says(&one(unknown, good()), None, &["registered as not ready"]);
    let mut lost = one(plain(), good());
    lost.resolved.clear();
    let report = says(&lost, None, &["a fault of the control plane"]);
    assert!(!report.resolution.equals_registry);
}

#[test]
fn cp_302_an_upstream_that_wants_what_nobody_has_is_told_with_its_line() {
    let rules = Rules::default();
    let found = vec![
        (detail("a", &[("version", "1")]), good()),
        (detail("bb", &[("version", "2"), ("weight", "0")]), good()),
    ];
    let mut facts = facts(&rules, found);
    let wants = |version: &str| Use {
        name: format!("orders-{version}"),
        place: "shop.toml:12".to_owned(),
        with: vec![("version".to_owned(), version.to_owned())],
    };
    facts.upstreams = vec![wants("1")];
    let fine = report(&facts);
    assert!(
        fine.well && !fine.balancing.covers_all,
        "some are left out on purpose"
    );
    facts.upstreams = vec![wants("2")];
    let report = says(
        &facts,
        Some("upstream.with"),
        &["`orders-2`", "version = \"2\""],
    );
    assert_eq!(
        report.recommendations[0].place.as_deref(),
        Some("shop.toml:12")
    );
    assert_eq!(report.balancing.upstreams[0].left_out.len(), 2);
}

#[test]
fn many_in_trouble_are_counted_and_not_all_listed() {
    let rules = Rules::default();
    let refused = || Test {
        connected: Err(Why::Refused),
        probed: None,
    };
    let many = (0..20).map(|number| (detail(&format!("i{number}"), &[]), refused()));
    let report = says(&facts(&rules, many.collect()), None, &["15 more instances"]);
    assert_eq!(report.recommendations.len(), 6);
    assert_eq!(report.health_checks.failing, 20);
    assert_eq!(
        report.reachability.len(),
        2,
        "an address is one, whoever has it"
    );
}
