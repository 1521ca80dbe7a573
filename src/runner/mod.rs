//! The runner: the first process of a script's pod. Serves the script's functions over HTTP, runs them in worker
//! processes and prints one record a line.
//!
//! [`server`] takes calls, [`pool`] keeps the workers, [`run`] follows one run, [`output`] is the only writer. What a
//! worker speaks with the runner is said in `worker/python/worker.py` and `worker/node/worker.js`.

mod answer;
mod call;
mod caller;
mod capture;
mod channel;
mod config;
mod function;
mod guard;
mod hash_keys;
mod install;
mod json_text;
mod keys;
mod logs;
mod mode;
mod output;
mod peers;
mod plain;
mod pool;
mod process;
mod query;
mod queue;
mod records;
mod refusal;
mod run;
mod run_id;
mod run_routes;
mod runs;
mod server;
mod span;
mod stop;
mod worker;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use jiff::Timestamp;
use nix::sys::prctl;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

pub use config::{Args, Logging, Runtime, STOP_SECONDS};
pub(crate) use function::{Function, Parameter};
pub use hash_keys::{HashKeysArgs, HashKeysError, hash_keys};
pub(crate) use install::install_workers;
pub use install::{InstallArgs, InstallError, install};
pub(crate) use process::kill_marked;

use self::{
    keys::Keys,
    output::Output,
    peers::Peers,
    pool::Pool,
    process::Processes,
    records::{Lifecycle, rfc3339},
    runs::Runs,
    server::Server,
    stop::{LastWord, Phase, Stopper},
    worker::Launch,
};
use crate::{connections, termination};

pub use crate::termination::EXIT_UNUSABLE;

/// Path on which the runner is told, by a POST of its last record's token, that this record is stored.
pub const STORED_PATH: &str = "/internal/stored";
/// Path on which another runner of the script asks whether a call would find a place here.
const FREE_PATH: &str = "/internal/free";
/// How long a client may keep a connection for its next call.
const IDLE: Duration = Duration::from_secs(75);
/// For the answer to that to be sent before the process ends.
const ANSWER: Duration = Duration::from_millis(10);
/// How long a Service may go on sending calls to a pod that is asked to stop: they are taken as before, so that no call
/// fails when a version is replaced.
const FORGOTTEN: Duration = Duration::from_secs(2);
/// How long killed runs may take to be recorded.
const KILLED_RUNS: Duration = Duration::from_secs(5);

/// Why the runner stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// Something the runner needs of the system is missing.
    #[error("the runner could not be started: {0}")]
    Start(io::Error),
    /// The address can not be served.
    #[error("{address} can not be listened on: {source}; choose another one in SCRIPTSCOPE_LISTEN")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The worker's files are not there.
    #[error("{0} is missing; run `scriptscope install --to DIR` and set SCRIPTSCOPE_HOME to DIR")]
    Home(String),
    /// Records can not be printed.
    #[error("standard output can not be written any more: {0}")]
    Output(io::Error),
}

/// Runs the runner until it is told to stop. Ends the process with [`EXIT_UNUSABLE`] when the script can not be used.
pub fn run(args: Args) -> Result<(), RunnerError> {
    // Takes this process's descriptors, memory and environment away from the script, which has the same user: what it
    // could write into our standard output would be a record. A script that runs as root is not kept from it.
    prctl::set_dumpable(false).map_err(|errno| RunnerError::Start(errno.into()))?;
    // One thread: everything here waits for others, and the script needs the processor more.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunnerError::Start)?;
    match runtime.block_on(serve(&args))? {
        None => Ok(()),
        Some(reason) => {
            termination::tell(args.termination_log, &reason);
            std::process::exit(EXIT_UNUSABLE)
        }
    }
}

/// Serves until told to stop; a reason if the script can not be used.
async fn serve(args: &Args) -> Result<Option<String>, RunnerError> {
    let mut signals = Signals::new().map_err(RunnerError::Start)?;
    let (output, mut broken) = Output::start().map_err(RunnerError::Start)?;
    // First of all: it tells readers that korelogger's echoes are taken out of what follows.
    output.stdout(lifecycle("runner.started", None)).await;
    let launch = Launch {
        app: std::path::absolute(&args.app).map_err(RunnerError::Start)?,
        home: args.worker_home()?,
        runtime: args.runtime,
        interpreter: args.interpreter().to_owned(),
        deployment_id: args.deployment_id.clone(),
        output: output.clone(),
        processes: Processes::start().map_err(RunnerError::Start)?,
    };
    let listen = |source| RunnerError::Listen {
        address: args.listen,
        source,
    };
    let listener = TcpListener::bind(args.listen).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    tracing::debug!(%address, "Listening.");
    let (stopper, stop) = Stopper::new();
    let runs = Arc::new(Runs::new(args.kept()));
    let (pool, mut slots) = Pool::start(
        args.concurrency(),
        &launch,
        args.settings(),
        Arc::clone(&runs),
        &stop,
    );
    let last_word = LastWord::new();
    let server = Arc::new(Server {
        pool,
        runs,
        keys: args.api_keys.clone().map(Keys::new),
        peers: Peers::new(args.pod_ip, args.peers.clone(), address.port()),
        stop,
        last_word: last_word.clone(),
        queue_timeout: args.queue_timeout(),
    });
    // Until the process ends: whoever calls while the runner stops is told so.
    let never = CancellationToken::new();
    tokio::spawn(connections::serve_patiently(
        listener,
        server::router(server),
        IDLE,
        never,
    ));

    let mut forgotten = FORGOTTEN;
    tokio::select! {
        () = signals.next() => {}
        () = left_alone(args.attended) => forgotten = Duration::ZERO,
        Some(error) = slots.failed.recv() => {
            slots.tasks.shutdown().await;
            output.flush().await;
            return Ok(Some(error.to_string()));
        }
        Ok(error) = &mut broken => return Err(RunnerError::Output(error)),
    }
    let (leave_after, leave_by) = (Instant::now() + forgotten, Instant::now() + args.linger());
    stopper.enter(Phase::Leaving);
    tokio::select! {
        () = sleep_until(leave_after) => {}
        () = signals.next() => {}
    }
    stopper.enter(Phase::Draining);
    drain(&mut slots.tasks, args.grace(), &mut signals, &stopper).await;
    output
        .stdout(lifecycle("runner.stopped", Some(last_word.token())))
        .await;
    output.flush().await;
    // The container's log goes with its pod, so it must have been read by then.
    tokio::select! {
        () = told(&last_word) => {}
        () = sleep_until(leave_by) => {}
        () = signals.next() => {}
        // Nobody is left who could read it.
        Ok(_) = &mut broken => {}
    }
    Ok(None)
}

/// Ready when standard input has ended, for a runner that is `attended`.
async fn left_alone(attended: bool) {
    let left = CancellationToken::new();
    let guard = left.clone().drop_guard();
    if attended {
        // A thread, since standard input may be anything; it ends with the process.
        std::thread::spawn(move || {
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            drop(guard);
        });
        left.cancelled().await;
        return;
    }
    std::future::pending::<()>().await;
}

/// Waits until the operator has said that the last record is stored.
async fn told(last_word: &LastWord) {
    last_word.stored().await;
    sleep(ANSWER).await;
}

/// A record of the runner's own life.
fn lifecycle(kind: &'static str, token: Option<&str>) -> Vec<u8> {
    records::line(&Lifecycle {
        scriptscope: kind,
        time: rfc3339(Timestamp::now()),
        token,
    })
}

/// Lets runs end, kills those that do not within `grace` or when a second signal comes.
async fn drain(slots: &mut JoinSet<()>, grace: Duration, signals: &mut Signals, stopper: &Stopper) {
    tokio::select! {
        () = ended(slots) => return,
        () = sleep(grace) => {}
        () = signals.next() => {}
    }
    stopper.enter(Phase::Killing);
    if timeout(KILLED_RUNS, ended(slots)).await.is_err() {
        slots.shutdown().await;
    }
}

async fn ended(slots: &mut JoinSet<()>) {
    while slots.join_next().await.is_some() {}
}

/// SIGTERM and SIGINT. The first process of a pod is not ended by them unless it handles them.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
