//! Pods, the streams they print, and how far each is committed.

use std::{collections::HashMap, sync::Arc};

use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, SqlitePool};

use super::{ROWS_PER_STATEMENT, push_list};
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
pub async fn register_pod(connection: &mut SqliteConnection, pod: &PodRecord) -> Result<(), StoreError> {
    let script_id = deployments::script_id(&mut Writing(&mut *connection), &pod.script).await?;
    sqlx::query(
        "INSERT INTO pods (uid, name, container, script_id, version, deployment_id) VALUES (?, ?, ?, ?, ?, ?) \
         ON CONFLICT (uid) DO NOTHING",
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
pub async fn pods(
    readers: &SqlitePool,
    uids: impl Iterator<Item = &str>,
) -> Result<HashMap<String, PodRecord>, StoreError> {
    let mut uids: Vec<&str> = uids.collect();
    uids.sort_unstable();
    uids.dedup();
    let mut pods = HashMap::new();
    for chunk in uids.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "SELECT p.uid, p.name, p.container, p.version, p.deployment_id, s.namespace, s.name AS script \
             FROM pods p JOIN scripts s ON s.id = p.script_id WHERE p.uid IN (",
        );
        push_list(&mut sql, chunk.iter().copied());
        for row in sql.build().persistent(false).fetch_all(readers).await? {
            let pod = pod(&row)?;
            pods.insert(pod.uid.clone(), pod);
        }
    }
    Ok(pods)
}

/// The checkpoints of streams of known pods that have one.
pub async fn checkpoints(
    readers: &SqlitePool,
    pods: &HashMap<String, PodRecord>,
) -> Result<HashMap<(String, u32), StreamCheckpoint>, StoreError> {
    let uids: Vec<&String> = pods.keys().collect();
    let mut found = HashMap::new();
    for chunk in uids.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "SELECT id, pod_uid, container, restart, committed_offset, file, file_start, carry FROM streams \
             WHERE pod_uid IN (",
        );
        push_list(&mut sql, chunk.iter().map(|uid| uid.as_str()));
        for row in sql.build().persistent(false).fetch_all(readers).await? {
            let uid: String = row.try_get("pod_uid")?;
            let container: String = row.try_get("container")?;
            let Some(pod) = pods.get(&uid).filter(|pod| pod.container == container) else {
                continue;
            };
            let checkpoint = StreamCheckpoint {
                id: row.try_get("id")?,
                pod: pod.clone(),
                position: position(&row)?,
                carry: row.try_get("carry")?,
            };
            found.insert((uid, row.try_get("restart")?), checkpoint);
        }
    }
    Ok(found)
}

/// Makes streams that are not there yet.
pub async fn create(connection: &mut SqliteConnection, keys: &[StreamKey]) -> Result<(), StoreError> {
    for chunk in keys.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new("INSERT INTO streams (pod_uid, container, restart) ");
        sql.push_values(chunk, |mut row, key| {
            row.push_bind(key.pod_uid.as_str())
                .push_bind(key.container.as_str())
                .push_bind(i64::from(key.restart));
        });
        sql.push(" ON CONFLICT DO NOTHING");
        sql.build().persistent(false).execute(&mut *connection).await?;
    }
    Ok(())
}

/// The owners of streams; unknown streams are left out.
pub async fn owners(readers: &SqlitePool, streams: &[i64]) -> Result<HashMap<i64, Arc<Owner>>, StoreError> {
    let mut owners = HashMap::new();
    for chunk in streams.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "SELECT st.id, p.script_id, p.uid, p.name, p.container, p.version, p.deployment_id, s.namespace, \
                s.name AS script \
             FROM streams st JOIN pods p ON p.uid = st.pod_uid JOIN scripts s ON s.id = p.script_id \
             WHERE st.id IN (",
        );
        push_list(&mut sql, chunk.iter().copied());
        for row in sql.build().persistent(false).fetch_all(readers).await? {
            owners.insert(row.try_get("id")?, owner(&row)?);
        }
    }
    Ok(owners)
}
