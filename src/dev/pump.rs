//! From a runner's pipes into the store, by the same service that takes in what node agents ship.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{ChildStderr, ChildStdout},
    time::{Instant, sleep, timeout_at},
};

use super::{
    framing::{Framer, Output},
    print::{Printer, Teller},
};
use crate::ingest::{
    AgentIdentity, Ingest, IngestError,
    parse::Parser,
    wire::{Chunk, ChunkHeader, ChunkResult, END_OF_STREAM, StreamKey},
};

/// What is read of a pipe at once: as much as it holds.
const READ_BYTES: usize = 64 << 10;
/// So many bytes are stored at once.
const MAX_CHUNK_BYTES: usize = 512 << 10;
/// How long what is read waits for more, so that a short run is one commit and not three.
const GATHER: Duration = Duration::from_millis(5);
/// Pauses after the store could not take something.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// What is kept of standard error, for the reason why a runner did not begin.
const LAST_BYTES: usize = 4 << 10;
/// Name of the one file that there is, so to speak.
const PIPE: &str = "pipe";

/// What a runner prints, on its way.
pub struct Pump {
    ingest: Arc<Ingest>,
    printer: Printer,
    teller: Teller,
    key: StreamKey,
    offset: u64,
    /// Not stored yet.
    log: Vec<u8>,
    /// Of the parser that reads for the terminal.
    carry: Vec<u8>,
    last: VecDeque<u8>,
}

/// One of the two pipes.
struct Source<R> {
    pipe: Option<R>,
    framer: Framer,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Source<R> {
    fn new(pipe: R, output: Output) -> Self {
        Self {
            pipe: Some(pipe),
            framer: Framer::new(output),
            buffer: vec![0; READ_BYTES],
        }
    }

    /// How much was read into the buffer; nothing at the end. Never ready after it.
    async fn read(&mut self) -> usize {
        let Some(pipe) = &mut self.pipe else {
            return std::future::pending().await;
        };
        let read = pipe.read(&mut self.buffer).await.unwrap_or(0);
        if read == 0 {
            self.pipe = None;
        }
        read
    }
}

impl Pump {
    /// For the stream `key`, of which nothing is stored.
    pub fn new(ingest: Arc<Ingest>, printer: Printer, key: StreamKey, version: i64) -> Self {
        Self {
            ingest,
            printer,
            teller: Teller::new(version),
            key,
            offset: 0,
            log: Vec::new(),
            carry: Vec::new(),
            last: VecDeque::new(),
        }
    }

    /// Stores everything until both pipes end; the last words on standard error.
    pub async fn run(mut self, stdout: ChildStdout, stderr: ChildStderr) -> String {
        let mut stdout = Source::new(stdout, Output::Stdout);
        let mut stderr = Source::new(stderr, Output::Stderr);
        while stdout.pipe.is_some() || stderr.pipe.is_some() {
            self.read(&mut stdout, &mut stderr).await;
            let until = Instant::now() + GATHER;
            while self.log.len() < MAX_CHUNK_BYTES
                && (stdout.pipe.is_some() || stderr.pipe.is_some())
                && timeout_at(until, self.read(&mut stdout, &mut stderr))
                    .await
                    .is_ok()
            {}
            self.store().await;
        }
        stdout.framer.end(Timestamp::now(), &mut self.log);
        stderr.framer.end(Timestamp::now(), &mut self.log);
        self.store().await;
        self.log.extend_from_slice(END_OF_STREAM);
        self.store().await;
        String::from_utf8_lossy(self.last.make_contiguous())
            .trim()
            .to_owned()
    }

    /// Reads once; nothing is lost when the future is dropped.
    async fn read(&mut self, stdout: &mut Source<ChildStdout>, stderr: &mut Source<ChildStderr>) {
        tokio::select! {
            read = stdout.read() => {
                let bytes = stdout.buffer.get(..read).unwrap_or_default();
                stdout.framer.push(bytes, Timestamp::now(), &mut self.log);
            }
            read = stderr.read() => {
                let bytes = stderr.buffer.get(..read).unwrap_or_default();
                stderr.framer.push(bytes, Timestamp::now(), &mut self.log);
                self.last.extend(bytes);
                self.last.drain(..self.last.len().saturating_sub(LAST_BYTES));
            }
        }
    }

    /// Stores what was read, however long that takes, and shows it.
    async fn store(&mut self) {
        if self.log.is_empty() {
            return;
        }
        let bytes = Bytes::from(std::mem::take(&mut self.log));
        let end = self.offset + bytes.len() as u64;
        let mut pause = PAUSE.0;
        loop {
            match self.append(&bytes).await {
                Ok(committed) if committed == end => break,
                Ok(committed) => {
                    tracing::error!(
                        committed,
                        end,
                        "What a runner printed can not be stored: its stream has moved."
                    );
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "What a runner printed can not be stored now; trying again.");
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
        self.show(&bytes).await;
        self.offset = end;
    }

    /// Appends; where the stream then ends. What was stored before is not stored twice.
    async fn append(&self, bytes: &Bytes) -> Result<u64, IngestError> {
        let chunk = Chunk {
            header: ChunkHeader {
                stream: self.key.clone(),
                offset: self.offset,
                file: PIPE.to_owned(),
                file_start: 0,
                length: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
                gap: None,
            },
            bytes: bytes.clone(),
        };
        let results = self.ingest.append(&reader(), vec![chunk]).await?;
        Ok(match results.into_iter().next() {
            Some(ChunkResult::Committed { position } | ChunkResult::Conflict { position }) => position.offset,
            _ => 0,
        })
    }

    async fn show(&mut self, bytes: &Bytes) {
        let now = Timestamp::now();
        let mut parser =
            Parser::resume(&self.carry, self.offset, now).unwrap_or_else(|_| Parser::new(self.offset, now));
        parser.feed(bytes);
        let parsed = parser.finish();
        self.carry = parsed.carry;
        let text = self.teller.tell(parsed.records, self.printer.paint());
        if !text.is_empty() {
            self.printer.say(text).await;
        }
    }
}

/// This process, which speaks for its own runners.
pub fn reader() -> AgentIdentity {
    AgentIdentity {
        name: "scriptscope dev".to_owned(),
        node: None,
    }
}
