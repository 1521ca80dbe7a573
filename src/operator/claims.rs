//! Which `CustomScript` adopts which Deployment. Pure.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::{
    api::apps::v1::{Deployment, ReplicaSet},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::origins::{controller, kind};
use crate::{
    api::{CustomScript, DesiredState, labels},
    model::ScriptKey,
};

/// Label by which Kubernetes tells the pods of one template of a Deployment from those of another.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// A Deployment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub deployment: String,
}

impl Place {
    /// The Deployment that a script names in `spec.workload`, if it does.
    pub fn named_by(script: &CustomScript) -> Option<Self> {
        Some(Self {
            namespace: script.metadata.namespace.clone()?,
            deployment: script.spec.workload.as_ref()?.deployment_ref.name.clone(),
        })
    }

    /// The Deployment that a pod says it is of. Anybody may say so: only owners' UIDs prove it.
    pub fn claimed_by(pod: &ObjectMeta) -> Option<Self> {
        let set = controller(pod, &kind::<ReplicaSet>())?;
        let labels_ = pod.labels.as_ref()?;
        if labels_.contains_key(labels::SCRIPT) {
            return None;
        }
        let name = set.name.strip_suffix(labels_.get(TEMPLATE_HASH)?)?;
        Some(Self {
            namespace: pod.namespace.clone()?,
            deployment: name.strip_suffix('-')?.to_owned(),
        })
    }

    /// Whether this is the Deployment.
    pub fn is(&self, deployment: &Deployment) -> bool {
        let meta = &deployment.metadata;
        meta.namespace.as_ref() == Some(&self.namespace) && meta.name.as_ref() == Some(&self.deployment)
    }
}

/// Who adopts what: of several that name one Deployment, the one that was created first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims(HashMap<Place, ScriptKey>);

impl Claims {
    /// The claims of these scripts. One that is to be undeployed or is being deleted has none.
    pub fn of<'a>(scripts: impl IntoIterator<Item = &'a CustomScript>) -> Self {
        let mut found: BTreeMap<Place, _> = BTreeMap::new();
        for script in scripts {
            let wanted = script.spec.desired_state == DesiredState::Deployed
                && script.metadata.deletion_timestamp.is_none();
            let (Some(place), Some(name), true) =
                (Place::named_by(script), script.metadata.name.clone(), wanted)
            else {
                continue;
            };
            let created = script.metadata.creation_timestamp.as_ref().map(|time| time.0);
            let claim = (created, name);
            let first = found.entry(place).or_insert_with(|| claim.clone());
            if claim < *first {
                *first = claim;
            }
        }
        let claims = found.into_iter().map(|(place, (_, name))| {
            let script = ScriptKey::new(place.namespace.clone(), name);
            (place, script)
        });
        Self(claims.collect())
    }

    /// Whose pods the Deployment's are.
    pub fn holder(&self, place: &Place) -> Option<&ScriptKey> {
        self.0.get(place)
    }

    /// Whose pod this may be.
    pub fn of_pod(&self, pod: &ObjectMeta) -> Option<(Place, &ScriptKey)> {
        if self.0.is_empty() {
            return None;
        }
        let place = Place::claimed_by(pod)?;
        let script = self.holder(&place)?;
        Some((place, script))
    }

    /// The Deployments that are not the same script's in both.
    pub fn changed<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a Place> {
        let differs = |place: &&Place| self.holder(place) != other.holder(place);
        let ours = self.0.keys().filter(differs);
        let only_theirs = |place: &&Place| self.holder(place).is_none();
        ours.chain(other.0.keys().filter(only_theirs))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn script(name: &str, deployment: &str, created: &str, more: &Value) -> CustomScript {
        let mut object = json!({
            "apiVersion": "scriptscope.dev/v1alpha1", "kind": "CustomScript",
            "metadata": {"name": name, "namespace": "shop", "creationTimestamp": created},
            "spec": {"workload": {"deploymentRef": {"name": deployment}}}
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            object["spec"][key] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    fn pod(set: &str, hash: &str, more: &Value) -> ObjectMeta {
        let mut labels_ = json!({"app": "web", "pod-template-hash": hash});
        for (key, value) in more.as_object().into_iter().flatten() {
            labels_[key] = value.clone();
        }
        serde_json::from_value(json!({"name": "p", "namespace": "shop", "uid": "u", "labels": labels_,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set, "uid": "r", "controller": true}]}))
        .unwrap()
    }

    fn web() -> Place {
        Place {
            namespace: "shop".into(),
            deployment: "web".into(),
        }
    }

    const EARLY: &str = "2026-01-02T03:04:05Z";
    const LATE: &str = "2026-01-02T03:04:06Z";

    #[test]
    fn the_script_that_was_created_first_adopts_and_the_next_one_after_it_is_gone() {
        let (first, second) = (
            script("z", "web", EARLY, &json!({})),
            script("a", "web", LATE, &json!({})),
        );
        let both = Claims::of([&second, &first]);
        assert_eq!(both.holder(&web()).unwrap().name, "z");
        let one = Claims::of([&second]);
        assert_eq!(one.holder(&web()).unwrap().name, "a");
        assert_eq!(both.changed(&one).collect::<Vec<_>>(), [&web()]);
        assert_eq!(Claims::default().changed(&one).collect::<Vec<_>>(), [&web()]);
        assert_eq!(both.changed(&both).count(), 0);
        // Within one second, by name, whatever the order.
        let same = [
            script("b", "web", EARLY, &json!({})),
            script("a", "web", EARLY, &json!({})),
        ];
        assert_eq!(Claims::of(&same).holder(&web()).unwrap().name, "a");
    }

    #[test]
    fn a_script_that_is_to_be_undeployed_claims_nothing() {
        let paused = script("a", "web", EARLY, &json!({"desiredState": "Undeployed"}));
        assert_eq!(Claims::of([&paused]), Claims::default());
        assert_eq!(Place::named_by(&paused), Some(web()));
    }

    #[test]
    fn a_pod_is_claimed_by_its_replica_sets_name_and_never_with_the_label_of_managed_pods() {
        let adopter = script("a", "web", EARLY, &json!({}));
        let claims = Claims::of([&adopter]);
        let of = |meta: &ObjectMeta| claims.of_pod(meta).map(|(_, script)| script.name.clone());
        assert_eq!(of(&pod("web-5d9", "5d9", &json!({}))).as_deref(), Some("a"));
        assert_eq!(
            of(&pod("web-api-5d9", "5d9", &json!({}))),
            None,
            "another Deployment"
        );
        assert_eq!(of(&pod("web-5d9", "777", &json!({}))), None);
        assert_eq!(of(&pod("web-5d9", "5d9", &json!({labels::SCRIPT: "q"}))), None);
        let mut elsewhere = pod("web-5d9", "5d9", &json!({}));
        elsewhere.namespace = Some("other".into());
        assert_eq!(of(&elsewhere), None);
    }
}
