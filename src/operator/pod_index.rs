//! The pods seen so far, in memory.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, core::PartialObjectMeta, runtime::watcher::Event};

use super::{
    Scope,
    claims::{Claims, Place},
    endings::Gone,
};
use crate::{api::labels, model::ScriptKey};

/// Annotation of the API's mirror of a static pod: the UID under which the node knows it.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// How long a pod is remembered after it is gone, for agents that still ask.
const REMEMBERED: Duration = Duration::from_mins(10);

/// What is known about a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// It is a script's, and the store knows it.
    Script,
    /// It is not.
    NotAScript,
    /// It has not been seen yet, or is being looked into.
    Unseen,
}

/// The pods seen so far.
#[derive(Debug)]
pub struct PodIndex {
    scope: Scope,
    pods: Mutex<Pods>,
}

#[derive(Debug, Default)]
struct Pods {
    /// UIDs that are a script's, and the container whose output is the script's.
    scripts: HashMap<String, String>,
    /// Who adopts which Deployment.
    claims: Claims,
    /// UIDs that are a script's since that one adopts their Deployment.
    adopted: HashMap<String, (Place, ScriptKey)>,
    /// UIDs that are not, and whether they have the label all the same.
    others: HashMap<String, bool>,
    /// UIDs of pods that are gone, in order, to be forgotten.
    leaving: VecDeque<(Instant, String)>,
    /// UIDs in a list that is not complete yet: of the pods with the label, and of all.
    listed_labelled: HashSet<String>,
    listed: HashSet<String>,
    /// Pods of scripts that are gone.
    gone: HashMap<String, Gone>,
    /// The nodes of pods with the label.
    nodes: HashMap<String, String>,
    /// Pods of scripts that are gone, and of which nothing more is expected.
    settled: HashSet<String>,
}

impl Pods {
    /// These pods are gone; forget them in a while.
    fn leave(&mut self, uids: impl IntoIterator<Item = String>) {
        let now = Instant::now();
        self.leaving.extend(uids.into_iter().map(|uid| (now, uid)));
    }
}

impl PodIndex {
    /// Nothing seen yet.
    pub fn new(scope: Scope) -> Self {
        Self {
            scope,
            pods: Mutex::default(),
        }
    }

    /// What is known about the pod with this UID. Waits for nothing.
    pub fn knowledge(&self, uid: &str) -> Knowledge {
        let pods = self.lock();
        if pods.scripts.contains_key(uid) {
            Knowledge::Script
        } else if pods.others.contains_key(uid) {
            Knowledge::NotAScript
        } else {
            Knowledge::Unseen
        }
    }

    /// The container of a script's pod whose output is the script's.
    pub fn container(&self, uid: &str) -> Option<String> {
        self.lock().scripts.get(uid).cloned()
    }

    /// Whether what the pod prints is stored, if the store knows it: not, once its Deployment is adopted no more. A pod with
    /// the label goes with its script, and is read to its end.
    pub fn is_collected(&self, uid: &str) -> bool {
        let pods = self.lock();
        pods.scripts.contains_key(uid) || pods.others.get(uid).is_none_or(|is_labelled| *is_labelled)
    }

    /// Whether pods of this namespace are watched at all; where not, no pod is a script's.
    pub fn watches(&self, namespace: &str) -> bool {
        self.scope.contains(namespace)
    }

    /// How a script's pod went, if that was observed.
    pub fn gone(&self, uid: &str) -> Option<Gone> {
        self.lock().gone.get(uid).cloned()
    }

    /// The pods of scripts (UIDs) that were seen to go, and are not settled.
    pub fn unsettled(&self) -> Vec<String> {
        let pods = self.lock();
        let unsettled = pods.gone.keys().filter(|uid| !pods.settled.contains(*uid));
        unsettled
            .filter(|uid| pods.scripts.contains_key(*uid))
            .cloned()
            .collect()
    }

    /// Nothing more is expected of a pod that is gone.
    pub fn settle(&self, uid: &str) {
        self.lock().settled.insert(uid.to_owned());
    }

    /// Whether the pod runs on this node, for all that is known.
    pub fn may_be_on(&self, uid: &str, node: &str) -> bool {
        self.lock().nodes.get(uid).is_none_or(|known| known == node)
    }

    /// Forgets pods that went long ago, except where `needed`.
    pub fn forget(&self, needed: &HashSet<String>) {
        let mut pods = self.lock();
        while pods
            .leaving
            .front()
            .is_some_and(|(at, _)| at.elapsed() > REMEMBERED)
        {
            if let Some((_, uid)) = pods.leaving.pop_front() {
                pods.scripts.remove(&uid);
                pods.others.remove(&uid);
                pods.nodes.remove(&uid);
                pods.settled.remove(&uid);
                pods.adopted.remove(&uid);
            }
        }
        let Pods { gone, scripts, .. } = &mut *pods;
        gone.retain(|uid, _| needed.contains(uid) || scripts.contains_key(uid));
    }

    pub(super) fn is_known(&self, uid: &str) -> bool {
        let pods = self.lock();
        pods.scripts.contains_key(uid) || pods.others.contains_key(uid)
    }

    pub(super) fn is_gone(&self, uid: &str) -> bool {
        self.lock().gone.contains_key(uid)
    }

    pub(super) fn add_script(&self, uid: &str, container: &str) {
        self.lock().scripts.insert(uid.to_owned(), container.to_owned());
    }

    /// The pod is of an adopted Deployment, if that script still adopts it.
    pub(super) fn add_adopted(&self, uid: &str, container: &str, place: Place, script: ScriptKey) {
        let mut pods = self.lock();
        if pods.claims.holder(&place) == Some(&script) {
            pods.scripts.insert(uid.to_owned(), container.to_owned());
            pods.adopted.insert(uid.to_owned(), (place, script));
        }
    }

    /// Who adopts what from now on. What pods print whose Deployment is not the same script's any more is stored no longer.
    pub(super) fn claim(&self, claims: Claims) {
        let mut pods = self.lock();
        let Pods {
            scripts,
            others,
            adopted,
            ..
        } = &mut *pods;
        adopted.retain(|uid, (place, script)| {
            let stays = claims.holder(place) == Some(script);
            if !stays {
                scripts.remove(uid);
                others.insert(uid.clone(), false);
            }
            stays
        });
        pods.claims = claims;
    }

    /// A pod of a Deployment that is adopted now and was not before is to be looked into.
    pub(super) fn reconsider(&self, pod: &Pod) {
        let mut pods = self.lock();
        if let Some(uid) = &pod.metadata.uid
            && pods.claims.of_pod(&pod.metadata).is_some()
        {
            pods.others.remove(uid);
        }
    }

    /// An event about a pod of a Deployment that a script adopts; `container` is the script's, as far as known.
    pub(super) fn note_adopted(&self, event: &Event<Pod>, container: Option<&str>) {
        match event {
            Event::Apply(pod) | Event::InitApply(pod) => {
                if let Some(uid) = pod.metadata.uid.as_deref() {
                    self.note_node(uid, pod);
                }
            }
            Event::Delete(pod) => {
                if let Some(uid) = pod.metadata.uid.clone() {
                    self.note_gone(uid, pod, container);
                }
            }
            Event::Init | Event::InitDone => {}
        }
    }

    fn note_gone(&self, uid: String, pod: &Pod, container: Option<&str>) {
        let mut pods = self.lock();
        let known = pods.scripts.get(&uid).map(String::as_str);
        let container = known.or(container).unwrap_or(labels::CONTAINER);
        let gone = Gone::seen(pod, container, Timestamp::now());
        pods.leave([uid.clone()]);
        pods.gone.insert(uid, gone);
    }

    pub(super) fn add_other(&self, uid: &str, is_labelled: bool) {
        self.lock().others.insert(uid.to_owned(), is_labelled);
    }

    fn lock(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An event about any pod, of which only the metadata is known.
    pub(super) fn note_any(&self, event: &Event<PartialObjectMeta<Pod>>) {
        let pod = match event {
            Event::Apply(pod) | Event::InitApply(pod) | Event::Delete(pod) => pod,
            Event::Init => return self.lock().listed.clear(),
            Event::InitDone => {
                let mut pods = self.lock();
                let listed = std::mem::take(&mut pods.listed);
                let known = pods.others.keys().chain(pods.adopted.keys());
                let missed: Vec<_> = known.filter(|uid| !listed.contains(*uid)).cloned().collect();
                return pods.leave(missed);
            }
        };
        let mirrored = pod.annotations().get(MIRROR);
        for uid in pod.metadata.uid.iter().chain(mirrored) {
            if matches!(event, Event::InitApply(_)) {
                self.lock().listed.insert(uid.clone());
            }
            if matches!(event, Event::Delete(_)) {
                self.lock().leave([uid.clone()]);
            } else if !pod.labels().contains_key(labels::SCRIPT) && !self.may_be_adopted(pod) {
                self.add_other(uid, false);
            }
        }
    }

    fn may_be_adopted(&self, pod: &PartialObjectMeta<Pod>) -> bool {
        self.lock().claims.of_pod(&pod.metadata).is_some()
    }

    fn note_node(&self, uid: &str, pod: &Pod) {
        let mut pods = self.lock();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
        // It never changes once it is set.
        if let Some(node) = node
            && !pods.nodes.contains_key(uid)
        {
            pods.nodes.insert(uid.to_owned(), node.clone());
        }
    }

    /// An event about a pod with the label; returns the pod if it is to be identified.
    pub(super) fn note_labelled(&self, event: &Event<Pod>) -> Option<Pod> {
        match event {
            Event::Apply(pod) | Event::InitApply(pod) => {
                let uid = pod.metadata.uid.as_deref()?;
                self.note_node(uid, pod);
                if matches!(event, Event::InitApply(_)) {
                    self.lock().listed_labelled.insert(uid.to_owned());
                }
                (!self.is_known(uid)).then(|| pod.clone())
            }
            Event::Delete(pod) => {
                self.note_gone(pod.metadata.uid.clone()?, pod, None);
                None
            }
            Event::Init => {
                self.lock().listed_labelled.clear();
                None
            }
            Event::InitDone => {
                let mut pods = self.lock();
                let listed = std::mem::take(&mut pods.listed_labelled);
                let known = pods.scripts.keys().filter(|uid| !pods.adopted.contains_key(*uid));
                let missed: Vec<_> = known.filter(|uid| !listed.contains(*uid)).cloned().collect();
                pods.leave(missed);
                None
            }
        }
    }
}

#[cfg(test)]
#[path = "pod_index_tests.rs"]
mod tests;
