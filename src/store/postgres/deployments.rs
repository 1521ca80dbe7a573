//! Scripts and the deployments they went through.

use jiff::Timestamp;
use sqlx::{PgConnection, PgPool, Row};
use uuid::Uuid;

use crate::{
    model::{DeployedSpec, Deployment, DeploymentState, ScriptKey},
    store::{
        StoreError,
        rows::{deployed_spec, deployment},
        storable, time,
    },
};

const COLUMNS: &str = "SELECT version, deployment_id, fingerprint, state, reason, started_at, deployed_at, ended_at FROM deployments";

/// The number of a script, given one if it has none.
pub async fn script_id(connection: &mut PgConnection, script: &ScriptKey) -> Result<i64, StoreError> {
    if let Some(id) = known_script(&mut *connection, script).await? {
        return Ok(id);
    }
    sqlx::query("INSERT INTO scripts (namespace, name) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(&script.namespace)
        .bind(&script.name)
        .execute(&mut *connection)
        .await?;
    // Ours, or that of another replica, which is committed by now.
    known_script(connection, script)
        .await?
        .ok_or(StoreError::Database(sqlx::Error::RowNotFound))
}

/// The number of a script, if it has one.
pub async fn known_script(
    connection: &mut PgConnection,
    script: &ScriptKey,
) -> Result<Option<i64>, StoreError> {
    Ok(
        sqlx::query_scalar("SELECT id FROM scripts WHERE namespace = $1 AND name = $2")
            .bind(&script.namespace)
            .bind(&script.name)
            .fetch_optional(connection)
            .await?,
    )
}

/// Keeps other replicas from changing the script's deployments until the transaction ends.
async fn lock(connection: &mut PgConnection, script_id: i64) -> Result<(), StoreError> {
    sqlx::query("SELECT FROM scripts WHERE id = $1 FOR NO KEY UPDATE")
        .bind(script_id)
        .execute(connection)
        .await?;
    Ok(())
}

/// See [`crate::store::Store::begin_deployment`].
pub async fn begin(
    connection: &mut PgConnection,
    script: &ScriptKey,
    fingerprint: &str,
    floor: i64,
    now: Timestamp,
) -> Result<Deployment, StoreError> {
    let script_id = script_id(connection, script).await?;
    lock(connection, script_id).await?;
    let highest: i64 = sqlx::query_scalar(
        "SELECT greatest($1, \
            (SELECT max(version) FROM deployments WHERE script_id = $2), \
            (SELECT max(version) FROM pods WHERE script_id = $2), 0)",
    )
    .bind(floor)
    .bind(script_id)
    .fetch_one(&mut *connection)
    .await?;
    let sql = sqlx::AssertSqlSafe(format!(
        "{COLUMNS} WHERE script_id = $1 ORDER BY version DESC LIMIT 1"
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
        version: highest + 1,
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
         VALUES ($1, $2, $3, $4, $5, $6)",
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
    connection: &mut PgConnection,
    script: &ScriptKey,
    version: i64,
    state: DeploymentState,
    reason: Option<&str>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Some(script_id) = known_script(&mut *connection, script).await? else {
        return Ok(());
    };
    lock(connection, script_id).await?;
    let deployed = state == DeploymentState::Deployed;
    let moved = sqlx::query(
        "UPDATE deployments SET state = $2, reason = $3, \
            deployed_at = CASE WHEN $4 THEN coalesce(deployed_at, $6) ELSE deployed_at END, \
            ended_at = CASE WHEN $5 THEN $6 END \
         WHERE script_id = $1 AND version = $7 AND ended_at IS NULL",
    )
    .bind(script_id)
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
            "UPDATE deployments SET state = 'Replaced', ended_at = $2 \
             WHERE script_id = $1 AND version < $3 AND ended_at IS NULL",
        )
        .bind(script_id)
        .bind(now.as_microsecond())
        .bind(version)
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// See [`crate::store::Store::keep_spec`].
pub async fn keep_spec(
    pool: &PgPool,
    script: &ScriptKey,
    version: i64,
    spec: Vec<u8>,
    changed_by: Option<&str>,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE deployments SET spec = $1, changed_by = $2 \
         WHERE script_id = (SELECT id FROM scripts WHERE namespace = $3 AND name = $4) AND version = $5 \
            AND spec IS NULL",
    )
    .bind(spec)
    .bind(changed_by)
    .bind(&script.namespace)
    .bind(&script.name)
    .bind(version)
    .execute(pool)
    .await?;
    Ok(())
}

/// See [`crate::store::Store::deployed_spec`].
pub async fn spec(
    pool: &PgPool,
    script: &ScriptKey,
    version: i64,
) -> Result<Option<DeployedSpec>, StoreError> {
    let row = sqlx::query(
        "SELECT spec, changed_by FROM deployments \
         WHERE script_id = (SELECT id FROM scripts WHERE namespace = $1 AND name = $2) AND version = $3",
    )
    .bind(&script.namespace)
    .bind(&script.name)
    .bind(version)
    .fetch_optional(pool)
    .await?;
    row.map(|row| deployed_spec(row.try_get::<Option<Vec<u8>>, _>(0)?.as_deref(), row.try_get(1)?))
        .transpose()
}

/// See [`crate::store::Store::deployments`].
pub async fn list(pool: &PgPool, script: &ScriptKey, limit: usize) -> Result<Vec<Deployment>, StoreError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "{COLUMNS} WHERE script_id = (SELECT id FROM scripts WHERE namespace = $1 AND name = $2) \
         ORDER BY version DESC LIMIT $3"
    ));
    sqlx::query(sql)
        .bind(&script.namespace)
        .bind(&script.name)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(pool)
        .await?
        .iter()
        .map(deployment)
        .collect()
}

/// See [`crate::store::Store::scripts`].
pub async fn scripts(pool: &PgPool, namespace: Option<&str>) -> Result<Vec<ScriptKey>, StoreError> {
    let rows = sqlx::query(
        "SELECT namespace, name FROM scripts WHERE ($1::text IS NULL OR namespace = $1) \
            AND id NOT IN (SELECT script_id FROM retention WHERE purged_at IS NOT NULL) \
         ORDER BY namespace, name",
    )
    .bind(namespace)
    .fetch_all(pool)
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
