//! The port on which functions are called: it stays the same, whichever version answers.

use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{net::TcpStream, sync::watch, time::timeout};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use crate::loopback::LocalSite;

/// How long a call waits for a version that can take it.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long a runner that can not be reached has until it must be known to have ended.
const NOTICED: Duration = Duration::from_secs(2);
/// Paths that are not the callers' business.
const INTERNAL: &str = "/internal";
const RUNS: &str = "/runs/";
/// Headers that speak of one connection only.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// A runner that takes calls.
#[derive(Debug)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// The calls that it has not answered yet.
    under_way: TaskTracker,
}

impl Target {
    /// A runner at this address.
    pub fn new(address: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            address,
            under_way: TaskTracker::new(),
        })
    }

    /// Ready once it has answered every call; it must get no more.
    pub async fn idle(&self) {
        self.under_way.close();
        self.under_way.wait().await;
    }
}

/// Who takes calls.
#[derive(Debug, Default)]
struct Desk {
    current: Option<Arc<Target>>,
    /// Those that were replaced and may still have runs.
    earlier: Vec<Weak<Target>>,
    /// Why nobody takes calls, where that will not change by itself.
    problem: Option<String>,
    closing: bool,
}

/// Gives calls to the version that serves.
#[derive(Debug)]
pub struct Calls {
    desk: watch::Sender<Desk>,
    site: LocalSite,
}

/// Why a call is answered here.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("this is served for this machine alone")]
    Foreign,
    #[error("there is nothing here; GET /functions lists the functions")]
    Internal,
    #[error("scriptscope dev is ending")]
    Closing,
    #[error("no version of the script can be used: {0}")]
    Unusable(String),
    #[error("no version of the script was ready within {} s", PATIENCE.as_secs())]
    TooSlow,
    #[error("the runner ended before it had answered")]
    Broken,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code) = match &self {
            Self::Foreign => (StatusCode::FORBIDDEN, "Forbidden"),
            Self::Internal => (StatusCode::NOT_FOUND, "NotFound"),
            Self::Closing => (StatusCode::SERVICE_UNAVAILABLE, "Stopping"),
            Self::Unusable(_) | Self::TooSlow => (StatusCode::SERVICE_UNAVAILABLE, "NotReady"),
            Self::Broken => (StatusCode::BAD_GATEWAY, "RunnerEnded"),
        };
        let body = json!({"error": {"code": code, "message": self.to_string()}});
        (status, Json(body)).into_response()
    }
}

impl Calls {
    /// For calls on this port.
    pub fn new(port: u16) -> Self {
        Self {
            desk: watch::Sender::default(),
            site: LocalSite::new(port),
        }
    }

    /// From now on calls go to `target`; says who took them until now.
    pub fn switch(&self, target: Arc<Target>) -> Option<Arc<Target>> {
        let mut before = None;
        self.desk.send_modify(|desk| {
            before = desk.current.replace(target);
            desk.problem = None;
            desk.earlier.retain(|earlier| earlier.strong_count() > 0);
            desk.earlier.extend(before.as_ref().map(Arc::downgrade));
        });
        before
    }

    /// A runner has ended: what would go to it waits for another.
    pub fn remove(&self, target: &Arc<Target>) {
        self.desk.send_modify(|desk| {
            desk.current = desk
                .current
                .take()
                .filter(|current| !Arc::ptr_eq(current, target));
        });
    }

    /// Where nobody takes calls, they are told why; or with none, wait.
    pub fn set_problem(&self, problem: Option<String>) {
        self.desk.send_modify(|desk| desk.problem = problem);
    }

    /// No more calls are taken.
    pub fn close(&self) {
        self.desk.send_modify(|desk| desk.closing = true);
    }

    /// Who takes a call, and the word that it is under way; waits for somebody.
    async fn take(&self) -> Result<(Arc<Target>, TaskTrackerToken), Refusal> {
        let mut desk = self.desk.subscribe();
        let settled = desk.wait_for(|desk| desk.closing || desk.current.is_some() || desk.problem.is_some());
        let desk = timeout(PATIENCE, settled)
            .await
            .map_err(|_| Refusal::TooSlow)?
            .map_err(|_| Refusal::Closing)?;
        // As long as the desk is looked at nobody is replaced, so that a runner that is has no call unnoticed.
        match (&desk.current, &desk.problem) {
            _ if desk.closing => Err(Refusal::Closing),
            (Some(target), _) => Ok((Arc::clone(target), target.under_way.token())),
            (None, problem) => Err(Refusal::Unusable(problem.clone().unwrap_or_default())),
        }
    }

    /// A connection to whoever takes the call.
    async fn connect(&self) -> Result<(TcpStream, Arc<Target>, TaskTrackerToken), Refusal> {
        loop {
            let (target, token) = self.take().await?;
            if let Ok(stream) = TcpStream::connect(target.address).await {
                return Ok((stream, target, token));
            }
            if !self.gone(&target).await {
                return Err(Refusal::Broken);
            }
        }
    }

    /// Waits until it is known that a runner which does not answer has ended; false if it has not.
    async fn gone(&self, target: &Arc<Target>) -> bool {
        let mut desk = self.desk.subscribe();
        let gone = desk.wait_for(|desk| {
            let current = desk.current.as_ref();
            !current.is_some_and(|current| Arc::ptr_eq(current, target))
        });
        timeout(NOTICED, gone).await.is_ok()
    }

    /// Runners that were replaced and still have runs, the latest first.
    fn earlier(&self) -> Vec<Arc<Target>> {
        self.desk
            .borrow()
            .earlier
            .iter()
            .rev()
            .filter_map(Weak::upgrade)
            .collect()
    }
}

/// The routes of the port.
pub fn router(calls: Arc<Calls>) -> Router {
    Router::new().fallback(pass_on).with_state(calls)
}

async fn pass_on(State(calls): State<Arc<Calls>>, request: Request) -> Result<Response, Refusal> {
    if !calls.site.takes(request.headers()) {
        return Err(Refusal::Foreign);
    }
    if request.uri().path().starts_with(INTERNAL) {
        return Err(Refusal::Internal);
    }
    // What is asked of a run has no body.
    let again = request.uri().path().starts_with(RUNS).then(|| bare(&request));
    let (stream, target, _under_way) = calls.connect().await?;
    let response = match ask(stream, target.address, request).await {
        Ok(response) => response,
        Err(error) => {
            // Who calls again now finds another one.
            calls.gone(&target).await;
            return Err(error);
        }
    };
    let unknown = [StatusCode::NOT_FOUND, StatusCode::GONE].contains(&response.status());
    if let Some(again) = again.filter(|_| unknown) {
        for target in calls.earlier() {
            let Ok(stream) = TcpStream::connect(target.address).await else {
                continue;
            };
            if let Ok(response) = ask(stream, target.address, bare(&again)).await
                && response.status() != StatusCode::NOT_FOUND
                && response.status() != StatusCode::GONE
            {
                return Ok(response);
            }
        }
    }
    Ok(response)
}

/// The same request without its body.
fn bare(request: &Request) -> Request {
    let mut copy = Request::new(Body::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy.headers_mut().remove(header::CONTENT_LENGTH);
    copy
}

/// Asks a runner, and waits for all of its answer.
async fn ask(stream: TcpStream, address: SocketAddr, request: Request) -> Result<Response, Refusal> {
    let _ = stream.set_nodelay(true);
    let broken = |error: hyper::Error| {
        tracing::debug!(%error, "A runner broke a connection.");
        Refusal::Broken
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    tokio::spawn(connection);
    let response = sender
        .send_request(for_runner(request, address))
        .await
        .map_err(broken)?;
    let (mut parts, body) = response.into_parts();
    let body = body.collect().await.map_err(broken)?.to_bytes();
    for name in &HOP_BY_HOP {
        parts.headers.remove(name);
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn for_runner(request: Request, address: SocketAddr) -> Request {
    let (mut parts, body) = request.into_parts();
    for name in &HOP_BY_HOP {
        parts.headers.remove(name);
    }
    let path = parts.uri.path_and_query().cloned();
    let path = path.map_or_else(http::Uri::default, http::Uri::from);
    parts.uri = path;
    if let Ok(host) = HeaderValue::from_str(&address.to_string()) {
        parts.headers.insert(header::HOST, host);
    }
    Request::from_parts(parts, body)
}
