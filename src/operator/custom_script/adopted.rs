//! A Deployment that exists and is only observed: what it may not be, which of its containers is the script's, and which
//! revision of it is which version. Pure.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::{Pod, PodSpec},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Resource;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    failure::{self, FAIL_AFTER, Failure, Fields},
    fingerprint::hex,
    rollout::is_stuck,
};
use crate::{
    api::{CustomScript, Workload, labels, reasons},
    model::{self, DeploymentState},
    operator::origins::{controller, kind},
};

/// Annotation of a pod template: the container that kubectl takes where none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// Annotation of a Deployment and its replica sets: the number of the template.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// Label of everything that the chart makes.
const PART_OF: (&str, &str) = ("app.kubernetes.io/part-of", "scriptscope");

/// How an adopted Deployment stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its pods are wanted; the attempts say the rest.
    Wanted,
    /// It can not be adopted.
    Refused(Failure),
    /// There is none of that name.
    Missing,
    /// Kubernetes has not yet taken in what was asked of it last.
    Unsettled,
    /// It is scaled to zero.
    AtZero,
    /// What it prints is not to be collected.
    Paused,
}

/// Why a Deployment can not be adopted, if so. `own_namespace` is the operator's.
pub fn refusal(deployment: &Deployment, own_namespace: &str) -> Option<Failure> {
    let meta = &deployment.metadata;
    let name = meta.name.as_deref().unwrap_or_default();
    let refuse = |why: String| {
        let message = format!("spec.workload.deploymentRef.name: Deployment {name} {why}");
        Some(Failure::new(reasons::WORKLOAD_REFUSED, message))
    };
    if let Some(owner) = controller(meta, &kind::<CustomScript>()) {
        return refuse(format!(
            "is what CustomScript {} runs, whose runs and logs are recorded already; name another one",
            owner.name
        ));
    }
    let has = |meta: &ObjectMeta, label: &str, value: &str| {
        let labels_ = meta.labels.as_ref();
        labels_.and_then(|l| l.get(label)).is_some_and(|v| v == value)
    };
    if meta.namespace.as_deref() == Some(own_namespace) && has(meta, PART_OF.0, PART_OF.1) {
        return refuse("is ScriptScope's own, which would log what it logs; name another one".to_owned());
    }
    let template = deployment.spec.as_ref().map(|spec| &spec.template);
    let template = template.and_then(|template| template.metadata.as_ref());
    let labels_ = template.and_then(|meta| meta.labels.as_ref());
    if labels_.is_some_and(|labels_| labels_.contains_key(labels::SCRIPT)) {
        return refuse(format!(
            "gives its pods the label {}, which is for the pods that ScriptScope makes; remove it from the pod template",
            labels::SCRIPT
        ));
    }
    None
}

/// A pod template, of which anything may be missing.
#[derive(Clone, Copy, Debug, Default)]
struct PodTemplate<'a> {
    metadata: Option<&'a ObjectMeta>,
    spec: Option<&'a PodSpec>,
}

impl<'a> PodTemplate<'a> {
    fn of(set: &'a ReplicaSet) -> Self {
        let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
        Self {
            metadata: template.and_then(|template| template.metadata.as_ref()),
            spec: template.and_then(|template| template.spec.as_ref()),
        }
    }

    fn containers(self) -> Vec<(&'a str, &'a str)> {
        let containers = self
            .spec
            .map(|spec| spec.containers.as_slice())
            .unwrap_or_default();
        containers
            .iter()
            .map(|c| (c.name.as_str(), c.image.as_deref().unwrap_or_default()))
            .collect()
    }
}

/// The container of a revision whose output is the script's.
pub fn container(workload: &Workload, set: &ReplicaSet) -> Result<String, Failure> {
    let template = PodTemplate::of(set);
    let containers = template.containers();
    let there = || {
        let names: Vec<_> = containers.iter().map(|(name, _)| *name).collect();
        names.join(", ")
    };
    let is_there = |wanted: &str| containers.iter().any(|(name, _)| *name == wanted);
    let name = &workload.deployment_ref.name;
    let wrong = |message: String| Err(Failure::new(reasons::WORKLOAD_CONTAINER, message));
    if let Some(wanted) = &workload.container {
        return if is_there(wanted) {
            Ok(wanted.clone())
        } else {
            wrong(format!(
                "spec.workload.container: the pods of Deployment {name} have no container {wanted}; there are: {}",
                there()
            ))
        };
    }
    let annotations = template.metadata.and_then(|meta| meta.annotations.as_ref());
    let default = annotations.and_then(|annotations| annotations.get(DEFAULT_CONTAINER));
    match (default.filter(|name| is_there(name)), containers.as_slice()) {
        (Some(default), _) => Ok(default.clone()),
        (None, [(only, _)]) => Ok((*only).to_owned()),
        (None, _) => wrong(format!(
            "spec.workload.container is missing: the pods of Deployment {name} have several containers; name the one whose \
             output is the script's: {}",
            there()
        )),
    }
}

/// The number of the template that a replica set makes pods of.
pub fn revision(set: &ReplicaSet) -> Option<u64> {
    set.metadata.annotations.as_ref()?.get(REVISION)?.parse().ok()
}

/// What a version of an adopted Deployment is told from others by: the script, the Deployment, the container asked for,
/// and the number of the template, which goes up also when Kubernetes goes back to an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity(String);

impl Identity {
    /// Of a Deployment as this script observes it.
    pub fn new(script: &ObjectMeta, workload: &Workload, deployment: &ObjectMeta) -> Self {
        let mut hash = Sha256::new();
        let container = workload.container.as_deref().unwrap_or_default();
        for part in [
            script.uid.as_deref().unwrap_or_default(),
            deployment.uid.as_deref().unwrap_or_default(),
            container,
        ] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hex(&hash.finalize()))
    }

    /// What the version of a template is stored under.
    pub fn fingerprint(&self, revision: u64) -> String {
        let mut text = self.0.clone();
        let _ = write!(text, "-{revision}");
        text
    }

    /// The template's number in a stored fingerprint, if it is of this Deployment.
    fn revision_in(&self, fingerprint: &str) -> Option<u64> {
        fingerprint.strip_prefix(&self.0)?.strip_prefix('-')?.parse().ok()
    }

    /// The versions of replica sets (by UID) among these attempts, which are in order, the newest first.
    pub fn versions(&self, sets: &[ReplicaSet], deployments: &[model::Deployment]) -> BTreeMap<String, i64> {
        let version = |set: &ReplicaSet| {
            let fingerprint = self.fingerprint(revision(set)?);
            let found = deployments.iter().find(|d| d.fingerprint == fingerprint)?;
            Some((set.metadata.uid.clone()?, found.version))
        };
        sets.iter().filter_map(version).collect()
    }

    /// The attempt that a pod of this template belongs to. None where it is yet to begin: after a Deployment was scaled to
    /// zero, the same template is the next version.
    pub fn attempt_of<'a>(
        &self,
        set: &ReplicaSet,
        pod: &ObjectMeta,
        deployments: &'a [model::Deployment],
    ) -> Option<&'a model::Deployment> {
        let fingerprint = self.fingerprint(revision(set)?);
        let found = deployments.iter().find(|d| d.fingerprint == fingerprint)?;
        let ended = found
            .ended_at
            .filter(|_| found.state == DeploymentState::Undeployed);
        let created = pod.creation_timestamp.as_ref().map(|time| time.0);
        match (ended, created) {
            (Some(ended), Some(created)) if created > ended => None,
            _ => Some(found),
        }
    }

    /// The replica sets for which a version may have to begin, in the order in which they came: the one of the current
    /// template, and before it those that have pods and came after the latest attempt.
    pub fn due<'a>(&self, sets: &'a [ReplicaSet], latest: Option<&model::Deployment>) -> Vec<&'a ReplicaSet> {
        let seen = latest.and_then(|latest| self.revision_in(&latest.fingerprint));
        let mut sets: Vec<(u64, &ReplicaSet)> = sets
            .iter()
            .filter_map(|set| Some((revision(set)?, set)))
            .collect();
        sets.sort_by_key(|(revision, _)| *revision);
        let Some((_, current)) = sets.pop() else {
            return Vec::new();
        };
        let is_new = |revision: u64| seen.is_none_or(|seen| revision > seen);
        let earlier = sets
            .into_iter()
            .filter(|(revision, set)| is_new(*revision) && has_pods(set))
            .map(|(_, set)| set);
        earlier.chain([current]).collect()
    }
}

/// Whether a replica set has pods, or should have.
fn has_pods(set: &ReplicaSet) -> bool {
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    wanted > 0 || set.status.as_ref().is_some_and(|status| status.replicas > 0)
}

/// How many pods of a replica set are ready.
pub fn ready(set: &ReplicaSet) -> usize {
    let ready = set.status.as_ref().and_then(|status| status.ready_replicas);
    usize::try_from(ready.unwrap_or(0)).unwrap_or(0)
}

/// Whether Kubernetes has taken in the Deployment as it is now.
pub fn is_settled(deployment: &Deployment) -> bool {
    let observed = deployment.status.as_ref().and_then(|s| s.observed_generation);
    observed >= deployment.metadata.generation
}

/// Whether no pods are wanted.
pub fn is_at_zero(deployment: &Deployment) -> bool {
    deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(0)
}

/// How many pods a Deployment has, those that are ending not counted.
pub fn pods(deployment: &Deployment) -> usize {
    let replicas = deployment.status.as_ref().and_then(|status| status.replicas);
    usize::try_from(replicas.unwrap_or(0)).unwrap_or(0)
}

/// The pods that a replica set made.
pub fn pods_of<'a>(set: &ReplicaSet, pods: impl IntoIterator<Item = &'a Pod>) -> Vec<&'a Pod> {
    let is_its = |pod: &&Pod| {
        let owner = controller(&pod.metadata, &kind::<ReplicaSet>());
        owner.is_some_and(|owner| Some(&owner.uid) == set.metadata.uid.as_ref())
    };
    pods.into_iter().filter(is_its).collect()
}

/// Whether a replica set is the Deployment's.
pub fn is_of(set: &ReplicaSet, deployment: &ObjectMeta) -> bool {
    let owner = controller(&set.metadata, &kind::<Deployment>());
    owner.is_some_and(|owner| {
        Some(&owner.uid) == deployment.uid.as_ref() && Some(&owner.name) == deployment.name.as_ref()
    })
}

/// Where the settings of an adopted Deployment are.
pub const FIELDS: Fields = Fields {
    image: "the image in the Deployment's pod template",
    memory: "resources.limits.memory in the Deployment's pod template",
};

/// Why a rollout has failed, if it has: what hardly passes by itself after [`FAIL_AFTER`], everything else when the
/// Deployment's own deadline has passed. `pods` are those of the new template.
pub fn rollout_failure<'a>(
    deployment: &Deployment,
    pods: impl IntoIterator<Item = &'a Pod> + Clone,
    waited: Duration,
) -> Option<Failure> {
    let mut each = pods.clone().into_iter();
    if let Some(failure) = each.find_map(|pod| failure::never_comes(pod, &FIELDS)) {
        return Some(failure);
    }
    if waited >= FAIL_AFTER {
        let hardly_passes = |failure: &Failure| failure.reason != reasons::UNSCHEDULABLE;
        let mut each = pods.clone().into_iter();
        let likely = each.find_map(|pod| failure::likely_cause(pod, &FIELDS).filter(hardly_passes));
        let found = likely.or_else(|| failure::refused(deployment));
        if found.is_some() {
            return found;
        }
    }
    is_stuck(deployment).then(|| {
        let cause = cause(deployment, pods);
        let seconds = deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.progress_deadline_seconds);
        let message = format!(
            "ProgressDeadlineExceeded: the rollout made no progress for {} s: {}",
            seconds.unwrap_or(600),
            cause.message
        );
        Failure {
            reason: cause.reason,
            message,
        }
    })
}

/// The likeliest cause of pods not being ready.
pub fn cause<'a>(deployment: &Deployment, pods: impl IntoIterator<Item = &'a Pod> + Clone) -> Failure {
    failure::cause_in(Some(deployment), pods, &FIELDS)
}

/// What is written down of a version, as JSON: which template it is, without what may be secret in it.
pub fn recorded(workload: &Workload, set: &ReplicaSet) -> Value {
    let images: BTreeMap<_, _> = PodTemplate::of(set).containers().into_iter().collect();
    json!({
        "workload": workload,
        "revision": revision(set),
        "replicaSet": set.metadata.name,
        "images": images,
    })
}

/// The kind of what is adopted, for messages.
pub fn named(name: &str) -> String {
    format!("{} {name}", Deployment::kind(&()))
}

#[cfg(test)]
#[path = "adopted_tests.rs"]
mod tests;
