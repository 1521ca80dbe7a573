//! The script in a path, if whoever asks may see what the route shows of it.

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};

use super::{ApiError, WebState, access::Identity};
use crate::{export::file::is_object_name, model::ScriptKey};

/// A script whose runs the reader may see.
pub(super) struct RunsOf(pub(super) ScriptKey);

/// A script whose log lines the reader may see.
pub(super) struct LogsOf(pub(super) ScriptKey);

/// A script whose object, with its source, the reader may see.
pub(super) struct SpecOf(pub(super) ScriptKey);

impl FromRequestParts<WebState> for SpecOf {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &WebState) -> Result<Self, ApiError> {
        readable(parts, state, "").await.map(Self)
    }
}

impl FromRequestParts<WebState> for RunsOf {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &WebState) -> Result<Self, ApiError> {
        readable(parts, state, "runs").await.map(Self)
    }
}

impl FromRequestParts<WebState> for LogsOf {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &WebState) -> Result<Self, ApiError> {
        readable(parts, state, "logs").await.map(Self)
    }
}

async fn readable(parts: &mut Parts, state: &WebState, subresource: &str) -> Result<ScriptKey, ApiError> {
    #[derive(serde::Deserialize)]
    struct Names {
        namespace: String,
        script: String,
    }
    let Path(names) = Path::<Names>::from_request_parts(parts, state).await?;
    checked_name("namespace", &names.namespace)?;
    checked_name("script", &names.script)?;
    let script = ScriptKey::new(names.namespace, names.script);
    // Every route has been through authentication; without a name there are no rights.
    let reader = parts.extensions.get::<Identity>().cloned().unwrap_or_default();
    state.authorize(&reader, subresource, &script).await?;
    Ok(script)
}

/// Refuses what can not be the name of an object.
pub(super) fn checked_name(field: &str, name: &str) -> Result<(), ApiError> {
    if is_object_name(name) {
        return Ok(());
    }
    Err(ApiError::invalid(
        field,
        format!("this is not the name of a {field}: names hold only a-z, 0-9, '-' and '.'"),
    ))
}
