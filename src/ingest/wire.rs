//! What the agent and the operator say to each other.
//!
//! A *stream* is the output of one container between two restarts: all its log files in order, decompressed, as one
//! sequence of bytes. Offsets count bytes of that sequence. The operator keeps the committed offset of each stream, and
//! in which file it lies; the agent keeps nothing.
//!
//! 1. `POST /ingest/v1/streams` ([`StreamsRequest`]): the agent names the streams it sees; for each the operator says
//!    whether to follow it and from where ([`StreamsResponse`]).
//! 2. `POST /ingest/v1/batches`: chunks of several streams. The body is the length of a JSON [`BatchHeader`] as a
//!    big-endian `u32`, the header, then the chunks' bytes one after the other. A chunk is appended only if it starts at
//!    the committed offset ([`BatchResponse`]); whatever the answer, the agent goes on from the position in it.
//!
//! A container's last line may lack its line end; the runtime then marks it as unfinished for ever. So when a container
//! is no more, the agent ships one virtual newline ([`END_OF_STREAM`]) after its last byte: an empty entry, which no
//! runtime writes, ends what is unfinished. It takes one offset like any byte, so it too is appended exactly once.
//!
//! Both need a bearer token of the audience [`AUDIENCE`].

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Audience of the tokens that agents present.
pub const AUDIENCE: &str = "scriptscope-ingest";
/// Path of the request that asks where to go on.
pub const STREAMS_PATH: &str = "/ingest/v1/streams";
/// Path of the request that delivers bytes.
pub const BATCHES_PATH: &str = "/ingest/v1/batches";
/// The largest batch body accepted, in bytes.
pub const MAX_BATCH_BYTES: usize = 8 << 20;

/// What the agent ships after the last byte of a container that is no more.
pub const END_OF_STREAM: &[u8] = b"\n";

/// Why bytes of a stream could not be read: the reasons that an agent gives in [`ChunkHeader::gap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// The file was deleted before it was read to its end.
    FileRotatedAway,
    /// The file became shorter than what was read of it.
    FileTruncated,
    /// The file was written to after its successor was begun.
    WrittenAfterRotation,
    /// Part of the file could not be read.
    Unreadable,
    /// Collected through the API server, and after an interruption nothing came again of what was read before: lines may
    /// be missing. No agent says so.
    ApiFollowInterrupted,
}

impl GapReason {
    /// Every reason.
    pub const ALL: [Self; 5] = [
        Self::FileRotatedAway,
        Self::FileTruncated,
        Self::WrittenAfterRotation,
        Self::Unreadable,
        Self::ApiFollowInterrupted,
    ];

    /// The name on the wire, in metrics and in gap records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FileRotatedAway => "FileRotatedAway",
            Self::FileTruncated => "FileTruncated",
            Self::WrittenAfterRotation => "WrittenAfterRotation",
            Self::Unreadable => "Unreadable",
            Self::ApiFollowInterrupted => "ApiFollowInterrupted",
        }
    }
}

/// One container's output between two restarts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamKey {
    /// Namespace of the pod, as in the name of its log directory.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// Name of the container.
    pub container: String,
    /// How many times the container was restarted: the number in `0.log`.
    pub restart: u32,
}

/// How far a stream is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// Offset in the stream of the first byte not yet committed.
    pub offset: u64,
    /// Identity of the file in which that byte lies (or at whose end it will be); empty before the first batch.
    /// Opaque to the operator; the agent derives it from the file's first line, so that it outlives renaming and
    /// compression.
    pub file: String,
    /// Offset in the stream of that file's first byte.
    pub file_start: u64,
}

/// The streams an agent sees on its node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamsRequest {
    /// Name of the node.
    pub node: String,
    /// The streams.
    pub streams: Vec<StreamKey>,
    /// Streams of deleted pods that the operator never knew, whose files are let go unread.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given_up: Vec<StreamKey>,
}

/// The operator's word on each stream asked for, in the same order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamsResponse {
    /// One a stream.
    pub streams: Vec<StreamState>,
}

/// What to do with a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state")]
pub enum StreamState {
    /// Ship it from here on.
    Follow {
        /// Where to go on.
        position: Position,
    },
    /// It is not a script's. It can become one, when its Deployment is adopted: ask again after a minute, not before.
    Ignore,
    /// The operator has not seen the pod yet. Keep the file open, ship nothing and ask again.
    Unknown,
}

/// First part of a batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchHeader {
    /// Name of the node.
    pub node: String,
    /// The chunks whose bytes follow, in this order.
    pub chunks: Vec<ChunkHeader>,
}

/// What a chunk is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChunkHeader {
    /// The stream.
    pub stream: StreamKey,
    /// Offset in the stream of the chunk's first byte.
    pub offset: u64,
    /// Identity of the file the bytes come from.
    pub file: String,
    /// Offset in the stream of that file's first byte.
    pub file_start: u64,
    /// Number of bytes.
    pub length: u32,
    /// Set when bytes before `offset` can not be read any more: the chunk may then start beyond the committed offset,
    /// and the operator records a gap with this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<String>,
}

/// A chunk as received.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// What it is.
    pub header: ChunkHeader,
    /// Whole CRI lines, but for a last line that its writer never ended.
    pub bytes: Bytes,
}

/// What became of each chunk, in the same order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchResponse {
    /// One a chunk.
    pub chunks: Vec<ChunkResult>,
}

/// What became of a chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result")]
pub enum ChunkResult {
    /// Stored, once.
    Committed {
        /// Where to go on.
        position: Position,
    },
    /// It did not start at the committed offset; nothing was stored.
    Conflict {
        /// Where to go on.
        position: Position,
    },
    /// The stream is not (or no longer) one to follow; ask again on [`STREAMS_PATH`].
    Unknown,
}

/// A batch that can not be read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The body ends too early or goes on too long.
    #[error("the batch has {actual} bytes where its header speaks of {expected}")]
    Length {
        /// Bytes announced.
        expected: u64,
        /// Bytes there.
        actual: u64,
    },
    /// The header is not what it should be.
    #[error("the batch header is not valid: {0}")]
    Header(#[from] serde_json::Error),
}

/// Writes the first part of a batch body; the chunks' bytes follow it.
pub fn encode_header(node: &str, chunks: Vec<ChunkHeader>) -> Result<Vec<u8>, WireError> {
    let mut start = vec![0; 4];
    let node = node.to_owned();
    serde_json::to_writer(&mut start, &BatchHeader { node, chunks })?;
    let length = u32::try_from(start.len() - 4).unwrap_or(u32::MAX);
    start[..4].copy_from_slice(&length.to_be_bytes());
    Ok(start)
}

/// Writes a batch body.
pub fn encode_batch(node: &str, chunks: &[Chunk]) -> Result<Vec<u8>, WireError> {
    let headers = chunks.iter().map(|c| ChunkHeader {
        length: u32::try_from(c.bytes.len()).unwrap_or(u32::MAX),
        ..c.header.clone()
    });
    let mut body = encode_header(node, headers.collect())?;
    body.reserve(chunks.iter().map(|c| c.bytes.len()).sum());
    for chunk in chunks {
        body.extend_from_slice(&chunk.bytes);
    }
    Ok(body)
}

/// Reads a batch body; the chunks share its memory.
pub fn decode_batch(body: &Bytes) -> Result<(String, Vec<Chunk>), WireError> {
    let short = |expected: u64| WireError::Length {
        expected,
        actual: body.len() as u64,
    };
    let length: [u8; 4] = body
        .get(..4)
        .and_then(|b| b.try_into().ok())
        .ok_or_else(|| short(4))?;
    let start = 4 + u32::from_be_bytes(length) as usize;
    let header: BatchHeader = serde_json::from_slice(body.get(4..start).ok_or_else(|| short(start as u64))?)?;
    let mut at = start;
    let expected = start as u64 + header.chunks.iter().map(|c| u64::from(c.length)).sum::<u64>();
    if expected != body.len() as u64 {
        return Err(short(expected));
    }
    let chunks = header
        .chunks
        .into_iter()
        .map(|header| {
            let end = at + header.length as usize;
            let bytes = body.slice(at..end);
            at = end;
            Chunk { header, bytes }
        })
        .collect();
    Ok((header.node, chunks))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(restart: u32, bytes: &'static [u8]) -> Chunk {
        Chunk {
            header: ChunkHeader {
                stream: StreamKey {
                    namespace: "shop".into(),
                    pod: "p".into(),
                    pod_uid: "u".into(),
                    container: "script".into(),
                    restart,
                },
                offset: 7,
                file: "f".into(),
                file_start: 0,
                length: u32::try_from(bytes.len()).unwrap(),
                gap: None,
            },
            bytes: Bytes::from_static(bytes),
        }
    }

    #[test]
    fn a_batch_arrives_as_it_was_sent() {
        let sent = [chunk(0, b"one\n"), chunk(1, b""), chunk(2, b"three\n")];
        let body = Bytes::from(encode_batch("node0", &sent).unwrap());
        let (node, received) = decode_batch(&body).unwrap();
        assert_eq!(node, "node0");
        for (a, b) in sent.iter().zip(&received) {
            assert_eq!((&a.header, &a.bytes), (&b.header, &b.bytes));
        }
    }

    #[test]
    fn a_cut_or_padded_batch_is_refused() {
        let body = encode_batch("node0", &[chunk(0, b"one\n")]).unwrap();
        for length in 0..body.len() {
            assert!(
                decode_batch(&Bytes::copy_from_slice(&body[..length])).is_err(),
                "{length}"
            );
        }
        let padded = [&body[..], b"x"].concat();
        assert!(decode_batch(&Bytes::from(padded)).is_err());
    }
}
