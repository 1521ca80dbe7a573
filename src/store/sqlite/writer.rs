//! The one connection that writes, in a task of its own: callers hand it work and wait for the commit. What a caller
//! who gave up had asked for is still done, whole.

use std::{
    collections::BTreeSet,
    fs::File,
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use futures::future::BoxFuture;
use sqlx::{Connection, SqliteConnection};
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
type Work = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, ()> + Send>;

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
    /// Starts the task; `lock` is held until it has ended.
    pub fn start(connection: SqliteConnection, lock: Arc<File>) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let task = tokio::spawn(async move {
            run(connection, queue).await;
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
        let work: Work = Box::new(move |connection| {
            Box::pin(async move {
                // The caller may have gone; the work is done all the same.
                let _ = reply.send(in_transaction(connection, work).await);
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

async fn run(mut connection: SqliteConnection, mut queue: mpsc::Receiver<Job>) {
    let mut next = None;
    while let Some(job) = match next.take() {
        Some(job) => Some(job),
        None => queue.recv().await,
    } {
        match job {
            Job::Work(work) => work(&mut connection).await,
            Job::Append(batch, reply) => {
                let mut group = vec![(batch, reply)];
                next = gather(&mut group, &mut queue);
                commit_group(&mut connection, group).await;
            }
        }
    }
    if let Err(error) = connection.close().await {
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

async fn commit_group(connection: &mut SqliteConnection, group: Vec<(Batch, oneshot::Sender<Outcomes>)>) {
    let (batches, replies): (Vec<_>, Vec<_>) = group.into_iter().unzip();
    match commit(connection, &batches).await {
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
                let alone = commit(connection, std::slice::from_ref(batch)).await;
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
        Err(StoreError::Database(error)) if is_duplicate(&error) => {
            try_commit(connection, batches, LookUp::All).await
        }
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

fn is_duplicate(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(sqlx::error::DatabaseError::is_unique_violation)
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
