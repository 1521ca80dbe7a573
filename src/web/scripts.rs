//! The scripts a reader may see, with their figures.

use std::collections::BTreeSet;

use axum::{Extension, Json, extract::State, http::Uri};
use futures::future::try_join_all;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    export::Table,
    model::{Figures, ScriptKey},
    store::SeriesQuery,
};

use super::{
    ApiError, WebState,
    access::Identity,
    query::{self, Paging},
    readable::{RunsOf, checked_name},
    rows::range_json,
};

/// Scripts whose figures or rights are looked up at once.
const AT_ONCE: usize = 8;
/// Versions shown with their figures.
const VERSIONS: usize = 10;
/// Deployments shown.
const DEPLOYMENTS: usize = 20;

pub(super) async fn list(
    State(state): State<WebState>,
    Extension(reader): Extension<Identity>,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let [namespace, limit, after] = query::only(&uri, ["namespace", "limit", "continue"])?;
    let limit = limit.map_or(Ok(query::MAX_LIMIT), |text| query::limit(&text))?;
    let after = after.map(|text| start_after(&text)).transpose()?;
    if let Some(namespace) = &namespace {
        checked_name("namespace", namespace)?;
    }
    let namespace = namespace.as_deref();
    let mut scripts: BTreeSet<ScriptKey> = state.store.scripts(namespace).await?.into_iter().collect();
    scripts.extend(state.scripts.list(namespace));
    let visible = match namespace {
        Some(namespace) => visible_in(&state, &reader, namespace, scripts).await?,
        None => visible_anywhere(&state, &reader, scripts).await?,
    };
    let mut page: Vec<ScriptKey> = visible
        .into_iter()
        .filter(|script| after.as_ref().is_none_or(|after| script > after))
        .take(limit + 1)
        .collect();
    let more = page.len() > limit;
    page.truncate(limit);
    let next = page.last().filter(|_| more).map(ToString::to_string);
    let figures = state.store.figures_of(&page).await?;
    let items: Vec<Value> = page
        .iter()
        .zip(figures)
        .map(|(script, figures)| summary(&state, script, &figures))
        .collect();
    Ok(Json(json!({ "items": items, "continue": next })))
}

/// The last script of the page before.
fn start_after(text: &str) -> Result<ScriptKey, ApiError> {
    let (namespace, name) = text.split_once('/').ok_or_else(|| {
        ApiError::invalid(
            "continue",
            "send what `continue` of the page before says, as it is",
        )
    })?;
    checked_name("continue", namespace)?;
    checked_name("continue", name)?;
    Ok(ScriptKey::new(namespace, name))
}

/// Scripts of one namespace. A reader may have the right to single scripts; one without any is refused, so that
/// "nothing for you" never looks like "nothing there".
async fn visible_in(
    state: &WebState,
    reader: &Identity,
    namespace: &str,
    scripts: BTreeSet<ScriptKey>,
) -> Result<Vec<ScriptKey>, ApiError> {
    if state.may_get(reader, "runs", namespace, "").await? {
        return Ok(scripts.into_iter().collect());
    }
    let scripts: Vec<ScriptKey> = scripts.into_iter().collect();
    let visible = permitted(state, reader, &scripts).await?;
    if visible.is_empty() {
        return Err(ApiError::forbidden(&reader.username, "runs", namespace));
    }
    Ok(visible)
}

/// Scripts of all namespaces that the reader may see as a whole. Asking for each script of a big cluster would be
/// too much; who has the right to single scripts names the namespace.
async fn visible_anywhere(
    state: &WebState,
    reader: &Identity,
    scripts: BTreeSet<ScriptKey>,
) -> Result<Vec<ScriptKey>, ApiError> {
    if state.may_get(reader, "runs", "", "").await? {
        return Ok(scripts.into_iter().collect());
    }
    let namespaces: BTreeSet<&str> = scripts.iter().map(|s| &*s.namespace).collect();
    let namespaces: Vec<ScriptKey> = namespaces.into_iter().map(|n| ScriptKey::new(n, "")).collect();
    let allowed: BTreeSet<String> = permitted(state, reader, &namespaces)
        .await?
        .into_iter()
        .map(|key| key.namespace)
        .collect();
    Ok(scripts
        .into_iter()
        .filter(|script| allowed.contains(&script.namespace))
        .collect())
}

/// Those the reader may get the runs of, asked a few at a time.
async fn permitted(
    state: &WebState,
    reader: &Identity,
    asked: &[ScriptKey],
) -> Result<Vec<ScriptKey>, ApiError> {
    let mut permitted = Vec::new();
    for some in asked.chunks(AT_ONCE) {
        let answers = try_join_all(
            some.iter()
                .map(|s| state.may_get(reader, "runs", &s.namespace, &s.name)),
        )
        .await?;
        permitted.extend(
            some.iter()
                .zip(answers)
                .filter(|(_, yes)| *yes)
                .map(|(s, _)| s.clone()),
        );
    }
    Ok(permitted)
}

/// What a list says of a script: the object's word, where there is an object, and lifetime figures.
fn summary(state: &WebState, script: &ScriptKey, figures: &Figures) -> Value {
    let object = state.scripts.get(script);
    let status = object.as_deref().and_then(|o| o.status.as_ref());
    json!({
        "namespace": script.namespace,
        "name": script.name,
        "exists": object.is_some(),
        "phase": status.and_then(|s| s.phase),
        "version": status.and_then(|s| s.version),
        "endpoint": status.and_then(|s| s.endpoint.as_deref()),
        "figures": figures,
    })
}

pub(super) async fn one(
    State(state): State<WebState>,
    RunsOf(script): RunsOf,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let [] = query::only(&uri, [])?;
    state.require_script(&script).await?;
    let versions = state.store.version_figures(&script, VERSIONS).await?;
    let deployments = state.store.deployments(&script, DEPLOYMENTS).await?;
    let figures = state.store.figures(&script).await?;
    let mut summary = summary(&state, &script, &figures);
    summary["byVersion"] = json!(versions);
    summary["deployments"] = deployments.iter().map(super::deployments::shown).collect();
    Ok(Json(summary))
}

pub(super) async fn figures(
    State(state): State<WebState>,
    RunsOf(script): RunsOf,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let request = query::rows(&uri, Table::Runs, Paging::All)?;
    let range = request.resolve(Timestamp::now())?;
    let figures = state
        .store
        .window_figures(&script, range, &request.filter)
        .await?;
    if figures.total_runs == 0 && figures.total_logs == 0 {
        state.require_script(&script).await?;
    }
    Ok(Json(json!({ "figures": figures, "range": range_json(range) })))
}

pub(super) async fn series(
    State(state): State<WebState>,
    RunsOf(script): RunsOf,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let (request, step, zone) = query::series(&uri)?;
    let query = SeriesQuery {
        script,
        range: request.resolve(Timestamp::now())?,
        filter: request.filter,
        step,
        zone,
    };
    let buckets = state.store.series(&query).await?;
    if buckets.is_empty() {
        state.require_script(&query.script).await?;
    }
    Ok(Json(
        json!({ "buckets": buckets, "step": step.as_str(), "range": range_json(query.range) }),
    ))
}
