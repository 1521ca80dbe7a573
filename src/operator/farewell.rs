//! Tells runners that wait for it that their last record is stored, and people what could not be read.

use std::{net::IpAddr, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Resource,
    runtime::{
        events::EventType,
        reflector::{ObjectRef, Store},
    },
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Scope,
    context::Context,
    custom_script::{RUNNER_PORT, is_runner},
    endings::has_ended,
};
use crate::{
    api::{CustomScript, labels},
    ingest::{CommitListener, wire::StreamKey},
    metrics::Metrics,
    model::ScriptKey,
    runner::STORED_PATH,
    store::{Gap, LastWord, PodRecord, StreamProgress},
};

/// Notices that may wait. What does not fit is told later by the look at pods that stop.
const QUEUE: usize = 1_024;
/// Runners told, and events published, at once.
const CONCURRENCY: usize = 32;
/// Longest time for telling a runner once.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Reason of the gap where nobody ever knew the pod.
const UNKNOWN_POD: &str = "UnknownPod";
/// Reason of the events about gaps.
const LOG_GAP: &str = "LogGap";

/// Something to tell.
#[derive(Debug)]
pub enum Notice {
    /// To the runner in a pod: its last record, which holds this token, is stored.
    Stored {
        /// The pod's object.
        pod: ObjectRef<Pod>,
        /// Its UID.
        uid: String,
        /// The token.
        token: String,
    },
    /// To people: lines are missing.
    Gap {
        /// Whose lines.
        script: ScriptKey,
        /// Version.
        version: i64,
        /// Name of the pod.
        pod: String,
        /// Why, in one word.
        reason: String,
    },
}

/// Takes in what is to be told.
#[derive(Clone)]
pub struct Notices {
    sender: mpsc::Sender<Notice>,
    metrics: Metrics,
    scope: Scope,
}

impl Notices {
    /// The way in, and what comes out.
    pub fn new(metrics: Metrics, scope: Scope) -> (Self, mpsc::Receiver<Notice>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (
            Self {
                sender,
                metrics,
                scope,
            },
            receiver,
        )
    }

    /// Tells soon; forgets it where too much waits.
    pub fn tell(&self, notice: Notice) {
        if self.sender.try_send(notice).is_err() {
            tracing::debug!("Too many notices wait; one is dropped.");
        }
    }
}

impl CommitListener for Notices {
    fn runner_stopped(&self, pod: &PodRecord, token: &str) {
        self.tell(Notice::Stored {
            pod: ObjectRef::new(&pod.name).within(&pod.script.namespace),
            uid: pod.uid.clone(),
            token: token.to_owned(),
        });
    }

    fn gap_recorded(&self, pod: &PodRecord, gap: &Gap) {
        self.tell(Notice::Gap {
            script: pod.script.clone(),
            version: pod.version,
            pod: pod.name.clone(),
            reason: gap.reason.clone(),
        });
    }

    fn given_up(&self, stream: &StreamKey) {
        // Others may have been anybody's.
        if stream.container == labels::CONTAINER && self.scope.contains(&stream.namespace) {
            self.metrics.gap(UNKNOWN_POD);
            tracing::warn!(
                namespace = stream.namespace,
                pod = stream.pod,
                "A pod that may have been a script's came and went while the operator was away; its log is lost."
            );
        }
    }
}

/// Runs until it is told to stop.
pub async fn run(
    context: Arc<Context>,
    scripts: Store<CustomScript>,
    notices: mpsc::Receiver<Notice>,
    shutdown: CancellationToken,
) {
    let client = match client() {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(%error, "Runners can not be told that their records are stored; they wait as long as they may.");
            return shutdown.cancelled().await;
        }
    };
    let notices = stream::unfold(notices, |mut notices| async {
        Some((notices.recv().await?, notices))
    });
    let telling = notices.for_each_concurrent(CONCURRENCY, |notice| {
        deliver(context.clone(), scripts.clone(), client.clone(), notice)
    });
    shutdown.run_until_cancelled(telling).await;
}

async fn deliver(
    context: Arc<Context>,
    scripts: Store<CustomScript>,
    client: reqwest::Client,
    notice: Notice,
) {
    match notice {
        Notice::Stored { pod, uid, token } => told(&context, &client, &pod, &uid, token).await,
        Notice::Gap {
            script,
            version,
            pod,
            reason,
        } => publish(&context, &scripts, &script, version, &pod, &reason).await,
    }
}

/// To pods only, never through a proxy.
fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .timeout(TIMEOUT)
        .build()
}

async fn told(context: &Context, client: &reqwest::Client, place: &ObjectRef<Pod>, uid: &str, token: String) {
    let pod = context.pods.get(place);
    let pod = pod.filter(|pod| pod.metadata.uid.as_deref() == Some(uid));
    let Some(address) = pod.as_deref().and_then(address) else {
        return;
    };
    let url = format!("http://{address}{STORED_PATH}");
    match client
        .post(url)
        .body(token)
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
    {
        Ok(_) => tracing::debug!(%place, "A runner was told that its last record is stored."),
        // It may have ended already, or be asked again soon.
        Err(error) => {
            tracing::debug!(%place, %error, "A runner could not be told that its last record is stored.");
        }
    }
}

/// Where the runner of a pod listens, if there is one.
fn address(pod: &Pod) -> Option<String> {
    if !is_runner(pod) || has_ended(pod) {
        return None;
    }
    let ip: IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    let port = u16::try_from(RUNNER_PORT).ok()?;
    Some(std::net::SocketAddr::new(ip, port).to_string())
}

/// The token that a stopping pod's runner waits for, once its record is stored.
pub fn awaited(pod: &Pod, streams: &[StreamProgress]) -> Option<String> {
    pod.metadata.deletion_timestamp.as_ref()?;
    match streams.last()?.last_word.as_ref()? {
        LastWord::RunnerStopped { token } if !has_ended(pod) => Some(token.clone()),
        LastWord::RunnerStopped { .. } | LastWord::EndOfFiles => None,
    }
}

async fn publish(
    context: &Context,
    scripts: &Store<CustomScript>,
    key: &ScriptKey,
    version: i64,
    pod: &str,
    reason: &str,
) {
    let Some(script) = scripts.get(&ObjectRef::new(&key.name).within(&key.namespace)) else {
        return;
    };
    let note = format!(
        "Lines of pod {pod}, version {version}, could not be read: {}. See gaps in the script's logs.",
        why(reason)
    );
    // One event a version and reason, counted on.
    let action = format!("ReadVersion{version}{reason}");
    context
        .event(&script.object_ref(&()), EventType::Warning, LOG_GAP, action, note)
        .await;
}

/// For people.
fn why(reason: &str) -> String {
    let text = match reason {
        crate::store::POD_ENDED_UNREAD => "the pod ended before the node's agent had read its log",
        "FileRotatedAway" => "kubelet removed a log file before it was read",
        "FileTruncated" => "a log file was cut short",
        "WrittenAfterRotation" => "a log file was written to after its successor was begun",
        "Unreadable" => "a log file is damaged",
        other => other,
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(state: &serde_json::Value, ip: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "shop", "uid": "u", "deletionTimestamp": "2025-05-14T12:00:00Z"},
            "spec": {"containers": [{"name": "script", "command": ["/scriptscope/scriptscope", "runner"]}]},
            "status": {"podIP": ip, "containerStatuses": [{
                "name": "script", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": state
            }]}
        }))
        .unwrap()
    }

    #[test]
    fn a_runner_is_told_at_its_pods_address_while_it_runs() {
        let running = json!({"running": {"startedAt": "2025-05-14T11:00:00Z"}});
        let ended = json!({"terminated": {"exitCode": 0}});
        assert_eq!(
            address(&pod(&running, "10.1.2.3")).as_deref(),
            Some("10.1.2.3:8080")
        );
        assert_eq!(
            address(&pod(&running, "fd00::7")).as_deref(),
            Some("[fd00::7]:8080")
        );
        assert_eq!(address(&pod(&running, "metadata.internal")), None);
        assert_eq!(address(&pod(&ended, "10.1.2.3")), None);
        let mut foreign = pod(&running, "10.1.2.3");
        foreign.spec.as_mut().unwrap().containers[0].command = None;
        assert_eq!(address(&foreign), None, "nobody there waits for it");
    }

    #[test]
    fn a_stopping_pod_waits_for_the_token_of_its_last_stream() {
        let stream = |restart, word| StreamProgress {
            restart,
            offset: 9,
            last_word: word,
        };
        let said = LastWord::RunnerStopped { token: "t".into() };
        let running = pod(&json!({"running": {}}), "10.1.2.3");
        assert_eq!(
            awaited(&running, &[stream(0, Some(said.clone()))]).as_deref(),
            Some("t")
        );
        assert_eq!(
            awaited(&running, &[stream(0, Some(said.clone())), stream(1, None)]),
            None
        );
        assert_eq!(awaited(&running, &[stream(0, Some(LastWord::EndOfFiles))]), None);
        let ended = pod(&json!({"terminated": {"exitCode": 0}}), "10.1.2.3");
        assert_eq!(awaited(&ended, &[stream(0, Some(said.clone()))]), None);
        let mut serving = running;
        serving.metadata.deletion_timestamp = None;
        assert_eq!(awaited(&serving, &[stream(0, Some(said))]), None);
    }
}
