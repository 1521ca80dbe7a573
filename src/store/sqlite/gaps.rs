//! How streams end, and what could not be read of them.

use std::collections::HashMap;

use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, SqlitePool};

use super::{ROWS_PER_STATEMENT, push_list, streams, time};
use crate::{
    model::{LogGap, TimeRange},
    query::micros_range,
    store::{LastWord, POD_ENDED_UNREAD, PodRecord, SettlePod, StoreError, StreamProgress},
};

/// Columns of [`gap`], of the tables `gaps g`, `streams st` and `pods p`.
const COLUMNS: &str = "g.time, g.reason, g.bytes, g.at_offset, st.restart, p.name, p.version";

/// Notes the last word of a stream. What was thought lost at its end was not.
pub async fn last_word(
    connection: &mut SqliteConnection,
    stream: i64,
    word: &LastWord,
) -> Result<(), StoreError> {
    let text = match word {
        LastWord::EndOfFiles => "",
        LastWord::RunnerStopped { token } => token,
    };
    // A runner that gave no token waits for none.
    sqlx::query("UPDATE streams SET last_word = ? WHERE id = ?")
        .bind(text)
        .bind(stream)
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM gaps WHERE stream_id = ? AND reason = ?")
        .bind(stream)
        .bind(POD_ENDED_UNREAD)
        .execute(connection)
        .await?;
    Ok(())
}

/// See [`crate::store::Store::unsettled_pods`].
pub async fn unsettled_pods(readers: &SqlitePool) -> Result<Vec<PodRecord>, StoreError> {
    sqlx::query(
        "SELECT p.uid, p.name, p.container, p.version, p.deployment_id, s.namespace, s.name AS script \
         FROM pods p JOIN scripts s ON s.id = p.script_id WHERE p.settled = 0",
    )
    .fetch_all(readers)
    .await?
    .iter()
    .map(streams::pod)
    .collect()
}

/// See [`crate::store::Store::pod_streams`].
pub async fn pod_streams(
    readers: &SqlitePool,
    uids: &[String],
) -> Result<HashMap<String, Vec<StreamProgress>>, StoreError> {
    let mut found: HashMap<String, Vec<StreamProgress>> = HashMap::new();
    for chunk in uids.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new(
            "SELECT pod_uid, restart, committed_offset, last_word FROM streams WHERE pod_uid IN (",
        );
        push_list(&mut sql, chunk.iter().map(String::as_str));
        sql.push(" ORDER BY pod_uid, restart");
        for row in sql.build().persistent(false).fetch_all(readers).await? {
            let progress = StreamProgress {
                restart: row.try_get("restart")?,
                offset: unsigned(row.try_get("committed_offset")?)?,
                last_word: row.try_get::<Option<String>, _>("last_word")?.map(|text| {
                    if text.is_empty() {
                        LastWord::EndOfFiles
                    } else {
                        LastWord::RunnerStopped { token: text }
                    }
                }),
            };
            found.entry(row.try_get("pod_uid")?).or_default().push(progress);
        }
    }
    Ok(found)
}

/// See [`crate::store::Store::settle_pod`].
pub async fn settle_pod(
    connection: &mut SqliteConnection,
    settle: &SettlePod,
) -> Result<Vec<LogGap>, StoreError> {
    let settled = sqlx::query("UPDATE pods SET settled = 1 WHERE uid = ? AND settled = 0")
        .bind(&settle.uid)
        .execute(&mut *connection)
        .await?
        .rows_affected();
    let mut gaps = Vec::new();
    if settled == 0 {
        return Ok(gaps);
    }
    for restart in &settle.unread {
        sqlx::query(
            "INSERT INTO streams (pod_uid, container, restart) SELECT uid, container, ? FROM pods WHERE uid = ? \
             ON CONFLICT DO NOTHING",
        )
        .bind(restart)
        .bind(&settle.uid)
        .execute(&mut *connection)
        .await?;
        let added = sqlx::query_scalar::<_, i64>(
            "INSERT INTO gaps (script_id, stream_id, at_offset, time, bytes, reason) \
             SELECT p.script_id, st.id, st.committed_offset, ?, 0, ? \
             FROM pods p JOIN streams st ON st.pod_uid = p.uid AND st.container = p.container \
             WHERE p.uid = ? AND st.restart = ? AND st.last_word IS NULL RETURNING id",
        )
        .bind(settle.time.as_microsecond())
        .bind(POD_ENDED_UNREAD)
        .bind(&settle.uid)
        .bind(restart)
        .fetch_optional(&mut *connection)
        .await?;
        if let Some(id) = added {
            let mut sql = QueryBuilder::<Sqlite>::new(select());
            sql.push(" WHERE g.id = ").push_bind(id);
            gaps.push(gap(&sql.build().fetch_one(&mut *connection).await?)?);
        }
    }
    Ok(gaps)
}

/// See [`crate::store::Store::gaps`].
pub async fn page(
    readers: &SqlitePool,
    script_id: i64,
    range: TimeRange,
    limit: usize,
) -> Result<Vec<LogGap>, StoreError> {
    let micros = micros_range(&range);
    let mut sql = QueryBuilder::<Sqlite>::new(select());
    sql.push(" WHERE g.script_id = ").push_bind(script_id);
    sql.push(" AND g.time >= ").push_bind(micros.start);
    // The end of all time is in it.
    if range.to.is_some() {
        sql.push(" AND g.time < ").push_bind(micros.end);
    }
    sql.push(" ORDER BY g.time DESC, g.id DESC LIMIT ")
        .push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
    sql.build().fetch_all(readers).await?.iter().map(gap).collect()
}

fn select() -> String {
    format!(
        "SELECT {COLUMNS} FROM gaps g JOIN streams st ON st.id = g.stream_id JOIN pods p ON p.uid = st.pod_uid"
    )
}

fn gap(row: &sqlx::sqlite::SqliteRow) -> Result<LogGap, StoreError> {
    Ok(LogGap {
        time: time(row.try_get("time")?)?,
        pod: row.try_get("name")?,
        restart: row.try_get("restart")?,
        version: row.try_get("version")?,
        reason: row.try_get("reason")?,
        bytes: unsigned(row.try_get("bytes")?)?,
        offset: unsigned(row.try_get("at_offset")?)?,
    })
}

fn unsigned(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Corrupt(format!("the number of bytes {number}")))
}
