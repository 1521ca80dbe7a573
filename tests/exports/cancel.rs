//! Exports that nobody wants any more: within a second nothing is read or written for them, and nothing of them is left.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    bed::{Controller, folder, log_store, logs, until, until_written},
    cluster::{Cluster, EVERYWHERE, export},
    large_store,
    s3_server::{S3Server, slow},
};

const LIMIT: Duration = Duration::from_secs(1);
/// So many that writing them takes longer than finding the file there.
const LINES: i64 = 60_000;
const FILE: &str = "pay_logs_data.csv.zst";

/// Whether this process has a file open below the folder, be it removed.
fn is_open(data: &std::path::Path) -> bool {
    let files = std::fs::read_dir("/proc/self/fd").unwrap();
    let exports = data.join("exports");
    files
        .flatten()
        .any(|file| std::fs::read_link(file.path()).is_ok_and(|path| path.starts_with(&exports)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_on_the_volume_is_gone_within_a_second() {
    let data = tempfile::tempdir().unwrap();
    let store = log_store(LINES, &data).await;
    let zstd = logs(&json!({"compression": "Zstd"}));
    let cluster = Cluster::new(EVERYWHERE, Vec::new());
    let controller = Controller::start(&cluster, store, &data);
    for name in ["cancelled", "deleted"] {
        cluster.create(&export(name, &zstd, Value::Null));
        until_written(data.path(), name, FILE).await;
        let began = Instant::now();
        if name == "cancelled" {
            cluster.edit(name, |spec| spec["cancelled"] = json!(true));
            cluster.until("the end", |c| c.has_ended(name)).await;
            assert_eq!(cluster.status(name)["phase"], "Cancelled");
        } else {
            cluster.delete(name);
            until("the removal", || !folder(data.path(), name).exists()).await;
        }
        assert!(!folder(data.path(), name).exists());
        until("the end of the writing", || !is_open(data.path())).await;
        let took = began.elapsed();
        assert!(took < LIMIT, "{name}: {took:?}");
    }
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_to_a_slow_server_is_gone_within_a_second() {
    for name in ["cancelled", "deleted"] {
        let data = tempfile::tempdir().unwrap();
        let server = S3Server::start().await;
        // What it says takes a seventh of a second, and so much does it take for half a megabyte.
        let slow = slow(server.address, Duration::from_millis(150)).await;
        let to = json!({"scriptRef": {"name": "pay"}, "data": "Runs", "destination": S3Server::destination(slow, name)});
        let cluster = Cluster::new(EVERYWHERE, Vec::new());
        let secret = S3Server::secret();
        cluster.secrets.lock().unwrap().insert("s3".into(), secret);
        let controller = Controller::start(&cluster, large_store(&data).await, &data);
        cluster.create(&export(name, &to, Value::Null));
        server.until_uploads(1).await;
        // Amid a part.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let began = Instant::now();
        if name == "cancelled" {
            cluster.edit(name, |spec| spec["cancelled"] = json!(true));
            cluster.until("the end", |c| c.has_ended(name)).await;
            assert_eq!(cluster.status(name)["phase"], "Cancelled");
        } else {
            cluster.delete(name);
        }
        server.until_uploads(0).await;
        let took = began.elapsed();
        assert!(took < LIMIT, "{name}: {took:?}");
        // What the server made of the part that was on its way goes, too.
        tokio::time::sleep(LIMIT).await;
        server.until_uploads(0).await;
        assert_eq!(server.keys().await, Vec::<String>::new());
        controller.stop().await;
    }
}
