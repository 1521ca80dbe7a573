//! What describes data long gone: gaps, rollups, ended deployments; and what a purge takes besides.

use jiff::Timestamp;

use super::{
    Budget, Cutoffs, HISTORY, Retained,
    sql::{Write, first, push, sql},
    steps::rows,
};
use crate::store::{StoreError, batch::hour_of, read::Snapshot};

/// Rows of a table that may go: those of a script with a column below a limit.
#[derive(Debug)]
struct Rows {
    table: &'static str,
    key: &'static str,
    column: &'static str,
    /// A further condition.
    and: &'static str,
}

const fn table(table: &'static str, key: &'static str, column: &'static str, and: &'static str) -> Rows {
    Rows {
        table,
        key,
        column,
        and,
    }
}

const RUNS_KEY: &str = "script_id, hour, version, function";
const LOGS_KEY: &str = "script_id, hour, version, level";
const DEPLOYMENTS_KEY: &str = "script_id, version";

static GAPS: Rows = table("gaps", "id", "time", "");
static HOURS: [Rows; 3] = [
    table("run_rollups", RUNS_KEY, "hour", ""),
    table("run_days", RUNS_KEY, "hour", ""),
    table("log_rollups", LOGS_KEY, "hour", ""),
];
/// The last ten stay, however old.
static DEPLOYMENTS: Rows = table(
    "deployments",
    DEPLOYMENTS_KEY,
    "ended_at",
    " AND version <= (SELECT max(d.version) FROM deployments d WHERE d.script_id = deployments.script_id) - 10",
);
static VERSIONS: [Rows; 5] = [
    table("run_rollups", RUNS_KEY, "version", ""),
    table("run_days", RUNS_KEY, "version", ""),
    table("log_rollups", LOGS_KEY, "version", ""),
    table("version_totals", DEPLOYMENTS_KEY, "version", ""),
    // The highest number is what the next one goes on from.
    table(
        "deployments",
        DEPLOYMENTS_KEY,
        "version",
        " AND version < (SELECT max(d.version) FROM deployments d WHERE d.script_id = deployments.script_id)",
    ),
];

/// What to do.
#[derive(Debug)]
pub struct Step(Work);

#[derive(Debug)]
enum Work {
    Delete {
        rows: &'static Rows,
        limit: i64,
        most: i64,
    },
    /// Nothing of the script is left.
    NotePurged(i64),
}

/// The next step, if there is one.
pub async fn plan<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    cutoffs: &Cutoffs,
    budget: Budget,
) -> Result<Option<Step>, StoreError> {
    let oldest = cutoffs
        .now
        .checked_sub(HISTORY)
        .map_or(i64::MIN, |time| time.as_microsecond());
    // A gap is shown among lines, so it goes with them.
    let gaps = cutoffs
        .logs
        .map_or(oldest, |time| time.as_microsecond().max(oldest));
    let kinds = HOURS
        .iter()
        .map(|rows| (rows, hour_of(oldest)))
        .chain([(&GAPS, gaps), (&DEPLOYMENTS, oldest)]);
    for (rows, limit) in kinds {
        let step = some(snapshot, rows, script_id, limit, budget).await?;
        if step.is_some() {
            return Ok(step);
        }
    }
    Ok(None)
}

/// The next step of deleting what belongs to versions begun before a moment, lifetime figures among it.
pub async fn plan_purge<S: Snapshot>(
    snapshot: &mut S,
    script_id: i64,
    before: Timestamp,
    budget: Budget,
) -> Result<Option<Step>, StoreError> {
    let mut statement = sql("SELECT min(version) FROM deployments");
    push(&mut statement, " WHERE script_id = ", script_id);
    push(&mut statement, " AND started_at >= ", before.as_microsecond());
    let [next] = first(snapshot, statement).await?.unwrap_or_default();
    for rows in &VERSIONS {
        let step = some(snapshot, rows, script_id, next.unwrap_or(i64::MAX), budget).await?;
        if step.is_some() {
            return Ok(step);
        }
    }
    if next.is_some() || is_left(snapshot, script_id).await? {
        return Ok(None);
    }
    Ok(Some(Step(Work::NotePurged(before.as_microsecond()))))
}

/// Whether runs or lines are left, or it is noted already that none are.
async fn is_left<S: Snapshot>(snapshot: &mut S, script_id: i64) -> Result<bool, StoreError> {
    for from in ["runs", "log_segments", "retention"] {
        let mut statement = sql(format!("SELECT script_id FROM {from}"));
        push(&mut statement, " WHERE script_id = ", script_id);
        if from == "retention" {
            statement.push(" AND purged_at IS NOT NULL");
        }
        statement.push(" LIMIT 1");
        if first::<S, 1>(snapshot, statement).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn some<S: Snapshot>(
    snapshot: &mut S,
    rows_of: &'static Rows,
    script_id: i64,
    limit: i64,
    budget: Budget,
) -> Result<Option<Step>, StoreError> {
    let Rows {
        table, column, and, ..
    } = rows_of;
    let mut statement = sql(format!("SELECT script_id FROM {table}"));
    push(&mut statement, " WHERE script_id = ", script_id);
    push(&mut statement, &format!(" AND {column} < "), limit);
    statement.push(and).push(" LIMIT 1");
    let found = first::<S, 1>(snapshot, statement).await?.is_some();
    Ok(found.then(|| {
        Step(Work::Delete {
            rows: rows_of,
            limit,
            most: rows(budget),
        })
    }))
}

/// Does a step.
pub async fn apply<W: Write>(write: &mut W, script_id: i64, step: &Step) -> Result<Retained, StoreError> {
    let other = match step.0 {
        Work::Delete { rows, limit, most } => {
            let Rows {
                table,
                key,
                column,
                and,
            } = rows;
            let mut statement = sql(format!(
                "DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table}"
            ));
            push(&mut statement, " WHERE script_id = ", script_id);
            push(&mut statement, &format!(" AND {column} < "), limit);
            push(&mut statement, &format!("{and} LIMIT "), most);
            statement.push(")");
            write.execute(statement).await?
        }
        Work::NotePurged(at) => {
            let mut statement = sql("INSERT INTO retention (script_id, purged_at) VALUES (");
            push(&mut statement, "", script_id);
            push(&mut statement, ", ", at);
            statement.push(") ON CONFLICT (script_id) DO UPDATE SET purged_at = excluded.purged_at");
            write.execute(statement).await?;
            return Ok(Retained::default());
        }
    };
    Ok(Retained {
        other,
        more: true,
        ..Retained::default()
    })
}
