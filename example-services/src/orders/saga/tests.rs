//! The machine against a model of the world: services that take effect or not, tell or not, late or twice; a process
//! that dies between any two moves; clients that cancel.

use std::time::Duration;

use proptest::prelude::*;
use tonic::Code;

use super::*;

const POLICY: Policy = Policy {
    retries: 2,
    confirm_retries: 3,
    undo_tries: 3,
    base: Duration::from_millis(100),
    most: Duration::from_secs(1),
    queue: Duration::ZERO,
};

/// Orders wait for payments so long, in milliseconds.
const QUEUE: i64 = 5000;

fn temporary() -> Failure {
    Failure::of(&crate::kit::refusal::Refusal::unavailable(
        "away",
        Duration::ZERO,
    ))
}

fn permanent() -> Failure {
    Failure::new(Code::FailedPrecondition, "NO", "no")
}

/// What the services hold for one order.
#[derive(Debug, Default, PartialEq)]
struct World {
    held: bool,
    committed: bool,
    /// Released, or told never to hold.
    closed: bool,
    order: Option<bool>,
    charges: u32,
    refunds: u32,
    /// Given up at payments.
    unpayable: bool,
}

impl World {
    fn forward(&mut self, step: Step) -> Result<(), Failure> {
        match step {
            Step::ValidateUser => Ok(()),
            Step::ReserveInventory if self.closed => Err(permanent()),
            Step::ReserveInventory => {
                self.held = true;
                Ok(())
            }
            Step::CreateOrder => {
                self.order.get_or_insert(true);
                Ok(())
            }
            Step::ProcessPayment if self.unpayable => Err(permanent()),
            Step::ProcessPayment => {
                // At most one charge for an order is the payment service's promise.
                self.charges = 1;
                Ok(())
            }
            Step::ConfirmOrder if self.closed => Err(permanent()),
            Step::ConfirmOrder => {
                self.committed = self.held;
                Ok(())
            }
        }
    }

    fn back(&mut self, step: Step) {
        match step {
            Step::ReserveInventory => {
                (self.held, self.committed, self.closed) = (false, false, true);
            }
            Step::CreateOrder => self.order = self.order.map(|_| false),
            Step::ProcessPayment => {
                self.refunds = self.charges;
                self.unpayable = true;
            }
            Step::ValidateUser | Step::ConfirmOrder => {}
        }
    }
}

/// One move of the test.
#[derive(Clone, Copy, Debug)]
enum Move {
    /// It works, and is told.
    Works,
    /// It works, and the process dies before it can keep that.
    WorksAndDies,
    /// It works, and the answer is lost.
    WorksUntold,
    /// It does not work, for now.
    Fails,
    /// The call is on its way when the caller gives up; it arrives after the next moves.
    Late,
    /// It is refused.
    Refused,
    /// The client wants it no more.
    Cancel,
    /// The process dies.
    Dies,
    /// The outcome is told twice.
    Twice,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    prop::collection::vec(
        prop_oneof![
            6 => Just(Move::Works),
            1 => Just(Move::WorksAndDies),
            2 => Just(Move::WorksUntold),
            1 => Just(Move::Fails),
            1 => Just(Move::Late),
            1 => Just(Move::Refused),
            1 => Just(Move::Cancel),
            1 => Just(Move::Dies),
            1 => Just(Move::Twice),
        ],
        0..40,
    )
}

/// What the owner says about a step that was begun.
fn ask(world: &World, step: Step) -> bool {
    match step {
        Step::ReserveInventory => world.held,
        Step::ProcessPayment => world.charges == 1,
        Step::ConfirmOrder => world.committed,
        Step::ValidateUser | Step::CreateOrder => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// SHOP-509: whatever happens, and however often the process dies, it ends confirmed and charged once, or with
    /// nothing held and nothing kept.
    #[test]
    fn it_ends_all_or_nothing(moves in moves(), queues: bool) {
        let queue = if queues { QUEUE.unsigned_abs() } else { 0 };
        let policy = Policy { queue: Duration::from_millis(queue), ..POLICY };
        let (mut world, mut now) = (World::default(), 0i64);
        let mut saga = Saga::new("u", "k", Asked::default(), now);
        saga.begin(now);
        // What the store holds: what is left when the process dies.
        let mut kept = saga.clone();
        let mut late: Vec<Step> = Vec::new();
        let mut moves = moves.into_iter();
        for turn in 0.. {
            prop_assert!(turn < 500, "it never ends: {saga:?}");
            now += 10;
            let what = moves.next();
            if matches!(what, Some(Move::Dies)) {
                saga = kept.clone();
                saga.resumed(now);
            }
            if matches!(what, Some(Move::Cancel)) {
                saga.turn(permanent(), now);
                kept = saga.clone();
            }
            match saga.todo(now) {
                Todo::Nothing => break,
                Todo::Wait(until) => {
                    prop_assert!(until > now && until <= now + 1000);
                    now = until;
                }
                Todo::Queued => {
                    let until = saga.queued_until.unwrap_or_default();
                    prop_assert!(queues && until <= now + QUEUE);
                    prop_assert_eq!(&kept, &saga, "kept before nobody drives it");
                    now += 1000;
                    if until <= now {
                        saga.turn(permanent(), now);
                    } else {
                        saga.dequeued(now);
                    }
                    kept = saga.clone();
                }
                Todo::Forward { step, ask: true } if ask(&world, step) => {
                    saga.done(step, now);
                    saga.begin(now);
                    kept = saga.clone();
                }
                Todo::Forward { step, .. } => {
                    prop_assert_eq!(kept.step(step).status, StepStatus::InProgress, "kept before it is made");
                    let outcome = match what {
                        Some(Move::Fails) => Err(temporary()),
                        Some(Move::Refused) => Err(permanent()),
                        Some(Move::Late) if step != Step::CreateOrder => {
                            late.push(step);
                            Err(temporary())
                        }
                        Some(Move::WorksUntold) if step != Step::CreateOrder => {
                            world.forward(step).and(Err(temporary()))
                        }
                        Some(Move::WorksAndDies) if step != Step::CreateOrder => {
                            world.forward(step).ok();
                            saga = kept.clone();
                            saga.resumed(now);
                            continue;
                        }
                        _ => world.forward(step),
                    };
                    let twice = matches!(what, Some(Move::Twice));
                    for _ in 0..=u8::from(twice) {
                        match outcome.clone() {
                            Ok(()) => saga.done(step, now),
                            Err(failure) => saga.failed(step, failure, now, &policy, 0.5),
                        }
                    }
                    saga.begin(now);
                    kept = saga.clone();
                }
                Todo::Back(step) => {
                    match what {
                        Some(Move::Fails | Move::Late | Move::Refused) => {
                            saga.undo_failed(step, temporary(), now, &POLICY, 0.5);
                        }
                        Some(Move::WorksUntold) => {
                            world.back(step);
                            saga.undo_failed(step, temporary(), now, &POLICY, 0.5);
                        }
                        Some(Move::WorksAndDies) => {
                            world.back(step);
                            saga = kept.clone();
                            saga.resumed(now);
                            continue;
                        }
                        _ => {
                            world.back(step);
                            saga.undone(step, now);
                        }
                    }
                    kept = saga.clone();
                }
            }
            // What was on its way arrives at some time.
            if turn % 3 == 0 && let Some(step) = late.pop() {
                world.forward(step).ok();
            }
        }
        // Whatever could not be undone is tried again by the recovery, without end.
        while saga.undo_again(false, now) {
            while let Todo::Back(step) = saga.todo(now) {
                world.back(step);
                saga.undone(step, now);
            }
        }
        for step in late {
            world.forward(step).ok();
        }
        match saga.state {
            State::Completed => {
                prop_assert!(world.committed && world.charges == 1 && world.refunds == 0, "{world:?}");
                prop_assert_eq!(world.order, Some(true));
            }
            State::Failed => {
                prop_assert!(!world.held && !world.committed, "{world:?} {saga:?}");
                prop_assert_eq!(world.charges, world.refunds);
                prop_assert!(world.order != Some(true));
                prop_assert!(!saga.compensation.manual && saga.why.is_some());
            }
            other => prop_assert!(false, "{other:?} is no end"),
        }
    }

    /// What is read back is what was kept.
    #[test]
    fn the_record_survives_its_store(cut in 0usize..5) {
        let mut saga = Saga::new("u", "k", Asked::default(), 5);
        for step in &STEPS[..cut] {
            saga.begin(6);
            saga.done(*step, 7);
        }
        saga.turn(permanent(), 8);
        let text = serde_json::to_string(&saga).unwrap();
        prop_assert_eq!(serde_json::from_str::<Saga>(&text).unwrap(), saga);
    }
}

/// ACC-302: payment, order, stock.
#[test]
fn steps_are_taken_back_in_reverse() {
    let mut saga = Saga::new("u", "k", Asked::default(), 0);
    for step in STEPS {
        saga.begin(1);
        saga.done(step, 2);
    }
    assert_eq!(saga.state, State::Completed);
    saga.turn(permanent(), 3);
    let mut order = Vec::new();
    while let Todo::Back(step) = saga.todo(4) {
        order.push((saga.state.word(), step));
        saga.undone(step, 4);
    }
    assert_eq!(
        order,
        [
            ("compensate_payment", Step::ProcessPayment),
            ("compensate_order", Step::CreateOrder),
            ("compensate_inventory", Step::ReserveInventory)
        ]
    );
    assert!(saga.state == State::Failed && saga.stack == [Step::ValidateUser, Step::ConfirmOrder]);
}

/// SHOP-506: one that cannot be undone holds up none of the others, and is told.
#[test]
fn what_cannot_be_undone_is_flagged_and_the_rest_is_undone() {
    let mut saga = Saga::new("u", "k", Asked::default(), 0);
    for step in &STEPS[..4] {
        saga.begin(1);
        saga.done(*step, 2);
    }
    saga.turn(temporary(), 3);
    let (mut now, mut undone) = (4, Vec::new());
    loop {
        match saga.todo(now) {
            Todo::Back(Step::ProcessPayment) => {
                saga.undo_failed(Step::ProcessPayment, temporary(), now, &POLICY, 0.0);
            }
            Todo::Back(step) => {
                undone.push(step);
                saga.undone(step, now);
            }
            Todo::Wait(until) => now = until,
            _ => break,
        }
    }
    assert_eq!(undone, [Step::CreateOrder, Step::ReserveInventory]);
    assert!(saga.state == State::Failed && saga.compensation.manual);
    assert_eq!(saga.compensation.undo[0].tries, POLICY.undo_tries);
    assert!(saga.undo_again(false, now) && !saga.compensation.manual);
}

/// SHOP-505.
#[test]
fn temporary_failures_are_retried_with_growing_pauses_and_permanent_ones_are_not() {
    let mut saga = Saga::new("u", "k", Asked::default(), 0);
    saga.begin(0);
    let mut pauses = Vec::new();
    let mut now = 0;
    while !saga.is_turned() {
        saga.failed(Step::ValidateUser, temporary(), now, &POLICY, 0.0);
        if let Todo::Wait(until) = saga.todo(now) {
            pauses.push(until - now);
            now = until;
        }
    }
    assert_eq!(pauses, [100, 200]);
    assert_eq!(saga.state, State::Failed, "there is nothing to take back");

    let mut saga = Saga::new("u", "k", Asked::default(), 0);
    saga.begin(0);
    saga.failed(Step::ValidateUser, permanent(), 0, &POLICY, 0.0);
    assert!(saga.is_turned());
}

/// SHOP-511: what was never asked leaves no doubt, waits as long as it may, and then goes back without a refund.
#[test]
fn an_order_waits_for_payments_and_not_for_ever() {
    let policy = Policy {
        queue: Duration::from_millis(1000),
        ..POLICY
    };
    let not_asked = Failure {
        not_asked: true,
        ..temporary()
    };
    let mut saga = Saga::new("u", "k", Asked::default(), 0);
    for step in &STEPS[..3] {
        saga.begin(1);
        saga.done(*step, 2);
    }
    saga.begin(3);
    saga.failed(Step::ProcessPayment, not_asked.clone(), 10, &policy, 0.0);
    assert_eq!(saga.todo(11), Todo::Queued);
    saga.dequeued(500);
    let step = Step::ProcessPayment;
    assert_eq!(saga.todo(500), Todo::Forward { step, ask: false });
    saga.failed(step, not_asked.clone(), 600, &policy, 0.0);
    assert_eq!(saga.queued_until, Some(1010), "the first wait counts");
    let mut paid = saga.clone();
    paid.dequeued(700);
    paid.done(step, 701);
    assert_eq!(paid.state, State::PaymentProcessed);

    saga.dequeued(1010);
    saga.failed(step, not_asked, 1010, &policy, 0.0);
    let undo = saga.compensation.undo.iter().map(|undo| undo.step);
    let undo: Vec<_> = undo.collect();
    assert_eq!(undo, [Step::CreateOrder, Step::ReserveInventory]);
}
