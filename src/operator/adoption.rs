//! Watches the pods of adopted Deployments, and finds out which version of which script each is.
//!
//! A pod is a script's if its controller is a replica set, that one's the Deployment that the script names, and the script
//! the first of those that name it. Its version is that of the replica set's template when the pod is first seen, and stays
//! that pod's as long as it lives. Nothing is ever changed about any of them.

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::Pod,
};
use kube::{
    Api, Client, ResourceExt,
    runtime::{
        WatchStreamExt,
        reflector::{ObjectRef, Store},
        watcher::{self, Event, watcher},
    },
};
use tokio::{
    sync::{Notify, mpsc},
    task::AbortHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    claims::{Claims, Place},
    context::Contact,
    custom_script::{ScriptRef, adopted},
    health::Part,
    origins::{controller, kind},
    pod_index::{Knowledge, PodIndex},
    script_pods::ScriptPods,
    watches::{self, WatchBackoff},
};
use crate::{
    api::CustomScript,
    model::ScriptKey,
    store::{self, PodRecord, StoreError},
};

/// How often to look at scripts and at pods that are not identified.
const TICK: Duration = Duration::from_millis(500);
/// Pods identified at once.
const CONCURRENCY: usize = 8;
/// Longest time for identifying a pod once.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The first and the longest pause before a pod is looked into again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(400), Duration::from_secs(15));
/// A pod that went unidentified is forgotten after so long.
const GIVE_UP: Duration = Duration::from_mins(1);
/// Attempts looked at for the version of a pod.
const DEPLOYMENTS: usize = 10;

/// The pods of a Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The Deployment.
    pub place: Place,
    /// Its selector, as text.
    pub selector: String,
}

/// Who adopts what. Shared by the controller, which says what to watch, and the watch.
#[derive(Debug)]
pub struct Adoptions {
    /// The operator's own namespace.
    pub own_namespace: String,
    scripts: Store<CustomScript>,
    targets: Mutex<HashMap<ScriptKey, Target>>,
    changed: Notify,
}

impl Adoptions {
    /// Nothing is watched yet.
    pub fn new(own_namespace: &str, scripts: Store<CustomScript>) -> Self {
        Self {
            own_namespace: own_namespace.to_owned(),
            scripts,
            targets: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// The claims of the scripts there are.
    pub fn claims(&self) -> Claims {
        let with_workload = |script: &CustomScript| script.spec.workload.is_some();
        let scripts = self.scripts.state_filter(with_workload);
        Claims::of(scripts.iter().map(AsRef::as_ref))
    }

    /// Watches the pods of this Deployment for the script, instead of those before.
    pub fn follow(&self, script: &ScriptKey, target: Target) {
        let mut targets = self.targets();
        if targets.get(script) != Some(&target) {
            targets.insert(script.clone(), target);
            self.changed.notify_one();
        }
    }

    /// Watches no pods for the script.
    pub fn leave(&self, script: &ScriptKey) {
        if self.targets().remove(script).is_some() {
            self.changed.notify_one();
        }
    }

    /// A version has begun: pods may have waited for it.
    pub fn begun(&self) {
        self.changed.notify_one();
    }

    /// What is to be watched. Scripts that are gone, or name another Deployment by now, watch nothing.
    fn wanted(&self) -> HashMap<ScriptKey, Target> {
        let mut targets = self.targets();
        targets.retain(|key, target| {
            let script = self
                .scripts
                .get(&ObjectRef::new(&key.name).within(&key.namespace));
            let place = script.and_then(|script| Place::named_by(&script));
            place.as_ref() == Some(&target.place)
        });
        targets.clone()
    }

    fn targets(&self) -> MutexGuard<'_, HashMap<ScriptKey, Target>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the pods of adopted Deployments, and registers them in the store.
#[derive(Clone)]
pub struct AdoptionWatch {
    /// The cluster.
    pub client: Client,
    /// Where pods are registered.
    pub store: Arc<dyn store::Store>,
    /// What is known about pods.
    pub index: Arc<PodIndex>,
    /// The pods.
    pub pods: ScriptPods,
    /// What to watch.
    pub adoptions: Arc<Adoptions>,
    /// Begun when all scripts have been listed.
    pub scripts_listed: Part,
    /// To begin when it is known which Deployments are adopted.
    pub claimed: Part,
    /// Where to name scripts whose pods have changed.
    pub touch: mpsc::Sender<ScriptRef>,
    /// Told when the API server can not be reached.
    pub contact: Contact,
}

/// A pod that is not identified yet.
struct Waiting {
    pod: Arc<Pod>,
    since: Instant,
    pause: Duration,
    next: Instant,
}

/// What is known from one look to the next.
#[derive(Default)]
struct Memory {
    claims: Claims,
    watches: HashMap<ScriptKey, (Target, AbortHandle)>,
    waiting: HashMap<String, Waiting>,
}

impl AdoptionWatch {
    /// Runs until it is told to stop.
    pub async fn run(self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(Box::pin(self.look_after())).await;
    }

    async fn look_after(&self) {
        self.scripts_listed.wait().await;
        let mut memory = Memory::default();
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            self.claim(&mut memory).await;
            self.claimed.ready();
            self.watch(&mut memory, &mut tasks);
            self.identify_all(&mut memory).await;
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = self.adoptions.changed.notified() => {
                    memory.waiting.values_mut().for_each(Waiting::again);
                }
                Some(_) = tasks.join_next() => {}
            }
        }
    }

    /// Takes in which script adopts what.
    async fn claim(&self, memory: &mut Memory) {
        let claims = self.adoptions.claims();
        if claims == memory.claims {
            return;
        }
        self.index.claim(claims.clone());
        let changed: HashSet<&Place> = claims.changed(&memory.claims).collect();
        for place in &changed {
            for pod in self.pods.of_deployment(place) {
                self.index.reconsider(&pod);
            }
        }
        let scripts = self
            .adoptions
            .scripts
            .state_filter(|script| Place::named_by(script).is_some_and(|place| changed.contains(&place)));
        for script in scripts {
            // The receiver is only gone when the process is stopping.
            let _ = self.touch.send(ObjectRef::from_obj(script.as_ref())).await;
        }
        memory.claims = claims;
    }

    /// Begins and ends watches.
    fn watch(&self, memory: &mut Memory, tasks: &mut tokio::task::JoinSet<()>) {
        let wanted = self.adoptions.wanted();
        memory.watches.retain(|script, (target, handle)| {
            let stays = wanted.get(script) == Some(target) && !handle.is_finished();
            if !stays {
                handle.abort();
                if !wanted.values().any(|other| other.place == target.place) {
                    self.pods.retain(&target.place, |_| false);
                }
            }
            stays
        });
        for (script, target) in wanted {
            memory.watches.entry(script).or_insert_with_key(|script| {
                let (this, goal, name) = (self.clone(), target.clone(), script.clone());
                let handle = tasks.spawn(async move { this.watch_pods(&name, &goal).await });
                (target, handle)
            });
        }
    }

    async fn watch_pods(&self, script: &ScriptKey, target: &Target) {
        let api = Api::<Pod>::namespaced(self.client.clone(), &target.place.namespace);
        let config = watcher::Config::default().labels(&target.selector);
        let events = watcher(api, config)
            .backoff(WatchBackoff::default())
            .modify(|pod| pod.managed_fields_mut().clear());
        let mut events = pin!(events);
        let mut listed = HashSet::new();
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    self.contact.lost();
                    watches::failed("pods of adopted Deployments", &error);
                    continue;
                }
            };
            let is_its = |pod: &Pod| Place::claimed_by(&pod.metadata).as_ref() == Some(&target.place);
            match &event {
                Event::Init => listed.clear(),
                Event::Apply(pod) | Event::InitApply(pod) if is_its(pod) => {
                    self.index.note_adopted(&event, None);
                    if let (Event::InitApply(_), Some(uid)) = (&event, &pod.metadata.uid) {
                        // Seen before its Deployment was adopted, perhaps.
                        self.index.reconsider(pod);
                        listed.insert(uid.clone());
                    }
                    self.pods.put(pod.clone());
                }
                Event::Delete(pod) if is_its(pod) => {
                    self.index.note_adopted(&event, self.container(script).as_deref());
                    self.pods.remove(pod);
                }
                Event::Apply(_) | Event::InitApply(_) | Event::Delete(_) => {}
                Event::InitDone => {
                    let is_listed =
                        |pod: &Pod| pod.metadata.uid.as_ref().is_some_and(|uid| listed.contains(uid));
                    self.pods.retain(&target.place, is_listed);
                    listed.clear();
                }
            }
            if !matches!(event, Event::Init | Event::InitApply(_)) {
                self.adoptions.changed.notify_one();
                let script = ObjectRef::new(&script.name).within(&script.namespace);
                let _ = self.touch.send(script).await;
            }
        }
    }

    /// The container that the script names.
    fn container(&self, script: &ScriptKey) -> Option<String> {
        let script = self.script(script)?;
        script.spec.workload.as_ref()?.container.clone()
    }

    fn script(&self, key: &ScriptKey) -> Option<Arc<CustomScript>> {
        let script = ObjectRef::new(&key.name).within(&key.namespace);
        self.adoptions.scripts.get(&script)
    }

    // --- whose pod it is

    async fn identify_all(&self, memory: &mut Memory) {
        let now = Instant::now();
        let claims = &memory.claims;
        let unseen = self.pods.state_filter(|pod| {
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            claims.of_pod(&pod.metadata).is_some() && self.index.knowledge(uid) == Knowledge::Unseen
        });
        for pod in unseen {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let waiting = memory.waiting.entry(uid);
            let waiting = waiting.or_insert_with(|| Waiting::new(pod.clone(), now));
            (waiting.pod, waiting.since) = (pod, now);
        }
        memory.waiting.retain(|uid, waiting| {
            self.index.knowledge(uid) == Knowledge::Unseen && now.duration_since(waiting.since) < GIVE_UP
        });
        let due = memory.waiting.values_mut().filter(|waiting| waiting.next <= now);
        let due: Vec<Arc<Pod>> = due.map(|waiting| waiting.later(now)).collect();
        stream::iter(due)
            .for_each_concurrent(CONCURRENCY, |pod| self.identify(claims, pod))
            .await;
    }

    async fn identify(&self, claims: &Claims, pod: Arc<Pod>) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let name = pod.name_any();
        match tokio::time::timeout(TIMEOUT, self.identify_once(claims, &pod)).await {
            Ok(Ok(Whose::Script(place, record))) => {
                self.index
                    .add_adopted(uid, &record.container, place, record.script.clone());
                tracing::debug!(pod = name, script = %record.script, version = record.version, "A pod of an adopted Deployment was registered.");
            }
            Ok(Ok(Whose::Nobody)) => self.index.add_other(uid, false),
            Ok(Ok(Whose::Unsaid)) => {}
            Ok(Err(error)) => {
                tracing::warn!(pod = name, %error, "A pod could not be registered; trying again.");
            }
            Err(_) => tracing::warn!(pod = name, "A pod was not registered in time; trying again."),
        }
    }

    async fn identify_once(&self, claims: &Claims, pod: &Pod) -> Result<Whose, IdentifyError> {
        let Some((place, key)) = claims.of_pod(&pod.metadata) else {
            return Ok(Whose::Nobody);
        };
        let Some(script) = self.script(key) else {
            return Ok(Whose::Unsaid);
        };
        let (Some(workload), Some(uid), Some(owner)) = (
            &script.spec.workload,
            pod.uid(),
            controller(&pod.metadata, &kind::<ReplicaSet>()),
        ) else {
            return Ok(Whose::Nobody);
        };
        let sets = Api::<ReplicaSet>::namespaced(self.client.clone(), &place.namespace);
        let deployments = Api::<Deployment>::namespaced(self.client.clone(), &place.namespace);
        let (set, deployment) =
            tokio::try_join!(sets.get_opt(&owner.name), deployments.get_opt(&place.deployment))?;
        let (Some(set), Some(deployment)) = (set, deployment) else {
            return Ok(Whose::Nobody);
        };
        let chained =
            Some(&owner.uid) == set.metadata.uid.as_ref() && adopted::is_of(&set, &deployment.metadata);
        if !chained || adopted::refusal(&deployment, &self.adoptions.own_namespace).is_some() {
            return Ok(Whose::Nobody);
        }
        let Ok(container) = adopted::container(workload, &set) else {
            return Ok(Whose::Unsaid);
        };
        let attempts = self.store.deployments(key, DEPLOYMENTS).await?;
        let identity = adopted::Identity::new(&script.metadata, workload, &deployment.metadata);
        let Some(attempt) = identity.attempt_of(&set, &pod.metadata, &attempts) else {
            return Ok(Whose::Unsaid);
        };
        let record = PodRecord {
            uid,
            name: pod.name_any(),
            container,
            script: key.clone(),
            version: attempt.version,
            deployment_id: attempt.deployment_id.clone(),
        };
        let stands = self.store.register_pod(&record).await?;
        if stands.script != record.script {
            tracing::warn!(pod = record.name, script = %record.script, before = %stands.script,
                "A pod's log belongs to the script that adopted it first; restart the Deployment to have new pods.");
            return Ok(Whose::Nobody);
        }
        Ok(Whose::Script(place, stands))
    }
}

impl Waiting {
    fn new(pod: Arc<Pod>, now: Instant) -> Self {
        Self {
            pod,
            since: now,
            pause: PAUSE.0,
            next: now,
        }
    }

    /// It is looked into now, and if that says nothing, in a while.
    fn later(&mut self, now: Instant) -> Arc<Pod> {
        self.next = now + self.pause;
        self.pause = (self.pause * 2).min(PAUSE.1);
        self.pod.clone()
    }

    /// Something has changed: it may be known now.
    fn again(&mut self) {
        (self.pause, self.next) = (PAUSE.0, Instant::now());
    }
}

/// Whose a pod is.
enum Whose {
    Script(Place, PodRecord),
    Nobody,
    /// That shows later: its version is yet to begin, or its container to be named.
    Unsaid,
}

#[derive(Debug, thiserror::Error)]
enum IdentifyError {
    #[error("the API server: {0}")]
    Kube(#[from] kube::Error),
    #[error("the store: {0}")]
    Store(#[from] StoreError),
}
