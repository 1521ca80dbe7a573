//! Figures for people, as `kubectl get` shows them.

use crate::{
    api::{DisplayStatus, FiguresStatus, MetricsStatus, VersionStatus},
    model::{Figures, VersionFigures},
};

/// `33.33%` from hundredths of a per cent.
pub fn rate(basis_points: i64) -> String {
    format!("{}.{:02}%", basis_points / 100, basis_points % 100)
}

/// A duration with three significant digits (`0.85 ms`, `412 ms`, `1.24 s`), from a minute on `2m 05s` or `1h 02m`.
pub fn duration(micros: i64) -> String {
    let micros = micros.max(0);
    // Each limit is where rounding would reach the next unit or digit.
    match micros {
        0..9_995 => scaled(micros, 1_000, 2, "ms"),
        9_995..99_950 => scaled(micros, 1_000, 1, "ms"),
        99_950..999_500 => scaled(micros, 1_000, 0, "ms"),
        999_500..9_995_000 => scaled(micros, 1_000_000, 2, "s"),
        9_995_000..59_950_000 => scaled(micros, 1_000_000, 1, "s"),
        _ => {
            let seconds = (micros + 500_000) / 1_000_000;
            if seconds < 3_600 {
                format!("{}m {:02}s", seconds / 60, seconds % 60)
            } else {
                let minutes = (seconds + 30) / 60;
                format!("{}h {:02}m", minutes / 60, minutes % 60)
            }
        }
    }
}

/// `value / unit` with so many decimals, rounded half up, without floating point.
fn scaled(value: i64, unit: i64, decimals: u32, name: &str) -> String {
    let power = 10_i64.pow(decimals);
    let rounded = (value * power + unit / 2) / unit;
    if decimals == 0 {
        return format!("{rounded} {name}");
    }
    let width = decimals as usize;
    format!("{}.{:0width$} {name}", rounded / power, rounded % power)
}

/// The figures as the status shows them to machines; the time of the last change is left open.
pub fn metrics(figures: &Figures, versions: &[VersionFigures]) -> MetricsStatus {
    MetricsStatus {
        figures: figures_status(figures),
        by_version: versions
            .iter()
            .map(|version| VersionStatus {
                version: version.version,
                figures: figures_status(&version.figures),
            })
            .collect(),
        updated_at: None,
    }
}

/// The same for people.
pub fn display(figures: &Figures) -> DisplayStatus {
    DisplayStatus {
        failure_rate: figures.failure_rate_basis_points.map(rate),
        p50: figures.p50_microseconds.map(duration),
        p90: figures.p90_microseconds.map(duration),
        p99: figures.p99_microseconds.map(duration),
    }
}

fn figures_status(figures: &Figures) -> FiguresStatus {
    FiguresStatus {
        total_runs: figures.total_runs,
        succeeded_runs: figures.succeeded_runs,
        failed_runs: figures.failed_runs,
        in_progress_runs: figures.in_progress_runs,
        failure_rate_basis_points: figures.failure_rate_basis_points,
        p50_microseconds: figures.p50_microseconds,
        p90_microseconds: figures.p90_microseconds,
        p99_microseconds: figures.p99_microseconds,
        total_logs: figures.total_logs,
        last_run_time: figures.last_run_time.map(Into::into),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_two_decimals() {
        assert_eq!(rate(3333), "33.33%");
        assert_eq!(rate(0), "0.00%");
        assert_eq!(rate(5), "0.05%");
        assert_eq!(rate(10_000), "100.00%");
    }

    #[test]
    fn a_duration_is_short_and_rounds_into_the_next_unit() {
        for (micros, text) in [
            (0, "0.00 ms"),
            (850, "0.85 ms"),
            (5_314, "5.31 ms"),
            (9_994, "9.99 ms"),
            (9_996, "10.0 ms"),
            (53_140, "53.1 ms"),
            (99_960, "100 ms"),
            (412_300, "412 ms"),
            (999_499, "999 ms"),
            (999_500, "1.00 s"),
            (1_240_000, "1.24 s"),
            (12_449_999, "12.4 s"),
            (59_949_999, "59.9 s"),
            (59_950_000, "1m 00s"),
            (125_000_000, "2m 05s"),
            (3_725_000_000, "1h 02m"),
        ] {
            assert_eq!(duration(micros), text, "{micros}");
        }
    }

    #[test]
    fn a_script_without_ended_runs_shows_no_rate_and_no_percentile() {
        assert_eq!(display(&Figures::default()), DisplayStatus::default());
        let figures = Figures {
            total_runs: 3,
            succeeded_runs: 2,
            failed_runs: 1,
            failure_rate_basis_points: Some(3333),
            p90_microseconds: Some(412_000),
            ..Figures::default()
        };
        let shown = display(&figures);
        assert_eq!(shown.failure_rate.as_deref(), Some("33.33%"));
        assert_eq!(shown.p90.as_deref(), Some("412 ms"));
        assert_eq!(shown.p50, None);
        assert_eq!(
            metrics(&figures, &[]).figures.failure_rate_basis_points,
            Some(3333)
        );
    }
}
