//! The one connection that writes, in a task of its own: callers hand it work and wait for the commit. What a caller
//! who gave up had asked for is still done, whole.

use std::{
    collections::BTreeSet,
    fs::File,
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use futures::future::BoxFuture;
use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::append;
use crate::{
    model::ScriptKey,
    store::{AppendOutcome, StoreError, batch::Batch, run_changes::LookUp},
};

const QUEUE: usize = 64;
/// Batches committed at once at most.
const GROUP: usize = 32;
/// Lines and run events committed at once, about.
const GROUP_ITEMS: usize = 100_000;

type Outcomes = Result<(Vec<AppendOutcome>, BTreeSet<ScriptKey>), StoreError>;
type Work = Box<dyn for<'c> FnOnce(&'c mut Session) -> BoxFuture<'c, ()> + Send>;

enum Job {
    Append(Batch, oneshot::Sender<Outcomes>),
    Work(Work),
}

/// The way to the writing task.
pub struct Writer {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

fn gone() -> StoreError {
    StoreError::Unusable("the store is closed".to_owned())
}

impl Writer {
    /// Starts the task; `lock` is held until it has ended, `options` make the connection anew where it must be.
    pub fn start(connection: SqliteConnection, options: SqliteConnectOptions, lock: Arc<File>) -> Self {
        let session = Session {
            connection,
            options,
            is_doubtful: false,
        };
        let (jobs, queue) = mpsc::channel(QUEUE);
        let task = tokio::spawn(async move {
            run(session, queue).await;
            drop(lock);
        });
        Self {
            jobs: Mutex::new(Some(jobs)),
            task: tokio::sync::Mutex::new(Some(task)),
        }
    }

    /// Commits a batch, together with others that wait. Says which scripts changed.
    pub async fn append(&self, batch: Batch) -> Outcomes {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Append(batch, reply)).await?;
        answer.await.map_err(|_| gone())?
    }

    /// Does `work` in a transaction of its own.
    pub async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |session| {
            Box::pin(async move {
                // The caller may have gone; the work is done all the same.
                let _ = reply.send(session.in_transaction(work).await);
            })
        });
        self.send(Job::Work(work)).await?;
        answer.await.map_err(|_| gone())?
    }

    async fn send(&self, job: Job) -> Result<(), StoreError> {
        let jobs = self
            .jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .ok_or_else(gone)?;
        jobs.send(job).await.map_err(|_| gone())
    }

    /// Waits for what is under way and ends the task.
    pub async fn close(&self) {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(task) = self.task.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "The store's writer failed.");
        }
    }
}

/// The writing connection.
struct Session {
    connection: SqliteConnection,
    options: SqliteConnectOptions,
    /// A transaction failed. On a full disk or an I/O error SQLite ends it by itself, and sqlx goes on believing that it
    /// is in one; only a new connection is certainly in none.
    is_doubtful: bool,
}

impl Session {
    /// The connection for a transaction; doubtful until its end is reported by [`Self::settled`].
    async fn connection(&mut self) -> Result<&mut SqliteConnection, StoreError> {
        if mem::replace(&mut self.is_doubtful, true) {
            self.connection = self.options.connect().await?;
        }
        Ok(&mut self.connection)
    }

    fn settled<T>(&mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        self.is_doubtful = result.is_err();
        result
    }

    /// Does `work` in a transaction.
    async fn in_transaction<T, F>(&mut self, work: F) -> Result<T, StoreError>
    where
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, StoreError>>,
    {
        let result = in_transaction(self.connection().await?, work).await;
        self.settled(result)
    }

    /// Applies batches in one transaction.
    async fn commit(
        &mut self,
        batches: &[Batch],
    ) -> Result<Vec<(Vec<AppendOutcome>, BTreeSet<ScriptKey>)>, StoreError> {
        let result = commit(self.connection().await?, batches).await;
        self.settled(result)
    }
}

async fn run(mut session: Session, mut queue: mpsc::Receiver<Job>) {
    let mut next = None;
    while let Some(job) = match next.take() {
        Some(job) => Some(job),
        None => queue.recv().await,
    } {
        match job {
            Job::Work(work) => work(&mut session).await,
            Job::Append(batch, reply) => {
                let mut group = vec![(batch, reply)];
                next = gather(&mut group, &mut queue);
                commit_group(&mut session, group).await;
            }
        }
    }
    if let Err(error) = session.connection.close().await {
        tracing::warn!(%error, "The database was not closed cleanly.");
    }
}

/// Adds the batches that wait already; returns the first job that is none or no longer fits.
fn gather(
    group: &mut Vec<(Batch, oneshot::Sender<Outcomes>)>,
    queue: &mut mpsc::Receiver<Job>,
) -> Option<Job> {
    let mut items: usize = group.iter().map(|(batch, _)| batch.items()).sum();
    while group.len() < GROUP && items < GROUP_ITEMS {
        match queue.try_recv().ok()? {
            Job::Append(batch, reply) => {
                items += batch.items();
                group.push((batch, reply));
            }
            other @ Job::Work(_) => return Some(other),
        }
    }
    None
}

async fn commit_group(session: &mut Session, group: Vec<(Batch, oneshot::Sender<Outcomes>)>) {
    let (batches, replies): (Vec<_>, Vec<_>) = group.into_iter().unzip();
    match session.commit(&batches).await {
        Ok(outcomes) => {
            for (outcome, reply) in outcomes.into_iter().zip(replies) {
                let _ = reply.send(Ok(outcome));
            }
        }
        Err(error) if batches.len() == 1 => {
            if let Some(reply) = replies.into_iter().next() {
                let _ = reply.send(Err(error));
            }
        }
        // One batch must not fail the others: each alone has its own answer.
        Err(_) => {
            for (batch, reply) in batches.iter().zip(replies) {
                let alone = session.commit(std::slice::from_ref(batch)).await;
                let _ = reply.send(alone.map(|mut outcomes| mem::take(&mut outcomes).swap_remove(0)));
            }
        }
    }
}

async fn commit(
    connection: &mut SqliteConnection,
    batches: &[Batch],
) -> Result<Vec<(Vec<AppendOutcome>, BTreeSet<ScriptKey>)>, StoreError> {
    match try_commit(connection, batches, LookUp::Ends).await {
        // A run that begins a second time: rare, and not worth a look for every run.
        Err(error) if error.is_duplicate() => try_commit(connection, batches, LookUp::All).await,
        outcome => outcome,
    }
}

async fn try_commit(
    connection: &mut SqliteConnection,
    batches: &[Batch],
    look_up: LookUp,
) -> Result<Vec<(Vec<AppendOutcome>, BTreeSet<ScriptKey>)>, StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let outcomes = append::apply(&mut transaction, batches, look_up).await?;
    transaction.commit().await?;
    Ok(outcomes)
}

async fn in_transaction<T, F>(connection: &mut SqliteConnection, work: F) -> Result<T, StoreError>
where
    F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, StoreError>>,
{
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let value = work(&mut transaction).await?;
    transaction.commit().await?;
    Ok(value)
}
