//! The store in one SQLite file.
//!
//! One connection writes, in a task of its own ([`writer`]); a pool reads. Write-ahead log with `synchronous=FULL`: what
//! was acknowledged survives the power.

mod append;
pub(super) mod file;
#[cfg(test)]
mod following_tests;
mod gaps;
mod merge;
pub(super) mod open;
mod packed;
mod readers;
mod retention;
mod rollups;
mod runs_read;
mod runs_write;
mod segments;
mod snapshot;
mod statements;
mod streams;
mod text_index;
mod writer;

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{Encode, QueryBuilder, Row, Sqlite, SqlitePool, Type};
use tokio::{
    sync::{Semaphore, watch},
    task,
};

pub(super) use self::segments::insert as insert_segment;
use self::{open::Opened, readers::Readers, snapshot::Snapshot, writer::Writer};
use super::{
    Append, AppendOutcome, CloseRuns, LogCursor, LogPosition, LogQuery, Page, PodRecord, RunCursor, RunQuery,
    SeriesQuery, SettlePod, Store, StoreError, StoreSnapshot, StreamCheckpoint, StreamProgress, Tail,
    TailQuery,
    batch::{Batch, Owner, belongs, kib},
    changes::Changes,
    deployments, read,
    retention::sql::Writing,
};
use crate::{
    failures::Grouping,
    ingest::wire::StreamKey,
    model::{
        Bucket, Count, DeployedSpec, Deployment, DeploymentState, Figures, Filter, KeptSpec, LogGap, LogLine,
        Run, RunDetail, ScriptKey, TimeRange, VersionFigures,
    },
};

/// Rows of one multi-row statement; with 14 columns this stays below the 32,766 parameters that SQLite allows.
const ROWS_PER_STATEMENT: usize = 2_000;
/// Text of all batches that are being made ready or wait for their commit, about; whoever comes later waits outside.
const ROOM_KIB: u32 = 32 << 10;
/// Streams whose owners are remembered.
const OWNERS: usize = 10_000;

/// A store in a SQLite file.
pub struct SqliteStore(Arc<Inner>);

struct Inner {
    writer: Writer,
    /// For what the store does by itself.
    readers: SqlitePool,
    /// For those who ask.
    queries: Readers,
    /// For what ingest needs to know: it must not wait for queries.
    lookups: SqlitePool,
    /// For those who read at length.
    snapshots: Readers,
    /// KiB of batches that may wait for their commit.
    room: Semaphore,
    changes: Changes,
    owners: Mutex<HashMap<i64, Arc<Owner>>>,
    stored: watch::Sender<u64>,
    /// The writing task holds it too: it is free when both are done.
    _lock: Arc<File>,
}

impl SqliteStore {
    /// Opens the file at `path`; makes it and its folder, and brings its tables up to date. Only one process can have
    /// it open.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let Opened {
            lock,
            writer,
            writing,
            readers,
            queries,
            lookups,
            snapshots,
        } = open::open(path).await?;
        let lock = Arc::new(lock);
        let (stored, watch) = watch::channel(0);
        let inner = Arc::new(Inner {
            writer: Writer::start(writer, writing, Arc::clone(&lock)),
            readers,
            queries,
            lookups,
            snapshots,
            room: Semaphore::new(ROOM_KIB as usize),
            changes: Changes::default(),
            owners: Mutex::default(),
            stored,
            _lock: lock,
        });
        tokio::spawn(crate::store::text_index::run(
            Arc::downgrade(&inner),
            watch.clone(),
        ));
        tokio::spawn(merge::run(Arc::downgrade(&inner), watch));
        inner.stored.send_modify(|n| *n += 1);
        Ok(Self(inner))
    }
}

impl Inner {
    async fn script_id(&self, script: &ScriptKey) -> Result<Option<i64>, StoreError> {
        Ok(
            sqlx::query_scalar("SELECT id FROM scripts WHERE namespace = ? AND name = ?")
                .bind(&script.namespace)
                .bind(&script.name)
                .fetch_optional(&self.lookups)
                .await?,
        )
    }

    /// The numbers of scripts, in their order.
    async fn script_ids(&self, scripts: &[ScriptKey]) -> Result<Vec<Option<i64>>, StoreError> {
        let mut ids = HashMap::new();
        for chunk in scripts.chunks(ROWS_PER_STATEMENT) {
            let mut sql = QueryBuilder::<Sqlite>::new("SELECT s.id, s.namespace, s.name FROM (");
            sql.push_values(chunk, |mut row, script| {
                row.push_bind(script.namespace.as_str())
                    .push_bind(script.name.as_str());
            });
            sql.push(") AS v JOIN scripts s ON s.namespace = v.column1 AND s.name = v.column2");
            for row in sql.build().persistent(false).fetch_all(&self.lookups).await? {
                ids.insert(
                    ScriptKey::new(row.get::<&str, _>(1), row.get::<&str, _>(2)),
                    row.get(0),
                );
            }
        }
        Ok(scripts.iter().map(|script| ids.get(script).copied()).collect())
    }

    /// What queries are answered from.
    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Snapshot::begin(&self.queries).await
    }

    /// The owners of the streams of appends, in their order.
    async fn owners(&self, appends: &[Append]) -> Result<Vec<Option<Arc<Owner>>>, StoreError> {
        let known = || self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let missing: BTreeSet<i64> = {
            let known = known();
            appends
                .iter()
                .map(|a| a.stream)
                .filter(|id| !known.contains_key(id))
                .collect()
        };
        let mut loaded = HashMap::new();
        if !missing.is_empty() {
            loaded = streams::owners(&self.lookups, &missing.into_iter().collect::<Vec<_>>()).await?;
        }
        let mut known = known();
        let owners = appends
            .iter()
            .map(|a| loaded.get(&a.stream).or_else(|| known.get(&a.stream)).cloned())
            .collect();
        if known.len() + loaded.len() > OWNERS {
            known.clear();
        }
        known.extend(loaded);
        Ok(owners)
    }

    fn note(&self, scripts: &BTreeSet<ScriptKey>) {
        for script in scripts {
            self.changes.note(script);
        }
        self.stored.send_modify(|n| *n += 1);
    }
}

/// Appends bound values, separated by commas, and the closing bracket.
fn push_list<'v, T>(sql: &mut QueryBuilder<Sqlite>, values: impl IntoIterator<Item = T>)
where
    T: Encode<'v, Sqlite> + Type<Sqlite>,
{
    let mut list = sql.separated(", ");
    for value in values {
        list.push_bind(value);
    }
    sql.push(")");
}

#[async_trait]
impl Store for SqliteStore {
    async fn begin_deployment(
        &self,
        script: &ScriptKey,
        fingerprint: &str,
        floor: i64,
        now: Timestamp,
    ) -> Result<Deployment, StoreError> {
        let (script, fingerprint) = (script.clone(), fingerprint.to_owned());
        self.0
            .writer
            .write(move |c| {
                Box::pin(async move {
                    deployments::begin(&mut Writing(c), &script, &fingerprint, floor, now).await
                })
            })
            .await
    }

    async fn set_deployment_state(
        &self,
        script: &ScriptKey,
        version: i64,
        state: DeploymentState,
        reason: Option<&str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (script, reason) = (script.clone(), reason.map(str::to_owned));
        self.0
            .writer
            .write(move |c| {
                Box::pin(async move {
                    deployments::set_state(&mut Writing(c), &script, version, state, reason.as_deref(), now)
                        .await
                })
            })
            .await
    }

    async fn keep_spec(&self, script: &ScriptKey, version: i64, kept: &KeptSpec) -> Result<(), StoreError> {
        let (script, kept) = (script.clone(), kept.clone());
        self.0
            .writer
            .write(move |c| {
                Box::pin(
                    async move { deployments::keep_spec(&mut Writing(c), &script, version, &kept).await },
                )
            })
            .await
    }

    async fn deployed_spec(
        &self,
        script: &ScriptKey,
        version: i64,
    ) -> Result<Option<DeployedSpec>, StoreError> {
        deployments::spec(
            &mut Writing(&mut *self.0.lookups.acquire().await?),
            script,
            version,
        )
        .await
    }

    async fn deployments(&self, script: &ScriptKey, limit: usize) -> Result<Vec<Deployment>, StoreError> {
        deployments::list(&mut Writing(&mut *self.0.lookups.acquire().await?), script, limit).await
    }

    async fn register_pod(&self, pod: &PodRecord) -> Result<PodRecord, StoreError> {
        let mut known = streams::pods(&self.0.lookups, [pod.uid.as_str()].into_iter()).await?;
        if let Some(known) = known.remove(&pod.uid) {
            return Ok(known);
        }
        let new = pod.clone();
        self.0
            .writer
            .write(move |c| Box::pin(async move { streams::register_pod(c, &new).await }))
            .await?;
        Ok(pod.clone())
    }

    async fn open_streams(&self, keys: &[StreamKey]) -> Result<Vec<Option<StreamCheckpoint>>, StoreError> {
        let lookups = &self.0.lookups;
        let mut pods = streams::pods(lookups, keys.iter().map(|key| key.pod_uid.as_str())).await?;
        let wanted = |key: &&StreamKey| pods.get(&key.pod_uid).is_some_and(|pod| belongs(key, pod));
        let wanted: Vec<&StreamKey> = keys.iter().filter(wanted).collect();
        pods.retain(|uid, _| wanted.iter().any(|key| key.pod_uid == *uid));
        let mut found = streams::checkpoints(lookups, &pods).await?;
        let missing: Vec<StreamKey> = wanted
            .iter()
            .filter(|key| !found.contains_key(&(key.pod_uid.clone(), key.restart)))
            .map(|key| (*key).clone())
            .collect();
        if !missing.is_empty() {
            self.0
                .writer
                .write(move |c| Box::pin(async move { streams::create(c, &missing).await }))
                .await?;
            found = streams::checkpoints(lookups, &pods).await?;
        }
        Ok(keys
            .iter()
            .map(|key| {
                pods.get(&key.pod_uid).filter(|pod| belongs(key, pod))?;
                found.get(&(key.pod_uid.clone(), key.restart)).cloned()
            })
            .collect())
    }

    async fn append(&self, appends: Vec<Append>) -> Result<Vec<AppendOutcome>, StoreError> {
        if appends.is_empty() {
            return Ok(Vec::new());
        }
        let _room = self
            .0
            .room
            .acquire_many(kib(&appends, ROOM_KIB))
            .await
            .map_err(|_| StoreError::Unusable("the store is closed".to_owned()))?;
        let owners = self.0.owners(&appends).await?;
        let now = Timestamp::now();
        let batch = task::spawn_blocking(move || Batch::prepare(appends, owners, now))
            .await
            .map_err(|_| StoreError::Unusable("a batch could not be prepared".to_owned()))??;
        let (outcomes, changed) = self.0.writer.append(batch).await?;
        self.0.note(&changed);
        Ok(outcomes)
    }

    async fn close_runs(&self, close: &CloseRuns) -> Result<u64, StoreError> {
        let work = close.clone();
        let closed = self
            .0
            .writer
            .write(move |c| Box::pin(async move { runs_write::close_of_pod(c, &work).await }))
            .await?;
        if closed > 0 {
            let pods = streams::pods(&self.0.lookups, [close.pod_uid.as_str()].into_iter()).await?;
            self.0.note(&pods.into_values().map(|pod| pod.script).collect());
        }
        Ok(closed)
    }

    async fn pods_with_open_runs(&self) -> Result<Vec<(PodRecord, Timestamp)>, StoreError> {
        runs_read::pods_with_open_runs(&self.0.lookups).await
    }

    async fn unsettled_pods(&self) -> Result<Vec<PodRecord>, StoreError> {
        gaps::unsettled_pods(&self.0.lookups).await
    }

    async fn pod_streams(&self, uids: &[String]) -> Result<HashMap<String, Vec<StreamProgress>>, StoreError> {
        gaps::pod_streams(&self.0.lookups, uids).await
    }

    async fn settle_pod(&self, settle: &SettlePod) -> Result<Vec<LogGap>, StoreError> {
        let settle = settle.clone();
        self.0
            .writer
            .write(move |c| Box::pin(async move { gaps::settle_pod(c, &settle).await }))
            .await
    }

    async fn gaps(
        &self,
        script: &ScriptKey,
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<LogGap>, StoreError> {
        match self.0.script_id(script).await? {
            Some(id) => gaps::page(&self.0.readers, id, range, limit).await,
            None => Ok(Vec::new()),
        }
    }

    async fn figures(&self, script: &ScriptKey) -> Result<Figures, StoreError> {
        let mut figures = self.figures_of(std::slice::from_ref(script)).await?;
        Ok(figures.pop().unwrap_or_default())
    }

    async fn figures_of(&self, scripts: &[ScriptKey]) -> Result<Vec<Figures>, StoreError> {
        let ids = self.0.script_ids(scripts).await?;
        let known: Vec<i64> = ids.iter().copied().flatten().collect();
        let mut figures = read::lifetime(&mut self.0.snapshot().await?, &known).await?;
        let of = |id: Option<i64>| id.and_then(|id| figures.remove(&id)).unwrap_or_default();
        Ok(ids.into_iter().map(of).collect())
    }

    async fn version_figures(
        &self,
        script: &ScriptKey,
        limit: usize,
    ) -> Result<Vec<VersionFigures>, StoreError> {
        match self.0.script_id(script).await? {
            Some(id) => read::of_versions(&mut self.0.snapshot().await?, id, limit).await,
            None => Ok(Vec::new()),
        }
    }

    async fn window_figures(
        &self,
        script: &ScriptKey,
        range: TimeRange,
        filter: &Filter,
    ) -> Result<Figures, StoreError> {
        filter.check_runs()?;
        match self.0.script_id(script).await? {
            Some(id) => read::window(&mut self.0.snapshot().await?, id, range, filter).await,
            None => Ok(Figures::default()),
        }
    }

    async fn series(&self, query: &SeriesQuery) -> Result<Vec<Bucket>, StoreError> {
        query.filter.check_runs()?;
        match self.0.script_id(&query.script).await? {
            Some(id) => read::series(&mut self.0.snapshot().await?, id, query).await,
            None => Ok(Vec::new()),
        }
    }

    fn changed_scripts(&self, since: u64) -> (Vec<ScriptKey>, u64) {
        self.0.changes.since(since)
    }

    async fn runs(&self, query: &RunQuery) -> Result<Page<Run, RunCursor>, StoreError> {
        query.filter.check_runs()?;
        match self.0.script_id(&query.script).await? {
            Some(id) => read::runs(&mut self.0.snapshot().await?, id, query).await,
            None => Ok(Page::default()),
        }
    }

    async fn failures(&self, query: &RunQuery) -> Result<(Grouping, bool), StoreError> {
        query.filter.check_runs()?;
        match self.0.script_id(&query.script).await? {
            Some(id) => read::failures(&mut self.0.snapshot().await?, id, query).await,
            None => Ok((Grouping::default(), false)),
        }
    }

    async fn count_runs(&self, query: &RunQuery, cap: usize) -> Result<Count, StoreError> {
        query.filter.check_runs()?;
        match self.0.script_id(&query.script).await? {
            Some(id) => read::count_runs(&mut self.0.snapshot().await?, id, query, cap).await,
            None => Ok(Count::default()),
        }
    }

    async fn run(&self, script: &ScriptKey, run_id: &str) -> Result<Option<RunDetail>, StoreError> {
        match self.0.script_id(script).await? {
            Some(id) => read::run(&mut self.0.snapshot().await?, id, run_id).await,
            None => Ok(None),
        }
    }

    async fn logs(&self, query: &LogQuery) -> Result<Page<LogLine, LogCursor>, StoreError> {
        query.filter.check_logs()?;
        match self.0.script_id(&query.script).await? {
            Some(id) => read::lines(&mut self.0.snapshot().await?, id, query).await,
            None => Ok(Page::default()),
        }
    }

    async fn snapshot(&self, script: &ScriptKey) -> Result<Box<dyn StoreSnapshot>, StoreError> {
        let script_id = self.0.script_id(script).await?;
        let snapshot = Snapshot::begin(&self.0.snapshots).await?;
        Ok(Box::new(read::OfScript::new(snapshot, script_id)))
    }

    async fn log_position(&self, script: &ScriptKey) -> Result<LogPosition, StoreError> {
        match self.0.script_id(script).await? {
            Some(id) => read::position(&mut self.0.snapshot().await?, id).await,
            None => Ok(LogPosition::default()),
        }
    }

    async fn logs_between(&self, query: &TailQuery) -> Result<Tail, StoreError> {
        query.filter.check_logs()?;
        match self.0.script_id(&query.script).await? {
            Some(id) => read::between(&mut self.0.snapshot().await?, id, query).await,
            None => Ok(Tail::default()),
        }
    }

    async fn count_logs(&self, query: &LogQuery, cap: usize) -> Result<Count, StoreError> {
        query.filter.check_logs()?;
        match self.0.script_id(&query.script).await? {
            Some(id) => read::count_lines(&mut self.0.snapshot().await?, id, query, cap).await,
            None => Ok(Count::default()),
        }
    }

    async fn scripts(&self, namespace: Option<&str>) -> Result<Vec<ScriptKey>, StoreError> {
        deployments::scripts(&mut Writing(&mut *self.0.lookups.acquire().await?), namespace).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        let now = Timestamp::now().as_microsecond();
        self.0
            .writer
            .write(move |c| {
                Box::pin(async move {
                    sqlx::query(
                        "INSERT INTO health (id, checked_at) VALUES (1, ?) \
                         ON CONFLICT (id) DO UPDATE SET checked_at = excluded.checked_at",
                    )
                    .bind(now)
                    .execute(c)
                    .await?;
                    Ok(())
                })
            })
            .await
    }

    async fn close(&self) {
        self.0.writer.close().await;
        self.0.readers.close().await;
        self.0.lookups.close().await;
        self.0.snapshots.close();
        self.0.queries.close();
    }
}
