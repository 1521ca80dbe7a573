//! What the status of a script that adopts a Deployment says. Pure.

use super::{
    adopted::{Standing, named},
    status::{Claim, View, claim, count, deployed, steady},
};
use crate::api::{Phase, reasons};

/// Phase, Ready and Progressing.
pub fn adopted(view: &View<'_>, standing: &Standing) -> (Phase, Claim, Claim) {
    let name = view.object.spec.workload.as_ref();
    let name = named(name.map_or("", |workload| workload.deployment_ref.name.as_str()));
    let ever = !view.deployments.is_empty() || view.known_version > 0;
    let phase = if ever { Phase::ReadyToDeploy } else { Phase::Draft };
    let kept = if ever { "; runs and logs stay readable" } else { "" };
    let no = |reason: &str, message: String| (phase, claim(false, reason, message), steady());
    match standing {
        Standing::Wanted if !view.deployments.is_empty() => deployed(view),
        Standing::Wanted | Standing::Unsettled => {
            let message = format!("Kubernetes is yet to take in the latest change of {name}");
            let before = view.object.status.as_ref().and_then(|status| status.phase);
            let is_ready = before == Some(Phase::Deployed);
            (
                before.unwrap_or(Phase::Deploying),
                claim(is_ready, reasons::DEPLOYING, message.clone()),
                claim(true, reasons::DEPLOYING, message),
            )
        }
        Standing::Refused(failure) => no(&failure.reason, failure.message.clone()),
        Standing::Missing if view.gone => no(
            reasons::WORKLOAD_MISSING,
            format!(
                "spec.workload.deploymentRef.name: there is no {name} in this namespace; it is adopted as soon as there is one{kept}"
            ),
        ),
        Standing::AtZero if view.gone => no(
            reasons::WORKLOAD_AT_ZERO,
            format!("{name} is scaled to zero; scale it up for the next version{kept}"),
        ),
        Standing::Missing | Standing::AtZero => {
            let before = view.object.status.as_ref().and_then(|status| status.phase);
            let pods = count(view.pods, "pod");
            let (reason, why) = match standing {
                Standing::Missing => (reasons::WORKLOAD_MISSING, format!("{name} was deleted")),
                _ => (reasons::WORKLOAD_AT_ZERO, format!("{name} is scaled to zero")),
            };
            (
                before.unwrap_or(phase),
                claim(false, reason, why),
                claim(true, reasons::UNDEPLOYING, format!("{pods} may still be ending")),
            )
        }
        Standing::Paused => no(
            reasons::UNDEPLOYED,
            format!(
                "what {name} prints is not collected, as spec.desiredState asks for; the Deployment itself is left alone{kept}"
            ),
        ),
    }
}
