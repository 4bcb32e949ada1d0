//! Random histories of one store beside a model of it that is written out: after each step both hold the same numbers
//! (SHOP-303 to SHOP-307, ACC-309). Time is an argument.

use std::collections::HashMap;

use proptest::{prelude::*, test_runner::TestRunner};
use tollgate_example_services::{
    contracts::products::ReservationState as State, products::MIGRATIONS,
};
use uuid::Uuid;

use super::{inventory, numbers, orders, product, wanted};
use crate::support::{Store, stores};

const LIFETIME: i64 = 1000;

#[derive(Clone, Debug)]
enum Step {
    Reserve(usize, i32),
    Release(usize),
    Commit(usize),
    Restock(usize),
    Adjust(i64),
    Wait(i64),
    Expire,
}

fn step() -> impl Strategy<Value = Step> {
    let order = 0..4usize;
    prop_oneof![
        3 => (order.clone(), 1..5i32).prop_map(|(order, count)| Step::Reserve(order, count)),
        1 => order.clone().prop_map(Step::Release),
        2 => order.clone().prop_map(Step::Commit),
        1 => order.prop_map(Step::Restock),
        1 => (-4..5i64).prop_filter("a change", |change| *change != 0).prop_map(Step::Adjust),
        1 => (1..LIFETIME).prop_map(Step::Wait),
        1 => Just(Step::Expire),
    ]
}

/// What should be so.
struct Model {
    stock: i64,
    orders: HashMap<usize, (State, i64, i64)>,
}

impl Model {
    fn held(&self) -> i64 {
        self.orders
            .values()
            .filter(|(state, ..)| *state == State::Held)
            .map(|(_, count, _)| count)
            .sum()
    }

    /// Whether it succeeds.
    fn step(&mut self, step: &Step, now: i64) -> bool {
        let free = self.stock - self.held();
        match *step {
            Step::Reserve(order, count) => {
                let count = i64::from(count);
                match self.orders.get(&order) {
                    Some((State::Held | State::Committed, there, _)) => *there == count,
                    Some(_) => false,
                    None if free >= count => {
                        self.orders
                            .insert(order, (State::Held, count, now + LIFETIME));
                        true
                    }
                    None => false,
                }
            }
            Step::Release(order) => {
                let there = self
                    .orders
                    .entry(order)
                    .or_insert((State::Released, 0, now));
                if there.0 == State::Held {
                    there.0 = State::Released;
                }
                true
            }
            Step::Commit(order) => match self.orders.get_mut(&order) {
                Some(there) if there.0 == State::Held => {
                    there.0 = State::Committed;
                    self.stock -= there.1;
                    true
                }
                Some(there) => matches!(there.0, State::Committed | State::Restocked),
                None => false,
            },
            Step::Restock(order) => match self.orders.get_mut(&order) {
                Some(there) if there.0 == State::Committed => {
                    there.0 = State::Restocked;
                    self.stock += there.1;
                    true
                }
                Some(there) => there.0 != State::Held,
                None => false,
            },
            Step::Adjust(change) => {
                let allowed = free + change >= 0;
                self.stock += if allowed { change } else { 0 };
                allowed
            }
            Step::Expire => {
                for there in self
                    .orders
                    .values_mut()
                    .filter(|there| there.0 == State::Held && there.2 <= now)
                {
                    there.0 = State::Expired;
                }
                true
            }
            Step::Wait(_) => true,
        }
    }
}

async fn play(store: &Store, stock: i32, steps: &[Step]) {
    let id = product(store, stock).await;
    let names: Vec<_> = (0..4).map(|_| Uuid::now_v7()).collect();
    let inventory = inventory(store);
    let mut model = Model {
        stock: stock.into(),
        orders: HashMap::new(),
    };
    let mut now = 1000;
    for step in steps {
        if let Step::Wait(span) = step {
            now += span;
        }
        let expected = model.step(step, now);
        let by = orders();
        let done = match *step {
            Step::Reserve(order, count) => inventory
                .reserve(names[order], &wanted(&[(id, count)]), None, &by, now)
                .await
                .is_ok(),
            Step::Release(order) => inventory.release(names[order], &by, now).await.is_ok(),
            Step::Commit(order) => inventory.commit(names[order], &by, now).await.is_ok(),
            Step::Restock(order) => inventory.restock(names[order], &by, now).await.is_ok(),
            Step::Adjust(change) => inventory
                .adjust(id, change, "", None, &by, now)
                .await
                .is_ok(),
            Step::Expire => inventory.expire(now).await.is_ok(),
            Step::Wait(_) => true,
        };
        assert_eq!(done, expected, "{step:?}");
        assert_eq!(
            numbers(store, id).await,
            (model.stock, model.held()),
            "after {step:?}"
        );
    }
    // The next history finds nothing of this one to expire.
    inventory.expire(i64::MAX).await.unwrap();
}

#[test]
fn the_store_and_its_model_agree_after_each_step() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for store in runtime.block_on(stores(&MIGRATIONS)) {
        let mut runner = TestRunner::new(ProptestConfig {
            cases: 32,
            failure_persistence: None,
            ..ProptestConfig::default()
        });
        runner
            .run(
                &(0..8i32, prop::collection::vec(step(), 1..30)),
                |(stock, steps)| {
                    runtime.block_on(play(&store, stock, &steps));
                    Ok(())
                },
            )
            .unwrap();
    }
}
