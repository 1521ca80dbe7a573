//! The work on one export, from Pending to its end.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::{
    Api, Resource, ResourceExt,
    runtime::events::{Event, EventType},
};
use tokio::sync::{oneshot, watch};

use crate::{
    api::{CustomScript, ExportData, RangeSpec, ScriptExport, ScriptExportSpec},
    export::{
        ExportError, Plan, Table,
        file::{ExportKey, Progress, Sidecar},
        range::RangeRequest,
    },
    model::{Filter, ScriptKey},
    store::StoreError,
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
    publish(&context, &export, &result).await;
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
        let mut trouble: Option<String> = None;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(PAUSE * 2_u32.pow(attempt - 1)).await;
            }
            match self.attempt(&plan, start, trouble.as_deref()).await {
                Ok(Ok(file)) => return Ok(file),
                Ok(Err(refusal)) => return Err(refusal),
                Err(error) => {
                    tracing::warn!(namespace = self.key.namespace, export = self.key.name, %error, "An export failed.");
                    trouble = Some(short(&error.to_string()));
                }
            }
        }
        self.give_up().await;
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
        start: Timestamp,
        trouble: Option<&str>,
    ) -> Result<Result<Sidecar, Refusal>, AttemptError> {
        // Closed never: nobody closes it.
        let _place = self.context.places.acquire().await;
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
                .write(self.key, &uid, plan.clone(), self.context.store.clone(), &report)
                .await;
            // Only once the reports have ended may the end be told.
            let _ = done.send(());
            result
        };
        let (result, ()) = futures::join!(write, report(self.announcer, reported, ended, trouble));
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

    async fn give_up(&self) {
        if let Err(error) = self.context.folder.remove(self.key).await {
            tracing::warn!(namespace = self.key.namespace, export = self.key.name, %error, "What an export left could not be removed.");
        }
    }
}

/// Tells of progress at most once in [`REPORT`], until `ended`.
async fn report(
    announcer: &mut Announcer,
    reported: watch::Receiver<Progress>,
    mut ended: oneshot::Receiver<()>,
    trouble: Option<&str>,
) {
    let mut told: Option<Progress> = None;
    loop {
        let progress = *reported.borrow();
        if told != Some(progress) {
            // A report that fails is followed by another.
            if announcer
                .tell(&Stage::Running { progress, trouble })
                .await
                .is_ok()
            {
                told = Some(progress);
            }
        }
        tokio::select! {
            _ = &mut ended => return,
            () = tokio::time::sleep(REPORT) => {}
        }
    }
}

async fn publish(context: &ExportContext, export: &ScriptExport, result: &Result<Sidecar, Refusal>) {
    let (type_, reason, note) = match result {
        Ok(file) => (
            EventType::Normal,
            "Succeeded",
            format!("{} rows are in {}", file.rows, file.file_name),
        ),
        Err(refusal) => (EventType::Warning, "Failed", refusal.message.clone()),
    };
    let event = Event {
        type_,
        reason: reason.to_owned(),
        note: Some(short(&note)),
        action: "Export".to_owned(),
        secondary: None,
    };
    if let Err(error) = context.recorder.publish(&event, &export.object_ref(&())).await {
        tracing::warn!(%error, "An event could not be published.");
    }
}

/// What is to be written, or why it can not be.
fn plan(namespace: &str, spec: &ScriptExportSpec, start: Timestamp) -> Result<Plan, Refusal> {
    let refuse = |reason, message: String| Refusal {
        reason,
        message: short(&message),
    };
    let script = ScriptKey::new(namespace, &spec.script_ref.name);
    if !crate::export::file::is_object_name(&script.name) {
        return Err(refuse(
            "InvalidScript",
            "spec.scriptRef.name is not the name of a CustomScript".to_owned(),
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
        .map_err(|error| refuse("InvalidFilter", format!("spec.filters: {error}")))?;
    let range = request(spec.range.as_ref())
        .resolve(start)
        .map_err(|error| refuse("InvalidRange", format!("spec.range: {error}")))?;
    Ok(Plan {
        script,
        table,
        range,
        filter,
    })
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
    }

    #[test]
    fn a_spec_without_a_range_is_of_the_last_seven_days() {
        let start = "2026-01-08T00:00:00Z".parse().unwrap();
        let json = serde_json::json!({"scriptRef": {"name": "pay"}, "data": "Logs"});
        let plan = plan("shop", &spec(json), start).unwrap();
        assert_eq!(plan.range.from, Some("2026-01-01T00:00:00Z".parse().unwrap()));
        assert_eq!(plan.table, Table::Logs);
    }
}
