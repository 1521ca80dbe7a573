//! What is known about pods, and when.

use serde_json::{Value, json};

use super::*;

fn any(uid: &str, labels_: &Value, annotations: &Value) -> PartialObjectMeta<Pod> {
    serde_json::from_value(json!({ "metadata": {
        "name": "x", "namespace": "shop", "uid": uid, "labels": labels_, "annotations": annotations
    } }))
    .unwrap()
}

#[test]
fn a_pod_is_unseen_until_it_was_observed() {
    let index = PodIndex::new(Scope::all());
    assert_eq!(index.knowledge("a"), Knowledge::Unseen);
    index.note_any(&Event::InitApply(any("a", &json!({}), &json!({}))));
    assert_eq!(index.knowledge("a"), Knowledge::NotAScript);
    // The label alone neither lets a pod in nor keeps it out.
    index.note_any(&Event::Apply(any(
        "b",
        &json!({ labels::SCRIPT: "q" }),
        &json!({}),
    )));
    assert_eq!(index.knowledge("b"), Knowledge::Unseen);
    index.add_script("b", "script");
    assert_eq!(index.knowledge("b"), Knowledge::Script);
}

#[test]
fn a_static_pod_is_known_by_the_uid_that_its_node_uses() {
    let index = PodIndex::new(Scope::all());
    index.note_any(&Event::Apply(any(
        "mirror",
        &json!({}),
        &json!({ MIRROR: "0123abcd" }),
    )));
    assert_eq!(index.knowledge("0123abcd"), Knowledge::NotAScript);
}

#[test]
fn nothing_is_stored_from_namespaces_that_are_not_watched() {
    let index = PodIndex::new(Scope::namespace("shop"));
    assert!(index.watches("shop") && !index.watches("other"));
    assert_eq!(index.knowledge("a"), Knowledge::Unseen);
}

#[test]
fn a_pod_that_went_is_remembered_for_a_while() {
    let index = PodIndex::new(Scope::all());
    let pod: Pod =
        serde_json::from_value(json!({ "metadata": { "name": "x", "namespace": "shop", "uid": "a" } }))
            .unwrap();
    assert!(index.note_labelled(&Event::Apply(pod.clone())).is_some());
    index.add_script("a", "script");
    assert!(index.note_labelled(&Event::Apply(pod.clone())).is_none());
    index.note_labelled(&Event::Delete(pod));
    index.forget(&HashSet::new());
    assert_eq!(index.knowledge("a"), Knowledge::Script);
    assert!(index.gone("a").is_some());
}
#[test]
fn a_pod_that_went_unseen_is_forgotten_after_the_next_list() {
    let index = PodIndex::new(Scope::all());
    index.note_any(&Event::Apply(any("a", &json!({}), &json!({}))));
    index.note_any(&Event::Apply(any("b", &json!({}), &json!({}))));
    index.note_any(&Event::Init);
    index.note_any(&Event::InitApply(any("b", &json!({}), &json!({}))));
    index.note_any(&Event::InitDone);
    let leaving: Vec<_> = index.lock().leaving.iter().map(|(_, uid)| uid.clone()).collect();
    assert_eq!(leaving, ["a"]);
}

// --- pods of adopted Deployments

fn web() -> Place {
    Place {
        namespace: "shop".into(),
        deployment: "web".into(),
    }
}

fn adopted_by(name: &str) -> Claims {
    let script: crate::api::CustomScript = serde_json::from_value(json!({
        "apiVersion": "scriptscope.dev/v1alpha1", "kind": "CustomScript",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"workload": {"deploymentRef": {"name": "web"}}}
    }))
    .unwrap();
    Claims::of([&script])
}

fn of_web(uid: &str) -> Pod {
    serde_json::from_value(json!({"metadata": {
        "name": uid, "namespace": "shop", "uid": uid, "labels": {"pod-template-hash": "5d9"},
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d9", "uid": "r", "controller": true}]
    }}))
    .unwrap()
}

fn seen(index: &PodIndex, pod: &Pod) {
    let meta = serde_json::from_value(json!({ "metadata": pod.metadata })).unwrap();
    index.note_any(&Event::Apply(meta));
}

#[test]
fn a_pod_of_an_adopted_deployment_is_unseen_until_its_version_is_known() {
    let index = PodIndex::new(Scope::all());
    let (before, after) = (of_web("before"), of_web("after"));
    seen(&index, &before);
    assert_eq!(index.knowledge("before"), Knowledge::NotAScript);
    index.reconsider(&before);
    assert_eq!(
        index.knowledge("before"),
        Knowledge::NotAScript,
        "nobody adopts it"
    );
    index.claim(adopted_by("q"));
    seen(&index, &after);
    assert_eq!(index.knowledge("after"), Knowledge::Unseen);
    index.reconsider(&before);
    assert_eq!(index.knowledge("before"), Knowledge::Unseen);
    index.add_adopted("after", "app", web(), ScriptKey::new("shop", "q"));
    assert_eq!(index.knowledge("after"), Knowledge::Script);
    assert_eq!(index.container("after").as_deref(), Some("app"));
}

#[test]
fn what_a_pod_prints_is_stored_as_long_as_its_script_adopts_the_deployment() {
    let index = PodIndex::new(Scope::all());
    let q = ScriptKey::new("shop", "q");
    index.claim(adopted_by("q"));
    index.add_adopted("a", "app", web(), q.clone());
    // As while the operator starts: the store may know it.
    assert!(index.is_collected("a") && index.is_collected("unseen"));
    index.claim(adopted_by("other"));
    assert!(!index.is_collected("a"));
    // Found out a moment too late.
    index.add_adopted("b", "app", web(), q);
    assert_eq!(index.knowledge("b"), Knowledge::Unseen);
    // A managed script's pod is read to its end, whatever has become of the script.
    index.add_other("m", true);
    assert!(index.is_collected("m"));
}

#[test]
fn an_adopted_pods_end_is_that_of_its_container() {
    let index = PodIndex::new(Scope::all());
    let mut pod = of_web("a");
    pod.status = Some(
        serde_json::from_value(json!({"phase": "Failed", "containerStatuses": [
            {"name": "script", "image": "", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
            {"name": "app", "image": "", "imageID": "", "ready": false, "restartCount": 2,
             "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}))
        .unwrap(),
    );
    index.note_adopted(&Event::Delete(pod), Some("app"));
    let gone = index.gone("a").unwrap();
    assert_eq!(gone.ending.unwrap().reason, "OOMKilled");
    assert_eq!(gone.instances, Some(3));
}
