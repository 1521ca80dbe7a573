//! The agent at work: looks at files when there is reason to, and keeps requests to the operator under way.

use std::{
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{
    AgentError, Args,
    batches::LANES,
    node::{Node, Pace, Work},
    ship::{Operator, ShipError},
};
use crate::ingest::wire::{ChunkHeader, ChunkResult, StreamKey, StreamState};

/// How long the agent goes on shipping after it was told to stop.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// So much to read is worth a batch of its own while another one is under way. Less waits for it: fewer, larger commits.
const HURRY_BYTES: u64 = 512 << 10;
pub(super) const BACKOFF_MIN: Duration = Duration::from_millis(100);
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(5);
const SUMMARY_INTERVAL: Duration = Duration::from_mins(1);
/// The kernel is asked what has changed no more often than this: a busy writer changes something all the time.
const TOLD_INTERVAL: Duration = Duration::from_millis(10);

/// A request that is done with.
enum Returned {
    Batch(Vec<ChunkHeader>, Result<Vec<ChunkResult>, ShipError>),
    /// With the number of streams given up that were told of.
    Questions(Vec<StreamKey>, usize, Result<Vec<StreamState>, ShipError>),
}

struct Rounds {
    operator: Arc<Operator>,
    poll: Duration,
    requests: JoinSet<Returned>,
    batches: usize,
    asking: bool,
    failures: u32,
    /// Nothing is sent before.
    not_before: Instant,
    shipped_bytes: u64,
    summary_at: Instant,
}

/// Ships logs until `stop`; then what can be shipped within three seconds.
pub(super) async fn run(args: Args, pace: Pace, stop: CancellationToken) -> Result<(), AgentError> {
    let now = Instant::now();
    let mut rounds = Rounds {
        operator: Arc::new(Operator::new(&args.operator, args.node, args.token_file)?),
        poll: pace.poll,
        requests: JoinSet::new(),
        batches: 0,
        asking: false,
        failures: 0,
        not_before: now,
        shipped_bytes: 0,
        summary_at: now + SUMMARY_INTERVAL,
    };
    let mut node = Node::new(args.logs_dir, pace, now);
    let mut changes = watched(&mut node);
    let mut told_at = now;
    let mut stop_by = None;
    loop {
        let now = Instant::now();
        if stop.is_cancelled() {
            stop_by.get_or_insert(now + STOP_GRACE);
        }
        if stop_by.is_some_and(|by| now >= by) {
            return Ok(());
        }
        if rounds.due(&node, now) <= now || stop_by.is_some() {
            let (batch, ask) = (rounds.can_ship(&node, now), rounds.can_ask(now));
            let (returned, work) = tokio::task::spawn_blocking(move || {
                node.look(now);
                let work = Work {
                    questions: if ask { node.questions(now) } else { Vec::new() },
                    given_up: if ask { node.given_up() } else { Vec::new() },
                    batch: batch.then(|| node.batch(now)).flatten(),
                };
                (node, work)
            })
            .await?;
            node = returned;
            rounds.send(work);
            rounds.summary(&node, now);
            if stop_by.is_some() && rounds.requests.is_empty() && now >= rounds.not_before {
                return Ok(());
            }
        }
        let wake = stop_by.map_or_else(|| rounds.due(&node, now), |by| by.min(now + rounds.poll));
        tokio::select! {
            Some(returned) = rounds.requests.join_next(), if !rounds.requests.is_empty() => {
                rounds.returned(&mut node, returned, Instant::now())?;
            }
            () = changed(changes.as_ref(), told_at + TOLD_INTERVAL) => {
                told_at = Instant::now();
                node.told(told_at);
                if !node.is_watching() {
                    changes = None;
                }
            }
            () = tokio::time::sleep_until(wake.into()) => {}
            () = stop.cancelled(), if stop_by.is_none() => {}
        }
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe where the descriptor may be closed too early; this one is owned"
)]
/// The descriptor by which the kernel tells of changes; none if it does not.
fn watched(node: &mut Node) -> Option<AsyncFd<OwnedFd>> {
    let watched = node.watch();
    let watched = watched.and_then(|fd| AsyncFd::with_interest(fd, Interest::READABLE));
    if let Err(error) = &watched {
        tracing::warn!(
            %error,
            "The kernel can not be asked to tell of changes of log files (is fs.inotify.max_user_instances large \
             enough?); looking for them all the time instead."
        );
    }
    watched.ok()
}

/// Waits until there are changes, but not before `earliest`.
async fn changed(changes: Option<&AsyncFd<OwnedFd>>, earliest: Instant) {
    tokio::time::sleep_until(earliest.into()).await;
    match changes.map(AsyncFd::readable) {
        // What comes from here on makes it ready again.
        Some(ready) => match ready.await {
            Ok(mut ready) => ready.clear_ready(),
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

impl Rounds {
    /// When there is something to do without being told.
    fn due(&self, node: &Node, now: Instant) -> Instant {
        if now < self.not_before {
            return self.not_before.min(node.look_at());
        }
        if self.can_ship(node, now) {
            node.tell_at(now, self.can_ask(now))
        } else {
            node.look_at()
        }
    }

    fn can_ship(&self, node: &Node, now: Instant) -> bool {
        let has_lane = self.batches == 0 || (self.batches < LANES && node.backlog() >= HURRY_BYTES);
        now >= self.not_before && has_lane
    }

    fn can_ask(&self, now: Instant) -> bool {
        now >= self.not_before && !self.asking
    }

    fn send(&mut self, work: Work) {
        if let Some(batch) = work.batch {
            let operator = Arc::clone(&self.operator);
            self.batches += 1;
            self.requests.spawn(async move {
                let headers = batch.headers.clone();
                Returned::Batch(headers, operator.deliver(batch).await)
            });
        }
        if !(work.questions.is_empty() && work.given_up.is_empty()) {
            let operator = Arc::clone(&self.operator);
            self.asking = true;
            self.requests.spawn(async move {
                let answers = operator.ask(&work.questions, &work.given_up).await;
                Returned::Questions(work.questions, work.given_up.len(), answers)
            });
        }
    }

    fn returned(
        &mut self,
        node: &mut Node,
        returned: Result<Returned, JoinError>,
        now: Instant,
    ) -> Result<(), AgentError> {
        match returned? {
            Returned::Batch(headers, Ok(results)) => {
                self.batches -= 1;
                let stored = node.delivered(&headers, &results, now);
                self.shipped_bytes += stored;
                if stored == 0 {
                    self.not_before = now + self.poll;
                }
                self.works();
            }
            Returned::Batch(headers, Err(error)) => {
                self.batches -= 1;
                node.returned(&headers);
                self.fails(&error, now);
            }
            Returned::Questions(questions, given_up, Ok(answers)) => {
                self.asking = false;
                node.told_given_up(given_up);
                node.answered(&questions, answers, now);
                self.works();
            }
            Returned::Questions(_, _, Err(error)) => {
                self.asking = false;
                self.fails(&error, now);
            }
        }
        Ok(())
    }

    fn works(&mut self) {
        if self.failures > 0 {
            tracing::info!(failures = self.failures, "The operator takes logs again.");
            self.failures = 0;
        }
    }

    fn fails(&mut self, error: &ShipError, now: Instant) {
        if self.failures == 0 {
            tracing::warn!(%error, "The operator does not take logs; trying again until it does.");
        } else {
            tracing::debug!(%error, "The operator still does not take logs.");
        }
        // Requests that were under way together fail together.
        if now >= self.not_before {
            self.failures = self.failures.saturating_add(1);
            self.not_before = now + backoff(self.failures, fastrand::f64());
        }
    }

    fn summary(&mut self, node: &Node, now: Instant) {
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

/// Doubles with each failure, to five seconds at most; half of it is left to chance (`random` in 0..1), so that the
/// agents of a cluster do not come back all at once.
pub(super) fn backoff(failures: u32, random: f64) -> Duration {
    let doubled = BACKOFF_MIN * 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
    doubled.min(BACKOFF_MAX).mul_f64(0.5 + random / 2.0)
}
