//! How streams end, and what could not be read of them; see [`crate::store::endings`].

use std::collections::HashMap;

use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, SqlitePool};

use super::{ROWS_PER_STATEMENT, push_list};
use crate::store::{StoreError, StreamProgress, endings};

endings::functions!(SqliteConnection, SqlitePool);

/// See [`crate::store::Store::pod_streams`].
pub async fn pod_streams(
    pool: &SqlitePool,
    uids: &[String],
) -> Result<HashMap<String, Vec<StreamProgress>>, StoreError> {
    let mut found: HashMap<String, Vec<StreamProgress>> = HashMap::new();
    for chunk in uids.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "SELECT pod_uid, restart, committed_offset, last_word FROM streams WHERE pod_uid IN (",
        );
        push_list(&mut sql, chunk.iter().map(String::as_str));
        sql.push(" ORDER BY pod_uid, restart");
        for row in sql.build().persistent(false).fetch_all(pool).await? {
            let streams = found.entry(row.try_get("pod_uid")?).or_default();
            streams.push(endings::progress(&row)?);
        }
    }
    Ok(found)
}
