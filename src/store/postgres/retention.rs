//! Deleting what is past its time. Space is free for new rows at once; the server's own vacuum keeps it so.

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::PgConnection;
use tokio::time::sleep;

use super::{PostgresStore, locks, retry};
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

impl PostgresStore {
    async fn apply(&self, script_id: i64, step: Option<Step>) -> Result<Retained, StoreError> {
        let Some(step) = step else {
            return Ok(Retained::default());
        };
        in_transaction!(self.0, |c| apply(c, script_id, &step))
    }
}

/// Does a step under the locks it needs, taken in the order in which ingest takes them.
async fn apply(c: &mut PgConnection, script_id: i64, step: &Step) -> Result<Retained, StoreError> {
    if let Step::Runs(runs) = step
        && let Some(times) = runs.times()
    {
        sqlx::query(
            "SELECT id FROM streams WHERE id IN (SELECT stream_id FROM runs \
                WHERE script_id = $1 AND executed_at >= $2 AND executed_at < $3) \
             ORDER BY id FOR NO KEY UPDATE",
        )
        .bind(script_id)
        .bind(times.start)
        .bind(times.end)
        .execute(&mut *c)
        .await?;
    }
    if matches!(step, Step::Runs(_) | Step::Rows(_)) {
        locks::scripts(c, &[script_id]).await?;
    }
    steps::apply(&mut Writing(c), script_id, step).await
}

async fn note_object(
    c: &mut PgConnection,
    script: &ScriptKey,
    object: &SeenObject,
) -> Result<(), StoreError> {
    let mut write = Writing(c);
    let id = deployments::script_id(&mut write, script).await?;
    steps::note_object(&mut write, id, object).await
}

#[async_trait]
impl Retention for PostgresStore {
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
        Ok(false)
    }

    async fn note_object(&self, script: &ScriptKey, object: &SeenObject) -> Result<(), StoreError> {
        in_transaction!(self.0, |c| note_object(c, script, object))
    }

    async fn seen_objects(&self) -> Result<Vec<(ScriptKey, SeenObject)>, StoreError> {
        steps::seen_objects(&mut self.0.snapshot().await?).await
    }
}
