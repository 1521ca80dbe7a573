//! The script's endpoint.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::BytesMut;
use futures::StreamExt;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::timeout,
};
use uuid::Uuid;

use super::{
    STORED_PATH,
    call::{Call, Report},
    caller::Caller,
    function::{Function, listing},
    pool::{Job, Pool},
    refusal::Refusal,
    stop::{LastWord, Stop},
};
use crate::model::{RunError, RunStatus};

/// The largest body of a call, in bytes.
pub const MAX_BODY_BYTES: usize = 6 << 20;
/// Of a body that is too large, so much is read and thrown away, so that the client gets to read the answer.
const MAX_DISCARDED_BYTES: usize = 64 << 20;
/// The longest token that is read.
const MAX_TOKEN_BYTES: usize = 256;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// What the routes share.
#[derive(Debug)]
pub struct Server {
    /// The workers.
    pub pool: Pool,
    /// How far stopping is.
    pub stop: Stop,
    /// What the last record will say.
    pub last_word: LastWord,
    /// How long a call may wait for a worker.
    pub queue_timeout: Duration,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    run_id: &'a str,
    status: RunStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RunError>,
    stdout: &'a str,
    stderr: &'a str,
    duration_ms: f64,
}

/// The routes.
pub fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/functions", get(functions))
        .route("/functions/{name}", post(call))
        .route(STORED_PATH, post(stored))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .fallback(|| async { Refusal::no_route() })
        .method_not_allowed_fallback(|| async { Refusal::method() })
        .layer(middleware::from_fn_with_state(Arc::clone(&server), let_go))
        .with_state(server)
}

/// Callers that keep their connection would go on calling a pod that is on its way out.
async fn let_go(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if server.stop.is_leaving() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

async fn ready(State(server): State<Arc<Server>>) -> Response {
    if server.stop.is_leaving() {
        Refusal::stopping().into_response()
    } else if server.pool.is_live() {
        "ok\n".into_response()
    } else {
        server.not_ready().into_response()
    }
}

async fn stored(State(server): State<Arc<Server>>, body: Body) -> Result<StatusCode, Refusal> {
    let token = timeout(BODY_TIMEOUT, read_body(body, MAX_TOKEN_BYTES))
        .await
        .map_err(|_| Refusal::slow_body(BODY_TIMEOUT.as_secs()))??;
    if server.last_word.confirm(&token) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Refusal::wrong_token())
    }
}

async fn functions(State(server): State<Arc<Server>>) -> Result<Response, Refusal> {
    let functions = server.pool.functions().ok_or_else(|| server.not_ready())?;
    Ok(Json(listing(&functions)).into_response())
}

async fn call(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let (function, place) = match server.admit(&name) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            // Unread, it would break the connection before the client has read the answer.
            let _ = timeout(BODY_TIMEOUT, read_body(body, 0)).await;
            return Err(refusal);
        }
    };
    let body = timeout(BODY_TIMEOUT, read_body(body, MAX_BODY_BYTES))
        .await
        .map_err(|_| Refusal::slow_body(BODY_TIMEOUT.as_secs()))??;
    let call = Call {
        run_id: format!("run_{}", Uuid::now_v7().simple()),
        arguments: function.arguments(&body)?.0,
        function: name,
        caller: Caller::from_headers(&headers),
    };
    drop(body);
    Ok(answer(&server.run(call, place).await?))
}

impl Server {
    /// The function, and a place for the call; before its body is read, so that no more bodies are held than calls may
    /// run or wait.
    fn admit(&self, name: &str) -> Result<(Function, OwnedSemaphorePermit), Refusal> {
        if self.stop.is_draining() {
            return Err(Refusal::stopping());
        }
        let functions = self.pool.functions().ok_or_else(|| self.not_ready())?;
        if self.pool.problem().is_some() {
            return Err(self.not_ready());
        }
        let Some(function) = functions.iter().find(|f| f.name == name) else {
            return Err(Refusal::no_function(
                name,
                functions.iter().map(|f| f.name.as_str()),
            ));
        };
        let place = self
            .pool
            .place()
            .ok_or_else(|| Refusal::queue_full(self.pool.waiting()))?;
        Ok((function.clone(), place))
    }

    fn not_ready(&self) -> Refusal {
        match self.pool.problem() {
            Some(problem) => Refusal::not_ready(&format!("no worker can be started: {problem}")),
            None => Refusal::not_ready("main.py is being loaded; try again soon"),
        }
    }

    async fn run(&self, call: Call, place: OwnedSemaphorePermit) -> Result<Report, Refusal> {
        let (begun, mut has_begun) = oneshot::channel();
        let (report, reported) = oneshot::channel();
        let job = Job {
            call,
            begun,
            report,
            place,
        };
        if !self.pool.submit(job).await {
            return Err(Refusal::stopping());
        }
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            begun = &mut has_begun => begun.map_err(|_| Refusal::stopping())?,
            () = stop.draining() => return Err(Refusal::stopping()),
            () = tokio::time::sleep(self.queue_timeout) => {
                return Err(Refusal::waited_too_long(self.queue_timeout.as_secs()));
            }
        }
        reported
            .await
            .map_err(|_| Refusal::internal("the run was lost; the runner's log says why"))
    }
}

/// Reads a body of at most `max` bytes.
async fn read_body(body: Body, max: usize) -> Result<Bytes, Refusal> {
    let mut chunks = body.into_data_stream();
    let (mut kept, mut read) = (BytesMut::new(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|e| Refusal::broken_body(&e.to_string()))?;
        read += chunk.len();
        if read <= max {
            kept.extend_from_slice(&chunk);
        } else {
            kept = BytesMut::new();
        }
        if read > MAX_DISCARDED_BYTES {
            break;
        }
    }
    if read > max {
        return Err(Refusal::too_large());
    }
    Ok(kept.freeze())
}

fn answer(report: &Report) -> Response {
    let status = match &report.result {
        Ok(_) => StatusCode::OK,
        Err(error) if error.reason == "Timeout" => StatusCode::GATEWAY_TIMEOUT,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    // To the microsecond, as the record has it. A run is over long before they do not fit.
    let micros = u32::try_from(report.duration.as_micros()).unwrap_or(u32::MAX);
    let answer = Answer {
        run_id: &report.run_id,
        status: report.status(),
        result: report.result.as_deref().ok(),
        error: report.result.as_ref().err(),
        stdout: &report.stdout,
        stderr: &report.stderr,
        duration_ms: f64::from(micros) / 1e3,
    };
    match serde_json::to_vec(&answer) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => Refusal::internal(&error.to_string()).into_response(),
    }
}
