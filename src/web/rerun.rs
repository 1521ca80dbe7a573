//! Calling a script again with what went into one of its runs.
//!
//! The caller says which run and nothing else: what is called, with what and where follows from the run as it is stored and
//! from the script's name. It is a call like any other, of source type Test and with the reader's name as its source.

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderValue, StatusCode, Uri},
};
use futures::StreamExt;
use reqwest::{Client, Response, redirect::Policy};
use serde_json::{Value, json};

use crate::{
    api::CustomScript,
    model::{RunDetail, ScriptKey, SourceType},
};

use super::{
    ApiError, WebState,
    access::{Identity, Permission},
    query,
    readable::RunsOf,
    rows::{RunPath, no_run},
};

/// How long the script may take to accept the call.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of its answer that are read.
const ANSWER: usize = 64 << 10;
/// Characters of what it says that are passed on.
const SAID: usize = 500;

/// Where a script can be called; none where it can not.
pub type EndpointOf = fn(&CustomScript) -> Option<String>;

/// How scripts are called.
#[derive(Clone)]
pub(super) struct Calls {
    client: Client,
    endpoint: EndpointOf,
}

impl Calls {
    pub(super) fn new(endpoint: EndpointOf) -> Option<Self> {
        let client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .timeout(PATIENCE)
            .build();
        let client = client.inspect_err(|error| tracing::error!(%error, "Scripts can not be called."));
        Some(Self {
            client: client.ok()?,
            endpoint,
        })
    }
}

pub(super) async fn begin(
    State(state): State<WebState>,
    Extension(reader): Extension<Identity>,
    RunsOf(script): RunsOf,
    RunPath(run_id): RunPath,
    uri: Uri,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let [] = query::only(&uri, [])?;
    let may = Permission {
        verb: "create",
        ..Permission::get("runs", &script.namespace, &script.name)
    };
    if !state.access.allowed(&reader, &may).await? {
        return Err(ApiError::forbidden_to(
            "create",
            &reader.username,
            "runs",
            &script.namespace,
        ));
    }
    let run = state.store.run(&script, &run_id).await?;
    let run = run.ok_or_else(|| no_run(&script, &run_id))?;
    let input = input_of(&run)?;
    let (calls, endpoint) = callable(&state, &script)?;
    let mut url = reqwest::Url::parse(&endpoint).map_err(|_| ApiError::internal())?;
    url.path_segments_mut()
        .map_err(|()| ApiError::internal())?
        .extend(["functions", &*run.run.function]);
    url.set_query(Some("mode=async"));
    let mut request = calls
        .client
        .post(url)
        .header("content-type", "application/json")
        .header("x-scriptscope-source-type", SourceType::Test.as_str())
        .body(input.to_owned());
    // Names are UTF-8, and none that can not stand in a header comes from Kubernetes.
    if let Ok(name) = HeaderValue::from_str(&reader.username) {
        request = request.header("x-scriptscope-source", name);
    }
    let answer = request.send().await.map_err(|error| {
        tracing::warn!(%error, %script, "A script could not be called.");
        ApiError::new(
            StatusCode::BAD_GATEWAY,
            "ScriptUnreachable",
            "the script did not answer; whether it has a ready pod, its object's conditions say. See among its runs whether the call has begun",
        )
    })?;
    let status = answer.status();
    let said = said(answer).await;
    match said["runId"].as_str() {
        Some(new) if status == StatusCode::ACCEPTED => {
            tracing::info!(user = reader.username, %script, of = run_id, run = new, "A run was called again.");
            Ok((
                StatusCode::ACCEPTED,
                Json(json!({ "runId": new, "function": run.run.function })),
            ))
        }
        _ => Err(refused(status, &said)),
    }
}

/// What went into a run, if all of it is kept.
fn input_of(run: &RunDetail) -> Result<&str, ApiError> {
    if let Some(input) = &run.input {
        return Ok(input.get());
    }
    Err(if run.input_truncated {
        ApiError::new(
            StatusCode::CONFLICT,
            "InputTruncated",
            "the input of this run was larger than spec.capture.maxBytes and is not kept, so that it can not be called with it again",
        )
    } else {
        ApiError::new(
            StatusCode::CONFLICT,
            "InputNotCaptured",
            "the input of this run was not captured, so that it can not be called with it again; spec.capture.input of the script says whether inputs are",
        )
    })
}

fn callable<'a>(state: &'a WebState, script: &ScriptKey) -> Result<(&'a Calls, String), ApiError> {
    let no = |code, why: &str| ApiError::new(StatusCode::CONFLICT, code, why);
    let object = state.scripts.get(script);
    let serves = |object: &&CustomScript| {
        let status = object.status.as_ref();
        object.spec.workload.is_some() || status.is_some_and(|status| status.endpoint.is_some())
    };
    let object = object.as_deref().filter(serves);
    let Some(object) = object else {
        return Err(no(
            "NotDeployed",
            "the script is not deployed now; set spec.desiredState: Deployed",
        ));
    };
    let keys = object
        .spec
        .endpoint
        .as_ref()
        .and_then(|e| e.api_keys_secret_ref.as_ref());
    if keys.is_some() {
        return Err(no(
            "NeedsApiKey",
            "the script takes calls with an API key only, and the operator has none of its keys; call it with scriptscope invoke --api-key-file",
        ));
    }
    let calls = state.calls.as_ref();
    calls
        .and_then(|calls| Some((calls, (calls.endpoint)(object)?)))
        .ok_or_else(|| {
            no(
                "NotCallable",
                "the operator does not know how this script is called: its pods are its owner's",
            )
        })
}

/// The answer as JSON, its beginning only.
async fn said(answer: Response) -> Value {
    let mut body = Vec::new();
    let mut pieces = answer.bytes_stream();
    while let Some(Ok(piece)) = pieces.next().await {
        body.extend_from_slice(&piece);
        if body.len() > ANSWER {
            return Value::Null;
        }
    }
    serde_json::from_slice(&body).unwrap_or_default()
}

fn refused(status: StatusCode, said: &Value) -> ApiError {
    let why: String = said["error"]["message"]
        .as_str()
        .unwrap_or("it did not say why")
        .chars()
        .take(SAID)
        .collect();
    let busy = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    );
    let (of, code) = if busy {
        (StatusCode::SERVICE_UNAVAILABLE, "ScriptBusy")
    } else {
        (StatusCode::CONFLICT, "CallRefused")
    };
    ApiError::new(
        of,
        code,
        format!("the script refused the call with {}: {why}", status.as_u16()),
    )
}
