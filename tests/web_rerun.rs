//! Calling a script again with what went into one of its runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::State,
    http::{HeaderMap, Request, StatusCode, Uri, header},
    routing::post,
};
use jiff::Timestamp;
use scriptscope::{
    api::CustomScript,
    ingest::{
        record::{Record, RunStarted},
        wire::{Position, StreamKey},
    },
    metrics::Metrics,
    model::{ScriptKey, SourceType},
    store::{self, Append, AppendOutcome, PodRecord, Store},
    web::{
        ScriptObjects, WebState,
        access::{Access, AccessError, Identity, Permission},
        router,
    },
};
use serde_json::{Value, json, value::RawValue};
use tokio::net::TcpListener;
use tower::ServiceExt;

/// `caller` may read and make runs, `reader` only read them.
struct Users;

#[async_trait]
impl Access for Users {
    async fn identify(&self, token: &str) -> Result<Identity, AccessError> {
        Ok(Identity {
            username: token.to_owned(),
            ..Identity::default()
        })
    }

    async fn allowed(&self, user: &Identity, asked: &Permission<'_>) -> Result<bool, AccessError> {
        assert_eq!(asked.subresource, "runs");
        Ok(asked.verb == "get" || (asked.verb == "create" && user.username == "caller"))
    }
}

/// shop/pay with the spec and the endpoint given.
struct One(Value, Option<String>);

impl ScriptObjects for One {
    fn get(&self, script: &ScriptKey) -> Option<Arc<CustomScript>> {
        let mut object = CustomScript::new(&script.name, serde_json::from_value(self.0.clone()).unwrap());
        object.status = serde_json::from_value(json!({"phase": "Deployed", "endpoint": self.1})).unwrap();
        Some(Arc::new(object))
    }

    fn list(&self, _: Option<&str>) -> Vec<ScriptKey> {
        Vec::new()
    }
}

type Calls = Arc<Mutex<Vec<(Uri, HeaderMap, String)>>>;

/// A script that accepts every call but those of `busy` and `gone`.
async fn script(calls: Calls) -> String {
    async fn take(
        State(calls): State<Calls>,
        uri: Uri,
        headers: HeaderMap,
        body: String,
    ) -> (StatusCode, Json<Value>) {
        let path = uri.path().to_owned();
        calls.lock().unwrap().push((uri, headers, body));
        let error = |code: &str| json!({"error": {"code": code, "message": format!("no: {code}")}});
        match path.as_str() {
            "/functions/busy" => (StatusCode::TOO_MANY_REQUESTS, Json(error("QueueFull"))),
            "/functions/gone" => (StatusCode::NOT_FOUND, Json(error("NoSuchFunction"))),
            _ => (StatusCode::ACCEPTED, Json(json!({"runId": "run_new"}))),
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new()
        .route("/functions/{name}", post(take))
        .with_state(calls);
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    address
}

/// Runs `kept-FUNCTION` with their input, `cut` without since it was too large, `none` without.
async fn fill(store: &Arc<dyn Store>) {
    let pay = ScriptKey::new("shop", "pay");
    let pod = PodRecord {
        uid: "u".into(),
        name: "pay-1".into(),
        container: "script".into(),
        script: pay,
        version: 1,
        deployment_id: "d".into(),
    };
    store.register_pod(&pod).await.unwrap();
    let key = StreamKey {
        namespace: "shop".into(),
        pod: pod.name,
        pod_uid: pod.uid,
        container: pod.container,
        restart: 0,
    };
    let stream = store.open_streams(&[key]).await.unwrap()[0].clone().unwrap();
    let started = |id: &str, function: &str, input: Option<&str>| RunStarted {
        run_id: id.into(),
        time: Timestamp::now(),
        function: function.into(),
        source_type: SourceType::Api,
        source: "billing".into(),
        traceparent: None,
        input: input.map(|text| RawValue::from_string(text.into()).unwrap()),
        input_truncated: id == "cut",
    };
    let records: Vec<Record> = [
        started("kept", "charge", Some(INPUT)),
        started("busy", "busy", Some("{}")),
        started("gone", "gone", Some("{}")),
        started("odd", "../../a b?c", Some("{}")),
        started("cut", "charge", None),
        started("none", "charge", None),
    ]
    .into_iter()
    .map(Record::RunStarted)
    .collect();
    let append = Append {
        stream: stream.id,
        expected_offset: 0,
        position: Position {
            offset: 100,
            ..Position::default()
        },
        carry: Vec::new(),
        records: records.into(),
        gap: None,
        last_word: None,
    };
    let outcome = store.append(vec![append]).await.unwrap();
    assert!(matches!(outcome[0], AppendOutcome::Committed(_)));
}

const INPUT: &str = r#"{"order": 12345678901234567890, "rate": 1.0}"#;

struct Site {
    app: Router,
    calls: Calls,
    _folder: tempfile::TempDir,
}

async fn site(spec: Value, serves: bool) -> Site {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("store.db").display());
    let store = store::open(&url).await.unwrap();
    fill(&store).await;
    let calls = Calls::default();
    let endpoint = script(Arc::clone(&calls)).await;
    let objects = Arc::new(One(spec, serves.then_some(endpoint)));
    let state = WebState::new(store, Arc::new(Users), objects, folder.path(), Metrics::new())
        .with_calls(|object| object.status.as_ref()?.endpoint.clone());
    Site {
        app: router(state),
        calls,
        _folder: folder,
    }
}

impl Site {
    async fn send(&self, request: Request<Body>) -> (u16, Value) {
        let answer = self.app.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn rerun(&self, user: &str, run: &str) -> (u16, Value) {
        let path = format!("/api/v1/namespaces/shop/scripts/pay/runs/{run}/rerun");
        let request = Request::post(path).header(header::AUTHORIZATION, format!("Bearer {user}"));
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn refuses(&self, run: &str, status: u16, code: &str) {
        let (got, answer) = self.rerun("caller", run).await;
        assert_eq!(
            (got, &answer["error"]["code"]),
            (status, &json!(code)),
            "{run}: {answer}"
        );
    }
}

fn python() -> Value {
    json!({"runtime": "python"})
}

#[tokio::test]
async fn a_run_is_called_again_with_the_very_input() {
    let site = site(python(), true).await;
    let (status, answer) = site.rerun("caller", "kept").await;
    assert_eq!(
        (status, answer),
        (202, json!({"runId": "run_new", "function": "charge"}))
    );
    let (uri, headers, body) = site.calls.lock().unwrap()[0].clone();
    assert_eq!(uri.to_string(), "/functions/charge?mode=async");
    assert_eq!(body, INPUT);
    assert_eq!(headers["x-scriptscope-source"], "caller");
    assert_eq!(headers["x-scriptscope-source-type"], "Test");
    assert!(
        !headers.contains_key(header::AUTHORIZATION),
        "the reader's token is not the script's to see"
    );
}

#[tokio::test]
async fn without_the_right_or_the_page_s_own_request_nothing_is_called() {
    let site = site(python(), true).await;
    let (status, answer) = site.rerun("reader", "kept").await;
    assert_eq!(status, 403);
    assert_eq!(
        answer["error"]["message"],
        "reader needs create on customscripts/runs in namespace shop"
    );
    for from in [None, Some("cross-site"), Some("same-site"), Some("none")] {
        let path = "/api/v1/namespaces/shop/scripts/pay/runs/kept/rerun";
        let request = Request::post(path).header(header::COOKIE, "scriptscope-session=caller");
        let request = from
            .into_iter()
            .fold(request, |request, from| request.header("sec-fetch-site", from));
        assert_eq!(
            site.send(request.body(Body::empty()).unwrap()).await.0,
            401,
            "{from:?}"
        );
    }
    assert!(site.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_input_that_is_not_there_is_said_to_be_too_large_or_not_captured() {
    let site = site(python(), true).await;
    site.refuses("cut", 409, "InputTruncated").await;
    site.refuses("none", 409, "InputNotCaptured").await;
    site.refuses("never", 404, "RunNotFound").await;
    assert!(site.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_the_script_refuses_is_passed_on() {
    let site = site(python(), true).await;
    site.refuses("busy", 503, "ScriptBusy").await;
    site.refuses("gone", 409, "CallRefused").await;
    let (_, answer) = site.rerun("caller", "gone").await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.ends_with("404: no: NoSuchFunction"), "{message}");
    // A function's name leads to no other path.
    site.rerun("caller", "odd").await;
    for (uri, ..) in site.calls.lock().unwrap().iter() {
        assert!(uri.path().starts_with("/functions/"), "{uri}");
        assert_eq!(uri.query(), Some("mode=async"));
    }
}

#[tokio::test]
async fn a_script_that_can_not_be_called_says_why() {
    site(python(), false)
        .await
        .refuses("kept", 409, "NotDeployed")
        .await;
    let keys = json!({"runtime": "python", "endpoint": {"apiKeysSecretRef": {"name": "keys"}}});
    site(keys, true).await.refuses("kept", 409, "NeedsApiKey").await;
    let adopted = json!({"workload": {"deploymentRef": {"name": "pay"}}});
    site(adopted, false)
        .await
        .refuses("kept", 409, "NotCallable")
        .await;
}
