//! Closes runs whose pod ended without saying how they did.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio_util::sync::CancellationToken;

use super::{
    context::Context,
    endings::{Facts, judge},
    pods::PodIndex,
};
use crate::{
    api::{CustomScript, DesiredState},
    model::ScriptKey,
    store::{CloseRuns, PodRecord, StoreError},
};

/// How often to look.
const TICK: Duration = Duration::from_secs(2);
/// Longest time for one look.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Runs until it is told to stop. `index` and `scripts` must have seen the whole cluster once: a pod
/// that was not seen yet is not one that is gone.
pub async fn run(
    context: Arc<Context>,
    index: Arc<PodIndex>,
    scripts: Store<CustomScript>,
    shutdown: CancellationToken,
) {
    let mut missing = HashMap::new();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        let look = close(&context, &index, &scripts, &mut missing);
        match tokio::time::timeout(TIMEOUT, look).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "Runs of ended pods could not be closed."),
            Err(_) => tracing::warn!("Runs of ended pods were not closed in time."),
        }
    }
}

async fn close(
    context: &Context,
    index: &PodIndex,
    scripts: &Store<CustomScript>,
    missing: &mut HashMap<String, Timestamp>,
) -> Result<(), StoreError> {
    let open = context.store.pods_with_open_runs().await?;
    let uids: HashSet<String> = open.iter().map(|(pod, _)| pod.uid.clone()).collect();
    missing.retain(|uid, _| uids.contains(uid));
    index.forget(&uids);
    for (record, oldest) in open {
        let now = Timestamp::now();
        let place = ObjectRef::new(&record.name).within(&record.script.namespace);
        let pod = context
            .pods
            .get(&place)
            .filter(|pod| pod.metadata.uid.as_deref() == Some(&record.uid));
        let gone = pod.is_none().then(|| match index.gone(&record.uid) {
            Some((since, ending)) => (since, Some(ending)),
            None => (*missing.entry(record.uid.clone()).or_insert(now), None),
        });
        let facts = Facts {
            oldest,
            pod: pod.as_deref(),
            gone,
            wanted: is_wanted(scripts, &record.script),
        };
        if let Some(closing) = judge(&facts, now) {
            close_pod(context, &record, closing).await?;
        }
    }
    Ok(())
}

async fn close_pod(
    context: &Context,
    record: &PodRecord,
    closing: super::endings::Closing,
) -> Result<(), StoreError> {
    let closed = context
        .store
        .close_runs(&CloseRuns {
            pod_uid: record.uid.clone(),
            begun_before: closing.begun_before,
            reason: closing.ending.reason.to_owned(),
            message: closing.ending.message,
            time: closing.time,
        })
        .await?;
    if closed > 0 {
        let reason = closing.ending.reason;
        tracing::info!(script = %record.script, pod = record.name, closed, reason, "Runs without an end were closed.");
    }
    Ok(())
}

fn is_wanted(scripts: &Store<CustomScript>, key: &ScriptKey) -> bool {
    scripts
        .get(&ObjectRef::new(&key.name).within(&key.namespace))
        .is_some_and(|script| {
            script.spec.desired_state == DesiredState::Deployed
                && script.metadata.deletion_timestamp.is_none()
        })
}
