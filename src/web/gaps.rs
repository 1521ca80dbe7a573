//! What could not be read of a script's logs.

use axum::{Json, extract::State, http::Uri};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    export::Table,
    model::{Filter, LogGap, TimeRange},
    store::LogQuery,
};

use super::{
    ApiError, WebState,
    query::{self, Paging},
    readable::LogsOf,
    rows::range_json,
};

/// Gaps shown beside a page of lines at most, the latest.
const BESIDE_A_PAGE: usize = 100;

pub(super) async fn list(
    State(state): State<WebState>,
    LogsOf(script): LogsOf,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let request = query::rows(&uri, Table::Logs, Paging::Pages)?;
    if request.filter != Filter::default() || request.cursor.is_some() {
        let message = "this route takes a range and a limit only, since nobody knows what is missing";
        return Err(ApiError::invalid("filter", message));
    }
    let range = request.resolve(Timestamp::now())?;
    let gaps = state.store.gaps(&script, range, request.limit).await?;
    if gaps.is_empty() {
        state.require_script(&script).await?;
    }
    Ok(Json(json!({ "items": gaps, "range": range_json(range) })))
}

/// The gaps in the time that a page of lines covers, whatever its filter: what is missing might have passed it.
pub(super) async fn beside(
    state: &WebState,
    query: &LogQuery,
    last_line: Option<Timestamp>,
) -> Result<Vec<LogGap>, ApiError> {
    let covered = covered(query, last_line);
    Ok(state.store.gaps(&query.script, covered, BESIDE_A_PAGE).await?)
}

/// From the last line of the page, if there is a next one, to the last line of the page before.
fn covered(query: &LogQuery, last_line: Option<Timestamp>) -> TimeRange {
    TimeRange {
        from: last_line.or(query.range.from),
        to: query.after.map(|after| after.timestamp).or(query.range.to),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{LogId, ScriptKey},
        store::LogCursor,
    };

    #[test]
    fn pages_cover_their_range_without_overlap() {
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        let mut query = LogQuery {
            script: ScriptKey::new("shop", "a"),
            range: TimeRange {
                from: at(0),
                to: at(100),
            },
            filter: Filter::default(),
            after: None,
            limit: 2,
        };
        let mut upper = at(100);
        for last in [70, 40] {
            let range = covered(&query, at(last));
            assert_eq!((range.from, range.to), (at(last), upper));
            upper = at(last);
            let log_id = LogId {
                stream: 1,
                offset: 0,
                index: 0,
            };
            query.after = upper.map(|timestamp| LogCursor { timestamp, log_id });
        }
        let last = covered(&query, None);
        assert_eq!((last.from, last.to), (at(0), at(40)));
    }
}
