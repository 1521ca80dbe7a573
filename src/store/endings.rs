//! How streams end, and what could not be read of them: SQL that every backend understands as it is.

use super::{LastWord, StoreError, StreamProgress, rows::Fields, time};
use crate::model::LogGap;

/// A gap from the columns that the statements of [`functions`] give.
pub fn gap(row: &impl Fields) -> Result<LogGap, StoreError> {
    Ok(LogGap {
        time: time(row.number("time")?)?,
        pod: row.text("name")?,
        restart: restart(row)?,
        version: row.number("version")?,
        reason: row.text("reason")?,
        bytes: unsigned(row, "bytes")?,
        offset: unsigned(row, "at_offset")?,
    })
}

/// How far a stream is, from the columns `restart, committed_offset, last_word`.
pub fn progress(row: &impl Fields) -> Result<StreamProgress, StoreError> {
    Ok(StreamProgress {
        restart: restart(row)?,
        offset: unsigned(row, "committed_offset")?,
        last_word: row.optional_text("last_word")?.map(word),
    })
}

/// A last word as it is kept.
pub fn word_text(word: &LastWord) -> &str {
    match word {
        LastWord::EndOfFiles => "",
        LastWord::RunnerStopped { token } => token,
    }
}

/// A runner that gave no token waits for none: then it is as good as the end of its files.
fn word(text: String) -> LastWord {
    if text.is_empty() {
        LastWord::EndOfFiles
    } else {
        LastWord::RunnerStopped { token: text }
    }
}

fn restart(row: &impl Fields) -> Result<u32, StoreError> {
    let number = row.number("restart")?;
    u32::try_from(number).map_err(|_| StoreError::Corrupt(format!("the restart {number}")))
}

fn unsigned(row: &impl Fields, name: &str) -> Result<u64, StoreError> {
    let number = row.number(name)?;
    u64::try_from(number).map_err(|_| StoreError::Corrupt(format!("the {name} {number}")))
}

/// Selects gaps as [`gap`] wants them.
macro_rules! select_gaps {
    ($rest:literal) => {
        concat!(
            "SELECT g.time, g.reason, g.bytes, g.at_offset, st.restart, p.name, p.version FROM gaps g \
             JOIN streams st ON st.id = g.stream_id JOIN pods p ON p.uid = st.pod_uid ",
            $rest
        )
    };
}
pub(super) use select_gaps;

/// The operations that are the same statements in every database. A macro, since sqlx's connections have no common type
/// that they could be written for once.
macro_rules! functions {
    ($connection:ty, $pool:ty) => {
        /// Notes the last word of a stream. What was thought lost at its end was not.
        pub async fn last_word(
            connection: &mut $connection,
            stream: i64,
            word: &crate::store::LastWord,
        ) -> Result<(), crate::store::StoreError> {
            sqlx::query("UPDATE streams SET last_word = $1 WHERE id = $2")
                .bind(crate::store::endings::word_text(word))
                .bind(stream)
                .execute(&mut *connection)
                .await?;
            sqlx::query("DELETE FROM gaps WHERE stream_id = $1 AND reason = $2")
                .bind(stream)
                .bind(crate::store::POD_ENDED_UNREAD)
                .execute(connection)
                .await?;
            Ok(())
        }

        /// See [`crate::store::Store::unsettled_pods`].
        pub async fn unsettled_pods(
            pool: &$pool,
        ) -> Result<Vec<crate::store::PodRecord>, crate::store::StoreError> {
            sqlx::query(
                "SELECT p.uid, p.name, p.container, p.version, p.deployment_id, s.namespace, s.name AS script \
                 FROM pods p JOIN scripts s ON s.id = p.script_id WHERE p.settled = 0",
            )
            .fetch_all(pool)
            .await?
            .iter()
            .map(crate::store::rows::pod)
            .collect()
        }

        /// See [`crate::store::Store::settle_pod`].
        pub async fn settle_pod(
            connection: &mut $connection,
            settle: &crate::store::SettlePod,
        ) -> Result<Vec<crate::model::LogGap>, crate::store::StoreError> {
            let settled = sqlx::query("UPDATE pods SET settled = 1 WHERE uid = $1 AND settled = 0")
                .bind(&settle.uid)
                .execute(&mut *connection)
                .await?
                .rows_affected();
            let mut gaps = Vec::new();
            if settled == 0 {
                return Ok(gaps);
            }
            for restart in &settle.unread {
                let restart = i64::from(*restart);
                sqlx::query(
                    "INSERT INTO streams (pod_uid, container, restart) \
                     SELECT uid, container, CAST($1 AS BIGINT) FROM pods WHERE uid = $2 ON CONFLICT DO NOTHING",
                )
                .bind(restart)
                .bind(&settle.uid)
                .execute(&mut *connection)
                .await?;
                // Waits for a commit under way that may hold the last word.
                sqlx::query("UPDATE streams SET last_word = last_word WHERE pod_uid = $1 AND restart = $2")
                    .bind(&settle.uid)
                    .bind(restart)
                    .execute(&mut *connection)
                    .await?;
                let added = sqlx::query_scalar::<_, i64>(
                    "INSERT INTO gaps (script_id, stream_id, at_offset, time, bytes, reason) \
                     SELECT p.script_id, st.id, st.committed_offset, CAST($1 AS BIGINT), 0, CAST($2 AS TEXT) \
                     FROM pods p JOIN streams st ON st.pod_uid = p.uid AND st.container = p.container \
                     WHERE p.uid = $3 AND st.restart = $4 AND st.last_word IS NULL RETURNING id",
                )
                .bind(settle.time.as_microsecond())
                .bind(crate::store::POD_ENDED_UNREAD)
                .bind(&settle.uid)
                .bind(restart)
                .fetch_optional(&mut *connection)
                .await?;
                if let Some(id) = added {
                    let sql = crate::store::endings::select_gaps!("WHERE g.id = $1");
                    let row = sqlx::query(sql).bind(id).fetch_one(&mut *connection).await?;
                    gaps.push(crate::store::endings::gap(&row)?);
                }
            }
            Ok(gaps)
        }

        /// See [`crate::store::Store::gaps`].
        pub async fn page(
            pool: &$pool,
            script_id: i64,
            range: crate::model::TimeRange,
            limit: usize,
        ) -> Result<Vec<crate::model::LogGap>, crate::store::StoreError> {
            let micros = crate::query::micros_range(&range);
            // Every time that can be kept is below the greatest number.
            let sql = crate::store::endings::select_gaps!(
                "WHERE g.script_id = $1 AND g.time >= $2 AND g.time < $3 ORDER BY g.time DESC, g.id DESC LIMIT $4"
            );
            sqlx::query(sql)
                .bind(script_id)
                .bind(micros.start)
                .bind(micros.end)
                .bind(i64::try_from(limit).unwrap_or(i64::MAX))
                .fetch_all(pool)
                .await?
                .iter()
                .map(crate::store::endings::gap)
                .collect()
        }
    };
}
pub(super) use functions;
