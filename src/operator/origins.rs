//! From a pod's owner reference to the script whose pod it is. Pure.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use k8s_openapi::{
    api::apps::v1::{Deployment, ReplicaSet},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::Resource;

use crate::api::{CustomScript, labels};

/// Replica sets whose origin is remembered.
const ORIGINS: usize = 4_096;

/// What the pods of a replica set run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Name of the script.
    pub script: String,
    /// Version.
    pub version: i64,
    /// Deployment.
    pub deployment_id: String,
}

/// Follows the owners from the reference in the pod to the script.
pub fn origin(
    reference: &OwnerReference,
    set: &ReplicaSet,
    deployment: &ObjectMeta,
    script: &ObjectMeta,
) -> Option<Origin> {
    let is = |reference: &OwnerReference, meta: &ObjectMeta| {
        Some(&reference.uid) == meta.uid.as_ref() && Some(&reference.name) == meta.name.as_ref()
    };
    let chained = is(reference, &set.metadata)
        && is(controller(&set.metadata, &kind::<Deployment>())?, deployment)
        && is(controller(deployment, &kind::<CustomScript>())?, script)
        && deployment.name == script.name;
    let template = set.spec.as_ref()?.template.as_ref()?;
    let labels_ = template.metadata.as_ref()?.labels.as_ref()?;
    chained.then_some(Origin {
        script: script.name.clone()?,
        version: labels_.get(labels::VERSION)?.parse().ok()?,
        deployment_id: labels_.get(labels::DEPLOYMENT_ID)?.clone(),
    })
}

/// `apiVersion` and `kind`.
pub fn kind<K: Resource<DynamicType = ()>>() -> (String, String) {
    (K::api_version(&()).into_owned(), K::kind(&()).into_owned())
}

/// The owner of this kind that controls the object.
pub fn controller<'a>(meta: &'a ObjectMeta, kind: &(String, String)) -> Option<&'a OwnerReference> {
    meta.owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true) && owner.api_version == kind.0 && owner.kind == kind.1)
}

/// Origins by the UID of the replica set, which never change.
#[derive(Default)]
pub struct Origins(Mutex<HashMap<String, Known>>);

/// None for a replica set that is no script's.
pub type Known = Option<Origin>;

impl Origins {
    /// What is remembered, if anything is.
    pub fn get(&self, uid: &str) -> Option<Known> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(uid)
            .cloned()
    }

    /// Remembers; forgets all at once when there are too many.
    pub fn put(&self, uid: &str, origin: Known) {
        let mut origins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if origins.len() >= ORIGINS {
            origins.clear();
        }
        origins.insert(uid.to_owned(), origin);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn meta(kind: &str, name: &str, uid: &str, owner: Option<(&str, &str, &str, &str)>) -> Value {
        let owners: Vec<Value> = owner
            .iter()
            .map(|(api, kind, name, uid)| {
                json!({ "apiVersion": api, "kind": kind, "name": name, "uid": uid, "controller": true })
            })
            .collect();
        json!({ "name": name, "uid": uid, "namespace": "shop", "ownerReferences": owners, "labels": { "kind": kind } })
    }

    struct Chain {
        reference: OwnerReference,
        set: ReplicaSet,
        deployment: ObjectMeta,
        script: ObjectMeta,
    }

    impl Chain {
        fn new() -> Self {
            let pod = meta("Pod", "q-1-x", "p", Some(("apps/v1", "ReplicaSet", "q-1", "r")));
            let set = json!({
                "metadata": meta("ReplicaSet", "q-1", "r", Some(("apps/v1", "Deployment", "q", "d"))),
                "spec": { "selector": {}, "template": { "metadata": { "labels": {
                    labels::VERSION: "7", labels::DEPLOYMENT_ID: "deploy-7"
                } } } }
            });
            let api = "scriptscope.dev/v1alpha1";
            let deployment = meta("Deployment", "q", "d", Some((api, "CustomScript", "q", "s")));
            let pod: ObjectMeta = serde_json::from_value(pod).unwrap();
            Self {
                reference: pod.owner_references.unwrap().remove(0),
                set: serde_json::from_value(set).unwrap(),
                deployment: serde_json::from_value(deployment).unwrap(),
                script: serde_json::from_value(meta("CustomScript", "q", "s", None)).unwrap(),
            }
        }

        fn origin(&self) -> Option<Origin> {
            origin(&self.reference, &self.set, &self.deployment, &self.script)
        }
    }

    #[test]
    fn a_pod_made_by_the_scripts_deployment_is_the_scripts() {
        let expected = Origin {
            script: "q".into(),
            version: 7,
            deployment_id: "deploy-7".into(),
        };
        assert_eq!(Chain::new().origin(), Some(expected));
    }

    #[test]
    fn a_break_anywhere_in_the_chain_lets_nothing_in() {
        type Break = fn(&mut Chain);
        let breaks: [Break; 6] = [
            |c| c.reference.uid = "forged".into(),
            |c| c.set.metadata.owner_references = None,
            |c| c.deployment.uid = Some("another".into()),
            |c| c.deployment.owner_references.as_mut().unwrap()[0].controller = None,
            |c| c.script.uid = Some("re-created".into()),
            |c| c.deployment.owner_references.as_mut().unwrap()[0].kind = "Widget".into(),
        ];
        for (index, break_) in breaks.into_iter().enumerate() {
            let mut chain = Chain::new();
            break_(&mut chain);
            assert_eq!(chain.origin(), None, "break {index}");
        }
    }
}
