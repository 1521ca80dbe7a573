//! How long a batch waits for its commit while a million runs and a million lines are deleted beside it, with the pauses
//! that the operator makes.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use scriptscope::{
    ingest::{
        record::{NewLine, Record, RunFinished, RunStarted},
        wire::{Position, StreamKey},
    },
    model::{LogLevel, RunStatus, ScriptKey, SourceType},
    store::{self, Append, AppendOutcome, Budget, Cutoffs, PodRecord, Retained, Store},
};

use crate::{
    report::{Baseline, Report, Scale},
    usage,
};

/// Lines and runs of an append while data is deleted: 1,000 lines and 200 runs every 20 ms.
const LINES: usize = 1_000;
const RUNS: usize = 200;
const EVERY: Duration = Duration::from_millis(20);
/// Lines and runs of an append beforehand.
const BULK: usize = 20_000;
const BUDGET: Budget = Budget {
    rows: 1_000,
    bytes: 8 << 20,
};

/// The longest 1 % of the waits for a commit, in milliseconds.
pub fn ingest_p99(scale: Scale) {
    let count = scale.of(1_000_000, 100_000);
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("store.db");
    let cpu = usage::cpu_seconds(std::process::id());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = store::open(&format!("sqlite://{}", path.display())).await.unwrap();
        let old = fill(&store, count).await;
        let before = file_bytes(&path);
        let deleting = Arc::new(AtomicBool::new(true));
        let seconds = scale.of(20, 3) as u64;
        let alone = ingest(&store, "alone", || false, Duration::from_secs(seconds)).await;
        let deletion = tokio::spawn(delete(Arc::clone(&store), old, Arc::clone(&deleting)));
        let went_on = || deleting.load(Ordering::Relaxed);
        let beside = ingest(&store, "beside", went_on, Duration::ZERO).await;
        let (deleted, took) = deletion.await.unwrap();
        assert!(deleted.runs as usize == count && deleted.lines as usize == count, "{deleted:?}");
        store.close().await;
        eprintln!(
            "  deleted {} runs and {} lines in {:.1} s; p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms of {} appends; file {} MiB before, {} MiB after",
            deleted.runs,
            deleted.lines,
            took.as_secs_f64(),
            percentile(&beside, 50),
            percentile(&beside, 99),
            percentile(&beside, 100),
            beside.len(),
            before >> 20,
            file_bytes(&path) >> 20,
        );
        let process = std::process::id();
        Report {
            name: "retention_ingest_p99",
            value: percentile(&beside, 99),
            unit: "ms",
            baseline: Baseline {
                name: "the same ingest without retention",
                value: percentile(&alone, 99),
            },
            ratio: 0.0,
            cpu_seconds: usage::cpu_seconds(process) - cpu,
            max_rss_bytes: usage::max_rss_bytes(process),
            n: count,
        }
        .print();
    });
}

fn file_bytes(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

fn percentile(waits: &[Duration], percent: usize) -> f64 {
    let mut waits = waits.to_vec();
    waits.sort_unstable();
    let at = (waits.len() * percent).div_ceil(100).max(1) - 1;
    waits[at].as_secs_f64() * 1e3
}

/// A stream that is being written.
struct Stream {
    id: i64,
    offset: u64,
    name: String,
    random: fastrand::Rng,
}

impl Stream {
    async fn open(store: &Arc<dyn Store>, name: &str) -> Self {
        let pod = PodRecord {
            uid: name.to_owned(),
            name: name.to_owned(),
            container: "script".to_owned(),
            script: script(),
            version: 1,
            deployment_id: "deploy_1".to_owned(),
        };
        store.register_pod(&pod).await.unwrap();
        let key = StreamKey {
            namespace: pod.script.namespace.clone(),
            pod: pod.name.clone(),
            pod_uid: pod.uid.clone(),
            container: pod.container.clone(),
            restart: 0,
        };
        let opened = store.open_streams(&[key]).await.unwrap();
        Self {
            id: opened[0].as_ref().unwrap().id,
            offset: 0,
            name: name.to_owned(),
            random: fastrand::Rng::with_seed(4),
        }
    }

    /// Lines and runs, a microsecond apart.
    fn append(&mut self, lines: usize, runs: usize, began: Timestamp) -> Append {
        let time = |n: usize| began + SignedDuration::from_micros(n as i64);
        let mut records = Vec::with_capacity(lines + 2 * runs);
        for n in 0..lines {
            records.push(Record::Line(NewLine {
                offset: self.offset + n as u64,
                index: 0,
                time: time(n),
                level: LogLevel::Stdout,
                run_id: None,
                message: format!(
                    "request {:016x} was answered with status 200 after {n} ms",
                    self.random.u64(..)
                ),
                attributes: None,
            }));
        }
        for n in 0..runs {
            let run_id = format!("run_{}_{:016x}", self.name, self.random.u64(..));
            let json = |text: String| serde_json::value::to_raw_value(&text).ok();
            records.push(Record::RunStarted(RunStarted {
                run_id: run_id.clone(),
                time: time(n),
                function: "check".to_owned(),
                source_type: SourceType::Api,
                source: "billing".to_owned(),
                traceparent: None,
                input: json(format!("{:016x}", self.random.u64(..))),
                input_truncated: false,
            }));
            records.push(Record::RunFinished(RunFinished {
                run_id,
                time: time(n + 5_000),
                status: RunStatus::Success,
                duration_micros: 5_000,
                output: json(format!("{:016x}", self.random.u64(..))),
                output_truncated: false,
                error: None,
            }));
        }
        let expected_offset = self.offset;
        self.offset += (lines + runs) as u64 + 1;
        Append {
            stream: self.id,
            expected_offset,
            position: Position {
                offset: self.offset,
                file: "f".to_owned(),
                file_start: 0,
            },
            carry: Vec::new(),
            records: records.into(),
            gap: None,
            last_word: None,
        }
    }
}

fn script() -> ScriptKey {
    ScriptKey::new("bench", "measured")
}

async fn store_one(store: &Arc<dyn Store>, append: Append) {
    let outcomes = store.append(vec![append]).await.unwrap();
    assert!(matches!(outcomes[0], AppendOutcome::Committed(_)));
}

/// Old runs and lines; the moment before which they lie.
async fn fill(store: &Arc<dyn Store>, count: usize) -> Timestamp {
    let mut stream = Stream::open(store, "old").await;
    let limit = Timestamp::now() - SignedDuration::from_hours(24);
    let began = limit - SignedDuration::from_hours(24);
    for n in 0..count / BULK {
        let append = stream.append(BULK, BULK, began + SignedDuration::from_secs(n as i64));
        store_one(store, append).await;
    }
    limit
}

/// Appends at a steady pace, for so long and while asked to; how long each took.
async fn ingest(
    store: &Arc<dyn Store>,
    name: &str,
    go_on: impl Fn() -> bool,
    least: Duration,
) -> Vec<Duration> {
    let mut stream = Stream::open(store, name).await;
    let mut tick = tokio::time::interval(EVERY);
    let (began, mut waits) = (Instant::now(), Vec::new());
    while go_on() || began.elapsed() < least {
        tick.tick().await;
        let append = stream.append(LINES, RUNS, Timestamp::now());
        let asked = Instant::now();
        store_one(store, append).await;
        waits.push(asked.elapsed());
    }
    waits
}

/// Deletes all that is old, at the operator's pace, and gives the space back.
async fn delete(store: Arc<dyn Store>, before: Timestamp, running: Arc<AtomicBool>) -> (Retained, Duration) {
    let cutoffs = Cutoffs::all_before(before, Timestamp::now());
    let (began, mut all) = (Instant::now(), Retained::default());
    loop {
        let step = Instant::now();
        all.add(&store.retain(&script(), &cutoffs, BUDGET).await.unwrap());
        if !all.more {
            break;
        }
        tokio::time::sleep(step.elapsed().max(Duration::from_millis(10))).await;
    }
    loop {
        let step = Instant::now();
        if !store.give_back_space().await.unwrap() {
            break;
        }
        tokio::time::sleep(step.elapsed().max(Duration::from_millis(10))).await;
    }
    running.store(false, Ordering::Relaxed);
    (all, began.elapsed())
}
