//! Ends what a process before this one has left unended in a database that is kept.

use jiff::Timestamp;

use super::shared::NAMESPACE;
use crate::{
    model::{DeploymentState, ScriptKey},
    store::{CloseRuns, PodRecord, SettlePod, Store, StoreError},
};

/// Reason of runs whose end nobody saw.
const LOST: &str = "LostContact";

/// Ends runs in progress and versions that served. Nobody else uses the database: it is locked.
pub async fn end_leftovers(store: &dyn Store, script: &ScriptKey) -> Result<(), StoreError> {
    let pods = store.unsettled_pods().await?;
    for pod in pods.iter().filter(|pod| pod.script.namespace == NAMESPACE) {
        let message = "scriptscope dev ended before the run did, and did not see how it ended";
        settle(store, pod, LOST, message).await?;
    }
    let reason = "scriptscope dev ended without ending it";
    end_deployments(store, script, reason).await
}

/// Ends versions that have not ended.
pub async fn end_deployments(store: &dyn Store, script: &ScriptKey, reason: &str) -> Result<(), StoreError> {
    for deployment in store.deployments(script, usize::MAX).await? {
        if !deployment.state.is_ended() {
            let (state, now) = (DeploymentState::Undeployed, Timestamp::now());
            store
                .set_deployment_state(script, deployment.version, state, Some(reason), now)
                .await?;
        }
    }
    Ok(())
}

/// Nothing more comes of a pod: its runs in progress end, and what of its output did not come is a gap.
pub async fn settle(
    store: &dyn Store,
    pod: &PodRecord,
    reason: &str,
    message: &str,
) -> Result<(), StoreError> {
    let time = Timestamp::now();
    close_runs(store, pod, reason, message).await?;
    let uid = pod.uid.clone();
    let streams = store.pod_streams(std::slice::from_ref(&uid)).await?;
    let unread = streams.get(&uid).into_iter().flatten();
    let unread = unread
        .filter(|stream| stream.last_word.is_none())
        .map(|stream| stream.restart)
        .collect();
    store.settle_pod(&SettlePod { uid, unread, time }).await?;
    Ok(())
}

/// Ends the runs that a runner left in progress.
pub async fn close_runs(
    store: &dyn Store,
    pod: &PodRecord,
    reason: &str,
    message: &str,
) -> Result<(), StoreError> {
    let time = Timestamp::now();
    let close = CloseRuns {
        pod_uid: pod.uid.clone(),
        begun_before: time,
        reason: reason.to_owned(),
        message: message.to_owned(),
        time,
    };
    store.close_runs(&close).await?;
    Ok(())
}
