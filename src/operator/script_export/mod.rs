//! `ScriptExport`: makes the file of each export, once, and removes it with its object.
//!
//! A plain watch and not a reconciler: of an export's spec only what ends it ever changes, so each object is one piece of work. There is no
//! finalizer, since a file on our own volume is no reason to hold up the deletion of an object (or of a namespace, while
//! the operator is away). Instead a file goes when the deletion is seen, and each time all objects have been listed
//! (at the start, and after the watch was interrupted) the folder is swept of what belongs to none of them.

mod announce;
mod destination;
mod expiry;
mod places;
mod plan;
mod schedule;
mod scheduler;
pub mod status;
mod work;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        events::{Recorder, Reporter},
        watcher::{self, Event, watcher},
    },
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    api::ScriptExport,
    export::file::{ExportFolder, ExportKey},
    metrics::Metrics,
    operator::{
        Scope,
        watches::{self, WatchBackoff},
    },
    store::Store,
};

use destination::Uploads;
use places::Places;
use scheduler::View;

/// Field manager of the status.
pub const FIELD_MANAGER: &str = "scriptscope-exports";
/// Pause after the first failed attempt at a file; each later one is twice as long.
const PAUSE: Duration = Duration::from_secs(2);

/// What the controller works with. Clones share it.
#[derive(Clone)]
pub struct ExportContext {
    client: Client,
    store: Arc<dyn Store>,
    folder: ExportFolder,
    metrics: Metrics,
    recorder: Recorder,
    places: Places,
    uploads: Arc<Uploads>,
    pause: Duration,
}

impl ExportContext {
    /// `data_dir` is the folder that exports are written below.
    pub fn new(client: Client, store: Arc<dyn Store>, data_dir: &Path, metrics: Metrics) -> Self {
        let reporter = Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance: None,
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            store,
            folder: ExportFolder::new(data_dir),
            metrics,
            places: Places::new(places::TURN),
            uploads: Arc::default(),
            pause: PAUSE,
        }
    }

    /// The same, on a volume of which so many bytes are to stay free.
    #[must_use]
    pub fn keep_free(self, bytes: u64) -> Self {
        Self {
            folder: self.folder.keep_free(bytes),
            ..self
        }
    }

    /// The same with turns of another length, where many exports want to be written.
    #[must_use]
    pub fn turn(self, turn: Duration) -> Self {
        Self {
            places: Places::new(turn),
            ..self
        }
    }

    /// The same with another pause after the first failed attempt at a file.
    #[must_use]
    pub fn pause(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }
}

/// Makes the exports of the scope until `shutdown`. What is under way then is begun again by the next process.
pub async fn run(context: ExportContext, scope: Scope, shutdown: CancellationToken) {
    let api: Api<DeserializeGuard<ScriptExport>> = scope.api(context.client.clone());
    let mut events = pin!(watcher(api, watcher::Config::default()).backoff(WatchBackoff::default()));
    let mut exports = Exports {
        context,
        scope,
        known: HashMap::new(),
        schedules: HashMap::new(),
        are_listed: false,
    };
    let mut listed = HashSet::new();
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => break,
            event = events.next() => event,
        };
        match event {
            None => break,
            Some(Err(error)) => watches::failed("exports", &error),
            Some(Ok(Event::Init)) => listed.clear(),
            Some(Ok(Event::InitApply(object))) => {
                listed.insert(key_of(&object));
                exports.applied(object).await;
            }
            Some(Ok(Event::Apply(object))) => exports.applied(object).await,
            Some(Ok(Event::Delete(object))) => exports.deleted(&key_of(&object)).await,
            Some(Ok(Event::InitDone)) => {
                exports.sweep(&std::mem::take(&mut listed)).await;
                exports.are_listed = true;
                exports.begin_schedules();
            }
        }
    }
    for (_, known) in exports.known {
        known.stop().await;
    }
    exports.context.uploads.abort_all().await;
}

fn key_of(object: &DeserializeGuard<ScriptExport>) -> ExportKey {
    ExportKey {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
    }
}

/// An object that exists, as far as is known.
struct Known {
    uid: String,
    /// UID of the one whose schedule made it.
    owner: Option<String>,
    /// Its work, also when that has ended: the watch may still tell of the time before.
    work: Option<Work>,
    /// When it is to be deleted, and what does so.
    expiry: Option<(Timestamp, AbortOnDropHandle<()>)>,
}

/// What is done for an object.
struct Work {
    kind: Kind,
    token: CancellationToken,
    handle: JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Make,
    Cancel,
    Schedule,
}

impl Work {
    fn begin(kind: Kind, context: ExportContext, key: ExportKey, export: ScriptExport) -> Self {
        let work = match kind {
            Kind::Cancel => work::cancel(context, key, export).boxed(),
            Kind::Make | Kind::Schedule => work::make(context, key, export).boxed(),
        };
        Self::spawn(kind, work)
    }

    fn spawn(kind: Kind, work: BoxFuture<'static, ()>) -> Self {
        let token = CancellationToken::new();
        let handle = tokio::spawn({
            let token = token.clone();
            async move {
                token.run_until_cancelled_owned(work).await;
            }
        });
        Self { kind, token, handle }
    }

    async fn stop(self) {
        self.token.cancel();
        if let Err(error) = self.handle.await {
            tracing::error!(%error, "The work on an export broke down.");
        }
    }
}

impl Known {
    async fn stop(self) {
        if let Some(work) = self.work {
            work.stop().await;
        }
    }
}

struct Exports {
    context: ExportContext,
    scope: Scope,
    known: HashMap<ExportKey, Known>,
    /// What is known of each schedule, by the UID of the export that has it.
    schedules: HashMap<String, watch::Sender<View>>,
    /// Whether all objects have been listed once: before, a schedule could take what it has made for missing.
    are_listed: bool,
}

impl Exports {
    async fn applied(&mut self, object: DeserializeGuard<ScriptExport>) {
        let key = key_of(&object);
        let uid = object.uid().unwrap_or_default();
        if self.known.get(&key).is_some_and(|known| known.uid != uid) {
            // Deleted and created again.
            self.deleted(&key).await;
        }
        let known = self.known.entry(key.clone()).or_insert(Known {
            uid: uid.clone(),
            owner: None,
            work: None,
            expiry: None,
        });
        let export = match object.0 {
            Ok(export) => export,
            Err(error) => {
                tracing::warn!(namespace = key.namespace, export = key.name, %error, "A ScriptExport is not readable.");
                return;
            }
        };
        if let Some(owner) = schedule::owner_uid(&export) {
            known.owner = Some(owner.to_owned());
            let schedule = self.schedules.entry(owner.to_owned()).or_default();
            schedule.send_modify(|view| {
                view.exports.insert(key.name.clone(), export.clone());
            });
        }
        if export.spec.schedule.is_some() {
            let schedule = self.schedules.entry(uid).or_default();
            schedule.send_modify(|view| view.parent = Some((key, export)));
            if self.are_listed {
                self.begin_schedules();
            }
            return;
        }
        if status::is_finished(export.status.as_ref()) {
            let due = expiry::due(&export.spec, export.status.as_ref());
            if known.expiry.as_ref().map(|(due, _)| *due) != due {
                known.expiry = due.map(|due| {
                    let expire = expiry::expire(self.context.client.clone(), key, known.uid.clone(), due);
                    (due, AbortOnDropHandle::new(tokio::spawn(expire)))
                });
            }
            return;
        }
        let kind = if export.spec.cancelled {
            Kind::Cancel
        } else {
            Kind::Make
        };
        match known.work.as_ref().map(|work| work.kind) {
            None => {}
            Some(Kind::Make) if kind == Kind::Cancel => {
                if let Some(work) = known.work.take() {
                    work.stop().await;
                }
            }
            Some(_) => return,
        }
        known.work = Some(Work::begin(kind, self.context.clone(), key, export));
    }

    /// Begins to keep the schedules that nobody keeps yet.
    fn begin_schedules(&mut self) {
        for schedule in self.schedules.values() {
            let key = schedule.borrow().parent.as_ref().map(|(key, _)| key.clone());
            let known = key.and_then(|key| self.known.get_mut(&key));
            if let Some(known) = known.filter(|known| known.work.is_none()) {
                let keep = scheduler::keep(self.context.clone(), schedule.subscribe());
                known.work = Some(Work::spawn(Kind::Schedule, keep.boxed()));
            }
        }
    }

    async fn deleted(&mut self, key: &ExportKey) {
        if let Some(known) = self.known.remove(key) {
            self.schedules.remove(&known.uid);
            if let Some(schedule) = known.owner.as_ref().and_then(|owner| self.schedules.get(owner)) {
                schedule.send_modify(|view| {
                    view.exports.remove(&key.name);
                });
            }
            known.stop().await;
        }
        if let Some(object) = self.context.uploads.take(key) {
            // It may take a while where the server does not answer.
            tokio::spawn(destination::abort(key.clone(), object));
        }
        self.remove(key).await;
    }

    /// Removes what belongs to no object, now that all are known.
    async fn sweep(&mut self, listed: &HashSet<ExportKey>) {
        let gone: Vec<ExportKey> = self
            .known
            .keys()
            .filter(|key| !listed.contains(key))
            .cloned()
            .collect();
        for key in gone {
            self.deleted(&key).await;
        }
        let found = match self.context.folder.list().await {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(%error, "The folder of exports could not be swept.");
                return;
            }
        };
        // Of other namespaces nothing is known: their exports may well exist.
        let ours = |key: &ExportKey| self.scope.contains(&key.namespace);
        for (key, file_uid) in found.into_iter().filter(|(key, _)| ours(key)) {
            let of_object = self
                .known
                .get(&key)
                .is_some_and(|known| file_uid.is_none_or(|uid| uid == known.uid));
            if !of_object {
                self.remove(&key).await;
            }
        }
    }

    async fn remove(&self, key: &ExportKey) {
        if let Err(error) = self.context.folder.remove(key).await {
            tracing::error!(namespace = key.namespace, export = key.name, %error, "The file of an export could not be removed.");
        }
    }
}
