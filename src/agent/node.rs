//! All streams of a node: finding them, asking about them, handing out batches.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    batches::{self, Turns},
    buffers::Buffers,
    follow::Settle,
    layout::{LogName, PodFolder, pod_folder},
    stream::{Standing, Stream},
    watch::{Changes, Place, Watch},
};
use crate::ingest::wire::{ChunkHeader, ChunkResult, StreamKey, StreamState};

/// How often folders are listed where the kernel does not tell of changes.
pub(super) const LISTING_INTERVAL: Duration = Duration::from_millis(500);
/// How often they are listed where it does, should it have missed some.
const WATCHED_LISTING_INTERVAL: Duration = Duration::from_secs(15);
/// So many listings in a row that find what the kernel did not tell mean that it does not tell.
const MAX_MISSED: u32 = 3;
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

/// Chunks to deliver together.
#[derive(Debug)]
pub(super) struct Batch {
    /// What they are.
    pub headers: Vec<ChunkHeader>,
    /// Their bytes, one after the other.
    pub bytes: Bytes,
}

/// What to tell the operator now.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Streams to ask about.
    pub questions: Vec<StreamKey>,
    /// Streams whose files were let go unread.
    pub given_up: Vec<StreamKey>,
    /// Chunks to deliver.
    pub batch: Option<Batch>,
}

/// How often to look, and how long to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub settle: Settle,
    /// Between two looks at files that are not at rest.
    pub poll: Duration,
    /// From the first line of a batch until it is sent, so that it has more than that line.
    pub gather: Duration,
    /// From batch to batch where lines come all the time. A batch costs the operator the same whether it has one line or a
    /// hundred.
    pub steady: Duration,
}

/// The streams of a node.
pub(super) struct Node {
    folder: PathBuf,
    pace: Pace,
    streams: BTreeMap<StreamKey, Stream>,
    /// Container folders that are no script's, and until when that stands.
    ignored: HashMap<PathBuf, Instant>,
    /// Streams that the operator is yet to be told of that their files were let go.
    given_up: Vec<StreamKey>,
    watch: Option<Watch>,
    /// Containers that wrote since the last look, and since when there are any.
    written: HashSet<(String, String)>,
    written_since: Option<Instant>,
    /// There is more than the last batch took.
    more: bool,
    last_batch: Option<Instant>,
    next_listing: Instant,
    next_look: Instant,
    missed: u32,
    failing: bool,
    turns: Turns,
    buffers: Buffers,
}

impl Node {
    pub fn new(folder: PathBuf, pace: Pace, now: Instant) -> Self {
        Self {
            folder,
            pace,
            streams: BTreeMap::new(),
            ignored: HashMap::new(),
            given_up: Vec::new(),
            watch: None,
            written: HashSet::new(),
            written_since: None,
            more: false,
            last_batch: None,
            next_listing: now,
            next_look: now,
            missed: 0,
            failing: false,
            turns: Turns::default(),
            buffers: batches::buffers(),
        }
    }

    /// How many streams there are.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    // --- being told of changes

    /// From now on the kernel tells of changes: the descriptor is readable when it does.
    pub fn watch(&mut self) -> io::Result<OwnedFd> {
        let watch = Watch::new()?;
        let descriptor = watch.descriptor()?;
        self.watch = Some(watch);
        Ok(descriptor)
    }

    /// Whether the kernel tells of changes.
    pub fn is_watching(&self) -> bool {
        self.watch.is_some()
    }

    /// Takes in what the kernel tells; files that appeared are opened. Says whether it told anything.
    pub fn told(&mut self, now: Instant) -> bool {
        let Some(watch) = &mut self.watch else {
            return false;
        };
        let changes = match watch.changes() {
            Ok(changes) => changes,
            Err(error) => {
                self.unwatch(&error, now);
                return false;
            }
        };
        let told = !changes.is_empty();
        self.take_in(changes, now);
        told
    }

    fn take_in(&mut self, changes: Changes, now: Instant) {
        if changes.everything {
            tracing::debug!("The kernel told of more changes than it could hold.");
            self.next_listing = now;
        }
        for pod in changes.pods {
            let listed = self.list_pod(&pod, now);
            self.note_failure(listed);
        }
        if !changes.written.is_empty() {
            self.written_since.get_or_insert(now);
            self.written.extend(changes.written);
        }
    }

    fn unwatch(&mut self, error: &io::Error, now: Instant) {
        tracing::warn!(
            %error,
            "The kernel does not tell of changes of log files (are fs.inotify.max_user_watches and max_user_instances \
             large enough?); looking for them all the time instead."
        );
        self.watch = None;
        self.next_listing = now;
    }

    // --- looking

    /// When to look next.
    pub fn look_at(&self) -> Instant {
        self.next_listing.min(self.next_look)
    }

    /// When there may be something to tell the operator, or to ask it.
    pub fn tell_at(&self, now: Instant, may_ask: bool) -> Instant {
        if self.more {
            return now;
        }
        let written = self.written_since.map(|since| self.gathered(since));
        let asking = self
            .streams
            .values()
            .filter(|s| may_ask && s.standing == Standing::Asking);
        let ask = asking.map(|stream| stream.ask_at).min();
        written.into_iter().chain(ask).fold(self.look_at(), Instant::min)
    }

    /// When what was written at `since` has waited long enough for more: not long after a pause.
    fn gathered(&self, since: Instant) -> Instant {
        let steady = self.last_batch.map(|last| last + self.pace.steady);
        steady.into_iter().fold(since + self.pace.gather, Instant::max)
    }

    /// How many bytes there are to read of streams of which nothing is under way, as of the last look.
    pub fn backlog(&self) -> u64 {
        let idle = self.streams.values().filter(|stream| !stream.is_under_way());
        idle.map(Stream::unread).fold(0, u64::saturating_add)
    }

    /// Looks at files that may have changed: opens what is new, forgets what is read. What is under way to the operator
    /// stays as it is.
    pub fn look(&mut self, now: Instant) {
        let written: Vec<_> = std::mem::take(&mut self.written).into_iter().collect();
        for (pod, container) in written {
            self.refresh(&pod, &container, now);
        }
        self.written_since = None;
        if now >= self.next_listing {
            self.list(now);
        }
        let watching = self.watch.is_some();
        let mut at_rest = watching;
        for stream in self.streams.values_mut() {
            if watching && stream.is_steady() {
                continue;
            }
            at_rest = false;
            if let Err(error) = stream.adopt_again(now) {
                tracing::debug!(%error, "A log file can still not be opened.");
            }
            stream.refresh(now);
        }
        self.forget(now);
        self.next_look = if at_rest {
            self.next_listing
        } else {
            now + self.pace.poll
        };
    }

    fn refresh(&mut self, pod: &str, container: &str, now: Instant) {
        let Some(pod) = pod_folder(pod) else { return };
        let first = first_of(&pod, container);
        let of_container = |key: &StreamKey| key.pod_uid == pod.uid && key.container == container;
        for (_, stream) in self
            .streams
            .range_mut(first..)
            .take_while(|(key, _)| of_container(key))
        {
            stream.refresh(now);
        }
    }

    // --- finding streams

    fn list(&mut self, now: Instant) {
        let interval = if self.watch.is_some() {
            WATCHED_LISTING_INTERVAL
        } else {
            LISTING_INTERVAL
        };
        self.next_listing = now + interval;
        // What the kernel has told already is no surprise.
        self.told(now);
        let before = self.unread_and_files();
        let listed = self.list_all(now);
        let found = self.unread_and_files() != before;
        self.failing &= listed.is_err();
        self.note_failure(listed);
        if self.watch.is_some() {
            let missed = found && before.1 > 0 && !self.told(now);
            self.missed = if missed { self.missed + 1 } else { 0 };
            if self.missed >= MAX_MISSED {
                let error = io::Error::other("changes were found of which it did not tell");
                self.unwatch(&error, now);
            }
        }
    }

    /// Something that differs when a listing has found something new.
    fn unread_and_files(&self) -> (u64, usize) {
        let unread = self.streams.values().map(Stream::unread);
        (unread.fold(0, u64::saturating_add), self.streams.len())
    }

    /// One warning until everything could be listed again.
    fn note_failure(&mut self, listed: io::Result<()>) {
        if let Err(error) = listed
            && !std::mem::replace(&mut self.failing, true)
        {
            tracing::warn!(
                folder = %self.folder.display(),
                %error,
                "Log files can not be opened or listed; trying again until they can."
            );
        }
    }

    fn list_all(&mut self, now: Instant) -> io::Result<()> {
        self.ignored.retain(|_, until| *until > now);
        self.watch_folder(&self.folder.clone(), || Place::Root, now);
        let names: BTreeSet<String> = folders(&self.folder)?.into_iter().map(|(name, _)| name).collect();
        let gone: BTreeSet<String> = self.streams.keys().map(folder_name).collect();
        let mut result = Ok(());
        for name in names.iter().chain(gone.difference(&names)) {
            result = self.list_pod(name, now).and(result);
        }
        result
    }

    /// Opens what is new in a pod's folder, and notes what is gone.
    fn list_pod(&mut self, name: &str, now: Instant) -> io::Result<()> {
        let Some(pod) = pod_folder(name) else {
            return Ok(());
        };
        let path = self.folder.join(name);
        self.watch_folder(&path, || Place::Pod(name.to_owned()), now);
        // Per container, the restarts that have a file.
        let mut seen: HashMap<String, BTreeSet<u32>> = HashMap::new();
        let mut result = Ok(());
        for (container, path) in if_exists(folders(&path))? {
            if self.ignored.contains_key(&path) {
                continue;
            }
            let place = || Place::Container(name.to_owned(), container.clone());
            self.watch_folder(&path, place, now);
            let restarts = if_exists(restarts(&path))?;
            result = self.open(&pod, &container, &path, &restarts, now).and(result);
            seen.insert(container, restarts);
        }
        let first = first_of(&pod, "");
        for (key, stream) in self
            .streams
            .range_mut(first..)
            .take_while(|(key, _)| key.pod_uid == pod.uid)
        {
            let restarts = seen.get(&key.container);
            stream.listed = restarts.is_some_and(|all| all.contains(&key.restart));
            if restarts.is_none_or(|all| all.last().is_some_and(|last| *last > key.restart)) {
                stream.over_since.get_or_insert(now);
            }
            stream.refresh(now);
        }
        // To be looked at, and told to the operator, without delay.
        self.next_look = self.next_look.min(now + self.pace.gather);
        result
    }

    fn watch_folder(&mut self, path: &Path, place: impl FnOnce() -> Place, now: Instant) {
        if let Some(watch) = &mut self.watch
            && let Err(error) = watch.add(path, place())
        {
            self.unwatch(&error, now);
        }
    }

    fn open(
        &mut self,
        pod: &PodFolder,
        container: &str,
        path: &Path,
        restarts: &BTreeSet<u32>,
        now: Instant,
    ) -> io::Result<()> {
        let mut result = Ok(());
        for restart in restarts {
            let key = StreamKey {
                restart: *restart,
                ..first_of(pod, container)
            };
            let settle = self.pace.settle;
            let stream = self
                .streams
                .entry(key)
                .or_insert_with_key(|key| Stream::new(key.clone(), path.to_owned(), settle, now));
            result = if_exists(stream.adopt(now)).and(result);
        }
        result
    }

    /// Forgets streams that are read and gone.
    fn forget(&mut self, now: Instant) {
        self.streams.retain(|key, stream| {
            if stream.listed {
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

    /// Streams to ask the operator about now.
    pub fn questions(&self, now: Instant) -> Vec<StreamKey> {
        let asking = self.streams.values();
        asking
            .filter(|stream| stream.standing == Standing::Asking && stream.ask_at <= now)
            .map(|stream| stream.key.clone())
            .take(MAX_QUESTIONS)
            .collect()
    }

    /// Streams to tell the operator of that their files were let go unread.
    pub fn given_up(&self) -> Vec<StreamKey> {
        self.given_up.iter().take(MAX_QUESTIONS).cloned().collect()
    }

    /// The operator knows of the first `count` of these.
    pub fn told_given_up(&mut self, count: usize) {
        self.given_up.drain(..count.min(self.given_up.len()));
    }

    /// The operator's answers to questions.
    pub fn answered(&mut self, questions: &[StreamKey], answers: Vec<StreamState>, now: Instant) {
        for (key, answer) in questions.iter().zip(answers) {
            let Some(stream) = self.streams.get_mut(key) else {
                continue;
            };
            match answer {
                StreamState::Follow { position } => {
                    stream.seek(position);
                    stream.refresh(now);
                    self.next_look = now;
                }
                StreamState::Unknown => stream.ask_at = now + ASK_AGAIN,
                StreamState::Ignore => {
                    let folder = stream.folder().to_owned();
                    if let Some(watch) = &mut self.watch {
                        watch.remove(&folder);
                    }
                    self.ignored.insert(folder, now + ASK_IGNORED_AGAIN);
                    self.streams.remove(key);
                }
            }
        }
    }

    // --- shipping

    /// Chunks of the streams of which nothing is under way.
    pub fn batch(&mut self, now: Instant) -> Option<Batch> {
        let filled = self.turns.fill(&self.buffers, self.streams.values_mut(), now);
        self.more = filled.is_full;
        if filled.batch.is_some() {
            self.last_batch = Some(now);
        }
        filled.batch
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
        self.returned(headers);
        // What was written meanwhile, or could not be read before this was stored.
        self.next_look = self.next_look.min(self.gathered(now));
        stored
    }

    /// A batch is no longer under way: what is not committed is to be read again.
    pub fn returned(&mut self, headers: &[ChunkHeader]) {
        for header in headers {
            if let Some(stream) = self.streams.get_mut(&header.stream) {
                stream.rewind();
            }
        }
    }
}

fn first_of(pod: &PodFolder, container: &str) -> StreamKey {
    StreamKey {
        namespace: pod.namespace.clone(),
        pod: pod.pod.clone(),
        pod_uid: pod.uid.clone(),
        container: container.to_owned(),
        restart: 0,
    }
}

fn folder_name(key: &StreamKey) -> String {
    format!("{}_{}_{}", key.namespace, key.pod, key.pod_uid)
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
