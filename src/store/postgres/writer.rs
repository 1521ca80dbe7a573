//! Tasks that commit: callers hand them batches and wait. Batches that wait together are committed together; what a
//! caller who gave up had asked for is still done, whole.

use std::{
    slice,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::{Connection, PgPool, Postgres, pool::PoolConnection};
use tokio::{
    sync::{Mutex as AsyncMutex, mpsc, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    append::{self, Answer},
    retry::{self, Failure},
};
use crate::store::{StoreError, batch::Batch, run_changes::LookUp};

const QUEUE: usize = 64;
/// Transactions under way at once.
pub const TASKS: u32 = 4;
/// Batches committed at once at most.
const GROUP: usize = 32;
/// Lines and run events committed at once, about.
const GROUP_ITEMS: usize = 100_000;
/// A transaction that takes longer hangs: its connection is given up.
const PATIENCE: Duration = Duration::from_mins(1);

type Reply = oneshot::Sender<Result<Answer, StoreError>>;
type Job = (Batch, Reply);

/// The way to the committing tasks.
pub struct Writer {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    tasks: AsyncMutex<JoinSet<()>>,
}

fn gone() -> StoreError {
    StoreError::Unusable("the store is closed".to_owned())
}

impl Writer {
    /// Starts the tasks.
    pub fn start(pool: &PgPool) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let queue = Arc::new(AsyncMutex::new(queue));
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            tasks.spawn(run(pool.clone(), Arc::clone(&queue)));
        }
        Self {
            jobs: Mutex::new(Some(jobs)),
            tasks: AsyncMutex::new(tasks),
        }
    }

    /// Commits a batch, together with others that wait.
    pub async fn append(&self, batch: Batch) -> Result<Answer, StoreError> {
        let jobs = self
            .jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .ok_or_else(gone)?;
        let (reply, answer) = oneshot::channel();
        jobs.send((batch, reply)).await.map_err(|_| gone())?;
        drop(jobs);
        answer.await.map_err(|_| gone())?
    }

    /// Waits for what is under way and ends the tasks.
    pub async fn close(&self) {
        drop(self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take());
        let mut tasks = self.tasks.lock().await;
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "A writing task of the store failed.");
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Tasks end by themselves when the queue does, after what is under way.
        self.tasks.get_mut().detach_all();
    }
}

/// The connection of a task, kept from one transaction to the next while all goes well.
struct Session {
    pool: PgPool,
    connection: Option<PoolConnection<Postgres>>,
}

async fn run(pool: PgPool, queue: Arc<AsyncMutex<mpsc::Receiver<Job>>>) {
    let mut session = Session {
        pool,
        connection: None,
    };
    loop {
        let group = {
            let mut queue = queue.lock().await;
            let Some(first) = queue.recv().await else {
                return;
            };
            gather(first, &mut queue)
        };
        commit_group(&mut session, group).await;
    }
}

/// Adds the batches that wait already.
fn gather(first: Job, queue: &mut mpsc::Receiver<Job>) -> Vec<Job> {
    let mut items = first.0.items();
    let mut group = vec![first];
    while group.len() < GROUP && items < GROUP_ITEMS {
        let Ok(job) = queue.try_recv() else {
            break;
        };
        items += job.0.items();
        group.push(job);
    }
    group
}

async fn commit_group(session: &mut Session, group: Vec<Job>) {
    let (batches, replies): (Vec<_>, Vec<_>) = group.into_iter().unzip();
    match commit(session, &batches).await {
        Ok(answers) => {
            for (answer, reply) in answers.into_iter().zip(replies) {
                // The caller may have gone; the work is done all the same.
                let _ = reply.send(Ok(answer));
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
                let alone = commit(session, slice::from_ref(batch)).await;
                let _ = reply.send(alone.map(|mut answers| answers.swap_remove(0)));
            }
        }
    }
}

/// Commits batches in one transaction, tried again while that promises anything.
async fn commit(session: &mut Session, batches: &[Batch]) -> Result<Vec<Answer>, StoreError> {
    let mut unknown = None;
    let mut look_up = LookUp::Ends;
    let mut pauses = retry::pauses();
    loop {
        let mut promised = None;
        let attempt = attempt(session, batches, unknown.as_deref(), look_up, &mut promised);
        let error = match timeout(PATIENCE, attempt).await {
            Ok(Ok(())) => return Ok(promised.unwrap_or_default()),
            Ok(Err(error)) => error,
            Err(_) => StoreError::Database(sqlx::Error::PoolTimedOut),
        };
        // A run that begins a second time: rare, and not worth a look for every run.
        if look_up == LookUp::Ends && retry::is_duplicate(&error) {
            look_up = LookUp::All;
            continue;
        }
        // Where the commit was asked for, an error does not say that it did not happen.
        unknown = promised.or(unknown);
        match (retry::failure(&error), pauses.next()) {
            (Failure::Passing, Some(pause)) => {
                tracing::warn!(%error, "A batch could not be committed and is tried again.");
                sleep(pause).await;
            }
            _ => return Err(error),
        }
    }
}

/// One attempt; `promised` are the answers once the commit has been asked for.
async fn attempt(
    session: &mut Session,
    batches: &[Batch],
    unknown: Option<&[Answer]>,
    look_up: LookUp,
    promised: &mut Option<Vec<Answer>>,
) -> Result<(), StoreError> {
    // After a failure it goes back to the pool, which sees whether it is still of use.
    let mut connection = match session.connection.take() {
        Some(connection) => connection,
        None => session.pool.acquire().await?,
    };
    let mut transaction = connection.begin().await?;
    let answers = append::apply(&mut transaction, batches, unknown, look_up).await?;
    *promised = Some(answers);
    transaction.commit().await?;
    session.connection = Some(connection);
    Ok(())
}
