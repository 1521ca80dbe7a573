//! The pods of scripts, as the cluster has them now: those with the label of managed scripts, and those of adopted
//! Deployments.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    core::PartialObjectMeta,
    runtime::{
        reflector::{ObjectRef, Store},
        watcher::Event,
    },
};

use super::claims::Place;

/// All of them. Clones share it.
#[derive(Clone, Debug)]
pub struct ScriptPods {
    labelled: Store<Pod>,
    others: Arc<Mutex<Others>>,
}

#[derive(Debug, Default)]
struct Others {
    /// Pods of Deployments that are adopted.
    adopted: HashMap<ObjectRef<Pod>, Arc<Pod>>,
    /// Every pod of any Deployment: namespaces by UID. Whether one exists is known before all about it is.
    present: HashMap<String, String>,
    listed: HashSet<String>,
}

impl ScriptPods {
    /// Those with the label, and no others yet.
    pub fn new(labelled: Store<Pod>) -> Self {
        Self {
            labelled,
            others: Arc::default(),
        }
    }

    /// The pod of this name.
    pub fn get(&self, place: &ObjectRef<Pod>) -> Option<Arc<Pod>> {
        let labelled = self.labelled.get(place);
        labelled.or_else(|| self.others().adopted.get(place).cloned())
    }

    /// All of them.
    pub fn state(&self) -> Vec<Arc<Pod>> {
        self.state_filter(|_| true)
    }

    /// Those for which `wanted` holds.
    pub fn state_filter(&self, wanted: impl Fn(&Pod) -> bool) -> Vec<Arc<Pod>> {
        let mut pods = self.labelled.state_filter(&wanted);
        let others = self.others();
        let adopted = others.adopted.values().filter(|pod| wanted(pod));
        pods.extend(adopted.cloned());
        pods
    }

    /// Those with the label of managed scripts.
    pub fn labelled(&self) -> &Store<Pod> {
        &self.labelled
    }

    /// Those of a Deployment, by what they say.
    pub fn of_deployment(&self, place: &Place) -> Vec<Arc<Pod>> {
        let others = self.others();
        let pods = others.adopted.values();
        pods.filter(|pod| Place::claimed_by(&pod.metadata).as_ref() == Some(place))
            .cloned()
            .collect()
    }

    /// Whether a pod of a Deployment exists.
    pub fn is_present(&self, uid: &str) -> bool {
        self.others().present.contains_key(uid)
    }

    /// Every pod of any Deployment, labelled or not, that is known to exist: UIDs by namespace.
    pub fn present(&self) -> HashMap<String, Vec<String>> {
        let mut present: HashMap<String, Vec<String>> = HashMap::new();
        for pod in self.labelled.state() {
            if let (Some(namespace), Some(uid)) = (&pod.metadata.namespace, &pod.metadata.uid) {
                present.entry(namespace.clone()).or_default().push(uid.clone());
            }
        }
        for (uid, namespace) in &self.others().present {
            present.entry(namespace.clone()).or_default().push(uid.clone());
        }
        present
    }

    /// Keeps a pod of an adopted Deployment.
    pub(super) fn put(&self, pod: Pod) {
        self.others()
            .adopted
            .insert(ObjectRef::from_obj(&pod), Arc::new(pod));
    }

    /// Lets go of a pod of an adopted Deployment.
    pub(super) fn remove(&self, pod: &Pod) {
        let mut others = self.others();
        let place = ObjectRef::from_obj(pod);
        if others
            .adopted
            .get(&place)
            .is_some_and(|kept| kept.metadata.uid == pod.metadata.uid)
        {
            others.adopted.remove(&place);
        }
    }

    /// Lets go of those of a Deployment for which `keep` does not hold.
    pub(super) fn retain(&self, place: &Place, keep: impl Fn(&Pod) -> bool) -> Vec<Arc<Pod>> {
        let mut gone = Vec::new();
        self.others().adopted.retain(|_, pod| {
            let stays = Place::claimed_by(&pod.metadata).as_ref() != Some(place) || keep(pod);
            if !stays {
                gone.push(pod.clone());
            }
            stays
        });
        gone
    }

    /// An event about any pod.
    pub(super) fn note_any(&self, event: &Event<PartialObjectMeta<Pod>>) {
        let mut others = self.others();
        match event {
            Event::Init => others.listed.clear(),
            Event::InitDone => {
                let listed = std::mem::take(&mut others.listed);
                others.present.retain(|uid, _| listed.contains(uid));
            }
            Event::Apply(pod) | Event::InitApply(pod) => {
                if let (Some(place), Some(uid)) = (Place::claimed_by(&pod.metadata), &pod.metadata.uid) {
                    if matches!(event, Event::InitApply(_)) {
                        others.listed.insert(uid.clone());
                    }
                    others.present.insert(uid.clone(), place.namespace);
                }
            }
            Event::Delete(pod) => {
                let uid = pod.metadata.uid.as_ref();
                uid.and_then(|uid| others.present.remove(uid));
            }
        }
    }

    fn others(&self) -> MutexGuard<'_, Others> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn meta(name: &str) -> Value {
        json!({"name": name, "namespace": "shop", "uid": name, "labels": {"pod-template-hash": "5d9"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d9", "uid": "r", "controller": true}]})
    }

    fn pod(name: &str) -> Pod {
        serde_json::from_value(json!({"metadata": meta(name)})).unwrap()
    }

    fn any(name: &str) -> PartialObjectMeta<Pod> {
        serde_json::from_value(json!({"metadata": meta(name)})).unwrap()
    }

    #[test]
    fn adopted_pods_stand_beside_the_labelled_ones() {
        let (store, mut writer) = kube::runtime::reflector::store::<Pod>();
        let mut managed = pod("m");
        managed.metadata.labels = Some([(crate::api::labels::SCRIPT.to_owned(), "q".to_owned())].into());
        writer.apply_watcher_event(&Event::Apply(managed));
        let pods = ScriptPods::new(store);
        pods.put(pod("a"));
        pods.put(pod("b"));
        let place = Place {
            namespace: "shop".into(),
            deployment: "web".into(),
        };
        assert_eq!(pods.state().len(), 3);
        assert_eq!(pods.of_deployment(&place).len(), 2);
        assert!(pods.get(&ObjectRef::new("a").within("shop")).is_some());
        // Another pod has the name by now.
        let mut before = pod("a");
        before.metadata.uid = Some("old".into());
        pods.remove(&before);
        assert_eq!(pods.of_deployment(&place).len(), 2);
        let gone = pods.retain(&place, |pod| pod.metadata.uid.as_deref() == Some("a"));
        assert_eq!(gone.len(), 1);
        assert_eq!(pods.state().len(), 2);
    }

    #[test]
    fn a_pod_is_known_to_exist_before_all_about_it_is() {
        let pods = ScriptPods::new(kube::runtime::reflector::store::<Pod>().0);
        pods.note_any(&Event::Init);
        pods.note_any(&Event::InitApply(any("a")));
        pods.note_any(&Event::InitApply(any("b")));
        pods.note_any(&Event::InitDone);
        assert!(pods.is_present("a") && pods.state().is_empty());
        assert_eq!(pods.present()["shop"].len(), 2);
        pods.note_any(&Event::Delete(any("a")));
        assert!(!pods.is_present("a"));
        // It went while nobody watched.
        pods.note_any(&Event::Init);
        pods.note_any(&Event::InitDone);
        assert!(!pods.is_present("b"));
    }
}
