//! Percentiles over many digests and single values at once.

use super::{
    StoreError,
    digest::{Digest, Percentiles},
};

/// Single values that are kept as such.
const SINGLE: usize = 100_000;

/// The values of any number of digests. They are not merged into one another, so nothing is lost beyond what each has
/// lost already; digests of few values hold these themselves, and then the percentiles are exact.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Mean and weight.
    centroids: Vec<(f64, f64)>,
    count: f64,
    range: Option<(f64, f64)>,
    singles: usize,
    /// Values beyond those that are kept as such.
    more: Digest,
    has_more: bool,
}

impl Summary {
    /// Adds a value.
    #[allow(clippy::cast_precision_loss)] // microseconds below 2^53 are 285 years
    pub fn add(&mut self, value: i64) {
        if self.singles >= SINGLE {
            self.has_more = true;
            return self.more.add(value);
        }
        self.singles += 1;
        let value = value as f64;
        self.put(value, 1.0, value, value);
    }

    /// Whether each value is there as it was.
    #[allow(clippy::float_cmp)] // a single value weighs exactly 1
    pub fn is_exact(&self) -> bool {
        !self.has_more && self.centroids.iter().all(|(_, weight)| *weight == 1.0)
    }

    /// Adds what another has.
    pub fn join(&mut self, other: Self) {
        if let Some((min, max)) = other.range {
            other
                .centroids
                .iter()
                .for_each(|&(mean, weight)| self.put(mean, weight, min, max));
        }
        self.more.merge(other.more);
        self.has_more |= other.has_more;
    }

    /// Adds a digest as it is stored.
    pub fn add_digest(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        Digest::visit(bytes, |mean, weight, (min, max)| self.put(mean, weight, min, max))
    }

    fn put(&mut self, mean: f64, weight: f64, min: f64, max: f64) {
        self.centroids.push((mean, weight));
        self.count += weight;
        let (low, high) = self.range.unwrap_or((min, max));
        self.range = Some((low.min(min), high.max(max)));
    }

    /// P50, P90 and P99; none of no values.
    #[allow(clippy::cast_possible_truncation)] // they lie between values that were integers
    pub fn percentiles(mut self) -> Percentiles {
        if self.has_more {
            let more = std::mem::take(&mut self.more).encode();
            // It is read as it was just written.
            let _ = self.add_digest(&more);
        }
        // Each digest's are sorted already, which this sort makes use of.
        self.centroids.sort_by(|a, b| a.0.total_cmp(&b.0));
        [0.5, 0.9, 0.99].map(|q| {
            self.at_rank((q * self.count).ceil().max(1.0))
                .map(|v| v.round() as i64)
        })
    }

    /// The value of this rank (from 1). A centroid's mean is taken for the value in its middle; between two middles the
    /// values are taken to lie evenly.
    fn at_rank(&self, rank: f64) -> Option<f64> {
        let (min, max) = self.range?;
        let wanted = rank - 0.5;
        let (mut position, mut value, mut before) = (0.0, min, 0.0);
        for &(mean, weight) in &self.centroids {
            let middle = before + weight / 2.0;
            if wanted <= middle {
                let share = if middle > position {
                    (wanted - position) / (middle - position)
                } else {
                    1.0
                };
                return Some(value + (mean - value) * share);
            }
            (position, value) = (middle, mean);
            before += weight;
        }
        let share = (wanted - position) / (self.count - position).max(f64::MIN_POSITIVE);
        Some(value + (max - value) * share.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::digest::exact_percentiles;

    #[test]
    fn few_values_are_exact_also_from_digests() {
        let mut values: Vec<i64> = (0..240).map(|n| (n * 7_919) % 1_009).collect();
        let mut summary = Summary::default();
        for (n, chunk) in values.chunks(60).enumerate() {
            let mut digest = Digest::default();
            for &value in chunk {
                if n == 0 {
                    summary.add(value);
                } else {
                    digest.add(value);
                }
            }
            summary.add_digest(&digest.encode()).unwrap();
        }
        assert_eq!(summary.percentiles(), exact_percentiles(&mut values));
        assert_eq!(Summary::default().percentiles(), [None; 3]);
        assert!(Summary::default().add_digest(&[1, 2, 3]).is_err());
    }

    #[test]
    fn many_digests_stay_within_one_per_cent() {
        let mut random = fastrand::Rng::with_seed(3);
        let (mut summary, mut values) = (Summary::default(), Vec::new());
        for hour in 0..50 {
            let mut digest = Digest::default();
            for _ in 0..2_000 {
                // Two kinds of runs, and hours that differ.
                let base = if random.u8(..) < 40 { 90_000.0 } else { 1_500.0 };
                #[allow(clippy::cast_possible_truncation)]
                let value = (base * (1.0 + random.f64()) * (1.0 + f64::from(hour) / 50.0)) as i64;
                digest.add(value);
                values.push(value);
            }
            summary.add_digest(&digest.encode()).unwrap();
        }
        let exact = exact_percentiles(&mut values);
        for (estimate, exact) in summary.percentiles().into_iter().zip(exact) {
            let (estimate, exact) = (estimate.unwrap(), exact.unwrap());
            assert!((estimate - exact).abs() * 100 <= exact, "{estimate} for {exact}");
        }
    }
}
