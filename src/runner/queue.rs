//! The calls that wait for a worker, in the order they came.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

use super::call::{Call, Report};

/// A call in the queue.
#[derive(Debug)]
pub struct Job {
    /// The call.
    pub call: Call,
    /// Who waits for it; nobody where the caller was answered already and asks later.
    pub waiter: Option<Waiter>,
    /// Its place among the calls that run or wait.
    pub place: OwnedSemaphorePermit,
}

/// The caller that waits for a run.
#[derive(Debug)]
pub struct Waiter {
    /// Told when a worker takes the call; none once that is so.
    pub begun: Option<oneshot::Sender<()>>,
    /// Told what became of it.
    pub report: oneshot::Sender<Report>,
}

/// The queue. Whoever has a place finds room, so that places bound it.
#[derive(Debug, Default)]
pub struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    arrived: Notify,
}

impl Queue {
    /// Adds a call.
    pub fn push(&self, job: Job) {
        self.jobs().push_back(job);
        self.arrived.notify_one();
    }

    /// The next call; waits for one. Dropping the future loses none.
    pub async fn next(&self) -> Job {
        loop {
            if let Some(job) = self.jobs().pop_front() {
                return job;
            }
            self.arrived.notified().await;
        }
    }

    /// The next call whose caller was answered already.
    pub fn pop_unattended(&self) -> Option<Job> {
        self.take(|job| job.waiter.is_none())
    }

    /// Whether a call is there whose caller was answered already.
    pub fn has_unattended(&self) -> bool {
        self.jobs().iter().any(|job| job.waiter.is_none())
    }

    /// Takes a call out before its turn.
    pub fn remove(&self, run_id: &str) -> Option<Job> {
        self.take(|job| job.call.run_id == run_id)
    }

    fn take(&self, which: impl Fn(&Job) -> bool) -> Option<Job> {
        let mut jobs = self.jobs();
        let at = jobs.iter().position(which)?;
        jobs.remove(at)
    }

    fn jobs(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
