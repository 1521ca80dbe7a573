//! What the pods of a script and its Deployment say about a rollout. Pure.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::ResourceExt;

use super::source::{DEPENDENCIES, FETCH};
use crate::{api::labels, model::ScriptKey, operator::script_pods::ScriptPods};

/// A pod that is told to end is called no more after so long; times of pods have whole seconds.
const UNLISTED_AFTER: SignedDuration = SignedDuration::from_secs(2);

/// The pods of a script. Whoever gives a pod the label without a replica set of the script's name counts for nothing.
pub fn pods_of(pods: &ScriptPods, key: &ScriptKey) -> Vec<Arc<Pod>> {
    let prefix = format!("{}-", key.name);
    pods.labelled().state_filter(|pod| {
        pod.metadata.namespace.as_ref() == Some(&key.namespace)
            && pod.labels().get(labels::SCRIPT) == Some(&key.name)
            && pod
                .owner_references()
                .iter()
                .any(|owner| owner.kind == "ReplicaSet" && owner.name.starts_with(&prefix))
    })
}

pub fn of_version(pods: &[Arc<Pod>], version: i64) -> Vec<&Pod> {
    pods.iter()
        .map(AsRef::as_ref)
        .filter(|pod| version_label(pod) == Some(version))
        .collect()
}

pub fn version_label(pod: &Pod) -> Option<i64> {
    pod.labels().get(labels::VERSION)?.parse().ok()
}

/// Since when a pod is ready; none if it is not or is on its way out.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions
        .iter()
        .find(|c| c.type_ == "Ready" && c.status == "True")?;
    Some(
        ready
            .last_transition_time
            .as_ref()
            .map_or(Timestamp::MIN, |t| t.0),
    )
}

/// When a step that brings files or packages was last at work in its first try; now, if one is.
pub fn prepared<'a>(pods: impl IntoIterator<Item = &'a Pod>, now: Timestamp) -> Option<Timestamp> {
    let statuses = pods
        .into_iter()
        .filter_map(|pod| pod.status.as_ref()?.init_container_statuses.as_ref());
    let steps = statuses
        .flatten()
        .filter(|step| [FETCH, DEPENDENCIES].contains(&step.name.as_str()));
    let at_work = steps.filter_map(|step| {
        let state = step.state.as_ref()?;
        match (&state.running, &state.terminated) {
            (Some(_), _) if step.restart_count == 0 => Some(now),
            (_, Some(end)) if end.exit_code == 0 => end.finished_at.as_ref().map(|time| time.0),
            _ => None,
        }
    });
    at_work.max()
}

/// Whether calls may reach a pod. The nodes hear of a pod's end a moment later.
pub fn is_called(pod: &Pod, now: Timestamp) -> bool {
    match &pod.metadata.deletion_timestamp {
        None => ready_since(pod).is_some(),
        Some(deadline) => {
            let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
            let told = deadline.0 - SignedDuration::from_secs(grace);
            now < told + UNLISTED_AFTER
        }
    }
}

pub fn is_stuck(deployment: &Deployment) -> bool {
    let conditions = deployment.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|c| c.type_ == "Progressing" && c.status == "False")
}

/// A pod that ended and stays for a look (an evicted one) is not waited for; one that is being deleted is.
pub fn is_left_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && matches!(phase, Some("Succeeded" | "Failed"))
}

pub fn ready_by_version(pods: &[Arc<Pod>]) -> BTreeMap<i64, usize> {
    let mut ready = BTreeMap::new();
    for pod in pods.iter().filter(|pod| ready_since(pod).is_some()) {
        if let Some(version) = version_label(pod) {
            *ready.entry(version).or_default() += 1;
        }
    }
    ready
}

pub fn is_rolled_out(deployment: &Deployment) -> bool {
    let wanted = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    deployment.status.as_ref().is_some_and(|status| {
        status.observed_generation >= deployment.metadata.generation
            && status.replicas == Some(wanted)
            && status.updated_replicas == Some(wanted)
            && status.available_replicas == Some(wanted)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::operator::custom_script::fixtures::{pod, ready, waiting};

    #[test]
    fn pods_are_counted_by_version_and_only_while_they_can_be_called() {
        let mut leaving = pod(1, &ready());
        leaving.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2025-05-14T12:00:00Z")).unwrap());
        let pods: Vec<_> = [
            pod(1, &ready()),
            leaving,
            pod(2, &waiting("CrashLoopBackOff", "")),
            pod(2, &ready()),
            pod(2, &ready()),
        ]
        .map(Arc::new)
        .into();
        assert_eq!(ready_by_version(&pods), [(1, 1), (2, 2)].into());
        assert_eq!(of_version(&pods, 2).len(), 3);
    }

    #[test]
    fn a_pod_that_was_just_told_to_end_may_still_be_called() {
        let mut pod = pod(1, &ready());
        let at = |text: &str| -> Timestamp { format!("2025-05-14T12:{text}Z").parse().unwrap() };
        assert!(is_called(&pod, at("05:00")));
        pod.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2025-05-14T12:06:30Z")).unwrap());
        pod.metadata.deletion_grace_period_seconds = Some(90);
        assert!(is_called(&pod, at("05:01.9")));
        assert!(!is_called(&pod, at("05:02")));
    }

    #[test]
    fn steps_count_as_long_as_they_are_at_work_as_they_should_be() {
        let now: Timestamp = "2025-05-14T12:30:00Z".parse().unwrap();
        let end: Timestamp = "2025-05-14T12:10:00Z".parse().unwrap();
        let of = |name: &str, restarts: i32, state: serde_json::Value| {
            let pod = pod(
                1,
                &json!({ "initContainerStatuses": [{
                "name": name, "image": "", "imageID": "", "ready": false, "restartCount": restarts, "state": state
            }] }),
            );
            prepared([&pod], now)
        };
        let running = || json!({ "running": { "startedAt": "2025-05-14T12:00:00Z" } });
        let ended =
            |code: i32| json!({ "terminated": { "exitCode": code, "finishedAt": "2025-05-14T12:10:00Z" } });
        assert_eq!(of("dependencies", 0, running()), Some(now));
        assert_eq!(of("fetch", 0, ended(0)), Some(end));
        assert_eq!(of("fetch", 0, ended(1)), None);
        assert_eq!(of("fetch", 2, running()), None, "it fails again and again");
        assert_eq!(of("install", 0, running()), None);
    }

    #[test]
    fn a_rollout_is_over_when_every_pod_is_new_and_available() {
        let deployment = |observed: i64, replicas: i32, updated: i32, available: i32| -> Deployment {
            serde_json::from_value(json!({
                "metadata": { "generation": 2 },
                "spec": { "replicas": 2, "selector": {}, "template": {} },
                "status": { "observedGeneration": observed, "replicas": replicas,
                            "updatedReplicas": updated, "availableReplicas": available }
            }))
            .unwrap()
        };
        assert!(is_rolled_out(&deployment(2, 2, 2, 2)));
        assert!(
            !is_rolled_out(&deployment(1, 2, 2, 2)),
            "not yet seen by its controller"
        );
        assert!(
            !is_rolled_out(&deployment(2, 3, 2, 2)),
            "an old pod is still there"
        );
        assert!(!is_rolled_out(&deployment(2, 2, 2, 1)), "a new pod is not ready");
    }
}
