//! `/metrics`, `/livez` and `/readyz`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::sync::Mutex;

use crate::{metrics::Metrics, store::Store};

use super::{ApiError, guard};

/// How long the store may take to say that it is well.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long its word stands, so that probes can not burden it.
const FRESH: Duration = Duration::from_secs(2);

/// Set by the operator once its caches are in step with the cluster. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Says whether the operator can serve.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    /// Whether the operator can serve.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// When the store was asked, and what it said.
type Checked = (Instant, Result<(), String>);

#[derive(Clone)]
struct Health {
    store: Arc<dyn Store>,
    metrics: Metrics,
    ready: Readiness,
    last: Arc<Mutex<Option<Checked>>>,
}

/// `/metrics`, `/livez`, `/readyz`, for the cluster's own probes: no token is asked for.
pub fn health_router(store: Arc<dyn Store>, metrics: Metrics, ready: Readiness) -> Router {
    guard::wrap(
        Router::new()
            .route("/metrics", get(metrics_text))
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .fallback(guard::no_route)
            .with_state(Health {
                store,
                metrics,
                ready,
                last: Arc::default(),
            }),
    )
}

async fn metrics_text(State(health): State<Health>) -> Result<Response, ApiError> {
    let text = health.metrics.encode().map_err(|error| {
        tracing::error!(%error, "The metrics could not be written.");
        ApiError::internal()
    })?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

async fn readyz(State(health): State<Health>) -> Result<&'static str, ApiError> {
    let not_ready = |message: String| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "NotReady", message);
    if !health.ready.get() {
        return Err(not_ready(
            "the operator is not yet in step with the cluster".into(),
        ));
    }
    let mut last = health.last.lock().await;
    let result = match &*last {
        Some((when, result)) if when.elapsed() < FRESH => result.clone(),
        _ => {
            let result = match tokio::time::timeout(PATIENCE, health.store.check()).await {
                Ok(result) => result.map_err(|e| e.to_string()),
                Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
            };
            if let Err(error) = &result {
                tracing::warn!(error, "The store is not well.");
            }
            *last = Some((Instant::now(), result.clone()));
            result
        }
    };
    result
        .map(|()| "ok\n")
        .map_err(|_| not_ready("the store can not be written; the operator's log says why".into()))
}
