//! Scripts and the deployments they went through, the same on every backend.

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    StoreError, optional_time, payload,
    read::Values,
    retention::sql::{Write, push, push_optional, sql},
    storable, time,
};
use crate::{
    model::{Change, DeployedSpec, Deployment, DeploymentState, KeptSpec, ScriptKey},
    query::{Dialect, Sql},
};

/// As [`deployment`] reads them.
const COLUMNS: &str = "version, deployment_id, fingerprint, state, reason, started_at, deployed_at, ended_at, changed_by, change, \
    CAST(CASE WHEN spec IS NULL THEN 0 ELSE 1 END AS BIGINT)";

fn deployment(row: &impl Values) -> Result<Deployment, StoreError> {
    let state = row.text(3)?;
    let change = row.optional_text(9)?.map(serde_json::from_str::<Change>);
    Ok(Deployment {
        version: row.number(0)?,
        deployment_id: row.text(1)?.to_owned(),
        fingerprint: row.text(2)?.to_owned(),
        state: DeploymentState::parse(state)
            .ok_or_else(|| StoreError::Corrupt(format!("the deployment state {state:?}")))?,
        reason: row.optional_text(4)?.map(str::to_owned),
        started_at: time(row.number(5)?)?,
        deployed_at: optional_time(row.optional_number(6)?)?,
        ended_at: optional_time(row.optional_number(7)?)?,
        changed_by: row.optional_text(8)?.map(str::to_owned),
        change: change
            .transpose()
            .map_err(|error| StoreError::Corrupt(format!("the change of a version: {error}")))?,
        spec_kept: row.number(10)? == 1,
    })
}

/// Appends ` WHERE` for the deployments of a script.
fn of_script<DB: Dialect>(statement: &mut Sql<DB>, script: &ScriptKey) {
    statement.push(" WHERE script_id = (SELECT id FROM scripts");
    named(statement, script);
    statement.push(")");
}

fn named<DB: Dialect>(statement: &mut Sql<DB>, script: &ScriptKey) {
    statement.push(" WHERE namespace = ");
    DB::text(statement, script.namespace.clone());
    statement.push(" AND name = ");
    DB::text(statement, script.name.clone());
}

fn push_text<DB: Dialect>(statement: &mut Sql<DB>, before: &str, text: Option<String>) {
    statement.push(before);
    match text {
        Some(text) => DB::text(statement, storable(text)),
        None => {
            statement.push("NULL");
        }
    }
}

/// The first row that a statement finds.
async fn one<W: Write, T: Send>(
    connection: &mut W,
    statement: Sql<W::DB>,
    mut read: impl FnMut(&W::Row) -> Result<T, StoreError> + Send,
) -> Result<Option<T>, StoreError> {
    let mut found = None;
    connection
        .each(statement, |row| {
            if found.is_none() {
                found = Some(read(row)?);
            }
            Ok(())
        })
        .await?;
    Ok(found)
}

/// The number of a script, if it has one.
async fn known_script<W: Write>(
    connection: &mut W,
    script: &ScriptKey,
    lock: &str,
) -> Result<Option<i64>, StoreError> {
    let mut statement = sql("SELECT id FROM scripts");
    named(&mut statement, script);
    statement.push(lock);
    one(connection, statement, |row| row.number(0)).await
}

/// The number of a script, given one if it has none.
pub async fn script_id<W: Write>(connection: &mut W, script: &ScriptKey) -> Result<i64, StoreError> {
    if let Some(id) = known_script(connection, script, "").await? {
        return Ok(id);
    }
    let mut statement = sql("INSERT INTO scripts (namespace, name) VALUES (");
    W::DB::text(&mut statement, script.namespace.clone());
    statement.push(", ");
    W::DB::text(&mut statement, script.name.clone());
    statement.push(") ON CONFLICT DO NOTHING");
    connection.execute(statement).await?;
    // Ours, or that of another replica, which is committed by now.
    known_script(connection, script, "")
        .await?
        .ok_or(StoreError::Database(sqlx::Error::RowNotFound))
}

/// See [`crate::store::Store::begin_deployment`]. Within a transaction.
pub async fn begin<W: Write>(
    transaction: &mut W,
    script: &ScriptKey,
    fingerprint: &str,
    floor: i64,
    now: Timestamp,
) -> Result<Deployment, StoreError> {
    let script_id = script_id(transaction, script).await?;
    known_script(transaction, script, W::DB::LOCK).await?;
    let mut highest = floor.max(0);
    for table in ["deployments", "pods"] {
        let mut statement = sql(format!("SELECT max(version) FROM {table}"));
        push(&mut statement, " WHERE script_id = ", script_id);
        let version = one(transaction, statement, |row| row.optional_number(0)).await?;
        highest = highest.max(version.flatten().unwrap_or(0));
    }
    let mut statement = sql(format!("SELECT {COLUMNS} FROM deployments"));
    push(&mut statement, " WHERE script_id = ", script_id);
    statement.push(" ORDER BY version DESC LIMIT 1");
    if let Some(latest) = one(transaction, statement, deployment).await?
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
        changed_by: None,
        change: None,
        spec_kept: false,
    };
    let mut statement = sql(
        "INSERT INTO deployments (script_id, version, started_at, deployment_id, fingerprint, state) VALUES (",
    );
    push(&mut statement, "", script_id);
    push(&mut statement, ", ", new.version);
    push(&mut statement, ", ", now.as_microsecond());
    for text in [&new.deployment_id, fingerprint, new.state.as_str()] {
        push_text(&mut statement, ", ", Some(text.to_owned()));
    }
    statement.push(")");
    transaction.execute(statement).await?;
    Ok(new)
}

/// See [`crate::store::Store::set_deployment_state`]. Within a transaction.
pub async fn set_state<W: Write>(
    transaction: &mut W,
    script: &ScriptKey,
    version: i64,
    state: DeploymentState,
    reason: Option<&str>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Some(script_id) = known_script(transaction, script, W::DB::LOCK).await? else {
        return Ok(());
    };
    let now = now.as_microsecond();
    let deployed = state == DeploymentState::Deployed;
    let mut statement = sql("UPDATE deployments");
    push_text(&mut statement, " SET state = ", Some(state.as_str().to_owned()));
    push_text(&mut statement, ", reason = ", reason.map(str::to_owned));
    if deployed {
        push(&mut statement, ", deployed_at = coalesce(deployed_at, ", now);
        statement.push(")");
    }
    push_optional(&mut statement, ", ended_at = ", state.is_ended().then_some(now));
    push(&mut statement, " WHERE script_id = ", script_id);
    push(&mut statement, " AND version = ", version);
    statement.push(" AND ended_at IS NULL");
    let moved = transaction.execute(statement).await?;
    if deployed && moved > 0 {
        let mut statement = sql("UPDATE deployments SET state = 'Replaced'");
        push(&mut statement, ", ended_at = ", now);
        push(&mut statement, " WHERE script_id = ", script_id);
        push(&mut statement, " AND version < ", version);
        statement.push(" AND ended_at IS NULL");
        transaction.execute(statement).await?;
    }
    Ok(())
}

/// See [`crate::store::Store::keep_spec`].
pub async fn keep_spec<W: Write>(
    connection: &mut W,
    script: &ScriptKey,
    version: i64,
    kept: &KeptSpec,
) -> Result<(), StoreError> {
    let change = serde_json::to_string(&kept.change)
        .map_err(|error| StoreError::Unusable(format!("the change of a version: {error}")))?;
    let mut statement = sql("UPDATE deployments SET spec = ");
    W::DB::bytes(&mut statement, payload::pack(&kept.spec));
    push_text(&mut statement, ", changed_by = ", kept.changed_by.clone());
    push_text(&mut statement, ", change = ", Some(change));
    push_text(&mut statement, ", beside = ", Some(kept.beside.clone()));
    of_script(&mut statement, script);
    push(&mut statement, " AND version = ", version);
    statement.push(" AND spec IS NULL");
    connection.execute(statement).await?;
    Ok(())
}

/// See [`crate::store::Store::deployed_spec`].
pub async fn spec<W: Write>(
    connection: &mut W,
    script: &ScriptKey,
    version: i64,
) -> Result<Option<DeployedSpec>, StoreError> {
    let mut statement = sql("SELECT spec, beside FROM deployments");
    of_script(&mut statement, script);
    push(&mut statement, " AND version = ", version);
    let read = |row: &W::Row| {
        let spec = row.optional_bytes(0)?.map(payload::unpack).transpose()?;
        let spec = spec.map(serde_json::value::RawValue::from_string).transpose();
        Ok(DeployedSpec {
            spec: spec.map_err(|_| StoreError::Corrupt("the spec of a version".to_owned()))?,
            beside: row.optional_text(1)?.map(str::to_owned),
        })
    };
    one(connection, statement, read).await
}

/// See [`crate::store::Store::deployments`].
pub async fn list<W: Write>(
    connection: &mut W,
    script: &ScriptKey,
    limit: usize,
) -> Result<Vec<Deployment>, StoreError> {
    let mut statement = sql(format!("SELECT {COLUMNS} FROM deployments"));
    of_script(&mut statement, script);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    push(&mut statement, " ORDER BY version DESC LIMIT ", limit);
    let mut found = Vec::new();
    connection
        .each(statement, |row| {
            found.push(deployment(row)?);
            Ok(())
        })
        .await?;
    Ok(found)
}

/// See [`crate::store::Store::scripts`].
pub async fn scripts<W: Write>(
    connection: &mut W,
    namespace: Option<&str>,
) -> Result<Vec<ScriptKey>, StoreError> {
    let mut statement = sql(
        "SELECT namespace, name FROM scripts WHERE id NOT IN (SELECT script_id FROM retention WHERE purged_at IS NOT NULL)",
    );
    if let Some(namespace) = namespace {
        push_text(&mut statement, " AND namespace = ", Some(namespace.to_owned()));
    }
    statement.push(" ORDER BY namespace, name");
    let mut found = Vec::new();
    connection
        .each(statement, |row| {
            found.push(ScriptKey::new(row.text(0)?, row.text(1)?));
            Ok(())
        })
        .await?;
    Ok(found)
}
