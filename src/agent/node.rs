//! All streams of a node: finding them, asking about them, filling batches fairly.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    ops::Bound,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    follow::Settle,
    layout::{LogName, PodFolder, pod_folder},
    stream::{Standing, Stream},
};
use crate::ingest::wire::{Chunk, ChunkHeader, ChunkResult, StreamKey, StreamState};

/// How often folders are listed.
pub(super) const LISTING_INTERVAL: Duration = Duration::from_millis(500);
/// How long until the operator is asked again about a stream that it does not know.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long until it is asked again about one that is not a script's.
const ASK_IGNORED_AGAIN: Duration = Duration::from_mins(1);
/// How long the files of a deleted pod are kept for an operator that does not know the pod.
const KEEP_UNKNOWN: Duration = Duration::from_mins(15);
/// Of so many streams at most it is remembered that they are given up.
const MAX_GIVEN_UP: usize = 10_000;
/// The most streams asked about at once.
const MAX_QUESTIONS: usize = 500;
/// The most bytes, and chunks, in a batch.
const MAX_BATCH_BYTES: usize = 4 << 20;
const MAX_BATCH_CHUNKS: usize = 1_000;

/// What to tell the operator now.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Streams to ask about.
    pub questions: Vec<StreamKey>,
    /// Streams that are given up.
    pub given_up: Vec<StreamKey>,
    /// Chunks to deliver.
    pub chunks: Vec<Chunk>,
}

impl Work {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.questions.is_empty() && self.given_up.is_empty() && self.chunks.is_empty()
    }
}

/// The streams of a node.
pub(super) struct Node {
    folder: PathBuf,
    settle: Settle,
    streams: BTreeMap<StreamKey, Stream>,
    /// Container folders that are no script's, and until when that stands.
    ignored: HashMap<PathBuf, Instant>,
    /// Streams that the operator is yet to be told of that their logs are let go.
    given_up: Vec<StreamKey>,
    next_listing: Instant,
    listing_failed: bool,
    /// The stream served last, so that the next one has its turn.
    served: Option<StreamKey>,
}

impl Node {
    pub fn new(folder: PathBuf, settle: Settle, now: Instant) -> Self {
        Self {
            folder,
            settle,
            streams: BTreeMap::new(),
            ignored: HashMap::new(),
            given_up: Vec::new(),
            next_listing: now,
            listing_failed: false,
            served: None,
        }
    }

    /// How many streams there are.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Looks at the files and says what to tell the operator.
    pub fn poll(&mut self, now: Instant) -> Work {
        self.look(now);
        Work {
            questions: self.questions(now),
            given_up: self.given_up.iter().take(MAX_QUESTIONS).cloned().collect(),
            chunks: self.chunks(now),
        }
    }

    /// Looks at the files: opens what is new, forgets what is read. What is under way to the operator stays as it is.
    pub fn look(&mut self, now: Instant) {
        if now >= self.next_listing {
            self.list(now);
            self.next_listing = now + LISTING_INTERVAL;
        }
        for stream in self.streams.values_mut() {
            stream.refresh(now);
        }
    }

    // --- finding streams

    fn list(&mut self, now: Instant) {
        let result = self.list_pods(now);
        if let Err(error) = &result
            && !self.listing_failed
        {
            tracing::warn!(folder = %self.folder.display(), %error, "The log folder can not be listed.");
        }
        self.listing_failed = result.is_err();
    }

    fn list_pods(&mut self, now: Instant) -> io::Result<()> {
        self.ignored.retain(|_, until| *until > now);
        // Per container, the restarts that have a file.
        let mut seen: HashMap<PathBuf, BTreeSet<u32>> = HashMap::new();
        for (name, path) in folders(&self.folder)? {
            let Some(pod) = pod_folder(&name) else { continue };
            for (container, path) in if_exists(folders(&path))? {
                if !self.ignored.contains_key(&path) {
                    let restarts = if_exists(restarts(&path))?;
                    self.open(&pod, &container, &path, &restarts, now);
                    seen.insert(path, restarts);
                }
            }
        }
        self.close(&seen, now);
        Ok(())
    }

    fn open(
        &mut self,
        pod: &PodFolder,
        container: &str,
        path: &Path,
        restarts: &BTreeSet<u32>,
        now: Instant,
    ) {
        for restart in restarts {
            let key = StreamKey {
                namespace: pod.namespace.clone(),
                pod: pod.pod.clone(),
                pod_uid: pod.uid.clone(),
                container: container.to_owned(),
                restart: *restart,
            };
            let stream = self
                .streams
                .entry(key)
                .or_insert_with_key(|key| Stream::new(key.clone(), path.to_owned(), self.settle, now));
            if let Err(error) = stream.adopt(now)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(folder = %path.display(), %error, "A container's log folder can not be listed.");
            }
        }
    }

    /// Notes which containers are no more, and forgets what is read.
    fn close(&mut self, seen: &HashMap<PathBuf, BTreeSet<u32>>, now: Instant) {
        self.streams.retain(|key, stream| {
            let restarts = seen.get(stream.folder());
            let is_over = restarts.is_none_or(|all| all.last().is_some_and(|last| *last > key.restart));
            if is_over {
                stream.over_since.get_or_insert(now);
            }
            let is_listed = restarts.is_some_and(|all| all.contains(&key.restart));
            if is_listed {
                return true;
            }
            let waited = stream.over_since.map(|since| now.duration_since(since));
            let given_up = stream.standing == Standing::Asking && waited.is_some_and(|t| t > KEEP_UNKNOWN);
            if given_up && !stream.is_finished() {
                tracing::warn!(
                    namespace = key.namespace,
                    pod = key.pod,
                    container = key.container,
                    "A deleted pod's log is given up, since the operator does not know the pod."
                );
                self.given_up.push(key.clone());
            }
            !(given_up || stream.is_finished())
        });
        self.given_up.truncate(MAX_GIVEN_UP);
    }

    // --- asking

    fn questions(&self, now: Instant) -> Vec<StreamKey> {
        let asking = self.streams.values();
        asking
            .filter(|stream| stream.standing == Standing::Asking && stream.ask_at <= now)
            .map(|stream| stream.key.clone())
            .take(MAX_QUESTIONS)
            .collect()
    }

    /// The operator's answers to questions.
    pub fn answered(&mut self, questions: &[StreamKey], answers: Vec<StreamState>, now: Instant) {
        for (key, answer) in questions.iter().zip(answers) {
            let Some(stream) = self.streams.get_mut(key) else {
                continue;
            };
            match answer {
                StreamState::Follow { position } => stream.seek(position),
                StreamState::Unknown => stream.ask_at = now + ASK_AGAIN,
                StreamState::Ignore => {
                    self.ignored
                        .insert(stream.folder().to_owned(), now + ASK_IGNORED_AGAIN);
                    self.streams.remove(key);
                }
            }
        }
    }

    /// The operator was told of so many streams that are given up.
    pub fn told(&mut self, given_up: usize) {
        self.given_up.drain(..given_up.min(self.given_up.len()));
    }

    // --- shipping

    /// Chunks of all streams in turn, as many as a batch takes.
    fn chunks(&mut self, now: Instant) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        let mut budget = MAX_BATCH_BYTES;
        loop {
            let before = chunks.len();
            let start = self.served.clone();
            let after = start.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let up_to = start.as_ref().map(|key| (Bound::Unbounded, Bound::Included(key)));
            for range in [Some((after, Bound::Unbounded)), up_to].into_iter().flatten() {
                for (key, stream) in self.streams.range_mut::<StreamKey, _>(range) {
                    if budget == 0 || chunks.len() >= MAX_BATCH_CHUNKS {
                        return chunks;
                    }
                    if let Some(chunk) = stream.chunk(budget, now) {
                        budget -= chunk.bytes.len();
                        self.served = Some(key.clone());
                        chunks.push(chunk);
                    }
                }
            }
            if chunks.len() == before {
                return chunks;
            }
        }
    }

    /// The operator's word on the chunks of a batch; says how many bytes were stored.
    pub fn delivered(&mut self, headers: &[ChunkHeader], results: &[ChunkResult], now: Instant) -> u64 {
        let mut stored = 0;
        for (header, result) in headers.iter().zip(results) {
            if let Some(stream) = self.streams.get_mut(&header.stream) {
                stream.acknowledge(result, now + ASK_AGAIN);
            }
            if matches!(result, ChunkResult::Committed { .. }) {
                stored += u64::from(header.length);
            }
        }
        self.rewind();
        stored
    }

    /// Whatever is under way does not count: read it again from the committed position.
    pub fn rewind(&mut self) {
        for stream in self.streams.values_mut() {
            stream.rewind();
        }
    }
}

fn folders(path: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
        {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

fn restarts(path: &Path) -> io::Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        found.extend(name.to_str().and_then(LogName::parse).map(|name| name.restart));
    }
    Ok(found)
}

/// A folder may go at any time.
fn if_exists<T: Default>(result: io::Result<T>) -> io::Result<T> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        other => other,
    }
}
