//! Writes the status of one export. Every write names the version of the object it is based on, so that none lands on
//! a later object of the same name, and none that was delayed lands after a newer one.

use std::time::Duration;

use jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{
    api::{ScriptExport, ScriptExportStatus},
    export::file::ExportKey,
};

use super::{
    FIELD_MANAGER,
    status::{Scheduled, Stage, scheduled, status},
};

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// First and longest pause before a write is tried again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Why a status was not written.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// The object is gone; so is the need for a status.
    #[error("the object is gone")]
    Gone,
    /// Somebody else wrote in between.
    #[error("the object has changed")]
    Changed,
    /// The API server said no.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// The API server said nothing.
    #[error("the API server did not answer")]
    TimedOut,
}

/// The status of one export.
pub struct Announcer {
    api: Api<ScriptExport>,
    key: ExportKey,
    uid: String,
    generation: Option<i64>,
    resource_version: Option<String>,
    last: Option<ScriptExportStatus>,
    started: Option<Timestamp>,
}

impl Announcer {
    pub fn new(client: Client, key: ExportKey, export: &ScriptExport) -> Self {
        Self {
            api: Api::namespaced(client, &key.namespace),
            key,
            uid: export.uid().unwrap_or_default(),
            generation: export.metadata.generation,
            resource_version: export.resource_version(),
            last: export.status.clone(),
            started: export
                .status
                .as_ref()
                .and_then(|s| s.started_at.as_ref())
                .map(|time| time.0),
        }
    }

    /// Notes when the work began.
    pub fn started(&mut self, time: Timestamp) {
        self.started = Some(time);
    }

    /// Writes the status once.
    pub async fn tell(&mut self, stage: &Stage<'_>) -> Result<(), AnnounceError> {
        match tokio::time::timeout(PATIENCE, self.write(stage)).await {
            Ok(Err(error)) => {
                self.resource_version = None;
                Err(error)
            }
            Ok(done) => done,
            Err(_) => {
                self.resource_version = None;
                Err(AnnounceError::TimedOut)
            }
        }
    }

    /// Writes the status, trying until it is written or the object is gone.
    pub async fn insist(&mut self, stage: &Stage<'_>) {
        let mut pause = PAUSE.0;
        loop {
            match self.tell(stage).await {
                Ok(()) | Err(AnnounceError::Gone) => return,
                Err(AnnounceError::Changed) => {}
                Err(error) => {
                    tracing::warn!(namespace = self.key.namespace, export = self.key.name, %error,
                        "The status of an export could not be written; trying again.");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Writes what a schedule has come to, once, if it is not what was written last.
    pub async fn tell_schedule(
        &mut self,
        export: &ScriptExport,
        now: &Scheduled<'_>,
    ) -> Result<(), AnnounceError> {
        self.generation = export.metadata.generation;
        let status = scheduled(self.generation, self.last.as_ref(), now, Timestamp::now());
        if self.last.as_ref() == Some(&status) {
            return Ok(());
        }
        let result = tokio::time::timeout(PATIENCE, self.put(status)).await;
        let result = result.unwrap_or(Err(AnnounceError::TimedOut));
        if result.is_err() {
            self.resource_version = None;
        }
        result
    }

    async fn write(&mut self, stage: &Stage<'_>) -> Result<(), AnnounceError> {
        let status = status(
            self.generation,
            self.last.as_ref(),
            self.started,
            stage,
            Timestamp::now(),
        );
        self.put(status).await
    }

    async fn put(&mut self, status: ScriptExportStatus) -> Result<(), AnnounceError> {
        let version = match &self.resource_version {
            Some(version) => version.clone(),
            None => self.current_version().await?,
        };
        let patch = Patch::Apply(json!({
            "apiVersion": ScriptExport::api_version(&()),
            "kind": ScriptExport::kind(&()),
            "metadata": { "resourceVersion": version },
            "status": status,
        }));
        let params = PatchParams::apply(FIELD_MANAGER).force();
        match self.api.patch_status(&self.key.name, &params, &patch).await {
            Ok(object) => {
                self.resource_version = object.resource_version();
                self.last = Some(status);
                Ok(())
            }
            Err(kube::Error::Api(s)) if s.is_not_found() => Err(AnnounceError::Gone),
            Err(kube::Error::Api(s)) if s.is_conflict() => Err(AnnounceError::Changed),
            Err(error) => Err(error.into()),
        }
    }

    async fn current_version(&self) -> Result<String, AnnounceError> {
        let object = self.api.get_metadata_opt(&self.key.name).await?;
        object
            .filter(|object| object.uid().as_deref() == Some(&self.uid))
            .and_then(|object| object.resource_version())
            .ok_or(AnnounceError::Gone)
    }
}
