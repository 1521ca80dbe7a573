//! Pods, the streams they print, and how far each is committed.

use std::{collections::HashMap, sync::Arc};

use sqlx::{PgConnection, PgPool, Row};

use crate::{
    ingest::wire::StreamKey,
    store::{
        PodRecord, StoreError, StreamCheckpoint,
        batch::Owner,
        deployments,
        retention::sql::Writing,
        rows::{owner, pod, position},
    },
};

/// See [`crate::store::Store::register_pod`].
pub async fn register_pod(connection: &mut PgConnection, pod: &PodRecord) -> Result<(), StoreError> {
    let script_id = deployments::script_id(&mut Writing(&mut *connection), &pod.script).await?;
    sqlx::query(
        "INSERT INTO pods (uid, name, container, script_id, version, deployment_id) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (uid) DO NOTHING",
    )
    .bind(&pod.uid)
    .bind(&pod.name)
    .bind(&pod.container)
    .bind(script_id)
    .bind(pod.version)
    .bind(&pod.deployment_id)
    .execute(connection)
    .await?;
    Ok(())
}

/// The pods with these UIDs, as registered.
pub async fn pods(pool: &PgPool, uids: &[&str]) -> Result<HashMap<String, PodRecord>, StoreError> {
    // Postgres keeps no text with a NUL in it, so there is no such pod; it must not spoil the others' answer.
    let uids: Vec<&str> = uids.iter().copied().filter(|uid| !uid.contains('\0')).collect();
    let rows = sqlx::query(
        "SELECT p.uid, p.name, p.container, p.version, p.deployment_id, s.namespace, s.name AS script \
         FROM pods p JOIN scripts s ON s.id = p.script_id WHERE p.uid = ANY($1)",
    )
    .bind(uids)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| pod(row).map(|pod| (pod.uid.clone(), pod)))
        .collect()
}

/// The checkpoints of streams of known pods that have one.
pub async fn checkpoints(
    pool: &PgPool,
    pods: &HashMap<String, PodRecord>,
) -> Result<HashMap<(String, u32), StreamCheckpoint>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, pod_uid, container, restart, committed_offset, file, file_start, carry FROM streams \
         WHERE pod_uid = ANY($1)",
    )
    .bind(pods.keys().map(String::as_str).collect::<Vec<_>>())
    .fetch_all(pool)
    .await?;
    let mut found = HashMap::new();
    for row in &rows {
        let uid: String = row.try_get("pod_uid")?;
        let container: String = row.try_get("container")?;
        let Some(pod) = pods.get(&uid).filter(|pod| pod.container == container) else {
            continue;
        };
        let restart: i64 = row.try_get("restart")?;
        let restart =
            u32::try_from(restart).map_err(|_| StoreError::Corrupt(format!("the restart {restart}")))?;
        let checkpoint = StreamCheckpoint {
            id: row.try_get("id")?,
            pod: pod.clone(),
            position: position(row)?,
            carry: row.try_get("carry")?,
        };
        found.insert((uid, restart), checkpoint);
    }
    Ok(found)
}

/// Makes streams that are not there yet; keys in one order, so that replicas do not wait for each other in a circle.
pub async fn create(connection: &mut PgConnection, mut keys: Vec<&StreamKey>) -> Result<(), StoreError> {
    keys.sort_unstable_by_key(|key| (&key.pod_uid, &key.container, key.restart));
    sqlx::query(
        "INSERT INTO streams (pod_uid, container, restart) \
         SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[]) ON CONFLICT DO NOTHING",
    )
    .bind(keys.iter().map(|key| key.pod_uid.as_str()).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| key.container.as_str()).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| i64::from(key.restart)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// The owners of streams; unknown streams are left out.
pub async fn owners(pool: &PgPool, streams: &[i64]) -> Result<HashMap<i64, Arc<Owner>>, StoreError> {
    let rows = sqlx::query(
        "SELECT st.id, p.script_id, p.uid, p.name, p.container, p.version, p.deployment_id, s.namespace, \
            s.name AS script \
         FROM streams st JOIN pods p ON p.uid = st.pod_uid JOIN scripts s ON s.id = p.script_id \
         WHERE st.id = ANY($1)",
    )
    .bind(streams)
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| Ok((row.try_get("id")?, owner(row)?)))
        .collect()
}
