//! What can be wrong or go wrong, and what the status says of it.

use std::io::Read;

use jiff::Timestamp;
use scriptscope::{
    metrics::Metrics, model::ScriptKey, operator::script_export::ExportContext, store::Budget,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    bed::{Controller, LOGS_GZIP, folder, log_store, logs, until_written},
    cluster::{Cluster, EVERYWHERE, export},
    large_store,
    s3_server::{Gate, S3Server, secret_with_authority},
    store,
};

/// The reason of the condition that is true.
fn reason(status: &Value) -> &str {
    let conditions = status["conditions"].as_array().unwrap();
    let holds = conditions.iter().find(|c| c["status"] == "True").unwrap();
    assert_eq!(holds["message"], status["message"]);
    holds["reason"].as_str().unwrap()
}

#[tokio::test]
async fn what_can_not_be_is_said_with_its_field_and_what_is_empty_is_a_file() {
    let data = tempfile::tempdir().unwrap();
    let runs = |more: Value| {
        let mut spec = logs(&more);
        spec["data"] = json!("Runs");
        spec
    };
    let future = json!({"from": "2999-01-01T00:00:00Z", "to": "2999-02-01T00:00:00Z"});
    let nobody = json!([{"column": "Source", "operator": "Equals", "values": ["nobody"]}]);
    let cases = [
        ("future", runs(json!({"range": future})), "Written", "0 rows"),
        ("empty", runs(json!({"filters": nobody})), "Written", "0 rows"),
        (
            "column",
            runs(json!({"columns": ["Colour"]})),
            "InvalidColumns",
            "spec.columns: \"Colour\"",
        ),
        (
            "filter",
            runs(json!({"filters": [{"column": "Log Level", "operator": "Equals", "values": ["Info"]}]})),
            "InvalidFilter",
            "spec.filters: Log Level",
        ),
        (
            "range",
            runs(json!({"range": {"last": "1d", "preset": "Today"}})),
            "InvalidRange",
            "spec.range: ",
        ),
        (
            "ttl",
            runs(json!({"ttlAfterFinished": "soon"})),
            "InvalidTtl",
            "spec.ttlAfterFinished: ",
        ),
        (
            "format",
            runs(json!({"format": "Parquet", "compression": "Gzip"})),
            "InvalidFormat",
            "spec.compression ",
        ),
        (
            "script",
            runs(json!({"scriptRef": {"name": "../pay"}})),
            "InvalidScript",
            "spec.scriptRef.name",
        ),
        (
            "nobodys",
            runs(json!({"scriptRef": {"name": "nope"}})),
            "ScriptNotFound",
            "no CustomScript nope",
        ),
    ];
    let objects = cases
        .iter()
        .map(|(name, spec, ..)| export(name, spec, Value::Null));
    let cluster = Cluster::new(EVERYWHERE, objects.collect());
    let controller = Controller::start(&cluster, store(&data).await, &data);
    for (name, _, expected, part) in &cases {
        cluster.until(name, |c| c.has_ended(name)).await;
        let status = cluster.status(name);
        assert_eq!(reason(&status), *expected, "{name}: {status}");
        assert!(status["message"].as_str().unwrap().contains(part), "{status}");
        let file = folder(data.path(), name).join("pay_runs_data.csv");
        if *expected == "Written" {
            assert_eq!(status["artifact"]["rows"], 0);
            assert_eq!(std::fs::read_to_string(file).unwrap().lines().count(), 1);
        } else {
            assert!(!folder(data.path(), name).exists());
        }
    }
    controller.stop().await;
}

#[tokio::test]
async fn a_full_volume_is_said_and_what_was_written_goes() {
    let data = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(EVERYWHERE, vec![export("large", &logs(&json!({})), Value::Null)]);
    let context = ExportContext::new(cluster.client(), store(&data).await, data.path(), Metrics::new());
    let controller = Controller::with(context.keep_free(u64::MAX));
    cluster.until("the end", |c| c.has_ended("large")).await;
    let status = cluster.status("large");
    assert_eq!(
        (status["phase"].as_str(), reason(&status)),
        (Some("Failed"), "WriteFailed")
    );
    let message = status["message"].as_str().unwrap();
    assert!(
        message.contains("MiB left") && message.contains("delete exports"),
        "{message}"
    );
    assert!(!folder(data.path(), "large").exists());
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_under_a_running_export_is_in_its_file() {
    const LINES: i64 = 20_000;
    let data = tempfile::tempdir().unwrap();
    let store = log_store(LINES, &data).await;
    let gzip = logs(&json!({"compression": "Gzip"}));
    let cluster = Cluster::new(EVERYWHERE, vec![export("before", &gzip, Value::Null)]);
    let controller = Controller::start(&cluster, store.clone(), &data);
    until_written(data.path(), "before", LOGS_GZIP).await;
    // As when retention has come to all of it, or the script is gone with its data.
    let pay = ScriptKey::new("shop", "pay");
    let budget = Budget {
        rows: 10_000,
        bytes: 8 << 20,
    };
    while store.purge(&pay, Timestamp::now(), budget).await.unwrap().more {}
    assert!(!cluster.has_ended("before"), "the deletion came amid the export");
    cluster.create(&export("after", &gzip, Value::Null));
    cluster
        .until("both ends", |c| c.has_ended("before") && c.has_ended("after"))
        .await;
    let status = cluster.status("before");
    assert_eq!(status["artifact"]["rows"], LINES, "{status}");
    let file = std::fs::read(folder(data.path(), "before").join(LOGS_GZIP)).unwrap();
    assert_eq!(
        status["artifact"]["sha256"],
        format!("{:x}", Sha256::digest(&file))
    );
    let mut text = String::new();
    flate2::read::GzDecoder::new(&*file)
        .read_to_string(&mut text)
        .unwrap();
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    for (record, n) in reader.records().zip((0..LINES).rev()) {
        let record = record.unwrap();
        assert!(record[2].starts_with(&format!("{n} ")), "{}", &record[2][..20]);
    }
    let after = cluster.status("after");
    assert!(
        after["artifact"]["rows"] == 0 || reason(&after) == "ScriptNotFound",
        "{after}"
    );
    controller.stop().await;
}

#[tokio::test]
async fn a_bucket_that_goes_amid_the_upload_is_said() {
    let data = tempfile::tempdir().unwrap();
    let server = S3Server::start().await;
    let gate = Gate::before(server.address, 1 << 20).await;
    let spec = json!({"scriptRef": {"name": "pay"}, "data": "Runs",
                      "destination": S3Server::destination(gate.address, "")});
    let cluster = Cluster::new(EVERYWHERE, vec![export("gone", &spec, Value::Null)]);
    let secret = S3Server::secret();
    cluster.secrets.lock().unwrap().insert("s3".into(), secret);
    let controller = Controller::start(&cluster, large_store(&data).await, &data);
    server.until_uploads(1).await;
    server.remove_bucket();
    gate.open();
    cluster.until("the end", |c| c.has_ended("gone")).await;
    let status = cluster.status("gone");
    assert_eq!(reason(&status), "DestinationNotFound", "{status}");
    let message = status["message"].as_str().unwrap();
    assert!(message.contains("there is no bucket reports"), "{message}");
    controller.stop().await;
}

#[tokio::test]
async fn a_server_with_an_authority_of_its_own_is_trusted_where_the_secret_has_it() {
    let data = tempfile::tempdir().unwrap();
    let server = S3Server::start().await;
    let (_process, address, certificate) = server.with_tls().await;
    let to = |prefix: &str, secret: &str| {
        let mut destination = S3Server::destination(address, prefix);
        destination["s3"]["endpoint"] = json!(format!("https://{address}"));
        destination["s3"]["credentialsSecretRef"]["name"] = json!(secret);
        json!({"scriptRef": {"name": "pay"}, "data": "Runs", "destination": destination})
    };
    let cluster = Cluster::new(
        EVERYWHERE,
        vec![
            export("trusted", &to("trusted", "with"), Value::Null),
            export("strange", &to("strange", "without"), Value::Null),
            export("garbled", &to("garbled", "garbled"), Value::Null),
        ],
    );
    cluster.secrets.lock().unwrap().extend([
        ("with".to_owned(), secret_with_authority(&certificate)),
        ("without".to_owned(), S3Server::secret()),
        ("garbled".to_owned(), secret_with_authority("no certificate")),
    ]);
    let controller = Controller::start(&cluster, large_store(&data).await, &data);
    for (name, expected, part) in [
        ("trusted", "Written", "rows are in pay_runs_data.csv"),
        ("strange", "DestinationUnreachable", "certificate"),
        ("garbled", "SecretInvalid", "ca.crt"),
    ] {
        cluster.until(name, |c| c.has_ended(name)).await;
        let status = cluster.status(name);
        assert_eq!(reason(&status), expected, "{status}");
        assert!(status["message"].as_str().unwrap().contains(part), "{status}");
    }
    assert_eq!(server.keys().await, ["trusted/pay_runs_data.csv"]);
    assert_eq!(server.uploads().await, 0);
    controller.stop().await;
}
