//! How scripts are called: with keys, without waiting, by more callers than there are workers.

use std::time::Duration;

use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Answer, Script, apply, eventually, http, kubectl, try_kubectl};

const MAIN: &str = r#"
import os, time

def nap(seconds):
    time.sleep(seconds)
    return seconds

def readable(text):
    """Files and variables of this container that hold a text."""
    found = [name for name, value in os.environ.items() if text in value]
    for root in ("/run", "/tmp", "/scriptscope", "/etc", "/app"):
        for folder, _, files in os.walk(root):
            for name in files:
                path = os.path.join(folder, name)
                try:
                    if os.path.getsize(path) < (1 << 20) and text.encode() in open(path, "rb").read():
                        found.append(path)
                except OSError:
                    pass
    return found
"#;
const FIRST: &str = "e2e-first-key-0123456789abcdef";
const SECOND: &str = "e2e-second-key-0123456789abcdef";

/// Any request to a script.
async fn ask(script: &Script, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = http().request(method, format!("{}{path}", script.address().await));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request
        .send()
        .await
        .unwrap_or_else(|error| panic!("{path}: {error:?}"));
    let status = response.status();
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error} in {text}"));
    Answer { status, body }
}

/// A field of an object of the script's namespace; empty if there is no such object.
async fn field(script: &Script, kind: &str, name: &str, path: &str) -> String {
    let path = format!("jsonpath={path}");
    let args = [
        "-n",
        &script.namespace,
        "get",
        kind,
        name,
        "--ignore-not-found",
        "-o",
        &path,
    ];
    kubectl(&args).await
}

async fn secret(script: &Script, key: &str) {
    let secret = json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "callers", "namespace": script.namespace}, "stringData": {"partner": key}});
    apply(&secret).await.unwrap();
}

async fn with_key(script: &Script, key: &str) -> Answer {
    script
        .call_with("nap", json!({"seconds": 0}), &[("x-api-key", key)])
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_show_a_key_that_the_script_itself_never_sees() {
    let script = Script::new("keys", "guarded").await;
    secret(&script, FIRST).await;
    let endpoint = json!({"endpoint": {"apiKeysSecretRef": {"name": "callers"}}});
    script.deploy(MAIN, endpoint).await;
    // The kubelet may have mounted the Secret a moment after the pod was ready.
    let run_id = eventually("the key is known", Duration::from_secs(90), || async {
        let answer = with_key(&script, FIRST).await;
        if answer.status == StatusCode::OK {
            Ok(answer.run_id().to_owned())
        } else {
            Err(format!("{answer:?}"))
        }
    })
    .await;
    let run = script.ended_run(&run_id).await;
    assert_eq!(
        (&run["source"], &run["sourceType"]),
        (&json!("partner"), &json!("API"))
    );
    for headers in [
        &[][..],
        &[("x-scriptscope-source", "billing")],
        &[("x-api-key", SECOND)],
    ] {
        let answer = script.call_with("nap", json!({"seconds": 0}), headers).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{answer:?}");
    }
    let found = script
        .call_with("readable", json!({"text": &FIRST[..20]}), &[("x-api-key", FIRST)])
        .await;
    // Its own arguments are the only place where the script meets the text.
    let found: Vec<_> = found.body["result"].as_array().unwrap().clone();
    assert_eq!(found, [""; 0], "the script can read the key");

    let pods = || async {
        kubectl(&[
            "-n",
            &script.namespace,
            "get",
            "pods",
            "-o",
            "jsonpath={.items[*].metadata.uid}",
        ])
        .await
    };
    let before = pods().await;
    secret(&script, SECOND).await;
    eventually("the new key counts", Duration::from_secs(150), || async {
        let (new, old) = (with_key(&script, SECOND).await, with_key(&script, FIRST).await);
        if (new.status, old.status) == (StatusCode::OK, StatusCode::UNAUTHORIZED) {
            Ok(())
        } else {
            Err(format!("{} {}", new.status, old.status))
        }
    })
    .await;
    assert_eq!(pods().await, before, "no pod was restarted");
    assert_eq!(script.object().await["status"]["version"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_pod_answers_for_a_run_and_cancels_it() {
    let script = Script::new("async", "later").await;
    script
        .deploy(MAIN, json!({"replicas": {"min": 2}, "timeoutSeconds": 60}))
        .await;
    eventually("both pods serve", Duration::from_secs(60), || async {
        match field(&script, "deployment", "later", "{.status.readyReplicas}")
            .await
            .as_str()
        {
            "2" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    let begin = |seconds: u32| {
        let script = &script;
        async move {
            let answer = script
                .call_with("nap", json!({"seconds": seconds}), &[("prefer", "respond-async")])
                .await;
            assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
            assert_eq!(answer.body["status"], "In Progress");
            answer
        }
    };
    let short = begin(1).await;
    let path = short.body["statusUrl"].as_str().unwrap();
    let waited = ask(&script, Method::GET, &format!("{path}?wait=30"), &[]).await;
    assert_eq!(
        (waited.status, &waited.body["result"]),
        (StatusCode::OK, &json!(1)),
        "{waited:?}"
    );
    // Each is a connection of its own, so both pods are asked.
    for _ in 0..10 {
        let again = ask(&script, Method::GET, path, &[]).await;
        assert_eq!((again.status, again.body), (StatusCode::OK, waited.body.clone()));
    }
    for _ in 0..4 {
        let long = begin(50).await;
        let path = long.body["statusUrl"].as_str().unwrap();
        let cancelled = ask(&script, Method::DELETE, path, &[]).await;
        assert_eq!(
            (cancelled.status, &cancelled.body["reason"]),
            (StatusCode::OK, &json!("Cancelled")),
            "{cancelled:?}"
        );
        let run = script.ended_run(long.run_id()).await;
        assert_eq!(
            (&run["status"], &run["reason"]),
            (&json!("Failed"), &json!("Cancelled"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_calls_than_fit_are_told_to_come_later() {
    let script = Script::new("load", "busy").await;
    script.deploy(MAIN, json!({})).await;
    let answers = join_all((0..20).map(|_| script.call("nap", json!({"seconds": 1})))).await;
    let count = |status: StatusCode| answers.iter().filter(|a| a.status == status).count();
    let (ok, busy) = (count(StatusCode::OK), count(StatusCode::TOO_MANY_REQUESTS));
    assert_eq!(ok + busy, 20, "nobody is left without an answer: {answers:?}");
    assert!(ok >= 5 && busy >= 1, "{ok} {busy}");
    let refused = answers.iter().find(|a| a.status != StatusCode::OK).unwrap();
    assert_eq!(refused.body["error"]["code"], "QueueFull");
    let status = script
        .wait_for_metrics("the runs", |m| m["totalRuns"] == json!(ok))
        .await;
    assert_eq!(status["metrics"]["failedRuns"], 0);
    let traced = script.call("nap", json!({"seconds": 0})).await;
    let run = script.ended_run(traced.run_id()).await;
    assert!(
        run["traceparent"].as_str().is_some_and(|trace| trace.len() == 55),
        "{run}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaler_comes_and_goes_without_a_new_version() {
    let script = Script::new("scale", "elastic").await;
    let cpu = json!({"resources": {"requests": {"cpu": "50m"}}});
    let scaled = |replicas: Value, more: &Value| {
        let mut all = more.clone();
        all["replicas"] = replicas;
        script.manifest(MAIN, &all)
    };
    for (manifest, expected) in [
        (scaled(json!({"min": 3, "max": 2}), &cpu), "spec.replicas.max"),
        (
            scaled(json!({"min": 1, "max": 2}), &json!({})),
            "spec.resources.requests.cpu",
        ),
        (scaled(json!({"min": 1, "max": 11}), &cpu), "spec.replicas.max"),
    ] {
        let refused = try_kubectl(&["apply", "-f", "-"], Some(&manifest.to_string()))
            .await
            .unwrap_err();
        assert!(refused.contains(expected), "{refused}");
    }
    script
        .deploy(
            MAIN,
            json!({"replicas": {"min": 2}, "resources": {"requests": {"cpu": "50m"}}}),
        )
        .await;
    assert_eq!(field(&script, "hpa", "elastic", "{.metadata.name}").await, "");
    script
        .patch(&json!({"spec": {"replicas": {"min": 2, "max": 3}}}))
        .await;
    eventually("there is an autoscaler", Duration::from_secs(30), || async {
        match field(
            &script,
            "hpa",
            "elastic",
            "{.spec.minReplicas} {.spec.maxReplicas} {.metadata.ownerReferences[0].kind}",
        )
        .await
        .as_str()
        {
            "2 3 CustomScript" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    let replicas = || field(&script, "deployment", "elastic", "{.spec.replicas}");
    assert_eq!(replicas().await, "2", "the number of pods stays");
    // Whatever sets another number is not corrected.
    kubectl(&[
        "-n",
        &script.namespace,
        "scale",
        "deployment",
        "elastic",
        "--replicas=3",
    ])
    .await;
    script
        .patch(&json!({"metadata": {"annotations": {"look": "again"}}}))
        .await;
    script.wait_for_phase("Deployed").await;
    assert_eq!(replicas().await, "3");
    script
        .patch(&json!({"spec": {"replicas": {"min": 1, "max": null}}}))
        .await;
    eventually("the autoscaler is gone", Duration::from_secs(30), || async {
        match field(&script, "hpa", "elastic", "{.metadata.name}")
            .await
            .as_str()
        {
            "" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    eventually("one pod is wanted", Duration::from_secs(30), || async {
        match replicas().await.as_str() {
            "1" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    assert_eq!(script.object().await["status"]["version"], 1, "no new version");
}
