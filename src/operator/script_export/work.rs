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
    api::{Compression, CustomScript, ExportData, ExportFormat, RangeSpec, ScriptExport, ScriptExportSpec},
    export::{
        ExportError, Plan, Table,
        columns::Columns,
        file::{ExportKey, Progress, Sidecar},
        format::Format,
        range::RangeRequest,
        rows::query,
    },
    model::{Filter, ScriptKey, parse_age},
    query::within,
    store::{Store, StoreError},
};

use super::{
    ExportContext,
    announce::Announcer,
    status::{Refusal, Stage, start_of},
};

/// Attempts at a file before it is given up.
const ATTEMPTS: u32 = 6;
/// Pause after the first failed attempt; each later one is twice as long.
const PAUSE: Duration = Duration::from_secs(2);
/// Time between two reports of progress.
const REPORT: Duration = Duration::from_secs(1);
/// How long the rows are counted before that is given up.
const ESTIMATE: Duration = Duration::from_secs(2);
/// Longest message in a status.
const MESSAGE: usize = 1_024;

/// Why an attempt failed; the next may not.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the API server could not be asked for the script: {0}")]
    Api(#[from] kube::Error),
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
            context.metrics.exported(file.rows, file.bytes);
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
    remove(&context, &key).await;
    let mut announcer = Announcer::new(context.client.clone(), key, &export);
    announcer.insist(&Stage::Cancelled).await;
    let note = "cancelled by spec.cancelled; what was written is removed";
    publish(&context, &export, EventType::Normal, "Cancelled", note).await;
}

async fn remove(context: &ExportContext, key: &ExportKey) {
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
    async fn file(mut self) -> Result<Sidecar, Refusal> {
        // The process may have ended between the file and the status.
        if let Ok(Some((file, _))) = self.context.folder.find(self.key).await
            && Some(&*file.uid) == self.export.uid().as_deref()
        {
            return Ok(file);
        }
        let start = start_of(self.export.status.as_ref(), Timestamp::now());
        let plan = plan(&self.key.namespace, &self.export.spec, start)?;
        let format = format(&self.export.spec)?;
        let mut trouble: Option<String> = None;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(PAUSE * 2_u32.pow(attempt - 1)).await;
            }
            match self.attempt(&plan, format, start, trouble.as_deref()).await {
                Ok(Ok(file)) => return Ok(file),
                Ok(Err(refusal)) => return Err(refusal),
                Err(error) => {
                    tracing::warn!(namespace = self.key.namespace, export = self.key.name, %error, "An export failed.");
                    trouble = Some(short(&error.to_string()));
                    // It takes room, perhaps all there is.
                    remove(self.context, self.key).await;
                }
            }
        }
        Err(Refusal {
            reason: "WriteFailed",
            message: format!(
                "gave up after {ATTEMPTS} attempts: {}; create another ScriptExport once this is mended",
                trouble.unwrap_or_default()
            ),
        })
    }

    /// One attempt: a file, or a reason why there can not be one, or an error that may pass.
    async fn attempt(
        &mut self,
        plan: &Plan,
        format: Format,
        start: Timestamp,
        trouble: Option<&str>,
    ) -> Result<Result<Sidecar, Refusal>, AttemptError> {
        let _place = self.context.places.enter(&self.key.namespace).await;
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
        let write = async {
            let uid = self.export.uid().unwrap_or_default();
            let report = |now| {
                progress.send_replace(now);
            };
            let result = self
                .context
                .folder
                .write(
                    self.key,
                    &uid,
                    plan.clone(),
                    format,
                    self.context.store.clone(),
                    &report,
                )
                .await;
            // Only once the reports have ended may the end be told.
            let _ = done.send(());
            result
        };
        let estimated = OnceLock::new();
        let counting = async {
            if let Some(count) = estimate(&*self.context.store, plan).await {
                let _ = estimated.set(count);
            }
            pending::<Infallible>().await
        };
        let write = async {
            tokio::select! {
                result = write => result,
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

/// What is to be written, or why it can not be.
fn plan(namespace: &str, spec: &ScriptExportSpec, start: Timestamp) -> Result<Plan, Refusal> {
    let script = ScriptKey::new(namespace, &spec.script_ref.name);
    if !crate::export::file::is_object_name(&script.name) {
        return Err(refuse(
            "InvalidScript",
            "spec.scriptRef.name is not the name of a CustomScript",
        ));
    }
    let table = match spec.data {
        ExportData::Runs => Table::Runs,
        ExportData::Logs => Table::Logs,
    };
    let filter = Filter {
        matching: spec.matching,
        conditions: spec.filters.clone(),
    };
    table
        .check(&filter)
        .map_err(|error| refuse("InvalidFilter", &format!("spec.filters: {error}")))?;
    let range = request(spec.range.as_ref())
        .resolve(start)
        .map_err(|error| refuse("InvalidRange", &format!("spec.range: {error}")))?;
    if let Some(ttl) = &spec.ttl_after_finished {
        parse_age(ttl).map_err(|error| refuse("InvalidTtl", &format!("spec.ttlAfterFinished: {error}")))?;
    }
    let columns = Columns::named(table, &spec.columns)
        .map_err(|error| refuse("InvalidColumns", &format!("spec.columns: {error}")))?;
    Ok(Plan {
        script,
        columns,
        range,
        filter,
    })
}

/// How it is to be written, or why it can not be.
fn format(spec: &ScriptExportSpec) -> Result<Format, Refusal> {
    match spec.format {
        ExportFormat::Csv => Ok(Format::Csv {
            compression: spec.compression,
            bom: spec.csv.is_some_and(|csv| csv.bom),
        }),
        ExportFormat::Parquet if spec.compression != Compression::None => Err(refuse(
            "InvalidFormat",
            "spec.compression is for CSV files; a Parquet file is compressed within: leave it out",
        )),
        ExportFormat::Parquet if spec.csv.is_some() => {
            Err(refuse("InvalidFormat", "spec.csv is for CSV files; leave it out"))
        }
        ExportFormat::Parquet => Ok(Format::Parquet),
    }
}

fn refuse(reason: &'static str, message: &str) -> Refusal {
    Refusal {
        reason,
        message: short(message),
    }
}

fn request(spec: Option<&RangeSpec>) -> RangeRequest {
    let Some(spec) = spec else {
        return RangeRequest::default();
    };
    RangeRequest {
        from: spec.from.as_ref().map(|time| time.0),
        to: spec.to.as_ref().map(|time| time.0),
        last: spec.last.clone(),
        preset: spec.preset,
    }
}

fn short(text: &str) -> String {
    text.chars().take(MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: serde_json::Value) -> ScriptExportSpec {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_spec_that_can_not_be_is_refused_with_its_field() {
        let start = "2026-01-08T00:00:00Z".parse().unwrap();
        let refusal = |json| plan("shop", &spec(json), start).unwrap_err();
        let filter = refusal(serde_json::json!({
            "scriptRef": {"name": "pay"}, "data": "Runs",
            "filters": [{"column": "Log Level", "operator": "Equals", "values": ["Info"]}],
        }));
        assert_eq!(filter.reason, "InvalidFilter");
        assert_eq!(filter.message, "spec.filters: Log Level is not a column of runs");
        let range = refusal(serde_json::json!({
            "scriptRef": {"name": "pay"}, "data": "Runs", "range": {"last": "7y"},
        }));
        assert!(range.message.starts_with("spec.range: "), "{range:?}");
        let name = refusal(serde_json::json!({"scriptRef": {"name": "../x"}, "data": "Logs"}));
        assert_eq!(name.reason, "InvalidScript");
        let columns = refusal(serde_json::json!({
            "scriptRef": {"name": "pay"}, "data": "Logs", "columns": ["Log ID", "Pod"],
        }));
        assert_eq!(columns.reason, "InvalidColumns");
        assert!(
            columns
                .message
                .starts_with("spec.columns: \"Pod\" is not a column of logs; there are Log ID"),
            "{columns:?}"
        );
    }

    #[test]
    fn what_is_for_csv_files_alone_is_refused_for_others() {
        let of = |more: serde_json::Value| {
            let mut json = serde_json::json!({"scriptRef": {"name": "pay"}, "data": "Runs"});
            json.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            format(&spec(json))
        };
        assert_eq!(of(serde_json::json!({})), Ok(Format::default()));
        let gzip = of(serde_json::json!({"compression": "Gzip", "csv": {"bom": true}})).unwrap();
        assert_eq!(gzip.extension(), "csv.gz");
        assert_eq!(of(serde_json::json!({"format": "Parquet"})), Ok(Format::Parquet));
        for (more, field) in [
            (
                serde_json::json!({"format": "Parquet", "compression": "Zstd"}),
                "spec.compression",
            ),
            (
                serde_json::json!({"format": "Parquet", "csv": {"bom": false}}),
                "spec.csv",
            ),
        ] {
            let refusal = of(more).unwrap_err();
            assert!(refusal.message.starts_with(field), "{refusal:?}");
        }
    }

    #[test]
    fn a_spec_without_a_range_is_of_the_last_seven_days() {
        let start = "2026-01-08T00:00:00Z".parse().unwrap();
        let json = serde_json::json!({"scriptRef": {"name": "pay"}, "data": "Logs"});
        let plan = plan("shop", &spec(json), start).unwrap();
        assert_eq!(plan.range.from, Some("2026-01-01T00:00:00Z".parse().unwrap()));
        assert_eq!(plan.table(), Table::Logs);
    }
}
