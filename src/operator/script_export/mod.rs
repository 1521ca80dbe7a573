//! `ScriptExport`: makes the file of each export, once, and removes it with its object.
//!
//! A plain watch and not a reconciler: an export's spec never changes, so each object is one piece of work. There is no
//! finalizer, since a file on our own volume is no reason to hold up the deletion of an object (or of a namespace, while
//! the operator is away). Instead a file goes when the deletion is seen, and each time all objects have been listed
//! (at the start, and after the watch was interrupted) the folder is swept of what belongs to none of them.

mod announce;
pub mod status;
mod work;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    pin::pin,
    sync::Arc,
};

use futures::StreamExt;
use kube::{
    Api, Client, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        events::{Recorder, Reporter},
        watcher::{self, Event, watcher},
    },
};
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

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

/// Field manager of the status.
pub const FIELD_MANAGER: &str = "scriptscope-exports";
/// Files written at once.
const AT_ONCE: usize = 2;

/// What the controller works with. Clones share it.
#[derive(Clone)]
pub struct ExportContext {
    client: Client,
    store: Arc<dyn Store>,
    folder: ExportFolder,
    metrics: Metrics,
    recorder: Recorder,
    places: Arc<Semaphore>,
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
            places: Arc::new(Semaphore::new(AT_ONCE)),
        }
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
            Some(Ok(Event::InitDone)) => exports.sweep(&std::mem::take(&mut listed)).await,
        }
    }
    for (_, known) in exports.known {
        known.stop().await;
    }
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
    /// Its work, also when that has ended: the watch may still tell of the time before.
    work: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Known {
    async fn stop(self) {
        if let Some((token, handle)) = self.work {
            token.cancel();
            if let Err(error) = handle.await {
                tracing::error!(%error, "The work on an export broke down.");
            }
        }
    }
}

struct Exports {
    context: ExportContext,
    scope: Scope,
    known: HashMap<ExportKey, Known>,
}

impl Exports {
    async fn applied(&mut self, object: DeserializeGuard<ScriptExport>) {
        let key = key_of(&object);
        let uid = object.uid().unwrap_or_default();
        if self.known.get(&key).is_some_and(|known| known.uid != uid) {
            // Deleted and created again.
            self.deleted(&key).await;
        }
        let known = self.known.entry(key.clone()).or_insert(Known { uid, work: None });
        let export = match object.0 {
            Ok(export) => export,
            Err(error) => {
                tracing::warn!(namespace = key.namespace, export = key.name, %error, "A ScriptExport is not readable.");
                return;
            }
        };
        if known.work.is_none() && !status::is_finished(export.status.as_ref()) {
            let token = CancellationToken::new();
            let work = Box::pin(work::make(self.context.clone(), key, export));
            let handle = tokio::spawn({
                let token = token.clone();
                async move {
                    token.run_until_cancelled_owned(work).await;
                }
            });
            known.work = Some((token, handle));
        }
    }

    async fn deleted(&mut self, key: &ExportKey) {
        if let Some(known) = self.known.remove(key) {
            known.stop().await;
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
