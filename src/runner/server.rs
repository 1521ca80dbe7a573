//! The script's endpoint: its functions and what is asked of the runner itself. [`super::run_routes`] has the runs.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    FREE_PATH, STORED_PATH, answer,
    call::{Call, Report},
    caller::Caller,
    function::{Function, listing},
    guard::{self, KeyName},
    keys::Keys,
    mode::Mode,
    peers::Peers,
    pool::Pool,
    queue::{Job, Waiter},
    refusal::Refusal,
    run_routes::{self, live_json, status_url},
    runs::Runs,
    stop::{LastWord, Stop},
};

/// The largest body of a call, in bytes.
pub const MAX_BODY_BYTES: usize = 6 << 20;
/// The longest token that is read.
const MAX_TOKEN_BYTES: usize = 256;

/// What the routes share.
#[derive(Debug)]
pub struct Server {
    /// The workers.
    pub pool: Pool,
    /// The runs that can be asked for.
    pub runs: Arc<Runs>,
    /// The API keys, if callers need one.
    pub keys: Option<Keys>,
    /// The other runners of the script.
    pub peers: Peers,
    /// How far stopping is.
    pub stop: Stop,
    /// What the last record will say.
    pub last_word: LastWord,
    /// How long a call may wait for a worker.
    pub queue_timeout: Duration,
}

/// The routes.
pub fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/functions", get(functions))
        .route("/functions/{name}", post(call))
        .merge(run_routes::routes())
        .route(STORED_PATH, post(stored))
        .route(FREE_PATH, get(free))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .fallback(|| async { Refusal::no_route() })
        .method_not_allowed_fallback(|| async { Refusal::method() })
        .layer(middleware::from_fn_with_state(Arc::clone(&server), guard::guard))
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

async fn ready(State(server): State<Arc<Server>>) -> Result<&'static str, Refusal> {
    if server.stop.is_leaving() {
        return Err(Refusal::stopping());
    }
    server.serves()?;
    // Calls are only sent elsewhere where there is room, or the last pod would answer nobody instead of saying that it
    // is busy.
    if server.pool.is_saturated() && server.peers.any_has_room().await {
        return Err(Refusal::saturated());
    }
    Ok("ok\n")
}

/// Whether a call would find a place here.
async fn free(State(server): State<Arc<Server>>) -> Result<&'static str, Refusal> {
    server.serves()?;
    if server.pool.is_saturated() || !server.pool.has_place() {
        return Err(server.full());
    }
    Ok("ok\n")
}

async fn stored(State(server): State<Arc<Server>>, body: Body) -> Result<StatusCode, Refusal> {
    let token = guard::receive(body, MAX_TOKEN_BYTES).await?;
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
    Extension(key): Extension<KeyName>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let admitted = Mode::of(&uri, &headers).and_then(|mode| Ok((mode, server.admit(&name)?)));
    let (mode, (function, place)) = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => {
            guard::discard(body).await;
            return Err(refusal);
        }
    };
    let body = guard::receive(body, MAX_BODY_BYTES).await?;
    let call = Call {
        run_id: server.peers.tag().new_run_id(),
        arguments: function.arguments(&body)?.0,
        function: name,
        caller: Caller::of(&headers, key.0.as_deref()),
        cancel: CancellationToken::new(),
    };
    drop(body);
    // Nobody waits between this and the queue, so that a runner which stops finds every call that it has taken.
    if server.stop.is_draining() {
        return Err(Refusal::stopping());
    }
    let trace = HeaderValue::from_str(&call.caller.traceparent).ok();
    let mut response = match mode {
        Mode::Wait => answered(&server.run(call, place).await?),
        Mode::Accept { preferred } => accepted(&server, call, place, preferred),
    };
    if let Some(trace) = trace {
        response.headers_mut().insert("traceparent", trace);
    }
    Ok(response)
}

/// Answers before the run begins.
fn accepted(server: &Server, call: Call, place: OwnedSemaphorePermit, preferred: bool) -> Response {
    let body = live_json(&call.run_id, &call.function, false);
    let location = HeaderValue::from_str(&status_url(&call.run_id)).ok();
    server.pool.submit(Job {
        call,
        waiter: None,
        place,
    });
    let mut response = (StatusCode::ACCEPTED, Json(body)).into_response();
    let headers = response.headers_mut();
    headers.extend(location.map(|url| (header::LOCATION, url)));
    if preferred {
        headers.insert("preference-applied", HeaderValue::from_static("respond-async"));
    }
    response
}

fn answered(report: &Report) -> Response {
    match answer::body(report) {
        Ok(body) => run_routes::json_response(answer::status(report), body.into()),
        Err(error) => Refusal::internal(&error.to_string()).into_response(),
    }
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
        let place = self.pool.place().ok_or_else(|| self.full())?;
        Ok((function.clone(), place))
    }

    /// Whether calls are taken at all.
    fn serves(&self) -> Result<(), Refusal> {
        if self.stop.is_draining() {
            return Err(Refusal::stopping());
        }
        if self.keys.as_ref().is_some_and(|keys| !keys.are_known()) {
            return Err(Refusal::not_ready("the API keys are not known yet"));
        }
        if self.pool.is_live() {
            Ok(())
        } else {
            Err(self.not_ready())
        }
    }

    fn full(&self) -> Refusal {
        Refusal::queue_full(self.pool.waiting(), self.pool.retry_after())
    }

    fn not_ready(&self) -> Refusal {
        match self.pool.problem() {
            Some(problem) => Refusal::not_ready(&format!("no worker can be started: {problem}")),
            None => Refusal::not_ready("the script is being loaded; try again soon"),
        }
    }

    /// Waits for the run's end.
    async fn run(&self, call: Call, place: OwnedSemaphorePermit) -> Result<Report, Refusal> {
        let (begun, mut has_begun) = oneshot::channel();
        let (report, reported) = oneshot::channel();
        let in_queue = InQueue {
            pool: &self.pool,
            run_id: call.run_id.clone(),
        };
        let begun = Some(begun);
        self.pool.submit(Job {
            call,
            waiter: Some(Waiter { begun, report }),
            place,
        });
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            begun = &mut has_begun => begun.map_err(|_| Refusal::stopping())?,
            () = stop.draining() => return Err(Refusal::stopping()),
            () = tokio::time::sleep(self.queue_timeout) => {
                let waited = self.queue_timeout.as_secs();
                return Err(Refusal::waited_too_long(waited, self.pool.retry_after()));
            }
        }
        drop(in_queue);
        reported
            .await
            .map_err(|_| Refusal::internal("the run was lost; the runner's log says why"))
    }
}

/// A call whose caller waits. When the caller is gone, or has waited long enough, it leaves the queue.
struct InQueue<'a> {
    pool: &'a Pool,
    run_id: String,
}

impl Drop for InQueue<'_> {
    fn drop(&mut self) {
        self.pool.give_up(&self.run_id);
    }
}
