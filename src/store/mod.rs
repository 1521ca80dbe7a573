//! Where runs, log lines, versions and checkpoints are kept.
//!
//! One trait, [`Store`]; its methods are whole operations, so that a backend can do each in one transaction. A backend
//! never interprets what a pod printed, and callers never see SQL.

pub mod backup;
mod batch;
mod changes;
mod deployments;
pub mod digest;
mod endings;
mod payload;
pub mod postgres;
mod read;
mod retention;
mod rows;
mod run_changes;
mod snapshot;
pub mod sqlite;
mod tail;
mod text_index;
pub mod transfer;

use std::{collections::HashMap, path::Path, sync::Arc};

use async_trait::async_trait;
use jiff::{Timestamp, tz::TimeZone};

use crate::{
    failures::Grouping,
    ingest::{
        record::Records,
        wire::{Position, StreamKey},
    },
    model::{
        Bucket, Count, DeployedSpec, Deployment, DeploymentState, Figures, Filter, KeptSpec, LogGap, LogId,
        LogLine, Run, RunDetail, ScriptKey, Step, TimeRange, VersionFigures,
    },
    query::TimeLimit,
};

pub use batch::storable;
pub use retention::{
    Budget, Cutoffs, Keep, MaxBytes, OnDelete, Policy, Retained, Retention, RetentionError, SeenObject,
    Storage, Wish, fair_share,
};
pub use snapshot::{DOWNLOAD_SNAPSHOTS, EXPORT_SNAPSHOTS, RunParts, SNAPSHOTS, StoreSnapshot};
pub use tail::{LogPosition, Mark, Tail, TailQuery};

/// A pod of a script, remembered longer than the cluster does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRecord {
    /// UID of the pod.
    pub uid: String,
    /// Name of the pod.
    pub name: String,
    /// The container whose output is the script's.
    pub container: String,
    /// Whose pod it is.
    pub script: ScriptKey,
    /// Version it runs.
    pub version: i64,
    /// Deployment it runs.
    pub deployment_id: String,
}

/// A stream that is being followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamCheckpoint {
    /// Number of the stream in the store; never reused.
    pub id: i64,
    /// The pod it is from.
    pub pod: PodRecord,
    /// How far it is committed.
    pub position: Position,
    /// What the parser must remember between two chunks (unfinished lines); empty at first.
    pub carry: Vec<u8>,
}

/// Records of one stream, to be appended at its committed offset.
#[derive(Clone, Debug)]
pub struct Append {
    /// Number of the stream.
    pub stream: i64,
    /// The offset that must be the committed one, or nothing is stored. With a gap: the committed offset it follows.
    pub expected_offset: u64,
    /// The new committed position.
    pub position: Position,
    /// The new carry.
    pub carry: Vec<u8>,
    /// What happened, in order.
    pub records: Records,
    /// Bytes that could not be read, just before these.
    pub gap: Option<Gap>,
    /// Set where nothing more of the stream will come.
    pub last_word: Option<LastWord>,
}

/// How it is known that nothing more of a stream will come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LastWord {
    /// Its files were read to their end after the container had ended.
    EndOfFiles,
    /// The runner said so.
    RunnerStopped {
        /// What it waits for.
        token: String,
    },
}

/// How far a stream of a pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamProgress {
    /// How many times the container had been restarted.
    pub restart: u32,
    /// Bytes committed.
    pub offset: u64,
    /// Set once nothing more of it will come.
    pub last_word: Option<LastWord>,
}

/// A pod that has ended and whose streams will not get on any more.
#[derive(Clone, Debug)]
pub struct SettlePod {
    /// UID of the pod.
    pub uid: String,
    /// Restarts whose last word never came.
    pub unread: Vec<u32>,
    /// When the pod ended.
    pub time: Timestamp,
}

/// Reason of the gap at the end of a stream whose last word never came.
pub const POD_ENDED_UNREAD: &str = "PodEndedUnread";

/// Bytes of a stream that are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub reason: String,
    /// How many bytes at least; 0 if unknown.
    pub bytes: u64,
}

/// What became of an [`Append`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// Stored, once.
    Committed(Position),
    /// The committed offset is another one; nothing was stored.
    Conflict(Position),
    /// The store does not know the stream (any more): open it again. Nothing was stored.
    Unknown,
}

/// Why a run without an end record is closed.
#[derive(Clone, Debug)]
pub struct CloseRuns {
    /// Only runs of this pod's deployment containers that are still in progress are closed.
    pub pod_uid: String,
    /// Only runs that began before this moment: a container that restarted within its pod has runs of its own.
    pub begun_before: Timestamp,
    /// `OOMKilled`, `Evicted`, `Undeployed`, `LostContact`, ...
    pub reason: String,
    /// For people.
    pub message: String,
    /// When they ended.
    pub time: Timestamp,
}

/// A page of runs or log lines, newest first.
#[derive(Clone, Debug)]
pub struct Page<T, K> {
    /// The rows.
    pub rows: Vec<T>,
    /// Key of the last row, to go on after; none on the last page.
    pub next: Option<K>,
}

impl<T, K> Page<T, K> {
    /// The page with each row made into another.
    pub fn map<U>(self, of: impl FnMut(T) -> U) -> Page<U, K> {
        Page {
            rows: self.rows.into_iter().map(of).collect(),
            next: self.next,
        }
    }
}

impl<T, K> Default for Page<T, K> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            next: None,
        }
    }
}

/// Sort key of a run: newest first, then by id descending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunCursor {
    /// When the run began.
    pub executed_on: Timestamp,
    /// Its id.
    pub run_id: String,
}

/// Sort key of a log line: newest first, then by id descending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogCursor {
    /// When it was printed.
    pub timestamp: Timestamp,
    /// Its id.
    pub log_id: LogId,
}

/// Which rows of a script.
#[derive(Clone, Debug)]
pub struct RowQuery<C> {
    /// The script.
    pub script: ScriptKey,
    /// When they happened.
    pub range: TimeRange,
    /// Which of them. Callers have checked it.
    pub filter: Filter,
    /// Go on after this row.
    pub after: Option<C>,
    /// At most so many.
    pub limit: usize,
}

/// A query for runs.
pub type RunQuery = RowQuery<RunCursor>;
/// A query for log lines.
pub type LogQuery = RowQuery<LogCursor>;

/// Which figures over time.
#[derive(Clone, Debug)]
pub struct SeriesQuery {
    /// The script.
    pub script: ScriptKey,
    /// When its runs began and its lines were printed.
    pub range: TimeRange,
    /// Which of its runs. Callers have checked it.
    pub filter: Filter,
    /// How long a bucket is.
    pub step: Step,
    /// Whose days they are.
    pub zone: TimeZone,
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database said no.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// SQLite could not read.
    #[error("the database failed: {0}")]
    Reading(#[from] rusqlite::Error),
    /// The tables could not be brought up to date.
    #[error("the database could not be migrated: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A log segment could not be written or read.
    #[error("a log segment is not readable: {0}")]
    Segment(#[from] crate::segment::SegmentError),
    /// It took longer than [`crate::query::within`] allows.
    #[error(transparent)]
    TimeLimit(#[from] TimeLimit),
    /// The filter can not be applied to these rows.
    #[error(transparent)]
    Filter(#[from] crate::model::FilterError),
    /// The database holds something it should not.
    #[error("the database holds what this version does not understand: {0}")]
    Corrupt(String),
    /// The database can not be used at all.
    #[error("{0}")]
    Unusable(String),
}

impl StoreError {
    /// Whether a row was refused since there is one with its key.
    fn is_duplicate(&self) -> bool {
        match self {
            Self::Database(error) => error
                .as_database_error()
                .is_some_and(sqlx::error::DatabaseError::is_unique_violation),
            _ => false,
        }
    }
}

/// The store.
#[async_trait]
pub trait Store: Retention + 'static {
    // --- versions

    /// Begins a deployment: takes the next version, above both every version known here and `floor` (the highest known
    /// to the object). Idempotent: while the latest deployment of the script has this `fingerprint`, has not ended and
    /// is not below a version known here or `floor` (as after the database was restored), that one is returned.
    async fn begin_deployment(
        &self,
        script: &ScriptKey,
        fingerprint: &str,
        floor: i64,
        now: Timestamp,
    ) -> Result<Deployment, StoreError>;

    /// Moves a deployment to `state`; `reason` stands until the next move. Every earlier one that has not ended becomes
    /// `Replaced` when this one is `Deployed`. No effect on a deployment that has ended.
    async fn set_deployment_state(
        &self,
        script: &ScriptKey,
        version: i64,
        state: DeploymentState,
        reason: Option<&str>,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Keeps what made a version. The first word on a version stands.
    async fn keep_spec(&self, script: &ScriptKey, version: i64, kept: &KeptSpec) -> Result<(), StoreError>;

    /// What made a version; none where there is no such version (any more).
    async fn deployed_spec(
        &self,
        script: &ScriptKey,
        version: i64,
    ) -> Result<Option<DeployedSpec>, StoreError>;

    /// The last `limit` deployments, newest first.
    async fn deployments(&self, script: &ScriptKey, limit: usize) -> Result<Vec<Deployment>, StoreError>;

    // --- pods and streams

    /// Remembers a pod. The first word on a UID stands, and is returned.
    async fn register_pod(&self, pod: &PodRecord) -> Result<PodRecord, StoreError>;

    /// The checkpoint of each stream, created at offset 0 where the pod is known and the container is the script's;
    /// none where it is not.
    async fn open_streams(&self, streams: &[StreamKey]) -> Result<Vec<Option<StreamCheckpoint>>, StoreError>;

    // --- ingest

    /// Appends to several streams in one transaction: rows, log segments, rollups and checkpoints. One append's
    /// conflict does not touch the others.
    async fn append(&self, appends: Vec<Append>) -> Result<Vec<AppendOutcome>, StoreError>;

    /// Closes the runs that a pod left in progress; says how many. Never touches a run that has ended.
    async fn close_runs(&self, close: &CloseRuns) -> Result<u64, StoreError>;

    /// Pods (UIDs) that have runs in progress, with the moment the oldest of these began.
    async fn pods_with_open_runs(&self) -> Result<Vec<(PodRecord, Timestamp)>, StoreError>;

    // --- endings

    /// Registered pods of which more may come: all that run, and those that ended and are not settled yet.
    async fn unsettled_pods(&self) -> Result<Vec<PodRecord>, StoreError>;

    /// The streams of these pods (UIDs), in the order of their restarts; none of a pod whose log was never seen.
    async fn pod_streams(&self, uids: &[String]) -> Result<HashMap<String, Vec<StreamProgress>>, StoreError>;

    /// Settles a pod: records a gap of the reason [`POD_ENDED_UNREAD`] at the end of each stream named there whose last
    /// word has not come by now, and returns these gaps. Nothing happens to a pod that is settled. Should the last word
    /// come after all, the gap is removed with its commit.
    async fn settle_pod(&self, settle: &SettlePod) -> Result<Vec<LogGap>, StoreError>;

    /// What could not be read of a script's logs in a range, the latest first, at most `limit`.
    async fn gaps(
        &self,
        script: &ScriptKey,
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<LogGap>, StoreError>;

    // --- figures

    /// Lifetime figures of a script.
    async fn figures(&self, script: &ScriptKey) -> Result<Figures, StoreError>;

    /// Lifetime figures of many scripts, in their order.
    async fn figures_of(&self, scripts: &[ScriptKey]) -> Result<Vec<Figures>, StoreError>;

    /// Lifetime figures of its last `limit` versions that have runs, newest first.
    async fn version_figures(
        &self,
        script: &ScriptKey,
        limit: usize,
    ) -> Result<Vec<VersionFigures>, StoreError>;

    /// Figures of the runs in a range that pass a filter. Its `total_logs` are the log lines in the range, whatever the
    /// filter. Percentiles of more than 10,000 successful runs are estimates.
    async fn window_figures(
        &self,
        script: &ScriptKey,
        range: TimeRange,
        filter: &Filter,
    ) -> Result<Figures, StoreError>;

    /// Figures over time, oldest first; stretches without a run or a line are left out. Lines are counted whatever the
    /// filter. Percentiles of more than 10,000 successful runs in a bucket are estimates.
    async fn series(&self, query: &SeriesQuery) -> Result<Vec<Bucket>, StoreError>;

    /// Scripts that have changed (a run, a line) since this number was returned, and the next number.
    /// Starts at 0; counts on through the life of the process, not longer.
    fn changed_scripts(&self, since: u64) -> (Vec<ScriptKey>, u64);

    // --- rows

    /// A page of runs.
    async fn runs(&self, query: &RunQuery) -> Result<Page<Run, RunCursor>, StoreError>;

    /// How many runs a query finds, on all its pages; counts no further than `cap`, and no longer than the time allows.
    async fn count_runs(&self, query: &RunQuery, cap: usize) -> Result<Count, StoreError>;

    /// Why the newest failed runs of a query failed, at most `limit` of them, and whether there may be more. The position to
    /// go on after is not minded. Ends with what was found where the time is over.
    async fn failures(&self, query: &RunQuery) -> Result<(Grouping, bool), StoreError>;

    /// One run with its payloads.
    async fn run(&self, script: &ScriptKey, run_id: &str) -> Result<Option<RunDetail>, StoreError>;

    /// A page of log lines; it may be shorter than asked for where they are long.
    async fn logs(&self, query: &LogQuery) -> Result<Page<LogLine, LogCursor>, StoreError>;

    /// How far the log of a script is stored.
    async fn log_position(&self, script: &ScriptKey) -> Result<LogPosition, StoreError>;

    /// Lines that were stored between two positions, the oldest first.
    async fn logs_between(&self, query: &TailQuery) -> Result<Tail, StoreError>;

    /// The rows of a script as they are now, to be read at length.
    async fn snapshot(&self, script: &ScriptKey) -> Result<Box<dyn StoreSnapshot>, StoreError>;

    /// How many lines a query finds, on all its pages; counts no further than `cap`, and no longer than the time allows.
    async fn count_logs(&self, query: &LogQuery, cap: usize) -> Result<Count, StoreError>;

    /// Every script that has ever stored anything, in order; `namespace` narrows it.
    async fn scripts(&self, namespace: Option<&str>) -> Result<Vec<ScriptKey>, StoreError>;

    // --- health

    /// Fails when nothing can be written.
    async fn check(&self) -> Result<(), StoreError>;

    /// Ends writing: waits for what is under way and lets go of the database. Later writes fail.
    async fn close(&self);
}

/// Opens the store at `url`: `sqlite:///path/to/file` or `postgres://user:password@host:port/database`.
pub async fn open(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    match place(url)? {
        Place::Sqlite(path) => Ok(Arc::new(sqlite::SqliteStore::open(path).await?)),
        Place::Postgres => Ok(Arc::new(postgres::PostgresStore::open(url).await?)),
    }
}

/// Where a store is.
enum Place<'a> {
    /// In this file.
    Sqlite(&'a Path),
    /// In the database that the URL names.
    Postgres,
}

/// What a URL says.
fn place(url: &str) -> Result<Place<'_>, StoreError> {
    match url.split_once("://") {
        Some(("sqlite", path)) if path.len() > 1 && path.starts_with('/') => {
            Ok(Place::Sqlite(Path::new(path)))
        }
        Some(("sqlite", _)) => Err(StoreError::Unusable(
            "the store's URL needs an absolute path: sqlite:///var/lib/scriptscope/store.db".to_owned(),
        )),
        Some(("postgres" | "postgresql", _)) => Ok(Place::Postgres),
        // The URL itself may hold a password: only its scheme is repeated.
        other => Err(StoreError::Unusable(format!(
            "a store of the kind {:?} is not supported; expected sqlite:///path or postgres://user:password@host:port/database",
            other.map_or("", |(scheme, _)| scheme)
        ))),
    }
}

fn time(micros: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(micros).map_err(|_| StoreError::Corrupt(format!("the time {micros}")))
}

fn optional_time(micros: Option<i64>) -> Result<Option<Timestamp>, StoreError> {
    micros.map(time).transpose()
}
