//! When a deployment attempt begins.
//!
//! Every attempt takes the next version number, and a failed one keeps its number: `Failed` is final. Three things begin
//! the next attempt:
//!
//! - what would run has changed (another fingerprint, also through the annotation `scriptscope.dev/redeploy`);
//! - the script was undeployed in between;
//! - what made the attempt fail is gone. Kubernetes goes on trying to start the pods of a failed attempt; when they stay
//!   ready after all (the image could be pulled, a node came), or when what kept them from being made is there now (the
//!   `RuntimeClass`), the next attempt runs the same once more. So no version that serves is ever called failed, and no
//!   number means two things. An attempt that fails for a reason of its own is never repeated.

use jiff::Timestamp;

use crate::model::{Deployment, DeploymentState};

/// What is known when the decision is made.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The latest attempt in the store.
    pub latest: Option<&'a Deployment>,
    /// Hash of what should run.
    pub fingerprint: &'a str,
    /// The highest version that the cluster knows of: from the status and from the live Deployment.
    pub known_version: i64,
    /// The status says that this version was undeployed.
    pub undeployed_version: Option<i64>,
    /// What made the latest attempt fail is gone.
    pub recovered: bool,
}

/// What to do about attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Go on with the latest attempt.
    Keep,
    /// Begin the next attempt. If a version is named, that one has not ended and never will: end it first.
    Begin {
        /// Version to end as replaced.
        abandon: Option<i64>,
    },
}

/// Decides.
pub fn next_step(situation: Situation<'_>) -> Step {
    let Some(latest) = situation.latest else {
        return Step::Begin { abandon: None };
    };
    // The store was restored from an older copy: its numbers would go backwards.
    let behind = latest.version < situation.known_version;
    let changed = latest.fingerprint != situation.fingerprint;
    let again = match latest.state {
        DeploymentState::Deploying | DeploymentState::Deployed => false,
        DeploymentState::Replaced | DeploymentState::Undeployed => true,
        DeploymentState::Failed => {
            situation.recovered || situation.undeployed_version.is_some_and(|v| v >= latest.version)
        }
    };
    if !(behind || changed || again) {
        return Step::Keep;
    }
    // A version that serves is replaced only when the next one does; one still on its way has lost its chance. A store
    // that is behind would hand out a version again that has not ended, so it is ended whatever its state.
    let unfinished = latest.state == DeploymentState::Deploying || (behind && !latest.state.is_ended());
    Step::Begin {
        abandon: unfinished.then_some(latest.version),
    }
}

/// How long the cluster has been at an attempt. If no operator ran before it had made a pod, that time does not count, or
/// an operator that was away would fail attempts that had no chance. Neither does the time before `regained`, when the API
/// server could be reached again: without it no node starts a pod. Nor does the time before `prepared`, when a step before
/// the script was last at work as it should be: steps have time limits of their own.
pub fn elapsed(
    attempt: &Deployment,
    first_pod: Option<Timestamp>,
    prepared: Option<Timestamp>,
    operator_started: Timestamp,
    regained: Option<Timestamp>,
    now: Timestamp,
) -> std::time::Duration {
    let worked = first_pod.map_or(operator_started, |made| made.min(operator_started));
    let since = attempt.started_at.max(worked);
    let since = since
        .max(regained.unwrap_or(since))
        .max(prepared.unwrap_or(since));
    now.duration_since(since).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::custom_script::fixtures::attempt;

    fn situation<'a>(latest: Option<&'a Deployment>, fingerprint: &'a str) -> Situation<'a> {
        Situation {
            latest,
            fingerprint,
            known_version: latest.map_or(0, |l| l.version),
            undeployed_version: None,
            recovered: false,
        }
    }

    const BEGIN: Step = Step::Begin { abandon: None };

    #[test]
    fn the_first_deployment_and_every_change_begin_an_attempt() {
        assert_eq!(next_step(situation(None, "a")), BEGIN);
        let serving = attempt(3, "a", DeploymentState::Deployed);
        assert_eq!(next_step(situation(Some(&serving), "a")), Step::Keep);
        assert_eq!(next_step(situation(Some(&serving), "b")), BEGIN);
        let starting = attempt(3, "a", DeploymentState::Deploying);
        assert_eq!(next_step(situation(Some(&starting), "a")), Step::Keep);
        assert_eq!(
            next_step(situation(Some(&starting), "b")),
            Step::Begin { abandon: Some(3) }
        );
    }

    #[test]
    fn a_redeploy_after_an_undeploy_takes_the_next_number() {
        let undeployed = attempt(3, "a", DeploymentState::Undeployed);
        assert_eq!(next_step(situation(Some(&undeployed), "a")), BEGIN);
        // A failed attempt stays failed when it is undeployed; the status remembers.
        let failed = attempt(3, "a", DeploymentState::Failed);
        let mut after = situation(Some(&failed), "a");
        after.undeployed_version = Some(3);
        assert_eq!(next_step(after), BEGIN);
        after.undeployed_version = Some(2);
        assert_eq!(next_step(after), Step::Keep);
    }

    #[test]
    fn a_failed_attempt_is_repeated_only_when_its_cause_is_gone_or_the_spec_changed() {
        let failed = attempt(3, "a", DeploymentState::Failed);
        let mut after = situation(Some(&failed), "a");
        assert_eq!(next_step(after), Step::Keep);
        after.recovered = true;
        assert_eq!(next_step(after), BEGIN);
        assert_eq!(next_step(situation(Some(&failed), "b")), BEGIN);
    }

    #[test]
    fn versions_do_not_go_backwards_after_the_store_was_restored() {
        let old = attempt(3, "a", DeploymentState::Deployed);
        let mut after = situation(Some(&old), "a");
        after.known_version = 7;
        assert_eq!(next_step(after), Step::Begin { abandon: Some(3) });
    }

    #[test]
    fn an_operator_that_was_away_gives_the_attempt_its_time() {
        let attempt = attempt(1, "a", DeploymentState::Deploying);
        let later = |seconds| attempt.started_at + jiff::SignedDuration::from_secs(seconds);
        let seconds = |pod, operator: i64, now: i64| {
            elapsed(&attempt, pod, None, later(operator), None, later(now)).as_secs()
        };
        assert_eq!(seconds(None, -100, 50), 50);
        assert_eq!(seconds(None, 45, 50), 5);
        assert_eq!(seconds(None, 45, 40), 0);
        // The cluster went on while no operator looked.
        assert_eq!(seconds(Some(later(1)), 45, 50), 49);
        assert_eq!(seconds(Some(later(47)), 45, 50), 5);
    }

    #[test]
    fn an_api_server_that_was_away_does_not_use_up_the_time_of_an_attempt() {
        let attempt = attempt(1, "a", DeploymentState::Deploying);
        let later = |seconds| attempt.started_at + jiff::SignedDuration::from_secs(seconds);
        let seconds = |regained| {
            let made = Some(later(1));
            elapsed(
                &attempt,
                made,
                None,
                later(-100),
                Some(later(regained)),
                later(50),
            )
            .as_secs()
        };
        assert_eq!(seconds(40), 10);
        assert_eq!(seconds(-50), 50, "long before the attempt");
    }

    #[test]
    fn steps_before_the_script_do_not_use_up_the_time_of_an_attempt() {
        let attempt = attempt(1, "a", DeploymentState::Deploying);
        let later = |seconds| attempt.started_at + jiff::SignedDuration::from_secs(seconds);
        let prepared = Some(later(200));
        let waited = elapsed(&attempt, Some(later(1)), prepared, later(-100), None, later(230));
        assert_eq!(waited.as_secs(), 30);
    }
}
