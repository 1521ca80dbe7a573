//! The figures of a script: how many runs, how many failed, how long they took.

use jiff::Timestamp;
use serde::Serialize;

/// Figures over a set of runs. All durations are microseconds over successful runs; percentiles are nearest rank.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Runs begun.
    pub total_runs: i64,
    /// Runs that ended with a result.
    pub succeeded_runs: i64,
    /// Runs that failed.
    pub failed_runs: i64,
    /// Runs begun and not ended.
    pub in_progress_runs: i64,
    /// Failed runs per 10,000 ended ones; none while no run has ended.
    pub failure_rate_basis_points: Option<i64>,
    /// Half of the successful runs took at most this long.
    pub p50_microseconds: Option<i64>,
    /// 90 % of the successful runs took at most this long.
    pub p90_microseconds: Option<i64>,
    /// 99 % of the successful runs took at most this long.
    pub p99_microseconds: Option<i64>,
    /// Log lines stored.
    pub total_logs: i64,
    /// When the last run began.
    pub last_run_time: Option<Timestamp>,
}

/// Figures of one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionFigures {
    /// The version.
    pub version: i64,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// `failed / (succeeded + failed)` in hundredths of a per cent, rounded half up: 1 of 3 is 3333, shown as 33.33 %.
pub fn failure_rate_basis_points(succeeded: i64, failed: i64) -> Option<i64> {
    let ended = succeeded + failed;
    (ended > 0).then(|| (failed * 20_000 + ended) / (2 * ended))
}

/// Index (from 0) of the nearest-rank percentile `per_mille / 1000` among `count` sorted values:
/// the smallest value that at least that share of all values does not exceed.
pub fn nearest_rank(count: usize, per_mille: usize) -> Option<usize> {
    (count > 0).then(|| (count * per_mille).div_ceil(1000).clamp(1, count) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_of_three_is_33_33_per_cent() {
        assert_eq!(failure_rate_basis_points(2, 1), Some(3333));
        assert_eq!(failure_rate_basis_points(1, 2), Some(6667));
        assert_eq!(failure_rate_basis_points(0, 0), None);
        assert_eq!(failure_rate_basis_points(0, 7), Some(10_000));
        // Half up: 1 of 16 is 6.25 %, 1 of 20,000 is 0.005 %.
        assert_eq!(failure_rate_basis_points(15, 1), Some(625));
        assert_eq!(failure_rate_basis_points(19_999, 1), Some(1));
    }

    #[test]
    fn nearest_rank_is_an_observed_value() {
        assert_eq!(nearest_rank(0, 900), None);
        assert_eq!(nearest_rank(1, 990), Some(0));
        assert_eq!(nearest_rank(2, 500), Some(0));
        assert_eq!(nearest_rank(2, 900), Some(1));
        assert_eq!(nearest_rank(100, 900), Some(89));
        assert_eq!(nearest_rank(100, 990), Some(98));
        assert_eq!(nearest_rank(10_000, 990), Some(9899));
    }
}
