//! A kubelet, a runtime and an operator for the agent, in virtual time.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};

use crate::agent::{
    SETTLE,
    node::{Batch, Node, Pace},
};
use crate::ingest::wire::{ChunkHeader, ChunkResult, END_OF_STREAM, Position, StreamKey, StreamState};

const PACE: Pace = Pace {
    settle: SETTLE,
    poll: Duration::from_millis(10),
    gather: Duration::ZERO,
    steady: Duration::ZERO,
};

/// Rotated files that kubelet keeps.
pub const KEPT: usize = 3;

/// One container, as its runtime and kubelet treat its log.
pub struct Container {
    pub key: StreamKey,
    pub folder: PathBuf,
    pub file: File,
    pub previous: Option<File>,
    pub rotations: u64,
    pub lines: u64,
    /// Everything printed, by restart.
    pub printed: BTreeMap<u32, Vec<u8>>,
}

impl Container {
    pub fn start(logs: &std::path::Path, pod: &str) -> Self {
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

    pub fn line(&mut self, padding: usize) -> Vec<u8> {
        self.lines += 1;
        let tag = if self.lines.is_multiple_of(5) { 'P' } else { 'F' };
        let (n, pad) = (self.lines, "x".repeat(padding));
        format!(
            "2026-01-02T03:04:05.{n:09}Z stdout {tag} {}-{n}-{pad}\n",
            self.key.pod
        )
        .into_bytes()
    }

    pub fn print(&mut self, padding: usize) {
        let line = self.line(padding);
        self.print_raw(&line);
    }

    pub fn print_raw(&mut self, bytes: &[u8]) {
        self.file.write_all(bytes).unwrap();
        self.printed.get_mut(&self.key.restart).unwrap().extend(bytes);
    }

    /// What the runtime still flushes to the old file. Comes before all that is in the new one.
    pub fn print_late(&mut self) {
        let line = self.line(10);
        if let Some(previous) = &mut self.previous {
            previous.write_all(&line).unwrap();
            self.printed.get_mut(&self.key.restart).unwrap().extend(&line);
        }
    }

    pub fn path(&self, suffix: &str) -> PathBuf {
        self.folder.join(format!("{}.log{suffix}", self.key.restart))
    }

    pub fn rotated(&self) -> Vec<PathBuf> {
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
    pub fn rotate(&mut self) {
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

    pub fn restart(&mut self) {
        self.key.restart += 1;
        self.file = File::create(self.path("")).unwrap();
        self.previous = None;
        self.printed.insert(self.key.restart, Vec::new());
    }

    pub fn delete(&self) {
        fs::remove_dir_all(self.folder.parent().unwrap()).unwrap();
    }
}

#[derive(Clone, Default)]
pub struct Stored {
    pub position: Position,
    pub bytes: Vec<u8>,
    /// Reason and lost bytes.
    pub gaps: Vec<(String, u64)>,
}

/// An operator that appends at the committed offset only.
#[derive(Default)]
pub struct Operator {
    pub streams: BTreeMap<StreamKey, Stored>,
    pub unknown: bool,
}

impl Operator {
    pub fn answer(&mut self, questions: &[StreamKey]) -> Vec<StreamState> {
        let answer = |key: &StreamKey| {
            if self.unknown {
                return StreamState::Unknown;
            }
            StreamState::Follow {
                position: self.streams.entry(key.clone()).or_default().position.clone(),
            }
        };
        questions.iter().map(answer).collect()
    }

    pub fn append(&mut self, batch: &Batch) -> Vec<ChunkResult> {
        let mut rest = &batch.bytes[..];
        let append = |header: &ChunkHeader| {
            let bytes = rest.split_off(..header.length as usize).unwrap();
            if self.unknown {
                return ChunkResult::Unknown;
            }
            let stored = self.streams.get_mut(&header.stream).unwrap();
            assert!(header.file_start <= header.offset);
            let follows = header.offset == stored.position.offset
                || (header.gap.is_some() && header.offset > stored.position.offset);
            if !follows {
                return ChunkResult::Conflict {
                    position: stored.position.clone(),
                };
            }
            if let Some(reason) = &header.gap {
                stored
                    .gaps
                    .push((reason.clone(), header.offset - stored.position.offset));
            }
            stored.bytes.extend(bytes);
            stored.position = Position {
                offset: header.offset + u64::from(header.length),
                file: header.file.clone(),
                file_start: header.file_start,
            };
            ChunkResult::Committed {
                position: stored.position.clone(),
            }
        };
        batch.headers.iter().map(append).collect()
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq)]
pub enum Network {
    Works,
    LosesRequests,
    LosesAnswers,
}

pub struct World {
    pub logs: tempfile::TempDir,
    pub node: Node,
    pub operator: Operator,
    pub network: Network,
    pub now: Instant,
}

impl World {
    pub fn new() -> Self {
        let logs = tempfile::tempdir().unwrap();
        let now = Instant::now();
        Self {
            node: Node::new(logs.path().to_owned(), PACE, now),
            logs,
            operator: Operator::default(),
            network: Network::Works,
            now,
        }
    }

    pub fn restart_agent(&mut self) {
        self.node = Node::new(self.logs.path().to_owned(), PACE, self.now);
    }

    pub fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    /// One round of the agent; says whether it had anything to tell.
    pub fn round(&mut self) -> bool {
        self.node.told(self.now);
        self.node.look(self.now);
        let batch = self.node.batch(self.now);
        let questions = self.node.questions(self.now);
        let busy = !questions.is_empty() || batch.is_some();
        if let Some(batch) = batch {
            let results = (self.network != Network::LosesRequests).then(|| self.operator.append(&batch));
            match results.filter(|_| self.network == Network::Works) {
                Some(results) => _ = self.node.delivered(&batch.headers, &results, self.now),
                None => self.node.returned(&batch.headers),
            }
        }
        if self.network == Network::Works {
            let answers = self.operator.answer(&questions);
            self.node.answered(&questions, answers, self.now);
        }
        busy
    }

    /// Rounds until there is nothing to tell for longer than anything takes to settle.
    pub fn drain(&mut self) {
        self.network = Network::Works;
        let mut quiet = 0;
        while quiet < 30 {
            quiet = if self.round() { 0 } else { quiet + 1 };
            self.wait(100);
        }
    }

    pub fn stored(&self, key: &StreamKey, restart: u32) -> String {
        let key = StreamKey {
            restart,
            ..key.clone()
        };
        let bytes = self.operator.streams.get(&key).map_or(&[][..], |s| &s.bytes);
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// Everything printed is stored, once and in order; `is_over` of the last restart.
    pub fn check(&self, container: &Container, is_over: bool, hint: &str) {
        for (restart, printed) in &container.printed {
            let mut expected = String::from_utf8_lossy(printed).into_owned();
            if is_over || *restart < container.key.restart {
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
