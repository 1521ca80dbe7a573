//! What the API server itself refuses, and how it says so.

use serde_json::{Value, json};

use crate::harness::{Script, apply, try_kubectl};

/// The API server's word on an object that it must refuse.
async fn refused(manifest: &Value) -> String {
    match apply(manifest).await {
        Ok(output) => panic!("accepted: {output}"),
        Err(message) => message,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_with_the_fields_name() {
    let script = Script::new("crds", "good").await;
    let main = "def f():\n    pass\n";
    let with = |more: Value| script.manifest(main, &more);
    let archive = |url: &str, sha256: &str| json!({"source": {"archive": {"url": url, "sha256": sha256}}});

    let mut long = with(json!({}));
    long["metadata"]["name"] = "a".repeat(53).into();
    let message = refused(&long).await;
    assert!(
        message.contains("metadata.name") && message.contains("52"),
        "{message}"
    );

    for (more, expected) in [
        (json!({"timeoutSeconds": 0}), "spec.timeoutSeconds"),
        (json!({"timeoutSeconds": 601}), "spec.timeoutSeconds"),
        (json!({"replicas": {"min": 11}}), "spec.replicas.min"),
        (json!({"concurrency": 0}), "spec.concurrency"),
        (json!({"runtime": "cobol"}), "spec.runtime"),
        (json!({"runtime": null}), "spec.runtime"),
        (json!({"desiredState": "Maybe"}), "spec.desiredState"),
        (
            json!({"workload": {"deploymentRef": {"name": "web"}}}),
            "spec.workload",
        ),
        (json!({"source": null}), "spec.source"),
        (json!({"source": {}}), "spec.source"),
        (
            json!({"source": {"inline": {"main.py": ""}, "image": "a:1"}}),
            "exactly one of inline, configMapRef, archive and image",
        ),
        (
            json!({"source": {"image": "a:1"}, "runtimeImage": "b:1"}),
            "spec.runtimeImage",
        ),
        (
            archive("ftp://files/a.zip", &"0".repeat(64)),
            "spec.source.archive.url",
        ),
        (
            archive("http://me:secret@files/a.zip", &"0".repeat(64)),
            "without user and password",
        ),
        (archive("http://files/a.zip", "abc"), "spec.source.archive.sha256"),
        (json!({"source": {"inline": {"helper.py": ""}}}), "main.py"),
        (
            json!({"source": {"inline": {"main.py": "", "../x.py": ""}}}),
            "spec.source.inline",
        ),
        (
            json!({"env": [{"name": "SCRIPTSCOPE_VERSION", "value": "9"}]}),
            "spec.env",
        ),
        (json!({"timeoutSecond": 5}), "timeoutSecond"),
    ] {
        let message = refused(&with(more.clone())).await;
        assert!(message.contains(expected), "{more}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_means_nothing_for_an_adopted_deployment_is_refused_with_the_fields_name() {
    let script = Script::new("adoptcrds", "adopter").await;
    let adopter = |more: Value| {
        let mut manifest = script.manifest("", &json!({"runtime": null, "source": null}));
        manifest["spec"]["workload"] = json!({"deploymentRef": {"name": "web"}});
        for (key, value) in more.as_object().unwrap() {
            manifest["spec"][key] = value.clone();
        }
        manifest
    };
    for (field, value) in [
        ("runtime", json!("python")),
        ("runtimeImage", json!("a:1")),
        ("env", json!([{"name": "A", "value": "1"}])),
        ("envFrom", json!([{"configMapRef": {"name": "c"}}])),
        ("resources", json!({"limits": {"cpu": "1"}})),
        ("runtimeClassName", json!("")),
        ("serviceAccountName", json!("a")),
        ("imagePullSecrets", json!([{"name": "s"}])),
        ("timeoutSeconds", json!(5)),
        ("replicas", json!({"min": 2})),
        ("concurrency", json!(2)),
        ("endpoint", json!({})),
        ("logging", json!({"standard": "Live"})),
        ("capture", json!({"input": false})),
    ] {
        let message = refused(&adopter(json!({field: value}))).await;
        let says = format!("spec.{field} has no meaning with spec.workload");
        assert!(message.contains(&says), "{field}: {message}");
    }
    apply(&adopter(
        json!({"retention": {"logs": "7d"}, "desiredState": "Undeployed"}),
    ))
    .await
    .unwrap();
    // A script stays what it is.
    let mut managed = script.manifest("def f():\n    pass\n", &json!({}));
    managed["spec"]["workload"] = Value::Null;
    let message = refused(&managed).await;
    assert!(message.contains("spec.workload can not be given"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_explains_the_fields() {
    let text = try_kubectl(&["explain", "customscript.spec.timeoutSeconds"], None)
        .await
        .unwrap();
    assert!(text.contains("1 to 600"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_export_with_two_ranges_is_refused() {
    let script = Script::new("sexport", "good").await;
    let export = |range: Value| {
        json!({"apiVersion": "scriptscope.dev/v1alpha1", "kind": "ScriptExport",
               "metadata": {"name": "e", "namespace": script.namespace},
               "spec": {"scriptRef": {"name": "good"}, "data": "Runs", "range": range}})
    };
    let message = refused(&export(json!({"last": "7d", "preset": "Today"}))).await;
    assert!(message.contains("spec.range"), "{message}");
    let message = refused(&export(json!({"last": "7 days"}))).await;
    assert!(message.contains("spec.range.last"), "{message}");
    let range = json!({"from": "2026-02-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"});
    let message = refused(&export(range)).await;
    assert!(message.contains("spec.range.from"), "{message}");
}
