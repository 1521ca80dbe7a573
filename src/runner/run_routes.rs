//! What can be asked of a run while it waits or runs, and for a while after an asynchronous call.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    answer::CANCELLED,
    guard,
    peers::HOP,
    query::parameter,
    refusal::Refusal,
    run_id::RunnerTag,
    runs::{Known, Live},
    server::Server,
};
use crate::model::RunStatus;

/// The longest that a caller may wait for a run's end, in seconds.
const LONGEST_WAIT: u64 = 60;
/// How long a cancelled run may take to end before its caller is told that it is ending.
const CANCEL: Duration = Duration::from_secs(10);

/// The routes.
pub fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/runs/{run_id}", get(show).delete(cancel))
        .route("/runs/{run_id}/cancel", post(cancel))
}

/// Where to ask for a run.
pub fn status_url(run_id: &str) -> String {
    format!("/runs/{run_id}")
}

/// A run that waits or runs.
pub fn live_json(run_id: &str, function: &str, begun: bool) -> Value {
    json!({
        "runId": run_id,
        "function": function,
        "status": RunStatus::InProgress,
        "begun": begun,
        "statusUrl": status_url(run_id),
    })
}

/// JSON that was written before.
pub fn json_response(status: StatusCode, body: Bytes) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Where a run was found.
enum Found {
    Live(Live),
    Ended {
        answer: Bytes,
        reason: Option<String>,
    },
    /// At another runner, with its answer.
    Elsewhere(Response),
}

async fn show(
    State(server): State<Arc<Server>>,
    Path(run_id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let wait = wait(&uri)?;
    match server.find(&run_id, Method::GET, &uri, &headers).await? {
        Found::Elsewhere(response) => Ok(response),
        Found::Ended { answer, .. } => Ok(json_response(StatusCode::OK, answer)),
        Found::Live(live) => {
            if !wait.is_zero() && timeout(wait, live.over.cancelled()).await.is_ok() {
                return match server.runs.get(&run_id) {
                    Known::Ended(ended) => Ok(json_response(StatusCode::OK, ended.answer)),
                    _ => Err(answered_elsewhere(&run_id)),
                };
            }
            let begun = match server.runs.get(&run_id) {
                Known::Live(live) => live.begun,
                _ => live.begun,
            };
            Ok(Json(live_json(&run_id, &live.function, begun)).into_response())
        }
    }
}

async fn cancel(
    State(server): State<Arc<Server>>,
    Path(run_id): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    guard::discard(body).await;
    let reason = match server.find(&run_id, method, &uri, &headers).await? {
        Found::Elsewhere(response) => return Ok(response),
        Found::Ended { reason, .. } => reason,
        Found::Live(live) => {
            server.pool.cancel(&run_id, &live).await;
            if timeout(CANCEL, live.over.cancelled()).await.is_err() {
                let ending = Json(live_json(&run_id, &live.function, live.begun));
                return Ok((StatusCode::ACCEPTED, ending).into_response());
            }
            live.outcome.get().cloned().flatten()
        }
    };
    if reason.as_deref() != Some(CANCELLED) {
        return Err(Refusal::run_ended(&run_id));
    }
    let answer = json!({ "runId": run_id, "status": RunStatus::Failed, "reason": CANCELLED });
    Ok(Json(answer).into_response())
}

/// How long the caller wants to wait for the end.
fn wait(uri: &Uri) -> Result<Duration, Refusal> {
    let Some(text) = parameter(uri, "wait") else {
        return Ok(Duration::ZERO);
    };
    let seconds = text.parse().ok().filter(|seconds| *seconds <= LONGEST_WAIT);
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| Refusal::wait(LONGEST_WAIT))
}

fn answered_elsewhere(run_id: &str) -> Refusal {
    Refusal::run_gone(
        run_id,
        "the run has ended, and its result went to the caller that waited for it",
    )
}

impl Server {
    /// Looks for a run here, and where its id says.
    async fn find(
        &self,
        run_id: &str,
        method: Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Found, Refusal> {
        match self.runs.get(run_id) {
            Known::Live(live) => return Ok(Found::Live(live)),
            Known::Ended(ended) => {
                return Ok(Found::Ended {
                    answer: ended.answer,
                    reason: ended.reason,
                });
            }
            Known::Unknown => {}
        }
        let tag = RunnerTag::in_run_id(run_id).ok_or_else(|| Refusal::no_run(run_id))?;
        if tag == self.peers.tag() {
            let limits = self.runs.limits();
            let why = format!(
                "the run has ended, and only results of asynchronous calls are kept, {} of them for {} s and until the pod ends",
                limits.number,
                limits.age.as_secs()
            );
            return Err(Refusal::run_gone(run_id, &why));
        }
        if headers.contains_key(HOP) {
            return Err(Refusal::no_run(run_id));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        match self.peers.pass_on(tag, method, path, headers).await {
            Ok(Some(response)) => Ok(Found::Elsewhere(response)),
            Ok(None) => Err(Refusal::run_gone(
                run_id,
                "the pod that had the run is gone, and its results with it",
            )),
            Err(error) => Err(Refusal::peer(&error.to_string())),
        }
    }
}
