//! The node agent: finds the log files of script pods, reads them and ships byte ranges to the operator.
//!
//! It keeps no state of its own. The operator says where each stream goes on ([`wire`](crate::ingest::wire)); files are
//! recognised by their first line, and held open so that a deleted pod's log is read to its end.

mod follow;
mod held;
mod layout;
mod log_file;
mod node;
mod ship;
mod stream;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::PathBuf,
    pin::pin,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use self::{
    follow::Settle,
    node::{LISTING_INTERVAL, Node, Work},
    ship::{Operator, ShipError},
};

/// How long the agent goes on shipping after it was told to stop.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// After a batch of this size there is more to ship, so the next one follows at once.
const HURRY_BYTES: usize = 512 << 10;
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
const SUMMARY_INTERVAL: Duration = Duration::from_mins(1);
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
    /// How often files are looked at, in milliseconds.
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
    let operator = Operator::new(&args.operator, args.node, args.token_file)?;
    let mut agent = Agent {
        operator,
        poll: Duration::from_millis(args.poll_millis),
        failures: 0,
        shipped_bytes: 0,
        summary_at: Instant::now() + SUMMARY_INTERVAL,
    };
    let mut node = Node::new(args.logs_dir, SETTLE, Instant::now());
    let mut stop_by = None;
    loop {
        if stop.is_cancelled() {
            stop_by.get_or_insert_with(|| Instant::now() + STOP_GRACE);
        }
        if stop_by.is_some_and(|by| Instant::now() >= by) {
            return Ok(());
        }
        let (returned, work) = tokio::task::spawn_blocking(move || {
            let work = node.poll(Instant::now());
            (node, work)
        })
        .await?;
        node = returned;
        let is_idle = work.is_empty();
        if is_idle && stop_by.is_some() {
            return Ok(());
        }
        let deadline = async {
            let by = if let Some(by) = stop_by {
                by
            } else {
                stop.cancelled().await;
                Instant::now() + STOP_GRACE
            };
            tokio::time::sleep_until(by.into()).await;
        };
        let round = async {
            let pause = agent.round(&mut node, work).await;
            if let Some(pause) = pause {
                tokio::select! {
                    () = watching(&mut node, tokio::time::sleep(pause)) => {}
                    () = stop.cancelled(), if stop_by.is_none() => {}
                }
            }
        };
        tokio::select! {
            () = round => {}
            () = deadline => return Ok(()),
        }
    }
}

struct Agent {
    operator: Operator,
    poll: Duration,
    failures: u32,
    shipped_bytes: u64,
    summary_at: Instant,
}

impl Agent {
    /// Tells the operator what there is to tell; says how long to wait before the next round.
    async fn round(&mut self, node: &mut Node, work: Work) -> Option<Duration> {
        self.summary(node);
        // Otherwise what is printed meanwhile makes the next batch: fewer and larger commits.
        let shipped: usize = work.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
        match self.tell(node, work).await {
            Ok(progress) => {
                if self.failures > 0 {
                    tracing::info!(failures = self.failures, "The operator takes logs again.");
                    self.failures = 0;
                }
                (!progress || shipped < HURRY_BYTES).then_some(self.poll)
            }
            Err(error) => {
                node.rewind();
                if self.failures == 0 {
                    tracing::warn!(%error, "The operator does not take logs; trying again until it does.");
                } else {
                    tracing::debug!(%error, "The operator still does not take logs.");
                }
                self.failures = self.failures.saturating_add(1);
                Some(backoff(self.failures, fastrand::f64()))
            }
        }
    }

    /// Says whether anything was stored.
    async fn tell(&mut self, node: &mut Node, work: Work) -> Result<bool, ShipError> {
        let mut progress = false;
        if !work.chunks.is_empty() {
            let results = watching(node, self.operator.deliver(&work.chunks)).await?;
            let headers: Vec<_> = work.chunks.into_iter().map(|chunk| chunk.header).collect();
            let stored = node.delivered(&headers, &results, Instant::now());
            self.shipped_bytes += stored;
            progress = stored > 0;
        }
        if !(work.questions.is_empty() && work.given_up.is_empty()) {
            let asking = self.operator.ask(&work.questions, &work.given_up);
            let answers = watching(node, asking).await?;
            node.answered(&work.questions, answers, Instant::now());
            node.told(work.given_up.len());
        }
        Ok(progress)
    }

    fn summary(&mut self, node: &Node) {
        let now = Instant::now();
        if now >= self.summary_at {
            tracing::debug!(
                streams = node.len(),
                bytes = self.shipped_bytes,
                "Logs shipped so far."
            );
            self.summary_at = now + SUMMARY_INTERVAL;
        }
    }
}

/// Waits for `other` and meanwhile opens files as they appear: while an operator is slow or away, pods come and go, and
/// a file that was never opened is lost with its pod.
async fn watching<T>(node: &mut Node, other: impl Future<Output = T>) -> T {
    let mut other = pin!(other);
    loop {
        tokio::select! {
            biased;
            done = &mut other => return done,
            () = tokio::time::sleep(LISTING_INTERVAL) => node.look(Instant::now()),
        }
    }
}

/// Doubles with each failure, to five seconds at most; half of it is left to chance (`random` in 0..1), so that the
/// agents of a cluster do not come back all at once.
fn backoff(failures: u32, random: f64) -> Duration {
    let doubled = BACKOFF_MIN * 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
    doubled.min(BACKOFF_MAX).mul_f64(0.5 + random / 2.0)
}
