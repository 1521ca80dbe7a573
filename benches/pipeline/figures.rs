//! How far percentiles from merged digests are from the exact ones.

use scriptscope::store::digest::{Digest, Percentiles, exact_percentiles};

use crate::{
    report::{Baseline, Report, Scale},
    usage,
};

/// How response times are spread.
struct Distribution {
    name: &'static str,
    draw: fn(&mut fastrand::Rng) -> i64,
    /// Whether the bar of 1 % is for it.
    counts: bool,
}

const DISTRIBUTIONS: &[Distribution] = &[
    Distribution {
        name: "log-normal",
        draw: log_normal,
        counts: true,
    },
    Distribution {
        name: "bimodal",
        draw: bimodal,
        counts: true,
    },
    Distribution {
        name: "heavy-tailed",
        draw: heavy_tailed,
        counts: false,
    },
];

/// Response times as they are mostly, microseconds.
pub fn log_normal(random: &mut fastrand::Rng) -> i64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * random.f64()).cos();
    (9.0 + 1.2 * normal).exp() as i64
}

/// A cache that answers four of five calls, and a service behind it.
fn bimodal(random: &mut fastrand::Rng) -> i64 {
    if random.f64() < 0.8 {
        500 + log_normal(random) / 100
    } else {
        400_000 + 10 * log_normal(random)
    }
}

/// Pareto with an index of 1.1: hardly a mean.
fn heavy_tailed(random: &mut fastrand::Rng) -> i64 {
    (1_000.0 * (1.0 - random.f64()).powf(-1.0 / 1.1)) as i64
}

/// The worst relative error of P99, in per cent, over numbers of values and seeds.
pub fn digest_error(scale: Scale) {
    let largest = scale.of(3_000_000, 100_000);
    let (mut worst, mut values) = (0.0_f64, 0);
    for distribution in DISTRIBUTIONS {
        let mut errors = [0.0_f64; 3];
        for count in [20_000, 100_000, largest] {
            for seed in 0..3 {
                let found = error(distribution.draw, count, seed);
                errors = std::array::from_fn(|at| errors[at].max(found[at]));
                values += count;
            }
        }
        let [p50, p90, p99] = errors;
        eprintln!(
            "  {}: P50 {p50:.3} %, P90 {p90:.3} %, P99 {p99:.3} %",
            distribution.name
        );
        if distribution.counts {
            worst = worst.max(p99);
        }
    }
    let process = std::process::id();
    Report {
        name: "digest_error",
        value: worst,
        unit: "%",
        baseline: Baseline {
            name: "exact, nearest rank",
            value: 0.0,
        },
        ratio: 0.0,
        cpu_seconds: usage::cpu_seconds(process),
        max_rss_bytes: usage::max_rss_bytes(process),
        n: values,
    }
    .print();
}

/// Relative errors in per cent of P50, P90 and P99 of values that came by commits of up to 500 into the digests of 48 hours,
/// each stored and read with every commit, and were merged in the end.
fn error(draw: fn(&mut fastrand::Rng) -> i64, count: usize, seed: u64) -> [f64; 3] {
    const HOURS: usize = 48;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut hours = vec![Vec::new(); HOURS];
    let mut values = Vec::with_capacity(count);
    while values.len() < count {
        let mut commit = Digest::default();
        for _ in 0..random.usize(1..=500).min(count - values.len()) {
            let value = draw(&mut random);
            values.push(value);
            commit.add(value);
        }
        let hour = &mut hours[random.usize(..HOURS)];
        let mut stored = Digest::decode(hour).unwrap();
        stored.merge(commit);
        *hour = stored.encode();
    }
    let merged = Digest::merged(hours.iter().map(|bytes| Digest::decode(bytes).unwrap()));
    let (estimate, exact): (Percentiles, Percentiles) =
        (merged.percentiles(), exact_percentiles(&mut values));
    std::array::from_fn(|at| {
        let (estimate, exact) = (estimate[at].unwrap() as f64, exact[at].unwrap() as f64);
        (estimate - exact).abs() / exact * 100.0
    })
}
