//! The node agent: finds the log files of script pods, reads them and ships byte ranges to the operator.
//!
//! It keeps no state of its own. The operator says where each stream goes on ([`wire`](crate::ingest::wire)); files are
//! recognised by their first line, and held open so that a deleted pod's log is read to its end.

mod batches;
mod buffers;
mod follow;
mod held;
mod layout;
mod log_file;
mod node;
mod rounds;
mod ship;
mod stream;
#[cfg(test)]
mod tests;
mod watch;

use std::{io, path::PathBuf, time::Duration};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;

use self::{follow::Settle, node::Pace};

/// How long lines of a batch wait for more lines, so that there are fewer and larger commits.
const GATHER: Duration = Duration::from_millis(30);
/// The runtime writes to a rotated file for some milliseconds; this is long enough for a busy node, and short enough
/// for lines to be visible within a second.
const SETTLE: Settle = Settle {
    rotated: Duration::from_millis(500),
    over: Duration::from_secs(2),
};

/// Options of `scriptscope agent`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Base URL of the operator's ingest service, such as `http://scriptscope.scriptscope:8081`.
    #[arg(long, env = "SCRIPTSCOPE_OPERATOR", value_name = "URL")]
    pub operator: String,
    /// File with the bearer token to present; read again for each request.
    #[arg(
        long,
        env = "SCRIPTSCOPE_TOKEN_FILE",
        value_name = "FILE",
        default_value = "/var/run/secrets/scriptscope/token"
    )]
    pub token_file: PathBuf,
    /// Name of the node that the agent runs on.
    #[arg(long, env = "SCRIPTSCOPE_NODE", value_name = "NAME")]
    pub node: String,
    /// Kubelet's folder of pod logs.
    #[arg(
        long,
        env = "SCRIPTSCOPE_LOGS_DIR",
        value_name = "DIR",
        default_value = "/var/log/pods"
    )]
    pub logs_dir: PathBuf,
    /// How often files are looked at, in milliseconds, where the kernel does not tell of changes or time decides; also the
    /// least time between two batches where lines come all the time.
    #[arg(long, env = "SCRIPTSCOPE_POLL_MILLIS", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(5..=10_000))]
    pub poll_millis: u64,
}

/// Why the agent stopped.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The asynchronous runtime or a signal handler could not be set up.
    #[error("the agent could not be set up: {0}")]
    Setup(#[from] io::Error),
    /// The HTTP client could not be set up.
    #[error("the HTTP client could not be set up: {0}")]
    Client(#[from] reqwest::Error),
    /// The part that reads files failed; a defect.
    #[error("reading files failed: {0}")]
    Reader(#[from] tokio::task::JoinError),
}

/// Runs the agent until it is told to stop (SIGTERM or SIGINT).
pub fn run(args: Args) -> Result<(), AgentError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};

        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = CancellationToken::new();
        let on_signal = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            on_signal.cancel();
        });
        follow(args, stop).await
    })
}

/// Ships logs until `stop`; then what can be shipped within three seconds.
pub async fn follow(args: Args, stop: CancellationToken) -> Result<(), AgentError> {
    tracing::info!(
        node = args.node,
        operator = args.operator,
        logs_dir = %args.logs_dir.display(),
        "Following the logs of this node."
    );
    allow_open_files();
    let pace = Pace {
        settle: SETTLE,
        poll: Duration::from_millis(args.poll_millis),
        gather: GATHER.min(Duration::from_millis(args.poll_millis)),
        steady: Duration::from_millis(args.poll_millis),
    };
    rounds::run(args, pace, stop).await
}

/// Every file of a stream is held open, and the limit that programs start with is meant for those that use `select`.
fn allow_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!(%error, "The limit of open files stays as it is.");
    }
}
