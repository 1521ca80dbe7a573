//! One stream: its files, held open from the moment they appear, and how far they are shipped.

use std::{
    collections::{HashSet, VecDeque},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    buffers::Buffer,
    follow::{self, Facts, Listed, Located, Settle, Step},
    held::{Held, MAX_CHUNK_BYTES, list},
};
use crate::ingest::wire::{ChunkHeader, ChunkResult, END_OF_STREAM, GapReason, Position, StreamKey};

/// So many files of a stream are kept open though they were deleted: a disk must not fill because of us.
pub(super) const MAX_HELD_FILES: usize = 32;
/// So many files that were read are remembered, to recognise their compressed copies.
const MAX_DONE: usize = 64;
/// A folder that changes while it is listed is listed again, so many times before the next round.
const LISTINGS: usize = 3;
/// How long a file that was read is watched for late writes.
const WATCH: Duration = Duration::from_secs(10);

/// How a stream stands with the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The operator has yet to say whether to follow it.
    Asking,
    /// It is followed.
    Following,
    /// It is shipped to its end.
    Ended,
}

/// One stream.
pub(super) struct Stream {
    pub key: StreamKey,
    pub standing: Standing,
    /// When to ask the operator (again).
    pub ask_at: Instant,
    /// Since when its container is no more.
    pub over_since: Option<Instant>,
    /// Its folder has a file of it.
    pub listed: bool,
    /// Number of the batch that its last chunk was put into.
    pub batch: u64,
    folder: PathBuf,
    settle: Settle,
    /// In the order they were written; the first is being read.
    files: VecDeque<Held>,
    /// The file read last, and when that was.
    left: Option<(Held, Instant)>,
    /// Rotation times and identities of files that were read.
    done: HashSet<String>,
    done_identities: VecDeque<String>,
    listing: Listing,
    committed: Position,
    /// Offset of the next byte to ship; ahead of `committed` while a batch is under way.
    next: u64,
    end_shipped: bool,
    /// Offset in the stream of the first file's first byte, once known.
    first_start: Option<u64>,
    gap: Option<GapReason>,
    /// Bytes known to be lost in that gap.
    lost: u64,
    gap_told: Told,
}

/// Whether `files` are what the folder has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listing {
    Done,
    /// The folder could not be listed, or a file not opened.
    Again,
    /// Files that were read may be needed again, and are to be put in order.
    FromStart,
}

/// Whether the operator was told of a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    No,
    /// It is in the batch under way.
    UnderWay,
    /// It was in an earlier one, so it is stored if the committed offset has moved.
    Perhaps,
}

impl Stream {
    pub fn new(key: StreamKey, folder: PathBuf, settle: Settle, now: Instant) -> Self {
        Self {
            key,
            standing: Standing::Asking,
            ask_at: now,
            over_since: None,
            listed: true,
            batch: 0,
            folder,
            settle,
            files: VecDeque::new(),
            left: None,
            done: HashSet::new(),
            done_identities: VecDeque::new(),
            listing: Listing::Done,
            committed: Position::default(),
            next: 0,
            end_shipped: false,
            first_start: None,
            gap: None,
            lost: 0,
            gap_told: Told::No,
        }
    }

    /// Whether it was read to its end, or there is nothing to read any more.
    pub fn is_finished(&self) -> bool {
        self.standing == Standing::Ended || (self.over_since.is_some() && self.files.is_empty())
    }

    /// The container's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether bytes of it are on their way to the operator.
    pub fn is_under_way(&self) -> bool {
        self.end_shipped || !self.is_settled()
    }

    fn is_settled(&self) -> bool {
        self.next == self.committed.offset + self.lost
    }

    /// How many bytes there are to read; of compressed files, which do not say, a chunk's worth.
    pub fn unread(&self) -> u64 {
        if self.standing != Standing::Following || self.end_shipped {
            return 0;
        }
        let size = |file: &Held| {
            if file.file.is_compressed() {
                MAX_CHUNK_BYTES as u64
            } else {
                file.size
            }
        };
        let start = self.first_start.unwrap_or(self.next);
        let all: u64 = self.files.iter().map(size).sum();
        match self.files.front() {
            Some(first) if first.file.is_compressed() => all,
            _ => all.saturating_sub(self.next.saturating_sub(start)),
        }
    }

    /// Whether there is nothing to do before something is written or the folder changes.
    pub fn is_steady(&self) -> bool {
        match self.standing {
            Standing::Ended => true,
            Standing::Asking => self.listing == Listing::Done,
            Standing::Following => {
                let waits = self.over_since.is_some() || self.left.is_some() || self.files.len() > 1;
                !waits && self.listing == Listing::Done && self.unread() == 0
            }
        }
    }

    /// Whether reading it takes a decoder.
    pub fn is_compressed(&self) -> bool {
        self.files.front().is_some_and(|file| file.file.is_compressed())
    }

    /// Whether it holds one.
    pub fn is_decoding(&self) -> bool {
        self.files.iter().any(|file| file.file.is_decoding())
    }

    // --- what the operator says

    /// Follow the stream from here on.
    pub fn seek(&mut self, position: Position) {
        self.standing = Standing::Following;
        if position != self.committed {
            // The bytes after the gap are stored; only the answer was lost.
            if self.gap_told != Told::No && position.offset > self.committed.offset {
                self.gap = None;
                self.gap_told = Told::No;
            }
            self.lost = 0;
        }
        if !self.is_at(&position) {
            self.first_start = None;
            if !self.done.is_empty() {
                self.listing = Listing::FromStart;
            }
            self.done.clear();
            self.done_identities.clear();
        }
        self.committed = position;
        self.rewind();
    }

    /// Whether the first file is where a position lies, or begins at it.
    fn is_at(&self, position: &Position) -> bool {
        let Some(start) = self.first_start else {
            return false;
        };
        let first = self.files.front().and_then(|file| file.identity.as_deref());
        let is_in_first = first == Some(&*position.file) && start == position.file_start;
        let is_at_end_of_last =
            position.offset == start && self.done_identities.back() == Some(&position.file);
        is_in_first || is_at_end_of_last || *position == self.committed
    }

    /// What became of a chunk. Chunks are answered in the order they were shipped. Where the operator no longer knows
    /// the stream, it is asked at `ask_at`.
    pub fn acknowledge(&mut self, result: &ChunkResult, ask_at: Instant) {
        match result {
            ChunkResult::Committed { position } => {
                if self.gap_told == Told::UnderWay {
                    self.gap = None;
                    self.lost = 0;
                    self.gap_told = Told::No;
                }
                self.committed = position.clone();
                if self.end_shipped && position.offset == self.next {
                    self.end();
                }
            }
            ChunkResult::Conflict { position } => self.seek(position.clone()),
            ChunkResult::Unknown => {
                self.standing = Standing::Asking;
                self.ask_at = ask_at;
                self.rewind();
                self.files.iter_mut().for_each(|file| file.file.rest());
            }
        }
    }

    /// Nothing that is shipped and not committed counts.
    pub fn rewind(&mut self) {
        self.next = self.committed.offset + self.lost;
        self.end_shipped = false;
        if self.gap_told == Told::UnderWay {
            self.gap_told = Told::Perhaps;
        }
    }

    fn end(&mut self) {
        self.standing = Standing::Ended;
        self.files.clear();
        self.left = None;
    }

    // --- what the file system says

    /// Lists the folder and opens what is new in it.
    pub fn adopt(&mut self, now: Instant) -> io::Result<()> {
        if self.standing == Standing::Ended {
            return Ok(());
        }
        let mut adopted = Ok(false);
        for _ in 0..LISTINGS {
            adopted = self.adopt_listing(now);
            if !matches!(adopted, Ok(false)) {
                break;
            }
        }
        self.listing = match (&adopted, self.listing) {
            (Ok(true), _) => Listing::Done,
            (_, Listing::Done) => Listing::Again,
            (_, before) => before,
        };
        adopted.map(|_| ())
    }

    /// Tries again what [`Self::adopt`] could not do.
    pub fn adopt_again(&mut self, now: Instant) -> io::Result<()> {
        match self.listing {
            Listing::Done => Ok(()),
            Listing::Again | Listing::FromStart => self.adopt(now),
        }
    }

    fn list(&self) -> io::Result<Vec<Listed>> {
        match list(&self.folder, self.key.restart) {
            // The pod is deleted: there is what is open, and nothing else.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        }
    }

    /// Says whether the folder kept still meanwhile.
    fn adopt_listing(&mut self, now: Instant) -> io::Result<bool> {
        let mut listed = self.list()?;
        // A compressed copy is recognised by its first line, which may have come since the last look.
        self.files.iter_mut().for_each(|file| file.refresh(now));
        let held: Vec<_> = self.files.iter().map(|f| (f.inode, f.name.clone())).collect();
        let changes = follow::compare(&held, &listed, &self.done);
        let mut opened = Vec::new();
        for file in &changes.open {
            opened.extend(Held::open(&self.folder, file, now)?);
        }
        let has_more = !opened.is_empty();
        // A file renamed in between would be opened under a wrong name or missed. One that was removed in between, as all
        // are when the pod is deleted, is kept where it could be opened: nobody can open it again.
        if !changes.open.is_empty() {
            let again = self.list()?;
            if again.iter().any(|file| !listed.contains(file)) {
                return Ok(false);
            }
            listed = again;
        }
        for (place, name) in changes.renamed {
            self.files[place].name = name;
        }
        let before = self.files.len();
        for file in opened {
            self.hold(file);
        }
        // A folder without any file is that of a deleted pod.
        self.find_hole(before, &listed);
        self.done
            .retain(|time| listed.iter().any(|f| f.name.rotated.as_ref() == Some(time)));
        if has_more && self.listing == Listing::FromStart {
            let files = self.files.make_contiguous();
            files.sort_by(|a, b| a.name.order().cmp(&b.name.order()));
        }
        Ok(true)
    }

    /// Where the file that was being written is listed no more, not even as a copy, kubelet has removed it with all that
    /// was older than what is listed: with files, maybe, that nobody saw. `before` files were held before the listing.
    fn find_hole(&mut self, before: usize, listed: &[Listed]) {
        let Some(newest) = before.checked_sub(1).and_then(|at| self.files.get_mut(at)) else {
            return;
        };
        if !listed.is_empty()
            && newest.name.rotated.is_none()
            && listed.iter().all(|file| file.inode != newest.inode)
        {
            // Older than any that has a time.
            newest.name.rotated = Some(String::new());
            if let Some(next) = self.files.get_mut(before) {
                next.after_hole = true;
            }
        }
    }

    fn hold(&mut self, file: Held) {
        let is_same = |id: Option<&String>| id.is_some() && id == file.identity.as_ref();
        let held = self.files.iter_mut().find(|held| is_same(held.identity.as_ref()));
        if !file.file.is_compressed() {
            self.files.push_back(file);
        } else if let Some(held) = held {
            // Rotated and compressed since the last look: that is the name the open one had in between. Its order depends on
            // it.
            held.name.rotated.clone_from(&file.name.rotated);
            self.done.extend(file.name.rotated);
        } else if self.done_identities.iter().any(|id| is_same(Some(id))) {
            // A compressed copy of one that was read. Not to be opened again.
            self.done.extend(file.name.rotated);
        } else {
            self.files.push_back(file);
        }
    }

    /// Looks how the open files have changed.
    pub fn refresh(&mut self, now: Instant) {
        for held in &mut self.files {
            held.refresh(now);
        }
        if let Some((file, since)) = &mut self.left {
            let size = file.size;
            file.refresh(now);
            if file.size > size && !file.file.is_compressed() {
                tracing::warn!(
                    pod = self.key.pod,
                    container = self.key.container,
                    bytes = file.size - size,
                    "A log file was written to after it was rotated and read."
                );
                self.gap = Some(GapReason::WrittenAfterRotation);
            }
            if now.duration_since(*since) > WATCH {
                self.left = None;
            }
        }
        while self.files.len() > MAX_HELD_FILES
            && !self.is_under_way()
            && self.files.front().is_some_and(|file| file.deleted)
        {
            self.give_up_first(now);
        }
    }

    /// Lets the first file go; a gap if it was not read to its end.
    fn give_up_first(&mut self, now: Instant) {
        let unread = match (self.files.front(), self.first_start) {
            (Some(first), Some(start)) if !first.file.is_compressed() => {
                Some((start + first.size).saturating_sub(self.next))
            }
            _ => None,
        };
        if unread == Some(0) {
            self.next_file(now);
            return;
        }
        self.files.pop_front();
        self.gap = Some(GapReason::FileRotatedAway);
        self.lost += unread.unwrap_or(0);
        self.next = self.committed.offset + self.lost;
        self.first_start = self.first_start.map(|_| self.next);
    }

    // --- reading

    /// Reads the next bytes to ship into `buffer`, as many as it takes.
    pub fn chunk(&mut self, buffer: &mut Buffer, now: Instant) -> Option<ChunkHeader> {
        loop {
            if self.standing != Standing::Following || self.end_shipped || self.listing == Listing::FromStart
            {
                return None;
            }
            let start = self.first_start.or_else(|| self.locate(now))?;
            let has_successor = self.files.iter().skip(1).any(|file| file.size > 0);
            let is_over = self.over_since.is_some();
            let read = self.next.saturating_sub(start);
            let first = self.files.front_mut()?;
            let facts = Facts {
                size: if first.file.is_compressed() {
                    first.end
                } else {
                    Some(first.size)
                },
                read,
                is_complete: first.file.is_compressed(),
                has_successor,
                is_over,
                quiet: now.duration_since(first.changed),
            };
            let step = follow::step(&facts, self.settle);
            let is_settled = self.next == self.committed.offset + self.lost;
            match step {
                Step::Read { sealed } => match first.read(read, buffer.rest(), sealed) {
                    Ok(Some((file, count))) => {
                        buffer.fill(count);
                        return Some(self.chunk_of(file, start, count));
                    }
                    // The end of a compressed file is known only now.
                    Ok(None) if first.end.is_some() => {}
                    Ok(None) => return None,
                    Err(error) => {
                        self.unreadable(read, &error);
                        return None;
                    }
                },
                Step::Wait => return None,
                Step::Ended => {
                    self.end();
                    return None;
                }
                // The rest changes what a rewind would go back to.
                _ if !is_settled => return None,
                Step::Truncated => {
                    first.identity = None;
                    first.refresh(now);
                    self.gap = Some(GapReason::FileTruncated);
                    self.first_start = Some(self.next);
                }
                Step::NextFile => self.next_file(now),
                Step::End => return self.end_chunk(start, buffer),
            }
        }
    }

    /// Finds the committed position; gives the offset at which its file starts.
    fn locate(&mut self, now: Instant) -> Option<u64> {
        // A file that was rotated while it was empty never gets a first line by which to know it.
        while self.files.iter().skip(1).any(|file| file.identity.is_some())
            && let Some(empty) = self
                .files
                .pop_front_if(|file| file.is_empty_for(self.settle.rotated, now))
        {
            self.done.extend(empty.name.rotated);
        }
        let identities: Vec<_> = self.files.iter().map(|file| file.identity.as_deref()).collect();
        let start = match follow::locate(&identities, &self.committed) {
            Located::NotYet => return None,
            Located::Lost => {
                self.gap = Some(GapReason::FileRotatedAway);
                self.next
            }
            Located::In(place) => {
                for _ in 0..place {
                    self.next_file(now);
                }
                self.committed.file_start
            }
        };
        self.first_start = Some(start);
        self.first_start
    }

    fn next_file(&mut self, now: Instant) {
        if let Some(file) = self.files.pop_front() {
            self.done.extend(file.name.rotated.clone());
            self.done_identities.extend(file.identity.clone());
            if self.done_identities.len() > MAX_DONE {
                self.done_identities.pop_front();
            }
            self.left = Some((file, now));
        }
        self.first_start = Some(self.next);
        if self.files.front().is_some_and(|file| file.after_hole) {
            self.gap = Some(GapReason::FileRotatedAway);
        }
    }

    fn chunk_of(&mut self, file: String, file_start: u64, count: usize) -> ChunkHeader {
        let gap = self.gap.filter(|_| self.is_settled());
        let header = ChunkHeader {
            stream: self.key.clone(),
            offset: self.next,
            file,
            file_start,
            length: u32::try_from(count).unwrap_or(u32::MAX),
            gap: gap.map(|reason| reason.as_str().to_owned()),
        };
        if gap.is_some() {
            self.gap_told = Told::UnderWay;
        }
        self.next += count as u64;
        header
    }

    fn end_chunk(&mut self, start: u64, buffer: &mut Buffer) -> Option<ChunkHeader> {
        buffer
            .rest()
            .get_mut(..END_OF_STREAM.len())?
            .copy_from_slice(END_OF_STREAM);
        buffer.fill(END_OF_STREAM.len());
        // An empty file has no identity; the end then lies at the end of the file before.
        let (file, start) = match self.files.front().and_then(|file| file.identity.clone()) {
            Some(identity) => (identity, start),
            None => (self.committed.file.clone(), self.committed.file_start),
        };
        let header = self.chunk_of(file, start, END_OF_STREAM.len());
        self.end_shipped = true;
        Some(header)
    }

    /// A damaged compressed file ends here; anything else is tried again.
    fn unreadable(&mut self, read: u64, error: &io::Error) {
        tracing::warn!(
            pod = self.key.pod,
            container = self.key.container,
            offset = read,
            %error,
            "A log file can not be read."
        );
        if let Some(first) = self.files.front_mut()
            && first.file.is_compressed()
        {
            first.end = Some(read);
            first.file.rest();
            self.gap = Some(GapReason::Unreadable);
        }
    }
}
