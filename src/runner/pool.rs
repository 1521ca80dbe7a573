//! The workers, one a slot, and the calls that wait for one.

use std::{
    sync::{
        Arc, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinSet,
    time::sleep,
};

use super::{
    call::{Call, Report, Settings},
    function::Function,
    output::Output,
    run,
    stop::Stop,
    worker::{Launch, StartError, Worker, print_span},
};

/// Calls that may wait for each worker.
const WAITING_PER_WORKER: usize = 4;
/// Pauses between attempts to replace a worker.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A call in the queue.
#[derive(Debug)]
pub struct Job {
    /// The call.
    pub call: Call,
    /// Told when a worker takes it. Once the other end is gone, the call is not taken.
    pub begun: oneshot::Sender<()>,
    /// Told what became of it.
    pub report: oneshot::Sender<Report>,
    /// Its place among the calls that run or wait.
    pub place: OwnedSemaphorePermit,
}

/// What the server knows of the workers.
#[derive(Debug)]
pub struct Pool {
    queue: mpsc::Sender<Job>,
    places: Arc<Semaphore>,
    waiting: usize,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    functions: RwLock<Option<Arc<[Function]>>>,
    live: AtomicUsize,
    /// Why a worker could not be replaced, while that is so.
    problem: RwLock<Option<String>>,
}

/// What a slot needs.
struct Slot {
    jobs: Arc<Mutex<mpsc::Receiver<Job>>>,
    state: Arc<State>,
    launch: Launch,
    settings: Arc<Settings>,
    output: Output,
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
    pub fn start(concurrency: usize, launch: &Launch, settings: Settings, stop: &Stop) -> (Self, Slots) {
        let waiting = WAITING_PER_WORKER * concurrency;
        let (queue, jobs) = mpsc::channel(waiting + concurrency);
        let (failed, failures) = mpsc::channel(1);
        let state = Arc::new(State {
            functions: RwLock::new(None),
            live: AtomicUsize::new(0),
            problem: RwLock::new(None),
        });
        let (jobs, settings) = (Arc::new(Mutex::new(jobs)), Arc::new(settings));
        let mut tasks = JoinSet::new();
        for _ in 0..concurrency {
            let slot = Slot {
                jobs: Arc::clone(&jobs),
                state: Arc::clone(&state),
                launch: launch.clone(),
                settings: Arc::clone(&settings),
                output: launch.output.clone(),
                stop: stop.clone(),
                failed: failed.clone(),
            };
            tasks.spawn(slot.serve());
        }
        let places = Arc::new(Semaphore::new(waiting + concurrency));
        let pool = Self {
            queue,
            places,
            waiting,
            state,
        };
        let slots = Slots {
            tasks,
            failed: failures,
        };
        (pool, slots)
    }

    /// The functions there are; none before the first worker has loaded them.
    pub fn functions(&self) -> Option<Arc<[Function]>> {
        read(&self.state.functions)
    }

    /// Whether a worker is there.
    pub fn is_live(&self) -> bool {
        self.state.live.load(Ordering::Relaxed) > 0
    }

    /// Why no worker is there, if none can be started.
    pub fn problem(&self) -> Option<String> {
        if self.is_live() {
            None
        } else {
            read(&self.state.problem)
        }
    }

    /// A place among the calls that run or wait; none when all are taken.
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// How many calls may wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Queues a call. Whoever has a place finds room. False when the workers are gone.
    pub async fn submit(&self, job: Job) -> bool {
        self.queue.send(job).await.is_ok()
    }
}

fn read<T: Clone>(lock: &RwLock<T>) -> T {
    lock.read()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .clone()
}

fn write<T>(lock: &RwLock<T>, value: T) {
    *lock.write().unwrap_or_else(std::sync::PoisonError::into_inner) = value;
}

impl Slot {
    /// Keeps a worker until the runner stops.
    async fn serve(mut self) {
        let mut pause = FIRST_PAUSE;
        while !self.stop.is_draining() {
            let started = tokio::select! {
                biased;
                () = self.stop.draining() => return,
                started = self.launch.start() => started,
            };
            match started {
                Ok((mut worker, functions)) => {
                    pause = FIRST_PAUSE;
                    write(&self.state.functions, Some(functions.into()));
                    write(&self.state.problem, None);
                    self.state.live.fetch_add(1, Ordering::Relaxed);
                    self.serve_with(&mut worker).await;
                    self.state.live.fetch_sub(1, Ordering::Relaxed);
                    worker.end().await;
                }
                Err(error) if read(&self.state.functions).is_none() => {
                    let _ = self.failed.send(error).await;
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "A worker could not be replaced.");
                    write(&self.state.problem, Some(error.to_string()));
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Takes calls until the worker has to be replaced.
    async fn serve_with(&mut self, worker: &mut Worker) {
        loop {
            let jobs = Arc::clone(&self.jobs);
            let next = async { jobs.lock().await.recv().await };
            let job = tokio::select! {
                biased;
                () = self.stop.draining() => return,
                exit = worker.process.ended() => {
                    tracing::warn!(?exit, "A worker ended between two runs and is replaced.");
                    return;
                }
                span = worker.logs.next() => {
                    print_span(span, &self.output).await;
                    continue;
                }
                job = next => job,
            };
            let Some(job) = job else { return };
            if job.begun.send(()).is_err() {
                // The caller has gone, or has waited long enough.
                continue;
            }
            let (report, reusable) =
                run::execute(worker, &job.call, &self.settings, &self.output, &mut self.stop).await;
            drop(job.place);
            let _ = job.report.send(report);
            if !reusable || worker.prepare().await.is_err() {
                return;
            }
        }
    }
}
