//! What differs with a lender that knows what each gateway holds, which is a control plane.

use super::*;

fn watched() -> Plan {
    Plan {
        watched: true,
        ..plan(90, SECOND, 30, 3)
    }
}

/// A client that has used six of its first block of ten, and what its word says.
fn begun() -> (Plan, Lessee, Key, Seen) {
    let plan = Plan {
        block: 10,
        ..watched()
    };
    let mut lessee = Lessee::default();
    let seen = word::seen(word::fresh(plan.block));
    let key = Key::new(1 << 20, 0);
    lessee.wish(key, seen, Moment(0));
    let seen = Seen {
        tokens: 4,
        credit: 0,
        ..seen
    };
    (plan, lessee, key, seen)
}

fn answer(lessee: &mut Lessee, plan: &Plan, asks: &[Ask], seen: Option<Seen>, tokens: u64) {
    let grants = vec![Grant { tokens, left: 0 }; asks.len()];
    let _fills = lessee.answered(plan, asks, &grants, Moment(2), |_| seen);
}

#[test]
fn cp_404_the_lender_is_told_what_is_held_and_that_nothing_is_held_any_more() {
    let (plan, mut lessee, key, seen) = begun();
    let asks = lessee.asks(&plan, Moment(1), 9, |_| Some(seen));
    assert_eq!((asks[0].held, asks[0].debit), (4, 10));
    answer(&mut lessee, &plan, &asks, Some(seen), 3);
    assert_eq!(lessee.held(), 7);
    // It is used up, and leaves: no token comes back, but the lender has to know.
    lessee.left(key, 0, Moment(3));
    let asks = lessee.asks(&plan, Moment(3), 9, |_| None);
    assert_eq!((asks[0].want, asks[0].debit, asks[0].held), (0, 0, 0));
    answer(&mut lessee, &plan, &asks, None, 0);
    assert!(lessee.is_empty() && lessee.next().is_none());
}

#[test]
fn cp_404_what_a_lender_took_back_is_told_as_used_without_its_knowledge() {
    let (plan, mut lessee, _, seen) = begun();
    let asks = lessee.asks(&plan, Moment(1), 9, |_| Some(seen));
    answer(&mut lessee, &plan, &asks, Some(seen), 3);
    lessee.lapsed(Moment(5));
    let asks = lessee.asks(&plan, Moment(5), 9, |_| Some(seen));
    assert_eq!((asks[0].debit, asks[0].held), (7, 4));
    answer(&mut lessee, &plan, &asks, Some(seen), 0);
    lessee.lapsed(Moment(6));
    let asks = lessee.asks(&plan, Moment(6), 9, |_| Some(seen));
    assert_eq!(asks[0].debit, 4, "once, and only what it knew of");
    // A question whose answer is lost may have been granted.
    lessee.failed(&asks, Moment(7));
    lessee.lapsed(Moment(8));
    let again = lessee.asks(&plan, Moment(8), 9, |_| Some(seen));
    assert_eq!(again[0].debit, 4 + 4 + signed(asks[0].want));
}

#[test]
fn gw_315_who_is_cut_off_lends_itself_its_part_of_the_rate_and_nothing_of_the_burst() {
    let plan = watched();
    let mut random = fastrand::Rng::with_seed(1);
    let mut gateway = Gateway::new(&mut random);
    let mut pool = Pool {
        buckets: HashMap::default(),
    };
    gateway.cut_until = u64::MAX;
    let key = Key::new(1 << 20, 0);
    let mut admitted = 0u64;
    for step in 0..5000 {
        let time = 1_000_000_000 + step * STEP;
        admitted += u64::from(gateway.request(key, &plan, time));
        gateway.step(&mut pool, &plan, time, &mut random);
    }
    // A block, and a third of ten seconds.
    assert!((290..=302).contains(&admitted), "{admitted}");
}

#[test]
fn gw_315_partitions_and_crashes_stay_within_the_stated_bound_here_too() {
    for seed in 0..30 {
        let plan = Plan {
            watched: true,
            ..plan(100, SECOND, 60, 2 + seed % 4)
        };
        run(seed, plan, 150.0, 30, Trouble::All);
    }
}
