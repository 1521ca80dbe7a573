//! Objects for the tests of this controller.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::fingerprint::Files;
use crate::{
    api::CustomScript,
    model::{Deployment, DeploymentState},
};

/// A `CustomScript` as the API server hands it out.
pub fn script() -> CustomScript {
    serde_json::from_value(json!({
        "apiVersion": "scriptscope.dev/v1alpha1",
        "kind": "CustomScript",
        "metadata": { "name": "qbalance", "namespace": "shop", "uid": "uid-1", "generation": 4 },
        "spec": { "runtime": "python", "source": { "inline": { "main.py": "def check(a): return 1" } } }
    }))
    .unwrap()
}

/// Its files.
pub fn files() -> Files {
    Files {
        text: [("main.py".to_owned(), "def check(a): return 1".to_owned())].into(),
        ..Files::default()
    }
}

/// An attempt that began at noon.
pub fn attempt(version: i64, fingerprint: &str, state: DeploymentState) -> Deployment {
    Deployment {
        version,
        deployment_id: format!("deploy-{version}"),
        state,
        reason: None,
        fingerprint: fingerprint.to_owned(),
        started_at: "2025-05-14T12:00:00Z".parse().unwrap(),
        deployed_at: None,
        ended_at: None,
        changed_by: None,
        change: None,
        spec_kept: false,
    }
}

/// A pod of a version. `status` is the pod's status.
pub fn pod(version: i64, status: &Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": format!("qbalance-{version}-x"), "namespace": "shop", "uid": format!("pod-{version}"),
            "labels": {
                "scriptscope.dev/script": "qbalance",
                "scriptscope.dev/version": version.to_string(),
                "scriptscope.dev/deployment-id": format!("deploy-{version}"),
            }
        },
        "spec": { "containers": [{ "name": "script", "image": "python:3" }] },
        "status": status
    }))
    .unwrap()
}

/// Status of a pod that is ready since a minute past noon.
pub fn ready() -> Value {
    json!({
        "phase": "Running",
        "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2025-05-14T12:01:00Z" }]
    })
}

/// Status of a pod whose container `script` waits.
pub fn waiting(reason: &str, message: &str) -> Value {
    json!({
        "phase": "Pending",
        "containerStatuses": [{
            "name": "script", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "waiting": { "reason": reason, "message": message } }
        }]
    })
}
