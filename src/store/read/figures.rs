//! Figures: lifetime ones from the totals, those of a window from rollups and rows.

use std::collections::BTreeMap;

use super::{
    Snapshot, Values, limit, push, sql,
    tally::{Question, Tally, tallies},
};
use crate::{
    model::{Figures, Filter, TimeRange, VersionFigures, failure_rate_basis_points},
    query::{micros_range, push_runs_order, push_runs_where},
    store::{
        StoreError,
        digest::{EXACT_UP_TO, Percentiles},
        optional_time,
        summary::Summary,
    },
};

impl Tally {
    fn figures(self, logs: i64) -> Result<Figures, StoreError> {
        let [p50, p90, p99]: Percentiles = self.times.percentiles();
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

/// Totals of versions: those that match, with the number of the script and of the version.
async fn totals<S: Snapshot>(
    snapshot: &mut S,
    condition: sqlx::QueryBuilder<S::DB>,
) -> Result<Vec<(i64, i64, Tally, i64)>, StoreError> {
    let mut totals = Vec::new();
    snapshot
        .each(condition, |row| {
            let mut tally = Tally {
                succeeded: row.number(2)?,
                failed: row.number(3)?,
                last: row.optional_number(5)?,
                ..Tally::default()
            };
            tally.times.add_digest(row.bytes(6)?)?;
            totals.push((row.number(0)?, row.number(1)?, tally, row.number(4)?));
            Ok(())
        })
        .await?;
    Ok(totals)
}

const TOTALS: &str =
    "SELECT script_id, version, succeeded, failed, lines, last_run_at, digest FROM version_totals";

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
    for (script_id, _, tally, lines) in totals(snapshot, statement).await? {
        let (sum, logs) = sums.entry(script_id).or_default();
        sum.succeeded += tally.succeeded;
        sum.failed += tally.failed;
        sum.last = sum.last.max(tally.last);
        sum.times.join(tally.times);
        *logs += lines;
    }
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
    for (script_id, (mut tally, logs)) in sums {
        make_exact(snapshot, script_id, None, &mut tally).await?;
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
    let mut figures = Vec::new();
    for (_, version, mut tally, lines) in totals(snapshot, statement).await? {
        let mut statement = sql::<S>("SELECT count(*) FROM runs WHERE status = 0");
        push::<S>(&mut statement, " AND script_id = ", script_id);
        push::<S>(&mut statement, " AND version = ", version);
        snapshot
            .each(statement, |row| {
                tally.in_progress = row.number(0)?;
                Ok(())
            })
            .await?;
        make_exact(snapshot, script_id, Some(version), &mut tally).await?;
        figures.push(VersionFigures {
            version,
            figures: tally.figures(lines)?,
        });
    }
    Ok(figures)
}

/// While there are few successful runs and each still has its row, their response times are read from these. Those of a
/// version lie between the first and the last hour that its rollups know.
async fn make_exact<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    version: Option<i64>,
    tally: &mut Tally,
) -> Result<(), StoreError> {
    if tally.succeeded > EXACT_UP_TO || tally.times.is_exact() {
        return Ok(());
    }
    let mut statement = sql::<S>("SELECT response_time FROM runs");
    push::<S>(&mut statement, " WHERE script_id = ", script_id);
    if let Some(version) = version {
        let mut first = None;
        let mut hours = sql::<S>("SELECT min(hour) FROM run_days");
        push::<S>(&mut hours, " WHERE script_id = ", script_id);
        push::<S>(&mut hours, " AND version = ", version);
        snapshot
            .each(hours, |row| {
                first = row.optional_number(0)?;
                Ok(())
            })
            .await?;
        if let (Some(first), Some(last)) = (first, tally.last) {
            push::<S>(
                &mut statement,
                " AND executed_at >= ",
                first.saturating_mul(crate::query::window::HOUR),
            );
            push::<S>(&mut statement, " AND executed_at <= ", last);
        }
        push::<S>(&mut statement, " AND version = ", version);
    }
    statement.push(" AND status = 1");
    let (mut times, mut count) = (Summary::default(), 0);
    snapshot
        .each(statement, |row| {
            times.add(row.number(0)?);
            count += 1;
            Ok(())
        })
        .await?;
    if count == tally.succeeded {
        tally.times = times;
    }
    Ok(())
}

/// Appends `text`, the numbers and the closing bracket.
pub(super) fn push_ids<S: Snapshot>(statement: &mut sqlx::QueryBuilder<S::DB>, text: &str, ids: &[i64]) {
    statement.push(text);
    for (n, id) in ids.iter().enumerate() {
        push::<S>(statement, if n > 0 { ", " } else { "" }, *id);
    }
    statement.push(")");
}
