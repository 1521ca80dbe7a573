//! Copies a whole store into another one, of the same or the other kind, and makes sure that nothing differs.
//!
//! What is copied follows from the tables that both have, column by column, so that no later migration can be
//! forgotten here. The target shows all of it or nothing: Postgres by one transaction, SQLite by a file that gets its
//! name when it is whole. One that was broken off is begun anew.

mod postgres;
mod rows;
mod sqlite;

use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::{TryStreamExt, stream::LocalBoxStream};

pub use self::rows::Checksum;
use self::{
    postgres::PostgresSide,
    rows::{Column, Numbers, Row, Table, Value},
    sqlite::SqliteSide,
};
use super::StoreError;

/// Every table that holds something worth keeping, those that others refer to first.
const TABLES: [&str; 17] = [
    "scripts",
    "deployments",
    "pods",
    "streams",
    "runs",
    "run_payloads",
    "run_rollups",
    "run_days",
    "log_rollups",
    "version_totals",
    "log_segments",
    "log_segment_grams",
    "log_segments_to_index",
    "gaps",
    "retention",
    "seen_objects",
    "script_usage",
];
/// Tables of which each store has its own: whether it can be written, and which migrations it has had.
const OWN: [&str; 2] = ["health", "_sqlx_migrations"];
/// Tables that deal out numbers, with the column that has them.
const NUMBERED: [(&str, &str); 5] = [
    ("scripts", "id"),
    ("streams", "id"),
    ("log_segments", "segment_id"),
    ("gaps", "id"),
    ("run_payloads", "number"),
];
/// Rows and bytes that are written at once, at most but for the last row.
const CHUNK_ROWS: usize = 4_000;
const CHUNK_BYTES: usize = 4 << 20;
/// How long to wait for an operator that is just ending to let go of its store.
const PATIENCE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(100);

/// Why a store was not copied.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// One of the two stores failed.
    #[error("{side}: {error}")]
    Store {
        /// `--from` or `--to`.
        side: &'static str,
        /// What it said.
        error: StoreError,
    },
    /// An operator runs on it.
    #[error("{side}: {message}")]
    InUse {
        /// `--from` or `--to`.
        side: &'static str,
        /// How that is known, and what to do.
        message: String,
    },
    /// The target has data, or is there already.
    #[error("--to: {0}")]
    NotEmpty(String),
    /// The tables of the two are not those that this version knows.
    #[error("{0}")]
    Shape(String),
    /// What was written is not what was read.
    #[error(
        "table {table}: the target has other rows than the source ({target} rows of {source_rows}, checksums differ); nothing was kept"
    )]
    Differs {
        /// Which table.
        table: &'static str,
        /// Rows of the source.
        source_rows: u64,
        /// Rows of the target.
        target: u64,
    },
}

/// How far the copy is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// What is done.
    pub stage: Stage,
    /// The table that it is done with.
    pub table: &'static str,
    /// Rows of all tables so far, and all there are.
    pub rows: (u64, u64),
    /// Bytes of values so far.
    pub bytes: u64,
    /// Since the stage began.
    pub elapsed: Duration,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Rows are copied.
    Copy,
    /// The target is read again.
    Verify,
}

/// A table that was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Its name.
    pub table: &'static str,
    /// Rows and checksum, equal on both sides.
    pub checksum: Checksum,
}

/// What both kinds of store can do here.
#[async_trait(?Send)]
trait Side {
    /// Tables with their columns, in the order of their names.
    async fn tables(&mut self) -> Result<Vec<Table>, StoreError>;
    /// Numbers of the migrations that it has had.
    async fn migrations(&mut self) -> Result<Vec<i64>, StoreError>;
    /// How many rows a table has.
    async fn count(&mut self, table: &str) -> Result<u64, StoreError>;
    /// Every row of a table.
    fn rows<'a>(&'a mut self, table: &'a Table) -> LocalBoxStream<'a, Result<Row, StoreError>>;
    /// Appends rows to a table.
    async fn write(&mut self, table: &Table, rows: &[Row]) -> Result<(), StoreError>;
    /// The last number that each table has dealt out.
    async fn numbers(&mut self) -> Result<Numbers, StoreError>;
    /// No number up to these is dealt out any more.
    async fn go_on_after(&mut self, numbers: &Numbers) -> Result<(), StoreError>;
    /// Lets everybody see what was written.
    async fn finish(self: Box<Self>) -> Result<(), StoreError>;
}

fn at(side: &'static str) -> impl Fn(StoreError) -> TransferError {
    move |error| TransferError::Store { side, error }
}

const FROM: &str = "--from";
const TO: &str = "--to";

/// Copies the store at `from` into the empty one at `to`; both are URLs. Refuses where an operator runs on one of them,
/// unless `force`: what that one takes in meanwhile would be missing. `told` hears of each chunk.
pub async fn transfer(
    from: &str,
    to: &str,
    force: bool,
    told: &mut dyn FnMut(&Progress),
) -> Result<Vec<Copied>, TransferError> {
    if from == to {
        return Err(TransferError::NotEmpty(
            "the same store as --from; name another one".to_owned(),
        ));
    }
    let mut source: Box<dyn Side> = match sqlite_path(from).map_err(at(FROM))? {
        Some(path) => Box::new(SqliteSide::source(path, force).await?),
        None => Box::new(PostgresSide::source(from, force).await?),
    };
    let mut target: Box<dyn Side> = match sqlite_path(to).map_err(at(TO))? {
        Some(path) => Box::new(SqliteSide::target(path).await?),
        None => Box::new(PostgresSide::target(to, force).await?),
    };
    let tables = agree(&mut *source, &mut *target).await?;
    for name in TABLES {
        if target.count(name).await.map_err(at(TO))? > 0 {
            return Err(TransferError::NotEmpty(format!(
                "the store is not empty (table {name} has rows); make another database, or drop and create this one"
            )));
        }
    }
    let mut all = 0;
    for (of, _) in &tables {
        all += source.count(&of.name).await.map_err(at(FROM))?;
    }
    let copied = copy(&mut *source, &mut *target, &tables, all, told).await?;
    let mut numbers = source.numbers().await.map_err(at(FROM))?;
    for (table, last) in target.numbers().await.map_err(at(TO))? {
        let known = numbers.entry(table).or_default();
        *known = last.max(*known);
    }
    target.go_on_after(&numbers).await.map_err(at(TO))?;
    verify(&mut *target, &tables, &copied, all, told).await?;
    target.finish().await.map_err(at(TO))?;
    Ok(copied)
}

/// The path of a SQLite URL, or none for Postgres.
fn sqlite_path(url: &str) -> Result<Option<&std::path::Path>, StoreError> {
    match super::place(url)? {
        super::Place::Sqlite(path) => Ok(Some(path)),
        super::Place::Postgres => Ok(None),
    }
}

/// The tables of both, in the order of [`TABLES`]; an error where they are not the same.
async fn agree(source: &mut dyn Side, target: &mut dyn Side) -> Result<Vec<(Table, Table)>, TransferError> {
    let (was, is) = (
        source.migrations().await.map_err(at(FROM))?,
        target.migrations().await.map_err(at(TO))?,
    );
    if was != is {
        return Err(TransferError::Shape(format!(
            "--from: the store is of another version of ScriptScope (its last migration is {}, this version's {}); \
             start an operator of this version on it once, or take the command of that version",
            was.last().unwrap_or(&0),
            is.last().unwrap_or(&0)
        )));
    }
    let (mut from, mut to) = (
        source.tables().await.map_err(at(FROM))?,
        target.tables().await.map_err(at(TO))?,
    );
    let stray = |tables: &[Table]| {
        let stray = tables
            .iter()
            .find(|t| !TABLES.contains(&t.name.as_str()) && !OWN.contains(&t.name.as_str()));
        stray.map(|table| table.name.clone())
    };
    if let Some(name) = stray(&from).or_else(|| stray(&to)) {
        return Err(TransferError::Shape(format!(
            "there is a table {name} that this version does not know; keep other tables in a database of their own"
        )));
    }
    let mut pairs = Vec::new();
    for name in TABLES {
        let take = |tables: &mut Vec<Table>| {
            let at = tables.iter().position(|table| table.name == name)?;
            Some(tables.swap_remove(at))
        };
        let (Some(from), Some(to)) = (take(&mut from), take(&mut to)) else {
            return Err(TransferError::Shape(format!("there is no table {name}")));
        };
        let same = from.columns.len() == to.columns.len()
            && from
                .columns
                .iter()
                .zip(&to.columns)
                .all(|(a, b)| Column::holds(a, b));
        if !same {
            return Err(TransferError::Shape(format!(
                "table {name} has other columns in the source than in the target"
            )));
        }
        pairs.push((from, to));
    }
    Ok(pairs)
}

async fn copy(
    source: &mut dyn Side,
    target: &mut dyn Side,
    tables: &[(Table, Table)],
    all: u64,
    told: &mut dyn FnMut(&Progress),
) -> Result<Vec<Copied>, TransferError> {
    let mut meter = Meter::new(Stage::Copy, all);
    let mut copied = Vec::new();
    for (name, (from, to)) in TABLES.into_iter().zip(tables) {
        let mut checksum = Checksum::default();
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        let mut rows = source.rows(from);
        loop {
            let row = rows.try_next().await.map_err(at(FROM))?;
            let is_last = row.is_none();
            if let Some(row) = row {
                checksum.add(&row);
                bytes += row.iter().map(Value::len).sum::<usize>();
                chunk.push(row);
            }
            if is_last || chunk.len() >= CHUNK_ROWS || bytes >= CHUNK_BYTES {
                target.write(to, &chunk).await.map_err(at(TO))?;
                told(meter.add(name, chunk.len(), bytes));
                chunk.clear();
                bytes = 0;
            }
            if is_last {
                break;
            }
        }
        copied.push(Copied {
            table: name,
            checksum,
        });
    }
    Ok(copied)
}

async fn verify(
    target: &mut dyn Side,
    tables: &[(Table, Table)],
    copied: &[Copied],
    all: u64,
    told: &mut dyn FnMut(&Progress),
) -> Result<(), TransferError> {
    let mut meter = Meter::new(Stage::Verify, all);
    for ((_, table), expected) in tables.iter().zip(copied) {
        let mut found = Checksum::default();
        let (mut count, mut bytes) = (0, 0);
        let mut rows = target.rows(table);
        while let Some(row) = rows.try_next().await.map_err(at(TO))? {
            found.add(&row);
            count += 1;
            bytes += row.iter().map(Value::len).sum::<usize>();
            if count >= CHUNK_ROWS || bytes >= CHUNK_BYTES {
                told(meter.add(expected.table, count, bytes));
                (count, bytes) = (0, 0);
            }
        }
        told(meter.add(expected.table, count, bytes));
        if found != expected.checksum {
            return Err(TransferError::Differs {
                table: expected.table,
                source_rows: expected.checksum.rows,
                target: found.rows,
            });
        }
    }
    Ok(())
}

/// Counts what is done.
struct Meter {
    progress: Progress,
    began: Instant,
}

impl Meter {
    fn new(stage: Stage, all: u64) -> Self {
        Self {
            progress: Progress {
                stage,
                table: TABLES[0],
                rows: (0, all),
                bytes: 0,
                elapsed: Duration::ZERO,
            },
            began: Instant::now(),
        }
    }

    fn add(&mut self, table: &'static str, rows: usize, bytes: usize) -> &Progress {
        let progress = &mut self.progress;
        progress.table = table;
        progress.rows.0 += rows as u64;
        progress.bytes += bytes as u64;
        progress.elapsed = self.began.elapsed();
        progress
    }
}
