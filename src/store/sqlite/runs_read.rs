//! Reading what is in progress.

use sqlx::{Row, SqlitePool};

use crate::store::{PodRecord, StoreError, rows, time};

/// See [`crate::store::Store::pods_with_open_runs`].
pub async fn pods_with_open_runs(
    readers: &SqlitePool,
) -> Result<Vec<(PodRecord, jiff::Timestamp)>, StoreError> {
    sqlx::query(
        "SELECT p.uid, p.name, p.container, p.version, p.deployment_id, s.namespace, s.name AS script, \
            min(r.executed_at) AS oldest \
         FROM runs r JOIN streams st ON st.id = r.stream_id JOIN pods p ON p.uid = st.pod_uid \
            JOIN scripts s ON s.id = p.script_id \
         WHERE r.status = 0 GROUP BY p.uid ORDER BY oldest",
    )
    .fetch_all(readers)
    .await?
    .iter()
    .map(|row| Ok((rows::pod(row)?, time(row.try_get("oldest")?)?)))
    .collect()
}
