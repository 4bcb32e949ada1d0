//! The lender, one rule at a time.

use tollgate_config::leases::{Ask, Question, Slice};
use tollgate_config::unit::Rate;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(milliseconds: u64) -> Duration {
    Duration::from_secs(100) + Duration::from_millis(milliseconds)
}

/// One that never lent before.
fn lender() -> Lender {
    Lender::new("here".to_owned(), false, at(0))
}

fn question(instance: &str, asks: Vec<Ask>) -> Question {
    let slice = Slice {
        limit: "all".to_owned(),
        rate: Rate {
            count: 10,
            per: SECOND,
        },
        burst: 100,
        asks,
    };
    Question {
        node: format!("node-{instance}"),
        instance: instance.to_owned(),
        from: None,
        limits: vec![slice],
    }
}

fn ask(want: u64, debit: i64, held: u64) -> Ask {
    Ask {
        key: 7,
        want,
        debit,
        held,
    }
}

/// Tokens granted, and thousandths left.
#[track_caller]
fn lend(lender: &mut Lender, who: &str, what: Ask, now: u64) -> (u64, i64) {
    let answer = lender.ask(&question(who, vec![what]), at(now));
    let grant = answer.expect("there is room").grants[0][0];
    (grant.tokens, grant.left)
}

fn greet(lender: &mut Lender, who: &str, from: Option<&str>, now: u64) -> Answer {
    let question = Question {
        from: from.map(str::to_owned),
        limits: Vec::new(),
        ..question(who, Vec::new())
    };
    lender.ask(&question, at(now)).expect("there is room")
}

#[test]
fn gw_315_what_is_leased_counts_as_used_until_it_comes_back() {
    let mut lender = lender();
    assert_eq!(lend(&mut lender, "a", ask(30, 0, 0), 0), (30, 70_000));
    assert_eq!(lend(&mut lender, "b", ask(80, 0, 0), 200), (72, 0));
    assert_eq!(lend(&mut lender, "b", ask(5, 0, 72), 200), (0, 0));
    // A tenth of a second is a token.
    assert_eq!(lend(&mut lender, "b", ask(5, 0, 72), 300), (1, 0));
    assert_eq!(lend(&mut lender, "a", ask(0, -20, 0), 300), (0, 20_000));
    assert_eq!(
        lend(&mut lender, "a", ask(0, -20, 0), 300),
        (0, 20_000),
        "nobody brings back twice"
    );
    assert_eq!(
        lend(&mut lender, "b", ask(0, 50, 73), 300),
        (0, -30_000),
        "used ahead"
    );
    assert_eq!(
        lend(&mut lender, "b", ask(0, 500, 73), 300).1,
        -100_000,
        "no more than a burst"
    );
}

#[test]
fn slices_are_by_demand_where_there_is_not_enough_for_everybody() {
    let mut lender = lender();
    lend(&mut lender, "a", ask(0, 60, 0), 0);
    assert_eq!(lend(&mut lender, "a", ask(30, 0, 0), 0).0, 30);
    // The other wanted thirty just now, too; ten are there.
    assert_eq!(lend(&mut lender, "b", ask(10, 0, 0), 0).0, 2);
    assert_eq!(lend(&mut lender, "b", ask(10, 0, 2), 50).0, 2);
    // Once it wants no more, it is no reason to keep anything back.
    assert_eq!(lend(&mut lender, "b", ask(10, 0, 4), 150).0, 7);
}

#[test]
fn cp_404_who_dies_gives_back_what_it_held_and_is_counted_no_more() {
    let mut lender = lender();
    assert_eq!(greet(&mut lender, "a", None, 0).gateways, 1);
    assert_eq!(lend(&mut lender, "b", ask(60, 40, 0), 0), (60, 0));
    for now in (0..9).map(|second| second * 1000) {
        assert_eq!(greet(&mut lender, "a", None, now).gateways, 2);
    }
    // Nine seconds are 90 tokens; half of them are the share of who is silent.
    assert_eq!(lend(&mut lender, "a", ask(0, 0, 0), 9000).1, 45_000);
    let answer = greet(&mut lender, "a", None, 11_000);
    assert_eq!(answer.gateways, 1);
    assert_eq!(
        lend(&mut lender, "a", ask(0, 0, 0), 11_000).1,
        100_000,
        "full"
    );
    assert_eq!(lender.counts.expired, 60);
}

#[test]
fn who_is_heard_again_in_time_pays_what_it_used_and_no_more() {
    let mut lender = lender();
    greet(&mut lender, "a", None, 0);
    lend(&mut lender, "a", ask(0, 100, 0), 0);
    lend(&mut lender, "b", ask(1, 0, 0), 100);
    greet(&mut lender, "b", None, 100);
    assert_eq!(
        lend(&mut lender, "a", ask(0, 0, 0), 2500).1,
        24_000,
        "not silent yet"
    );
    assert_eq!(
        lend(&mut lender, "a", ask(0, 0, 0), 4100).1,
        20_000,
        "half of four seconds is its share"
    );
    // It has used a dozen.
    let answer = lender
        .ask(&question("b", vec![ask(0, 12, 1)]), at(5100))
        .expect("room");
    assert!(answer.known);
    assert_eq!(answer.grants[0][0].left, 50_000 - 12_000);
}

#[test]
fn cp_404_a_lender_that_lost_its_levels_begins_empty_and_fills_at_the_rate() {
    let mut lender = Lender::new("again".to_owned(), true, at(0));
    assert_eq!(
        lend(&mut lender, "a", ask(50, 0, 20), 0),
        (0, 0),
        "what it holds is not taken off again"
    );
    assert_eq!(
        lend(
            &mut lender,
            "b",
            Ask {
                key: 8,
                ..ask(50, 0, 0)
            },
            2000
        ),
        (20, 0),
        "an unknown client, too"
    );
    let mut later = question(
        "b",
        vec![Ask {
            key: 9,
            ..ask(500, 0, 0)
        }],
    );
    later.limits[0].burst = 70;
    let answer = lender.ask(&later, at(60_000)).expect("room");
    assert_eq!(
        answer.grants[0][0].tokens, 70,
        "after a while unknown ones are full as ever"
    );
}

#[test]
fn who_comes_from_another_lender_empties_every_bucket_once() {
    let mut lender = lender();
    lend(&mut lender, "a", ask(10, 0, 0), 0);
    lend(
        &mut lender,
        "a",
        Ask {
            key: 8,
            ..ask(0, 130, 0)
        },
        0,
    );
    assert!(!greet(&mut lender, "b", Some("former"), 0).known);
    assert_eq!(lend(&mut lender, "a", ask(10, 0, 10), 100), (1, 0));
    assert_eq!(
        lend(
            &mut lender,
            "a",
            Ask {
                key: 8,
                ..ask(0, 0, 0)
            },
            100
        )
        .1,
        -29_000,
        "debts stay"
    );
    assert_eq!(
        lend(
            &mut lender,
            "a",
            Ask {
                key: 9,
                ..ask(10, 0, 0)
            },
            100
        ),
        (1, 0)
    );
    assert!(greet(&mut lender, "b", Some("here"), 100).known);
    assert_eq!(lender.counts.arrivals, 1);
}

#[test]
fn gw_311_a_changed_rate_applies_with_the_next_question_and_forgets_nothing() {
    let mut lender = lender();
    lend(&mut lender, "a", ask(0, 100, 0), 0);
    let mut question = question("a", vec![ask(50, 0, 0)]);
    question.limits[0].rate.count = 1000;
    question.limits[0].burst = 30;
    let answer = lender.ask(&question, at(20)).expect("room");
    assert_eq!(answer.grants[0][0].tokens, 20);
    let answer = lender.ask(&question, at(9000)).expect("room");
    assert_eq!(answer.grants[0][0].tokens, 30);
}

#[test]
fn hi_59_made_up_clients_and_gateways_meet_a_bound() {
    let mut lender = lender();
    let asks = |from: u64| -> Vec<Ask> {
        (from..from + 1000)
            .map(|key| Ask {
                key,
                ..ask(0, 1, 0)
            })
            .collect()
    };
    for from in (0..2 * MOST_KEYS as u64).step_by(1000) {
        lender.ask(&question("a", asks(from)), at(0)).expect("room");
    }
    assert_eq!(lender.sizes(), (1, MOST_KEYS, 1));
    // Who came first has the bucket of before; who found no room shares one.
    let look = |key| Ask {
        key,
        ..ask(0, 0, 0)
    };
    assert_eq!(lend(&mut lender, "a", look(5), 0).1, 99_000);
    assert_eq!(lend(&mut lender, "a", look(u64::MAX), 0).1, -100_000);
    // Full buckets are forgotten.
    greet(&mut lender, "a", None, 20_000);
    assert_eq!(lender.sizes(), (0, 0, 1));
    for number in 1..MOST_GATEWAYS {
        greet(&mut lender, &number.to_string(), None, 20_000);
    }
    let more = lender.ask(&question("more", Vec::new()), at(20_000));
    assert_eq!(more, Err(Refusal::Gateways(MOST_GATEWAYS)));
    greet(&mut lender, "a", None, 20_000);
    greet(&mut lender, "more", None, 31_000);
}

#[test]
fn operators_see_who_holds_what() {
    let mut lender = lender();
    lend(&mut lender, "a", ask(10, 0, 5), 0);
    lend(&mut lender, "b", ask(3, 0, 0), 3000);
    let (limits, gateways) = lender.look(at(3000));
    assert_eq!(
        (
            limits[0].limit.as_str(),
            limits[0].rate.as_str(),
            limits[0].held
        ),
        ("all", "10/s", 18)
    );
    assert_eq!(
        (
            gateways[0].node.as_str(),
            gateways[0].silent,
            gateways[0].held
        ),
        ("node-a", true, 15)
    );
    assert_eq!((gateways[1].silent, gateways[1].held), (false, 3));
}
