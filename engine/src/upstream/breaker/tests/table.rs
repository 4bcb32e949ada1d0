//! The machine against a second one that is written out from the table of GW-402, step by step.

use super::*;

/// GW-402 to GW-406 once more, as a person would write them down: lists and plain numbers.
#[derive(Debug)]
struct Table {
    state: Said,
    since: u64,
    turn: u32,
    row: u32,
    /// Millisecond, good, number of the try.
    tries: Vec<(u64, bool, usize)>,
    under_way: u32,
    succeeded: u32,
    /// Good tries ever.
    good: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Closed,
    Open,
    HalfOpen,
}

impl Table {
    fn go(&mut self, state: Said, now: u64) {
        (self.state, self.since, self.turn) = (state, now, self.turn + 1);
        (self.row, self.under_way, self.succeeded) = (0, 0, 0);
        self.tries.clear();
    }

    fn admit(&mut self, policy: &Policy, now: u64) -> bool {
        let open_for = policy.open_for.value.as_millis() as u64;
        if self.state == Said::Open && now >= self.since + open_for {
            self.go(Said::HalfOpen, now);
        }
        if self.state == Said::HalfOpen {
            if self.under_way + self.succeeded >= policy.probes.value {
                if now < self.since + open_for {
                    return false;
                }
                self.go(Said::HalfOpen, now);
            }
            self.under_way += 1;
        }
        self.state != Said::Open
    }

    fn failed(&mut self, policy: &Policy, now: u64) {
        self.row += 1;
        let first = (now / 1000 + 1).saturating_sub(policy.window.value.as_secs());
        let seen = self.tries.iter().filter(|t| t.0 / 1000 >= first);
        let seen: Vec<bool> = seen.map(|t| t.1).collect();
        let (total, bad) = (seen.len(), seen.iter().filter(|good| !**good).count());
        let rate = policy.error_rate.value;
        let too_many = rate.is_some_and(|rate| bad as f64 > rate * total as f64);
        if total >= policy.volume.value as usize && (self.row >= policy.failures.value || too_many)
        {
            self.go(Said::Open, now);
        }
    }
}

/// A try that is under way, or has had its head.
#[derive(Debug, Clone, Copy)]
struct Under {
    number: usize,
    permit: Permit,
    turn: u32,
    answered: bool,
    /// Row before its success, good tries ever with it.
    ended: (u32, u32),
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Wait(u64),
    Admit,
    Answer(usize, bool),
    Cancel(usize),
    Belie(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..2_000u64).prop_map(Step::Wait),
        6 => Just(Step::Admit),
        6 => (any::<usize>(), prop::bool::weighted(0.4)).prop_map(|(n, good)| Step::Answer(n, good)),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => any::<usize>().prop_map(Step::Belie),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// GW-402, GW-403, GW-404, GW-406, GW-414: after each step both machines are in the same state.
    #[test]
    fn gw_402_the_machine_is_the_table(
        steps in prop::collection::vec(step(), 1..400),
        failures in 1..6u32, volume in 1..12u32, window in 1..6u64, rate in prop::option::of(0..10u32),
        open_for in 1..8u64, probes in 1..5u32, successes in 1..5u32,
    ) {
        let mut bench = Bench::new(Policy {
            failures: Setting::default_of(failures),
            volume: Setting::default_of(volume),
            window: Setting::default_of(Duration::from_secs(window)),
            error_rate: Setting::default_of(rate.map(|rate| f64::from(rate) / 10.0)),
            open_for: Setting::default_of(Duration::from_millis(open_for * 500)),
            probes: Setting::default_of(probes),
            successes: Setting::default_of(successes.min(probes)),
            grain: BreakerGrain::Upstream,
            kind: Setting::default_of(BreakerKind::Fixed),
        });
        let (policy, start) = (bench.policy, bench.now);
        let mut table = Table {
            state: Said::Closed, since: 0, turn: 0, row: 0, tries: Vec::new(), under_way: 0, succeeded: 0, good: 0,
        };
        let (mut under, mut number): (Vec<Under>, usize) = (Vec::new(), 0);
        for step in steps {
            let now = bench.now.duration_since(start).as_millis() as u64;
            match step {
                Step::Wait(milliseconds) => bench.wait(milliseconds),
                Step::Admit => {
                    prop_assert_eq!(bench.breaker.refuses(&policy, bench.now), {
                        let mut copy = Table { tries: Vec::new(), ..table };
                        !copy.admit(&policy, now)
                    });
                    let admitted = bench.admit();
                    prop_assert_eq!(admitted.is_ok(), table.admit(&policy, now));
                    if let Ok(permit) = admitted {
                        number += 1;
                        under.push(Under { number, permit, turn: table.turn, answered: false, ended: (0, 0) });
                    }
                }
                Step::Answer(which, good) if !under.is_empty() => {
                    let which = which % under.len();
                    if under[which].answered {
                        continue;
                    }
                    bench.answer(&mut under[which].permit, good);
                    let one = under[which];
                    if one.turn == table.turn && table.state == Said::Closed {
                        table.tries.push((now, good, one.number));
                        if good {
                            table.good += 1;
                            under[which].ended = (table.row, table.good);
                            table.row = 0;
                        } else {
                            table.failed(&policy, now);
                        }
                    } else if one.turn == table.turn && table.state == Said::HalfOpen {
                        if good {
                            table.under_way -= 1;
                            table.succeeded += 1;
                            if table.succeeded >= policy.successes.value {
                                table.go(Said::Closed, now);
                            }
                        } else {
                            table.go(Said::Open, now);
                        }
                    }
                    if good {
                        under[which].answered = true;
                    } else {
                        under.swap_remove(which);
                    }
                }
                Step::Cancel(which) if !under.is_empty() => {
                    let one = under.swap_remove(which % under.len());
                    if !one.answered {
                        bench.breaker.cancelled(one.permit);
                        if one.turn == table.turn && table.state == Said::HalfOpen {
                            table.under_way -= 1;
                        }
                    }
                }
                Step::Belie(which) if !under.is_empty() => {
                    let which = which % under.len();
                    if !under[which].answered {
                        continue;
                    }
                    let one = under.swap_remove(which);
                    bench.belie(one.permit);
                    if one.turn == table.turn && table.state == Said::Closed {
                        table.tries.retain(|t| t.2 != one.number);
                        table.tries.push((now, false, one.number));
                        if table.row == 0 && table.good == one.ended.1 {
                            table.row = one.ended.0;
                        }
                        table.failed(&policy, now);
                    } else if one.turn == table.turn && table.state == Said::HalfOpen {
                        table.go(Said::Open, now);
                    }
                }
                _ => {}
            }
            let word = bench.breaker.word();
            let said = match word.kind() {
                Kind::Closed => Said::Closed,
                Kind::Open => Said::Open,
                _ => Said::HalfOpen,
            };
            prop_assert_eq!(said, table.state);
            let probes = Probes::of(Counted(bench.breaker.round.load(Ordering::Relaxed)), word.turn());
            prop_assert_eq!((u32::from(probes.under_way), u32::from(probes.succeeded)), (table.under_way, table.succeeded));
            prop_assert!(table.under_way + table.succeeded <= policy.probes.value);
            prop_assert_eq!(Counted(bench.breaker.state.row.load(Ordering::Relaxed)).of(word.turn()), table.row);
        }
    }
}
