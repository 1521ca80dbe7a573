//! Exports to S3, on a real server.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    ROWS,
    bed::Controller,
    cluster::{Cluster, EVERYWHERE, export},
    large_store,
    s3_server::{S3Server, narrow, secret},
    store,
};

const FILE: &str = "pay_runs_data.csv";

fn to_s3(address: SocketAddr, prefix: &str) -> Value {
    json!({"scriptRef": {"name": "pay"}, "data": "Runs", "destination": S3Server::destination(address, prefix)})
}

/// The object is what the status says it is, and it says so itself.
async fn assert_stored(server: &S3Server, key: &str, name: &str, status: &Value) -> Vec<u8> {
    assert_eq!(status["phase"], "Succeeded", "{status}");
    assert_eq!(status["artifact"]["url"], format!("s3://reports/{key}"));
    assert_eq!(status["artifact"]["rows"], ROWS);
    let object = server.get(key).await.unwrap();
    let meta = |name: &str| {
        object.headers()[format!("x-amz-meta-{name}")]
            .to_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(status["artifact"]["sha256"], meta("sha256"));
    assert_eq!(meta("rows"), ROWS.to_string());
    assert_eq!(meta("scriptscope-export"), format!("uid-{name}"));
    let bytes = object.bytes().await.unwrap().to_vec();
    assert_eq!(status["artifact"]["bytes"], bytes.len());
    assert_eq!(
        status["artifact"]["sha256"],
        format!("{:x}", Sha256::digest(&bytes))
    );
    bytes
}

#[tokio::test]
async fn a_file_in_s3_is_the_one_on_the_volume_and_stays() {
    let data = tempfile::tempdir().unwrap();
    let server = S3Server::start().await;
    let mut on_volume = to_s3(server.address, "");
    on_volume["destination"] = json!({"volume": {}});
    let mut zstd = to_s3(server.address, "team=shop/");
    zstd["compression"] = json!("Zstd");
    let cluster = Cluster::new(
        EVERYWHERE,
        vec![
            export("small", &to_s3(server.address, "small"), Value::Null),
            export("large", &to_s3(server.address, "large/2026"), Value::Null),
            export("zstd", &zstd, Value::Null),
            export("volume", &on_volume, Value::Null),
        ],
    );
    cluster
        .secrets
        .lock()
        .unwrap()
        .insert("s3".into(), S3Server::secret());
    let controller = Controller::start(&cluster, large_store(&data).await, &data);
    cluster
        .until("four ends", |c| c.events.lock().unwrap().len() == 4)
        .await;

    let expected = std::fs::read(data.path().join("exports/shop/volume").join(FILE)).unwrap();
    // Two parts, the last of them smaller.
    assert!(expected.len() > 9 << 20, "{}", expected.len());
    for (name, key) in [
        ("small", "small/pay_runs_data.csv"),
        ("large", "large/2026/pay_runs_data.csv"),
    ] {
        let stored = assert_stored(&server, key, name, &cluster.status(name)).await;
        assert!(stored == expected, "{name}");
        assert_eq!(cluster.phases(name), ["Pending", "Running", "Succeeded"]);
        assert!(!data.path().join("exports/shop").join(name).exists());
    }
    // Compressed it is so small that it is sent at once.
    let key = "team=shop/pay_runs_data.csv.zst";
    let stored = assert_stored(&server, key, "zstd", &cluster.status("zstd")).await;
    assert!(zstd::decode_all(&stored[..]).unwrap() == expected);
    assert_eq!(server.uploads().await, 0);

    let gone = cluster.objects.lock().unwrap().remove("large").unwrap();
    cluster.notify("DELETED", &gone);
    controller.stop().await;
    assert_eq!(server.keys().await.len(), 3);
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table of what can be wrong")]
async fn what_is_wrong_with_a_destination_is_said_with_its_remedy() {
    let data = tempfile::tempdir().unwrap();
    let server = S3Server::start().await;
    let address = server.address;
    let with = |edit: fn(&mut Value)| {
        let mut spec = to_s3(address, "wrong");
        edit(&mut spec["destination"]["s3"]);
        spec
    };
    // Nobody listens there: it was bound just now, and is not any more.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut unreachable = to_s3(nobody, "");
    unreachable["columns"] = json!(["Run ID"]);
    let cluster = Cluster::new(
        EVERYWHERE,
        vec![
            export(
                "no-bucket",
                &with(|s3| s3["bucket"] = json!("nothing-here")),
                Value::Null,
            ),
            export(
                "denied",
                &with(|s3| s3["credentialsSecretRef"]["name"] = json!("wrong")),
                Value::Null,
            ),
            export(
                "no-key",
                &with(|s3| s3["credentialsSecretRef"]["name"] = json!("half")),
                Value::Null,
            ),
            export(
                "forbidden",
                &with(|s3| s3["credentialsSecretRef"]["name"] = json!("forbidden")),
                Value::Null,
            ),
            export(
                "no-secret",
                &with(|s3| s3["credentialsSecretRef"]["name"] = json!("absent")),
                Value::Null,
            ),
            export("prefix", &with(|s3| s3["prefix"] = json!("../x")), Value::Null),
            export(
                "both",
                &{
                    let mut both = to_s3(address, "");
                    both["destination"]["volume"] = json!({});
                    both
                },
                Value::Null,
            ),
            export("unreachable", &unreachable, Value::Null),
        ],
    );
    let wrong = secret(&[
        ("AWS_ACCESS_KEY_ID", "AKIATESTTESTTEST"),
        ("AWS_SECRET_ACCESS_KEY", "wrong-and-private"),
    ]);
    let half = secret(&[("AWS_ACCESS_KEY_ID", "AKIATESTTESTTEST")]);
    cluster.secrets.lock().unwrap().extend([
        ("s3".to_owned(), S3Server::secret()),
        ("wrong".to_owned(), wrong),
        ("half".to_owned(), half),
        ("forbidden".to_owned(), Value::Null),
    ]);
    let controller = Controller::start(&cluster, store(&data).await, &data);
    cluster
        .until("eight ends", |c| c.events.lock().unwrap().len() == 8)
        .await;
    for (name, reason, part) in [
        (
            "no-bucket",
            "DestinationNotFound",
            "spec.destination.s3.bucket: there is no bucket nothing-here",
        ),
        (
            "denied",
            "DestinationDenied",
            "(SignatureDoesNotMatch): check AWS_ACCESS_KEY_ID",
        ),
        (
            "no-key",
            "SecretInvalid",
            "the Secret half has no AWS_SECRET_ACCESS_KEY",
        ),
        (
            "forbidden",
            "SecretForbidden",
            "may not read the Secret forbidden in namespace shop: allow it",
        ),
        (
            "no-secret",
            "SecretNotFound",
            "there is no Secret absent in namespace shop",
        ),
        (
            "prefix",
            "InvalidDestination",
            "spec.destination.s3.prefix: must be",
        ),
        ("both", "InvalidDestination", "exactly one of: volume, s3"),
        (
            "unreachable",
            "DestinationUnreachable",
            "could not be reached: Connection refused",
        ),
    ] {
        let status = cluster.status(name);
        assert_eq!(status["phase"], "Failed", "{name}: {status}");
        assert_eq!(status["conditions"][1]["reason"], reason, "{status}");
        let message = status["message"].as_str().unwrap();
        assert!(message.contains(part), "{message}");
        assert!(!status.to_string().contains("private"));
    }
    assert_eq!(server.keys().await, Vec::<String>::new());
    controller.stop().await;
}

#[tokio::test]
async fn a_secret_may_come_after_its_export() {
    let data = tempfile::tempdir().unwrap();
    let server = S3Server::start().await;
    let cluster = Cluster::new(
        EVERYWHERE,
        vec![export("early", &to_s3(server.address, ""), Value::Null)],
    );
    let controller = Controller::start(&cluster, store(&data).await, &data);
    cluster
        .until("a look for the Secret", |c| {
            c.status("early")["conditions"][0]["reason"] == "Retrying"
        })
        .await;
    cluster
        .secrets
        .lock()
        .unwrap()
        .insert("s3".into(), S3Server::secret());
    cluster.until("the end", |c| c.has_ended("early")).await;
    assert_stored(&server, FILE, "early", &cluster.status("early")).await;
    controller.stop().await;
}

#[tokio::test]
async fn an_object_of_somebody_else_is_not_written_over() {
    let data = tempfile::tempdir().unwrap();
    let server = S3Server::start().await;
    let store = store(&data).await;
    let spec = to_s3(server.address, "");
    let cluster = Cluster::new(EVERYWHERE, vec![export("first", &spec, Value::Null)]);
    cluster
        .secrets
        .lock()
        .unwrap()
        .insert("s3".into(), S3Server::secret());
    let controller = Controller::start(&cluster, store.clone(), &data);
    cluster.until("the end", |c| c.has_ended("first")).await;
    let before = assert_stored(&server, FILE, "first", &cluster.status("first")).await;
    // What was written and not told: it is not written again, and not taken for another's.
    let again = export(
        "first",
        &spec,
        json!({"phase": "Running", "startedAt": "2026-01-01T00:00:00Z"}),
    );
    let second = export("second", &spec, Value::Null);
    controller.stop().await;
    let cluster = Cluster::new(EVERYWHERE, vec![again, second]);
    cluster
        .secrets
        .lock()
        .unwrap()
        .insert("s3".into(), S3Server::secret());
    let controller = Controller::start(&cluster, store, &data);
    cluster
        .until("both ends", |c| c.has_ended("first") && c.has_ended("second"))
        .await;
    let status = cluster.status("second");
    assert_eq!(status["conditions"][1]["reason"], "DestinationTaken", "{status}");
    let after = assert_stored(&server, FILE, "first", &cluster.status("first")).await;
    assert!(before == after);
    controller.stop().await;
}

#[tokio::test]
async fn a_cancelled_or_deleted_export_ends_its_upload() {
    let data = tempfile::tempdir().unwrap();
    let server = S3Server::start().await;
    // Not enough for a part.
    let narrow = narrow(server.address, 1 << 20).await;
    let cluster = Cluster::new(
        EVERYWHERE,
        vec![
            export("cancelled", &to_s3(narrow, "a"), Value::Null),
            export("deleted", &to_s3(narrow, "b"), Value::Null),
        ],
    );
    cluster
        .secrets
        .lock()
        .unwrap()
        .insert("s3".into(), S3Server::secret());
    let controller = Controller::start(&cluster, large_store(&data).await, &data);
    server.until_uploads(2).await;
    let began = Instant::now();
    cluster.edit("cancelled", |spec| spec["cancelled"] = json!(true));
    cluster.until("the end", |c| c.has_ended("cancelled")).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(cluster.status("cancelled")["phase"], "Cancelled");
    assert_eq!(server.uploads().await, 1);
    let gone = cluster.objects.lock().unwrap().remove("deleted").unwrap();
    cluster.notify("DELETED", &gone);
    server.until_uploads(0).await;
    assert_eq!(server.keys().await, Vec::<String>::new());
    controller.stop().await;
}

#[tokio::test]
async fn an_operator_that_comes_back_ends_what_was_left_and_makes_the_file_once() {
    let data = tempfile::tempdir().unwrap();
    let server = S3Server::start().await;
    let left = server.begin(FILE).await;
    let other = server.begin("pay_runs_data.csv.gz").await;
    assert_ne!(left, other);
    let broken_off = json!({"phase": "Running", "startedAt": "2020-01-01T00:00:00Z"});
    let cluster = Cluster::new(
        EVERYWHERE,
        vec![export("again", &to_s3(server.address, ""), broken_off)],
    );
    cluster
        .secrets
        .lock()
        .unwrap()
        .insert("s3".into(), S3Server::secret());
    let narrow = narrow(server.address, 1 << 20).await;
    let controller = Controller::start(&cluster, large_store(&data).await, &data);
    cluster.until("the end", |c| c.has_ended("again")).await;
    assert_stored(&server, FILE, "again", &cluster.status("again")).await;
    assert_eq!(cluster.status("again")["startedAt"], "2020-01-01T00:00:00Z");
    // That of another name is another's.
    assert_eq!((server.keys().await.len(), server.uploads().await), (1, 1));

    // One that stops in good order leaves nothing.
    let next = export("next", &to_s3(narrow, "next"), Value::Null);
    cluster
        .objects
        .lock()
        .unwrap()
        .insert("next".into(), next.clone());
    cluster.notify("ADDED", &next);
    server.until_uploads(2).await;
    controller.stop().await;
    assert_eq!((server.keys().await.len(), server.uploads().await), (1, 1));
}
