//! Runs of a window counted bucket by bucket, from rollups as far as these can tell, else from the rows.

use std::{collections::BTreeMap, ops::Range};

use super::{Snapshot, Values, push, sql};
use crate::{
    model::{Filter, RunStatus},
    query::{Dialect, GroupFilter, push_conditions, push_runs_where, window},
    store::{
        StoreError,
        digest::{Digest, Percentiles},
    },
};

/// The runs of a bucket.
#[derive(Default)]
pub struct Tally {
    /// Successful runs.
    pub succeeded: i64,
    /// Failed runs.
    pub failed: i64,
    /// Runs that have not ended.
    pub in_progress: i64,
    /// Response times of the successful ones, of groups and of single runs.
    digests: Vec<Digest>,
    times: Digest,
    /// When the last run began, as far as single runs were read.
    pub last: Option<i64>,
    /// The newest stretch of time that is known to have runs which were not read one by one.
    pub newest: Option<Range<i64>>,
}

impl Tally {
    /// Adds runs by their counts and the stored digest of their response times.
    pub fn add(&mut self, succeeded: i64, failed: i64, digest: &[u8]) -> Result<(), StoreError> {
        self.succeeded += succeeded;
        self.failed += failed;
        if !digest.is_empty() {
            self.digests.push(Digest::decode(digest)?);
        }
        Ok(())
    }

    /// P50, P90 and P99.
    pub fn percentiles(&mut self) -> Percentiles {
        let groups = std::mem::take(&mut self.digests);
        Digest::merged(groups.into_iter().chain([std::mem::take(&mut self.times)])).percentiles()
    }
}

/// Which runs to count, and how.
pub struct Question<'a> {
    /// The script.
    pub script_id: i64,
    /// When they began, microseconds.
    pub window: Range<i64>,
    /// Which of them.
    pub filter: &'a Filter,
    /// Moments where a bucket ends.
    pub cuts: Vec<i64>,
    /// Whether each day of UTC lies in one bucket.
    pub by_day: bool,
}

/// Where the runs are counted from.
struct Plan {
    groups: Option<GroupFilter>,
    parts: window::Parts,
}

/// Tallies by what `bucket` says of the moment a run began.
pub async fn tallies<S: Snapshot>(
    snapshot: &mut S,
    question: &Question<'_>,
    mut bucket: impl FnMut(i64) -> i64 + Send,
) -> Result<BTreeMap<i64, Tally>, StoreError> {
    let groups = GroupFilter::new(question.filter)?;
    let parts = match &groups {
        Some(groups) => {
            let by_day = question.by_day && !groups.asks_for_function();
            window::split(&question.window, question.cuts.iter().copied(), by_day)
        }
        None => window::Parts {
            rows: vec![question.window.clone()],
            ..window::Parts::default()
        },
    };
    let plan = Plan { groups, parts };
    let mut tallies = BTreeMap::new();
    from_rollups(snapshot, question, &plan, &mut tallies, &mut bucket).await?;
    for range in &plan.parts.rows {
        from_rows(snapshot, question, range, &mut tallies, &mut bucket).await?;
    }
    in_progress(snapshot, question, &mut tallies, &mut bucket).await?;
    Ok(tallies)
}

/// Ended runs of a period that have version and function in common and pass the filter.
struct Group<'a> {
    period: Range<i64>,
    succeeded: i64,
    failed: i64,
    digest: &'a [u8],
}

/// Shows the groups of the window's whole days and hours.
async fn each_group<S: Snapshot>(
    snapshot: &mut S,
    question: &Question<'_>,
    plan: &Plan,
    mut visit: impl FnMut(Group<'_>) -> Result<(), StoreError> + Send,
) -> Result<(), StoreError> {
    let Some(groups) = &plan.groups else {
        return Ok(());
    };
    let days = plan.parts.days.start * window::HOURS_A_DAY..plan.parts.days.end * window::HOURS_A_DAY;
    let hourly = plan.parts.hours.iter().map(|hours| ("run_rollups", 1, hours));
    let sources = hourly.chain((!days.is_empty()).then_some(("run_days", window::HOURS_A_DAY, &days)));
    for (table, length, hours) in sources {
        let mut statement =
            sql::<S>("SELECT r.hour, r.version, r.function, r.succeeded, r.failed, r.digest FROM ");
        statement.push(table);
        push::<S>(&mut statement, " r WHERE r.script_id = ", question.script_id);
        push::<S>(&mut statement, " AND r.hour >= ", hours.start);
        push::<S>(&mut statement, " AND r.hour < ", hours.end);
        push_conditions(&mut statement, question.filter, GroupFilter::NAMED)?;
        snapshot
            .each(statement, |row| {
                let (version, function) = (row.number(1)?, row.text(2)?);
                let passing = |at, status| -> Result<i64, StoreError> {
                    Ok(if groups.passes(version, function, status) {
                        row.number(at)?
                    } else {
                        0
                    })
                };
                let succeeded = passing(3, RunStatus::Success)?;
                let failed = passing(4, RunStatus::Failed)?;
                if succeeded + failed == 0 {
                    return Ok(());
                }
                let begin = row.number(0)?;
                visit(Group {
                    period: begin.saturating_mul(window::HOUR)..(begin + length).saturating_mul(window::HOUR),
                    succeeded,
                    failed,
                    digest: if succeeded > 0 { row.bytes(5)? } else { &[] },
                })
            })
            .await?;
    }
    Ok(())
}

async fn from_rollups<S: Snapshot>(
    snapshot: &mut S,
    question: &Question<'_>,
    plan: &Plan,
    tallies: &mut BTreeMap<i64, Tally>,
    bucket: &mut (impl FnMut(i64) -> i64 + Send),
) -> Result<(), StoreError> {
    each_group(snapshot, question, plan, |group| {
        let tally = tallies.entry(bucket(group.period.start)).or_default();
        tally.add(group.succeeded, group.failed, group.digest)?;
        if tally
            .newest
            .as_ref()
            .is_none_or(|newest| newest.end < group.period.end)
        {
            tally.newest = Some(group.period);
        }
        Ok(())
    })
    .await
}

/// Counts the ended runs of a range one by one.
async fn from_rows<S: Snapshot>(
    snapshot: &mut S,
    question: &Question<'_>,
    range: &Range<i64>,
    tallies: &mut BTreeMap<i64, Tally>,
    bucket: &mut (impl FnMut(i64) -> i64 + Send),
) -> Result<(), StoreError> {
    let mut statement = sql::<S>("SELECT r.executed_at, r.status, r.response_time FROM runs r");
    push_runs_where(&mut statement, question.script_id, range, question.filter, None)?;
    statement.push(" AND r.status <> 0");
    snapshot
        .each(statement, |row| {
            let begun = row.number(0)?;
            let tally = tallies.entry(bucket(begun)).or_default();
            if row.number(1)? == i64::from(RunStatus::Success.code()) {
                tally.succeeded += 1;
                if let Some(time) = row.optional_number(2)? {
                    tally.times.add(time);
                }
            } else {
                tally.failed += 1;
            }
            tally.last = tally.last.max(Some(begun));
            Ok(())
        })
        .await
}

/// Runs in progress are in no rollup; there are few.
async fn in_progress<S: Snapshot>(
    snapshot: &mut S,
    question: &Question<'_>,
    tallies: &mut BTreeMap<i64, Tally>,
    bucket: &mut (impl FnMut(i64) -> i64 + Send),
) -> Result<(), StoreError> {
    let mut statement = sql::<S>("SELECT r.executed_at FROM runs r");
    statement.push(S::DB::IN_PROGRESS);
    push_runs_where(
        &mut statement,
        question.script_id,
        &question.window,
        question.filter,
        None,
    )?;
    statement.push(" AND r.status = 0");
    snapshot
        .each(statement, |row| {
            let begun = row.number(0)?;
            let tally = tallies.entry(bucket(begun)).or_default();
            tally.in_progress += 1;
            tally.last = tally.last.max(Some(begun));
            Ok(())
        })
        .await
}
