//! How streams end, and what could not be read of them; see [`crate::store::endings`].

use std::collections::HashMap;

use sqlx::{PgConnection, PgPool, Row};

use crate::store::{StoreError, StreamProgress, endings};

endings::functions!(PgConnection, PgPool);

/// See [`crate::store::Store::pod_streams`].
pub async fn pod_streams(
    pool: &PgPool,
    uids: &[String],
) -> Result<HashMap<String, Vec<StreamProgress>>, StoreError> {
    let rows = sqlx::query(
        "SELECT pod_uid, restart, committed_offset, last_word FROM streams WHERE pod_uid = ANY($1) \
         ORDER BY pod_uid, restart",
    )
    .bind(uids)
    .fetch_all(pool)
    .await?;
    let mut found: HashMap<String, Vec<StreamProgress>> = HashMap::new();
    for row in &rows {
        let streams = found.entry(row.try_get("pod_uid")?).or_default();
        streams.push(endings::progress(row)?);
    }
    Ok(found)
}
