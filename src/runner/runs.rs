//! The runs that can be asked for: those that wait or run, and for a while what became of those that nobody waited for.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    answer,
    call::{Call, Report},
};

/// How much is kept of runs that have ended.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For so long.
    pub age: Duration,
    /// So many.
    pub number: usize,
    /// Bytes of their answers together.
    pub bytes: usize,
}

/// A run that waits or runs.
#[derive(Clone, Debug)]
pub struct Live {
    /// Name of its function.
    pub function: String,
    /// Whether a worker has it.
    pub begun: bool,
    /// Asks it to end.
    pub cancel: CancellationToken,
    /// Cancelled once it has ended.
    pub over: CancellationToken,
    /// Once it has ended: why it failed, in one word, if it did.
    pub outcome: Arc<OnceLock<Option<String>>>,
    /// Whether its answer is kept.
    keep: bool,
}

/// A run that has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// What a waiting caller would have been told, as JSON.
    pub answer: Bytes,
    /// Why it failed, in one word.
    pub reason: Option<String>,
}

/// What is known of a run.
#[derive(Clone, Debug)]
pub enum Known {
    /// It waits or runs.
    Live(Live),
    /// It has ended and its answer is kept.
    Ended(Ended),
    /// Nothing, any more.
    Unknown,
}

/// All of them.
#[derive(Debug)]
pub struct Runs {
    limits: Limits,
    table: Mutex<Table>,
    /// Somebody sees to it that what is too old goes.
    expiring: AtomicBool,
}

#[derive(Debug, Default)]
struct Table {
    live: HashMap<String, Live>,
    ended: HashMap<String, Ended>,
    /// The ended ones with the time of their end, oldest first.
    order: VecDeque<(Instant, String)>,
    bytes: usize,
}

impl Runs {
    /// None so far.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            table: Mutex::default(),
            expiring: AtomicBool::new(false),
        }
    }

    /// How much is kept.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// A call waits for its worker. `keep` says that its answer is asked for later.
    pub fn add(&self, call: &Call, keep: bool) {
        let live = Live {
            function: call.function.clone(),
            begun: false,
            cancel: call.cancel.clone(),
            over: CancellationToken::new(),
            outcome: Arc::default(),
            keep,
        };
        self.table().live.insert(call.run_id.clone(), live);
    }

    /// A worker has it.
    pub fn begun(&self, run_id: &str) {
        if let Some(live) = self.table().live.get_mut(run_id) {
            live.begun = true;
        }
    }

    /// Its caller gave up before it began: it never becomes a run.
    pub fn forget(&self, run_id: &str) {
        self.table().live.remove(run_id);
    }

    /// It has ended.
    pub fn ended(&self, report: &Report) {
        let mut table = self.table();
        let Some(live) = table.live.remove(&report.run_id) else {
            return;
        };
        let reason = report.result.as_ref().err().map(|error| error.reason.clone());
        let _ = live.outcome.set(reason.clone());
        if live.keep
            && let Ok(answer) = answer::body(report)
        {
            let ended = Ended {
                answer: answer.into(),
                reason,
            };
            table.bytes += ended.answer.len();
            table.order.push_back((Instant::now(), report.run_id.clone()));
            table.ended.insert(report.run_id.clone(), ended);
            table.shrink(self.limits);
        }
        drop(table);
        live.over.cancel();
    }

    /// Forgets what is too old also when nobody asks, so that its memory goes back.
    pub fn expire_later(self: &Arc<Self>) {
        if self.expiring.swap(true, Ordering::Relaxed) {
            return;
        }
        let runs = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                sleep(runs.limits.age).await;
                let mut table = runs.table();
                table.shrink(runs.limits);
                if table.order.is_empty() {
                    runs.expiring.store(false, Ordering::Relaxed);
                    return;
                }
            }
        });
    }

    /// What is known of a run.
    pub fn get(&self, run_id: &str) -> Known {
        let mut table = self.table();
        table.shrink(self.limits);
        if let Some(live) = table.live.get(run_id) {
            return Known::Live(live.clone());
        }
        table
            .ended
            .get(run_id)
            .map_or(Known::Unknown, |ended| Known::Ended(ended.clone()))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn shrink(&mut self, limits: Limits) {
        while let Some((time, _)) = self.order.front() {
            let is_old = time.elapsed() >= limits.age;
            if !is_old && self.order.len() <= limits.number && self.bytes <= limits.bytes {
                return;
            }
            let oldest = self.order.pop_front().map(|(_, run_id)| run_id);
            if let Some(ended) = oldest.and_then(|run_id| self.ended.remove(&run_id)) {
                self.bytes -= ended.answer.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::{
        model::SourceType,
        runner::{call::failure, caller::Caller},
    };

    const LIMITS: Limits = Limits {
        age: Duration::from_mins(1),
        number: 3,
        bytes: 2_000,
    };

    fn call(run_id: &str) -> Call {
        Call {
            run_id: run_id.into(),
            function: "f".into(),
            arguments: RawValue::from_string("{}".into()).unwrap(),
            caller: Caller {
                source: "billing".into(),
                source_type: SourceType::Tool,
                traceparent: String::new(),
                tracestate: None,
            },
            cancel: CancellationToken::new(),
        }
    }

    fn report(run_id: &str, stdout: usize) -> Report {
        Report {
            run_id: run_id.into(),
            result: Err(failure("Exception", "no".into())),
            stdout: "x".repeat(stdout),
            stderr: String::new(),
            duration: Duration::ZERO,
        }
    }

    fn kept(runs: &Runs) -> Vec<&'static str> {
        let is_kept = |id: &&str| matches!(runs.get(id), Known::Ended(_));
        ["a", "b", "c", "d", "e"].into_iter().filter(is_kept).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_is_known_from_its_call_to_the_end_of_its_time() {
        let runs = Runs::new(LIMITS);
        runs.add(&call("a"), true);
        let Known::Live(waiting) = runs.get("a") else {
            panic!()
        };
        assert!(!waiting.begun);
        runs.begun("a");
        let Known::Live(running) = runs.get("a") else {
            panic!()
        };
        assert!(running.begun && !running.over.is_cancelled());
        runs.ended(&report("a", 1));
        assert!(waiting.over.is_cancelled());
        let Known::Ended(ended) = runs.get("a") else {
            panic!()
        };
        assert_eq!(ended.reason.as_deref(), Some("Exception"));
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(kept(&runs), ["a"]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(kept(&runs), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_goes_back_when_nobody_asks() {
        let runs = Arc::new(Runs::new(LIMITS));
        for (id, wait) in [("a", 1), ("b", 125), ("c", 125)] {
            runs.add(&call(id), true);
            runs.ended(&report(id, 1));
            runs.expire_later();
            sleep(Duration::from_secs(wait)).await;
            assert_eq!(runs.table().bytes == 0, wait > 1, "{id}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_bounded_in_number_and_bytes() {
        let runs = Runs::new(LIMITS);
        for id in ["a", "b", "c", "d"] {
            runs.add(&call(id), true);
            runs.ended(&report(id, 1));
        }
        assert_eq!(kept(&runs), ["b", "c", "d"], "three are kept");
        runs.add(&call("e"), true);
        runs.ended(&report("e", 1_700));
        assert_eq!(kept(&runs), ["d", "e"], "2,000 bytes are kept");
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_to_a_waiting_caller_is_not_kept() {
        let runs = Runs::new(LIMITS);
        runs.add(&call("a"), false);
        runs.ended(&report("a", 1));
        runs.add(&call("b"), true);
        runs.forget("b");
        runs.ended(&report("b", 1));
        assert_eq!(kept(&runs), [""; 0]);
    }
}
