//! What is worked out once per set so that a request only looks it up: drawing by weight (alias method), taking turns
//! by weight (stripes), and the consistent hash (Maglev). Pure functions of names and weights: no state, no health.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Draws a position with a probability in proportion to its weight, in constant time.
#[derive(Debug)]
pub(super) enum Draw {
    /// All weights are the same.
    Uniform(u32),
    /// For each position: below the threshold (of 2^32) it is itself, else its alias.
    Alias(Vec<(u64, u32)>),
}

impl Draw {
    pub(super) fn new(weights: &[u32]) -> Self {
        let count = weights.len();
        if weights.windows(2).all(|pair| pair[0] == pair[1]) {
            return Draw::Uniform(u32::try_from(count).unwrap_or(u32::MAX));
        }
        // Vose's method in integers: every position holds `total` of probability in units of 1/(count × total).
        let total: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
        let mut left: Vec<u128> = weights
            .iter()
            .map(|&weight| u128::from(weight) * count as u128)
            .collect();
        let mut table = vec![(1u64 << 32, 0u32); count];
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..count).partition(|&i| left[i] < total);
        while let (Some(poor), Some(&rich)) = (small.pop(), large.last()) {
            table[poor] = (((left[poor] << 32) / total) as u64, rich as u32);
            left[rich] -= total - left[poor];
            if left[rich] < total {
                large.pop();
                small.push(rich);
            }
        }
        Draw::Alias(table)
    }

    /// A position by weight; `random` gives all the chance needed.
    #[inline]
    pub(super) fn one(&self, random: u64) -> usize {
        match self {
            Draw::Uniform(count) => scale(random as u32, *count),
            Draw::Alias(table) => {
                let position = scale(random as u32, table.len() as u32);
                let (threshold, alias) = table[position];
                if random >> 32 < threshold {
                    position
                } else {
                    alias as usize
                }
            }
        }
    }

    /// Two different positions; there are at least two. The first is drawn by weight.
    #[inline]
    pub(super) fn two(&self, random: u64) -> (usize, usize) {
        match self {
            Draw::Uniform(count) => {
                let first = scale(random as u32, *count);
                let second = scale((random >> 32) as u32, count - 1);
                (first, second + usize::from(second >= first))
            }
            Draw::Alias(table) => {
                let first = self.one(random);
                let mut random = random;
                for _ in 0..3 {
                    random = mix(random);
                    let second = self.one(random);
                    if second != first {
                        return (first, second);
                    }
                }
                (first, (first + 1) % table.len())
            }
        }
    }
}

/// A random 32 bits as a position below `count`.
#[inline]
fn scale(random: u32, count: u32) -> usize {
    ((u64::from(random) * u64::from(count)) >> 32) as usize
}

/// More chance from chance (the finisher of splitmix64).
#[inline]
pub(super) fn mix(random: u64) -> u64 {
    let mut z = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The longest list of turns; heavier sums of weights are rounded to it.
const TURNS: u64 = 16_384;

/// The order in which endpoints take turns: each as often as its weight says, spread as evenly as can be.
pub(super) fn stripes(weights: &[u32]) -> Vec<u32> {
    let divisor = weights.iter().fold(0, |a, &b| gcd(a, b)).max(1);
    let total: u64 = weights
        .iter()
        .map(|&weight| u64::from(weight / divisor))
        .sum();
    let mut turns: Vec<(f64, u32)> = Vec::new();
    for (position, &weight) in weights.iter().enumerate() {
        let weight = u64::from(weight / divisor);
        let count = if total <= TURNS {
            weight
        } else {
            (weight * TURNS / total).max(1)
        };
        // Its k-th turn belongs in the middle of the k-th of `count` equal parts of the round.
        turns.extend((0..count).map(|k| ((k as f64 + 0.5) / count as f64, position as u32)));
    }
    turns.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    turns.into_iter().map(|(_, position)| position).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The consistent hash of "Maglev: a fast and reliable software network load balancer" (NSDI 2016): every data plane
/// with the same addresses and weights builds the same table, in whatever order it learned of them, in every release.
#[derive(Debug)]
pub(super) struct Maglev {
    /// Positions in the set. A set of more than 65,535 endpoints hashes over the first so many addresses.
    table: Vec<u16>,
}

/// Both are prime. The small one is enough for an even share (within 2 %) of so few, and fits the nearest caches.
const SMALL: usize = 5_003;
const LARGE: usize = 65_537;
const SMALL_UP_TO: usize = 50;

impl Maglev {
    /// `names` are what identifies the endpoints everywhere: their addresses.
    pub(super) fn new(names: &[String], weights: &[u32]) -> Self {
        let size = if names.len() <= SMALL_UP_TO {
            SMALL
        } else {
            LARGE
        };
        let mut order: Vec<usize> = (0..names.len().min(usize::from(u16::MAX))).collect();
        order.sort_by(|&a, &b| names[a].cmp(&names[b]));
        let heaviest = u64::from(weights.iter().copied().max().unwrap_or(1).max(1));
        let mut claims: Vec<Claim> = order
            .iter()
            .map(|&position| Claim::new(position, &names[position], size))
            .collect();
        let mut table = vec![u16::MAX; size];
        let mut filled = 0;
        let mut round = 0u64;
        while filled < size && !claims.is_empty() {
            round += 1;
            for claim in &mut claims {
                // Lighter ones sit rounds out, evenly.
                if round * u64::from(weights[claim.position]) < claim.due {
                    continue;
                }
                claim.due += heaviest;
                let slot = claim.next_free(&table);
                table[slot] = claim.position as u16;
                filled += 1;
                if filled == size {
                    break;
                }
            }
        }
        Maglev { table }
    }

    pub(super) fn slot(&self, key: u64) -> usize {
        (key % self.table.len() as u64) as usize
    }

    /// The positions for a slot, best first, with repetitions, without end.
    pub(super) fn along(&self, slot: usize) -> impl Iterator<Item = usize> {
        self.table[slot..]
            .iter()
            .chain(self.table.iter())
            .map(|&position| usize::from(position))
    }
}

/// One endpoint on its way through its own permutation of the table.
struct Claim {
    position: usize,
    slot: usize,
    skip: usize,
    due: u64,
}

impl Claim {
    fn new(position: usize, name: &str, size: usize) -> Self {
        let offset = xxh3_64_with_seed(name.as_bytes(), 0) % size as u64;
        let skip = xxh3_64_with_seed(name.as_bytes(), 1) % (size as u64 - 1) + 1;
        Claim {
            position,
            slot: offset as usize,
            skip: skip as usize,
            due: 0,
        }
    }

    /// The size is prime, so every skip visits every slot: as long as one is free, this ends.
    fn next_free(&mut self, table: &[u16]) -> usize {
        loop {
            let slot = self.slot;
            self.slot = (self.slot + self.skip) % table.len();
            if table[slot] == u16::MAX {
                return slot;
            }
        }
    }
}

/// The key of a request for the `hash` policy: the same on every data plane and in every release.
pub fn hash_key(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(count: usize) -> Vec<String> {
        (1..=count)
            .map(|last| format!("10.0.0.{last}:7000"))
            .collect()
    }

    fn lookup(maglev: &Maglev, key: u64) -> usize {
        maglev.along(maglev.slot(key)).next().unwrap()
    }

    /// These values are a promise between data planes of different releases: never change them.
    #[test]
    fn the_hash_is_the_same_in_every_process_and_release() {
        assert_eq!(
            hash_key(b""),
            0x2d06_8005_38d3_94c2,
            "as published for XXH3"
        );
        let maglev = Maglev::new(&names(5), &[1; 5]);
        let found = [
            "",
            "a",
            "user-1",
            "user-2",
            "user-3",
            "/orders/7",
            "10.1.2.3",
        ]
        .map(|key| lookup(&maglev, hash_key(key.as_bytes())));
        assert_eq!(found, [3, 1, 3, 4, 4, 3, 0]);
        let print = |count, weights: &[u32]| {
            let table = Maglev::new(&names(count), weights).table;
            xxh3_64(
                &table
                    .iter()
                    .flat_map(|position| position.to_le_bytes())
                    .collect::<Vec<_>>(),
            )
        };
        let prints = [print(5, &[1; 5]), print(3, &[1, 2, 5]), print(60, &[1; 60])];
        assert_eq!(
            prints,
            [
                0x0b0b_3650_83ec_a91d,
                0xc172_7c91_494c_5297,
                0xeda5_6b23_ad4d_18da
            ]
        );
    }

    #[test]
    fn the_order_of_endpoints_does_not_matter_to_the_hash() {
        let straight = Maglev::new(&names(7), &[1; 7]);
        let mut turned = names(7);
        turned.reverse();
        let turned = Maglev::new(&turned, &[1; 7]);
        assert!((0..1000).all(|key| lookup(&straight, key) == 6 - lookup(&turned, key)));
    }

    #[test]
    fn removing_one_of_ten_moves_few_keys_besides_its_own() {
        let before = Maglev::new(&names(10), &[1; 10]);
        for removed in 0..10 {
            let mut left = names(10);
            left.remove(removed);
            let after = Maglev::new(&left, &[1; 9]);
            let others = |&key: &u64| lookup(&before, key) != removed;
            let keys: Vec<u64> = (0..5003).filter(others).collect();
            let moved = keys
                .iter()
                .filter(|&&key| names(10)[lookup(&before, key)] != left[lookup(&after, key)])
                .count();
            assert!(moved * 100 <= keys.len() * 15, "{moved} of {}", keys.len());
        }
    }

    #[test]
    fn the_hash_spreads_by_weight_in_both_table_sizes() {
        for count in [3usize, 50, 60] {
            let weights: Vec<u32> = (0..count).map(|i| 1 + (i % 3) as u32).collect();
            let total: u32 = weights.iter().sum();
            let maglev = Maglev::new(&names(count), &weights);
            for (position, &weight) in weights.iter().enumerate() {
                let share = maglev
                    .table
                    .iter()
                    .filter(|&&p| usize::from(p) == position)
                    .count() as f64
                    / maglev.table.len() as f64;
                let wanted = f64::from(weight) / f64::from(total);
                assert!(
                    (share / wanted - 1.0).abs() < 0.05,
                    "{position} of {count}: {share} not {wanted}"
                );
            }
        }
    }

    #[test]
    fn turns_are_spread_evenly() {
        assert_eq!(stripes(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(stripes(&[2, 4, 2]), stripes(&[1, 2, 1]));
        let turns = stripes(&[4, 2, 1]);
        assert_eq!(turns.len(), 7);
        assert!(
            !turns
                .windows(3)
                .any(|three| three.iter().all(|&p| p == three[0])),
            "{turns:?}"
        );
    }

    proptest! {
        #[test]
        fn everybody_gets_as_many_turns_as_its_weight_says(weights in prop::collection::vec(1u32..40, 1..12)) {
            let divisor = weights.iter().fold(0, |a, &b| gcd(a, b));
            let turns = stripes(&weights);
            for (position, &weight) in weights.iter().enumerate() {
                prop_assert_eq!(turns.iter().filter(|&&p| p == position as u32).count() as u32, weight / divisor);
            }
        }

        #[test]
        fn draws_follow_the_weights(weights in prop::collection::vec(1u32..10, 2..8), seed: u64) {
            let draw = Draw::new(&weights);
            let mut generator = fastrand::Rng::with_seed(seed);
            let mut counts = vec![0u32; weights.len()];
            const DRAWS: u32 = 20_000;
            for _ in 0..DRAWS {
                counts[draw.one(generator.u64(..))] += 1;
                let (first, second) = draw.two(generator.u64(..));
                prop_assert!(first != second && first < weights.len() && second < weights.len());
            }
            let total: u32 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(&weights) {
                let wanted = f64::from(DRAWS) * f64::from(*weight) / f64::from(total);
                prop_assert!((f64::from(*count) - wanted).abs() < 6.0 * wanted.sqrt() + 5.0, "{} not {}", count, wanted);
            }
        }
    }
}
