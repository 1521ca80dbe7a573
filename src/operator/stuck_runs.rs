//! Closes runs whose pod ended without saying how they did, and finds pods whose logs were not read to their end.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio_util::sync::CancellationToken;

use super::{
    context::Context,
    deliveries::{Deliveries, Delivery},
    endings::{Closing, Facts, Gone, judge, settlement},
    farewell::{Notice, Notices, awaited},
    pod_index::PodIndex,
};
use crate::{
    api::{CustomScript, DesiredState},
    model::ScriptKey,
    store::{CloseRuns, PodRecord, SettlePod, StoreError, StreamProgress},
};

/// How often to look.
const TICK: Duration = Duration::from_secs(2);
/// How often to look for pods that nobody saw go.
const SWEEP: Duration = Duration::from_secs(30);
/// Longest time for one look.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What there is to look at.
pub struct Watchman {
    /// Store and cluster.
    pub context: Arc<Context>,
    /// The pods seen so far.
    pub index: Arc<PodIndex>,
    /// The scripts there are.
    pub scripts: Store<CustomScript>,
    /// Where to say what was found.
    pub notices: Notices,
}

/// What is remembered from one look to the next.
#[derive(Default)]
struct Memory {
    /// Pods that are gone though nobody saw them go.
    missed: HashMap<String, Gone>,
    /// Those that are gone and not settled.
    unsettled: HashMap<String, PodRecord>,
    swept: Option<Instant>,
    deliveries: Deliveries,
}

impl Watchman {
    /// Runs until it is told to stop. Index and scripts must have seen the whole cluster once: a pod that was not seen
    /// yet is not one that is gone.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut memory = Memory::default();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
            match tokio::time::timeout(TIMEOUT, self.look(&mut memory)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "Runs of ended pods could not be closed."),
                Err(_) => tracing::warn!("Runs of ended pods were not closed in time."),
            }
        }
    }

    async fn look(&self, memory: &mut Memory) -> Result<(), StoreError> {
        let store = &self.context.store;
        let mut open = store.pods_with_open_runs().await?;
        open.retain(|(pod, _)| self.index.watches(&pod.script.namespace));
        let oldest = open.iter().map(|(_, oldest)| *oldest).min();
        let age = oldest.map_or(0.0, |at| Timestamp::now().duration_since(at).as_secs_f64());
        self.context.metrics.oldest_open_run(age);
        self.find_unsettled(memory).await?;
        let stopping = self.stopping();
        let mut needed: HashSet<String> = open.iter().map(|(pod, _)| pod.uid.clone()).collect();
        needed.extend(memory.unsettled.keys().cloned());
        memory.missed.retain(|uid, _| needed.contains(uid));
        memory.deliveries.retain(&needed);
        self.index.forget(&needed);
        let mut uids: Vec<String> = needed.into_iter().collect();
        uids.extend(stopping.iter().filter_map(|pod| pod.metadata.uid.clone()));
        let streams = if uids.is_empty() {
            HashMap::new()
        } else {
            store.pod_streams(&uids).await?
        };
        let none = Vec::new();
        let streams_of = |uid: &str| streams.get(uid).unwrap_or(&none);
        for (record, oldest) in open {
            self.close_runs(memory, &record, oldest, streams_of(&record.uid))
                .await?;
        }
        let unsettled: Vec<PodRecord> = memory.unsettled.values().cloned().collect();
        for record in unsettled {
            self.settle(memory, &record, streams_of(&record.uid)).await?;
        }
        for pod in stopping {
            // Not reached the first time, or the operator was another process then.
            if let Some(uid) = pod.metadata.uid.clone()
                && let Some(token) = awaited(&pod, streams_of(&uid))
            {
                let pod = ObjectRef::from_obj(pod.as_ref());
                self.notices.tell(Notice::Stored { pod, uid, token });
            }
        }
        Ok(())
    }

    /// The pod, while it exists.
    fn pod(&self, record: &PodRecord) -> Option<Arc<Pod>> {
        let place = ObjectRef::new(&record.name).within(&record.script.namespace);
        let pod = self.context.pods.get(&place);
        pod.filter(|pod| pod.metadata.uid.as_deref() == Some(&record.uid))
    }

    /// Whether an adopted pod exists of which no more is known yet.
    fn is_to_be_seen(&self, record: &PodRecord) -> bool {
        let script = ObjectRef::new(&record.script.name).within(&record.script.namespace);
        let script = self.scripts.get(&script);
        script.is_some_and(|script| script.spec.workload.is_some())
            && self.context.pods.is_present(&record.uid)
    }

    /// How a pod went that is no more.
    fn gone(&self, memory: &mut Memory, record: &PodRecord) -> Gone {
        if let Some(gone) = self.index.gone(&record.uid) {
            return gone;
        }
        let missed = memory.missed.entry(record.uid.clone());
        let timeout = || {
            let script = ObjectRef::new(&record.script.name).within(&record.script.namespace);
            let script = self.scripts.get(&script);
            // What adopted pods do nobody ends.
            script
                .filter(|script| script.spec.workload.is_none())
                .map(|script| SignedDuration::from_secs(i64::from(script.spec.timeout_seconds)))
        };
        missed
            .or_insert_with(|| Gone::missed(Timestamp::now(), timeout()))
            .clone()
    }

    async fn close_runs(
        &self,
        memory: &mut Memory,
        record: &PodRecord,
        oldest: Timestamp,
        streams: &[StreamProgress],
    ) -> Result<(), StoreError> {
        let now = Timestamp::now();
        let pod = self.pod(record);
        if pod.is_none() && self.is_to_be_seen(record) {
            return Ok(());
        }
        let facts = Facts {
            container: &record.container,
            oldest,
            pod: pod.as_deref(),
            gone: pod.is_none().then(|| self.gone(memory, record)),
            wanted: is_wanted(&self.scripts, &record.script),
            delivery: Delivery {
                streams,
                still_since: memory.deliveries.look(&record.uid, streams, now),
            },
        };
        match judge(&facts, now) {
            Some(closing) => close_pod(&self.context, record, closing).await,
            None => Ok(()),
        }
    }

    // --- logs that were not read to their end

    /// Adds the pods that have gone since the last look; at times all that are not settled are compared with the
    /// cluster.
    async fn find_unsettled(&self, memory: &mut Memory) -> Result<(), StoreError> {
        let seen = self.index.unsettled();
        let is_due = memory.swept.is_none_or(|at| at.elapsed() >= SWEEP);
        if !is_due && seen.iter().all(|uid| memory.unsettled.contains_key(uid)) {
            return Ok(());
        }
        let all = self.context.store.unsettled_pods().await?;
        memory.swept = Some(Instant::now());
        memory.unsettled = all
            .into_iter()
            .filter(|record| {
                let is_watched = self.index.watches(&record.script.namespace);
                is_watched && self.pod(record).is_none() && !self.is_to_be_seen(record)
            })
            .map(|record| (record.uid.clone(), record))
            .collect();
        // Others were settled before, or never registered.
        for uid in seen.iter().filter(|uid| !memory.unsettled.contains_key(*uid)) {
            self.index.settle(uid);
        }
        Ok(())
    }

    async fn settle(
        &self,
        memory: &mut Memory,
        record: &PodRecord,
        streams: &[StreamProgress],
    ) -> Result<(), StoreError> {
        let now = Timestamp::now();
        let gone = self.gone(memory, record);
        let delivery = Delivery {
            streams,
            still_since: memory.deliveries.look(&record.uid, streams, now),
        };
        let Some(unread) = settlement(&gone, &delivery, now) else {
            return Ok(());
        };
        let settle = SettlePod {
            uid: record.uid.clone(),
            unread,
            time: gone.ended,
        };
        for gap in self.context.store.settle_pod(&settle).await? {
            self.context.metrics.gap(&gap.reason);
            tracing::warn!(script = %record.script, pod = gap.pod, restart = gap.restart, "A pod ended before its log was read to the end.");
            self.notices.tell(Notice::Gap {
                script: record.script.clone(),
                version: gap.version,
                pod: gap.pod,
                reason: gap.reason,
            });
        }
        memory.unsettled.remove(&record.uid);
        self.index.settle(&record.uid);
        Ok(())
    }

    // --- runners that wait

    /// Pods that are to end.
    fn stopping(&self) -> Vec<Arc<Pod>> {
        self.context
            .pods
            .state_filter(|pod| pod.metadata.deletion_timestamp.is_some())
    }
}

async fn close_pod(context: &Context, record: &PodRecord, closing: Closing) -> Result<(), StoreError> {
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
