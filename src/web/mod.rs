//! The web server: REST and the dashboard page.
//!
//! [`router`] is what readers use: every answer of `/api` needs a bearer token, and each says only what the reader's
//! rights in Kubernetes let it say.

pub mod access;
mod assets;
mod cache;
pub mod certificates;
mod cursor;
mod deployments;
mod download;
mod error;
mod exports;
mod failures;
mod gaps;
mod guard;
mod objects;
mod proxy;
mod query;
mod readable;
mod rerun;
mod rows;
mod scripts;
mod session;
mod stream;
mod tls;

use std::{path::Path, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router, middleware,
    routing::{delete, get, post},
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{export::file::ExportFolder, metrics::Metrics, model::ScriptKey, store::Store};

pub use crate::connections::{Limits, serve, serve_tls, serve_within};
use access::{Access, Identity, Permission};
pub use error::ApiError;
pub use objects::ScriptObjects;
pub use proxy::{DashboardAuth, ProxyArgs, ProxyAuth};
pub use query::filter_of_query;
pub use rerun::EndpointOf;
pub use tls::{Tls, TlsError};

/// Downloads at once; each holds a few pieces of its file in memory.
const DOWNLOADS: usize = 24;

/// Those that read rows just now, and so have them in memory, too.
const READING: usize = 4;

/// Those of Parquet among them; each holds a row group in memory.
const PARQUETS: usize = 2;

/// Logs that are followed at once.
const STREAMS: usize = 64;

/// How long the store may take for the answer to one request, where nothing else is said.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// What the routes work with. Clones share it.
#[derive(Clone)]
pub struct WebState {
    store: Arc<dyn Store>,
    access: Arc<dyn Access>,
    scripts: Arc<dyn ScriptObjects>,
    exports: ExportFolder,
    metrics: Metrics,
    downloads: Arc<Semaphore>,
    reading: Arc<Semaphore>,
    parquets: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    closing: CancellationToken,
    proxy: Option<Arc<ProxyAuth>>,
    calls: Option<rerun::Calls>,
    time_limit: Duration,
}

impl WebState {
    /// `data_dir` is the folder that exports are written below.
    pub fn new(
        store: Arc<dyn Store>,
        access: Arc<dyn Access>,
        scripts: Arc<dyn ScriptObjects>,
        data_dir: &Path,
        metrics: Metrics,
    ) -> Self {
        Self {
            store,
            access,
            scripts,
            exports: ExportFolder::new(data_dir),
            metrics,
            downloads: Arc::new(Semaphore::new(DOWNLOADS)),
            reading: Arc::new(Semaphore::new(READING)),
            parquets: Arc::new(Semaphore::new(PARQUETS)),
            streams: Arc::new(Semaphore::new(STREAMS)),
            closing: CancellationToken::new(),
            proxy: None,
            calls: None,
            time_limit: TIME_LIMIT,
        }
    }

    /// With another limit for the time that the store may take for the answer to one request.
    #[must_use]
    pub fn with_time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Readers may also be whom a reverse proxy says they are.
    #[must_use]
    pub fn behind(mut self, proxy: Option<ProxyAuth>) -> Self {
        self.proxy = proxy.map(Arc::new);
        self
    }

    /// Scripts may be called again with what went into one of their runs, at the address that `endpoint` says.
    #[must_use]
    pub fn with_calls(mut self, endpoint: EndpointOf) -> Self {
        self.calls = rerun::Calls::new(endpoint);
        self
    }

    /// Logs are followed no longer than until `closing`; other answers end by themselves.
    #[must_use]
    pub fn until(mut self, closing: CancellationToken) -> Self {
        self.closing = closing;
        self
    }

    /// Whether `reader` may get a subresource of a script; the empty name means every script of the namespace, the
    /// empty namespace every namespace.
    async fn may_get(
        &self,
        reader: &Identity,
        subresource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<bool, ApiError> {
        Ok(self
            .access
            .allowed(reader, &Permission::get(subresource, namespace, name))
            .await?)
    }

    /// Refuses a reader who may not get this subresource of the script.
    async fn authorize(
        &self,
        reader: &Identity,
        subresource: &str,
        script: &ScriptKey,
    ) -> Result<(), ApiError> {
        if self
            .may_get(reader, subresource, &script.namespace, &script.name)
            .await?
        {
            return Ok(());
        }
        Err(ApiError::forbidden(
            &reader.username,
            subresource,
            &script.namespace,
        ))
    }

    /// An error where nobody has ever heard of the script. Asked only when there is nothing to show, so that a
    /// misspelt name never looks like a script without data.
    async fn require_script(&self, script: &ScriptKey) -> Result<(), ApiError> {
        let known = self.scripts.get(script).is_some()
            || self
                .store
                .scripts(Some(&script.namespace))
                .await?
                .contains(script)
            || !self.store.deployments(script, 1).await?.is_empty();
        if known {
            return Ok(());
        }
        Err(ApiError::not_found(
            "ScriptNotFound",
            format!(
                "there is no script {} in namespace {}, and no data of one",
                script.name, script.namespace
            ),
        ))
    }
}

/// The dashboard page and the REST API.
pub fn router(state: WebState) -> Router {
    let script = "/api/v1/namespaces/{namespace}/scripts/{script}";
    let at = |path: &str| format!("{script}{path}");
    let api = Router::new()
        .route("/api/v1/whoami", get(whoami))
        .route("/api/v1/session", post(session::begin))
        .route("/api/v1/scripts", get(scripts::list))
        .route(script, get(scripts::one))
        .route(&at("/deployments"), get(deployments::list))
        .route(&at("/deployments/{version}"), get(deployments::one))
        .route(&at("/figures"), get(scripts::figures))
        .route(&at("/series"), get(scripts::series))
        .route(&at("/errors"), get(failures::list))
        .route(&at("/runs"), get(rows::runs))
        .route(&at("/runs.csv"), get(download::runs_csv))
        .route(&at("/runs.parquet"), get(download::runs_parquet))
        .route(&at("/runs/{run}"), get(rows::run))
        .route(&at("/runs/{run}/logs"), get(rows::run_logs))
        .route(&at("/runs/{run}/rerun"), post(rerun::begin))
        .route(&at("/logs"), get(rows::logs))
        .route(&at("/logs/stream"), get(stream::logs))
        .route(&at("/gaps"), get(gaps::list))
        .route(&at("/logs.csv"), get(download::logs_csv))
        .route(&at("/logs.parquet"), get(download::logs_parquet))
        .route(
            "/api/v1/namespaces/{namespace}/exports/{export}/file",
            get(exports::file),
        )
        .route_layer(middleware::from_fn_with_state(state.time_limit, guard::in_time))
        .route_layer(middleware::from_fn_with_state(state.clone(), guard::authenticate))
        // Whoever wants to be forgotten need not be known.
        .route("/api/v1/session", delete(session::end));
    guard::wrap(api.fallback(assets::serve).with_state(state))
}

async fn whoami(Extension(reader): Extension<Identity>) -> Json<Value> {
    Json(json!({ "username": reader.username, "groups": reader.groups }))
}
