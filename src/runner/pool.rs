//! The workers, one a slot, and the calls that wait for one.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{JoinSet, yield_now},
    time::sleep,
};

use super::{
    answer::CANCELLED,
    call::{Report, Settings, failure, print_finished, print_started},
    function::Function,
    output::Output,
    queue::{Job, Queue},
    run,
    runs::{Live, Runs},
    stop::Stop,
    worker::{Launch, StartError, Worker, print_span},
};
use crate::model::RunError;

/// Calls that may wait for each worker.
const WAITING_PER_WORKER: usize = 4;
/// Pauses between attempts to replace a worker.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The longest time after which a refused caller is asked to try again, in seconds.
const LONGEST_RETRY: u64 = 30;

/// What the server knows of the workers.
#[derive(Debug)]
pub struct Pool {
    places: Arc<Semaphore>,
    waiting: usize,
    concurrency: usize,
    /// Every place was taken, and since then not half of those for waiting calls came free.
    saturated: AtomicBool,
    shared: Arc<Shared>,
}

/// What the server and the slots share.
#[derive(Debug)]
struct Shared {
    queue: Queue,
    runs: Arc<Runs>,
    settings: Settings,
    output: Output,
    functions: RwLock<Option<Arc<[Function]>>>,
    live: AtomicUsize,
    /// Why a worker could not be replaced, while that is so.
    problem: RwLock<Option<String>>,
    /// How long runs took lately, in microseconds.
    usual: AtomicU64,
}

/// What a slot needs.
struct Slot {
    shared: Arc<Shared>,
    launch: Launch,
    stop: Stop,
    failed: mpsc::Sender<StartError>,
}

/// The workers' tasks, and where it is told that the script can not be used.
#[derive(Debug)]
pub struct Slots {
    /// Ends when every worker has.
    pub tasks: JoinSet<()>,
    /// A worker could not be started, and none ever was.
    pub failed: mpsc::Receiver<StartError>,
}

impl Pool {
    /// Starts the workers.
    pub fn start(
        concurrency: usize,
        launch: &Launch,
        settings: Settings,
        runs: Arc<Runs>,
        stop: &Stop,
    ) -> (Self, Slots) {
        let waiting = WAITING_PER_WORKER * concurrency;
        let (failed, failures) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            queue: Queue::default(),
            runs,
            settings,
            output: launch.output.clone(),
            functions: RwLock::new(None),
            live: AtomicUsize::new(0),
            problem: RwLock::new(None),
            usual: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        for _ in 0..concurrency {
            let slot = Slot {
                shared: Arc::clone(&shared),
                launch: launch.clone(),
                stop: stop.clone(),
                failed: failed.clone(),
            };
            tasks.spawn(slot.serve());
        }
        let pool = Self {
            places: Arc::new(Semaphore::new(waiting + concurrency)),
            waiting,
            concurrency,
            saturated: AtomicBool::new(false),
            shared,
        };
        let slots = Slots {
            tasks,
            failed: failures,
        };
        (pool, slots)
    }

    /// The functions there are; none before the first worker has loaded them.
    pub fn functions(&self) -> Option<Arc<[Function]>> {
        read(&self.shared.functions)
    }

    /// Whether a worker is there.
    pub fn is_live(&self) -> bool {
        self.shared.live.load(Ordering::Relaxed) > 0
    }

    /// Why no worker is there, if none can be started.
    pub fn problem(&self) -> Option<String> {
        if self.is_live() {
            None
        } else {
            read(&self.shared.problem)
        }
    }

    /// A place among the calls that run or wait; none when all are taken.
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        if self.places.available_permits() == 0 {
            self.saturated.store(true, Ordering::Relaxed);
        }
        place
    }

    /// Whether a call would find a place.
    pub fn has_place(&self) -> bool {
        self.places.available_permits() > 0
    }

    /// Whether calls should go elsewhere, if they can: every place was taken, and not half of those for waiting calls
    /// have come free since, so that a queue which is just full does not change this with each call.
    pub fn is_saturated(&self) -> bool {
        if self.places.available_permits() >= self.waiting.div_ceil(2) {
            self.saturated.store(false, Ordering::Relaxed);
        }
        self.saturated.load(Ordering::Relaxed)
    }

    /// How many calls may wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Seconds in which the calls that wait are likely to have been taken.
    pub fn retry_after(&self) -> u64 {
        let usual = Duration::from_micros(self.shared.usual.load(Ordering::Relaxed));
        let rounds = u32::try_from(self.waiting / self.concurrency).unwrap_or(u32::MAX);
        let wait = usual.saturating_mul(rounds);
        wait.as_millis()
            .div_ceil(1000)
            .try_into()
            .unwrap_or(LONGEST_RETRY)
            .clamp(1, LONGEST_RETRY)
    }

    /// Queues a call.
    pub fn submit(&self, job: Job) {
        self.shared.runs.add(&job.call, job.waiter.is_none());
        self.shared.queue.push(job);
    }

    /// Takes a call that nobody waits for any more out of the queue, if it is still there: it never becomes a run.
    pub fn give_up(&self, run_id: &str) {
        if self.shared.queue.remove(run_id).is_some() {
            self.shared.runs.forget(run_id);
        }
    }

    /// Ends a run that waits or runs.
    pub async fn cancel(&self, run_id: &str, live: &Live) {
        live.cancel.cancel();
        if let Some(job) = self.shared.queue.remove(run_id) {
            let message = "the run was cancelled before it had begun";
            self.shared
                .end_unbegun(job, failure(CANCELLED, message.into()))
                .await;
        }
    }
}

fn read<T: Clone>(lock: &RwLock<T>) -> T {
    lock.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn write<T>(lock: &RwLock<T>, value: T) {
    *lock.write().unwrap_or_else(PoisonError::into_inner) = value;
}

impl Shared {
    /// Records a run that was promised to its caller and never began.
    async fn end_unbegun(&self, job: Job, error: RunError) {
        print_started(&job.call, &self.settings, &self.output).await;
        let report = Report {
            run_id: job.call.run_id.clone(),
            result: Err(error),
            stdout: String::new(),
            stderr: String::new(),
            duration: Duration::ZERO,
        };
        print_finished(&report, &self.settings, &self.output).await;
        self.tell(job, report);
    }

    /// Tells whoever waits, or asks later, what became of a run.
    fn tell(&self, job: Job, report: Report) {
        drop(job.place);
        self.runs.ended(&report);
        match job.waiter {
            Some(waiter) => {
                let _ = waiter.begun.map(|begun| begun.send(()));
                let _ = waiter.report.send(report);
            }
            None => self.runs.expire_later(),
        }
    }

    fn note_duration(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let before = self.usual.load(Ordering::Relaxed);
        let after = if before == 0 {
            micros
        } else {
            before - before / 8 + micros / 8
        };
        self.usual.store(after, Ordering::Relaxed);
    }
}

impl Slot {
    /// Keeps a worker until the runner stops.
    async fn serve(mut self) {
        let mut pause = FIRST_PAUSE;
        let mut stop = self.stop.clone();
        while !self.stop.is_draining() || self.shared.queue.has_unattended() {
            let started = tokio::select! {
                biased;
                () = over(&mut stop, &self.shared.queue) => break,
                started = self.launch.start() => started,
            };
            match started {
                Ok((mut worker, functions)) => {
                    pause = FIRST_PAUSE;
                    write(&self.shared.functions, Some(functions.into()));
                    write(&self.shared.problem, None);
                    self.shared.live.fetch_add(1, Ordering::Relaxed);
                    self.serve_with(&mut worker).await;
                    self.shared.live.fetch_sub(1, Ordering::Relaxed);
                    worker.end().await;
                }
                Err(error) if read(&self.shared.functions).is_none() => {
                    let _ = self.failed.send(error).await;
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "A worker could not be replaced.");
                    write(&self.shared.problem, Some(error.to_string()));
                    tokio::select! {
                        () = over(&mut stop, &self.shared.queue) => break,
                        () = sleep(pause) => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        while let Some(job) = self.shared.queue.pop_unattended() {
            let message = "the pod was stopped before the run had begun";
            self.shared
                .end_unbegun(job, failure("Undeployed", message.into()))
                .await;
        }
    }

    /// Takes calls until the worker has to be replaced.
    async fn serve_with(&mut self, worker: &mut Worker) {
        while let Some(mut job) = self.next(worker).await {
            let begun = job.waiter.as_mut().and_then(|waiter| waiter.begun.take());
            if begun.is_some_and(|begun| begun.send(()).is_err()) {
                self.shared.runs.forget(&job.call.run_id);
                continue;
            }
            self.shared.runs.begun(&job.call.run_id);
            let shared = &self.shared;
            let (report, reusable) = run::execute(
                worker,
                &job.call,
                &shared.settings,
                &shared.output,
                &mut self.stop,
            )
            .await;
            shared.note_duration(report.duration);
            shared.tell(job, report);
            // The caller gets its answer first.
            yield_now().await;
            if !reusable || worker.prepare().await.is_err() {
                return;
            }
        }
    }

    /// The next call; none if the worker has ended or is needed no more. Once the runner stops, callers that wait are
    /// told to go elsewhere, and what was promised to others is done.
    async fn next(&mut self, worker: &mut Worker) -> Option<Job> {
        loop {
            if self.stop.is_killing() {
                return None;
            }
            if self.stop.is_draining() {
                return self.shared.queue.pop_unattended();
            }
            tokio::select! {
                biased;
                () = self.stop.draining() => {}
                exit = worker.process.ended() => {
                    tracing::warn!(?exit, "A worker ended between two runs and is replaced.");
                    return None;
                }
                span = worker.logs.next() => print_span(span, &worker.run, &self.shared.output).await,
                job = self.shared.queue.next() => return Some(job),
            }
        }
    }
}

/// Ready once no worker is needed any more.
async fn over(stop: &mut Stop, queue: &Queue) {
    stop.draining().await;
    if queue.has_unattended() {
        stop.killing().await;
    }
}
