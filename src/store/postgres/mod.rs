//! The store in a Postgres database, which several replicas of the operator may use at once.
//!
//! What keeps them apart: a stream's checkpoint row is locked while something is appended at it, and a script's runs
//! and figures are changed under an advisory lock of the script ([`locks`]).

/// Does an async block, again and again while that promises anything. A macro, since a closure that lends to a future
/// can not be shown to be `Send`.
macro_rules! retried {
    ($work:block) => {{
        let mut pauses = retry::pauses();
        loop {
            let done: Result<_, StoreError> = async { $work }.await;
            let error = match done {
                Ok(value) => break Ok(value),
                Err(error) => error,
            };
            match (retry::failure(&error), pauses.next()) {
                (retry::Failure::Passing, Some(pause)) => sleep(pause).await,
                _ => break Err(error),
            }
        }
    }};
}

/// Does work, which must come to the same when done twice, in a transaction of its own.
macro_rules! in_transaction {
    ($store:expr, |$connection:ident| $work:expr) => {
        retried!({
            let mut transaction = $store.pool.begin().await?;
            let $connection = &mut *transaction;
            let value = $work.await?;
            transaction.commit().await?;
            Ok(value)
        })
    };
}

mod append;
pub(super) mod copy;
mod gaps;
mod locks;
mod merge;
mod news;
pub(super) mod open;
mod retention;
mod retry;
mod rollups;
mod runs_read;
pub(super) mod runs_write;
mod segments;
mod snapshot;
mod streams;
mod text_index;
mod writer;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{PgPool, Row};
use tokio::{
    sync::{Semaphore, watch},
    task,
    time::sleep,
};
use uuid::Uuid;

pub(super) use self::segments::insert_one as insert_segment;
use self::{open::Opened, snapshot::Snapshot, writer::Writer};
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

/// Text of all batches that are being made ready or wait for their commit, about; whoever comes later waits outside.
const ROOM_KIB: u32 = 32 << 10;
/// Streams whose owners are remembered.
const OWNERS: usize = 10_000;
/// What begins a transaction whose queries all see the same moment.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// A store in a Postgres database.
pub struct PostgresStore(Arc<Inner>);

struct Inner {
    /// Of this replica, in this life.
    id: String,
    writer: Writer,
    /// For what ingest needs to know and to write: it must not wait for queries.
    pool: PgPool,
    readers: PgPool,
    /// For those who read at length.
    snapshots: PgPool,
    /// KiB of batches that may wait for their commit.
    room: Semaphore,
    changes: Changes,
    /// Scripts that have changed here, of which other replicas do not know yet.
    untold: Mutex<BTreeSet<ScriptKey>>,
    owners: Mutex<HashMap<i64, Arc<Owner>>>,
    stored: watch::Sender<u64>,
}

impl PostgresStore {
    /// Connects to the database at `url` and brings its tables up to date. Waits for a while for a server that can not
    /// be reached.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        Self::open_within(url, open::PATIENCE).await
    }

    /// The same with another time to wait for the server.
    pub async fn open_within(url: &str, patience: Duration) -> Result<Self, StoreError> {
        let Opened {
            pool,
            readers,
            snapshots,
        } = open::open(url, patience).await?;
        let (stored, watch) = watch::channel(0);
        let inner = Arc::new(Inner {
            id: Uuid::now_v7().to_string(),
            writer: Writer::start(&pool),
            pool,
            readers,
            snapshots,
            room: Semaphore::new(ROOM_KIB as usize),
            changes: Changes::default(),
            untold: Mutex::default(),
            owners: Mutex::default(),
            stored,
        });
        let listener = news::listener(&inner).await?;
        let store = || Arc::downgrade(&inner);
        tokio::spawn(news::hear(store(), listener, watch.clone()));
        tokio::spawn(news::tell(store(), watch.clone()));
        tokio::spawn(crate::store::text_index::run(store(), watch.clone()));
        tokio::spawn(merge::run(store(), watch));
        inner.stored.send_modify(|n| *n += 1);
        Ok(Self(inner))
    }
}

impl Inner {
    /// The numbers of scripts, in their order.
    async fn script_ids(&self, scripts: &[ScriptKey]) -> Result<Vec<Option<i64>>, StoreError> {
        let namespaces: Vec<&str> = scripts.iter().map(|script| script.namespace.as_str()).collect();
        let names: Vec<&str> = scripts.iter().map(|script| script.name.as_str()).collect();
        let rows = sqlx::query(
            "SELECT s.id, s.namespace, s.name FROM unnest($1::text[], $2::text[]) AS v (namespace, name) \
             JOIN scripts s ON s.namespace = v.namespace AND s.name = v.name",
        )
        .bind(&namespaces)
        .bind(&names)
        .fetch_all(&self.pool)
        .await?;
        let mut ids = HashMap::new();
        for row in rows {
            ids.insert(
                ScriptKey::new(row.get::<&str, _>(1), row.get::<&str, _>(2)),
                row.get(0),
            );
        }
        Ok(scripts.iter().map(|script| ids.get(script).copied()).collect())
    }

    /// What queries are answered from.
    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Snapshot::begin(&self.readers).await
    }

    async fn scripts(&self, namespace: Option<&str>) -> Result<Vec<ScriptKey>, StoreError> {
        deployments::scripts(&mut Writing(&mut *self.pool.acquire().await?), namespace).await
    }

    async fn script_id(&self, script: &ScriptKey) -> Result<Option<i64>, StoreError> {
        Ok(
            sqlx::query_scalar("SELECT id FROM scripts WHERE namespace = $1 AND name = $2")
                .bind(&script.namespace)
                .bind(&script.name)
                .fetch_optional(&self.pool)
                .await?,
        )
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
            let missing: Vec<i64> = missing.into_iter().collect();
            loaded = retried!({ streams::owners(&self.pool, &missing).await })?;
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

    fn note(&self, scripts: BTreeSet<ScriptKey>) {
        for script in &scripts {
            self.changes.note(script);
        }
        self.untold
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(scripts);
        self.stored.send_modify(|n| *n += 1);
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn begin_deployment(
        &self,
        script: &ScriptKey,
        fingerprint: &str,
        floor: i64,
        now: Timestamp,
    ) -> Result<Deployment, StoreError> {
        in_transaction!(self.0, |c| deployments::begin(
            &mut Writing(c),
            script,
            fingerprint,
            floor,
            now
        ))
    }

    async fn set_deployment_state(
        &self,
        script: &ScriptKey,
        version: i64,
        state: DeploymentState,
        reason: Option<&str>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        in_transaction!(self.0, |c| deployments::set_state(
            &mut Writing(c),
            script,
            version,
            state,
            reason,
            now
        ))
    }

    async fn keep_spec(&self, script: &ScriptKey, version: i64, kept: &KeptSpec) -> Result<(), StoreError> {
        let mut connection = self.0.pool.acquire().await?;
        deployments::keep_spec(&mut Writing(&mut *connection), script, version, kept).await
    }

    async fn deployed_spec(
        &self,
        script: &ScriptKey,
        version: i64,
    ) -> Result<Option<DeployedSpec>, StoreError> {
        deployments::spec(&mut Writing(&mut *self.0.pool.acquire().await?), script, version).await
    }

    async fn deployments(&self, script: &ScriptKey, limit: usize) -> Result<Vec<Deployment>, StoreError> {
        deployments::list(&mut Writing(&mut *self.0.pool.acquire().await?), script, limit).await
    }

    async fn register_pod(&self, pod: &PodRecord) -> Result<PodRecord, StoreError> {
        let mut known = streams::pods(&self.0.pool, &[&pod.uid]).await?;
        if let Some(known) = known.remove(&pod.uid) {
            return Ok(known);
        }
        in_transaction!(self.0, |c| streams::register_pod(c, pod))?;
        Ok(pod.clone())
    }

    async fn open_streams(&self, keys: &[StreamKey]) -> Result<Vec<Option<StreamCheckpoint>>, StoreError> {
        let pool = &self.0.pool;
        let uids: BTreeSet<&str> = keys.iter().map(|key| key.pod_uid.as_str()).collect();
        let mut pods = streams::pods(pool, &uids.into_iter().collect::<Vec<_>>()).await?;
        let wanted = |key: &&StreamKey| pods.get(&key.pod_uid).is_some_and(|pod| belongs(key, pod));
        let wanted: Vec<&StreamKey> = keys.iter().filter(wanted).collect();
        pods.retain(|uid, _| wanted.iter().any(|key| key.pod_uid == *uid));
        let mut found = streams::checkpoints(pool, &pods).await?;
        let missing: Vec<&StreamKey> = wanted
            .into_iter()
            .filter(|key| !found.contains_key(&(key.pod_uid.clone(), key.restart)))
            .collect();
        if !missing.is_empty() {
            in_transaction!(self.0, |c| streams::create(c, missing.clone()))?;
            found = streams::checkpoints(pool, &pods).await?;
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
        self.0.note(changed);
        Ok(outcomes)
    }

    async fn close_runs(&self, close: &CloseRuns) -> Result<u64, StoreError> {
        let mut asked = 0;
        let closed = retried!({
            let mut transaction = self.0.pool.begin().await?;
            let closed = runs_write::close_of_pod(&mut transaction, close).await?;
            // Where the answer to the commit is lost and nothing is left to do, it has happened.
            asked = if closed == 0 { asked } else { closed };
            transaction.commit().await?;
            Ok(asked)
        })?;
        if closed > 0 {
            let pods = streams::pods(&self.0.pool, &[&close.pod_uid]).await?;
            self.0.note(pods.into_values().map(|pod| pod.script).collect());
        }
        Ok(closed)
    }

    async fn pods_with_open_runs(&self) -> Result<Vec<(PodRecord, Timestamp)>, StoreError> {
        runs_read::pods_with_open_runs(&self.0.pool).await
    }

    async fn unsettled_pods(&self) -> Result<Vec<PodRecord>, StoreError> {
        gaps::unsettled_pods(&self.0.pool).await
    }

    async fn pod_streams(&self, uids: &[String]) -> Result<HashMap<String, Vec<StreamProgress>>, StoreError> {
        gaps::pod_streams(&self.0.pool, uids).await
    }

    async fn settle_pod(&self, settle: &SettlePod) -> Result<Vec<LogGap>, StoreError> {
        in_transaction!(self.0, |c| gaps::settle_pod(c, settle))
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
        self.0.scripts(namespace).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO health (id, checked_at) VALUES (1, $1) \
             ON CONFLICT (id) DO UPDATE SET checked_at = excluded.checked_at",
        )
        .bind(Timestamp::now().as_microsecond())
        .execute(&self.0.pool)
        .await?;
        Ok(())
    }

    async fn close(&self) {
        self.0.writer.close().await;
        self.0.pool.close().await;
        self.0.readers.close().await;
        self.0.snapshots.close().await;
    }
}
