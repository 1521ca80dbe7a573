//! Deletes finished exports whose time is over.

use std::time::Duration;

use jiff::Timestamp;
use kube::{
    Api, Client,
    api::{DeleteParams, Preconditions},
};

use crate::{
    api::{ScriptExport, ScriptExportSpec, ScriptExportStatus},
    export::file::ExportKey,
    model::parse_age,
};

/// Time between two looks at the clock, which may be set meanwhile, and two attempts at a deletion.
const LOOK: Duration = Duration::from_mins(1);

/// When a finished export is to be deleted; none where it stays.
pub fn due(spec: &ScriptExportSpec, status: Option<&ScriptExportStatus>) -> Option<Timestamp> {
    let age = parse_age(spec.ttl_after_finished.as_deref()?).ok()?;
    let ended = status?.completed_at.as_ref()?;
    // Beyond the end of time it stays.
    ended.0.checked_add(age).ok()
}

/// Waits until an export is due, then deletes this very object.
pub async fn expire(client: Client, key: ExportKey, uid: String, due: Timestamp) {
    loop {
        let left = due.duration_since(Timestamp::now());
        if left.is_positive() {
            tokio::time::sleep(left.unsigned_abs().min(LOOK)).await;
            continue;
        }
        let api: Api<ScriptExport> = Api::namespaced(client.clone(), &key.namespace);
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::background()
        };
        match api.delete(&key.name, &params).await {
            Ok(_) => {
                tracing::info!(
                    namespace = key.namespace,
                    export = key.name,
                    "An export was deleted, ttlAfterFinished after its end."
                );
                return;
            }
            // Gone, or another of the same name.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => return,
            Err(error) => {
                tracing::warn!(namespace = key.namespace, export = key.name, %error, "A finished export could not be deleted.");
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn an_export_is_due_so_long_after_its_end() {
        let spec = |ttl: Option<&str>| -> ScriptExportSpec {
            serde_json::from_value(serde_json::json!({
                "scriptRef": {"name": "pay"}, "data": "Runs", "ttlAfterFinished": ttl,
            }))
            .unwrap()
        };
        let ended: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let status = ScriptExportStatus {
            completed_at: Some(Time(ended)),
            ..ScriptExportStatus::default()
        };
        assert_eq!(
            due(&spec(Some("7d")), Some(&status)),
            Some("2026-01-08T00:00:00Z".parse().unwrap())
        );
        assert_eq!(due(&spec(None), Some(&status)), None);
        assert_eq!(due(&spec(Some("7d")), None), None);
        assert_eq!(due(&spec(Some("9999999w")), Some(&status)), None);
    }
}
