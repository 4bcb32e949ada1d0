//! Which of several instances a call goes to.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher as _};

use crate::instance::Instance;

/// How a load balancer chooses (GW-705).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// One after the other.
    #[default]
    RoundRobin,
    Random,
    /// By chance, as often as the `weight` of the metadata says.
    WeightedRandom,
    /// The one with the fewest calls under way.
    LeastConnections,
    /// The one with the fewest calls so far.
    LeastRequests,
    /// The same key goes to the same instance while that is there, and few keys move when one comes or goes.
    ConsistentHash,
}

impl Strategy {
    /// By its name, as in `round_robin`; an unknown one means `random` (REG-401).
    pub fn named(name: &str) -> Self {
        match name {
            "round_robin" => Strategy::RoundRobin,
            "weighted_random" => Strategy::WeightedRandom,
            "least_connections" => Strategy::LeastConnections,
            "least_requests" => Strategy::LeastRequests,
            "consistent_hash" => Strategy::ConsistentHash,
            _ => Strategy::Random,
        }
    }
}

/// One of them, by a strategy's name; what needs to remember (whose turn it is, who is busy) needs a
/// [`LoadBalancer`](crate::LoadBalancer), and is by chance here.
pub fn select_instance<'a>(instances: &'a [Instance], strategy: &str) -> Option<&'a Instance> {
    let number = Balance::default().choose(
        match Strategy::named(strategy) {
            Strategy::WeightedRandom => Strategy::WeightedRandom,
            _ => Strategy::Random,
        },
        instances,
        None,
        fastrand::f64(),
    )?;
    instances.get(number)
}

/// What a load balancer remembers of the instances it chose.
#[derive(Debug, Default)]
pub(crate) struct Balance {
    turn: usize,
    calls: HashMap<String, Calls>,
}

#[derive(Debug, Default)]
struct Calls {
    under_way: u64,
    ever: u64,
}

impl Balance {
    /// The number of one of them. `chance` is 0 up to, but not, 1.
    pub(crate) fn choose(
        &mut self,
        strategy: Strategy,
        instances: &[Instance],
        key: Option<&str>,
        chance: f64,
    ) -> Option<usize> {
        let count = instances.len();
        let random = (chance * count as f64) as usize;
        let known = |instance: &Instance| self.calls.get(&instance.id);
        let number = match strategy {
            Strategy::RoundRobin => {
                let turn = self.turn;
                self.turn = turn.wrapping_add(1);
                turn.checked_rem(count)?
            }
            Strategy::Random => random,
            Strategy::WeightedRandom => weighted(instances, chance).unwrap_or(random),
            Strategy::LeastConnections => least(instances, random, |i| {
                known(i).map_or(0, |calls| calls.under_way)
            })?,
            Strategy::LeastRequests => least(instances, random, |i| {
                known(i).map_or(0, |calls| calls.ever)
            })?,
            Strategy::ConsistentHash => match key {
                None => random,
                Some(key) => highest(instances, key)?,
            },
        };
        (number < count).then_some(number)
    }

    pub(crate) fn began(&mut self, id: &str, present: &[Instance]) {
        // Those that left are forgotten once they are the larger part.
        if self.calls.len() > 2 * present.len() + 16 {
            self.calls.retain(|id, calls| {
                calls.under_way > 0 || present.iter().any(|instance| instance.id == *id)
            });
        }
        let calls = self.calls.entry(id.to_owned()).or_default();
        calls.under_way += 1;
        calls.ever += 1;
    }

    pub(crate) fn ended(&mut self, id: &str) {
        if let Some(calls) = self.calls.get_mut(id) {
            calls.under_way = calls.under_way.saturating_sub(1);
        }
    }
}

/// Rendezvous hashing (Thaler and Ravishankar 1998): the instance whose hash with the key is the highest, the same in every
/// process.
fn highest(instances: &[Instance], key: &str) -> Option<usize> {
    let score = |instance: &Instance| {
        let mut hasher = DefaultHasher::new();
        hasher.write(key.as_bytes());
        hasher.write_u8(0xff);
        hasher.write(instance.id.as_bytes());
        hasher.finish()
    };
    (0..instances.len()).max_by_key(|number| score(&instances[*number]))
}

/// The smallest; of several equal ones, the first from a place that chance chose.
fn least(instances: &[Instance], from: usize, of: impl Fn(&Instance) -> u64) -> Option<usize> {
    let count = instances.len();
    let numbers = (0..count).map(|step| (from + step) % count);
    numbers.min_by_key(|number| of(&instances[*number]))
}

fn weighted(instances: &[Instance], chance: f64) -> Option<usize> {
    let sum: f64 = instances.iter().map(Instance::weight).sum();
    let mut left = chance * sum;
    instances.iter().position(|instance| {
        left -= instance.weight();
        left < 0.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instances(count: usize) -> Vec<Instance> {
        let numbers = 0..count;
        numbers
            .map(|number| Instance::fixed("users", &format!("10.0.0.{number}:80")))
            .collect()
    }

    #[test]
    fn reg_401_an_unknown_strategy_is_chance_and_nothing_comes_of_nothing() {
        assert_eq!(Strategy::named("fastest"), Strategy::Random);
        assert_eq!(Strategy::named("least_requests"), Strategy::LeastRequests);
        assert_eq!(select_instance(&[], "round_robin"), None);
        let all = instances(3);
        let seen: std::collections::HashSet<_> = (0..200)
            .filter_map(|_| select_instance(&all, "fastest"))
            .map(|instance| instance.id.clone())
            .collect();
        assert_eq!(seen.len(), 3);
    }

    #[test]
    fn each_strategy_does_what_its_name_says() {
        let mut all = instances(3);
        let mut balance = Balance::default();
        let turns: Vec<_> = (0..4)
            .filter_map(|_| balance.choose(Strategy::RoundRobin, &all, None, 0.5))
            .collect();
        assert_eq!(turns, [0, 1, 2, 0]);
        balance.began(&all[0].id.clone(), &all);
        balance.began(&all[1].id.clone(), &all);
        balance.ended(&all[1].id.clone());
        let busy = balance.choose(Strategy::LeastConnections, &all, None, 0.0);
        assert_eq!(busy, Some(1), "the first of those with none under way");
        let asked = balance.choose(Strategy::LeastRequests, &all, None, 0.0);
        assert_eq!(asked, Some(2));
        all[0].metadata.insert("weight".to_owned(), "0".to_owned());
        all[1].metadata.insert("weight".to_owned(), "3".to_owned());
        let mut counts = [0; 3];
        for step in 0..400 {
            let chance = f64::from(step) / 400.0;
            counts[balance
                .choose(Strategy::WeightedRandom, &all, None, chance)
                .unwrap()] += 1;
        }
        assert_eq!(counts, [0, 300, 100]);
    }

    #[test]
    fn a_key_stays_where_it_is_when_another_instance_leaves() {
        let mut balance = Balance::default();
        let all = instances(8);
        let mut moved = 0;
        for key in 0..1000 {
            let key = format!("user-{key}");
            let before = balance.choose(Strategy::ConsistentHash, &all, Some(&key), 0.0);
            let after = balance.choose(Strategy::ConsistentHash, &all[..7], Some(&key), 0.0);
            moved += usize::from(before != after);
            assert!(before == after || before == Some(7));
        }
        assert!((60..200).contains(&moved), "{moved}");
    }

    #[test]
    fn instances_that_left_are_forgotten() {
        let mut balance = Balance::default();
        for number in 0..10_000 {
            let one = vec![Instance::fixed("users", &format!("h{number}:1"))];
            balance.began(&one[0].id, &one);
            balance.ended(&one[0].id);
        }
        assert!(balance.calls.len() <= 20);
    }
}
