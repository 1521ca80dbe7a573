//! t-digests of response times: what percentiles over many runs are computed from.

use tdigest::{Centroid, TDigest};

use super::StoreError;

/// Up to so many values, percentiles are computed from the values themselves.
pub const EXACT_UP_TO: i64 = 10_000;

/// Centroids kept. With 500 the relative error of P99 stays below 1 % also when a value at a time is merged.
const SIZE: usize = 500;
const FORMAT: u8 = 1;
/// Values collected before they are merged.
const BUFFER: usize = 4_096;

/// P50, P90 and P99.
pub type Percentiles = [Option<i64>; 3];

/// A summary of values, in constant space.
#[derive(Clone, Debug)]
pub struct Digest {
    merged: TDigest,
    pending: Vec<f64>,
}

impl Default for Digest {
    fn default() -> Self {
        Self {
            merged: TDigest::new_with_size(SIZE),
            pending: Vec::new(),
        }
    }
}

impl Digest {
    /// Adds one value.
    #[allow(clippy::cast_precision_loss)] // microseconds below 2^53 are 285 years
    pub fn add(&mut self, value: i64) {
        self.pending.push(value as f64);
        if self.pending.len() >= BUFFER {
            self.flush();
        }
    }

    /// Adds what another digest has seen.
    pub fn merge(&mut self, other: Self) {
        self.pending.extend(other.pending);
        self.flush();
        if !other.merged.is_empty() {
            let merged = std::mem::take(&mut self.merged);
            self.merged = TDigest::merge_digests(vec![merged, other.merged]);
        }
    }

    fn flush(&mut self) {
        if !self.pending.is_empty() {
            self.merged = self.merged.merge_unsorted(std::mem::take(&mut self.pending));
        }
    }

    /// The digest as bytes: format, size, count, sum, min, max, then mean and weight of each centroid.
    pub fn encode(mut self) -> Vec<u8> {
        self.flush();
        let digest = &self.merged;
        let (Some(min), Some(max)) = (digest.min(), digest.max()) else {
            return Vec::new();
        };
        let mut bytes = Vec::with_capacity(33 + digest.centroids().len() * 16);
        bytes.push(FORMAT);
        for number in [digest.count(), digest.sum(), min, max] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for centroid in digest.centroids() {
            bytes.extend_from_slice(&centroid.mean().to_le_bytes());
            bytes.extend_from_slice(&centroid.weight().to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut centroids = Vec::with_capacity(SIZE);
        let mut range = (0.0, 0.0);
        Self::visit(bytes, |mean, weight, ends| {
            centroids.push(Centroid::new(mean, weight));
            range = ends;
        })?;
        if centroids.is_empty() {
            return Ok(Self::default());
        }
        let (count, sum) = (number(bytes, 0), number(bytes, 1));
        Ok(Self {
            merged: TDigest::new(centroids, sum, count, Some(range.1), Some(range.0), SIZE),
            pending: Vec::new(),
        })
    }

    /// Shows mean and weight of each centroid that [`Self::encode`] wrote, with the least and the largest value.
    pub fn visit(bytes: &[u8], mut visit: impl FnMut(f64, f64, (f64, f64))) -> Result<(), StoreError> {
        let wrong = || StoreError::Corrupt("a digest of response times".to_owned());
        let Some((&format, rest)) = bytes.split_first() else {
            return Ok(());
        };
        let (numbers, tail) = rest.as_chunks::<8>();
        let (heads, centroids) = numbers.split_at_checked(4).ok_or_else(wrong)?;
        let (centroids, odd) = centroids.as_chunks::<2>();
        let whole = format == FORMAT && tail.is_empty() && odd.is_empty() && !centroids.is_empty();
        if !whole || !numbers.iter().all(|bytes| f64::from_le_bytes(*bytes).is_finite()) {
            return Err(wrong());
        }
        let range = match heads {
            [_, _, min, max] => (f64::from_le_bytes(*min), f64::from_le_bytes(*max)),
            _ => return Err(wrong()),
        };
        for [mean, weight] in centroids {
            visit(f64::from_le_bytes(*mean), f64::from_le_bytes(*weight), range);
        }
        Ok(())
    }
}

/// One of the numbers before the centroids; 0 where there is none.
fn number(bytes: &[u8], at: usize) -> f64 {
    let bytes = bytes
        .get(1 + at * 8..9 + at * 8)
        .and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0.0, f64::from_le_bytes)
}

/// Exact percentiles, nearest rank. Sorts the values.
#[cfg(test)]
pub fn exact_percentiles(values: &mut [i64]) -> Percentiles {
    values.sort_unstable();
    [500, 900, 990]
        .map(|p| crate::model::nearest_rank(values.len(), p).and_then(|at| values.get(at).copied()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::summary::Summary;

    fn percentiles(digest: Digest) -> Percentiles {
        let mut summary = Summary::default();
        summary.add_digest(&digest.encode()).unwrap();
        summary.percentiles()
    }

    #[test]
    fn a_digest_survives_its_bytes() {
        let mut digest = Digest::default();
        (1..=50_000).for_each(|v| digest.add(v));
        let found = percentiles(digest.clone());
        let back = Digest::decode(&digest.encode()).unwrap();
        assert_eq!(percentiles(back), found);
        let p99 = found[2].unwrap();
        assert!((49_450..=49_550).contains(&p99), "{p99}");
        assert_eq!(
            percentiles(Digest::decode(&Digest::default().encode()).unwrap()),
            [None; 3]
        );
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        let mut digest = Digest::default();
        digest.add(7);
        let bytes = digest.encode();
        assert!(Digest::decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(Digest::decode(&bytes[..33]).is_err());
        assert!(Digest::decode(&[&[9], &bytes[1..]].concat()).is_err());
    }

    #[test]
    fn merging_value_by_value_keeps_the_tail_within_one_per_cent() {
        // The worst way to build one: a merge for each run, as a slow script does.
        let mut digest = Digest::default();
        let mut values: Vec<i64> = (1..=20_000u32)
            .map(|n| {
                let mixed = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                let x = f64::from(u32::try_from(mixed).unwrap()) / f64::from(1u32 << 24);
                #[allow(clippy::cast_possible_truncation)]
                let micros = ((1.0 / (1.0 - x).max(1e-7)).powf(0.8) * 1_000.0) as i64;
                micros
            })
            .collect();
        for &value in &values {
            let mut one = Digest::default();
            one.add(value);
            digest.merge(one);
        }
        let exact = exact_percentiles(&mut values)[2].unwrap();
        let estimate = percentiles(digest)[2].unwrap();
        assert!((estimate - exact).abs() * 100 <= exact, "{estimate} for {exact}");
    }
}
