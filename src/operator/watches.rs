//! How watches of the API server behave while it is away.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use kube::runtime::utils::Backoff;

/// The first and the longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(400), Duration::from_secs(5));
/// A watch that has worked so long begins with the first pause again.
const FORGOTTEN: Duration = Duration::from_mins(1);
/// Failures that are less than this apart belong to one outage.
const OUTAGE: Duration = Duration::from_mins(2);

/// When a watch failed last, whichever it was.
static LAST_FAILURE: Mutex<Option<Instant>> = Mutex::new(None);

/// Doubling pauses, shorter than kube's own: what the operator does not see meanwhile, it can not count. A part of each is
/// left to chance, so that the watches of a process do not come back all at once.
#[derive(Debug, Default)]
pub struct WatchBackoff {
    pause: Option<Duration>,
    failed: Option<Instant>,
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.failed.is_some_and(|at| now.duration_since(at) > FORGOTTEN) {
            self.pause = None;
        }
        let pause = self.pause.map_or(PAUSES.0, |pause| (pause * 2).min(PAUSES.1));
        self.pause = Some(pause);
        self.failed = Some(now + pause);
        Some(pause.mul_f64(0.75 + fastrand::f64() / 4.0))
    }
}

impl Backoff for WatchBackoff {
    /// A watch says that it begins before it has reached anybody, so one good word says nothing.
    fn reset(&mut self) {}
}

/// Logs that a watch failed and will be restarted: one warning an outage, whatever the number of watches.
pub fn failed(watch: &str, error: &dyn std::fmt::Display) {
    let now = Instant::now();
    let mut last = LAST_FAILURE.lock().unwrap_or_else(PoisonError::into_inner);
    let goes_on = last.is_some_and(|at| now.duration_since(at) < OUTAGE);
    *last = Some(now);
    drop(last);
    if goes_on {
        tracing::debug!(watch, %error, "A watch failed; it is being restarted.");
    } else {
        tracing::warn!(
            watch,
            %error,
            "The API server can not be watched; trying again every few seconds until it can."
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_seconds_and_a_good_word_between_them_changes_nothing() {
        let mut backoff = WatchBackoff::default();
        let mut last = Duration::ZERO;
        for wanted in [400, 800, 1_600, 3_200, 5_000, 5_000] {
            let pause = backoff.next().unwrap();
            let wanted = Duration::from_millis(wanted);
            assert!(
                pause <= wanted && pause >= wanted.mul_f64(0.75),
                "{pause:?} of {wanted:?}"
            );
            backoff.reset();
            last = pause;
        }
        assert!(last > Duration::from_secs(3));
        // It has worked for a while since.
        backoff.failed = Instant::now().checked_sub(FORGOTTEN * 2);
        assert!(backoff.next().unwrap() <= PAUSES.0);
    }
}
