//! What goes into a batch: fair to the quiet, large for the busy.

use std::time::Instant;

use super::{
    buffers::{Buffer, Buffers},
    held::MAX_CHUNK_BYTES,
    node::Batch,
    stream::Stream,
};
use crate::ingest::wire::{ChunkHeader, MAX_BATCH_BYTES, StreamKey};

/// How many batches are on their way at once. Each is of other streams than the rest, so none depends on another's
/// answer: the operator parses two while it stores the third.
pub(super) const LANES: usize = 3;
/// The most bytes of streams in a batch; the rest is left to its header.
pub(super) const BATCH_BYTES: usize = MAX_BATCH_BYTES - (1 << 20);
/// The most chunks in a batch.
const MAX_CHUNKS: usize = 1_000;
/// A stream with no more than this to read has its turn in every batch.
const QUIET_BYTES: u64 = 64 << 10;
/// Less room than this in a batch is left empty, so that chunks stay large.
const MIN_ROOM: usize = 64 << 10;
/// So many compressed files are read at once, since a decoder takes memory.
const MAX_DECODERS: usize = 16;

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The streams served last, of those with little and of those with much to read.
    quiet: Option<StreamKey>,
    busy: Option<StreamKey>,
    /// Number of the last batch.
    batch: u64,
}

impl Turns {
    /// Fills a batch from streams of which nothing is under way. First those that have little to read, which takes at most
    /// half of it where others wait; then large chunks of a share of the others, so that there is something left to do in
    /// another lane.
    pub fn fill<'a>(
        &mut self,
        buffers: &Buffers,
        streams: impl Iterator<Item = &'a mut Stream>,
        now: Instant,
    ) -> Filled {
        self.batch += 1;
        let (mut quiet, mut busy, mut waiting, mut decoders) = (Vec::new(), Vec::new(), 0, 0);
        for stream in streams {
            decoders += usize::from(stream.is_decoding());
            let unread = stream.unread();
            let is_busy = unread > QUIET_BYTES;
            waiting += usize::from(is_busy);
            if stream.is_under_way() || stream.is_steady() {
                continue;
            }
            if is_busy { &mut busy } else { &mut quiet }.push(stream);
        }
        rotate(&mut quiet, self.quiet.as_ref());
        rotate(&mut busy, self.busy.as_ref());
        let share = waiting.div_ceil(LANES).max(1);
        let is_more = busy.len() > share;
        busy.truncate(share);

        let mut filling = Filling {
            number: self.batch,
            buffer: buffers.take(),
            headers: Vec::new(),
            decoders,
            is_full: is_more,
        };
        let share = if busy.is_empty() {
            BATCH_BYTES
        } else {
            BATCH_BYTES / 2
        };
        filling.turn(&mut quiet, share, now, &mut self.quiet);
        filling.turn(&mut busy, BATCH_BYTES, now, &mut self.busy);
        // Further turns are extra.
        let mut before = 0;
        while filling.headers.len() > before {
            before = filling.headers.len();
            filling.turn(&mut busy, BATCH_BYTES, now, &mut None);
        }
        Filled {
            is_full: filling.is_full,
            batch: (!filling.headers.is_empty()).then(|| Batch {
                headers: filling.headers,
                bytes: filling.buffer.freeze(),
            }),
        }
    }
}

/// A batch, if there was anything to put into it.
pub(super) struct Filled {
    pub batch: Option<Batch>,
    /// There was more than it took.
    pub is_full: bool,
}

struct Filling {
    number: u64,
    buffer: Buffer,
    headers: Vec<ChunkHeader>,
    decoders: usize,
    is_full: bool,
}

impl Filling {
    /// A chunk of each stream while the batch has at most `limit` bytes.
    fn turn(
        &mut self,
        streams: &mut [&mut Stream],
        limit: usize,
        now: Instant,
        served: &mut Option<StreamKey>,
    ) {
        for stream in streams {
            let room = limit.saturating_sub(self.buffer.len());
            if room < MIN_ROOM.min(limit) || self.headers.len() >= MAX_CHUNKS {
                self.is_full = true;
                return;
            }
            if stream.is_under_way() && stream.batch != self.number {
                continue;
            }
            let was_decoding = stream.is_decoding();
            if stream.is_compressed() && !was_decoding && self.decoders >= MAX_DECODERS {
                continue;
            }
            let header = stream.chunk(&mut self.buffer, now);
            self.decoders += usize::from(stream.is_decoding());
            self.decoders -= usize::from(was_decoding);
            if let Some(header) = header {
                stream.batch = self.number;
                *served = Some(stream.key.clone());
                self.headers.push(header);
            }
        }
    }
}

/// Puts the streams after the one served last first.
fn rotate(streams: &mut [&mut Stream], served: Option<&StreamKey>) {
    if let Some(served) = served {
        let first = streams.partition_point(|stream| stream.key <= *served);
        streams.rotate_left(first);
    }
}

/// The buffers that batches need.
pub(super) fn buffers() -> Buffers {
    const { assert!(BATCH_BYTES > 2 * MAX_CHUNK_BYTES) };
    Buffers::new(BATCH_BYTES)
}
