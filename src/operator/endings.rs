//! How a pod ended, and what that means for the runs it left in progress. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod};

use super::deliveries::Delivery;
use crate::api::labels;

/// So long nothing more of what a container printed must have arrived, until its runs are closed without their ends.
pub const DELIVERY: SignedDuration = SignedDuration::from_secs(10);
/// So long nothing must have arrived until the rest counts as lost. Longer, since that is not to be said too soon.
const UNREAD: SignedDuration = SignedDuration::from_secs(20);
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
    /// The container whose output is the script's.
    pub container: &'a str,
    /// When the oldest of these runs began.
    pub oldest: Timestamp,
    /// The pod, while it exists.
    pub pod: Option<&'a Pod>,
    /// How it went, where it does not.
    pub gone: Option<Gone>,
    /// Whether the script is still to be deployed.
    pub wanted: bool,
    /// How far what it printed has arrived.
    pub delivery: Delivery<'a>,
}

/// What is known about a pod that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Since when it is.
    pub since: Timestamp,
    /// When its container ended, as far as known.
    pub ended: Timestamp,
    /// Why, if that was seen.
    pub ending: Option<Ending>,
    /// How many times its container had begun, if that was seen.
    pub instances: Option<u32>,
    /// How long its runs may take.
    pub timeout: SignedDuration,
}

impl Gone {
    /// The pod was seen to go at `since`.
    pub fn seen(pod: &Pod, name: &str, since: Timestamp) -> Self {
        let end = container(pod, name).and_then(|status| terminated(status.state.as_ref()));
        let finished = end.and_then(|end| end.finished_at.as_ref()).map(|time| time.0);
        Self {
            since,
            ended: finished.filter(|time| *time < since).unwrap_or(since),
            ending: Some(ending(pod, name)),
            instances: Some(instances(pod, name)),
            timeout: timeout(pod, name),
        }
    }

    /// It was found to be gone at `since`.
    pub fn missed(since: Timestamp, timeout: Option<SignedDuration>) -> Self {
        Self {
            since,
            ended: since,
            ending: None,
            instances: None,
            timeout: timeout.unwrap_or(SignedDuration::from_secs(MAX_TIMEOUT_SECONDS)),
        }
    }
}

/// How many times the container has begun. A start that failed is none.
fn instances(pod: &Pod, name: &str) -> u32 {
    let Some(status) = container(pod, name) else {
        return 0;
    };
    let ran = |state: Option<&ContainerState>| {
        let running = state.is_some_and(|state| state.running.is_some());
        let reason = terminated(state).map(|end| end.reason.as_deref().unwrap_or_default());
        running || reason.is_some_and(|reason| !["StartError", "ContainerCannotRun"].contains(&reason))
    };
    if ran(status.state.as_ref()) || ran(status.last_state.as_ref()) {
        u32::try_from(status.restart_count).unwrap_or(0).saturating_add(1)
    } else {
        0
    }
}

/// Whether the container of a managed script has ended for good or until its restart.
pub fn has_ended(pod: &Pod) -> bool {
    container(pod, labels::CONTAINER).is_some_and(|status| terminated(status.state.as_ref()).is_some())
}

/// Which restarts of a pod that is gone were not read to their end; none while more may arrive.
pub fn settlement(gone: &Gone, delivery: &Delivery<'_>, now: Timestamp) -> Option<Vec<u32>> {
    let unread = delivery.unread(gone.instances);
    let is_late = gone.since + UNREAD <= now && delivery.still_since + UNREAD <= now;
    (unread.is_empty() || is_late).then_some(unread)
}

/// How a pod ended, from the last that was seen of it. `name` is that of its container.
pub fn ending(pod: &Pod, name: &str) -> Ending {
    let status = pod.status.as_ref();
    let message = status.and_then(|s| s.message.clone());
    let disrupted = status
        .and_then(|s| s.conditions.as_ref())
        .into_iter()
        .flatten()
        .find(|c| c.type_ == "DisruptionTarget" && c.status == "True");
    if let Some(end) = container(pod, name).and_then(|c| terminated(c.state.as_ref()))
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
    container(pod, name)
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
    let gone = facts.gone.as_ref()?;
    let ending = match gone.ending.clone() {
        Some(ending) if ending.reason != "PodDeleted" || facts.wanted => ending,
        _ if !facts.wanted => Ending::new("Undeployed", "the script was undeployed before the run had ended"),
        _ => lost("the pod is gone and nobody saw it go"),
    };
    let is_complete = facts.delivery.unread(gone.instances).is_empty();
    let begun_before = if is_complete || is_given_up(facts, gone.since, now) {
        now
    } else {
        overdue(facts, gone.timeout, now)?
    };
    Some(Closing {
        ending,
        time: gone.ended,
        begun_before,
    })
}

/// Whether no end of a run is to be expected any more of a container that has ended at `since`.
fn is_given_up(facts: &Facts<'_>, since: Timestamp, now: Timestamp) -> bool {
    since + DELIVERY <= now && facts.delivery.still_since + DELIVERY <= now
}

/// Runs that began before this are overdue, if the oldest is.
fn overdue(facts: &Facts<'_>, timeout: SignedDuration, now: Timestamp) -> Option<Timestamp> {
    let limit = timeout + OVERDUE;
    (facts.oldest + limit <= now).then(|| now - limit + SignedDuration::from_nanos(1))
}

fn in_pod(facts: &Facts<'_>, pod: &Pod, now: Timestamp) -> Option<Closing> {
    let status = container(pod, facts.container);
    let state = status.and_then(|s| s.state.as_ref());
    let running = state
        .and_then(|s| s.running.as_ref())
        .and_then(|r| r.started_at.as_ref());
    let last = status.and_then(|s| terminated(s.last_state.as_ref()));
    let restart = status.map_or(0, |s| u32::try_from(s.restart_count).unwrap_or(0));
    let ended = match (running, terminated(state).or(last)) {
        // Another instance of the container runs by now; what began before it belonged to the one before.
        (Some(started), Some(end)) => Some((end, started.0, restart.saturating_sub(1))),
        (None, Some(end)) => {
            let finished = end.finished_at.as_ref().map_or(now, |t| t.0);
            // Kubernetes cuts times to seconds.
            Some((end, finished + SignedDuration::from_secs(1), restart))
        }
        (_, None) => None,
    };
    if let Some((end, before, restart)) = ended
        && facts.oldest < before
        && (facts.delivery.is_complete(restart) || is_given_up(facts, before, now))
    {
        return Some(Closing {
            ending: if pod_failed(pod) {
                ending(pod, facts.container)
            } else {
                exited(end)
            },
            time: end.finished_at.as_ref().map_or(now, |t| t.0),
            begun_before: before,
        });
    }
    Some(Closing {
        ending: lost("no end of the run arrived within its timeout and a minute"),
        time: now,
        begun_before: overdue(facts, timeout(pod, facts.container), now)?,
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

fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == name)
}

fn terminated(state: Option<&ContainerState>) -> Option<&ContainerStateTerminated> {
    state?.terminated.as_ref()
}

/// The script's timeout, as the pod was told. Nobody tells an adopted one; its runs may take as long as any.
fn timeout(pod: &Pod, name: &str) -> SignedDuration {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice());
    let container = containers.unwrap_or_default().iter().find(|c| c.name == name);
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
    use crate::store::{LastWord, StreamProgress};

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

    /// Nothing has arrived since the morning.
    const STILL: Delivery<'_> = Delivery {
        streams: &[],
        still_since: Timestamp::UNIX_EPOCH,
    };

    fn facts<'a>(oldest: &str, pod: Option<&'a Pod>) -> Facts<'a> {
        Facts {
            container: "script",
            oldest: at(oldest),
            pod,
            gone: None,
            wanted: true,
            delivery: STILL,
        }
    }

    fn gone(since: &str, ending: Option<Ending>) -> Gone {
        Gone {
            since: at(since),
            ended: at(since),
            ending,
            instances: Some(1),
            timeout: SignedDuration::from_secs(60),
        }
    }

    fn stream(is_complete: bool) -> StreamProgress {
        StreamProgress {
            restart: 0,
            offset: 100,
            last_word: is_complete.then_some(LastWord::EndOfFiles),
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
        facts.gone = Some(gone("12:00:30", Some(killed.clone())));
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
        facts.gone = Some(gone("12:00:30", Some(ending(&deleted, "script"))));
        assert_eq!(reason(&facts), "PodDeleted");
        facts.wanted = false;
        assert_eq!(reason(&facts), "Undeployed");
        facts.gone = Some(gone("12:00:30", None));
        assert_eq!(reason(&facts), "Undeployed");
        facts.wanted = true;
        assert_eq!(reason(&facts), "LostContact");
    }

    #[test]
    fn runs_are_closed_at_once_when_everything_has_arrived_and_not_while_more_does() {
        let (complete, open) = ([stream(true)], [stream(false)]);
        let mut facts = facts("12:00:00", None);
        facts.gone = Some(gone("12:00:30", Some(lost("x"))));
        facts.delivery.streams = &complete;
        let closing = judge(&facts, at("12:00:31")).unwrap();
        assert_eq!(closing.time, at("12:00:30"));
        facts.delivery = Delivery {
            streams: &open,
            still_since: at("12:00:45"),
        };
        assert_eq!(judge(&facts, at("12:00:54")), None, "it arrived a moment ago");
        assert!(judge(&facts, at("12:00:55")).is_some());
        // Whatever arrives, none stays longer than its timeout and a minute.
        facts.delivery.still_since = at("12:01:54");
        assert_eq!(judge(&facts, at("12:01:54")), None);
        let closing = judge(&facts, at("12:01:55")).unwrap();
        assert!(closing.begun_before > at("12:00:00") && closing.begun_before < at("12:00:01"));
    }

    #[test]
    fn the_runs_of_an_ended_container_wait_for_what_it_printed() {
        let pod = with_container(
            &running_since("12:01:00"),
            &terminated_at("12:00:55", "OOMKilled"),
        );
        let mut facts = facts("12:00:50", Some(&pod));
        let (complete, open) = ([stream(true)], [stream(false)]);
        facts.delivery.streams = &complete;
        assert_eq!(judge(&facts, at("12:01:01")).unwrap().ending.reason, "OOMKilled");
        facts.delivery = Delivery {
            streams: &open,
            still_since: at("12:01:20"),
        };
        assert_eq!(judge(&facts, at("12:01:29")), None);
        assert!(judge(&facts, at("12:01:30")).is_some());
    }

    #[test]
    fn what_did_not_arrive_counts_as_lost_after_a_while_of_silence() {
        let (complete, open) = ([stream(true)], [stream(false)]);
        let gone = gone("12:00:00", None);
        let delivery = |streams, still_since| Delivery { streams, still_since };
        let late = at("12:00:20");
        assert_eq!(settlement(&gone, &delivery(&complete, late), late), Some(vec![]));
        assert_eq!(
            settlement(&gone, &delivery(&open, at("11:00:00")), at("12:00:19")),
            None
        );
        assert_eq!(
            settlement(&gone, &delivery(&open, at("11:00:00")), late),
            Some(vec![0])
        );
        assert_eq!(
            settlement(&gone, &delivery(&open, at("12:00:05")), late),
            None,
            "it moves"
        );
    }

    #[test]
    fn containers_that_never_began_have_nothing_to_read() {
        let count = |pod: &Pod| Gone::seen(pod, "script", at("12:00:00")).instances;
        let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
        assert_eq!(count(&pod(&json!({}))), Some(0));
        assert_eq!(
            count(&with_container(&json!({ "waiting": {} }), &json!({}))),
            Some(0)
        );
        let failed = terminated_at("11:00:00", "StartError");
        assert_eq!(count(&with_container(&waiting, &failed)), Some(0));
        let killed = terminated_at("11:00:00", "OOMKilled");
        assert_eq!(count(&with_container(&waiting, &killed)), Some(2));
        assert_eq!(
            count(&with_container(&running_since("11:00:00"), &json!({}))),
            Some(2)
        );
        let end = Gone::seen(&with_container(&killed, &json!({})), "script", at("12:00:00"));
        assert_eq!(end.ended, at("11:00:00"));
    }
}
