//! t-digests of response times: what percentiles over many runs are computed from.

use std::mem;

use tdigest::{Centroid, TDigest};

use super::StoreError;
use crate::model::nearest_rank;

/// Up to so many values, percentiles are computed from the values themselves.
const LIMIT: usize = 10_000;

/// Centroids kept, about 6 KiB. With half as many the relative error of P99 comes near 1 %, which no figure may have.
const SIZE: usize = 1_000;
/// Values collected before they are merged.
const BUFFER: usize = 4_096;

const SKETCH: u8 = 1;
const EXACT: u8 = 2;

/// P50, P90 and P99.
pub type Percentiles = [Option<i64>; 3];
const PER_MILLE: [usize; 3] = [500, 900, 990];

/// A summary of values in bounded space: the values themselves while they are at most [`LIMIT`], then a t-digest.
#[derive(Clone, Debug, Default)]
pub struct Digest {
    summary: Summary,
    pending: Vec<i64>,
}

#[derive(Clone, Debug)]
enum Summary {
    /// Sorted.
    Exact(Vec<i64>),
    Sketch(TDigest),
}

impl Default for Summary {
    fn default() -> Self {
        Self::Exact(Vec::new())
    }
}

impl Digest {
    /// Adds one value.
    pub fn add(&mut self, value: i64) {
        self.pending.push(value);
        if self.pending.len() >= BUFFER {
            self.flush();
        }
    }

    /// Adds what another digest has seen.
    pub fn merge(&mut self, other: Self) {
        let mine = mem::take(self);
        *self = Self::merged([mine, other]);
    }

    /// What all of them have seen. Better than merging one after the other: each t-digest is compressed once.
    pub fn merged(digests: impl IntoIterator<Item = Self>) -> Self {
        let (mut values, mut sketches) = (Vec::new(), Vec::new());
        for digest in digests {
            values.extend(digest.pending);
            match digest.summary {
                Summary::Exact(more) if values.is_empty() => values = more,
                Summary::Exact(more) => values.extend(more),
                Summary::Sketch(sketch) => sketches.push(sketch),
            }
        }
        // What is sorted already, and mostly little is not, this merges in one pass.
        #[allow(clippy::stable_sort_primitive)]
        values.sort();
        let sketch = match sketches.len() {
            0 if values.len() <= LIMIT => {
                return Self {
                    summary: Summary::Exact(values),
                    pending: Vec::new(),
                };
            }
            0 => TDigest::new_with_size(SIZE),
            1 => sketches.swap_remove(0),
            _ => TDigest::merge_digests(sketches),
        };
        let sketch = if values.is_empty() {
            sketch
        } else {
            sketch.merge_sorted(values.into_iter().map(float).collect())
        };
        Self {
            summary: Summary::Sketch(sketch),
            pending: Vec::new(),
        }
    }

    fn flush(&mut self) {
        if !self.pending.is_empty() {
            let mine = mem::take(self);
            *self = Self::merged([mine]);
        }
    }

    /// The percentiles, exact up to [`LIMIT`] values; none of no values.
    #[allow(clippy::cast_possible_truncation)] // they lie between values that were integers
    pub fn percentiles(mut self) -> Percentiles {
        self.flush();
        match self.summary {
            Summary::Exact(values) => of_sorted(&values),
            Summary::Sketch(sketch) => [0.5, 0.9, 0.99].map(|q| {
                let value = sketch.estimate_quantile(q)?;
                Some(value.round() as i64)
            }),
        }
    }

    /// The digest as bytes; none of no values. Values as differences, of a t-digest count, sum, min, max, then mean and
    /// weight of each centroid.
    pub fn encode(mut self) -> Vec<u8> {
        self.flush();
        match &self.summary {
            Summary::Exact(values) => encode_values(values),
            Summary::Sketch(sketch) => encode_sketch(sketch),
        }
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let summary = match bytes.split_first() {
            None => Some(Summary::default()),
            Some((&EXACT, rest)) => decode_values(rest).map(Summary::Exact),
            Some((&SKETCH, rest)) => decode_sketch(rest).map(Summary::Sketch),
            Some(_) => None,
        };
        Ok(Self {
            summary: summary.ok_or_else(|| StoreError::Corrupt("a digest of response times".to_owned()))?,
            pending: Vec::new(),
        })
    }
}

#[allow(clippy::cast_precision_loss)] // microseconds below 2^53 are 285 years
fn float(value: i64) -> f64 {
    value as f64
}

fn encode_values(values: &[i64]) -> Vec<u8> {
    let Some(&first) = values.first() else {
        return Vec::new();
    };
    let mut bytes = Vec::with_capacity(1 + 8 + 2 * values.len());
    bytes.push(EXACT);
    bytes.extend_from_slice(&first.to_le_bytes());
    for pair in values.windows(2) {
        push_varint(&mut bytes, pair[1].abs_diff(pair[0]));
    }
    bytes
}

fn decode_values(bytes: &[u8]) -> Option<Vec<i64>> {
    let (first, mut rest) = bytes.split_first_chunk::<8>()?;
    let mut last = i64::from_le_bytes(*first);
    let mut values = Vec::with_capacity(1 + rest.len().min(LIMIT));
    values.push(last);
    while !rest.is_empty() {
        last = last.checked_add_unsigned(take_varint(&mut rest)?)?;
        values.push(last);
    }
    (values.len() <= LIMIT).then_some(values)
}

/// Seven bits a byte, the lowest first; all but the last byte have the highest bit.
fn push_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn encode_sketch(sketch: &TDigest) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(33 + sketch.centroids().len() * 7);
    bytes.push(SKETCH);
    let (min, max) = (sketch.min().unwrap_or_default(), sketch.max().unwrap_or_default());
    for number in [sketch.count(), sketch.sum(), min, max] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for centroid in sketch.centroids() {
        // Seven digits are a thousand times more than the mean of a centroid is good for; weights count values.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let (mean, weight) = (centroid.mean() as f32, centroid.weight() as u64);
        bytes.extend_from_slice(&mean.to_le_bytes());
        push_varint(&mut bytes, weight);
    }
    bytes
}

fn decode_sketch(bytes: &[u8]) -> Option<TDigest> {
    let (head, mut rest) = bytes.split_first_chunk::<32>()?;
    let (numbers, _) = head.as_chunks::<8>();
    let [count, sum, min, max] = *numbers.first_chunk::<4>()?;
    let [count, sum, min, max] = [count, sum, min, max].map(f64::from_le_bytes);
    let mut centroids = Vec::with_capacity(SIZE);
    while let Some((mean, after)) = rest.split_first_chunk::<4>() {
        rest = after;
        let mean = f64::from(f32::from_le_bytes(*mean));
        #[allow(clippy::cast_precision_loss)]
        let weight = take_varint(&mut rest)? as f64;
        if !mean.is_finite() || weight < 1.0 {
            return None;
        }
        centroids.push(Centroid::new(mean, weight));
    }
    let sound = [count, sum, min, max].iter().all(|n| n.is_finite());
    let whole = sound && rest.is_empty() && !centroids.is_empty();
    whole.then(|| TDigest::new(centroids, sum, count, Some(max), Some(min), SIZE))
}

/// Exact percentiles, nearest rank. Sorts the values.
pub fn exact_percentiles(values: &mut [i64]) -> Percentiles {
    values.sort_unstable();
    of_sorted(values)
}

fn of_sorted(values: &[i64]) -> Percentiles {
    PER_MILLE.map(|p| nearest_rank(values.len(), p).and_then(|at| values.get(at).copied()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_survives_its_bytes() {
        let mut digest = Digest::default();
        (1..=50_000).for_each(|v| digest.add(v));
        let percentiles = digest.clone().percentiles();
        let back = Digest::decode(&digest.encode()).unwrap();
        for (back, before) in back.percentiles().into_iter().zip(percentiles) {
            assert!(back.unwrap().abs_diff(before.unwrap()) <= 1);
        }
        let p99 = percentiles[2].unwrap();
        assert!((49_450..=49_550).contains(&p99), "{p99}");
        assert_eq!(
            Digest::decode(&Digest::default().encode()).unwrap().percentiles(),
            [None; 3]
        );
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        let mut digest = Digest::default();
        (0..10_001).for_each(|v| digest.add(v));
        let bytes = digest.encode();
        assert_eq!(bytes[0], SKETCH);
        assert!(Digest::decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(Digest::decode(&bytes[..33]).is_err());
        assert!(Digest::decode(&[EXACT, 1]).is_err());
        assert!(Digest::decode(&[EXACT, 0, 0, 0, 0, 0, 0, 0, 0, 0x80]).is_err());
        assert!(Digest::decode(&[&[EXACT][..], &[0xff; 19]].concat()).is_err());
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
        let estimate = digest.percentiles()[2].unwrap();
        assert!((estimate - exact).abs() * 100 <= exact, "{estimate} for {exact}");
    }

    /// Log-normal response times, microseconds.
    fn log_normal(random: &mut fastrand::Rng) -> i64 {
        let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * random.f64()).cos();
        #[allow(clippy::cast_possible_truncation)]
        let micros = (9.0 + 1.2 * normal).exp() as i64;
        micros
    }

    /// A cache that answers four of five calls, and a service behind it.
    fn bimodal(random: &mut fastrand::Rng) -> i64 {
        if random.f64() < 0.8 {
            500 + log_normal(random) / 100
        } else {
            400_000 + 10 * log_normal(random)
        }
    }

    #[test]
    fn up_to_ten_thousand_values_are_exact_however_they_came() {
        let mut random = fastrand::Rng::with_seed(3);
        for count in [1, 2, 99, 101, 5_000, 9_999, 10_000] {
            let mut values: Vec<i64> = (0..count).map(|_| bimodal(&mut random)).collect();
            let mut parts = vec![Digest::default(); 7];
            for (n, value) in values.iter().enumerate() {
                parts[n * n % 7].add(*value);
            }
            let parts = parts.into_iter().map(|d| Digest::decode(&d.encode()).unwrap());
            let digest = Digest::decode(&Digest::merged(parts).encode()).unwrap();
            assert_eq!(
                digest.percentiles(),
                exact_percentiles(&mut values),
                "{count} values"
            );
        }
    }

    #[test]
    fn beyond_them_p99_is_within_one_per_cent_also_when_hours_versions_and_functions_are_merged() {
        for seed in 0..2 {
            for draw in [log_normal, bimodal] {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut values = Vec::new();
                // Groups of any size, each built by many commits.
                let groups = (0..24).map(|n| {
                    let mut group = Digest::default();
                    for _ in 0..n {
                        let mut commit = Digest::default();
                        for _ in 0..random.usize(1..1_000) {
                            let value = draw(&mut random);
                            values.push(value);
                            commit.add(value);
                        }
                        group.merge(commit);
                        group = Digest::decode(&group.encode()).unwrap();
                    }
                    group
                });
                let estimate = Digest::merged(groups).percentiles()[2].unwrap();
                let exact = exact_percentiles(&mut values)[2].unwrap();
                assert!(values.len() > 100_000);
                assert!((estimate - exact).abs() * 100 <= exact, "{estimate} for {exact}");
            }
        }
    }
}
