//! The work on one export, from Pending to its end.

use std::{
    convert::Infallible,
    future::pending,
    sync::OnceLock,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::{
    Api, Resource, ResourceExt,
    runtime::events::{Event, EventType},
};
use tokio::sync::{oneshot, watch};

use crate::{
    api::{Artifact, CustomScript, ExportPhase, S3Destination, ScriptExport},
    export::{
        ExportError, Plan, Table,
        file::{ExportKey, Progress},
        format::Format,
        rows::query,
        s3::{self, S3Target},
    },
    model::ScriptKey,
    query::within,
    store::{Store, StoreError},
};

use super::{
    ExportContext,
    announce::Announcer,
    destination::{self, DestinationError},
    plan::{format, plan, refuse, short, target},
    schedule::due_of,
    status::{Refusal, Stage, in_s3, on_volume, start_of},
};

/// Attempts at a file before it is given up.
const ATTEMPTS: u32 = 6;
/// Time between two reports of progress.
const REPORT: Duration = Duration::from_secs(1);
/// How long the rows are counted before that is given up.
const ESTIMATE: Duration = Duration::from_secs(2);

/// Why an attempt failed; the next may not.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the API server could not be asked for the script: {0}")]
    Api(#[from] kube::Error),
    #[error(transparent)]
    Destination(#[from] DestinationError),
}

impl AttemptError {
    /// Reason of the condition, should there be no further attempt.
    fn reason(&self) -> &'static str {
        match self {
            Self::Export(ExportError::S3(error)) => error.reason(),
            Self::Destination(error) => error.reason(),
            _ => "WriteFailed",
        }
    }

    fn is_final(&self) -> bool {
        match self {
            Self::Export(ExportError::S3(error)) => error.is_final(),
            Self::Destination(error) => error.is_final(),
            _ => false,
        }
    }
}

/// Makes the file of an export and says so in its status.
pub async fn make(context: ExportContext, key: ExportKey, export: ScriptExport) {
    let began = Instant::now();
    let mut announcer = Announcer::new(context.client.clone(), key.clone(), &export);
    if export.status.is_none() {
        // A first word; should it fail, the next one will do.
        let _ = announcer.tell(&Stage::Pending).await;
    }
    let result = Work {
        context: &context,
        key: &key,
        export: &export,
        announcer: &mut announcer,
    }
    .file()
    .await;
    let (stage, category) = match &result {
        Ok(file) => {
            context
                .metrics
                .exported(file.rows.unsigned_abs(), file.bytes.unsigned_abs());
            (Stage::Succeeded(file), None)
        }
        Err(refusal) => (Stage::Failed(refusal), Some(refusal.reason)),
    };
    announcer.insist(&stage).await;
    context
        .metrics
        .reconciled("script-export", began.elapsed(), category);
    match &result {
        Ok(file) => {
            let note = format!("{} rows are in {}", file.rows, file.file_name);
            publish(&context, &export, EventType::Normal, "Succeeded", &note).await;
        }
        Err(refusal) => publish(&context, &export, EventType::Warning, "Failed", &refusal.message).await,
    }
}

/// Removes what was written of an export that nobody wants any more, and says so in its status. Nobody works on it.
pub async fn cancel(context: ExportContext, key: ExportKey, export: ScriptExport) {
    withdraw(&context, &key, &export).await;
    remove(&context, &key).await;
    let mut announcer = Announcer::new(context.client.clone(), key, &export);
    announcer.insist(&Stage::Cancelled).await;
    let note = "cancelled by spec.cancelled; what was written is removed";
    publish(&context, &export, EventType::Normal, "Cancelled", note).await;
}

/// Removes what an export has in S3, of this process or one before.
async fn withdraw(context: &ExportContext, key: &ExportKey, export: &ScriptExport) {
    let object = match context.uploads.take(key) {
        Some(object) => Some(object),
        // Of one that never began there is nothing.
        None if export.status.as_ref().and_then(|s| s.phase) != Some(ExportPhase::Running) => None,
        None => {
            let spec = &export.spec;
            let start = start_of(export.status.as_ref(), Timestamp::now());
            let place = plan(&key.namespace, spec, start, due_of(export)).and_then(|plan| {
                let name = plan.file_name(format(spec)?);
                Ok(target(spec)?.map(|target| (target, name)))
            });
            match place {
                Ok(Some(((s3, target), name))) => {
                    let object = context
                        .uploads
                        .object(&context.client, key, (s3, &target), &name)
                        .await;
                    context.uploads.take(key);
                    object.ok()
                }
                _ => None,
            }
        }
    };
    if let Some(object) = object {
        destination::withdraw(key, object, &export.uid().unwrap_or_default()).await;
    }
}

async fn remove(context: &ExportContext, key: &ExportKey) {
    context.uploads.abort(key).await;
    if let Err(error) = context.folder.remove(key).await {
        tracing::warn!(namespace = key.namespace, export = key.name, %error, "What an export left could not be removed.");
    }
}

struct Work<'a> {
    context: &'a ExportContext,
    key: &'a ExportKey,
    export: &'a ScriptExport,
    announcer: &'a mut Announcer,
}

impl Work<'_> {
    async fn file(mut self) -> Result<Artifact, Refusal> {
        // The process may have ended between the file and the status.
        if let Ok(Some((file, _))) = self.context.folder.find(self.key).await
            && Some(&*file.uid) == self.export.uid().as_deref()
        {
            return Ok(on_volume(self.key, &file));
        }
        let spec = &self.export.spec;
        let start = start_of(self.export.status.as_ref(), Timestamp::now());
        let plan = plan(&self.key.namespace, spec, start, due_of(self.export))?;
        let (format, target) = (format(spec)?, target(spec)?);
        let to = target.as_ref().map(|(s3, target)| (*s3, target));
        let mut trouble: Option<(&'static str, String)> = None;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(self.context.pause * 2_u32.pow(attempt - 1)).await;
            }
            let why = trouble.as_ref().map(|(_, why)| why.as_str());
            match self.attempt(&plan, format, to, start, why).await {
                Ok(Ok(file)) => return Ok(file),
                Ok(Err(refusal)) => return Err(refusal),
                Err(error) => {
                    tracing::warn!(namespace = self.key.namespace, export = self.key.name, %error, "An export failed.");
                    // It takes room, perhaps all there is.
                    remove(self.context, self.key).await;
                    if error.is_final() {
                        let message = format!("{error}; then create another ScriptExport");
                        return Err(refuse(error.reason(), &message));
                    }
                    trouble = Some((error.reason(), short(&error.to_string())));
                }
            }
        }
        let (reason, why) = trouble.unwrap_or_default();
        Err(Refusal {
            reason,
            message: format!(
                "gave up after {ATTEMPTS} attempts: {why}; create another ScriptExport once this is mended"
            ),
        })
    }

    /// One attempt: a file, or a reason why there can not be one, or an error that may pass.
    async fn attempt(
        &mut self,
        plan: &Plan,
        format: Format,
        to: Option<(&S3Destination, &S3Target)>,
        start: Timestamp,
        trouble: Option<&str>,
    ) -> Result<Result<Artifact, Refusal>, AttemptError> {
        let mut place = self.context.places.enter(&self.key.namespace).await;
        if !self.is_known(&plan.script).await? {
            return Ok(Err(Refusal {
                reason: "ScriptNotFound",
                message: format!(
                    "spec.scriptRef.name: there is no CustomScript {} in namespace {}, and no data of one",
                    plan.script.name, plan.script.namespace
                ),
            }));
        }
        self.announcer.started(start);
        let (progress, reported) = watch::channel(Progress::default());
        let (done, ended) = oneshot::channel();
        let write = Box::pin(async {
            let report = |now| {
                progress.send_replace(now);
            };
            let of = (self.context, self.key, self.export);
            let result = write(of, plan.clone(), format, to, &report).await;
            // Only once the reports have ended may the end be told.
            let _ = done.send(());
            result
        });
        let estimated = OnceLock::new();
        let counting = async {
            if let Some(count) = estimate(&*self.context.store, plan).await {
                let _ = estimated.set(count);
            }
            pending::<Infallible>().await
        };
        let write = async {
            tokio::select! {
                result = place.work(write) => result,
                // Not in turns: it holds what others wait for.
                never = counting => match never {},
            }
        };
        let reports = report(self.announcer, reported, &estimated, ended, trouble);
        let (result, ()) = futures::join!(write, reports);
        Ok(Ok(result?))
    }

    /// Whether there is anything that could be exported, be it nothing yet.
    async fn is_known(&self, script: &ScriptKey) -> Result<bool, AttemptError> {
        let store = &self.context.store;
        if store.scripts(Some(&script.namespace)).await?.contains(script)
            || !store.deployments(script, 1).await?.is_empty()
        {
            return Ok(true);
        }
        let api: Api<CustomScript> = Api::namespaced(self.context.client.clone(), &script.namespace);
        Ok(api.get_metadata_opt(&script.name).await?.is_some())
    }
}

/// Writes the file to where it goes.
async fn write(
    (context, key, export): (&ExportContext, &ExportKey, &ScriptExport),
    plan: Plan,
    format: Format,
    to: Option<(&S3Destination, &S3Target)>,
    report: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Artifact, AttemptError> {
    let uid = export.uid().unwrap_or_default();
    let store = context.store.clone();
    let Some(to) = to else {
        let folder = &context.folder;
        let file = folder.write(key, &uid, plan, format, store, report).await?;
        return Ok(on_volume(key, &file));
    };
    let name = plan.file_name(format);
    let object = context.uploads.object(&context.client, key, to, &name).await?;
    let stored = s3::write(&object, &uid, plan, format, store, report).await?;
    context.uploads.take(key);
    Ok(in_s3(name, object.url(), &stored))
}

/// How many rows a file will have, about; none where counting takes too long or fails.
async fn estimate(store: &dyn Store, plan: &Plan) -> Option<u64> {
    let count = async {
        let filter = &plan.filter;
        Ok::<_, StoreError>(match plan.table() {
            // Known without looking at each.
            Table::Runs if filter.conditions.is_empty() => {
                let figures = store.window_figures(&plan.script, plan.range, filter).await?;
                Some(figures.total_runs)
            }
            Table::Runs => store
                .count_runs(&query(plan, None, usize::MAX), usize::MAX)
                .await?
                .whole(),
            Table::Logs => store
                .count_logs(&query(plan, None, usize::MAX), usize::MAX)
                .await?
                .whole(),
        })
    };
    let found = within(ESTIMATE, count).await.ok()??;
    u64::try_from(found).ok()
}

/// Tells of progress at most once in [`REPORT`], until `ended`.
async fn report(
    announcer: &mut Announcer,
    reported: watch::Receiver<Progress>,
    estimated: &OnceLock<u64>,
    mut ended: oneshot::Receiver<()>,
    trouble: Option<&str>,
) {
    let mut told = None;
    loop {
        let progress = *reported.borrow();
        let estimated = estimated.get().copied();
        let stage = Stage::Running {
            progress,
            estimated,
            trouble,
        };
        // A report that fails is followed by another.
        if told != Some((progress, estimated)) && announcer.tell(&stage).await.is_ok() {
            told = Some((progress, estimated));
        }
        tokio::select! {
            _ = &mut ended => return,
            () = tokio::time::sleep(REPORT) => {}
        }
    }
}

async fn publish(context: &ExportContext, export: &ScriptExport, type_: EventType, reason: &str, note: &str) {
    let event = Event {
        type_,
        reason: reason.to_owned(),
        note: Some(short(note)),
        action: "Export".to_owned(),
        secondary: None,
    };
    if let Err(error) = context.recorder.publish(&event, &export.object_ref(&())).await {
        tracing::warn!(%error, "An event could not be published.");
    }
}
