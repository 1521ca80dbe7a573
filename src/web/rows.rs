//! Pages of runs and log lines, and single runs.

use axum::{
    Json,
    extract::{FromRequestParts, Path, State, rejection::PathRejection},
    http::{Uri, request::Parts},
};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    export::Table,
    model::{Column, Condition, Match, Operator, RunDetail, ScriptKey, TimeRange},
    store::{LogQuery, RowQuery, RunQuery},
};

use super::{
    ApiError, WebState,
    cursor::{self, Position},
    gaps,
    query::{self, Paging, RowsRequest},
    readable::{LogsOf, RunsOf},
};

/// Rows are counted no further.
const COUNTED: usize = 10_000;
/// How far from its run a line may lie. A line is of the run it names, but its time is its own clock's.
const AROUND_A_RUN: SignedDuration = SignedDuration::from_hours(24);

/// The run in a path.
pub(super) struct RunPath(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for RunPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        #[derive(serde::Deserialize)]
        struct Names {
            run: String,
        }
        let names: Result<Path<Names>, PathRejection> = Path::from_request_parts(parts, state).await;
        Ok(Self(names?.0.run))
    }
}

/// A range as JSON.
pub(super) fn range_json(range: TimeRange) -> Value {
    json!({ "from": range.from, "to": range.to })
}

pub(super) async fn runs(
    State(state): State<WebState>,
    RunsOf(script): RunsOf,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let request = query::rows(&uri, Table::Runs, Paging::Pages)?;
    let count = request.count;
    let (query, identity) = row_query(&script, request, Table::Runs)?;
    let query: RunQuery = query;
    let page = state.store.runs(&query).await?;
    if page.rows.is_empty() {
        state.require_script(&script).await?;
    }
    let mut json = page_json(&page.rows, page.next.as_ref(), query.range, &identity)?;
    if count {
        json["total"] = json!(state.store.count_runs(&query, COUNTED).await?);
    }
    Ok(json)
}

pub(super) async fn logs(
    State(state): State<WebState>,
    LogsOf(script): LogsOf,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let request = query::rows(&uri, Table::Logs, Paging::Pages)?;
    let count = request.count;
    let (query, identity) = row_query(&script, request, Table::Logs)?;
    let Json(mut page) = log_page(&state, &query, count, &identity).await?;
    page["gaps"] = json!(gaps::beside(&state, &query, last_line(&page)).await?);
    Ok(Json(page))
}

/// When the last line of a page was printed, if another page follows.
fn last_line(page: &Value) -> Option<Timestamp> {
    page["next"].as_str()?;
    page["items"].as_array()?.last()?["timestamp"]
        .as_str()?
        .parse()
        .ok()
}

pub(super) async fn run(
    State(state): State<WebState>,
    RunsOf(script): RunsOf,
    RunPath(run_id): RunPath,
    uri: Uri,
) -> Result<Json<RunDetail>, ApiError> {
    let [] = query::only(&uri, [])?;
    let run = state.store.run(&script, &run_id).await?;
    run.map(Json).ok_or_else(|| no_run(&script, &run_id))
}

pub(super) async fn run_logs(
    State(state): State<WebState>,
    LogsOf(script): LogsOf,
    RunPath(run_id): RunPath,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let mut request = query::rows(&uri, Table::Logs, Paging::Pages)?;
    if request.filter.matching == Match::Any && request.filter.conditions.len() > 1 {
        return Err(ApiError::invalid(
            "filter",
            "this route can not be joined with a filter that matches Any; use logs with a filter on Run ID",
        ));
    }
    request.filter.matching = Match::All;
    request.filter.conditions.push(Condition {
        column: Column::RunId,
        operator: Operator::Equals,
        values: vec![run_id.clone()],
    });
    let run = state.store.run(&script, &run_id).await?;
    if let (Some(run), false) = (&run, request.has_range) {
        let run = &run.run;
        request.range.from = run.executed_on.checked_sub(AROUND_A_RUN).ok();
        request.range.to = run.finished_at.and_then(|end| end.checked_add(AROUND_A_RUN).ok());
    }
    let count = request.count;
    let (query, identity) = row_query(&script, request, Table::Logs)?;
    let first = query.after.is_none();
    let page = log_page(&state, &query, count, &identity).await?;
    // Lines can name a run that was never announced.
    let empty = page["items"].as_array().is_none_or(Vec::is_empty);
    if run.is_none() && first && empty {
        return Err(no_run(&script, &run_id));
    }
    Ok(page)
}

pub(super) fn no_run(script: &ScriptKey, run_id: &str) -> ApiError {
    let shown: String = run_id.chars().take(100).collect();
    ApiError::not_found(
        "RunNotFound",
        format!(
            "script {} in namespace {} has no run {shown}; retention may have removed it",
            script.name, script.namespace
        ),
    )
}

async fn log_page(
    state: &WebState,
    query: &LogQuery,
    count: bool,
    identity: &str,
) -> Result<Json<Value>, ApiError> {
    let page = state.store.logs(query).await?;
    if page.rows.is_empty() {
        state.require_script(&query.script).await?;
    }
    let mut json = page_json(&page.rows, page.next.as_ref(), query.range, identity)?;
    if count {
        json["total"] = json!(state.store.count_logs(query, COUNTED).await?);
    }
    Ok(json)
}

/// The store's query, and the text that the cursors of this query are tied to.
fn row_query<P: Position>(
    script: &ScriptKey,
    request: RowsRequest,
    table: Table,
) -> Result<(RowQuery<P>, String), ApiError> {
    let identity = format!("{script} {}", request.identity(table).map_err(unwritable)?);
    let (after, range) = match &request.cursor {
        None => (None, request.resolve(Timestamp::now())?),
        Some(text) => {
            let (position, range) = cursor::decode(text, &identity)?;
            (Some(position), range)
        }
    };
    let query = RowQuery {
        script: script.clone(),
        range,
        filter: request.filter,
        after,
        limit: request.limit,
    };
    Ok((query, identity))
}

fn page_json<T: Serialize, P: Position>(
    rows: &[T],
    next: Option<&P>,
    range: TimeRange,
    identity: &str,
) -> Result<Json<Value>, ApiError> {
    let next = next
        .map(|position| cursor::encode(position, range, identity))
        .transpose()
        .map_err(unwritable)?;
    Ok(Json(
        json!({ "items": rows, "next": next, "range": range_json(range) }),
    ))
}

// By value, as `map_err` hands it over.
#[allow(clippy::needless_pass_by_value)]
fn unwritable(error: serde_json::Error) -> ApiError {
    tracing::error!(%error, "An answer could not be written.");
    ApiError::internal()
}
