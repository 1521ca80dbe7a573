//! What a user reads in the status.

use super::*;
use crate::{
    api::Workload,
    operator::custom_script::fixtures::{attempt, script},
};

const NOON: &str = "2025-05-14T12:00:00Z";

fn now() -> Timestamp {
    NOON.parse().unwrap()
}

struct Case {
    object: CustomScript,
    deployments: Vec<Deployment>,
    ready: BTreeMap<i64, usize>,
    pods: usize,
    failure: Option<Failure>,
    rolled_out: bool,
    standing: Option<Standing>,
    stored: Result<(), String>,
    collection: Collection,
}

impl Case {
    fn new(deployments: Vec<Deployment>) -> Self {
        Self {
            object: script(),
            deployments,
            ready: BTreeMap::new(),
            pods: 0,
            failure: None,
            rolled_out: true,
            standing: None,
            stored: Ok(()),
            collection: Collection::Agent,
        }
    }

    fn ready(mut self, version: i64) -> Self {
        self.ready.insert(version, 1);
        self.pods += 1;
        self
    }

    fn undeployed(mut self) -> Self {
        self.object.spec.desired_state = DesiredState::Undeployed;
        self
    }

    fn status_at(&self, now: Timestamp) -> CustomScriptStatus {
        status(&View {
            object: &self.object,
            deployments: &self.deployments,
            known_version: 0,
            failure: self.failure.clone(),
            ready: &self.ready,
            pods: self.pods,
            gone: self.pods == 0,
            rolled_out: self.rolled_out,
            predecessor: false,
            standing: self.standing.as_ref(),
            stored: &self.stored,
            collection: self.collection,
            now,
        })
    }

    fn status(&self) -> CustomScriptStatus {
        self.status_at(now())
    }
}

fn get<'a>(status: &'a CustomScriptStatus, type_: &str) -> (&'a str, &'a str, &'a str) {
    let found = status.conditions.iter().find(|c| c.type_ == type_).unwrap();
    (&found.status, &found.reason, &found.message)
}

fn failed(version: i64, reason: &str) -> Deployment {
    Deployment {
        reason: Some(reason.to_owned()),
        ..attempt(version, "b", DeploymentState::Failed)
    }
}

#[test]
fn a_script_that_was_never_deployed_is_a_draft() {
    let status = Case::new(vec![]).undeployed().status();
    assert_eq!(status.phase, Some(Phase::Draft));
    assert_eq!((status.version, status.endpoint.as_deref()), (None, None));
    assert_eq!(get(&status, "Ready").1, "Draft");
}

#[test]
fn a_deployment_goes_from_deploying_to_deployed() {
    let status = Case::new(vec![attempt(1, "a", DeploymentState::Deploying)]).status();
    assert_eq!(status.phase, Some(Phase::Deploying));
    assert_eq!(get(&status, "Ready").0, "False");
    assert_eq!(get(&status, "Progressing").0, "True");
    assert_eq!(status.endpoint, None);

    let status = Case::new(vec![attempt(1, "a", DeploymentState::Deployed)])
        .ready(1)
        .status();
    assert_eq!(status.phase, Some(Phase::Deployed));
    assert_eq!(
        get(&status, "Ready"),
        ("True", "Deployed", "version 1 serves with 1 pod")
    );
    assert_eq!(get(&status, "Progressing").0, "False");
    assert_eq!(status.endpoint.as_deref(), Some("http://qbalance.shop.svc"));
    assert_eq!(
        (status.version, status.deployment_id.as_deref()),
        (Some(1), Some("deploy-1"))
    );
    assert!(status.conditions.iter().all(|c| c.observed_generation == Some(4)));
    assert_eq!(status.observed_generation, Some(4));
}

#[test]
fn a_failed_first_deployment_says_why() {
    let status = Case::new(vec![failed(
        1,
        "RuntimeClassMissing: RuntimeClass gvisor does not exist",
    )])
    .status();
    assert_eq!(status.phase, Some(Phase::DeploymentFailed));
    let expected = (
        "False",
        "RuntimeClassMissing",
        "RuntimeClass gvisor does not exist",
    );
    assert_eq!(get(&status, "Ready"), expected);
    assert_eq!(get(&status, "Progressing"), expected);
    assert_eq!(status.endpoint, None);
}

#[test]
fn a_failed_redeploy_says_which_version_still_serves() {
    let deployments = vec![
        failed(2, "LoadFailed: no"),
        attempt(1, "a", DeploymentState::Deployed),
    ];
    let status = Case::new(deployments).ready(1).status();
    assert_eq!(status.phase, Some(Phase::DeploymentFailed));
    assert_eq!(status.version, Some(2));
    let message = "version 2 failed (LoadFailed: no); version 1 still serves";
    assert_eq!(get(&status, "Ready"), ("True", "PreviousVersionServes", message));
    assert!(status.endpoint.is_some());
}

#[test]
fn a_failed_version_whose_pods_come_up_late_is_not_called_serving() {
    let status = Case::new(vec![failed(2, "LoadFailed: no")]).ready(2).status();
    assert_eq!(get(&status, "Ready").0, "False");
}

#[test]
fn a_deployed_script_whose_pods_are_down_stays_deployed_and_says_why() {
    let mut case = Case::new(vec![attempt(3, "a", DeploymentState::Deployed)]);
    case.failure = Some(Failure::new(
        reasons::CRASH_LOOP,
        "container script ended with OOMKilled",
    ));
    let status = case.status();
    assert_eq!(status.phase, Some(Phase::Deployed));
    let ready = get(&status, "Ready");
    assert_eq!(
        ready,
        (
            "False",
            "CrashLoopBackOff",
            "container script ended with OOMKilled"
        )
    );
}

#[test]
fn an_undeploy_is_ready_to_deploy_once_the_pods_are_gone() {
    let deployments = vec![attempt(1, "a", DeploymentState::Undeployed)];
    let mut case = Case::new(deployments).ready(1).undeployed();
    let during = case.status();
    assert_eq!(during.phase, Some(Phase::Deployed));
    assert_eq!(get(&during, "Progressing").0, "True");
    assert_eq!(during.endpoint, None);
    case.pods = 0;
    let after = case.status();
    assert_eq!(after.phase, Some(Phase::ReadyToDeploy));
    assert_eq!(get(&after, "Progressing").0, "False");
    assert_eq!(after.version, Some(1));
}

fn adopting(standing: Standing, deployments: Vec<Deployment>) -> Case {
    let mut case = Case::new(deployments);
    case.object.spec.source = None;
    case.object.spec.workload = Some(Workload {
        deployment_ref: crate::api::NameRef { name: "web".into() },
        container: None,
    });
    case.standing = Some(standing);
    case
}

#[test]
fn an_adopted_deployment_has_the_same_phases_and_no_endpoint() {
    let serving = vec![attempt(2, "a", DeploymentState::Deployed)];
    let status = adopting(Standing::Wanted, serving).ready(2).status();
    assert_eq!(status.phase, Some(Phase::Deployed));
    assert_eq!(get(&status, "Ready").0, "True");
    assert_eq!(status.endpoint, None);
    let mut failed = attempt(2, "b", DeploymentState::Failed);
    failed.reason = Some("ImagePullFailed: no such image".into());
    let older = attempt(1, "a", DeploymentState::Deployed);
    let status = adopting(Standing::Wanted, vec![failed, older]).ready(1).status();
    assert_eq!(status.phase, Some(Phase::DeploymentFailed));
    assert_eq!(get(&status, "Ready").1, "PreviousVersionServes");
}

#[test]
fn without_its_pods_an_adopted_deployment_says_why() {
    let refused = Failure::new("WorkloadTaken", "spec.workload.deploymentRef.name: taken");
    for (standing, reason, says) in [
        (
            Standing::Missing,
            "WorkloadMissing",
            "spec.workload.deploymentRef.name",
        ),
        (Standing::AtZero, "WorkloadScaledToZero", "scaled to zero"),
        (Standing::Paused, "Undeployed", "left alone"),
        (Standing::Refused(refused), "WorkloadTaken", "taken"),
    ] {
        let never = adopting(standing.clone(), vec![]).status();
        assert_eq!(never.phase, Some(Phase::Draft), "{standing:?}");
        let ended = vec![attempt(1, "a", DeploymentState::Undeployed)];
        let status = adopting(standing, ended).status();
        assert_eq!(status.phase, Some(Phase::ReadyToDeploy));
        assert_eq!(status.version, Some(1));
        let (ready, why, message) = get(&status, "Ready");
        assert_eq!((ready, why), ("False", reason));
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn an_adopted_deployment_is_down_when_its_pods_are_gone() {
    let ended = vec![attempt(1, "a", DeploymentState::Undeployed)];
    let mut case = adopting(Standing::AtZero, ended).ready(1);
    case.object.status = Some(CustomScriptStatus {
        phase: Some(Phase::Deployed),
        ..CustomScriptStatus::default()
    });
    let status = case.status();
    assert_eq!(status.phase, Some(Phase::Deployed));
    assert_eq!(get(&status, "Progressing").0, "True");
}

#[test]
fn only_a_change_is_written_and_only_a_flip_moves_the_transition_time() {
    let mut case = Case::new(vec![attempt(1, "a", DeploymentState::Deployed)]).ready(1);
    case.object.status = Some(case.status());
    // Figures are somebody else's fields.
    case.object.status.as_mut().unwrap().metrics = Some(crate::api::MetricsStatus::default());
    let later = now() + jiff::SignedDuration::from_mins(5);
    assert_eq!(patch(&case.object, &case.status_at(later)).unwrap(), None);

    case.stored = Err("disk full".into());
    let flipped = case.status_at(later);
    let time = |type_: &str| {
        let found = flipped.conditions.iter().find(|c| c.type_ == type_).unwrap();
        found.last_transition_time.0
    };
    assert_eq!((time("Ready"), time("Stored")), (now(), later));
    let body = patch(&case.object, &flipped).unwrap().unwrap();
    assert_eq!(body["kind"], "CustomScript");
    assert!(body["status"].get("metrics").is_none(), "{body}");
}

#[test]
fn a_store_that_is_down_is_said_and_nothing_else_is_forgotten() {
    let mut case = Case::new(vec![attempt(1, "a", DeploymentState::Deployed)]).ready(1);
    case.object.status = Some(case.status());
    let status = status_without_store(&case.object, "disk full", now());
    assert_eq!(status.phase, Some(Phase::Deployed));
    assert_eq!(status.deployments.len(), 1);
    let (stored, reason, message) = get(&status, "Stored");
    assert_eq!((stored, reason), ("False", "StoreFailed"));
    assert!(message.contains("disk full"), "{message}");
}

#[test]
fn what_is_collected_through_the_api_is_said_to_be_best_effort() {
    let mut case = Case::new(vec![attempt(1, "a", DeploymentState::Deployed)]).ready(1);
    let message = |case: &Case| get(&case.status(), "Stored").2.to_owned();
    assert!(!message(&case).contains("best effort"));
    case.collection = Collection::Api;
    assert!(message(&case).contains("best effort"), "{}", message(&case));
    case.stored = Err("disk full".into());
    assert!(message(&case).contains("disk full"));
}

#[test]
fn the_last_ten_attempts_are_listed() {
    let deployments: Vec<_> = (1..=12)
        .rev()
        .map(|v| attempt(v, "a", DeploymentState::Replaced))
        .collect();
    let status = Case::new(deployments).status();
    assert_eq!(status.deployments.len(), 10);
    assert_eq!(status.deployments[0].version, 12);
    assert_eq!(status.deployments[0].state, "Replaced");
}
