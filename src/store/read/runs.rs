//! Runs: pages, counts, one with its payloads.

use std::collections::HashMap;

use serde_json::value::RawValue;

use super::{Snapshot, Values, limit, push, sql};
use crate::{
    model::{Count, Run, RunDetail, RunError, RunStatus, SourceType},
    query::{Dialect, Sql, hint, micros_range, push_runs_order, push_runs_where},
    store::{Page, RunCursor, RunParts, RunQuery, StoreError, optional_time, payload, storable, time},
};

/// What a run is made of.
fn columns<S: Snapshot>(hint: &str) -> Sql<S::DB> {
    let mut statement = sql::<S>(
        "SELECT r.payload, r.run_id, r.status, r.reason, r.version, p.deployment_id, r.response_time, r.function, \
         r.executed_at, r.finished_at, r.source_type, r.source, r.traceparent FROM runs r",
    );
    statement
        .push(hint)
        .push(" JOIN streams st ON st.id = r.stream_id JOIN pods p ON p.uid = st.pod_uid");
    statement
}

/// What a list shows of a run, with no look at any other table.
fn listed_columns<S: Snapshot>(hint: &str) -> Sql<S::DB> {
    let mut statement = sql::<S>(
        "SELECT r.run_id, r.status, r.version, r.response_time, r.function, r.executed_at, r.source_type, r.source \
         FROM runs r",
    );
    statement.push(hint);
    statement
}

/// Payloads that are read at once.
const PAYLOADS: usize = 64;
/// What the payloads of a page come to at most, about, in bytes.
const PAYLOAD_BYTES: usize = 16 << 20;

/// See [`crate::store::Store::runs`]. Where the time is over, the page ends with what was found.
pub async fn page<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    query: &RunQuery,
) -> Result<Page<Run, RunCursor>, StoreError> {
    let page = numbered(snapshot, script_id, query, RunParts::All).await?;
    Ok(page.map(|(run, _)| run))
}

/// See [`crate::store::StoreSnapshot::runs`].
pub async fn details<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    query: &RunQuery,
    parts: RunParts,
) -> Result<Page<RunDetail, RunCursor>, StoreError> {
    let page = numbered(snapshot, script_id, query, parts).await?;
    if parts < RunParts::WithPayloads {
        return Ok(page.map(|(run, _)| RunDetail::from(run)));
    }
    let mut details = Page {
        rows: Vec::with_capacity(page.rows.len()),
        next: page.next,
    };
    let all = page.rows.len();
    let mut bytes = 0;
    let mut rows = page.rows.into_iter();
    while details.rows.len() < all && bytes < PAYLOAD_BYTES {
        let (first, mut places) = (details.rows.len(), HashMap::new());
        for (run, payload) in rows.by_ref().take(PAYLOADS) {
            places.extend(payload.map(|number| (number, details.rows.len())));
            details.rows.push(RunDetail::from(run));
        }
        if places.is_empty() {
            continue;
        }
        let mut statement =
            sql::<S>("SELECT input, output, error, number FROM run_payloads WHERE number IN (");
        for (n, number) in places.keys().enumerate() {
            push::<S>(&mut statement, if n == 0 { "" } else { ", " }, *number);
        }
        statement.push(")");
        snapshot
            .each(statement, |row| {
                let place = places.get(&row.number(3)?);
                place.map_or(Ok(()), |place| payloads(&mut details.rows[*place], row))
            })
            .await?;
        bytes += details.rows[first..].iter().map(payload_bytes).sum::<usize>();
    }
    if details.rows.len() < all {
        details.next = details.rows.last().map(|detail| cursor(&detail.run));
    }
    Ok(details)
}

fn payload_bytes(detail: &RunDetail) -> usize {
    let json = |json: &Option<Box<RawValue>>| json.as_ref().map_or(0, |json| json.get().len());
    json(&detail.input) + json(&detail.output)
}

fn cursor(run: &Run) -> RunCursor {
    RunCursor {
        executed_on: run.executed_on,
        run_id: run.run_id.clone(),
    }
}

/// A page of runs, each with the number of its payloads.
async fn numbered<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    query: &RunQuery,
    parts: RunParts,
) -> Result<Page<(Run, Option<i64>), RunCursor>, StoreError> {
    let range = micros_range(&query.range);
    let hint = hint::<S::DB>(&query.filter);
    let mut statement = match parts {
        RunParts::Listed => listed_columns::<S>(hint),
        RunParts::All | RunParts::WithPayloads => columns::<S>(hint),
    };
    push_runs_where(
        &mut statement,
        script_id,
        &range,
        &query.filter,
        query.after.as_ref(),
    )?;
    push_runs_order(&mut statement, &query.filter);
    push::<S>(&mut statement, " LIMIT ", limit(query.limit.saturating_add(1)));
    let mut rows = Vec::new();
    let read = snapshot
        .each(statement, |row| {
            rows.push(match parts {
                RunParts::Listed => (listed_run(row)?, None),
                RunParts::All | RunParts::WithPayloads => (run(row)?, row.optional_number(0)?),
            });
            Ok(())
        })
        .await;
    let more = match read {
        Err(StoreError::TimeLimit(_)) if !rows.is_empty() && query.limit > 0 => true,
        Err(error) => return Err(error),
        Ok(()) => rows.len() > query.limit,
    };
    rows.truncate(query.limit);
    let next = rows.last().filter(|_| more).map(|(run, _)| cursor(run));
    Ok(Page { rows, next })
}

/// See [`crate::store::Store::count_runs`].
pub async fn count<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    query: &RunQuery,
    cap: usize,
) -> Result<Count, StoreError> {
    let mut statement = sql::<S>("SELECT r.status FROM runs r");
    statement.push(hint::<S::DB>(&query.filter));
    let range = micros_range(&query.range);
    push_runs_where(&mut statement, script_id, &range, &query.filter, None)?;
    push::<S>(&mut statement, " LIMIT ", limit(cap.saturating_add(1)));
    let mut found = 0;
    let read = snapshot
        .each(statement, |_| {
            found += 1;
            Ok(())
        })
        .await;
    let late = match read {
        Err(StoreError::TimeLimit(_)) => true,
        other => other.map(|()| false)?,
    };
    Ok(Count {
        count: limit(found.min(cap)),
        more: late || found > cap,
    })
}

/// See [`crate::store::Store::run`].
pub async fn detail<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    run_id: &str,
) -> Result<Option<RunDetail>, StoreError> {
    let mut statement = columns::<S>("");
    push::<S>(&mut statement, " WHERE r.script_id = ", script_id);
    statement.push(" AND r.run_id = ");
    S::DB::text(&mut statement, storable(run_id.to_owned()));
    let mut found = None;
    snapshot
        .each(statement, |row| {
            found = Some((run(row)?, row.optional_number(0)?));
            Ok(())
        })
        .await?;
    let Some((run, payload)) = found else {
        return Ok(None);
    };
    let mut detail = RunDetail::from(run);
    if let Some(number) = payload {
        let mut statement = sql::<S>("SELECT input, output, error FROM run_payloads");
        push::<S>(&mut statement, " WHERE number = ", number);
        snapshot.each(statement, |row| payloads(&mut detail, row)).await?;
    }
    Ok(Some(detail))
}

fn payloads(detail: &mut RunDetail, row: &impl Values) -> Result<(), StoreError> {
    let wrong = || StoreError::Corrupt(format!("a payload of the run {:?}", detail.run.run_id));
    let json = |at| row.optional_bytes(at)?.map(payload::unpack).transpose();
    let cut = |at| Ok::<_, StoreError>(row.optional_bytes(at)?.is_some_and(payload::is_truncated));
    (detail.input_truncated, detail.output_truncated) = (cut(0)?, cut(1)?);
    let raw = |at| -> Result<Option<Box<RawValue>>, StoreError> {
        if cut(at)? {
            return Ok(None);
        }
        let value = json(at)?.map(RawValue::from_string).transpose();
        value.map_err(|_| wrong())
    };
    let (input, output) = (raw(0)?, raw(1)?);
    let error = json(2)?
        .map(|json| serde_json::from_str::<RunError>(&json))
        .transpose();
    detail.error = error.map_err(|_| wrong())?;
    (detail.input, detail.output) = (input, output);
    Ok(())
}

/// A value of the model's kept as its code.
fn coded<T>(row: &impl Values, at: usize, what: &str, from: fn(u8) -> Option<T>) -> Result<T, StoreError> {
    let code = row.number(at)?;
    let value = u8::try_from(code).ok().and_then(from);
    value.ok_or_else(|| StoreError::Corrupt(format!("the {what} {code} of a run")))
}

/// A run from [`listed_columns`].
fn listed_run(row: &impl Values) -> Result<Run, StoreError> {
    Ok(Run {
        run_id: row.text(0)?.to_owned(),
        status: coded(row, 1, "status", RunStatus::from_code)?,
        reason: None,
        deployment_version: row.number(2)?,
        deployment_id: String::new(),
        response_time_micros: row.optional_number(3)?,
        function: row.text(4)?.to_owned(),
        executed_on: time(row.number(5)?)?,
        finished_at: None,
        source_type: coded(row, 6, "source type", SourceType::from_code)?,
        source: row.text(7)?.to_owned(),
        traceparent: None,
    })
}

/// A run from [`columns`].
fn run(row: &impl Values) -> Result<Run, StoreError> {
    Ok(Run {
        run_id: row.text(1)?.to_owned(),
        status: coded(row, 2, "status", RunStatus::from_code)?,
        reason: row.optional_text(3)?.map(str::to_owned),
        deployment_version: row.number(4)?,
        deployment_id: row.text(5)?.to_owned(),
        response_time_micros: row.optional_number(6)?,
        function: row.text(7)?.to_owned(),
        executed_on: time(row.number(8)?)?,
        finished_at: optional_time(row.optional_number(9)?)?,
        source_type: coded(row, 10, "source type", SourceType::from_code)?,
        source: row.text(11)?.to_owned(),
        traceparent: row
            .optional_bytes(12)?
            .map(payload::unpack_traceparent)
            .transpose()?,
    })
}
