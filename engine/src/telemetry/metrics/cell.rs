//! The smallest parts of metrics: counters, gauges and histograms that exactly one worker writes.
//!
//! A cell is an atomic only so that the scrape may read it from another thread. Its writer is alone, so it adds by a
//! plain load and a plain store (OBS-308): no lock prefix, no exchange loop, no cache line that two workers write.
//! `Shared` is the exception, for what happens rarely and on any thread.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::text::{Labels, Text};

/// A number that only its own worker changes.
#[derive(Debug, Default)]
pub(crate) struct Cell(AtomicU64);

impl Cell {
    pub(crate) fn add(&self, amount: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// For gauges: the sum over workers is right even where one worker opened and another closed.
    pub(crate) fn subtract(&self, amount: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_sub(amount), Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number for rare events, which any thread may change.
#[derive(Debug, Default)]
pub(crate) struct Shared(AtomicU64);

impl Shared {
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One worker's share of something, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Shard<T>(pub(crate) T);

/// A shard per worker.
pub(crate) fn shards<T: Default>(workers: usize) -> Box<[Shard<T>]> {
    (0..workers).map(|_| Shard::default()).collect()
}

/// The sum over workers of one cell each. Wraps, so that a gauge whose worker's part is negative comes out right.
pub(crate) fn sum<T>(shards: &[Shard<T>], cell: impl Fn(&T) -> &Cell) -> u64 {
    shards
        .iter()
        .fold(0, |sum, shard| sum.wrapping_add(cell(&shard.0).value()))
}

/// Upper bounds in nanoseconds (OBS-302) and as they are written.
const DURATIONS: [(u64, &str); 12] = [
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1"),
    (2_500_000_000, "2.5"),
    (5_000_000_000, "5"),
    (10_000_000_000, "10"),
    (30_000_000_000, "30"),
];

/// How long something took.
#[derive(Debug, Default)]
pub(crate) struct Durations {
    /// Not cumulative; the last one is beyond every bound.
    buckets: [Cell; DURATIONS.len() + 1],
    nanoseconds: Cell,
}

impl Durations {
    pub(crate) fn observe(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        // Most answers come within the first bounds: a scan from below beats a search.
        let bucket = DURATIONS
            .iter()
            .position(|(bound, _)| nanoseconds <= *bound)
            .unwrap_or(DURATIONS.len());
        if let Some(cell) = self.buckets.get(bucket) {
            cell.add(1);
        }
        self.nanoseconds.add(nanoseconds);
    }
}

/// What stands in `Durations` at one moment, or the sum of several.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DurationsRead {
    pub(crate) buckets: [u64; DurationsRead::BUCKETS],
    pub(crate) nanoseconds: u64,
}

impl DurationsRead {
    pub(crate) const BUCKETS: usize = DURATIONS.len() + 1;

    pub(crate) fn of(durations: &Durations) -> DurationsRead {
        DurationsRead {
            buckets: durations.buckets.each_ref().map(Cell::value),
            nanoseconds: durations.nanoseconds.value(),
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub(crate) fn add(&mut self, other: &DurationsRead) {
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine = mine.wrapping_add(theirs);
        }
        self.nanoseconds = self.nanoseconds.wrapping_add(other.nanoseconds);
    }

    pub(crate) fn since(&self, before: &DurationsRead) -> DurationsRead {
        let mut since = *self;
        for (now, before) in since.buckets.iter_mut().zip(before.buckets) {
            *now = now.saturating_sub(before);
        }
        since.nanoseconds = since.nanoseconds.saturating_sub(before.nanoseconds);
        since
    }

    #[cfg(test)]
    pub(crate) fn bounds() -> Vec<u64> {
        DURATIONS.iter().map(|(bound, _)| *bound).collect()
    }
}

/// Upper bounds in bytes, each four times the one before: 256 B to 256 MiB.
const SIZES: [&str; 11] = [
    "256",
    "1024",
    "4096",
    "16384",
    "65536",
    "262144",
    "1048576",
    "4194304",
    "16777216",
    "67108864",
    "268435456",
];

/// How large something was.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    buckets: [Cell; SIZES.len() + 1],
    bytes: Cell,
}

impl Sizes {
    pub(crate) fn observe(&self, bytes: u64) {
        // The number of bits of `bytes - 1` tells the power of four: 256 = 4^4 is the first bound.
        let bits = u64::BITS - bytes.saturating_sub(1).leading_zeros();
        let bucket = bits.saturating_sub(8).div_ceil(2).min(SIZES.len() as u32);
        if let Some(cell) = self.buckets.get(bucket as usize) {
            cell.add(1);
        }
        self.bytes.add(bytes);
    }
}

/// A histogram's reading, summed over the workers that have one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    buckets: Vec<u64>,
    sum: u64,
}

impl Reading {
    pub(crate) fn add_durations(&mut self, durations: &Durations) {
        self.add(&durations.buckets, &durations.nanoseconds);
    }

    pub(crate) fn add_sizes(&mut self, sizes: &Sizes) {
        self.add(&sizes.buckets, &sizes.bytes);
    }

    fn add(&mut self, buckets: &[Cell], sum: &Cell) {
        self.buckets.resize(buckets.len(), 0);
        for (total, cell) in self.buckets.iter_mut().zip(buckets) {
            *total = total.wrapping_add(cell.value());
        }
        self.sum = self.sum.wrapping_add(sum.value());
    }

    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Of durations; zero without any.
    pub(crate) fn mean(&self) -> Duration {
        Duration::from_nanos(self.sum / self.count().max(1))
    }

    /// The samples of a histogram in seconds.
    pub(crate) fn write_durations(&self, text: &mut Text, labels: Labels<'_>) {
        let sum = format!(
            "{}.{:09}",
            self.sum / 1_000_000_000,
            self.sum % 1_000_000_000
        );
        self.write(
            text,
            labels,
            DURATIONS.iter().map(|(_, bound)| *bound),
            &sum,
        );
    }

    /// The samples of a histogram in bytes.
    pub(crate) fn write_sizes(&self, text: &mut Text, labels: Labels<'_>) {
        self.write(text, labels, SIZES.iter().copied(), &self.sum.to_string());
    }

    fn write<'a>(
        &self,
        text: &mut Text,
        labels: Labels<'_>,
        bounds: impl Iterator<Item = &'a str>,
        sum: &str,
    ) {
        let mut below = 0;
        for (bound, count) in bounds.zip(&self.buckets) {
            below += count;
            text.bucket(labels, bound, below);
        }
        let count = self.count();
        text.bucket(labels, "+Inf", count);
        text.part("_sum", labels, sum);
        text.part("_count", labels, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_on_a_bound_belongs_to_that_bound_and_one_beyond_does_not() {
        for (index, (bound, _)) in DURATIONS.iter().enumerate() {
            let durations = Durations::default();
            durations.observe(Duration::from_nanos(*bound));
            durations.observe(Duration::from_nanos(*bound + 1));
            assert_eq!(durations.buckets[index].value(), 1);
            assert_eq!(durations.buckets[index + 1].value(), 1);
        }
    }

    #[test]
    fn a_size_on_a_bound_belongs_to_that_bound_and_one_beyond_does_not() {
        for (index, bound) in SIZES.iter().enumerate() {
            let bound: u64 = bound.parse().expect("bounds are numbers");
            let sizes = Sizes::default();
            sizes.observe(bound);
            sizes.observe(bound + 1);
            assert_eq!(sizes.buckets[index].value(), 1, "{bound}");
            assert_eq!(sizes.buckets[index + 1].value(), 1, "{bound}");
        }
        let sizes = Sizes::default();
        sizes.observe(0);
        sizes.observe(u64::MAX);
        assert_eq!(sizes.buckets[0].value(), 1);
        assert_eq!(sizes.buckets[SIZES.len()].value(), 1);
    }

    #[test]
    fn a_gauge_that_one_worker_raised_and_another_lowered_sums_to_nothing() {
        let shards = shards::<Cell>(2);
        shards[0].0.add(1);
        shards[1].0.subtract(1);
        assert_eq!(sum(&shards, |cell| cell), 0);
    }
}
