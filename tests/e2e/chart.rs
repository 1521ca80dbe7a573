//! What the chart makes, as the API server sees it; nothing is installed by these.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command};

use crate::harness::{Script, kubectl, try_kubectl};

/// The manifests of a release `other` with these values.
async fn render(namespace: &str, values: &Value) -> String {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/scriptscope");
    let mut child = Command::new("helm")
        .args([
            "template",
            "other",
            chart,
            "--namespace",
            namespace,
            "--values",
            "-",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("helm starts; `make test` puts it on the path");
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(values.to_string().as_bytes()).await.unwrap();
    drop(pipe);
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{values}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_api_server_takes_every_shape_of_the_chart() {
    let place = Script::new("chart", "none").await;
    let namespace = &*place.namespace;
    let several = json!({"operator": {"replicas": 3}, "database": {"existingSecret": {"name": "store"}},
        "persistence": {"enabled": false}, "networkPolicy": {"enabled": true, "scripts": {"namespaces": [namespace]}},
        "ingress": {"enabled": true, "hosts": ["scripts.example.com"]}, "metrics": {"dashboards": {"enabled": true}}});
    let shapes = [
        json!({}),
        json!({"watchNamespace": namespace, "networkPolicy": {"enabled": true}}),
        json!({"collection": "api", "persistence": {"enabled": false}}),
        json!({"database": {"url": "postgres://app@db/scripts"}, "persistence": {"accessMode": "ReadWriteMany"}}),
        several,
    ];
    for values in shapes {
        let manifests = render(namespace, &values).await;
        // What is not known is refused, not dropped.
        let arguments = [
            "apply",
            "--server-side",
            "--dry-run=server",
            "--validate=strict",
            "--force-conflicts",
            "-f",
            "-",
        ];
        let said = try_kubectl(&arguments, Some(&manifests)).await;
        let said = said.unwrap_or_else(|error| panic!("{values}: {error}"));
        assert!(
            said.contains("deployment.apps/other-scriptscope serverside-applied"),
            "{said}"
        );
    }
}

/// Whether a pod of this owner would be admitted to a namespace.
async fn admitted(namespace: &str, manifests: &str, kind: &str) -> Result<String, String> {
    let arguments = ["create", "--dry-run=client", "-o", "json", "-f", "-"];
    let list = try_kubectl(&arguments, Some(manifests)).await.unwrap();
    // One object after the other.
    let objects = serde_json::Deserializer::from_str(&list).into_iter::<Value>();
    let objects = objects.map(Result::unwrap).flat_map(|object: Value| {
        let items = object["items"].as_array().cloned();
        items.unwrap_or_else(|| vec![object])
    });
    let mut owners = objects.filter(|object| object["kind"] == kind);
    let mut spec = owners.next().expect("an owner of pods")["spec"]["template"]["spec"].clone();
    spec["serviceAccountName"] = json!("default");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "namespace": namespace}, "spec": spec});
    try_kubectl(&["create", "--dry-run=server", "-f", "-"], Some(&pod.to_string())).await
}

#[tokio::test]
async fn the_operators_pod_meets_the_restricted_standard_and_the_agents_but_for_its_folder_and_user() {
    let place = Script::new("standard", "none").await;
    let namespace = &*place.namespace;
    let label = "pod-security.kubernetes.io/enforce=restricted";
    kubectl(&["label", "namespace", namespace, label]).await;
    let (wait, account) = ("--for=create", "serviceaccount/default");
    kubectl(&["-n", namespace, "wait", wait, account, "--timeout=30s"]).await;
    let manifests = render(namespace, &json!({"crds": {"enabled": false}})).await;
    admitted(namespace, &manifests, "Deployment").await.unwrap();
    let refused = admitted(namespace, &manifests, "DaemonSet").await.unwrap_err();
    for reason in ["hostPath", "runAsNonRoot"] {
        assert!(refused.contains(reason), "{refused}");
    }
    for none in [
        "allowPrivilegeEscalation",
        "capabilities",
        "seccompProfile",
        "hostNetwork",
        "host ports",
    ] {
        assert!(!refused.contains(none), "{refused}");
    }
}
