//! Pods that are gone and their streams, once no run speaks of them.
//!
//! A pod is forgotten only long after the cluster has forgotten it: nobody then registers it again, so none of its
//! streams can begin anew at offset 0, and a late batch of it is answered with `Unknown`. Numbers of streams are never
//! given again.

use std::collections::HashSet;

use jiff::Timestamp;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use super::super::{Inner, ROWS_PER_STATEMENT, push_list};
use crate::store::{
    StoreError,
    retention::{Budget, FORGET_POD_AFTER, Retained},
};

/// Whether no run and no gap refers to a stream of the pod `p`.
macro_rules! unused {
    () => {
        "NOT EXISTS (SELECT 1 FROM streams st WHERE st.pod_uid = p.uid \
            AND (st.runs > 0 OR EXISTS (SELECT 1 FROM gaps g WHERE g.stream_id = st.id)))"
    };
}

/// What to note of pods.
#[derive(Debug, Default)]
struct Plan {
    /// They are gone from now on.
    gone: Vec<String>,
    /// They are there after all.
    back: Vec<String>,
    /// They have been gone for long, and nothing refers to them.
    old: Vec<String>,
}

/// See [`crate::store::Retention::forget_pods`].
pub async fn forget(
    store: &Inner,
    script_id: i64,
    present: &[String],
    now: Timestamp,
    budget: Budget,
) -> Result<Retained, StoreError> {
    let pods: Vec<(String, Option<i64>, bool)> = sqlx::query_as(concat!(
        "SELECT p.uid, p.gone_at, p.gone_at IS NOT NULL AND ",
        unused!(),
        " FROM pods p WHERE p.script_id = ?"
    ))
    .bind(script_id)
    .fetch_all(&store.lookups)
    .await?;
    let mut plan = plan(pods, present, now);
    if plan.gone.is_empty() && plan.back.is_empty() && plan.old.is_empty() {
        return Ok(Retained::default());
    }
    let most = budget.rows.clamp(1, ROWS_PER_STATEMENT);
    let more = plan.old.len() > most;
    plan.old.truncate(most);
    let now = now.as_microsecond();
    let other = store
        .writer
        .write(move |c| {
            Box::pin(async move {
                mark(c, &plan.gone, Some(now)).await?;
                mark(c, &plan.back, None).await?;
                remove(c, &plan.old).await
            })
        })
        .await?;
    Ok(Retained {
        other,
        more: more && other > 0,
        ..Retained::default()
    })
}

fn plan(pods: Vec<(String, Option<i64>, bool)>, present: &[String], now: Timestamp) -> Plan {
    let present: HashSet<&str> = present.iter().map(String::as_str).collect();
    let long_ago = now
        .checked_sub(FORGET_POD_AFTER)
        .map_or(i64::MIN, |time| time.as_microsecond());
    let mut plan = Plan::default();
    for (uid, gone_at, unused) in pods {
        match (present.contains(uid.as_str()), gone_at) {
            (true, Some(_)) => plan.back.push(uid),
            (false, None) => plan.gone.push(uid),
            (false, Some(at)) if unused && at < long_ago => plan.old.push(uid),
            _ => {}
        }
    }
    plan
}

async fn mark(
    connection: &mut SqliteConnection,
    uids: &[String],
    gone_at: Option<i64>,
) -> Result<(), StoreError> {
    for chunk in uids.chunks(ROWS_PER_STATEMENT) {
        let mut sql = QueryBuilder::<Sqlite>::new("UPDATE pods SET gone_at = ");
        sql.push_bind(gone_at).push(" WHERE uid IN (");
        push_list(&mut sql, chunk.iter().map(String::as_str));
        sql.build().persistent(false).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Removes those of the pods that nothing refers to, with their streams; says how many rows went.
async fn remove(connection: &mut SqliteConnection, uids: &[String]) -> Result<u64, StoreError> {
    if uids.is_empty() {
        return Ok(0);
    }
    let mut sql = QueryBuilder::<Sqlite>::new(concat!(
        "SELECT p.uid FROM pods p WHERE ",
        unused!(),
        " AND p.uid IN ("
    ));
    push_list(&mut sql, uids.iter().map(String::as_str));
    let free: Vec<String> = sql
        .build()
        .persistent(false)
        .fetch_all(&mut *connection)
        .await?
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    let mut removed = 0;
    for start in [
        "DELETE FROM streams WHERE pod_uid IN (",
        "DELETE FROM pods WHERE uid IN (",
    ] {
        if free.is_empty() {
            break;
        }
        let mut sql = QueryBuilder::<Sqlite>::new(start);
        push_list(&mut sql, free.iter().map(String::as_str));
        removed += sql
            .build()
            .persistent(false)
            .execute(&mut *connection)
            .await?
            .rows_affected();
    }
    Ok(removed)
}
