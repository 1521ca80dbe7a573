//! How long a query may take, and how the threads that work on it learn that they shall stop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task_local;

task_local! {
    static LIMIT: Limit;
}

#[derive(Clone, Copy, Debug)]
struct Limit {
    allowed: Duration,
    end: Instant,
}

/// A query took longer than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the query was stopped after {} s, the time that one may take: narrow the range or add a filter",
    .0.as_secs_f32()
)]
pub struct TimeLimit(pub Duration);

/// Does `work`; whatever it asks of a store must be answered in the `allowed` time from now on.
pub async fn within<F: Future>(allowed: Duration, work: F) -> F::Output {
    let end = Instant::now() + allowed;
    LIMIT.scope(Limit { allowed, end }, work).await
}

/// What a thread that works on a query asks now and then.
#[derive(Clone, Debug)]
pub struct Stop {
    abandoned: Arc<AtomicBool>,
    limit: Option<Limit>,
}

/// Who waits for the answer. Dropped, as with the future of a request that was cancelled, it stops the work.
#[derive(Debug)]
pub struct Waiting(Stop);

impl Waiting {
    /// Begins to wait, no longer than [`within`] allows.
    pub fn begin() -> Self {
        Self(Stop {
            abandoned: Arc::default(),
            limit: LIMIT.try_with(|limit| *limit).ok(),
        })
    }

    /// For those who work.
    pub fn stop(&self) -> Stop {
        self.0.clone()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.abandoned.store(true, Ordering::Relaxed);
    }
}

impl Stop {
    /// Whether to stop.
    pub fn is_over(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed) || self.limit.is_some_and(|limit| Instant::now() >= limit.end)
    }

    /// The time that is left; none where there is no limit.
    pub fn left(&self) -> Option<Duration> {
        self.limit
            .map(|limit| limit.end.saturating_duration_since(Instant::now()))
    }

    /// Fails once it is time to stop.
    pub fn check(&self) -> Result<(), TimeLimit> {
        if self.is_over() {
            return Err(self.error());
        }
        Ok(())
    }

    /// Why the work was stopped.
    pub fn error(&self) -> TimeLimit {
        TimeLimit(self.limit.map_or(Duration::ZERO, |limit| limit.allowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_stops_when_its_time_is_over_or_nobody_waits() {
        let unlimited = Waiting::begin();
        let stop = unlimited.stop();
        assert_eq!(stop.check(), Ok(()));
        drop(unlimited);
        assert!(stop.is_over());
        let late = within(Duration::ZERO, async { Waiting::begin().stop().check() }).await;
        assert_eq!(late, Err(TimeLimit(Duration::ZERO)));
        within(Duration::from_mins(1), async {
            let waiting = Waiting::begin();
            assert_eq!(waiting.stop().check(), Ok(()));
        })
        .await;
        let text = TimeLimit(Duration::from_secs(10)).to_string();
        assert!(
            text.contains("after 10 s") && text.contains("narrow the range"),
            "{text}"
        );
    }
}
