//! `/livez`, `/readyz` and `/metrics`, on a listener of their own.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio_util::sync::CancellationToken;

use super::context::Context;
use crate::metrics::Metrics;

/// Parts of the process that must have begun before it is ready, by name.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Vec<Expected>>>);

type Expected = (&'static str, Part);

impl Readiness {
    /// Waits for one more part; call [`Part::ready`] when it has begun.
    pub fn expect(&self, name: &'static str) -> Part {
        let part = Part::default();
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((name, part.clone()));
        part
    }

    /// The parts that have not begun yet.
    pub fn missing(&self) -> Vec<&'static str> {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts
            .iter()
            .filter(|(_, part)| !part.0.is_cancelled())
            .map(|(name, _)| *name)
            .collect()
    }
}

/// A part that is expected to begin. Any number may wait for it, where of those that wait for a reflector's store (a
/// controller is one of them) kube 5.0 wakes only the last.
#[derive(Clone, Debug, Default)]
pub struct Part(CancellationToken);

impl Part {
    /// It has begun.
    pub fn ready(&self) {
        self.0.cancel();
    }

    /// Waits until it has begun.
    pub async fn wait(&self) {
        self.0.cancelled().await;
    }
}

/// The routes.
pub fn router(context: Arc<Context>, readiness: Readiness) -> Router {
    let metrics = metrics_router(context.metrics.clone());
    Router::new()
        // Says that the process turns; a restart would help against nothing else.
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .with_state((context, readiness))
        .merge(metrics)
}

/// The route of the metrics alone.
pub fn metrics_router(metrics: Metrics) -> Router {
    Router::new().route("/metrics", get(encoded)).with_state(metrics)
}

async fn readyz(State((context, readiness)): State<(Arc<Context>, Readiness)>) -> Response {
    let missing = readiness.missing();
    if !missing.is_empty() {
        let text = format!("not ready yet: {}\n", missing.join(", "));
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    match context.health.get().await {
        Ok(()) => "ok\n".into_response(),
        Err(error) => {
            let text = format!("the store can not be written: {error}\n");
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

async fn encoded(State(metrics): State<Metrics>) -> Response {
    match metrics.encode() {
        Ok(text) => {
            let type_ = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(CONTENT_TYPE, type_)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_begun_is_named() {
        let readiness = Readiness::default();
        let (pods, scripts) = (readiness.expect("pods"), readiness.expect("scripts"));
        pods.ready();
        assert_eq!(readiness.missing(), ["scripts"]);
        scripts.ready();
        assert!(readiness.missing().is_empty());
    }

    #[tokio::test]
    async fn everybody_who_waits_for_a_part_goes_on_when_it_begins() {
        let part = Readiness::default().expect("pods");
        let (first, second) = (part.clone(), part.clone());
        let waiting = tokio::spawn(async move { tokio::join!(first.wait(), second.wait()) });
        tokio::task::yield_now().await;
        part.ready();
        waiting.await.unwrap();
    }
}
