//! An operator that is killed amid exports: never half a file, never two, and in the end the whole one.

use std::{collections::HashSet, time::Duration};

use scriptscope::export::file::ExportFolder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    bed::{LOGS_GZIP, folder, log_store, logs, until_written},
    cluster::{Cluster, EVERYWHERE, export},
    files_in, key,
    operator::start,
    s3_server::{Gate, S3Server},
};

const LINES: i64 = 15_000;
const KILLS: u64 = 4;
const FILE: &str = "pay_logs_data.csv";

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_operator_leaves_no_half_a_file_and_makes_the_whole_one_later() {
    let data = tempfile::tempdir().unwrap();
    log_store(LINES, &data).await.close().await;
    let server = S3Server::start().await;
    // Not enough for a part.
    let gate = Gate::before(server.address, 1 << 20).await;
    let to_s3 = logs(&json!({"destination": S3Server::destination(gate.address, "")}));
    let gzip = logs(&json!({"compression": "Gzip"}));
    let cluster = Cluster::new(
        EVERYWHERE,
        vec![
            export("object", &to_s3, Value::Null),
            export("file", &gzip, Value::Null),
        ],
    );
    let secret = S3Server::secret();
    cluster.secrets.lock().unwrap().insert("s3".into(), secret);
    let api = cluster.serve().await;
    let exports = ExportFolder::new(data.path());
    let (mut seen, mut amid) = (HashSet::new(), 0);
    for kill in 0..KILLS {
        let operator = start(api, data.path());
        if !cluster.has_ended("file") {
            until_written(data.path(), "file", LOGS_GZIP).await;
        }
        // The upload of this operator, not what the one before has left.
        let begun = async {
            while server.upload_ids().await.iter().all(|id| seen.contains(id)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), begun)
            .await
            .expect("an upload");
        seen.extend(server.upload_ids().await);
        tokio::time::sleep(Duration::from_millis(kill * 70)).await;
        drop(operator);
        assert_eq!(server.keys().await, Vec::<String>::new(), "never half an object");
        assert_eq!(
            server.upload_ids().await.len(),
            1,
            "what others left has been ended"
        );
        match exports.find(&key("file")).await.unwrap() {
            Some((found, path)) => assert_whole(&found.sha256, &std::fs::read(path).unwrap()),
            None => amid += 1,
        }
    }
    assert!(amid > 0, "it was killed amid the file");
    gate.open();
    let operator = start(api, data.path());
    cluster
        .until("both ends", |c| c.has_ended("file") && c.has_ended("object"))
        .await;
    for name in ["file", "object"] {
        let status = cluster.status(name);
        assert_eq!(status["phase"], "Succeeded", "{status}");
        assert_eq!(status["artifact"]["rows"], LINES);
        let bytes = if name == "file" {
            assert_eq!(files_in(&folder(data.path(), name)), ["export.json", LOGS_GZIP]);
            std::fs::read(folder(data.path(), name).join(LOGS_GZIP)).unwrap()
        } else {
            assert_eq!(server.keys().await, [FILE]);
            server.get(FILE).await.unwrap().bytes().await.unwrap().to_vec()
        };
        assert_eq!(status["artifact"]["bytes"], bytes.len());
        assert_whole(status["artifact"]["sha256"].as_str().unwrap(), &bytes);
    }
    assert_eq!(server.uploads().await, 0);
    drop(operator);
}

fn assert_whole(sha256: &str, bytes: &[u8]) {
    assert_eq!(format!("{:x}", Sha256::digest(bytes)), sha256);
}
