//! Fifth step: what the status says. Pure.
//!
//! The controller owns every field but `metrics` and `display`, which [`super::figures`] writes under a field manager of
//! its own: a burst of runs must not reconcile anything, and neither writer removes what the other wrote.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Value, json};

use super::{adopted::Standing, adopted_status::adopted, failure::Failure};
use crate::{
    api::{
        ChangeStatus, CustomScript, CustomScriptStatus, DeploymentStatus, DesiredState, Phase, conditions,
        reasons,
    },
    model::{Change, Deployment, DeploymentState},
    operator::api_logs::Collection,
};

/// How many attempts the status lists.
pub const LISTED_DEPLOYMENTS: usize = 10;

/// What was found in this reconciliation.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// The script, with the status that it has.
    pub object: &'a CustomScript,
    /// The last attempts, newest first.
    pub deployments: &'a [Deployment],
    /// The highest version that the cluster knows of.
    pub known_version: i64,
    /// What is wrong now, apart from what the attempts say.
    pub failure: Option<Failure>,
    /// How many pods of each version are ready.
    pub ready: &'a BTreeMap<i64, usize>,
    /// How many pods there are, also those that are ending.
    pub pods: usize,
    /// Nothing of an undeployed script is left.
    pub gone: bool,
    /// Every pod is of the newest version and available.
    pub rolled_out: bool,
    /// Nothing can be done before the objects of a deleted predecessor are gone.
    pub predecessor: bool,
    /// How the Deployment stands that the script adopts, if it does.
    pub standing: Option<&'a Standing>,
    /// Whether the store can be written.
    pub stored: &'a Result<(), String>,
    /// How what the script prints gets there.
    pub collection: Collection,
    /// Now.
    pub now: Timestamp,
}

/// A condition without its times.
pub(super) struct Claim {
    status: bool,
    reason: String,
    message: String,
}

pub(super) fn claim(status: bool, reason: impl Into<String>, message: impl Into<String>) -> Claim {
    Claim {
        status,
        reason: reason.into(),
        message: message.into(),
    }
}

/// The status that the object should have.
pub fn status(view: &View<'_>) -> CustomScriptStatus {
    let (phase, ready, progressing) = if let Some(standing) = view.standing {
        adopted(view, standing)
    } else if view.object.spec.desired_state == DesiredState::Undeployed {
        undeployed(view)
    } else {
        deployed(view)
    };
    let latest = view.deployments.first();
    let callable = latest.is_some_and(|d| d.state == DeploymentState::Deployed) || serving(view).is_some();
    let wanted = view.object.spec.desired_state == DesiredState::Deployed;
    CustomScriptStatus {
        phase: Some(phase),
        version: latest
            .map(|d| d.version.max(view.known_version))
            .or(Some(view.known_version).filter(|v| *v > 0)),
        deployment_id: latest.map(|d| d.deployment_id.clone()),
        observed_generation: view.object.metadata.generation,
        endpoint: (wanted && callable && view.standing.is_none()).then(|| endpoint(view.object)),
        conditions: vec![
            condition(view, conditions::READY, ready),
            condition(view, conditions::PROGRESSING, progressing),
            condition(view, conditions::STORED, stored(view.stored, view.collection)),
        ],
        deployments: view
            .deployments
            .iter()
            .take(LISTED_DEPLOYMENTS)
            .map(deployment_status)
            .collect(),
        metrics: None,
        display: None,
    }
}

/// The status that the object has but for the condition Stored, when the store itself can not be asked.
pub fn status_without_store(object: &CustomScript, error: &str, now: Timestamp) -> CustomScriptStatus {
    let failed = Err(error.to_owned());
    let view = View {
        object,
        deployments: &[],
        known_version: 0,
        failure: None,
        ready: &BTreeMap::new(),
        pods: 0,
        gone: false,
        rolled_out: false,
        predecessor: false,
        standing: None,
        stored: &failed,
        collection: Collection::default(),
        now,
    };
    let mut status = object.status.clone().unwrap_or_default();
    status.conditions.retain(|c| c.type_ != conditions::STORED);
    status.conditions.push(condition(
        &view,
        conditions::STORED,
        stored(&failed, view.collection),
    ));
    (status.metrics, status.display) = (None, None);
    status
}

/// The body of the server-side apply, if the object does not say all of it already.
pub fn patch(object: &CustomScript, wanted: &CustomScriptStatus) -> Result<Option<Value>, serde_json::Error> {
    let mut current = object.status.clone().unwrap_or_default();
    (current.metrics, current.display) = (None, None);
    let wanted = serde_json::to_value(wanted)?;
    // As JSON, where times have whole seconds on both sides.
    if object.status.is_some() && serde_json::to_value(&current)? == wanted {
        return Ok(None);
    }
    Ok(Some(apply_body(&wanted)))
}

/// Body of a server-side apply of a status.
pub fn apply_body(status: &Value) -> Value {
    use kube::Resource;
    json!({
        "apiVersion": CustomScript::api_version(&()),
        "kind": CustomScript::kind(&()),
        "status": status,
    })
}

/// Where the script can be called within the cluster.
pub fn endpoint(object: &CustomScript) -> String {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    format!("http://{name}.{namespace}.svc")
}

fn undeployed(view: &View<'_>) -> (Phase, Claim, Claim) {
    let ever = !view.deployments.is_empty() || view.known_version > 0;
    if !view.gone {
        let before = view.object.status.as_ref().and_then(|s| s.phase);
        let pods = count(view.pods, "pod");
        return (
            before.unwrap_or(Phase::Deployed),
            claim(false, reasons::UNDEPLOYING, "undeployed on request"),
            claim(
                true,
                reasons::UNDEPLOYING,
                format!("{pods} may still finish runs before going"),
            ),
        );
    }
    if ever {
        let message = "undeployed on request; runs and logs stay readable";
        (
            Phase::ReadyToDeploy,
            claim(false, reasons::UNDEPLOYED, message),
            steady(),
        )
    } else {
        let message = "never deployed; set spec.desiredState to Deployed";
        (Phase::Draft, claim(false, reasons::DRAFT, message), steady())
    }
}

pub(super) fn deployed(view: &View<'_>) -> (Phase, Claim, Claim) {
    let Some(latest) = view.deployments.first() else {
        let message = "objects of a deleted CustomScript of this name are still going";
        return (
            Phase::Deploying,
            claim(false, reasons::NAME_IN_USE, message),
            claim(true, reasons::NAME_IN_USE, message),
        );
    };
    let version = latest.version;
    let earlier = serving(view).filter(|serving| *serving != version);
    match latest.state {
        DeploymentState::Failed => {
            let failure = Failure::parse(latest.reason.as_deref().unwrap_or("no reason is known"));
            let ready = match earlier {
                Some(earlier) => claim(
                    true,
                    reasons::PREVIOUS_VERSION_SERVES,
                    format!("version {version} failed ({failure}); version {earlier} still serves"),
                ),
                None => claim(false, failure.reason.clone(), failure.message.clone()),
            };
            let progressing = claim(false, failure.reason, failure.message);
            (Phase::DeploymentFailed, ready, progressing)
        }
        DeploymentState::Deployed => {
            let rollout = if view.rolled_out || view.failure.is_some() {
                steady()
            } else {
                claim(
                    true,
                    reasons::DEPLOYING,
                    format!("pods are moving to version {version}"),
                )
            };
            (Phase::Deployed, ready_claim(view, version, earlier), rollout)
        }
        _ if view.predecessor => {
            let message = "objects of a deleted CustomScript of this name are still going";
            (
                Phase::Deploying,
                claim(false, reasons::NAME_IN_USE, message),
                claim(true, reasons::NAME_IN_USE, message),
            )
        }
        _ => {
            let message = format!("version {version} is being deployed");
            let ready = match earlier {
                Some(earlier) => claim(
                    true,
                    reasons::PREVIOUS_VERSION_SERVES,
                    format!("{message}; version {earlier} serves"),
                ),
                None => claim(false, reasons::DEPLOYING, message.clone()),
            };
            (Phase::Deploying, ready, claim(true, reasons::DEPLOYING, message))
        }
    }
}

fn ready_claim(view: &View<'_>, version: i64, earlier: Option<i64>) -> Claim {
    let ready = view.ready.get(&version).copied().unwrap_or(0);
    if ready > 0 {
        let pods = count(ready, "pod");
        let also = view
            .failure
            .as_ref()
            .map_or_else(String::new, |failure| format!("; {failure}"));
        return claim(
            true,
            reasons::DEPLOYED,
            format!("version {version} serves with {pods}{also}"),
        );
    }
    if let Some(earlier) = earlier {
        return claim(
            true,
            reasons::PREVIOUS_VERSION_SERVES,
            format!("version {earlier} serves; no pod of version {version} is ready"),
        );
    }
    match &view.failure {
        Some(failure) => claim(false, failure.reason.clone(), failure.message.clone()),
        None => claim(
            false,
            reasons::NOT_READY,
            format!("no pod of version {version} is ready"),
        ),
    }
}

/// The newest version that has a ready pod; a failed one does not count.
fn serving(view: &View<'_>) -> Option<i64> {
    let failed = |version: i64| {
        view.deployments
            .iter()
            .any(|d| d.version == version && d.state == DeploymentState::Failed)
    };
    view.ready
        .iter()
        .rev()
        .find(|(version, pods)| **pods > 0 && !failed(**version))
        .map(|(version, _)| *version)
}

pub(super) fn steady() -> Claim {
    claim(false, reasons::STEADY, "nothing is under way")
}

fn stored(health: &Result<(), String>, collection: Collection) -> Claim {
    match health {
        Ok(()) if collection == Collection::Api => claim(
            true,
            reasons::STORE_WRITABLE,
            "runs and logs are being stored; best effort: collected through the API server, where lines can get lost when a \
             log is rotated",
        ),
        Ok(()) => claim(true, reasons::STORE_WRITABLE, "runs and logs are being stored"),
        Err(error) => claim(
            false,
            reasons::STORE_FAILED,
            format!("runs and logs wait on the nodes until the store can be written again: {error}"),
        ),
    }
}

pub(super) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// The time of the last transition stays while the status does.
fn condition(view: &View<'_>, type_: &str, claim: Claim) -> Condition {
    let status = if claim.status { "True" } else { "False" };
    let before = view.object.status.as_ref();
    let same = before
        .and_then(|s| s.conditions.iter().find(|c| c.type_ == type_))
        .filter(|c| c.status == status);
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: claim.reason,
        message: claim.message,
        observed_generation: view.object.metadata.generation,
        last_transition_time: same.map_or(Time(view.now), |c| c.last_transition_time.clone()),
    }
}

fn deployment_status(deployment: &Deployment) -> DeploymentStatus {
    DeploymentStatus {
        version: deployment.version,
        deployment_id: deployment.deployment_id.clone(),
        state: deployment.state.as_str().to_owned(),
        reason: deployment
            .reason
            .as_deref()
            .map(|reason| Failure::parse(reason).message),
        started_at: Time(deployment.started_at),
        deployed_at: deployment.deployed_at.map(Time),
        ended_at: deployment.ended_at.map(Time),
        duration_microseconds: deployment.duration_micros(),
        changed_by: deployment.changed_by.clone(),
        change: deployment.change.as_ref().map(change_status),
    }
}

fn change_status(change: &Change) -> ChangeStatus {
    ChangeStatus {
        cause: change.cause.clone(),
        fields: change.fields.clone(),
        more_fields: i64::try_from(change.more_fields).ok().filter(|more| *more > 0),
        claimed_by: change.claimed_by.clone(),
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
