//! What every controller of the operator shares.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use super::{
    adoption::Adoptions, api_logs::Collection, custom_script::Images, health::Part, leadership::Leadership,
    script_pods::ScriptPods,
};
use crate::{metrics::Metrics, store::Store};

/// How old the store's word on its health may get.
const HEALTH_TTL: Duration = Duration::from_secs(30);
/// Longest time for publishing an event, which nothing waits for.
const EVENT_TIMEOUT: Duration = Duration::from_secs(5);
/// The first and the longest pause after failed reconciliations of an object.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));
/// Longest note of an event, in bytes.
const MAX_NOTE_BYTES: usize = 1_000;

/// Whether the API server can be reached. Clones share it.
///
/// While it can not, no deployment gets on, whatever its pods look like from here.
#[derive(Clone, Debug, Default)]
pub struct Contact(Arc<Mutex<Link>>);

#[derive(Clone, Copy, Debug, Default)]
enum Link {
    #[default]
    Whole,
    Lost,
    Regained(Timestamp),
}

impl Contact {
    /// It could not be reached.
    pub fn lost(&self) {
        *self.link() = Link::Lost;
    }

    /// It has answered at `now`.
    pub fn answered(&self, now: Timestamp) {
        let mut link = self.link();
        if matches!(*link, Link::Lost) {
            *link = Link::Regained(now);
        }
    }

    /// Since when it has been reached again, if it ever could not.
    pub fn regained(&self) -> Option<Timestamp> {
        match *self.link() {
            Link::Regained(at) => Some(at),
            Link::Whole | Link::Lost => None,
        }
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a reconciliation works with.
pub struct Context {
    /// The cluster.
    pub client: Client,
    /// Versions, runs, logs.
    pub store: Arc<dyn Store>,
    /// Whether the store can be written.
    pub health: StoreHealth,
    /// The operator's metrics.
    pub metrics: Metrics,
    /// For events; one for all, so that repeated ones are counted.
    pub recorder: Recorder,
    /// Images of the pods.
    pub images: Images,
    /// The pods of scripts.
    pub pods: ScriptPods,
    /// Begun when every pod with the label of a script has been listed.
    pub pods_listed: Part,
    /// Who adopts which Deployment.
    pub adoptions: Arc<Adoptions>,
    /// Contact with the API server.
    pub contact: Contact,
    /// When this process began.
    pub started: Timestamp,
    /// How what scripts print gets here.
    pub collection: Collection,
    /// Whether this process runs the controllers.
    pub leadership: Leadership,
}

impl Context {
    /// A context. `identity` is the name of the operator's pod, if it has one.
    pub fn new(
        client: Client,
        store: Arc<dyn Store>,
        metrics: Metrics,
        images: Images,
        (pods, pods_listed): (ScriptPods, Part),
        adoptions: Arc<Adoptions>,
        identity: Option<String>,
    ) -> Self {
        let reporter = Reporter {
            controller: "scriptscope".to_owned(),
            instance: identity,
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            health: StoreHealth::new(store.clone()),
            client,
            store,
            metrics,
            images,
            pods,
            pods_listed,
            adoptions,
            contact: Contact::default(),
            started: Timestamp::now(),
            collection: Collection::default(),
            leadership: Leadership::alone(),
        }
    }

    /// The same, where what scripts print gets here in another way.
    #[must_use]
    pub fn collecting(self, collection: Collection) -> Self {
        Self { collection, ..self }
    }

    /// The same, in one of several operators.
    #[must_use]
    pub fn led(self, leadership: Leadership) -> Self {
        Self { leadership, ..self }
    }

    /// Publishes an event; if that fails, only the log says so.
    ///
    /// The recorder takes two events with the same type, reason and action for one and drops the second's text, so
    /// `action` must name what it is about (a version).
    pub async fn event(
        &self,
        about: &ObjectReference,
        type_: EventType,
        reason: &str,
        action: String,
        mut note: String,
    ) {
        if note.len() > MAX_NOTE_BYTES {
            let end = (0..=MAX_NOTE_BYTES).rev().find(|at| note.is_char_boundary(*at));
            note.truncate(end.unwrap_or(0));
        }
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action,
            secondary: None,
        };
        match tokio::time::timeout(EVENT_TIMEOUT, self.recorder.publish(&event, about)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, reason, "An event could not be published."),
            Err(_) => tracing::warn!(reason, "An event was not published in time."),
        }
    }
}

/// Errors of reconcilers, by kind.
pub trait ReconcilerError: std::error::Error {
    /// One of a fixed set, for metrics.
    fn category(&self) -> &'static str;
}

/// Pauses that double with every failure in a row, object by object.
#[derive(Debug)]
pub struct Backoff<K> {
    failures: Mutex<HashMap<K, u32>>,
}

impl<K: Eq + Hash> Default for Backoff<K> {
    fn default() -> Self {
        Self {
            failures: Mutex::new(HashMap::new()),
        }
    }
}

impl<K: Eq + Hash> Backoff<K> {
    /// Counts a failure and says how long to wait.
    pub fn failed(&self, key: K) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(key).or_default();
        let pause = BACKOFF.0.saturating_mul(1 << (*count).min(16));
        *count += 1;
        pause.min(BACKOFF.1)
    }

    /// Forgets the failures of an object that went well or is gone.
    pub fn succeeded(&self, key: &K) {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }
}

/// The store's health, asked at most every 30 seconds by the whole process.
pub struct StoreHealth {
    store: Arc<dyn Store>,
    last: tokio::sync::Mutex<Option<(Instant, Result<(), String>)>>,
}

impl StoreHealth {
    /// Of this store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            last: tokio::sync::Mutex::default(),
        }
    }

    /// Whether it can be written, or why not.
    pub async fn get(&self) -> Result<(), String> {
        let mut last = self.last.lock().await;
        if let Some((_, health)) = last.as_ref().filter(|(at, _)| at.elapsed() < HEALTH_TTL) {
            return health.clone();
        }
        let health = self.store.check().await.map_err(|error| error.to_string());
        *last = Some((Instant::now(), health.clone()));
        health
    }

    /// Makes the next question go to the store itself.
    pub async fn doubt(&self) {
        *self.last.lock().await = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contact_counts_from_the_first_answer_after_it_was_lost() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let contact = Contact::default();
        contact.answered(at(1));
        assert_eq!(contact.regained(), None, "it was never lost");
        contact.lost();
        contact.clone().answered(at(5));
        contact.answered(at(9));
        assert_eq!(contact.regained(), Some(at(5)));
        contact.lost();
        contact.answered(at(20));
        assert_eq!(contact.regained(), Some(at(20)));
    }

    #[test]
    fn pauses_double_up_to_five_minutes_and_begin_anew_after_a_success() {
        let backoff = Backoff::default();
        let pauses: Vec<u64> = (0..11).map(|_| backoff.failed("a").as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(backoff.failed("b").as_secs(), 1);
        backoff.succeeded(&"a");
        assert_eq!(backoff.failed("a").as_secs(), 1);
    }
}
