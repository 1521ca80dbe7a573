//! A controller at work, and rows that take a while to write.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use scriptscope::{
    metrics::Metrics,
    model::{LogId, LogLevel, LogLine, ScriptKey},
    operator::{
        Scope,
        script_export::{ExportContext, run},
    },
    store::Store,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{cluster::Cluster, rows::Rows};

/// Name of a file of log lines through gzip.
pub const LOGS_GZIP: &str = "pay_logs_data.csv.gz";

pub struct Controller {
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Controller {
    pub fn start(cluster: &Arc<Cluster>, store: Arc<dyn Store>, data: &TempDir) -> Self {
        Self::with(ExportContext::new(
            cluster.client(),
            store,
            data.path(),
            Metrics::new(),
        ))
    }

    pub fn with(context: ExportContext) -> Self {
        let shutdown = CancellationToken::new();
        let context = context.pause(Duration::from_millis(50));
        let task = tokio::spawn(run(context, Scope::all(), shutdown.clone()));
        Self { task, shutdown }
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

/// A store of so many lines of a kilobyte that nothing makes smaller.
pub async fn log_store(lines: i64, data: &TempDir) -> Arc<dyn Store> {
    let mut random = fastrand::Rng::with_seed(3);
    let mut text = || -> String {
        std::iter::repeat_with(|| random.alphanumeric())
            .take(1_000)
            .collect()
    };
    let logs = (0..lines).map(|n| {
        let line = LogLine {
            log_id: LogId {
                stream: 1,
                offset: n,
                index: 0,
            },
            level: LogLevel::ALL[usize::try_from(n).unwrap() % LogLevel::ALL.len()],
            message: format!("{n} {}", text()),
            timestamp: Timestamp::now() - SignedDuration::from_hours(1) + SignedDuration::from_micros(n),
            run_id: None,
            attributes: None,
        };
        (ScriptKey::new("shop", "pay"), line)
    });
    let rows = Rows {
        logs: logs.collect(),
        ..Rows::default()
    };
    rows.store(data).await
}

/// A file of log lines, on the volume; `more` is further spec.
pub fn logs(more: &Value) -> Value {
    let mut spec = json!({"scriptRef": {"name": "pay"}, "data": "Logs"});
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    spec
}

/// Where an export is written.
pub fn folder(data: &Path, name: &str) -> PathBuf {
    data.join("exports/shop").join(name)
}

/// Waits for something on the disk.
pub async fn until(what: &str, reached: impl Fn() -> bool) {
    let wait = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

/// Waits until rows are being written to the file.
pub async fn until_written(data: &Path, name: &str, file: &str) {
    let partial = folder(data, name).join(format!(".{file}.partial"));
    until(name, || {
        std::fs::metadata(&partial).is_ok_and(|data| data.len() > 0)
    })
    .await;
}
