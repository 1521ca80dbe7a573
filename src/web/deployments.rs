//! The versions of a script: how each went, and what each ran.

use axum::{
    Json,
    extract::{FromRequestParts, Path, State, rejection::PathRejection},
    http::{Uri, request::Parts},
};
use serde_json::{Value, json};

use super::{
    ApiError, WebState,
    query::{self, parsed},
    readable::{RunsOf, SpecOf},
};
use crate::model::{Deployment, ScriptKey};

/// Versions shown where nothing is said, and at most.
const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 100;

/// The version in a path.
pub(super) struct VersionPath(i64);

impl<S: Send + Sync> FromRequestParts<S> for VersionPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        #[derive(serde::Deserialize)]
        struct Names {
            version: String,
        }
        let names: Result<Path<Names>, PathRejection> = Path::from_request_parts(parts, state).await;
        let version = parsed("version", &names?.0.version, "expected a whole number")?;
        Ok(Self(version))
    }
}

pub(super) async fn list(
    State(state): State<WebState>,
    RunsOf(script): RunsOf,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let [limit] = query::only(&uri, ["limit"])?;
    let limit = limit.map_or(Ok(DEFAULT_LIMIT), |text| query::limit(&text))?;
    let deployments = state.store.deployments(&script, limit.min(MAX_LIMIT)).await?;
    if deployments.is_empty() {
        state.require_script(&script).await?;
    }
    let items: Vec<Value> = deployments.iter().map(shown).collect();
    Ok(Json(json!({ "items": items })))
}

/// A version with how long it took until it served.
pub(super) fn shown(deployment: &Deployment) -> Value {
    let mut item = json!(deployment);
    item["durationMicros"] = json!(deployment.duration_micros());
    item
}

pub(super) async fn one(
    State(state): State<WebState>,
    SpecOf(script): SpecOf,
    VersionPath(version): VersionPath,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let [] = query::only(&uri, [])?;
    let Some(made_of) = state.store.deployed_spec(&script, version).await? else {
        state.require_script(&script).await?;
        return Err(no_version(&state, &script, version).await?);
    };
    let all = state.store.deployments(&script, usize::MAX).await?;
    let mut found = all
        .into_iter()
        .skip_while(|deployment| deployment.version != version);
    let Some(deployment) = found.next() else {
        return Err(no_version(&state, &script, version).await?);
    };
    let mut json = shown(&deployment);
    json["previousVersion"] = json!(found.next().map(|before| before.version));
    json["spec"] = json!(made_of.spec);
    Ok(Json(json))
}

async fn no_version(state: &WebState, script: &ScriptKey, version: i64) -> Result<ApiError, ApiError> {
    let latest = state.store.deployments(script, 1).await?;
    let latest = latest.first().map_or(0, |deployment| deployment.version);
    let message = if (1..=latest).contains(&version) {
        format!("version {version} is not kept any more; the history of the script shows which ones are")
    } else {
        format!("version {version} never existed; the latest is {latest}")
    };
    Ok(ApiError::not_found("VersionNotFound", message))
}
