//! The agent's files and decisions against a kubelet, a runtime and an operator that are played here, in virtual time.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};

use super::{BACKOFF_MAX, SETTLE, backoff, node::Node};
use crate::ingest::wire::{Chunk, ChunkHeader, ChunkResult, END_OF_STREAM, Position, StreamKey, StreamState};

/// Rotated files that kubelet keeps.
const KEPT: usize = 3;

/// One container, as its runtime and kubelet treat its log.
struct Container {
    key: StreamKey,
    folder: PathBuf,
    file: File,
    previous: Option<File>,
    rotations: u64,
    lines: u64,
    /// Everything printed, by restart.
    printed: BTreeMap<u32, Vec<u8>>,
}

impl Container {
    fn start(logs: &std::path::Path, pod: &str) -> Self {
        let folder = logs.join(format!("shop_{pod}_uid-{pod}")).join("script");
        fs::create_dir_all(&folder).unwrap();
        Self {
            key: StreamKey {
                namespace: "shop".into(),
                pod: pod.into(),
                pod_uid: format!("uid-{pod}"),
                container: "script".into(),
                restart: 0,
            },
            file: File::create(folder.join("0.log")).unwrap(),
            folder,
            previous: None,
            rotations: 0,
            lines: 0,
            printed: BTreeMap::from([(0, Vec::new())]),
        }
    }

    fn line(&mut self, padding: usize) -> Vec<u8> {
        self.lines += 1;
        let tag = if self.lines % 5 == 0 { 'P' } else { 'F' };
        let (n, pad) = (self.lines, "x".repeat(padding));
        format!(
            "2026-01-02T03:04:05.{n:09}Z stdout {tag} {}-{n}-{pad}\n",
            self.key.pod
        )
        .into_bytes()
    }

    fn print(&mut self, padding: usize) {
        let line = self.line(padding);
        self.print_raw(&line);
    }

    fn print_raw(&mut self, bytes: &[u8]) {
        self.file.write_all(bytes).unwrap();
        self.printed.get_mut(&self.key.restart).unwrap().extend(bytes);
    }

    /// What the runtime still flushes to the old file. Comes before all that is in the new one.
    fn print_late(&mut self) {
        let line = self.line(10);
        if let Some(previous) = &mut self.previous {
            previous.write_all(&line).unwrap();
            self.printed.get_mut(&self.key.restart).unwrap().extend(&line);
        }
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.folder.join(format!("{}.log{suffix}", self.key.restart))
    }

    fn rotated(&self) -> Vec<PathBuf> {
        let prefix = format!("{}.log.", self.key.restart);
        let mut paths: Vec<_> = fs::read_dir(&self.folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&prefix))
            .collect();
        paths.sort();
        paths
    }

    /// Compresses what was rotated before, deletes the oldest, renames, opens anew.
    fn rotate(&mut self) {
        for path in self.rotated() {
            if path.extension().is_none_or(|e| e != "gz") {
                let packed = PathBuf::from(format!("{}.gz", path.display()));
                let unfinished = PathBuf::from(format!("{}.tmp", path.display()));
                let mut encoder = GzEncoder::new(File::create(&unfinished).unwrap(), Compression::fast());
                encoder.write_all(&fs::read(&path).unwrap()).unwrap();
                encoder.finish().unwrap();
                fs::rename(&unfinished, &packed).unwrap();
                fs::remove_file(&path).unwrap();
            }
        }
        let rotated = self.rotated();
        for path in &rotated[..rotated.len().saturating_sub(KEPT - 1)] {
            fs::remove_file(path).unwrap();
        }
        self.rotations += 1;
        fs::rename(
            self.path(""),
            self.path(&format!(".20260102-{:06}", self.rotations)),
        )
        .unwrap();
        let new = File::create(self.path("")).unwrap();
        self.previous = Some(std::mem::replace(&mut self.file, new));
    }

    fn restart(&mut self) {
        self.key.restart += 1;
        self.file = File::create(self.path("")).unwrap();
        self.previous = None;
        self.printed.insert(self.key.restart, Vec::new());
    }

    fn delete(&self) {
        fs::remove_dir_all(self.folder.parent().unwrap()).unwrap();
    }
}

#[derive(Default)]
struct Stored {
    position: Position,
    bytes: Vec<u8>,
    gaps: Vec<String>,
}

/// An operator that appends at the committed offset only.
#[derive(Default)]
struct Operator {
    streams: BTreeMap<StreamKey, Stored>,
    unknown: bool,
}

impl Operator {
    fn answer(&mut self, questions: &[StreamKey]) -> Vec<StreamState> {
        let answer = |key: &StreamKey| match self.unknown {
            true => StreamState::Unknown,
            false => StreamState::Follow {
                position: self.streams.entry(key.clone()).or_default().position.clone(),
            },
        };
        questions.iter().map(answer).collect()
    }

    fn append(&mut self, chunks: &[Chunk]) -> Vec<ChunkResult> {
        let append = |chunk: &Chunk| {
            let header = &chunk.header;
            let stored = self.streams.get_mut(&header.stream).unwrap();
            let follows = header.offset == stored.position.offset;
            assert!(header.file_start <= header.offset);
            if !follows {
                return ChunkResult::Conflict {
                    position: stored.position.clone(),
                };
            }
            stored.bytes.extend(&chunk.bytes);
            stored.gaps.extend(header.gap.clone());
            stored.position = Position {
                offset: header.offset + u64::from(header.length),
                file: header.file.clone(),
                file_start: header.file_start,
            };
            ChunkResult::Committed {
                position: stored.position.clone(),
            }
        };
        chunks.iter().map(append).collect()
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq)]
enum Network {
    Works,
    LosesRequests,
    LosesAnswers,
}

struct World {
    logs: tempfile::TempDir,
    node: Node,
    operator: Operator,
    network: Network,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let logs = tempfile::tempdir().unwrap();
        let now = Instant::now();
        Self {
            node: Node::new(logs.path().to_owned(), SETTLE, now),
            logs,
            operator: Operator::default(),
            network: Network::Works,
            now,
        }
    }

    fn restart_agent(&mut self) {
        self.node = Node::new(self.logs.path().to_owned(), SETTLE, self.now);
    }

    fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    /// One round of the agent; says whether it had anything to tell.
    fn round(&mut self) -> bool {
        let work = self.node.poll(self.now);
        let busy = !work.questions.is_empty() || !work.chunks.is_empty();
        if self.network == Network::LosesRequests {
            self.node.rewind();
            return busy;
        }
        let results = self.operator.append(&work.chunks);
        let answers = self.operator.answer(&work.questions);
        if self.network == Network::LosesAnswers {
            self.node.rewind();
            return busy;
        }
        let headers: Vec<ChunkHeader> = work.chunks.into_iter().map(|c| c.header).collect();
        self.node.delivered(&headers, &results, self.now);
        self.node.answered(&work.questions, answers, self.now);
        busy
    }

    /// Rounds until there is nothing to tell for longer than anything takes to settle.
    fn drain(&mut self) {
        self.network = Network::Works;
        let mut quiet = 0;
        while quiet < 30 {
            quiet = if self.round() { 0 } else { quiet + 1 };
            self.wait(100);
        }
    }

    fn stored(&self, key: &StreamKey, restart: u32) -> String {
        let key = StreamKey {
            restart,
            ..key.clone()
        };
        let bytes = self.operator.streams.get(&key).map_or(&[][..], |s| &s.bytes);
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// Everything printed is stored, once and in order; `is_over` of the last restart.
    fn check(&self, container: &Container, is_over: bool, hint: &str) {
        for (restart, printed) in &container.printed {
            let mut expected = String::from_utf8_lossy(printed).into_owned();
            if (is_over || *restart < container.key.restart) && !expected.is_empty() {
                expected.push_str(std::str::from_utf8(END_OF_STREAM).unwrap());
            }
            let stored = self.stored(&container.key, *restart);
            // Not assert_eq: nobody reads megabytes.
            assert!(
                stored == expected,
                "{hint}: {}/{restart}: {} bytes stored, {} expected, same up to {}",
                container.key.pod,
                stored.len(),
                expected.len(),
                stored
                    .bytes()
                    .zip(expected.bytes())
                    .take_while(|(a, b)| a == b)
                    .count()
            );
        }
        let gaps: Vec<_> = self.operator.streams.values().flat_map(|s| &s.gaps).collect();
        assert!(gaps.is_empty(), "{hint}: {gaps:?}");
    }
}

#[test]
fn rotation_with_late_writes_loses_nothing() {
    let mut world = World::new();
    let mut pod = Container::start(world.logs.path(), "a");
    for round in 0..8 {
        pod.print(100);
        world.round();
        pod.print_raw(b"2026-01-02T03:04:05Z stdout P begun in one file\n");
        pod.rotate();
        pod.print_late();
        pod.print_raw(format!("2026-01-02T03:04:06.{round}Z stdout F ended in the next\n").as_bytes());
        world.wait(600);
        world.round();
    }
    world.drain();
    world.check(&pod, false, "rotation");
}

#[test]
fn an_agent_that_was_away_finds_compressed_files_and_its_place_in_them() {
    let mut world = World::new();
    let mut pod = Container::start(world.logs.path(), "a");
    (0..2_000).for_each(|_| pod.print(500));
    world.drain();
    // In the middle of the file that gets compressed meanwhile.
    (0..10).for_each(|_| pod.print(100));
    for _ in 0..KEPT {
        pod.rotate();
        (0..10).for_each(|_| pod.print(100));
    }
    assert_eq!(
        pod.rotated()
            .iter()
            .filter(|p| p.extension().unwrap() == "gz")
            .count(),
        KEPT - 1
    );
    world.restart_agent();
    world.drain();
    world.check(&pod, false, "away");
}

#[test]
fn a_pod_deleted_while_nobody_listens_is_read_to_its_end() {
    let mut world = World::new();
    world.operator.unknown = true;
    let mut pod = Container::start(world.logs.path(), "a");
    pod.print(10);
    world.round();
    pod.print(10);
    pod.print_raw(b"2026-01-02T03:04:05Z stdout P no line end");
    pod.delete();
    for _ in 0..50 {
        world.wait(500);
        world.round();
    }
    world.operator.unknown = false;
    world.drain();
    world.check(&pod, true, "deleted");
    assert_eq!(world.node.len(), 0);
}

#[test]
fn each_restart_is_a_stream_that_ends() {
    let mut world = World::new();
    let mut pod = Container::start(world.logs.path(), "a");
    for _ in 0..4 {
        (0..5).for_each(|_| pod.print(10));
        world.wait(600);
        world.round();
        pod.restart();
        pod.print(5);
        // kubelet keeps the log of the last dead container only.
        if let Some(dead) = pod.key.restart.checked_sub(2) {
            fs::remove_file(pod.folder.join(format!("{dead}.log"))).unwrap();
        }
        world.drain();
    }
    world.check(&pod, false, "restarts");
    // The end of the stream is known after a restart of the agent, and not said again.
    world.restart_agent();
    world.drain();
    world.check(&pod, false, "agent restarted");
}

#[test]
fn what_can_not_be_read_is_a_gap_with_its_reason() {
    let mut world = World::new();
    let mut pod = Container::start(world.logs.path(), "a");
    pod.print(10);
    world.drain();
    // Rotated out of existence while the agent was away.
    for _ in 0..KEPT + 1 {
        pod.print(10);
        pod.rotate();
    }
    pod.print(10);
    world.restart_agent();
    world.drain();
    let stored = &world.operator.streams[&pod.key];
    assert_eq!(stored.gaps, ["FileRotatedAway"]);
    let printed = String::from_utf8_lossy(&pod.printed[&0]).into_owned();
    let text = world.stored(&pod.key, 0);
    assert!(text.lines().count() < printed.lines().count());
    assert_eq!(text.lines().last(), printed.lines().last());

    // Cut short by somebody.
    let line = "2026-01-02T03:04:07Z stdout F anew\n";
    fs::write(pod.path(""), line).unwrap();
    world.drain();
    assert_eq!(
        world.operator.streams[&pod.key].gaps,
        ["FileRotatedAway", "FileTruncated"]
    );
    assert!(world.stored(&pod.key, 0).ends_with(line));
}

#[test]
fn a_pod_of_no_script_is_let_go() {
    let mut world = World::new();
    let mut pod = Container::start(world.logs.path(), "a");
    pod.print(10);
    let work = world.node.poll(world.now);
    assert_eq!(work.questions, [pod.key.clone()]);
    world
        .node
        .answered(&work.questions, vec![StreamState::Ignore], world.now);
    world.wait(30_000);
    assert!(world.node.poll(world.now).questions.is_empty());
    // Its Deployment may have been adopted since.
    world.wait(31_000);
    world.drain();
    world.check(&pod, false, "adopted");
}

#[test]
fn batches_are_bounded_and_streams_take_turns() {
    let mut world = World::new();
    let mut pods: Vec<_> = (0..12)
        .map(|n| Container::start(world.logs.path(), &format!("p{n}")))
        .collect();
    for pod in &mut pods {
        (0..3_000).for_each(|_| pod.print(900));
    }
    world.round();
    let mut shares: BTreeMap<StreamKey, usize> = BTreeMap::new();
    for _ in 0..3 {
        let work = world.node.poll(world.now);
        let bytes: usize = work.chunks.iter().map(|c| c.bytes.len()).sum();
        assert!(bytes <= 4 << 20, "{bytes}");
        for chunk in &work.chunks {
            *shares.entry(chunk.header.stream.clone()).or_default() += chunk.bytes.len();
        }
        let results = world.operator.append(&work.chunks);
        let headers: Vec<_> = work.chunks.into_iter().map(|c| c.header).collect();
        world.node.delivered(&headers, &results, world.now);
    }
    assert_eq!(shares.len(), pods.len(), "every stream had its turn: {shares:?}");
    world.drain();
    pods.iter().for_each(|pod| world.check(pod, false, "turns"));
}

#[test]
fn nothing_is_lost_or_twice_whatever_happens() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new();
        let mut pods: Vec<_> = (0..3)
            .map(|n| Container::start(world.logs.path(), &format!("p{n}")))
            .collect();
        let mut gone = Vec::new();
        // Something exists only in the agent's open files.
        let mut agent_must_live = false;
        for _ in 0..120 {
            let place = random.usize(..pods.len());
            let pod = &mut pods[place];
            match random.u8(..20) {
                0..8 => (0..random.usize(1..30)).for_each(|_| pod.print(random.usize(..3_000))),
                8..10 => {
                    pod.rotate();
                    agent_must_live |= pod.rotations > 1;
                    for _ in 0..random.usize(..4) {
                        pod.print_late();
                    }
                    (0..random.usize(..3)).for_each(|_| pod.print(20));
                    world.wait(550);
                    world.round();
                }
                10 => {
                    world.wait(550);
                    world.round();
                    pod.restart();
                }
                11 if pods.len() > 1 => {
                    world.wait(550);
                    world.round();
                    let pod = pods.swap_remove(place);
                    pod.delete();
                    gone.push(pod);
                    agent_must_live = true;
                }
                12 => {
                    if agent_must_live {
                        world.drain();
                        agent_must_live = false;
                    }
                    world.restart_agent();
                }
                13 => world.network = Network::LosesAnswers,
                14 => world.network = Network::LosesRequests,
                15 => world.network = Network::Works,
                _ => {}
            }
            world.wait(random.u64(..400));
            if random.bool() {
                world.round();
            }
        }
        world.drain();
        let hint = format!("seed {seed}");
        pods.iter().for_each(|pod| world.check(pod, false, &hint));
        gone.iter().for_each(|pod| world.check(pod, true, &hint));
    }
}

#[test]
fn waiting_grows_to_five_seconds() {
    assert_eq!(backoff(1, 1.0), Duration::from_millis(100));
    assert_eq!(backoff(3, 1.0), Duration::from_millis(400));
    assert_eq!(backoff(3, 0.0), Duration::from_millis(200));
    assert_eq!(backoff(u32::MAX, 1.0), BACKOFF_MAX);
}
