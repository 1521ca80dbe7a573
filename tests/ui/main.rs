//! The web server that the dashboard's tests look at: the real router, on a real store, filled through the real ingest.
//!
//! Run by the tests in tests/ui with `SCRIPTSCOPE_UI_TESTS=serve`, it says in one line of JSON where it listens, and serves
//! until its standard input ends. Without that it does nothing. With `SCRIPTSCOPE_UI_STORE=postgres` the store is in a Postgres of
//! its own, otherwise in a file of SQLite's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

#[path = "../common/anybody.rs"]
mod anybody;
mod data;
mod feed;
#[path = "../common/postgres.rs"]
#[allow(dead_code)] // other tests use more of it
mod pg;

use std::{
    env,
    io::Read,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use jiff::Timestamp;
use scriptscope::{
    api::CustomScript,
    metrics::Metrics,
    model::ScriptKey,
    store,
    web::{
        self, ScriptObjects, WebState,
        access::{Access, AccessError, Identity, Permission},
        router,
    },
};
use serde_json::{Value, json, value::RawValue};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use feed::Feed;

/// Users by token: `all` reads everything, `shop` what is in its namespace, `runs-only` only runs of it, which it can not make, `nobody` nothing.
struct Users;

#[async_trait]
impl Access for Users {
    async fn identify(&self, token: &str) -> Result<Identity, AccessError> {
        match token {
            "all" | "shop" | "runs-only" | "nobody" => Ok(Identity {
                username: token.to_owned(),
                ..Identity::default()
            }),
            _ => Err(AccessError::Unauthenticated),
        }
    }

    async fn allowed(&self, user: &Identity, asked: &Permission<'_>) -> Result<bool, AccessError> {
        Ok(match &*user.username {
            "all" => true,
            "shop" => asked.namespace == "shop",
            "runs-only" => (asked.verb, asked.namespace, asked.subresource) == ("get", "shop", "runs"),
            _ => false,
        })
    }
}

/// The objects of the scripts; `shop/draft` has no data.
struct Objects;

const SCRIPTS: [(&str, &str, &str, Option<i64>); 4] = [
    ("shop", "pay", "Deployed", Some(3)),
    ("shop", "quotes", "DeploymentFailed", Some(2)),
    ("shop", "draft", "Draft", None),
    ("bank", "loans", "ReadyToDeploy", Some(1)),
];

impl ScriptObjects for Objects {
    fn get(&self, script: &ScriptKey) -> Option<Arc<CustomScript>> {
        let (namespace, name, phase, version) = SCRIPTS
            .into_iter()
            .find(|(namespace, name, ..)| (*namespace, *name) == (&script.namespace, &script.name))?;
        let spec = serde_json::from_value(json!({"runtime": "python"})).unwrap();
        let mut object = CustomScript::new(name, spec);
        let endpoint = format!("http://{name}.{namespace}.svc");
        object.status =
            serde_json::from_value(json!({"phase": phase, "version": version, "endpoint": endpoint}))
                .unwrap();
        Some(Arc::new(object))
    }

    fn list(&self, namespace: Option<&str>) -> Vec<ScriptKey> {
        let all = SCRIPTS.into_iter().map(|(n, name, ..)| ScriptKey::new(n, name));
        all.filter(|script| namespace.is_none_or(|n| n == script.namespace))
            .collect()
    }
}

/// Takes what a pod of shop/pay prints now: JSON lines.
async fn print(State(feed): State<Arc<Feed>>, body: String) -> StatusCode {
    let lines: Vec<Value> = body
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    feed.print(&ScriptKey::new("shop", "pay"), 3, &lines).await;
    StatusCode::NO_CONTENT
}

/// Where the scripts' functions are called.
static POD: OnceLock<String> = OnceLock::new();

/// Accepts a call, which is a run of shop/pay that ends at once.
async fn call(
    State(feed): State<Arc<Feed>>,
    Path(function): Path<String>,
    headers: HeaderMap,
    Json(input): Json<Box<RawValue>>,
) -> (StatusCode, Json<Value>) {
    let (id, now) = (format!("again-{}", fastrand::u64(..)), Timestamp::now());
    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
    let begun = json!({"scriptscope": "run.started", "time": now, "run_id": id, "version": 3, "function": function,
        "source": text("x-scriptscope-source"), "source_type": text("x-scriptscope-source-type"), "input": &*input});
    let ended = json!({"scriptscope": "run.finished", "time": now, "run_id": id, "status": "Success", "duration_us": 1_000});
    feed.print(&ScriptKey::new("shop", "pay"), 3, &[begun, ended])
        .await;
    (StatusCode::ACCEPTED, Json(json!({ "runId": id })))
}

async fn serve(routes: Router, shutdown: CancellationToken) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(web::serve(listener, routes, shutdown));
    address
}

#[tokio::main]
async fn main() {
    if env::var("SCRIPTSCOPE_UI_TESTS").as_deref() != Ok("serve") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let url = match env::var("SCRIPTSCOPE_UI_STORE").as_deref() {
        Ok("postgres") => pg::Cluster::shared().new_database(),
        _ => format!("sqlite://{}", folder.path().join("store.db").display()),
    };
    let store = store::open(&url).await.unwrap();
    let metrics = Metrics::new();
    let feed = Arc::new(Feed::new(store.clone(), metrics.clone()));
    data::fill(&store, &feed).await;
    let shutdown = CancellationToken::new();
    let state = WebState::new(
        store,
        Arc::new(Users),
        Arc::new(Objects),
        folder.path(),
        metrics.clone(),
    );
    let pod = Router::new()
        .route("/print", post(print))
        .route("/functions/{name}", post(call))
        .route("/metrics", get(async move || metrics.encode().unwrap()))
        .with_state(feed);
    let pod = serve(pod, shutdown.clone()).await;
    POD.set(pod.clone()).unwrap();
    let state = state.until(shutdown.clone()).with_calls(|_| POD.get().cloned());
    let page = serve(router(state), shutdown.clone()).await;
    let command = env!("CARGO_BIN_EXE_scriptscope");
    println!("{}", json!({ "page": page, "pod": pod, "command": command }));
    // Whoever started this holds the other end.
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let _ = ended.await;
    shutdown.cancel();
}
