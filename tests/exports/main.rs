//! Exports: the files, and the controller that makes them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

#[path = "common/rows.rs"]
mod rows;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::http::{Method, Request, Response};
use jiff::{SignedDuration, Timestamp};
use kube::client::{Body, Client};
use rows::Rows;
use scriptscope::{
    export::{
        Plan, Table,
        file::{ExportFolder, ExportKey},
    },
    metrics::Metrics,
    model::{Filter, Run, RunStatus, ScriptKey, SourceType, TimeRange},
    operator::{
        Scope,
        script_export::{ExportContext, run},
    },
    store::Store,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

const ROWS: i64 = 1_234;

async fn store(folder: &TempDir) -> Arc<dyn Store> {
    let runs = (0..ROWS).map(|n| {
        let run = Run {
            run_id: format!("run-{n}"),
            status: RunStatus::Success,
            reason: None,
            deployment_version: 1,
            deployment_id: "d".into(),
            response_time_micros: Some(n),
            function: "check".into(),
            // Many at one moment: the key goes on with the id.
            executed_on: Timestamp::from_second(1_700_000_000 + n / 400).unwrap()
                + (Timestamp::now().duration_since(Timestamp::from_second(1_700_000_000).unwrap())
                    - SignedDuration::from_hours(1)),
            finished_at: None,
            source_type: SourceType::Api,
            source: "billing".into(),
            traceparent: None,
        };
        (ScriptKey::new("shop", "pay"), run)
    });
    let rows = Rows {
        runs: runs.collect(),
        ..Rows::default()
    };
    rows.store(folder).await
}

fn key(name: &str) -> ExportKey {
    ExportKey {
        namespace: "shop".into(),
        name: name.into(),
    }
}

fn files_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_file_is_begun_anew_and_leaves_nothing_behind() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("exports/shop/again");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(".pay_runs_data.csv.partial"), "half a line").unwrap();
    let exports = ExportFolder::new(data.path());
    assert_eq!(exports.find(&key("again")).await.unwrap(), None);
    let plan = Plan {
        script: ScriptKey::new("shop", "pay"),
        table: Table::Runs,
        range: TimeRange::ALL,
        filter: Filter::default(),
    };
    let store = store(&data).await;
    let told = Mutex::new(Vec::new());
    let mut written = Vec::new();
    for _ in 0..2 {
        let report = |progress| told.lock().unwrap().push(progress);
        let file = exports
            .write(&key("again"), "uid-1", plan.clone(), store.clone(), &report)
            .await
            .unwrap();
        written.push(file);
    }
    assert_eq!(written[0], written[1]);
    assert_eq!(files_in(&folder), ["export.json", "pay_runs_data.csv"]);
    let csv = std::fs::read(folder.join("pay_runs_data.csv")).unwrap();
    assert_eq!(csv.len() as u64, written[0].bytes);
    let mut ids: Vec<String> = csv::Reader::from_reader(&csv[..])
        .records()
        .map(|r| r.unwrap()[0].to_owned())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len() as u64, written[0].rows), (ROWS as u64, ROWS as u64));
    assert_eq!(told.lock().unwrap().last().unwrap().rows, ROWS as u64);
    assert_eq!(
        exports.list().await.unwrap(),
        [(key("again"), Some("uid-1".to_owned()))]
    );
    exports.remove(&key("again")).await.unwrap();
    exports.remove(&key("again")).await.unwrap();
    assert!(!folder.exists());
}

const EVERYWHERE: &str = "/apis/scriptscope.dev/v1alpha1/scriptexports";
const IN_SHOP: &str = "/apis/scriptscope.dev/v1alpha1/namespaces/shop/scriptexports";

/// As much of an API server as the controller talks to.
struct Cluster {
    /// The one list that the controller may read.
    list: &'static str,
    objects: Mutex<BTreeMap<String, Value>>,
    events: Mutex<Vec<Value>>,
    watchers: Mutex<Vec<mpsc::UnboundedSender<Result<String, Infallible>>>>,
    patched: Mutex<Vec<(String, Value)>>,
    changed: watch::Sender<u64>,
}

impl Cluster {
    fn new(list: &'static str, objects: Vec<Value>) -> Arc<Self> {
        let name = |o: &Value| o["metadata"]["name"].as_str().unwrap().to_owned();
        Arc::new(Self {
            list,
            objects: Mutex::new(objects.into_iter().map(|o| (name(&o), o)).collect()),
            events: Mutex::default(),
            watchers: Mutex::default(),
            patched: Mutex::default(),
            changed: watch::channel(0).0,
        })
    }

    fn client(self: &Arc<Self>) -> Client {
        let cluster = Arc::clone(self);
        let service = tower::service_fn(move |request: Request<Body>| {
            let cluster = Arc::clone(&cluster);
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let path = parts.uri.path().to_owned();
                let query = parts.uri.query().unwrap_or_default();
                let answer = if query.contains("watch=true") {
                    let (sender, mut receiver) = mpsc::unbounded_channel();
                    cluster.watchers.lock().unwrap().push(sender);
                    let events = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
                    Response::new(axum::body::Body::from_stream(events))
                } else {
                    let sent = serde_json::from_slice(&body).unwrap_or(Value::Null);
                    let (code, answer) = cluster.answer(&parts.method, &path, sent);
                    cluster.changed.send_modify(|n| *n += 1);
                    let body = axum::body::Body::from(answer.to_string());
                    Response::builder().status(code).body(body).unwrap()
                };
                Ok::<_, Infallible>(answer)
            }
        });
        Client::new(service, "default")
    }

    fn answer(&self, method: &Method, path: &str, sent: Value) -> (u16, Value) {
        let failure = |code: u16, reason: &str| {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                                "reason": reason, "code": code, "message": reason});
            (code, status)
        };
        if path.contains("/events") {
            self.events.lock().unwrap().push(sent.clone());
            return (201, sent);
        }
        let mut objects = self.objects.lock().unwrap();
        if path.ends_with("/scriptexports") && path != self.list {
            return failure(403, "Forbidden");
        }
        if path == self.list {
            let items: Vec<Value> = objects.values().cloned().collect();
            // Written to by somebody else just after it was listed.
            if let Some(contended) = objects.get_mut("contended") {
                contended["metadata"]["resourceVersion"] = json!("2");
            }
            return (
                200,
                json!({"apiVersion": "scriptscope.dev/v1alpha1", "kind": "ScriptExportList",
                       "metadata": {"resourceVersion": "1"}, "items": items}),
            );
        }
        let name = path.trim_end_matches("/status").rsplit('/').next().unwrap();
        let known = path.contains("/scriptexports/");
        let Some(object) = objects.get_mut(name).filter(|_| known) else {
            return failure(404, "NotFound");
        };
        if method == Method::PATCH {
            if sent["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
                return failure(409, "Conflict");
            }
            let version: u64 = object["metadata"]["resourceVersion"]
                .as_str()
                .unwrap()
                .parse()
                .unwrap();
            object["metadata"]["resourceVersion"] = json!((version + 1).to_string());
            object["status"] = sent["status"].clone();
            self.patched
                .lock()
                .unwrap()
                .push((name.to_owned(), sent["status"].clone()));
            self.notify("MODIFIED", object);
        }
        (200, object.clone())
    }

    fn notify(&self, kind: &str, object: &Value) {
        let event = json!({"type": kind, "object": object}).to_string() + "\n";
        for watcher in &*self.watchers.lock().unwrap() {
            let _ = watcher.send(Ok(event.clone()));
        }
    }

    fn status(&self, name: &str) -> Value {
        self.objects.lock().unwrap()[name]["status"].clone()
    }

    /// Phases told of an export, in order, each once.
    fn phases(&self, name: &str) -> Vec<String> {
        let patched = self.patched.lock().unwrap();
        let mut phases: Vec<String> = patched
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, status)| status["phase"].as_str().unwrap().to_owned())
            .collect();
        phases.dedup();
        phases
    }

    async fn until(&self, what: &str, reached: impl Fn(&Self) -> bool) {
        let mut changes = self.changed.subscribe();
        let wait = async {
            while !reached(self) {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"));
    }
}

fn export(name: &str, spec: &Value, status: Value) -> Value {
    let mut object = json!({
        "apiVersion": "scriptscope.dev/v1alpha1", "kind": "ScriptExport",
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"),
                     "resourceVersion": "1", "generation": 1},
        "spec": spec,
    });
    if !status.is_null() {
        object["status"] = status;
    }
    object
}

#[tokio::test]
#[allow(clippy::too_many_lines)] // one story
async fn each_export_is_made_once_and_goes_with_its_object() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("exports/shop");
    std::fs::create_dir_all(folder.join("orphan")).unwrap();
    // Made for an object that was deleted and created again meanwhile.
    let plan = Plan {
        script: ScriptKey::new("shop", "pay"),
        table: Table::Runs,
        range: TimeRange::ALL,
        filter: Filter::default(),
    };
    let store = store(&data).await;
    ExportFolder::new(data.path())
        .write(&key("done"), "uid-before", plan, store.clone(), &|_| {})
        .await
        .unwrap();
    let pay = json!({"scriptRef": {"name": "pay"}, "data": "Runs"});
    let with = |more: Value| {
        let mut spec = pay.clone();
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        spec
    };
    let condition = |column: &str, value: &str| json!({"filters": [{"column": column, "operator": "Equals", "values": [value]}]});
    let objects = vec![
        export("all", &pay, Value::Null),
        export("contended", &pay, Value::Null),
        export("none", &with(condition("Source", "nobody")), Value::Null),
        export("wrong", &with(condition("Status", "Great")), Value::Null),
        export(
            "unknown",
            &json!({"scriptRef": {"name": "nope"}, "data": "Logs"}),
            Value::Null,
        ),
        export("done", &pay, json!({"phase": "Succeeded"})),
        export(
            "broken-off",
            &pay,
            json!({"phase": "Running", "startedAt": "2020-01-01T00:00:00Z"}),
        ),
        json!({"metadata": {"name": "unreadable", "namespace": "shop", "uid": "u"}, "spec": {"data": "Cats"}}),
    ];
    let cluster = Cluster::new(EVERYWHERE, objects);
    let shutdown = CancellationToken::new();
    let context = ExportContext::new(cluster.client(), store, data.path(), Metrics::new());
    let controller = tokio::spawn(run(context, Scope::all(), shutdown.clone()));
    cluster
        .until("six ends, six events", |c| c.events.lock().unwrap().len() == 6)
        .await;

    for name in ["all", "contended"] {
        let status = cluster.status(name);
        assert_eq!(status["artifact"]["rows"], ROWS, "{status}");
        assert_eq!(status["artifact"]["fileName"], "pay_runs_data.csv");
        assert_eq!(
            status["artifact"]["url"],
            format!("/api/v1/namespaces/shop/exports/{name}/file")
        );
        let file = folder.join(name).join("pay_runs_data.csv");
        assert_eq!(
            std::fs::metadata(file).unwrap().len(),
            status["artifact"]["bytes"]
        );
    }
    assert_eq!(cluster.phases("all"), ["Pending", "Running", "Succeeded"]);
    assert_eq!(cluster.status("none")["artifact"]["rows"], 0);
    let header = std::fs::read_to_string(folder.join("none/pay_runs_data.csv")).unwrap();
    assert!(header.starts_with("Run ID,Status,") && header.lines().count() == 1);
    for (name, reason, part) in [
        ("wrong", "InvalidFilter", "spec.filters: Status: \"Great\""),
        ("unknown", "ScriptNotFound", "no CustomScript nope"),
    ] {
        let status = cluster.status(name);
        assert_eq!(status["phase"], "Failed");
        assert_eq!(status["conditions"][1]["type"], "Failed");
        assert_eq!(status["conditions"][1]["reason"], reason);
        assert!(status["message"].as_str().unwrap().contains(part), "{status}");
        assert!(!folder.join(name).exists());
    }
    // Its range is still the one of its first attempt, by now far in the past.
    let again = cluster.status("broken-off");
    assert_eq!(
        (&again["phase"], &again["startedAt"]),
        (&json!("Succeeded"), &json!("2020-01-01T00:00:00Z"))
    );
    assert_eq!(cluster.phases("done"), Vec::<String>::new());
    assert!(!folder.join("orphan").exists() && !folder.join("done").exists());

    let gone = cluster.objects.lock().unwrap().remove("all").unwrap();
    cluster.notify("DELETED", &gone);
    // Events are taken in order: once the next one has its effect, this one has had its.
    let next = export("next", &pay, Value::Null);
    cluster
        .objects
        .lock()
        .unwrap()
        .insert("next".into(), next.clone());
    cluster.notify("ADDED", &next);
    cluster
        .until("the next export", |c| {
            c.phases("next").last().is_some_and(|p| p == "Succeeded")
        })
        .await;
    assert!(!folder.join("all").exists() && folder.join("next").exists());

    shutdown.cancel();
    controller.await.unwrap();
}

#[tokio::test]
async fn an_operator_of_one_namespace_makes_its_exports_and_leaves_the_files_of_others() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("exports");
    for place in ["shop/orphan", "other/of-before"] {
        std::fs::create_dir_all(folder.join(place)).unwrap();
    }
    let pay = json!({"scriptRef": {"name": "pay"}, "data": "Runs"});
    let cluster = Cluster::new(IN_SHOP, vec![export("all", &pay, Value::Null)]);
    let shutdown = CancellationToken::new();
    let context = ExportContext::new(cluster.client(), store(&data).await, data.path(), Metrics::new());
    let controller = tokio::spawn(run(context, Scope::namespace("shop"), shutdown.clone()));
    cluster
        .until("the end of the export", |c| c.events.lock().unwrap().len() == 1)
        .await;
    assert_eq!(cluster.status("all")["phase"], "Succeeded");
    shutdown.cancel();
    controller.await.unwrap();
    assert!(!folder.join("shop/orphan").exists());
    assert!(folder.join("other/of-before").exists());
}
