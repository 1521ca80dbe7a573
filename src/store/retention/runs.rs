//! Ended runs and their payloads, the oldest first. Runs in progress stay, however old.

use std::ops::Range;

use super::{
    Budget, Cutoffs, RUN_BYTES, Retained,
    sql::{Write, first, push, push_list, push_optional, sql},
    steps::{rows, unsigned},
    usage,
};
use crate::{
    model::RunStatus,
    store::{
        StoreError,
        read::{Snapshot, Values},
    },
};

/// How often to look for runs that came late, with a beginning in a time that was swept before.
const LATE_MICROS: i64 = 24 * 3_600 * 1_000_000;
/// Beginning and duration of a run are measured by two clocks: so far apart can they be.
const CLOCKS_MICROS: i64 = 60 * 1_000_000;
/// Payloads named in one statement.
const PAYLOADS: usize = 2_000;
/// Bytes of a run's payloads; of the table `p`.
const BYTES: &str =
    "coalesce(length(p.input), 0) + coalesce(length(p.output), 0) + coalesce(length(p.error), 0)";

/// How far runs have been deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Swept {
    succeeded: Option<i64>,
    failed: Option<i64>,
    at: Option<i64>,
}

/// Runs to delete: those that began in a stretch of time.
#[derive(Clone, Debug)]
struct Doomed {
    times: Range<i64>,
    /// Only those with this status; else all that have ended.
    status: Option<RunStatus>,
    /// Whether the budget allows no more.
    full: bool,
}

/// What to do.
#[derive(Debug)]
pub struct Step {
    doomed: Option<Doomed>,
    swept: Swept,
}

impl Step {
    /// When the runs to delete began, if any are.
    pub fn times(&self) -> Option<&Range<i64>> {
        self.doomed.as_ref().map(|doomed| &doomed.times)
    }
}

/// Before which moment runs without a row were deleted, microseconds.
pub async fn ended_before<W: Write>(write: &mut W, script_id: i64) -> Result<i64, StoreError> {
    let mut statement = sql("SELECT ended_before FROM retention");
    push(&mut statement, " WHERE script_id = ", script_id);
    let mut before = None;
    write
        .each(statement, |row| {
            before = row.optional_number(0)?;
            Ok(())
        })
        .await?;
    Ok(before.unwrap_or(i64::MIN))
}

/// The next step, if there is one.
pub async fn plan<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    cutoffs: &Cutoffs,
    excess: u64,
    budget: Budget,
) -> Result<Option<Step>, StoreError> {
    let now = cutoffs.now.as_microsecond();
    let before = load(snapshot, script_id).await?;
    let mut swept = before;
    if swept.at.is_none_or(|at| now.saturating_sub(at) >= LATE_MICROS) {
        swept = Swept {
            at: Some(now),
            ..Swept::default()
        };
    }
    let micros = |time: Option<jiff::Timestamp>| time.map(jiff::Timestamp::as_microsecond);
    for (status, limit) in [
        (RunStatus::Success, micros(cutoffs.runs)),
        (RunStatus::Failed, micros(cutoffs.failed_runs)),
    ] {
        let Some(limit) = limit else { continue };
        let mark = match status {
            RunStatus::Failed => &mut swept.failed,
            _ => &mut swept.succeeded,
        };
        let from = mark.unwrap_or(i64::MIN);
        let doomed = past(snapshot, script_id, status, from..limit, budget).await?;
        *mark = Some(match &doomed {
            Some(doomed) if doomed.full => doomed.times.end,
            _ => limit,
        });
        if doomed.is_some() {
            return Ok(Some(Step { doomed, swept }));
        }
    }
    if excess > 0 {
        let doomed = oldest(snapshot, script_id, excess, budget).await?;
        if doomed.is_some() {
            return Ok(Some(Step { doomed, swept }));
        }
    }
    // Nothing to delete: noted now and then, so that the next look need not begin at the beginning.
    Ok((before.at != swept.at).then_some(Step { doomed: None, swept }))
}

async fn load<S: Snapshot>(snapshot: &mut S, script_id: i64) -> Result<Swept, StoreError> {
    let mut statement = sql("SELECT runs_swept, failed_swept, swept_at FROM retention");
    push(&mut statement, " WHERE script_id = ", script_id);
    let [succeeded, failed, at] = first(snapshot, statement).await?.unwrap_or_default();
    Ok(Swept {
        succeeded,
        failed,
        at,
    })
}

/// The oldest runs of a status that began in a range, as many as the budget allows.
async fn past<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    status: RunStatus,
    range: Range<i64>,
    budget: Budget,
) -> Result<Option<Doomed>, StoreError> {
    let mut statement = sql("SELECT executed_at FROM runs");
    push(&mut statement, " WHERE script_id = ", script_id);
    push(&mut statement, " AND executed_at >= ", range.start);
    push(&mut statement, " AND executed_at < ", range.end);
    // Written out, so that an index of one status alone can serve.
    statement.push(" AND status = ").push(status.code());
    push(&mut statement, " ORDER BY executed_at LIMIT ", rows(budget));
    let mut times = Vec::new();
    snapshot
        .each(statement, |row| {
            times.push(row.number(0)?);
            Ok(())
        })
        .await?;
    Ok(doomed(&times, Some(status), budget))
}

fn doomed(times: &[i64], status: Option<RunStatus>, budget: Budget) -> Option<Doomed> {
    let (first, last) = (times.first()?, times.last()?);
    Some(Doomed {
        times: *first..last.saturating_add(1),
        status,
        full: times.len() as u64 >= unsigned(rows(budget)),
    })
}

/// The oldest ended runs, as many as together have `excess` bytes and the budget allows.
async fn oldest<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    excess: u64,
    budget: Budget,
) -> Result<Option<Doomed>, StoreError> {
    let mut statement = sql(format!(
        "SELECT r.executed_at, CAST({BYTES} AS BIGINT) FROM runs r LEFT JOIN run_payloads p ON p.number = r.payload"
    ));
    push(&mut statement, " WHERE r.script_id = ", script_id);
    push(
        &mut statement,
        " AND r.status <> ",
        RunStatus::InProgress.code().into(),
    );
    push(&mut statement, " ORDER BY r.executed_at LIMIT ", rows(budget));
    let (mut times, mut bytes) = (Vec::new(), 0);
    snapshot
        .each(statement, |row| {
            if bytes < excess {
                times.push(row.number(0)?);
            }
            bytes += RUN_BYTES + unsigned(row.number(1)?);
            Ok(())
        })
        .await?;
    Ok(doomed(&times, None, budget))
}

/// Does a step.
pub async fn apply<W: Write>(write: &mut W, script_id: i64, step: &Step) -> Result<Retained, StoreError> {
    note(write, script_id, step).await?;
    match &step.doomed {
        Some(doomed) => remove(write, script_id, doomed).await,
        None => Ok(Retained {
            more: true,
            ..Retained::default()
        }),
    }
}

async fn note<W: Write>(write: &mut W, script_id: i64, step: &Step) -> Result<(), StoreError> {
    let before = step.times().map(|times| times.end.saturating_add(CLOCKS_MICROS));
    let mut statement =
        sql("INSERT INTO retention (script_id, ended_before, runs_swept, failed_swept, swept_at) VALUES (");
    push(&mut statement, "", script_id);
    for value in [before, step.swept.succeeded, step.swept.failed, step.swept.at] {
        push_optional(&mut statement, ", ", value);
    }
    statement.push(
        ") ON CONFLICT (script_id) DO UPDATE SET ended_before = CASE \
         WHEN excluded.ended_before IS NULL OR retention.ended_before > excluded.ended_before \
         THEN retention.ended_before ELSE excluded.ended_before END, \
         runs_swept = excluded.runs_swept, failed_swept = excluded.failed_swept, swept_at = excluded.swept_at",
    );
    write.execute(statement).await?;
    Ok(())
}

/// Removes runs with their payloads, and counts what went.
async fn remove<W: Write>(write: &mut W, script_id: i64, doomed: &Doomed) -> Result<Retained, StoreError> {
    let mut statement = sql("DELETE FROM runs");
    push(&mut statement, " WHERE script_id = ", script_id);
    push(&mut statement, " AND executed_at >= ", doomed.times.start);
    push(&mut statement, " AND executed_at < ", doomed.times.end);
    match doomed.status {
        Some(status) => statement.push(" AND status = ").push(status.code()),
        None => statement
            .push(" AND status <> ")
            .push(RunStatus::InProgress.code()),
    };
    statement.push(" RETURNING stream_id, payload");
    let mut change = usage::Change::default();
    let (mut payloads, mut runs) = (Vec::new(), 0);
    write
        .each(statement, |row| {
            runs += 1;
            *change.runs.entry(row.number(0)?).or_default() -= 1;
            payloads.extend(row.optional_number(1)?);
            Ok(())
        })
        .await?;
    for chunk in payloads.chunks(PAYLOADS) {
        let mut statement = sql("DELETE FROM run_payloads WHERE number IN (");
        push_list(&mut statement, chunk.iter().copied());
        statement.push(format!(" RETURNING CAST({} AS BIGINT)", BYTES.replace("p.", "")));
        write
            .each(statement, |row| {
                change.payload_bytes -= row.number(0)?;
                Ok(())
            })
            .await?;
    }
    usage::add(write, script_id, &change).await?;
    Ok(Retained {
        runs,
        bytes: runs * RUN_BYTES + change.payload_bytes.unsigned_abs(),
        more: true,
        ..Retained::default()
    })
}
