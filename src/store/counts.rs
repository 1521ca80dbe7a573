//! Figures from counts.

use super::{StoreError, digest::Percentiles, optional_time, rows::Fields};
use crate::model::{Figures, RunStatus, failure_rate_basis_points};

/// Counts from which figures are made.
#[derive(Default)]
pub struct Counts {
    /// Successful runs.
    pub succeeded: i64,
    /// Failed runs.
    pub failed: i64,
    /// Runs that have not ended.
    pub in_progress: i64,
    /// Log lines.
    pub logs: i64,
    /// When the last one began.
    pub last_run_at: Option<i64>,
}

impl Counts {
    /// The figures.
    pub fn figures(&self, percentiles: Percentiles) -> Result<Figures, StoreError> {
        let [p50, p90, p99] = percentiles;
        Ok(Figures {
            total_runs: self.succeeded + self.failed + self.in_progress,
            succeeded_runs: self.succeeded,
            failed_runs: self.failed,
            in_progress_runs: self.in_progress,
            failure_rate_basis_points: failure_rate_basis_points(self.succeeded, self.failed),
            p50_microseconds: p50,
            p90_microseconds: p90,
            p99_microseconds: p99,
            total_logs: self.logs,
            last_run_time: optional_time(self.last_run_at)?,
        })
    }

    /// Adds a row of the lifetime totals of a version.
    pub fn add(&mut self, row: &impl Fields) -> Result<(), StoreError> {
        self.succeeded += row.number("succeeded")?;
        self.failed += row.number("failed")?;
        self.logs += row.number("lines")?;
        self.last_run_at = self.last_run_at.max(row.optional_number("last_run_at")?);
        Ok(())
    }

    /// Takes the counts of a group of runs with this status.
    pub fn set(&mut self, status: i64, count: i64, last_run_at: Option<i64>) -> Result<(), StoreError> {
        match u8::try_from(status).ok().and_then(RunStatus::from_code) {
            Some(RunStatus::InProgress) => self.in_progress = count,
            Some(RunStatus::Success) => self.succeeded = count,
            Some(RunStatus::Failed) => self.failed = count,
            None => return Err(StoreError::Corrupt(format!("the run status {status}"))),
        }
        self.last_run_at = self.last_run_at.max(last_run_at);
        Ok(())
    }
}
