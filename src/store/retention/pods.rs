//! Pods that are gone and their streams, once no run speaks of them.
//!
//! A pod is forgotten only long after the cluster has forgotten it: nobody then registers it again, so none of its
//! streams can begin anew at offset 0, and a late batch of it is answered with `Unknown`. Numbers of streams are never
//! given again.

use std::collections::HashSet;

use jiff::Timestamp;

use super::{
    Budget, FORGET_POD_AFTER, Retained,
    sql::{Write, push, push_optional, push_texts, sql},
    steps::rows,
};
use crate::store::{
    StoreError,
    read::{Snapshot, Values},
};

/// Whether no run and no gap refers to a stream of the pod `p`.
const UNUSED: &str = "NOT EXISTS (SELECT 1 FROM streams st WHERE st.pod_uid = p.uid \
    AND (st.runs > 0 OR EXISTS (SELECT 1 FROM gaps g WHERE g.stream_id = st.id)))";
/// Pods named in one statement.
const PODS: usize = 2_000;

/// What to note of pods, by their UIDs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    now: i64,
    /// They are gone from now on.
    gone: Vec<String>,
    /// They are there after all.
    back: Vec<String>,
    /// They have been gone for long, and nothing refers to them.
    old: Vec<String>,
    /// Whether there are more of these.
    more: bool,
}

/// See [`super::Retention::forget_pods`].
pub async fn plan<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    present: &[String],
    now: Timestamp,
    budget: Budget,
) -> Result<Option<Step>, StoreError> {
    let mut statement = sql(format!(
        "SELECT p.uid, p.gone_at, CAST(CASE WHEN p.gone_at IS NOT NULL AND {UNUSED} THEN 1 ELSE 0 END AS BIGINT) FROM pods p"
    ));
    push(&mut statement, " WHERE p.script_id = ", script_id);
    let present: HashSet<&str> = present.iter().map(String::as_str).collect();
    let long_ago = now
        .checked_sub(FORGET_POD_AFTER)
        .map_or(i64::MIN, |time| time.as_microsecond());
    let mut step = Step::default();
    snapshot
        .each(statement, |row| {
            let uid = row.text(0)?;
            match (present.contains(uid), row.optional_number(1)?) {
                (true, Some(_)) => step.back.push(uid.to_owned()),
                (false, None) => step.gone.push(uid.to_owned()),
                (false, Some(at)) if at < long_ago && row.number(2)? != 0 => step.old.push(uid.to_owned()),
                _ => {}
            }
            Ok(())
        })
        .await?;
    if step == Step::default() {
        return Ok(None);
    }
    let most = usize::try_from(rows(budget)).unwrap_or(1);
    step.more = step.old.len() > most;
    step.old.truncate(most);
    step.now = now.as_microsecond();
    Ok(Some(step))
}

/// Does a step.
pub async fn apply<W: Write>(write: &mut W, step: &Step) -> Result<Retained, StoreError> {
    mark(write, &step.gone, Some(step.now)).await?;
    mark(write, &step.back, None).await?;
    let other = remove(write, &step.old).await?;
    Ok(Retained {
        other,
        more: step.more && other > 0,
        ..Retained::default()
    })
}

async fn mark<W: Write>(write: &mut W, uids: &[String], gone_at: Option<i64>) -> Result<(), StoreError> {
    for chunk in uids.chunks(PODS) {
        let mut statement = sql("UPDATE pods SET gone_at = ");
        push_optional(&mut statement, "", gone_at);
        statement.push(" WHERE uid IN (");
        push_texts(&mut statement, chunk);
        write.execute(statement).await?;
    }
    Ok(())
}

/// Removes those of the pods that nothing refers to, with their streams; says how many rows went.
async fn remove<W: Write>(write: &mut W, uids: &[String]) -> Result<u64, StoreError> {
    if uids.is_empty() {
        return Ok(0);
    }
    let mut statement = sql(format!("SELECT p.uid FROM pods p WHERE {UNUSED} AND p.uid IN ("));
    push_texts(&mut statement, uids);
    let mut free = Vec::new();
    write
        .each(statement, |row| {
            free.push(row.text(0)?.to_owned());
            Ok(())
        })
        .await?;
    if free.is_empty() {
        return Ok(0);
    }
    let mut removed = 0;
    for start in [
        "DELETE FROM streams WHERE pod_uid IN (",
        "DELETE FROM pods WHERE uid IN (",
    ] {
        let mut statement = sql(start);
        push_texts(&mut statement, &free);
        removed += write.execute(statement).await?;
    }
    Ok(removed)
}
