//! Failed runs grouped by what failed.

use axum::{Json, extract::State, http::Uri};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{export::Table, store::RunQuery};

use super::{
    ApiError, WebState,
    query::{self, Paging},
    readable::RunsOf,
    rows::range_json,
};

/// Failed runs read for one answer, the newest ones.
const READ: usize = 10_000;

pub(super) async fn list(
    State(state): State<WebState>,
    RunsOf(script): RunsOf,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let request = query::rows(&uri, Table::Runs, Paging::Pages)?;
    if request.cursor.is_some() || request.count {
        let field = if request.count { "count" } else { "cursor" };
        let message = "this route has no pages: it takes a range, a filter and a limit of groups";
        return Err(ApiError::invalid(field, message));
    }
    let now = Timestamp::now();
    let range = request.resolve(now)?;
    let query = RunQuery {
        script,
        range,
        filter: request.filter,
        after: None,
        limit: READ,
    };
    let (grouping, more) = state.store.failures(&query).await?;
    if grouping.is_empty() {
        state.require_script(&query.script).await?;
    }
    let found = grouping.finish(range, now, request.limit, more);
    Ok(Json(json!({
        "items": found.items,
        "leftOut": found.left_out,
        "read": { "runs": found.read, "more": found.more, "oldest": found.oldest },
        "counts": { "from": found.from, "to": found.to },
        "range": range_json(range),
    })))
}
