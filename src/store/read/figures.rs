//! Figures: lifetime ones from the totals, those of a window from rollups and rows.

use std::collections::BTreeMap;

use super::{
    Snapshot, Values, limit, push, sql,
    tally::{Question, Tally, tallies},
};
use crate::{
    model::{Figures, Filter, TimeRange, VersionFigures, failure_rate_basis_points},
    query::{Sql, micros_range, push_runs_order, push_runs_where},
    store::{StoreError, optional_time},
};

impl Tally {
    fn figures(mut self, logs: i64) -> Result<Figures, StoreError> {
        let [p50, p90, p99] = self.percentiles();
        Ok(Figures {
            total_runs: self.succeeded + self.failed + self.in_progress,
            succeeded_runs: self.succeeded,
            failed_runs: self.failed,
            in_progress_runs: self.in_progress,
            failure_rate_basis_points: failure_rate_basis_points(self.succeeded, self.failed),
            p50_microseconds: p50,
            p90_microseconds: p90,
            p99_microseconds: p99,
            total_logs: logs,
            last_run_time: optional_time(self.last)?,
        })
    }
}

/// See [`crate::store::Store::window_figures`].
pub async fn window<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    range: TimeRange,
    filter: &Filter,
) -> Result<Figures, StoreError> {
    let question = Question {
        script_id,
        window: micros_range(&range),
        filter,
        cuts: Vec::new(),
        by_day: true,
    };
    let mut tally = tallies(snapshot, &question, |_| 0)
        .await?
        .remove(&0)
        .unwrap_or_default();
    if let Some(newest) = tally
        .newest
        .clone()
        .filter(|newest| tally.last < Some(newest.end))
    {
        let begin = newest.start.max(question.window.start);
        let mut statement = sql::<S>("SELECT r.executed_at FROM runs r");
        let range = begin..newest.end.min(question.window.end);
        push_runs_where(&mut statement, script_id, &range, filter, None)?;
        push_runs_order(&mut statement, filter);
        statement.push(" LIMIT 1");
        let mut last = None;
        snapshot
            .each(statement, |row| {
                last = Some(row.number(0)?);
                Ok(())
            })
            .await?;
        tally.last = tally.last.max(last);
    }
    let logs = super::lines::count_range(snapshot, script_id, question.window).await?;
    tally.figures(logs)
}

const TOTALS: &str =
    "SELECT script_id, version, succeeded, failed, lines, last_run_at, digest FROM version_totals";

/// Adds the totals of a version; says how many lines it has.
fn add_totals(tally: &mut Tally, row: &impl Values) -> Result<i64, StoreError> {
    tally.add(row.number(2)?, row.number(3)?, row.bytes(6)?)?;
    tally.last = tally.last.max(row.optional_number(5)?);
    row.number(4)
}

/// See [`crate::store::Store::figures_of`]: lifetime figures by the numbers of the scripts.
pub async fn lifetime<S: Snapshot>(
    snapshot: &mut S,
    script_ids: &[i64],
) -> Result<BTreeMap<i64, Figures>, StoreError> {
    if script_ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut statement = sql::<S>(TOTALS);
    push_ids::<S>(&mut statement, " WHERE script_id IN (", script_ids);
    let mut sums: BTreeMap<i64, (Tally, i64)> = BTreeMap::new();
    snapshot
        .each(statement, |row| {
            let (tally, logs) = sums.entry(row.number(0)?).or_default();
            *logs += add_totals(tally, row)?;
            Ok(())
        })
        .await?;
    let mut statement = sql::<S>("SELECT script_id, count(*) FROM runs WHERE status = 0 AND script_id IN (");
    push_ids::<S>(&mut statement, "", script_ids);
    statement.push(" GROUP BY script_id");
    snapshot
        .each(statement, |row| {
            sums.entry(row.number(0)?).or_default().0.in_progress = row.number(1)?;
            Ok(())
        })
        .await?;
    let mut figures = BTreeMap::new();
    for (script_id, (tally, logs)) in sums {
        figures.insert(script_id, tally.figures(logs)?);
    }
    Ok(figures)
}

/// See [`crate::store::Store::version_figures`].
pub async fn of_versions<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    versions: usize,
) -> Result<Vec<VersionFigures>, StoreError> {
    let mut statement = sql::<S>(TOTALS);
    push::<S>(&mut statement, " WHERE script_id = ", script_id);
    statement.push(" AND last_run_at IS NOT NULL ORDER BY version DESC");
    push::<S>(&mut statement, " LIMIT ", limit(versions));
    let mut totals = Vec::new();
    snapshot
        .each(statement, |row| {
            let mut tally = Tally::default();
            let lines = add_totals(&mut tally, row)?;
            totals.push((row.number(1)?, tally, lines));
            Ok(())
        })
        .await?;
    let mut figures = Vec::with_capacity(totals.len());
    for (version, mut tally, lines) in totals {
        let mut statement = sql::<S>("SELECT count(*) FROM runs WHERE status = 0");
        push::<S>(&mut statement, " AND script_id = ", script_id);
        push::<S>(&mut statement, " AND version = ", version);
        snapshot
            .each(statement, |row| {
                tally.in_progress = row.number(0)?;
                Ok(())
            })
            .await?;
        figures.push(VersionFigures {
            version,
            figures: tally.figures(lines)?,
        });
    }
    Ok(figures)
}

/// Appends `text`, the numbers and the closing bracket.
pub(super) fn push_ids<S: Snapshot>(statement: &mut Sql<S::DB>, text: &str, ids: &[i64]) {
    statement.push(text);
    for (n, id) in ids.iter().enumerate() {
        push::<S>(statement, if n > 0 { ", " } else { "" }, *id);
    }
    statement.push(")");
}
