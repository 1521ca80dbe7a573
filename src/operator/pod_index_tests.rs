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
