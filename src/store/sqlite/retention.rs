//! Deleting what is past its time, and giving the space back.

use async_trait::async_trait;
use jiff::Timestamp;

use super::SqliteStore;
use crate::{
    model::ScriptKey,
    store::{
        StoreError, deployments,
        retention::{
            Budget, Cutoffs, Retained, Retention, SeenObject, Storage, pods,
            sql::Writing,
            steps::{self, Step},
        },
    },
};

/// Pages given back in one step: 2 MiB.
const VACUUM_PAGES: i64 = 512;
/// Free pages that are left for what comes next: 4 MiB.
const SPARE_PAGES: i64 = 1_024;

impl SqliteStore {
    async fn apply(&self, script_id: i64, step: Option<Step>) -> Result<Retained, StoreError> {
        let Some(step) = step else {
            return Ok(Retained::default());
        };
        self.0
            .writer
            .write(move |c| Box::pin(async move { steps::apply(&mut Writing(c), script_id, &step).await }))
            .await
    }
}

#[async_trait]
impl Retention for SqliteStore {
    async fn retain(
        &self,
        script: &ScriptKey,
        cutoffs: &Cutoffs,
        budget: Budget,
    ) -> Result<Retained, StoreError> {
        let Some(id) = self.0.script_id(script).await? else {
            return Ok(Retained::default());
        };
        let step = steps::retain(&mut self.0.snapshot().await?, id, cutoffs, budget).await?;
        self.apply(id, step).await
    }

    async fn purge(
        &self,
        script: &ScriptKey,
        before: Timestamp,
        budget: Budget,
    ) -> Result<Retained, StoreError> {
        let Some(id) = self.0.script_id(script).await? else {
            return Ok(Retained::default());
        };
        let step = steps::purge(&mut self.0.snapshot().await?, id, before, budget).await?;
        self.apply(id, step).await
    }

    async fn forget_pods(
        &self,
        script: &ScriptKey,
        present: &[String],
        now: Timestamp,
        budget: Budget,
    ) -> Result<Retained, StoreError> {
        let Some(id) = self.0.script_id(script).await? else {
            return Ok(Retained::default());
        };
        let step = pods::plan(&mut self.0.snapshot().await?, id, present, now, budget).await?;
        self.apply(id, step.map(Step::Pods)).await
    }

    async fn storage(&self, script: &ScriptKey) -> Result<Storage, StoreError> {
        match self.0.script_id(script).await? {
            Some(id) => steps::storage(&mut self.0.snapshot().await?, id).await,
            None => Ok(Storage::default()),
        }
    }

    async fn give_back_space(&self) -> Result<bool, StoreError> {
        let free: i64 = sqlx::query_scalar("PRAGMA freelist_count")
            .fetch_one(&self.0.lookups)
            .await?;
        if free <= SPARE_PAGES {
            return Ok(false);
        }
        let pages = VACUUM_PAGES.min(free - SPARE_PAGES);
        let left: i64 = self
            .0
            .writer
            .write(move |c| {
                Box::pin(async move {
                    let vacuum = sqlx::AssertSqlSafe(format!("PRAGMA incremental_vacuum({pages})"));
                    sqlx::query(vacuum).fetch_all(&mut *c).await?;
                    Ok(sqlx::query_scalar::<_, i64>("PRAGMA freelist_count")
                        .fetch_one(c)
                        .await?)
                })
            })
            .await?;
        // A file that was not made with `auto_vacuum` keeps its pages, for its own use.
        Ok(left > SPARE_PAGES && left < free)
    }

    async fn note_object(&self, script: &ScriptKey, object: &SeenObject) -> Result<(), StoreError> {
        let (script, object) = (script.clone(), object.clone());
        self.0
            .writer
            .write(move |c| {
                Box::pin(async move {
                    let mut write = Writing(c);
                    let id = deployments::script_id(&mut write, &script).await?;
                    steps::note_object(&mut write, id, &object).await
                })
            })
            .await
    }

    async fn seen_objects(&self) -> Result<Vec<(ScriptKey, SeenObject)>, StoreError> {
        steps::seen_objects(&mut self.0.snapshot().await?).await
    }
}
