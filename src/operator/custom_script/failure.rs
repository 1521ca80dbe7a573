//! Why a deployment attempt does not come up, in words a person understands. Pure: reads what the cluster says.

use std::{borrow::Cow, fmt, time::Duration};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod},
};

use super::{
    build::PROJECT_DIR,
    source::{DEPENDENCIES, FETCH},
};
use crate::{
    api::{labels, reasons},
    termination::EXIT_UNUSABLE,
};

/// An attempt whose pods are not ready by then has failed. Below a minute, so that people hear of it within one.
pub const FAIL_AFTER: Duration = Duration::from_secs(45);
/// Longer texts are cut. A container's termination message has at most 4 KiB, a condition's may have 32.
const MAX_MESSAGE_BYTES: usize = 4_200;

/// Why something is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In one word, one of [`reasons`].
    pub reason: Cow<'static, str>,
    /// For people.
    pub message: String,
}

impl Failure {
    /// A failure; a long message is cut.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason: Cow::Borrowed(reason),
            message: cut(message.into()),
        }
    }

    /// What [`fmt::Display`] wrote, as the store keeps it.
    pub fn parse(text: &str) -> Self {
        match text.split_once(": ") {
            Some((reason, message))
                if !reason.is_empty() && reason.bytes().all(|b| b.is_ascii_alphanumeric()) =>
            {
                Self {
                    reason: Cow::Owned(reason.to_owned()),
                    message: message.to_owned(),
                }
            }
            _ => Self::new(reasons::DEPLOYMENT_FAILED, text),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

/// Where the settings are that a message names.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    /// The image.
    pub image: &'static str,
    /// The memory limit.
    pub memory: &'static str,
}

/// Where they are of a managed script.
const MANAGED: Fields = Fields {
    image: "spec.runtimeImage",
    memory: "spec.resources.limits.memory",
};

/// Why the pods of an attempt are not ready: at once where the cause can not pass by itself, after [`FAIL_AFTER`] in any
/// case. `pods` are those of the attempt.
pub fn find<'a>(
    deployment: Option<&Deployment>,
    pods: impl IntoIterator<Item = &'a Pod> + Clone,
    elapsed: Duration,
) -> Option<Failure> {
    let certain = pods.clone().into_iter().find_map(certain_cause);
    if certain.is_some() || elapsed < FAIL_AFTER {
        return certain;
    }
    Some(cause(deployment, pods))
}

/// The likeliest cause of pods not being ready.
pub fn cause<'a>(
    deployment: Option<&Deployment>,
    pods: impl IntoIterator<Item = &'a Pod> + Clone,
) -> Failure {
    let certain = pods.clone().into_iter().find_map(certain_cause);
    certain.unwrap_or_else(|| cause_in(deployment, pods, &MANAGED))
}

/// The same, apart from what only our own containers say.
pub fn cause_in<'a>(
    deployment: Option<&Deployment>,
    pods: impl IntoIterator<Item = &'a Pod> + Clone,
    fields: &Fields,
) -> Failure {
    pods.clone()
        .into_iter()
        .find_map(|pod| never_comes(pod, fields).or_else(|| likely_cause(pod, fields)))
        .or_else(|| deployment.and_then(refused))
        .unwrap_or_else(|| match pods.into_iter().next() {
            None => Failure::new(
                reasons::NOT_READY,
                "no pod has been made yet; see `kubectl describe` of the Deployment and its ReplicaSet",
            ),
            Some(pod) => still_starting(pod),
        })
}

/// Causes that waiting does not help against.
fn certain_cause(pod: &Pod) -> Option<Failure> {
    if let Some(why) = volume_full(pod) {
        return Some(Failure::new(reasons::VOLUME_FULL, why));
    }
    statuses(pod)
        .find_map(unusable)
        .or_else(|| never_comes(pod, &MANAGED))
}

/// An image that can not come.
pub fn never_comes(pod: &Pod, fields: &Fields) -> Option<Failure> {
    statuses(pod).find_map(|status| {
        let waiting = status.state.as_ref()?.waiting.as_ref()?;
        let message = waiting.message.as_deref().unwrap_or_default();
        match waiting.reason.as_deref()? {
            "InvalidImageName" => Some(Failure::new(
                reasons::IMAGE_PULL_FAILED,
                format!(
                    "the image name {:?} is not valid; correct {}",
                    status.image, fields.image
                ),
            )),
            "ErrImageNeverPull" => Some(Failure::new(
                reasons::IMAGE_PULL_FAILED,
                format!("the image is not on the node and must not be pulled: {message}"),
            )),
            _ => None,
        }
    })
}

/// What our own containers say when trying again does not help.
fn unusable(status: &ContainerStatus) -> Option<Failure> {
    let end = last_end(status)?;
    if is_without_project(status, end) {
        return Some(Failure::new(
            reasons::LOAD_FAILED,
            format!("the image has no folder {PROJECT_DIR}, where the script's files must be"),
        ));
    }
    if end.exit_code != EXIT_UNUSABLE {
        return None;
    }
    let why = end.message.as_deref().map_or("it gave no reason", str::trim);
    match status.name.as_str() {
        labels::CONTAINER => Some(Failure::new(
            reasons::LOAD_FAILED,
            format!("the script could not be loaded: {why}"),
        )),
        FETCH => Some(Failure::new(reasons::SOURCE_FAILED, why)),
        DEPENDENCIES => Some(Failure::new(reasons::DEPENDENCIES_FAILED, why)),
        _ => None,
    }
}

/// Whether the runtime could not start a script's container since its working directory is not there and can not be made.
fn is_without_project(status: &ContainerStatus, end: &ContainerStateTerminated) -> bool {
    let is_about = |message: &String| message.contains(&format!("\"{PROJECT_DIR}\""));
    status.name == labels::CONTAINER
        && end.reason.as_deref() == Some("StartError")
        && end.message.as_ref().is_some_and(is_about)
}

/// A pod that was evicted for filling a volume: the next one would be, too.
fn volume_full(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let message = status.message.as_deref().unwrap_or_default();
    let full = status.reason.as_deref() == Some("Evicted") && message.contains("EmptyDir");
    full.then(|| format!("the pod was evicted: {}", message.trim()))
}

/// Causes that may pass.
pub fn likely_cause(pod: &Pod, fields: &Fields) -> Option<Failure> {
    if let Some(why) = unschedulable(pod) {
        return Some(Failure::new(
            reasons::UNSCHEDULABLE,
            format!("no node takes the pod: {why}"),
        ));
    }
    statuses(pod).find_map(|status| {
        let waiting = status.state.as_ref()?.waiting.as_ref()?;
        let message = waiting.message.as_deref().unwrap_or_default();
        let image = &status.image;
        match waiting.reason.as_deref()? {
            "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" | "ImageInspectError" => {
                Some(Failure::new(
                    reasons::IMAGE_PULL_FAILED,
                    format!("the image {image} could not be pulled: {message}"),
                ))
            }
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                Some(Failure::new(
                    reasons::CONTAINER_CONFIG,
                    format!("container {} can not be started: {message}", status.name),
                ))
            }
            "CrashLoopBackOff" => Some(Failure::new(reasons::CRASH_LOOP, crash(status, fields))),
            _ => None,
        }
    })
}

/// Quota, admission or limits: no pod was made at all.
pub fn refused(deployment: &Deployment) -> Option<Failure> {
    let condition = deployment
        .status
        .as_ref()?
        .conditions
        .as_ref()?
        .iter()
        .find(|c| c.type_ == "ReplicaFailure" && c.status == "True")?;
    Some(Failure::new(
        reasons::POD_REFUSED,
        format!(
            "the cluster refuses the pod: {}",
            condition.message.as_deref().unwrap_or("no reason given")
        ),
    ))
}

fn still_starting(pod: &Pod) -> Failure {
    let name = pod.metadata.name.as_deref().unwrap_or("?");
    let restarts: i32 = statuses(pod).map(|s| s.restart_count).sum();
    let creating = statuses(pod).find_map(|status| {
        let waiting = status.state.as_ref()?.waiting.as_ref()?;
        waiting.reason.clone()
    });
    let state = match creating.as_deref() {
        Some(reason) => format!("is still at {reason}"),
        None => format!("runs but is not ready (restarts: {restarts})"),
    };
    Failure::new(
        reasons::NOT_READY,
        format!("pod {name} {state}; see `kubectl describe pod {name}` and its log"),
    )
}

fn crash(status: &ContainerStatus, fields: &Fields) -> String {
    let name = &status.name;
    let times = status.restart_count;
    let Some(end) = last_end(status) else {
        return format!("container {name} ends again and again (restarts: {times})");
    };
    let why = end.reason.as_deref().unwrap_or("Error");
    let code = end.exit_code;
    let text = end
        .message
        .as_deref()
        .map_or_else(String::new, |m| format!(": {}", m.trim()));
    let remedy = if why == "OOMKilled" {
        format!("; it needs more memory than {}", fields.memory)
    } else {
        String::new()
    };
    format!("container {name} ended with {why} (exit code {code}, restarts: {times}){remedy}{text}")
}

fn unschedulable(pod: &Pod) -> Option<&str> {
    pod.status
        .as_ref()?
        .conditions
        .as_ref()?
        .iter()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False")?
        .message
        .as_deref()
}

/// How the container ended last, now or before its restart.
fn last_end(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    fn end(state: Option<&ContainerState>) -> Option<&ContainerStateTerminated> {
        state?.terminated.as_ref()
    }
    end(status.state.as_ref()).or_else(|| end(status.last_state.as_ref()))
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let init = status.and_then(|s| s.init_container_statuses.as_ref());
    let main = status.and_then(|s| s.container_statuses.as_ref());
    init.into_iter().flatten().chain(main.into_iter().flatten())
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_MESSAGE_BYTES {
        let mut end = MAX_MESSAGE_BYTES;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(" ...");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::operator::custom_script::fixtures::{pod, waiting};

    const EARLY: Duration = Duration::from_secs(5);

    fn failure(status: &Value, elapsed: Duration) -> Option<Failure> {
        find(None, [&pod(1, status)], elapsed)
    }

    fn ended(exit_code: i32, reason: &str, message: &str) -> Value {
        json!({
            "phase": "Running",
            "containerStatuses": [{
                "name": "script", "image": "python:3", "imageID": "", "ready": false, "restartCount": 2,
                "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 20s" } },
                "lastState": { "terminated": { "exitCode": exit_code, "reason": reason, "message": message } }
            }]
        })
    }

    #[test]
    fn a_script_that_does_not_load_fails_at_once_with_its_own_words() {
        let found = failure(&ended(78, "Error", "SyntaxError: line 3\n"), EARLY).unwrap();
        assert_eq!(found.reason, reasons::LOAD_FAILED);
        assert_eq!(
            found.message,
            "the script could not be loaded: SyntaxError: line 3"
        );
    }

    fn step_ended(name: &str, exit_code: i32, message: &str) -> Value {
        json!({
            "phase": "Pending",
            "initContainerStatuses": [{
                "name": name, "image": "scriptscope:1", "imageID": "", "ready": false, "restartCount": 1,
                "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 10s" } },
                "lastState": { "terminated": { "exitCode": exit_code, "reason": "Error", "message": message } }
            }]
        })
    }

    #[test]
    fn a_source_or_packages_that_do_not_come_fail_at_once_with_the_steps_own_words() {
        let found = failure(
            &step_ended("fetch", 78, "spec.source.archive: ... SHA-256\n"),
            EARLY,
        )
        .unwrap();
        assert_eq!(found.reason, reasons::SOURCE_FAILED);
        assert_eq!(found.message, "spec.source.archive: ... SHA-256");
        let log = "requirements.txt could not be installed:\nERROR: No matching distribution found for nope";
        let found = failure(&step_ended("dependencies", 78, log), EARLY).unwrap();
        assert_eq!(found.reason, reasons::DEPENDENCIES_FAILED);
        assert!(found.message.ends_with("found for nope"), "{found}");
        // One that was killed may go through another time.
        assert_eq!(failure(&step_ended("dependencies", 137, ""), EARLY), None);
        let found = failure(&step_ended("dependencies", 137, ""), FAIL_AFTER).unwrap();
        assert!(found.message.contains("container dependencies ended"), "{found}");
    }

    #[test]
    fn a_volume_that_is_full_fails_at_once() {
        let evicted = |message: &str| json!({ "phase": "Failed", "reason": "Evicted", "message": message });
        let full = "Usage of EmptyDir volume \"dependencies\" exceeds the limit \"4Gi\".";
        let found = failure(&evicted(full), EARLY).unwrap();
        assert_eq!(found.reason, reasons::VOLUME_FULL);
        assert!(found.message.contains("exceeds the limit"), "{found}");
        assert_eq!(
            failure(&evicted("The node was low on resource: memory."), EARLY),
            None
        );
    }

    #[test]
    fn an_image_without_the_project_fails_at_once() {
        let mut pod = ended(
            128,
            "StartError",
            "failed to create directory \"/app\": read-only file system",
        );
        let found = failure(&pod, EARLY).unwrap();
        assert_eq!(found.reason, reasons::LOAD_FAILED);
        assert!(found.message.contains("no folder /app"), "{found}");
        pod = ended(128, "StartError", "no such file: \"/scriptscope/scriptscope\"");
        assert!(failure(&pod, EARLY).is_none_or(|f| f.reason != reasons::LOAD_FAILED));
    }

    #[test]
    fn an_image_that_can_never_come_fails_at_once_and_one_that_may_come_later_does_not() {
        for reason in ["InvalidImageName", "ErrImageNeverPull"] {
            assert!(failure(&waiting(reason, "m"), EARLY).is_some(), "{reason}");
        }
        for reason in [
            "ErrImagePull",
            "ImagePullBackOff",
            "CreateContainerConfigError",
            "ContainerCreating",
        ] {
            assert_eq!(failure(&waiting(reason, "m"), EARLY), None, "{reason}");
        }
        let found = failure(&waiting("ImagePullBackOff", "not found"), FAIL_AFTER).unwrap();
        assert_eq!(found.reason, reasons::IMAGE_PULL_FAILED);
        assert!(found.message.contains("not found"), "{found}");
        let found = failure(
            &waiting("CreateContainerConfigError", "secret \"s\" not found"),
            FAIL_AFTER,
        )
        .unwrap();
        assert!(found.message.contains("secret \"s\" not found"), "{found}");
    }

    #[test]
    fn a_crash_loop_says_how_the_container_ended() {
        assert_eq!(failure(&ended(137, "OOMKilled", ""), EARLY), None);
        let found = failure(&ended(137, "OOMKilled", ""), FAIL_AFTER).unwrap();
        assert_eq!(found.reason, reasons::CRASH_LOOP);
        assert!(
            found.message.contains("OOMKilled (exit code 137, restarts: 2)"),
            "{found}"
        );
        assert!(found.message.contains("spec.resources.limits.memory"), "{found}");
    }

    #[test]
    fn a_pod_without_a_node_says_what_the_scheduler_said() {
        let status = json!({
            "phase": "Pending",
            "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                             "message": "0/1 nodes are available: 1 Insufficient cpu." }]
        });
        let found = failure(&status, FAIL_AFTER).unwrap();
        assert_eq!(found.reason, reasons::UNSCHEDULABLE);
        assert!(found.message.contains("Insufficient cpu"), "{found}");
    }

    #[test]
    fn a_refused_pod_says_what_the_cluster_said() {
        let deployment: Deployment = serde_json::from_value(json!({
            "status": { "conditions": [{
                "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
                "message": "pods \"q\" is forbidden: exceeded quota: tiny"
            }] }
        }))
        .unwrap();
        assert_eq!(find(Some(&deployment), [], EARLY), None);
        let found = find(Some(&deployment), [], FAIL_AFTER).unwrap();
        assert_eq!(found.reason, reasons::POD_REFUSED);
        assert!(found.message.contains("exceeded quota: tiny"), "{found}");
    }

    #[test]
    fn without_a_known_cause_the_message_says_where_to_look() {
        let found = find(None, [], FAIL_AFTER).unwrap();
        assert!(found.message.contains("kubectl describe"), "{found}");
        let found = failure(&waiting("ContainerCreating", ""), FAIL_AFTER).unwrap();
        assert!(found.message.contains("ContainerCreating"), "{found}");
        assert!(
            found.message.contains("kubectl describe pod qbalance-1-x"),
            "{found}"
        );
    }

    #[test]
    fn a_failure_is_read_back_from_the_store_and_a_long_one_is_cut() {
        let failure = Failure::new(reasons::UNSCHEDULABLE, "no node: 0/1 nodes");
        assert_eq!(Failure::parse(&failure.to_string()), failure);
        assert_eq!(Failure::parse("a b: c").reason, reasons::DEPLOYMENT_FAILED);
        let long = Failure::new(reasons::LOAD_FAILED, "ä".repeat(3_000));
        assert!(long.message.len() < 4_300 && long.message.ends_with(" ..."));
    }
}
