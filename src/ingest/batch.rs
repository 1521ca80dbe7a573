//! What a batch asks of the store: which chunks go on where their stream stands, and what they say.

use std::collections::HashMap;

use jiff::Timestamp;

use super::{
    parse::Parser,
    record::Event,
    wire::{Chunk, ChunkHeader, END_OF_STREAM, GapReason, Position, StreamKey},
};
use crate::{
    model::RunStatus,
    store::{Append, Gap, LastWord, StreamCheckpoint},
};

/// Reason of the gap where a stream's parser state was unreadable and unfinished lines are lost.
const CARRY_UNREADABLE: &str = "CarryUnreadable";
/// Reason recorded where an agent names one that is not known here.
const OTHER: &str = "Other";
const MAX_FILE_NAME: usize = 256;

/// The chunks of one stream, in the order of the batch.
pub(super) struct StreamChunks {
    pub stream: StreamKey,
    /// With their places in the batch.
    pub chunks: Vec<(usize, Chunk)>,
}

/// Chunks by stream, streams in the order of their first chunk.
pub(super) fn by_stream(chunks: Vec<Chunk>) -> Vec<StreamChunks> {
    let mut places: HashMap<StreamKey, usize> = HashMap::new();
    let mut streams: Vec<StreamChunks> = Vec::new();
    for (index, chunk) in chunks.into_iter().enumerate() {
        let stream = &chunk.header.stream;
        let place = *places.entry(stream.clone()).or_insert_with(|| {
            streams.push(StreamChunks {
                stream: stream.clone(),
                chunks: Vec::new(),
            });
            streams.len() - 1
        });
        streams[place].chunks.push((index, chunk));
    }
    streams
}

/// Says which field of a header can not be.
pub(super) fn check(header: &ChunkHeader) -> Result<(), String> {
    let end = header.offset.checked_add(u64::from(header.length));
    if end.is_none_or(|end| i64::try_from(end).is_err()) {
        return Err("offset: beyond what a stream can hold".to_owned());
    }
    if header.file_start > header.offset {
        return Err("fileStart: must not be greater than offset".to_owned());
    }
    if header.file.len() > MAX_FILE_NAME {
        return Err(format!("file: longer than {MAX_FILE_NAME} bytes"));
    }
    Ok(())
}

/// Whether the first chunk goes on where the stream stands.
pub(super) fn follows(first: &ChunkHeader, committed: u64) -> bool {
    first.offset == committed || (first.gap.is_some() && first.offset > committed)
}

/// How many chunks go on one after the other from the committed offset. A gap can only come first.
fn accepted(chunks: &[(usize, Chunk)], committed: u64) -> usize {
    let mut end = committed;
    chunks
        .iter()
        .enumerate()
        .take_while(|(place, (_, chunk))| {
            let header = &chunk.header;
            let goes_on = match place {
                0 => follows(header, end),
                _ => header.offset == end && header.gap.is_none(),
            };
            end = header.offset.saturating_add(chunk.bytes.len() as u64);
            goes_on
        })
        .count()
}

/// A stream's part of a batch, ready to be stored.
pub(super) struct Ready {
    pub stream: StreamKey,
    pub checkpoint: StreamCheckpoint,
    /// Places in the batch of the chunks that go on where the stream stands.
    pub accepted: Vec<usize>,
    /// Places of the others.
    pub refused: Vec<usize>,
    /// None where there is nothing to store.
    pub prepared: Option<Prepared>,
}

/// An append, and what will have happened once it is stored.
pub(super) struct Prepared {
    pub append: Append,
    pub effect: Effect,
}

/// What a stored append counts as.
pub(super) struct Effect {
    pub carry: Vec<u8>,
    pub gap: Option<Gap>,
    pub last_word: Option<LastWord>,
    pub bytes: u64,
    pub lines: u64,
    pub ended: Vec<(RunStatus, i64)>,
    pub newest: Option<Timestamp>,
}

/// Parses what goes on where its stream stands.
pub(super) fn ready(group: StreamChunks, checkpoint: StreamCheckpoint, received: Timestamp) -> Ready {
    let count = accepted(&group.chunks, checkpoint.position.offset);
    let (accepted, refused) = group.chunks.split_at(count);
    let places = |chunks: &[(usize, Chunk)]| chunks.iter().map(|(place, _)| *place).collect();
    Ready {
        prepared: prepare(&checkpoint, accepted, received),
        accepted: places(accepted),
        refused: places(refused),
        stream: group.stream,
        checkpoint,
    }
}

/// Parses chunks that [`accepted`] let through. None where there is nothing to store.
fn prepare(
    checkpoint: &StreamCheckpoint,
    chunks: &[(usize, Chunk)],
    received: Timestamp,
) -> Option<Prepared> {
    let (first, last) = (&chunks.first()?.1.header, &chunks.last()?.1.header);
    let bytes: u64 = chunks.iter().map(|(_, c)| c.bytes.len() as u64).sum();
    if bytes == 0 {
        return None;
    }
    let committed = checkpoint.position.offset;
    let mut gap = first.gap.as_deref().map(|reason| Gap {
        reason: known_reason(reason).to_owned(),
        bytes: first.offset - committed,
    });
    let mut parser = Parser::resume(&checkpoint.carry, committed, received).unwrap_or_else(|error| {
        tracing::warn!(stream = checkpoint.id, %error, "Unfinished lines of a stream are lost.");
        gap.get_or_insert(Gap {
            reason: CARRY_UNREADABLE.to_owned(),
            bytes: 0,
        });
        Parser::new(committed, received)
    });
    if first.gap.is_some() {
        parser.skip_to(first.offset);
    }
    for (_, chunk) in chunks {
        parser.feed(&chunk.bytes);
    }
    let parsed = parser.finish();
    let ends = chunks.last().is_some_and(|(_, chunk)| is_end(&chunk.bytes));
    let stopped = parsed.records.stopped.as_ref();
    let last_word = match stopped.map(|stopped| stopped.token.clone()) {
        Some(token) => Some(LastWord::RunnerStopped { token }),
        None => ends.then_some(LastWord::EndOfFiles),
    };
    let lines = parsed.records.lines.len() as u64;
    let ended = parsed.records.events().filter_map(|event| match event {
        Event::Finished(run) => Some((run.status, run.duration_micros)),
        Event::Started(_) => None,
    });
    let ended = ended.collect();
    Some(Prepared {
        append: Append {
            stream: checkpoint.id,
            expected_offset: committed,
            position: Position {
                offset: parsed.offset,
                file: last.file.clone(),
                file_start: last.file_start,
            },
            carry: parsed.carry.clone(),
            records: parsed.records,
            gap: gap.clone(),
            last_word: last_word.clone(),
        },
        effect: Effect {
            carry: parsed.carry,
            gap,
            last_word,
            bytes,
            lines,
            ended,
            newest: parsed.newest,
        },
    })
}

/// Whether the agent says by these bytes that the stream ends here: a line that is empty, which no runtime writes.
fn is_end(bytes: &[u8]) -> bool {
    let before = bytes.strip_suffix(END_OF_STREAM);
    before.is_some_and(|before| before.is_empty() || before.ends_with(b"\n"))
}

/// The reason if it is one of the fixed set, since reasons become metric labels.
fn known_reason(reason: &str) -> &'static str {
    GapReason::ALL
        .into_iter()
        .map(GapReason::as_str)
        .find(|known| *known == reason)
        .unwrap_or(OTHER)
}
