//! Faults, and a checker that knows every line printed: `faults [NEMESIS...]`.
//!
//! Pods print (as kubelet and the runtime write it) while a nemesis kills, cuts and stops the agent, the operator's
//! ingest and store, and what is between them. Then nothing is in the way any more, and the store must hold every line
//! and run once, in order, with figures that say the same.
//!
//! `FAULT_SEEDS` says how many seeds each nemesis gets, odd ones with SQLite, even ones with Postgres (all with one that it
//! is tried on alone, or that `FAULT_STORE` names); `SEED` names one, `FAULT_JOBS` how many run at a time;
//! `SOAK_MINUTES` asks for longer runs with random seeds until that time is over.

#![allow(clippy::expect_used)] // tests

mod bed;
mod checker;
mod nemesis;
mod pod;
#[path = "../common/postgres.rs"]
#[allow(dead_code)] // shared with the store's tests
mod postgres;
mod proxy;
#[path = "../common/testbed.rs"]
#[allow(dead_code)] // shared with the benchmarks
mod testbed;

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use fastrand::Rng;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use bed::{Backend, Bed};
use checker::Verdict;
use nemesis::{Nemesis, Rotation};
use pod::Pod;
use testbed::Stored;

/// Pods of a run; those that delete pods have as many more that come later.
const PODS: usize = 3;
/// A case that takes longer hangs.
const CASE_LIMIT: Duration = Duration::from_mins(10);
const TELL_EVERY: Duration = Duration::from_mins(1);
const ROTATE_EVERY: Duration = Duration::from_millis(100);
/// Rotations of a container while nothing unread may be removed.
const FEW_ROTATIONS: u32 = 3;

fn main() -> ExitCode {
    testbed::serve_if_asked();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(run())
}

fn setting(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// What came of the seeds of a nemesis.
#[derive(Default)]
struct Total {
    seeds: usize,
    faults: u64,
    verdict: Verdict,
    failed: usize,
}

async fn run() -> ExitCode {
    let cases = cases();
    let mut totals: BTreeMap<usize, Total> = (0..cases.len()).map(|n| (n, Total::default())).collect();
    let began = Instant::now();
    let soak = setting("SOAK_MINUTES").map(Duration::from_mins);
    let mut tasks = JoinSet::new();
    let slots = Arc::new(Semaphore::new(
        usize::try_from(setting("FAULT_JOBS").unwrap_or(6)).expect("a number of jobs"),
    ));
    let mut told = Instant::now();
    let clusters = Arc::new(bed::Clusters::default());
    for (place, seed) in schedule(&cases, soak.is_some()) {
        let (case, clusters) = (cases[place], Arc::clone(&clusters));
        let slot = Arc::clone(&slots).acquire_owned().await;
        let length = if soak.is_some() {
            Length::Long
        } else {
            Length::Short
        };
        tasks.spawn(async move {
            // In a task of its own, so that a panic in it is the failure of this case.
            let case = tokio::spawn(async move {
                let limit = timeout(CASE_LIMIT, one(case, seed, length, &clusters));
                limit.await.unwrap_or_else(|late| Err(io::Error::other(late)))
            });
            let outcome = case.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
            drop(slot);
            (place, seed, outcome)
        });
        while let Some(ended) = tasks.try_join_next() {
            let (place, seed, outcome) = ended.expect("a case that is always reported");
            report(cases[place], seed, outcome, totals.entry(place).or_default());
        }
        if soak.is_some_and(|time| began.elapsed() > time) {
            break;
        }
        if soak.is_some() && told.elapsed() > TELL_EVERY {
            told = Instant::now();
            println!("{}", sum(&totals, began.elapsed()));
        }
    }
    while let Some(ended) = tasks.join_next().await {
        let (place, seed, outcome) = ended.expect("a case that is always reported");
        report(cases[place], seed, outcome, totals.entry(place).or_default());
    }
    conclude(&cases, &totals, began.elapsed())
}

/// A nemesis, and the store that it is tried on.
#[derive(Clone, Copy)]
struct Case {
    nemesis: Nemesis,
    backend: Backend,
}

/// What is asked for and can be done here.
fn cases() -> Vec<Case> {
    let named: Vec<String> = env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let store = env::var("FAULT_STORE").ok();
    let has_disks = bed::may_take_disks_away();
    let mut cases = Vec::new();
    for backend in [Backend::Sqlite, Backend::Postgres] {
        for nemesis in Nemesis::ALL {
            let is_named = named.is_empty() || named.iter().any(|name| name == nemesis.name());
            let is_store = store.as_deref().is_none_or(|store| store == backend.name());
            if !(is_named && is_store && nemesis.suits(backend)) {
                continue;
            }
            if backend == Backend::Sqlite && nemesis.needs_disks() && !has_disks {
                println!(
                    "{}: left out, since it needs root and a file system with immutable files",
                    nemesis.name()
                );
                continue;
            }
            cases.push(Case { nemesis, backend });
        }
    }
    cases
}

/// Cases, by their places, and seeds: as many as asked for, or chosen at random without end.
fn schedule(cases: &[Case], endless: bool) -> Box<dyn Iterator<Item = (usize, u64)>> {
    let count = cases.len();
    if endless && count > 0 {
        return Box::new(std::iter::repeat_with(move || {
            (fastrand::usize(..count), fastrand::u64(..))
        }));
    }
    if let Some(seed) = setting("SEED") {
        return Box::new((0..count).map(move |place| (place, seed)));
    }
    let seeds = 1..=setting("FAULT_SEEDS").unwrap_or(2);
    let is_shared = |case: &Case| cases.iter().filter(|other| other.nemesis == case.nemesis).count() > 1;
    let places = cases
        .iter()
        .map(|case| is_shared(case).then_some(case.backend))
        .enumerate();
    let places: Vec<_> = places.collect();
    let of_seed = move |seed: u64| {
        let store = if seed % 2 == 1 {
            Backend::Sqlite
        } else {
            Backend::Postgres
        };
        let mine = places.clone().into_iter();
        mine.filter_map(move |(place, half)| half.is_none_or(|half| half == store).then_some((place, seed)))
    };
    Box::new(seeds.flat_map(of_seed))
}

fn report(case: Case, seed: u64, outcome: io::Result<Outcome>, total: &mut Total) {
    total.seeds += 1;
    let problem = match outcome {
        Ok(outcome) => {
            total.faults += outcome.faults;
            total.verdict.lines += outcome.verdict.lines;
            total.verdict.lost += outcome.verdict.lost;
            total.verdict.doubled += outcome.verdict.doubled;
            total.verdict.gaps += outcome.verdict.gaps;
            if outcome.verdict.problems.is_empty() {
                return;
            }
            format!("{}\n{}", outcome.verdict.problems.join("\n"), outcome.diary)
        }
        Err(error) => error.to_string(),
    };
    total.failed += 1;
    println!(
        "{} {} SEED={seed} failed: {problem}",
        case.nemesis.name(),
        case.backend.name()
    );
}

fn sum(totals: &BTreeMap<usize, Total>, took: Duration) -> String {
    let sum = |part: fn(&Total) -> usize| totals.values().map(part).sum::<usize>();
    format!(
        "{} faults injected, {} lines printed, {} lost, {} doubled, in {:.0} s",
        totals.values().map(|total| total.faults).sum::<u64>(),
        sum(|total| total.verdict.lines),
        sum(|total| total.verdict.lost),
        sum(|total| total.verdict.doubled),
        took.as_secs_f64()
    )
}

fn conclude(cases: &[Case], totals: &BTreeMap<usize, Total>, took: Duration) -> ExitCode {
    println!(
        "{:<26} {:<9} {:>5} {:>7} {:>9} {:>5} {:>8} {:>5}",
        "nemesis", "store", "seeds", "faults", "lines", "lost", "doubled", "gaps"
    );
    let mut failed = 0;
    for (place, total) in totals {
        println!(
            "{:<26} {:<9} {:>5} {:>7} {:>9} {:>5} {:>8} {:>5}",
            cases[*place].nemesis.name(),
            cases[*place].backend.name(),
            total.seeds,
            total.faults,
            total.verdict.lines,
            total.verdict.lost,
            total.verdict.doubled,
            total.verdict.gaps
        );
        failed += usize::from(total.failed > 0);
    }
    println!("{}", sum(totals, took));
    println!("{} passed, {failed} failed", totals.len() - failed);
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

struct Outcome {
    verdict: Verdict,
    faults: u64,
    diary: String,
}

/// How long pods print.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Length {
    /// Half a second or so.
    Short,
    /// Ten times as long.
    Long,
}

/// One seed of a nemesis.
async fn one(case: Case, seed: u64, length: Length, clusters: &bed::Clusters) -> io::Result<Outcome> {
    let nemesis = case.nemesis;
    let mut random = Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ nemesis as u64);
    let count = if nemesis.deletes_pods() { 2 * PODS } else { PODS };
    let known: Vec<testbed::Pod> = (0..count)
        .map(|n| testbed::Pod {
            uid: format!("u{n}"),
            script: format!("s{}", n / 2),
        })
        .collect();
    let mut bed = Bed::start(known.clone(), nemesis.small_disk(), case.backend, clusters).await?;
    let (finish, mut done) = watch::channel(false);
    let mut writer = Writer {
        nemesis,
        length,
        logs: bed.logs(),
        agent: bed.agent_id(),
        random: Rng::with_seed(random.u64(..)),
        waiting: known,
        pods: Vec::new(),
        gone: Vec::new(),
    };
    let writing = async {
        let result = writer.write().await;
        finish.send_replace(true);
        result
    };
    let (written, tormented) = tokio::join!(writing, nemesis.torment(&mut bed, &mut random, &mut done));
    written?;
    tormented?;
    bed.heal().await?;
    let pods: Vec<Pod> = writer.pods.into_iter().chain(writer.gone).collect();
    bed.wait_for(&expected(&pods, nemesis)).await;
    if nemesis.may_lose() {
        last_line_is_stored(&bed, &pods).await;
    }
    bed.end().await;
    let (diary, faults, database) = (bed.diary(), bed.faults, bed.direct_store());
    // Futures of database rows are bound to their thread; the bed, with its disk, lives as long as the check.
    let checking = tokio::task::spawn_blocking(move || {
        let check = checker::check(&database, &pods, &bed.seen, nemesis.may_lose());
        let verdict = tokio::runtime::Handle::current().block_on(check);
        (verdict, bed.take_cluster())
    });
    let (verdict, cluster) = checking.await?;
    clusters.give_back(cluster);
    Ok(Outcome {
        verdict: verdict.map_err(io::Error::other)?,
        faults,
        diary,
    })
}

/// What each script must have stored.
fn expected(pods: &[Pod], nemesis: Nemesis) -> BTreeMap<String, Stored> {
    let mut scripts: BTreeMap<String, Stored> = BTreeMap::new();
    for pod in pods {
        let stored = scripts.entry(pod.bed.script.clone()).or_default();
        if !nemesis.may_lose() {
            stored.lines += i64::try_from(pod.lines()).expect("a count");
            stored.ended += i64::try_from(pod.ended()).expect("a count");
            stored.begun += i64::try_from(pod.begun()).expect("a count");
        }
    }
    scripts
}

/// Where lines may be lost, the last ones are not.
async fn last_line_is_stored(bed: &Bed, pods: &[Pod]) {
    for pod in pods {
        if let Some(line) = pod.printed.last().and_then(|printed| printed.lines.last()) {
            bed.wait_for_line(&pod.bed.script, &line.message).await;
        }
    }
}

/// Plays the pods and kubelet.
struct Writer {
    nemesis: Nemesis,
    length: Length,
    logs: std::path::PathBuf,
    agent: Option<u32>,
    random: Rng,
    waiting: Vec<testbed::Pod>,
    pods: Vec<Pod>,
    gone: Vec<Pod>,
}

impl Writer {
    async fn write(&mut self) -> io::Result<()> {
        let steps = match self.length {
            // Long enough for files to be removed.
            Length::Short if self.nemesis.rotation() == Rotation::Fast => self.random.usize(150..250),
            Length::Short => self.random.usize(20..50),
            Length::Long => self.random.usize(200..500),
        };
        // A container that dies costs the two seconds until its last line counts as unfinished for good.
        let mut restarts = usize::from(self.nemesis.rotation() == Rotation::Rare && self.random.u8(..4) == 0);
        let mut rotated = Instant::now();
        while self.pods.len() < PODS {
            self.start_pod()?;
        }
        if self.nemesis.rotation() == Rotation::Fast {
            // Of files that were removed before an agent ever saw the container nobody can know.
            for at in 0..self.pods.len() {
                self.pods[at].print(&mut self.random)?;
                self.is_followed(at).await?;
            }
        }
        for _ in 0..steps {
            for at in 0..self.pods.len() {
                let burst = if self.random.u8(..20) == 0 { 60 } else { 4 };
                for _ in 0..self.random.usize(..burst) {
                    self.pods[at].print(&mut self.random)?;
                }
            }
            if self.nemesis.rotation() == Rotation::Fast {
                if rotated.elapsed() >= ROTATE_EVERY {
                    rotated = Instant::now();
                    for pod in &mut self.pods {
                        // However slow this machine is, nothing is removed that must not be lost.
                        if self.nemesis.may_lose() || !pod.is_full() {
                            pod.rotate(&mut self.random)?;
                        }
                    }
                }
            } else if self.random.u8(..20) == 0 {
                let at = self.random.usize(..self.pods.len());
                if self.pods[at].rotations < FEW_ROTATIONS {
                    self.pods[at].rotate(&mut self.random)?;
                }
            }
            if restarts > 0 && self.random.u8(..10) == 0 {
                restarts -= 1;
                let at = self.random.usize(..self.pods.len());
                self.pods[at].restart()?;
            }
            if self.nemesis.deletes_pods() && !self.waiting.is_empty() && self.random.u8(..5) == 0 {
                self.replace_pod().await?;
            }
            sleep(Duration::from_micros(self.random.u64(..15_000))).await;
        }
        if self.nemesis.deletes_pods() {
            self.replace_pod().await?;
        }
        for pod in &mut self.pods {
            pod.complete(&mut self.random)?;
            pod.print(&mut self.random)?;
            pod.complete(&mut self.random)?;
        }
        Ok(())
    }

    fn start_pod(&mut self) -> io::Result<()> {
        if !self.waiting.is_empty() {
            let pod = self.waiting.remove(0);
            self.pods
                .push(Pod::start(&self.logs, pod, self.nemesis.habits())?);
        }
        Ok(())
    }

    /// A pod prints its last and is gone in the same moment; another one comes. What the agent has open is not lost.
    async fn replace_pod(&mut self) -> io::Result<()> {
        let at = self.random.usize(..self.pods.len());
        self.is_followed(at).await?;
        let mut pod = self.pods.swap_remove(at);
        for _ in 0..self.random.usize(..30) {
            pod.print(&mut self.random)?;
        }
        pod.delete()?;
        self.gone.push(pod);
        self.start_pod()
    }

    /// Waits until the agent has a pod's file open.
    async fn is_followed(&self, at: usize) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.is_open(&self.pods[at].current()) {
            if Instant::now() > deadline {
                return Err(io::Error::other("the agent does not open a pod's file"));
            }
            sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    fn is_open(&self, path: &Path) -> bool {
        let Some(agent) = self.agent else { return false };
        let Ok(files) = fs::read_dir(format!("/proc/{agent}/fd")) else {
            return false;
        };
        files
            .flatten()
            .any(|file| fs::read_link(file.path()).is_ok_and(|target| target == path))
    }
}
