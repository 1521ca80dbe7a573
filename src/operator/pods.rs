//! Which pods are a script's. What a pod prints is stored only once its pod is known here.
//!
//! A label alone proves nothing, anybody who may create pods can set it. A pod is a script's if its controller is a
//! replica set, that one's the Deployment of the script's name, and that one's the `CustomScript`; version and deployment
//! are read from the replica set's template.

use std::{collections::HashSet, pin::pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        reflector::{ObjectRef, Store, store::Writer},
        watcher::{self, Event, watcher},
    },
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Scope,
    context::{Backoff, Contact},
    custom_script::ScriptRef,
    health::Part,
    origins::{Known, Origins, controller, kind, origin},
    pod_index::PodIndex,
    script_pods::ScriptPods,
    watches::{self, WatchBackoff},
};
use crate::{
    api::{CustomScript, labels},
    model::ScriptKey,
    store::{self, PodRecord},
};

/// Pods identified at once, and waiting for it.
const CONCURRENCY: usize = 8;
const QUEUE: usize = 1_024;
/// Longest time for identifying a pod once.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Keeps the index and registers the pods of scripts in the store.
pub struct PodWatch {
    /// The cluster.
    pub client: Client,
    /// Where pods are registered.
    pub store: Arc<dyn store::Store>,
    /// What is kept.
    pub index: Arc<PodIndex>,
    /// The pods of scripts.
    pub pods: ScriptPods,
    /// The scripts there are.
    pub scripts: Store<CustomScript>,
    /// Begun when all of them have been listed.
    pub scripts_listed: Part,
    /// Where to name scripts whose pods have changed. (Not a shared stream of kube 5.0: that stops for good at a pod which
    /// is gone before its event was read.)
    pub touch: mpsc::Sender<ScriptRef>,
    /// To begin when every pod with the label has been listed.
    pub pods_listed: Part,
    /// Begun when it is known which Deployments are adopted; before that, their pods would look like nobody's.
    pub claimed: Part,
    /// To begin when every pod has been listed.
    pub all_listed: Part,
    /// Told when the API server can not be reached.
    pub contact: Contact,
}

impl PodWatch {
    /// Runs until it is told to stop. `writer` is given every pod with the label.
    pub async fn run(self, scope: Scope, writer: Writer<Pod>, shutdown: CancellationToken) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let client = self.client.clone();
        let index = self.index.clone();
        let (listed, touch, contact) = (self.pods_listed.clone(), self.touch.clone(), self.contact.clone());
        let (pods, claimed, all_listed) = (self.pods.clone(), self.claimed.clone(), self.all_listed.clone());
        let watches = async {
            tokio::join!(
                watch_labelled(
                    &scope,
                    client.clone(),
                    writer,
                    (&index, &listed, &contact),
                    (sender, touch)
                ),
                async {
                    claimed.wait().await;
                    watch_any(&scope, client, (&index, &pods, &all_listed), &contact).await;
                },
            )
        };
        let scripts = self.scripts_listed.clone();
        let identify = async {
            // Before that, a script that exists would look like one that does not.
            scripts.wait().await;
            identify_all(self, receiver).await;
        };
        shutdown
            .run_until_cancelled(Box::pin(async { tokio::join!(watches, identify) }))
            .await;
    }
}

async fn watch_labelled(
    scope: &Scope,
    client: Client,
    writer: Writer<Pod>,
    (index, listed, contact): (&PodIndex, &Part, &Contact),
    (sender, touch): (mpsc::Sender<Pod>, mpsc::Sender<ScriptRef>),
) {
    let config = watcher::Config::default().labels(labels::SCRIPT);
    let events = watcher(scope.api::<Pod>(client), config)
        .backoff(WatchBackoff::default())
        .modify(|pod| pod.managed_fields_mut().clear())
        .reflect(writer);
    let mut events = pin!(events);
    let mut touched = HashSet::new();
    while let Some(event) = next(&mut events, contact).await {
        let listing = matches!(event, Event::Init | Event::InitApply(_));
        // Either receiver is only gone when the process is stopping.
        if let Some(pod) = index.note_labelled(&event) {
            let _ = sender.send(pod).await;
        }
        match event {
            Event::Init => touched.clear(),
            Event::InitDone => listed.ready(),
            Event::Apply(pod) | Event::InitApply(pod) | Event::Delete(pod) => touched.extend(script_of(&pod)),
        }
        // What is listed is in the store only when the list is complete.
        if !listing {
            for script in touched.drain() {
                let _ = touch.send(script).await;
            }
        }
    }
}

fn script_of(pod: &Pod) -> Option<ScriptRef> {
    let name = pod.labels().get(labels::SCRIPT)?;
    Some(ObjectRef::new(name).within(&pod.namespace()?))
}

async fn watch_any(
    scope: &Scope,
    client: Client,
    (index, pods, listed): (&PodIndex, &ScriptPods, &Part),
    contact: &Contact,
) {
    let api: Api<PartialObjectMeta<Pod>> = scope.api(client);
    let events = watcher(api, watcher::Config::default()).backoff(WatchBackoff::default());
    let mut events = pin!(events);
    while let Some(event) = next(&mut events, contact).await {
        pods.note_any(&event);
        index.note_any(&event);
        if matches!(event, Event::InitDone) {
            listed.ready();
        }
    }
}

/// The next event; a watch that fails is restarted by itself.
async fn next<K>(
    events: &mut (impl Stream<Item = Result<Event<K>, watcher::Error>> + Unpin),
    contact: &Contact,
) -> Option<Event<K>> {
    loop {
        match events.next().await? {
            Ok(event) => return Some(event),
            Err(error) => {
                contact.lost();
                watches::failed("pods", &error);
            }
        }
    }
}

async fn identify_all(watch: PodWatch, receiver: mpsc::Receiver<Pod>) {
    let origins = Origins::default();
    let pods = stream::unfold(receiver, |mut receiver| async {
        Some((receiver.recv().await?, receiver))
    });
    pods.for_each_concurrent(CONCURRENCY, |pod| identify(&watch, &origins, pod))
        .await;
}

/// Finds out whose pod it is and remembers that; tries until it succeeds or the pod is gone.
async fn identify(watch: &PodWatch, origins: &Origins, pod: Pod) {
    let Some(uid) = pod.metadata.uid.as_deref() else {
        return;
    };
    let pauses = Backoff::default();
    while !watch.index.is_known(uid) {
        match tokio::time::timeout(TIMEOUT, identify_once(watch, origins, &pod)).await {
            Ok(Ok(Some(record))) => {
                watch.index.add_script(uid, &record.container);
                tracing::debug!(pod = record.name, script = %record.script, version = record.version, "A pod was registered.");
                return;
            }
            Ok(Ok(None)) => {
                watch.index.add_other(uid, true);
                tracing::warn!(
                    namespace = pod.namespace(),
                    pod = pod.name_any(),
                    "A pod carries the label of a script and is none of its pods; what it prints is not stored."
                );
                return;
            }
            Ok(Err(error)) => {
                tracing::warn!(pod = pod.name_any(), %error, "A pod could not be registered; trying again.");
            }
            Err(_) => tracing::warn!(
                pod = pod.name_any(),
                "A pod was not registered in time; trying again."
            ),
        }
        let pause = pauses.failed(()).min(Duration::from_secs(30));
        if watch.index.is_gone(uid) && pause > Duration::from_secs(8) {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

#[derive(Debug, thiserror::Error)]
enum IdentifyError {
    #[error("the API server: {0}")]
    Kube(#[from] kube::Error),
    #[error("the store: {0}")]
    Store(#[from] store::StoreError),
}

async fn identify_once(
    watch: &PodWatch,
    origins: &Origins,
    pod: &Pod,
) -> Result<Option<PodRecord>, IdentifyError> {
    let (Some(uid), Some(namespace), Some(set)) = (
        pod.uid(),
        pod.namespace(),
        controller(&pod.metadata, &kind::<ReplicaSet>()),
    ) else {
        return Ok(None);
    };
    let origin = if let Some(origin) = origins.get(&set.uid) {
        origin
    } else {
        let origin = look_up(watch, &namespace, set).await?;
        origins.put(&set.uid, origin.clone());
        origin
    };
    let Some(origin) = origin.filter(|o| pod.labels().get(labels::SCRIPT) == Some(&o.script)) else {
        return Ok(None);
    };
    let record = PodRecord {
        uid,
        name: pod.name_any(),
        container: labels::CONTAINER.to_owned(),
        script: ScriptKey::new(namespace, origin.script),
        version: origin.version,
        deployment_id: origin.deployment_id,
    };
    watch.store.register_pod(&record).await?;
    Ok(Some(record))
}

async fn look_up(watch: &PodWatch, namespace: &str, set: &OwnerReference) -> Result<Known, kube::Error> {
    let sets = Api::<ReplicaSet>::namespaced(watch.client.clone(), namespace);
    let Some(found) = sets.get_opt(&set.name).await? else {
        return Ok(None);
    };
    let Some(deployment) = controller(&found.metadata, &kind::<Deployment>()) else {
        return Ok(None);
    };
    let deployments = Api::<Deployment>::namespaced(watch.client.clone(), namespace);
    let Some(deployment) = deployments.get_metadata_opt(&deployment.name).await? else {
        return Ok(None);
    };
    let script = watch
        .scripts
        .get(&ObjectRef::new(&deployment.name_any()).within(namespace));
    let script = script.as_ref().map(|script| &script.metadata);
    Ok(script.and_then(|script| origin(set, &found, &deployment.metadata, script)))
}
