//! How a pod ended, and what that means for the runs it left in progress. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod};

use crate::api::labels;

/// How long the agent has for delivering what a container printed last.
pub const DELIVERY: SignedDuration = SignedDuration::from_secs(10);
/// A run older than its timeout by this is closed. Less than the promised 60 seconds, for the time between two looks.
const OVERDUE: SignedDuration = SignedDuration::from_secs(55);
/// The longest timeout that a script can have.
const MAX_TIMEOUT_SECONDS: i64 = 600;

/// Why something ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// In one word; the reason of the runs.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Ending {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// Runs to close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// Why they ended.
    pub ending: Ending,
    /// When they ended.
    pub time: Timestamp,
    /// Only those that began before this.
    pub begun_before: Timestamp,
}

/// What is known about a pod with runs in progress.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// When the oldest of these runs began.
    pub oldest: Timestamp,
    /// The pod, while it exists.
    pub pod: Option<&'a Pod>,
    /// Since when it does not, and why if that was seen.
    pub gone: Option<(Timestamp, Option<Ending>)>,
    /// Whether the script is still to be deployed.
    pub wanted: bool,
}

/// How a pod ended, from the last that was seen of it.
pub fn ending(pod: &Pod) -> Ending {
    let status = pod.status.as_ref();
    let message = status.and_then(|s| s.message.clone());
    let disrupted = status
        .and_then(|s| s.conditions.as_ref())
        .into_iter()
        .flatten()
        .find(|c| c.type_ == "DisruptionTarget" && c.status == "True");
    if let Some(end) = container(pod).and_then(|c| terminated(c.state.as_ref()))
        && end.reason.as_deref() == Some("OOMKilled")
    {
        return exited(end);
    }
    if status.and_then(|s| s.reason.as_deref()) == Some("Evicted") {
        return Ending::new("Evicted", message.unwrap_or_else(|| "the pod was evicted".into()));
    }
    if let Some(condition) = disrupted {
        let why = condition.message.as_deref().or(condition.reason.as_deref());
        return Ending::new("Evicted", why.unwrap_or("the pod was evicted"));
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return Ending::new("PodDeleted", "the pod was deleted before the run had ended");
    }
    container(pod)
        .and_then(|c| terminated(c.state.as_ref()))
        .map_or_else(
            || Ending::new("PodDeleted", "the pod went before the run had ended"),
            exited,
        )
}

/// The runs to close, if any.
pub fn judge(facts: &Facts<'_>, now: Timestamp) -> Option<Closing> {
    let closing = match facts.pod {
        Some(pod) => in_pod(facts, pod, now),
        None => without_pod(facts, now),
    }?;
    // A run that began after all this is none of its business.
    (facts.oldest < closing.begun_before).then_some(closing)
}

fn without_pod(facts: &Facts<'_>, now: Timestamp) -> Option<Closing> {
    let (since, ending) = facts.gone.clone()?;
    let ending = match ending {
        Some(ending) if ending.reason != "PodDeleted" || facts.wanted => ending,
        _ if !facts.wanted => Ending::new("Undeployed", "the script was undeployed before the run had ended"),
        _ => lost("the pod is gone and nobody saw it go"),
    };
    (since + DELIVERY <= now).then_some(Closing {
        ending,
        time: since,
        begun_before: now,
    })
}

fn in_pod(facts: &Facts<'_>, pod: &Pod, now: Timestamp) -> Option<Closing> {
    let status = container(pod);
    let state = status.and_then(|s| s.state.as_ref());
    let running = state
        .and_then(|s| s.running.as_ref())
        .and_then(|r| r.started_at.as_ref());
    let last = status.and_then(|s| terminated(s.last_state.as_ref()));
    let ended = match (running, terminated(state).or(last)) {
        // Another instance of the container runs by now; what began before it belonged to the one before.
        (Some(started), Some(end)) => Some((end, started.0)),
        (None, Some(end)) => {
            let finished = end.finished_at.as_ref().map_or(now, |t| t.0);
            // Kubernetes cuts times to seconds.
            Some((end, finished + SignedDuration::from_secs(1)))
        }
        (_, None) => None,
    };
    if let Some((end, before)) = ended
        && facts.oldest < before
        && before + DELIVERY <= now
    {
        return Some(Closing {
            ending: if pod_failed(pod) { ending(pod) } else { exited(end) },
            time: end.finished_at.as_ref().map_or(now, |t| t.0),
            begun_before: before,
        });
    }
    let limit = timeout(pod) + OVERDUE;
    (facts.oldest + limit <= now).then(|| Closing {
        ending: lost("no end of the run arrived within its timeout and a minute"),
        time: now,
        begun_before: now - limit + SignedDuration::from_nanos(1),
    })
}

fn pod_failed(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    phase == Some("Failed")
}

fn lost(message: &str) -> Ending {
    Ending::new("LostContact", message)
}

fn exited(end: &ContainerStateTerminated) -> Ending {
    let code = end.exit_code;
    if end.reason.as_deref() == Some("OOMKilled") {
        let message = "the container was killed for using more memory than spec.resources.limits.memory";
        return Ending::new("OOMKilled", message);
    }
    Ending::new(
        "ContainerExited",
        format!("the container ended with exit code {code} before the run had"),
    )
}

fn container(pod: &Pod) -> Option<&ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == labels::CONTAINER)
}

fn terminated(state: Option<&ContainerState>) -> Option<&ContainerStateTerminated> {
    state?.terminated.as_ref()
}

/// The script's timeout, as the pod was told.
fn timeout(pod: &Pod) -> SignedDuration {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice());
    let container = containers
        .unwrap_or_default()
        .iter()
        .find(|c| c.name == labels::CONTAINER);
    let told = container
        .and_then(|c| c.env.as_ref())
        .into_iter()
        .flatten()
        .find(|variable| variable.name == "SCRIPTSCOPE_TIMEOUT_SECONDS")
        .and_then(|variable| variable.value.as_ref()?.parse().ok());
    SignedDuration::from_secs(told.unwrap_or(MAX_TIMEOUT_SECONDS))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2025-05-14T{text}Z").parse().unwrap()
    }

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "shop", "uid": "u" },
            "spec": { "containers": [{ "name": "script", "env": [{ "name": "SCRIPTSCOPE_TIMEOUT_SECONDS", "value": "60" }] }] },
            "status": status
        }))
        .unwrap()
    }

    fn with_container(state: &Value, last_state: &Value) -> Pod {
        pod(&json!({ "phase": "Running", "containerStatuses": [{
            "name": "script", "image": "", "imageID": "", "ready": true, "restartCount": 1,
            "state": state, "lastState": last_state
        }] }))
    }

    fn terminated_at(time: &str, reason: &str) -> Value {
        json!({ "terminated": { "exitCode": 137, "reason": reason, "finishedAt": format!("2025-05-14T{time}Z") } })
    }

    fn running_since(time: &str) -> Value {
        json!({ "running": { "startedAt": format!("2025-05-14T{time}Z") } })
    }

    fn facts<'a>(oldest: &str, pod: Option<&'a Pod>) -> Facts<'a> {
        Facts {
            oldest: at(oldest),
            pod,
            gone: None,
            wanted: true,
        }
    }

    #[test]
    fn a_run_in_a_pod_that_serves_is_left_alone_until_it_is_overdue() {
        let pod = with_container(&running_since("12:00:00"), &json!({}));
        let facts = facts("12:00:10", Some(&pod));
        assert_eq!(judge(&facts, at("12:02:04")), None);
        let closing = judge(&facts, at("12:02:05")).unwrap();
        assert_eq!(closing.ending.reason, "LostContact");
        // Younger runs of the same pod go on.
        assert!(closing.begun_before > at("12:00:10") && closing.begun_before < at("12:00:11"));
    }

    #[test]
    fn a_restart_closes_the_runs_of_the_container_before_and_only_those() {
        let pod = with_container(
            &running_since("12:01:00"),
            &terminated_at("12:00:55", "OOMKilled"),
        );
        let before = facts("12:00:50", Some(&pod));
        assert_eq!(
            judge(&before, at("12:01:09")),
            None,
            "the agent may still deliver its end"
        );
        let closing = judge(&before, at("12:01:10")).unwrap();
        assert_eq!(closing.ending.reason, "OOMKilled");
        assert_eq!(
            (closing.time, closing.begun_before),
            (at("12:00:55"), at("12:01:00"))
        );
        assert_eq!(judge(&facts("12:01:01", Some(&pod)), at("12:01:30")), None);
    }

    #[test]
    fn a_container_that_waits_for_its_restart_closes_its_runs() {
        let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
        let pod = with_container(&waiting, &terminated_at("12:00:55", "Error"));
        let closing = judge(&facts("12:00:55.5", Some(&pod)), at("12:01:06")).unwrap();
        assert_eq!(closing.ending.reason, "ContainerExited");
        assert!(
            closing.ending.message.contains("137"),
            "{}",
            closing.ending.message
        );
    }

    #[test]
    fn an_evicted_pod_says_so() {
        let pod = pod(&json!({
            "phase": "Failed", "reason": "Evicted", "message": "The node was low on memory.",
            "containerStatuses": [{ "name": "script", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                                    "state": terminated_at("12:00:55", "Error") }]
        }));
        let closing = judge(&facts("12:00:10", Some(&pod)), at("12:01:30")).unwrap();
        assert_eq!(
            closing.ending,
            Ending::new("Evicted", "The node was low on memory.")
        );
    }

    #[test]
    fn the_runs_of_a_pod_that_is_gone_are_closed_after_the_agent_had_its_time() {
        let killed = Ending::new("OOMKilled", "memory");
        let mut facts = facts("12:00:00", None);
        assert_eq!(judge(&facts, at("13:00:00")), None, "not known to be gone");
        facts.gone = Some((at("12:00:30"), Some(killed.clone())));
        assert_eq!(judge(&facts, at("12:00:39")), None);
        let closing = judge(&facts, at("12:00:40")).unwrap();
        assert_eq!((closing.ending, closing.time), (killed, at("12:00:30")));
    }

    #[test]
    fn a_deleted_pod_means_undeployed_where_that_was_asked_for() {
        let mut deleted = pod(&json!({}));
        deleted.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2025-05-14T12:00:00Z")).unwrap());
        let mut facts = facts("12:00:00", None);
        let reason = |facts: &Facts<'_>| judge(facts, at("12:10:00")).unwrap().ending.reason;
        facts.gone = Some((at("12:00:30"), Some(ending(&deleted))));
        assert_eq!(reason(&facts), "PodDeleted");
        facts.wanted = false;
        assert_eq!(reason(&facts), "Undeployed");
        facts.gone = Some((at("12:00:30"), None));
        assert_eq!(reason(&facts), "Undeployed");
        facts.wanted = true;
        assert_eq!(reason(&facts), "LostContact");
    }
}
