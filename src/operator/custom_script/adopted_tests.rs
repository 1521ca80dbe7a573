//! Which Deployments are adopted, and which template of them is which version.

use super::*;
use crate::operator::custom_script::fixtures::{attempt, script, waiting};

const LONG: Duration = Duration::from_mins(5);

fn workload(container: Option<&str>) -> Workload {
    serde_json::from_value(json!({"deploymentRef": {"name": "web"}, "container": container})).unwrap()
}

fn deployment(more: &Value) -> Deployment {
    let mut object = json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "d", "generation": 3},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}}},
        "status": {"observedGeneration": 3, "replicas": 2}
    });
    merge(&mut object, more);
    serde_json::from_value(object).unwrap()
}

fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}

fn set(uid: &str, revision: u64, replicas: i32, containers: &[&str]) -> ReplicaSet {
    let containers: Vec<_> = containers
        .iter()
        .map(|name| json!({"name": name, "image": format!("{name}:1")}))
        .collect();
    serde_json::from_value(json!({
        "metadata": {"name": format!("web-{uid}"), "uid": uid, "annotations": {REVISION: revision.to_string()},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": true}]},
        "spec": {"replicas": replicas, "selector": {}, "template": {"spec": {"containers": containers}}},
        "status": {"replicas": replicas, "readyReplicas": replicas}
    }))
    .unwrap()
}

fn identity() -> Identity {
    Identity::new(
        &script().metadata,
        &workload(None),
        &deployment(&json!({})).metadata,
    )
}

fn names(sets: &[&ReplicaSet]) -> Vec<String> {
    sets.iter().filter_map(|set| set.metadata.uid.clone()).collect()
}

// --- what may be adopted

#[test]
fn neither_a_managed_scripts_deployment_nor_the_operators_own_is_adopted() {
    let why = |more: &Value| refusal(&deployment(more), "system").map(|failure| failure.to_string());
    assert_eq!(why(&json!({})), None);
    // Somebody else's operator may own it.
    let owner = |api: &str, kind: &str| {
        json!({"metadata": {"ownerReferences": [
        {"apiVersion": api, "kind": kind, "name": "q", "uid": "x", "controller": true}]}})
    };
    assert_eq!(why(&owner("argoproj.io/v1alpha1", "Rollout")), None);
    let managed = why(&owner("scriptscope.dev/v1alpha1", "CustomScript")).unwrap();
    assert!(
        managed.starts_with("WorkloadRefused: spec.workload.deploymentRef.name:")
            && managed.contains("CustomScript q"),
        "{managed}"
    );
    let chart = json!({"metadata": {"namespace": "system", "labels": {PART_OF.0: PART_OF.1}}});
    assert!(why(&chart).unwrap().contains("ScriptScope's own"));
    let label = json!({"metadata": {"labels": {PART_OF.0: PART_OF.1}}});
    assert_eq!(why(&label), None, "the label alone says nothing elsewhere");
    let forged = json!({"spec": {"template": {"metadata": {"labels": {labels::SCRIPT: "q"}}}}});
    let forged = why(&forged).unwrap();
    assert!(forged.contains("remove it from the pod template"), "{forged}");
}

#[test]
fn the_container_is_the_one_named_the_annotated_one_or_the_only_one() {
    let one = set("a", 1, 1, &["app"]);
    let two = set("a", 1, 1, &["app", "sidecar"]);
    let mut annotated = two.clone();
    annotated
        .spec
        .as_mut()
        .unwrap()
        .template
        .as_mut()
        .unwrap()
        .metadata =
        Some(serde_json::from_value(json!({"annotations": {DEFAULT_CONTAINER: "sidecar"}})).unwrap());
    assert_eq!(container(&workload(None), &one).unwrap(), "app");
    assert_eq!(container(&workload(Some("sidecar")), &two).unwrap(), "sidecar");
    assert_eq!(container(&workload(None), &annotated).unwrap(), "sidecar");
    assert_eq!(container(&workload(Some("app")), &annotated).unwrap(), "app");
    for (workload, set) in [(workload(None), two), (workload(Some("nope")), annotated)] {
        let wrong = container(&workload, &set).unwrap_err();
        assert_eq!(wrong.reason, reasons::WORKLOAD_CONTAINER);
        assert!(
            wrong.message.contains("spec.workload.container") && wrong.message.ends_with("app, sidecar"),
            "{wrong}"
        );
    }
}

// --- versions

#[test]
fn a_new_template_is_a_new_version_and_so_is_an_old_one_again_but_not_scaling() {
    let identity = identity();
    let version_1 = attempt(1, &identity.fingerprint(4), DeploymentState::Deployed);
    // Scaled: the same number of the template.
    let scaled = [set("a", 4, 7, &["app"])];
    assert_eq!(names(&identity.due(&scaled, Some(&version_1))), ["a"]);
    assert_eq!(
        identity.versions(&scaled, std::slice::from_ref(&version_1)),
        [("a".into(), 1)].into()
    );
    // A new template, whose pods come while those of the old one go.
    let rolling = [set("a", 4, 1, &["app"]), set("b", 5, 1, &["app"])];
    assert_eq!(names(&identity.due(&rolling, Some(&version_1))), ["b"]);
    assert_eq!(
        identity.versions(&rolling, std::slice::from_ref(&version_1)),
        [("a".into(), 1)].into()
    );
    // Back: Kubernetes gives the old replica set the next number.
    let version_2 = attempt(2, &identity.fingerprint(5), DeploymentState::Deployed);
    let back = [set("a", 6, 1, &["app"]), set("b", 5, 1, &["app"])];
    assert_eq!(names(&identity.due(&back, Some(&version_2))), ["a"]);
    let attempts = [version_2, version_1];
    assert_eq!(
        identity.versions(&back, &attempts),
        [("b".into(), 2)].into(),
        "a has none yet"
    );
}

#[test]
fn a_deployment_that_is_adopted_in_the_midst_of_a_rollout_has_a_version_for_each_of_its_templates() {
    let identity = identity();
    let sets = [
        set("new", 12, 1, &["app"]),
        set("old", 3, 0, &["app"]),
        set("serving", 11, 3, &["app"]),
    ];
    assert_eq!(names(&identity.due(&sets, None)), ["serving", "new"]);
    // Versions of another object of this name, or of another Deployment, say nothing about these.
    let other = attempt(7, "0123-40", DeploymentState::Undeployed);
    assert_eq!(names(&identity.due(&sets, Some(&other))), ["serving", "new"]);
    let seen = attempt(8, &identity.fingerprint(11), DeploymentState::Deployed);
    assert_eq!(names(&identity.due(&sets, Some(&seen))), ["new"]);
    // One that came and went while no operator looked has no pods any more, and no version.
    assert_eq!(names(&identity.due(&sets[..2], Some(&other))), ["new"]);
    assert!(identity.due(&[], None).is_empty());
}

#[test]
fn versions_are_told_apart_by_script_deployment_container_and_template() {
    let meta = script().metadata;
    let of = |script: &ObjectMeta, workload: &Workload, deployment: &Deployment| {
        Identity::new(script, workload, &deployment.metadata).fingerprint(1)
    };
    let plain = deployment(&json!({}));
    let base = of(&meta, &workload(None), &plain);
    assert_eq!(
        base,
        of(
            &meta,
            &workload(None),
            &deployment(&json!({"metadata": {"labels": {"team": "x"}}, "spec": {"replicas": 9}}))
        )
    );
    let mut anew = meta.clone();
    anew.uid = Some("another".into());
    let others = [
        of(&anew, &workload(None), &plain),
        of(&meta, &workload(Some("app")), &plain),
        of(
            &meta,
            &workload(None),
            &deployment(&json!({"metadata": {"uid": "e"}})),
        ),
        identity().fingerprint(2),
    ];
    for other in others {
        assert_ne!(base, other);
    }
}

#[test]
fn a_pod_that_came_after_its_version_was_scaled_to_zero_belongs_to_the_next_one() {
    let identity = identity();
    let pod = |created: &str| -> ObjectMeta {
        serde_json::from_value(json!({"name": "p", "creationTimestamp": format!("2025-05-14T{created}Z")}))
            .unwrap()
    };
    let mut down = attempt(1, &identity.fingerprint(4), DeploymentState::Undeployed);
    down.ended_at = Some("2025-05-14T12:30:00Z".parse().unwrap());
    let current = set("a", 4, 1, &["app"]);
    let of = |created: &str, attempts: &[model::Deployment]| {
        let found = identity.attempt_of(&current, &pod(created), attempts);
        found.map(|attempt| attempt.version)
    };
    assert_eq!(
        of("12:29:00", std::slice::from_ref(&down)),
        Some(1),
        "what it printed last"
    );
    assert_eq!(of("12:31:00", std::slice::from_ref(&down)), None);
    let up = attempt(2, &identity.fingerprint(4), DeploymentState::Deploying);
    assert_eq!(of("12:31:00", &[up, down.clone()]), Some(2));
    // What a failed version prints says why it failed.
    let mut failed = attempt(1, &identity.fingerprint(4), DeploymentState::Failed);
    failed.ended_at = down.ended_at;
    assert_eq!(of("12:31:00", &[failed]), Some(1));
}

#[test]
fn what_is_written_down_of_a_version_holds_no_values_of_its_environment() {
    let mut current = set("a", 4, 1, &["app"]);
    let template = current.spec.as_mut().unwrap().template.as_mut().unwrap();
    template.spec.as_mut().unwrap().containers[0].env =
        Some(serde_json::from_value(json!([{"name": "TOKEN", "value": "hush"}])).unwrap());
    let written = recorded(&workload(None), &current);
    assert_eq!(written["revision"], 4);
    assert_eq!(written["images"], json!({"app": "app:1"}));
    assert!(!written.to_string().contains("hush"));
}

// --- rollouts that fail

fn stuck() -> Value {
    json!({"spec": {"progressDeadlineSeconds": 120}, "status": {"conditions": [
        {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]}})
}

fn pod(status: &Value) -> Pod {
    serde_json::from_value(
        json!({"metadata": {"name": "web-b-x", "namespace": "shop", "uid": "p"},
        "spec": {"containers": [{"name": "script"}]}, "status": status}),
    )
    .unwrap()
}

#[test]
fn an_image_that_does_not_come_fails_the_rollout_and_a_slow_start_does_not() {
    let calm = deployment(&json!({}));
    let of = |deployment: &Deployment, status: &Value, waited| {
        rollout_failure(deployment, [&pod(status)], waited)
            .map(|failure| (failure.reason.into_owned(), failure.message))
    };
    let pull = waiting("ImagePullBackOff", "not found");
    assert_eq!(of(&calm, &pull, Duration::from_secs(5)), None);
    assert_eq!(of(&calm, &pull, LONG).unwrap().0, reasons::IMAGE_PULL_FAILED);
    let (reason, message) = of(&calm, &waiting("InvalidImageName", ""), Duration::ZERO).unwrap();
    assert_eq!(reason, reasons::IMAGE_PULL_FAILED);
    assert!(message.contains("the Deployment's pod template"), "{message}");
    // A Deployment says itself how long its pods may take.
    let starting = json!({"phase": "Running"});
    assert_eq!(of(&calm, &starting, LONG), None);
    let (reason, message) = of(&deployment(&stuck()), &starting, LONG).unwrap();
    assert_eq!(reason, reasons::NOT_READY);
    assert!(
        message.starts_with("ProgressDeadlineExceeded") && message.contains("120 s"),
        "{message}"
    );
    // A node may still come.
    let unscheduled =
        json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]});
    assert_eq!(of(&calm, &unscheduled, LONG), None);
    assert_eq!(
        of(&deployment(&stuck()), &unscheduled, LONG).unwrap().0,
        reasons::UNSCHEDULABLE
    );
}

#[test]
fn a_crash_loop_names_the_deployments_memory_and_takes_no_exit_code_for_our_own() {
    let looping = |reason: &str, code: i32| {
        pod(&json!({"phase": "Running", "containerStatuses": [{
            "name": "script", "image": "", "imageID": "", "ready": false, "restartCount": 3,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": code, "reason": reason}}}]}))
    };
    let calm = deployment(&json!({}));
    let killed = rollout_failure(&calm, [&looping("OOMKilled", 137)], LONG).unwrap();
    assert_eq!(killed.reason, reasons::CRASH_LOOP);
    assert!(
        killed.message.contains("in the Deployment's pod template"),
        "{killed}"
    );
    let usage = rollout_failure(&calm, [&looping("Error", 78)], LONG).unwrap();
    assert_eq!(usage.reason, reasons::CRASH_LOOP);
    assert_eq!(
        rollout_failure(&calm, [&looping("Error", 78)], Duration::ZERO),
        None
    );
}

#[test]
fn a_deployment_says_whether_its_pods_are_wanted_and_kubernetes_knows() {
    assert!(is_settled(&deployment(&json!({}))) && !is_at_zero(&deployment(&json!({}))));
    assert!(!is_settled(&deployment(&json!({"metadata": {"generation": 4}}))));
    assert!(is_at_zero(&deployment(&json!({"spec": {"replicas": 0}}))));
    assert!(
        !is_at_zero(&deployment(&json!({"spec": {"replicas": null}}))),
        "one is the default"
    );
    assert!(is_of(&set("a", 1, 1, &[]), &deployment(&json!({})).metadata));
    let another = deployment(&json!({"metadata": {"uid": "e"}}));
    assert!(
        !is_of(&set("a", 1, 1, &[]), &another.metadata),
        "deleted and created anew"
    );
}
