//! Deleting what is past its time, a small transaction at a time. What to delete is found on a reading connection; the
//! writing one only deletes by key, so ingest hardly waits.

mod history;
mod logs;
mod pods;
mod runs;

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{Row, SqlitePool};

use super::{ROWS_PER_STATEMENT, SqliteStore, deployments};
use crate::{
    model::ScriptKey,
    store::{
        StoreError,
        retention::{Budget, Cutoffs, OnDelete, RUN_BYTES, Retained, Retention, SeenObject, Storage},
    },
};

pub use logs::shown_from;
pub use runs::ended_before;

/// Pages given back in one step: 2 MiB.
const VACUUM_PAGES: i64 = 512;
/// Free pages that are left for what comes next: 4 MiB.
const SPARE_PAGES: i64 = 1_024;

/// Rows that a statement may name.
fn rows(budget: Budget) -> i64 {
    i64::try_from(budget.rows.clamp(1, ROWS_PER_STATEMENT)).unwrap_or(1)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

async fn storage(readers: &SqlitePool, script_id: i64) -> Result<Storage, StoreError> {
    let counted = sqlx::query("SELECT runs, payload_bytes FROM script_usage WHERE script_id = ?")
        .bind(script_id)
        .fetch_optional(readers)
        .await?;
    let (runs, payloads): (i64, i64) = match counted {
        Some(row) => (row.try_get(0)?, row.try_get(1)?),
        None => (0, 0),
    };
    Ok(Storage {
        runs: unsigned(runs) * RUN_BYTES,
        payloads: unsigned(payloads),
        logs: unsigned(logs::bytes(readers, script_id).await?),
    })
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
        let (logs_excess, runs_excess) = match cutoffs.max_bytes {
            Some(max) => storage(&self.0.readers, id).await?.excess(max),
            None => (0, 0),
        };
        let step = logs::delete(&self.0, id, cutoffs, logs_excess, budget).await?;
        if step.more {
            return Ok(step);
        }
        let step = runs::delete(&self.0, id, cutoffs, runs_excess, budget).await?;
        if step.more {
            return Ok(step);
        }
        history::delete(&self.0, id, cutoffs, budget).await
    }

    async fn purge(
        &self,
        script: &ScriptKey,
        before: Timestamp,
        budget: Budget,
    ) -> Result<Retained, StoreError> {
        let step = self
            .retain(script, &Cutoffs::all_before(before, before), budget)
            .await?;
        match self.0.script_id(script).await? {
            Some(id) if !step.more => history::purge(&self.0, id, before, budget).await,
            _ => Ok(step),
        }
    }

    async fn forget_pods(
        &self,
        script: &ScriptKey,
        present: &[String],
        now: Timestamp,
        budget: Budget,
    ) -> Result<Retained, StoreError> {
        match self.0.script_id(script).await? {
            Some(id) => pods::forget(&self.0, id, present, now, budget).await,
            None => Ok(Retained::default()),
        }
    }

    async fn storage(&self, script: &ScriptKey) -> Result<Storage, StoreError> {
        match self.0.script_id(script).await? {
            Some(id) => storage(&self.0.readers, id).await,
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
                    let id = deployments::script_id(c, &script).await?;
                    sqlx::query(
                        "INSERT INTO seen_objects (script_id, uid, purge) VALUES (?, ?, ?) \
                         ON CONFLICT (script_id) DO UPDATE SET uid = excluded.uid, purge = excluded.purge",
                    )
                    .bind(id)
                    .bind(&object.uid)
                    .bind(object.on_delete == OnDelete::Purge)
                    .execute(&mut *c)
                    .await?;
                    sqlx::query("UPDATE retention SET purged_at = NULL WHERE script_id = ?")
                        .bind(id)
                        .execute(c)
                        .await?;
                    Ok(())
                })
            })
            .await
    }

    async fn seen_objects(&self) -> Result<Vec<(ScriptKey, SeenObject)>, StoreError> {
        sqlx::query(
            "SELECT s.namespace, s.name, o.uid, o.purge FROM seen_objects o JOIN scripts s ON s.id = o.script_id",
        )
        .fetch_all(&self.0.lookups)
        .await?
        .iter()
        .map(|row| {
            let script = ScriptKey::new(
                row.try_get::<String, _>("namespace")?,
                row.try_get::<String, _>("name")?,
            );
            let on_delete = if row.try_get("purge")? {
                OnDelete::Purge
            } else {
                OnDelete::Retain
            };
            let uid = row.try_get("uid")?;
            Ok((script, SeenObject { uid, on_delete }))
        })
        .collect()
    }
}
