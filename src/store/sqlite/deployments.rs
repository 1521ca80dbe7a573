//! Scripts and the deployments they went through.

use jiff::Timestamp;
use sqlx::{Row, SqliteConnection, SqlitePool};
use uuid::Uuid;

use super::time;
use crate::{
    model::{DeployedSpec, Deployment, DeploymentState, ScriptKey},
    store::{
        StoreError,
        rows::{deployed_spec, deployment},
        storable,
    },
};

const COLUMNS: &str = "SELECT version, deployment_id, fingerprint, state, reason, started_at, deployed_at, ended_at FROM deployments";

/// The number of a script, given one if it has none.
pub async fn script_id(connection: &mut SqliteConnection, script: &ScriptKey) -> Result<i64, StoreError> {
    let known = sqlx::query_scalar("SELECT id FROM scripts WHERE namespace = ? AND name = ?")
        .bind(&script.namespace)
        .bind(&script.name)
        .fetch_optional(&mut *connection)
        .await?;
    if let Some(id) = known {
        return Ok(id);
    }
    let id = sqlx::query_scalar("INSERT INTO scripts (namespace, name) VALUES (?, ?) RETURNING id")
        .bind(&script.namespace)
        .bind(&script.name)
        .fetch_one(connection)
        .await?;
    Ok(id)
}

/// See [`crate::store::Store::begin_deployment`].
pub async fn begin(
    connection: &mut SqliteConnection,
    script: &ScriptKey,
    fingerprint: &str,
    floor: i64,
    now: Timestamp,
) -> Result<Deployment, StoreError> {
    let script_id = script_id(connection, script).await?;
    let highest: i64 = sqlx::query_scalar(
        "SELECT max(?1, \
            coalesce((SELECT max(version) FROM deployments WHERE script_id = ?2), 0), \
            coalesce((SELECT max(version) FROM pods WHERE script_id = ?2), 0))",
    )
    .bind(floor)
    .bind(script_id)
    .fetch_one(&mut *connection)
    .await?;
    let sql = sqlx::AssertSqlSafe(format!(
        "{COLUMNS} WHERE script_id = ? ORDER BY version DESC LIMIT 1"
    ));
    let latest = sqlx::query(sql)
        .bind(script_id)
        .fetch_optional(&mut *connection)
        .await?
        .map(|row| deployment(&row))
        .transpose()?;
    if let Some(latest) = latest
        && latest.fingerprint == fingerprint
        && !latest.state.is_ended()
        && latest.version >= highest
    {
        return Ok(latest);
    }
    let new = Deployment {
        version: highest.max(0) + 1,
        deployment_id: format!("deploy_{}", Uuid::now_v7().simple()),
        state: DeploymentState::Deploying,
        reason: None,
        fingerprint: fingerprint.to_owned(),
        started_at: time(now.as_microsecond())?,
        deployed_at: None,
        ended_at: None,
    };
    sqlx::query(
        "INSERT INTO deployments (script_id, version, deployment_id, fingerprint, state, started_at) \
         VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(script_id)
    .bind(new.version)
    .bind(&new.deployment_id)
    .bind(fingerprint)
    .bind(new.state.as_str())
    .bind(now.as_microsecond())
    .execute(connection)
    .await?;
    Ok(new)
}

/// See [`crate::store::Store::set_deployment_state`].
pub async fn set_state(
    connection: &mut SqliteConnection,
    script: &ScriptKey,
    version: i64,
    state: DeploymentState,
    reason: Option<&str>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let deployed = state == DeploymentState::Deployed;
    let moved = sqlx::query(
        "UPDATE deployments SET state = ?3, reason = ?4, \
            deployed_at = CASE WHEN ?5 THEN coalesce(deployed_at, ?7) ELSE deployed_at END, \
            ended_at = CASE WHEN ?6 THEN ?7 END \
         WHERE script_id = (SELECT id FROM scripts WHERE namespace = ?1 AND name = ?2) \
            AND version = ?8 AND ended_at IS NULL",
    )
    .bind(&script.namespace)
    .bind(&script.name)
    .bind(state.as_str())
    .bind(reason.map(|reason| storable(reason.to_owned())))
    .bind(deployed)
    .bind(state.is_ended())
    .bind(now.as_microsecond())
    .bind(version)
    .execute(&mut *connection)
    .await?
    .rows_affected();
    if deployed && moved > 0 {
        sqlx::query(
            "UPDATE deployments SET state = 'Replaced', ended_at = ?3 \
             WHERE script_id = (SELECT id FROM scripts WHERE namespace = ?1 AND name = ?2) \
                AND version < ?4 AND ended_at IS NULL",
        )
        .bind(&script.namespace)
        .bind(&script.name)
        .bind(now.as_microsecond())
        .bind(version)
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// See [`crate::store::Store::keep_spec`].
pub async fn keep_spec(
    connection: &mut SqliteConnection,
    script: &ScriptKey,
    version: i64,
    spec: Vec<u8>,
    changed_by: Option<String>,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE deployments SET spec = ?1, changed_by = ?2 \
         WHERE script_id = (SELECT id FROM scripts WHERE namespace = ?3 AND name = ?4) AND version = ?5 \
            AND spec IS NULL",
    )
    .bind(spec)
    .bind(changed_by)
    .bind(&script.namespace)
    .bind(&script.name)
    .bind(version)
    .execute(connection)
    .await?;
    Ok(())
}

/// See [`crate::store::Store::deployed_spec`].
pub async fn spec(
    readers: &SqlitePool,
    script: &ScriptKey,
    version: i64,
) -> Result<Option<DeployedSpec>, StoreError> {
    let row = sqlx::query(
        "SELECT spec, changed_by FROM deployments \
         WHERE script_id = (SELECT id FROM scripts WHERE namespace = ? AND name = ?) AND version = ?",
    )
    .bind(&script.namespace)
    .bind(&script.name)
    .bind(version)
    .fetch_optional(readers)
    .await?;
    row.map(|row| deployed_spec(row.try_get::<Option<Vec<u8>>, _>(0)?.as_deref(), row.try_get(1)?))
        .transpose()
}

/// See [`crate::store::Store::deployments`].
pub async fn list(
    readers: &SqlitePool,
    script: &ScriptKey,
    limit: usize,
) -> Result<Vec<Deployment>, StoreError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "{COLUMNS} WHERE script_id = (SELECT id FROM scripts WHERE namespace = ? AND name = ?) \
         ORDER BY version DESC LIMIT ?"
    ));
    sqlx::query(sql)
        .bind(&script.namespace)
        .bind(&script.name)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(readers)
        .await?
        .iter()
        .map(deployment)
        .collect()
}

/// See [`crate::store::Store::scripts`].
pub async fn scripts(readers: &SqlitePool, namespace: Option<&str>) -> Result<Vec<ScriptKey>, StoreError> {
    let rows = sqlx::query(
        "SELECT namespace, name FROM scripts WHERE (?1 IS NULL OR namespace = ?1) \
            AND id NOT IN (SELECT script_id FROM retention WHERE purged_at IS NOT NULL) \
         ORDER BY namespace, name",
    )
    .bind(namespace)
    .fetch_all(readers)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(ScriptKey::new(
                row.try_get::<String, _>(0)?,
                row.try_get::<String, _>(1)?,
            ))
        })
        .collect()
}
