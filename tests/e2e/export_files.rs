//! Files of every kind, from the cluster into pandas and `DuckDB`; S3; schedules; progress.

use std::{
    net::{IpAddr, UdpSocket},
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use crate::{
    harness::{SYSTEM, Script, admin_token, apply, eventually, http, kubectl, operator},
    read_back::read_back,
    s3_server::{S3Server, slow},
};

/// Prints what is hard to put into a file.
const MAIN: &str = r##"
import sys

LINES = ["plain", "commas, and, more", 'say "hi"', '"', "=1+1", "+1", "-1", "@SUM(A1)", "\ttab", "'quoted'",
         "emoji \U0001F389 and \u65e5\u672c", "007", "1e5", "NA", "null", "nan", "true", " spaces ", "back\\slash \\n",
         "semi;colon|pipe", "# no comment", '{"json": "a,b"}', "nul\0nul"]

def pay(amount):
    for line in LINES:
        print(line)
    sys.stdout.flush()
    sys.stdout.buffer.write(b"bad \xff\xfe bytes\n")
    sys.stdout.flush()
    if amount % 3 == 0:
        raise ValueError("two\nlines, \"quoted\"")
    return amount
"##;
/// Lines of a call.
const LINES: usize = 24;
const CALLS: usize = 20;

fn export(script: &Script, name: &str, data: &str, more: &Value) -> Value {
    let mut spec = json!({"scriptRef": {"name": script.name}, "data": data});
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "scriptscope.dev/v1alpha1", "kind": "ScriptExport",
           "metadata": {"name": name, "namespace": script.namespace}, "spec": spec})
}

/// A script that has been called, with every run and line of it stored.
async fn called(test: &str) -> Script {
    let script = Script::new(test, "till").await;
    script.deploy(MAIN, json!({})).await;
    let sources = ["=cmd|'x'!A1", "a \"b\", c", "plain", "7"];
    for n in 0..CALLS {
        let source = [("x-scriptscope-source", sources[n % sources.len()])];
        script.call_with("pay", json!({"amount": n}), &source).await;
    }
    script
        .wait_for_metrics("all is stored", |m| {
            let ended = m["succeededRuns"].as_u64().unwrap_or(0) + m["failedRuns"].as_u64().unwrap_or(0);
            ended == CALLS as u64 && m["totalLogs"].as_u64() >= Some((CALLS * LINES) as u64)
        })
        .await;
    script
}

/// The object of an export that has ended well.
async fn succeeded(script: &Script, name: &str, limit: Duration) -> Value {
    let what = format!("export {name} has ended");
    let status = eventually(&what, limit, || async {
        let text = kubectl(&["-n", &script.namespace, "get", "sexport", name, "-o", "json"]).await;
        let status = serde_json::from_str::<Value>(&text).unwrap()["status"].clone();
        match status["phase"].as_str() {
            Some("Succeeded" | "Failed" | "Cancelled") => Ok(status),
            _ => Err(status.to_string()),
        }
    })
    .await;
    assert_eq!(status["phase"], "Succeeded", "{name}: {status}");
    status
}

fn assert_whole(status: &Value, bytes: &[u8]) {
    let artifact = &status["artifact"];
    assert_eq!(artifact["bytes"], bytes.len(), "{artifact}");
    assert_eq!(artifact["sha256"], format!("{:x}", Sha256::digest(bytes)));
}

/// Keeps a file under its name, in a folder of its own.
fn keep(folder: &TempDir, export: &str, status: &Value, bytes: &[u8]) -> PathBuf {
    assert_whole(status, bytes);
    let folder = folder.path().join(export);
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(status["artifact"]["fileName"].as_str().unwrap());
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Downloads the file of an export from the operator.
async fn download(folder: &TempDir, export: &str, status: &Value) -> PathBuf {
    let url = status["artifact"]["url"].as_str().unwrap();
    let request = http().get(format!("{}{url}", operator().await));
    let answer = request.bearer_auth(admin_token().await).send().await.unwrap();
    let bytes = answer.error_for_status().unwrap().bytes().await.unwrap();
    keep(folder, export, status, &bytes)
}

/// What the command writes.
async fn command(folder: &TempDir, script: &Script, table: &str) -> PathBuf {
    let path = folder.path().join(format!("till_{table}_data.csv"));
    let output = Command::new(env!("CARGO_BIN_EXE_scriptscope"))
        .args(["export", &script.name, table, "--last", "1d", "--out"])
        .arg(&path)
        .args(["-n", &script.namespace, "--system-namespace", SYSTEM])
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_file_is_read_by_pandas_and_duckdb() {
    let script = called("kinds").await;
    let folder = tempfile::tempdir().unwrap();
    let formats = [
        ("csv", json!({"csv": {"bom": true}})),
        ("gzip", json!({"compression": "Gzip"})),
        ("zstd", json!({"compression": "Zstd"})),
        ("parquet", json!({"format": "Parquet"})),
    ];
    let equals =
        |column: &str, value: &str| json!([{"column": column, "operator": "Equals", "values": [value]}]);
    // What is asked for, the same of the REST API.
    let questions = [
        ("all", "Runs", json!({"range": {"last": "1d"}}), "last=1d"),
        (
            "month",
            "Runs",
            json!({"range": {"preset": "AllTime"}}),
            "preset=AllTime",
        ),
        (
            "failed",
            "Runs",
            json!({"filters": equals("Status", "Failed")}),
            "status=Failed",
        ),
        ("lines", "Logs", json!({"range": {"last": "1d"}}), "last=1d"),
        (
            "stdout",
            "Logs",
            json!({"filters": equals("Log Level", "Stdout")}),
            "level=Stdout",
        ),
    ];
    for (question, data, spec, _) in &questions {
        for (format, more) in &formats {
            let mut spec = spec.clone();
            spec.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            let name = format!("{question}-{format}");
            apply(&export(&script, &name, data, &spec)).await.unwrap();
        }
    }
    for (question, data, _, query) in &questions {
        let list = data.to_lowercase();
        let items = script.items(&list, query).await;
        assert!(!items.is_empty());
        let mut files = Vec::new();
        for (format, _) in &formats {
            let name = format!("{question}-{format}");
            let status = succeeded(&script, &name, Duration::from_secs(60)).await;
            assert_eq!(status["artifact"]["rows"], items.len(), "{name}");
            files.push(download(&folder, &name, &status).await);
        }
        if *query == "last=1d" {
            files.push(command(&folder, &script, &list).await);
        }
        read_back(&json!(items), &files);
    }
}

/// An address of this machine that pods reach.
async fn host() -> IpAddr {
    let pod = kubectl(&[
        "-n",
        SYSTEM,
        "get",
        "pods",
        "-o",
        "jsonpath={.items[0].status.podIP}",
    ])
    .await;
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect((pod.as_str(), 80)).unwrap();
    socket.local_addr().unwrap().ip()
}

/// An S3 server on this machine, whose credentials the operator may read in the script's namespace.
async fn s3(script: &Script) -> S3Server {
    let server = S3Server::start_at(host().await).await;
    let mut secret = S3Server::secret();
    secret["metadata"]["namespace"] = json!(script.namespace);
    let role = json!({"apiVersion": "v1", "kind": "List", "items": [
        secret,
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
         "metadata": {"name": "reports", "namespace": script.namespace},
         "rules": [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["s3"], "verbs": ["get"]}]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
         "metadata": {"name": "reports", "namespace": script.namespace},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reports"},
         "subjects": [{"kind": "ServiceAccount", "name": "scriptscope", "namespace": SYSTEM}]}]});
    apply(&role).await.unwrap();
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_to_s3_and_stays_there() {
    let script = called("bucket").await;
    let folder = tempfile::tempdir().unwrap();
    let server = s3(&script).await;
    let mut files = Vec::new();
    for (name, more) in [
        ("csv", json!({})),
        ("gzip", json!({"compression": "Gzip"})),
        ("parquet", json!({"format": "Parquet"})),
    ] {
        let mut spec = more;
        spec["destination"] = S3Server::destination(server.address, name);
        apply(&export(&script, name, "Logs", &spec)).await.unwrap();
        let status = succeeded(&script, name, Duration::from_secs(60)).await;
        let file = status["artifact"]["fileName"].as_str().unwrap();
        let at = format!("{name}/{file}");
        assert_eq!(status["artifact"]["url"], format!("s3://reports/{at}"));
        kubectl(&["-n", &script.namespace, "delete", "sexport", name]).await;
        let object = server.get(&at).await.expect("it has been handed over");
        assert_eq!(
            status["artifact"]["sha256"],
            object.headers()["x-amz-meta-sha256"].to_str().unwrap()
        );
        files.push(keep(&folder, name, &status, &object.bytes().await.unwrap()));
    }
    assert_eq!(server.uploads().await, 0);
    read_back(&json!(script.items("logs", "").await), &files);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_makes_a_file_each_minute_and_keeps_the_last() {
    let script = called("minutely").await;
    let schedule = json!({"schedule": "* * * * *", "historyLimit": 1, "range": {"last": "1d"}});
    apply(&export(&script, "minutely", "Runs", &schedule))
        .await
        .unwrap();
    let status = async || {
        let text = kubectl(&[
            "-n",
            &script.namespace,
            "get",
            "sexport",
            "minutely",
            "-o",
            "json",
        ])
        .await;
        serde_json::from_str::<Value>(&text).unwrap()["status"].clone()
    };
    let made = async |other_than: &str| {
        eventually("the next file", Duration::from_secs(150), || async {
            let status = status().await;
            let newest = &status["history"][0];
            let name = newest["name"].as_str().unwrap_or_default().to_owned();
            if newest["phase"] == "Succeeded" && name != other_than {
                Ok((name, newest.clone()))
            } else {
                Err(status.to_string())
            }
        })
        .await
    };
    let (first, _) = made("").await;
    let (second, kept) = made(&first).await;
    assert!(
        first.starts_with("minutely-") && second > first,
        "{first} {second}"
    );
    assert_eq!(kept["artifact"]["rows"], CALLS, "{kept}");
    let file = kept["artifact"]["fileName"].as_str().unwrap();
    assert!(
        file.starts_with("till_runs_data_20") && file.ends_with("Z.csv"),
        "{file}"
    );
    eventually("the first is gone", Duration::from_secs(20), || async {
        let names = kubectl(&["-n", &script.namespace, "get", "sexport", "-o", "name"]).await;
        let children = names.lines().filter(|name| name.contains("/minutely-")).count();
        if children == 1 && !names.contains(&first) {
            Ok(())
        } else {
            Err(names)
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = download(&folder, "minutely", &kept).await;
    read_back(&json!(script.items("runs", "last=1d").await), &[path]);
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_moves_while_kubectl_watches() {
    const CALLS: u64 = 20;
    const LINES: u64 = 2_500;
    let script = Script::new("progress", "loud").await;
    let main = "def shout(lines):\n    for n in range(lines):\n        print(n, 'x' * 2_000)\n";
    script.deploy(main, json!({})).await;
    for _ in 0..CALLS {
        script.call("shout", json!({"lines": LINES})).await;
    }
    let stored = "100 MB are stored";
    eventually(stored, Duration::from_secs(120), || async {
        let metrics = script.object().await["status"]["metrics"].clone();
        if metrics["totalLogs"] == CALLS * LINES {
            Ok(())
        } else {
            Err(metrics.to_string())
        }
    })
    .await;
    let server = s3(&script).await;
    // Ten megabytes a second, so that there is something to see.
    let slow = slow(server.address, Duration::from_millis(24)).await;
    let spec = json!({"destination": S3Server::destination(slow, "")});
    apply(&export(&script, "watched", "Logs", &spec)).await.unwrap();
    let began = Instant::now();
    let mut watch = Command::new("kubectl")
        .args([
            "-n",
            &script.namespace,
            "get",
            "sexport",
            "watched",
            "-w",
            "--no-headers",
        ])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut seen = Vec::new();
    loop {
        let left = Duration::from_secs(120).saturating_sub(began.elapsed());
        let line = tokio::time::timeout(left, lines.next_line()).await;
        let line = line
            .expect("the export ends")
            .unwrap()
            .expect("the watch goes on");
        println!("{line}");
        let cells: Vec<&str> = line.split_whitespace().collect();
        match cells[1] {
            // An empty cell is none.
            "Running" => seen.extend(cells[2].parse::<u64>()),
            "Succeeded" => {
                assert_eq!(cells[2], (CALLS * LINES).to_string(), "{line}");
                break;
            }
            phase => assert_eq!(phase, "Pending", "{line}"),
        }
    }
    seen.dedup();
    assert!(seen.is_sorted() && seen.len() >= 3, "{seen:?}");
    assert_eq!(server.keys().await, ["loud_logs_data.csv"]);
}
