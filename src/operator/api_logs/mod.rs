//! Logs through the API server, for clusters where no agent may run on the nodes. Best effort: what is rotated away before
//! it was read is missing, standard output and standard error can not be told apart, and whether anything is missing is
//! not always known. Where it may be, there is a gap of the reason `ApiFollowInterrupted`.

mod follow;
mod lines;
mod resume;

use std::{collections::HashSet, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{Client, ResourceExt};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{pod_index::PodIndex, script_pods::ScriptPods};
use crate::ingest::{Ingest, wire::StreamKey};

/// How often pods are looked at.
const TICK: Duration = Duration::from_millis(500);

/// How what scripts print gets to the operator.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Collection {
    /// Agents on the nodes deliver it: nothing is lost.
    #[default]
    Agent,
    /// The operator follows it through the API server: best effort.
    Api,
}

/// Follows the logs of all scripts' pods.
pub struct ApiLogs {
    /// The cluster.
    pub client: Client,
    /// Where logs go.
    pub ingest: Arc<Ingest>,
    /// The pods that may be scripts'.
    pub pods: ScriptPods,
    /// Which of them are a script's.
    pub index: Arc<PodIndex>,
}

impl ApiLogs {
    /// Runs until it is told to stop.
    pub async fn run(self, shutdown: CancellationToken) {
        tracing::info!("Following logs through the API server: best effort.");
        shutdown.run_until_cancelled(self.follow_all()).await;
    }

    async fn follow_all(self) {
        let mut followers: JoinSet<()> = JoinSet::new();
        // Also those that are read to their end.
        let mut followed: HashSet<StreamKey> = HashSet::new();
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                Some(ended) = followers.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "Following a log failed.");
                    }
                    continue;
                }
                _ = tick.tick() => {}
            }
            let present = self.present();
            for key in present.difference(&followed) {
                let (client, ingest) = (self.client.clone(), self.ingest.clone());
                followers.spawn(follow::follow(client, ingest, key.clone()));
            }
            followed = present;
        }
    }

    /// The containers of which there is a log.
    fn present(&self) -> HashSet<StreamKey> {
        let pods = self.pods.state();
        let scripts = pods.iter().filter_map(|pod| {
            let container = self.index.container(pod.metadata.uid.as_deref()?)?;
            Some(streams(pod, &container))
        });
        scripts.flatten().collect()
    }
}

/// The container's stream and, as its log is kept, that of the one before its last restart.
fn streams(pod: &Pod, container: &str) -> Vec<StreamKey> {
    let Some(status) = follow::container(pod, container) else {
        return Vec::new();
    };
    let state = status.state.as_ref();
    let has_begun = state.is_some_and(|state| state.running.is_some() || state.terminated.is_some());
    let restarts = u32::try_from(status.restart_count).unwrap_or(0);
    let last = has_begun.then_some(restarts);
    let before = restarts.checked_sub(1);
    let key = |restart| StreamKey {
        namespace: pod.namespace().unwrap_or_default(),
        pod: pod.name_any(),
        pod_uid: pod.uid().unwrap_or_default(),
        container: container.to_owned(),
        restart,
    };
    last.into_iter().chain(before).map(key).collect()
}
