//! A real Prometheus reads what the operator serves: every panel of the dashboards and every alert finds data there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]

#[path = "common/anybody.rs"]
mod anybody;

use std::{
    fmt::Write as _,
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use jiff::Timestamp;
use scriptscope::{
    ingest::{
        Ingest, router,
        wire::{BATCHES_PATH, Chunk, ChunkHeader, GapReason, StreamKey, encode_batch},
    },
    metrics::Metrics,
    model::ScriptKey,
    operator::health::metrics_router,
    store::{PodRecord, Retained, Storage, Store, sqlite::SqliteStore},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use anybody::{AnyAgent, NoOthers};

/// How long Prometheus may take to have read everything.
const PATIENCE: Duration = Duration::from_mins(1);
const SHOP: &str = "shop";
const PAY: &str = "pay";

/// The operator's ingest, store and metrics, and what is printed and done there.
struct Operator {
    address: SocketAddr,
    metrics: Metrics,
    http: reqwest::Client,
    offset: u64,
    runs: u64,
    _folder: TempDir,
}

impl Operator {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("store.db")).await.unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let pod = PodRecord {
            uid: "uid-1".to_owned(),
            name: "pay-1".to_owned(),
            container: "script".to_owned(),
            script: ScriptKey::new(SHOP, PAY),
            version: 1,
            deployment_id: "pay-1".to_owned(),
        };
        store.register_pod(&pod).await.unwrap();
        let metrics = Metrics::new();
        let ingest = Ingest::new(store, Arc::new(AnyAgent), Arc::new(NoOthers), metrics.clone());
        let routes = router(Arc::new(ingest)).merge(metrics_router(metrics.clone()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self {
            address,
            metrics,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            offset: 0,
            runs: 0,
            _folder: folder,
        }
    }

    /// Ten runs, of which two fail, before which lines are missing.
    async fn work(&mut self) {
        let mut log = String::new();
        let now = Timestamp::now();
        for n in 0..10 {
            self.runs += 1;
            let id = format!("run-{}", self.runs);
            let started = json!({"scriptscope": "run.started", "time": now, "run_id": id, "function": "check",
                "source": "billing", "source_type": "API", "input": {"n": n}});
            let status = if n < 2 { "Failed" } else { "Success" };
            let finished = json!({"scriptscope": "run.finished", "time": now, "run_id": id, "status": status,
                "duration_us": 1_000 * (n + 1), "output": 1, "error": null});
            for text in [started.to_string(), finished.to_string(), format!("line {id}")] {
                writeln!(log, "{now:.9} stdout F {text}").unwrap();
            }
        }
        let offset = self.offset + 100;
        let chunk = Chunk {
            header: ChunkHeader {
                stream: StreamKey {
                    namespace: SHOP.to_owned(),
                    pod: "pay-1".to_owned(),
                    pod_uid: "uid-1".to_owned(),
                    container: "script".to_owned(),
                    restart: 0,
                },
                offset,
                file: "one".to_owned(),
                file_start: 0,
                length: u32::try_from(log.len()).unwrap(),
                gap: Some(GapReason::FileRotatedAway.as_str().to_owned()),
            },
            bytes: Bytes::from(log),
        };
        self.offset = offset + u64::from(chunk.header.length);
        let body = encode_batch("node-1", &[chunk]).unwrap();
        let url = format!("http://{}{BATCHES_PATH}", self.address);
        let answer = self
            .http
            .post(url)
            .bearer_auth("a")
            .body(body)
            .send()
            .await
            .unwrap();
        let text = answer.text().await.unwrap();
        assert!(text.contains("Committed"), "{text}");
        self.tend();
    }

    /// What the controllers note.
    fn tend(&self) {
        let metrics = &self.metrics;
        let took = Duration::from_millis(7);
        metrics.reconciled("scripts", took, None);
        metrics.reconciled("figures", took, Some("api"));
        metrics.exported(10, 1_000);
        metrics.retained(&Retained {
            runs: 1,
            lines: 2,
            ..Retained::default()
        });
        let storage = Storage {
            runs: 10 * self.runs,
            payloads: self.runs,
            logs: self.runs,
        };
        metrics.stored(&ScriptKey::new(SHOP, PAY), Some(&storage));
        metrics.writable(true);
        metrics.leads(true);
        metrics.oldest_open_run(3.0);
        metrics.volume(1 << 30, 1 << 31);
    }
}

/// A Prometheus that reads one operator, with the chart's rules; ends with its owner.
struct Prometheus {
    child: Child,
    url: String,
    http: reqwest::Client,
    _folder: TempDir,
}

impl Prometheus {
    fn start(operator: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rules = chart().join("files/rules.yaml");
        let config = json!({
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
            "rule_files": [rules],
            "scrape_configs": [{"job_name": "scriptscope", "honor_labels": true, "static_configs": [
                {"targets": [operator.to_string()], "labels": {"namespace": "system", "pod": "scriptscope-0"}}]}],
        });
        let file = folder.path().join("prometheus.yaml");
        fs::write(&file, config.to_string()).unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .expect("prometheus starts; `make deps-test` installs it");
        Self {
            child,
            url: format!("http://127.0.0.1:{port}/api/v1"),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            _folder: folder,
        }
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, String> {
        let url = reqwest::Url::parse_with_params(&format!("{}{path}", self.url), query).unwrap();
        let answer = self
            .http
            .get(url)
            .send()
            .await
            .map_err(|error| error.to_string())?;
        let text = answer.text().await.map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        if answer["status"] == "success" {
            Ok(answer["data"].clone())
        } else {
            Err(answer.to_string())
        }
    }

    /// The values of a query, by the labels; those that are no numbers are left out.
    async fn values(&self, query: &str) -> Result<Vec<f64>, String> {
        let data = self.get("/query", &[("query", query)]).await?;
        let value = |sample: &Value| {
            sample["value"][1]
                .as_str()
                .and_then(|text| text.parse::<f64>().ok())
        };
        let samples = data["result"].as_array().cloned().unwrap_or_default();
        Ok(samples
            .iter()
            .filter_map(value)
            .filter(|value| value.is_finite())
            .collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/scriptscope")
}

/// An operator at work and a Prometheus that has read it for a while.
async fn at_work() -> (Operator, Prometheus) {
    let mut operator = Operator::start().await;
    operator.work().await;
    let prometheus = Prometheus::start(operator.address);
    let begun = Instant::now();
    loop {
        operator.work().await;
        let runs = r#"count_over_time(scriptscope_runs_total{status="Failed"}[1m])"#;
        let read = prometheus.values(runs).await;
        if read
            .as_ref()
            .is_ok_and(|read| read.first().is_some_and(|count| *count >= 12.0))
        {
            return (operator, prometheus);
        }
        assert!(begun.elapsed() < PATIENCE, "{read:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A panel's query as Grafana would ask it; a day ago is a second ago here.
fn asked(query: &str) -> String {
    [
        ("$__rate_interval", "10s"),
        ("$__range", "1m"),
        ("$namespace", SHOP),
        ("$script", PAY),
        ("offset 1d", "offset 1s"),
        ("offset 1h", "offset 1s"),
    ]
    .iter()
    .fold(query.to_owned(), |query, (from, to)| query.replace(from, to))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_panel_and_every_alert_finds_data() {
    let (_operator, prometheus) = at_work().await;
    let mut without = Vec::new();
    let mut panels = 0;
    for file in fs::read_dir(chart().join("files/dashboards")).unwrap() {
        let board: Value = serde_json::from_slice(&fs::read(file.unwrap().path()).unwrap()).unwrap();
        for panel in board["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                panels += 1;
                let query = asked(target["expr"].as_str().unwrap());
                match prometheus.values(&query).await {
                    Ok(values) if !values.is_empty() => {}
                    other => without.push(format!(
                        "{} / {}: {query}: {other:?}",
                        board["title"], panel["title"]
                    )),
                }
            }
        }
        for variable in board["templating"]["list"].as_array().unwrap() {
            let Some(definition) = variable["definition"].as_str() else {
                continue;
            };
            let (metric, label) = definition
                .trim_start_matches("label_values(")
                .trim_end_matches(')')
                .rsplit_once(", ")
                .unwrap();
            let path = format!("/label/{label}/values");
            let values = prometheus.get(&path, &[("match[]", &asked(metric))]).await;
            let found = values
                .as_ref()
                .is_ok_and(|values| values == &json!([if label == "script" { PAY } else { SHOP }]));
            if !found {
                without.push(format!("{} / {label}: {values:?}", board["title"]));
            }
        }
    }
    assert!(panels > 40, "{panels}");

    let groups = prometheus.get("/rules", &[("type", "alert")]).await.unwrap();
    let mut alerts = 0;
    for group in groups["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            alerts += 1;
            if rule["health"] == "err" {
                without.push(rule.to_string());
            }
            let query = rule["query"].as_str().unwrap();
            // What it looks at, whether or not that is past the threshold.
            let mut query = asked(query);
            for comparison in [" > ", " < ", " == ", " >= "] {
                query = query.replace(comparison, &format!("{comparison}bool "));
            }
            let values = prometheus.values(&query).await;
            let speaks_when_there_is_nothing = query.starts_with("absent(");
            if values.as_ref().is_ok_and(Vec::is_empty) != speaks_when_there_is_nothing || values.is_err() {
                without.push(format!("{}: {query}: {values:?}", rule["name"]));
            }
        }
    }
    assert_eq!(alerts, 12);
    assert!(without.is_empty(), "without data:\n{}", without.join("\n"));

    // A fifth of the runs fails, and lines are missing.
    let active = prometheus.get("/alerts", &[]).await.unwrap();
    let active: Vec<&str> = active["alerts"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|alert| alert["labels"]["alertname"].as_str())
        .collect();
    assert!(active.contains(&"ScriptScopeFailureRate"), "{active:?}");
    assert!(active.contains(&"ScriptScopeLogGaps"), "{active:?}");
    for quiet in [
        "ScriptScopeNoLeader",
        "ScriptScopeStoreNotWritable",
        "ScriptScopeDown",
        "ScriptScopeStoreNearlyFull",
    ] {
        assert!(!active.contains(&quiet), "{active:?}");
    }
}
