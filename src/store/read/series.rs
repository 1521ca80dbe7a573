//! Figures over time.

use std::{collections::BTreeMap, ops::Range};

use jiff::{Timestamp, ToSpan, tz::TimeZone};

use super::{
    Snapshot, Values, lines, push, sql,
    tally::{Question, Tally, tallies},
};
use crate::{
    model::{Bucket, LogLevel, Step},
    query::{
        micros_range,
        window::{self, HOUR, HOURS_A_DAY},
    },
    store::{SeriesQuery, StoreError, time},
};

const DAY: i64 = HOUR * HOURS_A_DAY;

/// See [`crate::store::Store::series`].
pub async fn series<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    query: &SeriesQuery,
) -> Result<Vec<Bucket>, StoreError> {
    let asked = micros_range(&query.range);
    let Some(known) = extent(snapshot, script_id).await? else {
        return Ok(Vec::new());
    };
    let span = asked.start.max(known.start)..asked.end.min(known.end);
    if span.is_empty() {
        return Ok(Vec::new());
    }
    let buckets = Buckets::new(query, &span)?;
    let cuts = buckets.cuts();
    let question = Question {
        script_id,
        window: span,
        filter: &query.filter,
        by_day: query.step == Step::Day && cuts.iter().all(|cut| cut.rem_euclid(DAY) == 0),
        cuts,
    };
    let mut found = tallies(snapshot, &question, |micros| buckets.begin_of(micros)).await?;
    let mut levels = levels(snapshot, &question, &buckets).await?;
    let begins: Vec<i64> = buckets.begins().collect();
    let mut series = Vec::new();
    for begin in begins {
        let (tally, logs) = (found.remove(&begin), levels.remove(&begin));
        if tally.is_some() || logs.is_some() {
            series.push(bucket(
                begin..buckets.end_of(begin),
                tally.unwrap_or_default(),
                logs.unwrap_or_default(),
            )?);
        }
    }
    Ok(series)
}

/// From the first to the last day that has a run or a line.
async fn extent<S: Snapshot>(snapshot: &mut S, script_id: i64) -> Result<Option<Range<i64>>, StoreError> {
    let mut extent: Option<Range<i64>> = None;
    for (least, greatest, table) in [
        ("min(executed_at)", "max(executed_at)", "runs"),
        ("min(min_time)", "max(max_time)", "log_segments"),
        ("min(hour)", "max(hour)", "run_days"),
        ("min(hour)", "max(hour)", "log_rollups"),
    ] {
        let mut ends = [None; 2];
        for (end, which) in ends.iter_mut().zip([least, greatest]) {
            let mut statement = sql::<S>("SELECT ");
            statement.push(which).push(" FROM ").push(table);
            push::<S>(&mut statement, " WHERE script_id = ", script_id);
            snapshot
                .each(statement, |row| {
                    *end = row.optional_number(0)?;
                    Ok(())
                })
                .await?;
        }
        let [Some(first), Some(last)] = ends else {
            continue;
        };
        let unit = if least.contains("hour") { HOUR } else { 1 };
        let day = |value: i64| value.saturating_mul(unit).div_euclid(DAY);
        let days = day(first).saturating_mul(DAY)..(day(last) + 1).saturating_mul(DAY);
        extent = Some(extent.map_or(days.clone(), |extent| {
            extent.start.min(days.start)..extent.end.max(days.end)
        }));
    }
    Ok(extent)
}

/// Where the buckets lie.
enum Buckets {
    /// Hours of UTC.
    Hours(Range<i64>),
    /// Moments at which days begin, and the one at which the last ends.
    Days(Vec<i64>),
}

impl Buckets {
    fn new(query: &SeriesQuery, span: &Range<i64>) -> Result<Self, StoreError> {
        match query.step {
            Step::Hour => Ok(Self::Hours(
                span.start.div_euclid(HOUR)..(span.end - 1).div_euclid(HOUR) + 1,
            )),
            Step::Day => Self::days(&query.zone, span).map(Self::Days),
        }
    }

    fn days(zone: &TimeZone, span: &Range<i64>) -> Result<Vec<i64>, StoreError> {
        let out_of_bounds = |_| StoreError::Corrupt("a time that no day can be named for".to_owned());
        let mut date = time(span.start)?.to_zoned(zone.clone()).date();
        let mut begins = Vec::new();
        loop {
            let begin = date.to_zoned(zone.clone()).map_err(out_of_bounds)?;
            let begin = begin.timestamp().as_microsecond();
            // A zone may leave a day out; the one before it then ends where the one after begins.
            if begins.last() != Some(&begin) {
                begins.push(begin);
            }
            if begin >= span.end {
                return Ok(begins);
            }
            date = date.checked_add(1.day()).map_err(out_of_bounds)?;
        }
    }

    /// Where a bucket other than the first begins.
    fn cuts(&self) -> Vec<i64> {
        match self {
            Self::Hours(_) => Vec::new(),
            Self::Days(begins) => begins.clone(),
        }
    }

    fn begin_of(&self, micros: i64) -> i64 {
        match self {
            Self::Hours(_) => micros.div_euclid(HOUR) * HOUR,
            Self::Days(begins) => {
                let after = begins.partition_point(|begin| *begin <= micros);
                begins.get(after.saturating_sub(1)).copied().unwrap_or(micros)
            }
        }
    }

    fn end_of(&self, begin: i64) -> i64 {
        match self {
            Self::Hours(_) => begin + HOUR,
            Self::Days(begins) => {
                let after = begins.partition_point(|other| *other <= begin);
                begins.get(after).copied().unwrap_or(begin)
            }
        }
    }

    fn begins(&self) -> Box<dyn Iterator<Item = i64> + Send + '_> {
        match self {
            Self::Hours(hours) => Box::new(hours.clone().map(|hour| hour * HOUR)),
            Self::Days(begins) => Box::new(begins.iter().copied()),
        }
    }
}

/// Lines by bucket and level: whole hours from the rollups, the rest from the lines.
async fn levels<S: Snapshot>(
    snapshot: &mut S,
    question: &Question<'_>,
    buckets: &Buckets,
) -> Result<BTreeMap<i64, BTreeMap<LogLevel, i64>>, StoreError> {
    let parts = window::split(&question.window, question.cuts.iter().copied(), false);
    let mut levels: BTreeMap<i64, BTreeMap<LogLevel, i64>> = BTreeMap::new();
    let mut add = |micros, level, lines| {
        *levels
            .entry(buckets.begin_of(micros))
            .or_default()
            .entry(level)
            .or_default() += lines;
    };
    for hours in &parts.hours {
        let mut statement = sql::<S>("SELECT hour, level, CAST(sum(lines) AS BIGINT) FROM log_rollups");
        push::<S>(&mut statement, " WHERE script_id = ", question.script_id);
        push::<S>(&mut statement, " AND hour >= ", hours.start);
        push::<S>(&mut statement, " AND hour < ", hours.end);
        statement.push(" GROUP BY hour, level");
        snapshot
            .each(statement, |row| {
                let code = row.number(1)?;
                let level = u8::try_from(code).ok().and_then(LogLevel::from_code);
                let level = level.ok_or_else(|| StoreError::Corrupt(format!("the log level {code}")))?;
                add(row.number(0)? * HOUR, level, row.number(2)?);
                Ok(())
            })
            .await?;
    }
    for range in parts.rows {
        lines::each_of(snapshot, question.script_id, range, |micros, level| {
            add(micros, level, 1);
        })
        .await?;
    }
    Ok(levels)
}

fn bucket(range: Range<i64>, mut tally: Tally, logs: BTreeMap<LogLevel, i64>) -> Result<Bucket, StoreError> {
    let at = |micros| -> Result<Timestamp, StoreError> { time(micros) };
    let [p50, p90, p99] = tally.percentiles();
    Ok(Bucket {
        from: at(range.start)?,
        to: at(range.end)?,
        succeeded_runs: tally.succeeded,
        failed_runs: tally.failed,
        in_progress_runs: tally.in_progress,
        p50_microseconds: p50,
        p90_microseconds: p90,
        p99_microseconds: p99,
        logs,
    })
}
