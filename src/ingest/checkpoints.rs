//! The checkpoints of the streams that are being shipped, so that a batch need not ask the store for them.
//!
//! Only a hint: the store compares offsets when it appends, and a stale entry costs a second look, nothing else.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use crate::{ingest::wire::StreamKey, store::StreamCheckpoint};

const MAX_STREAMS: usize = 8_192;
const MAX_CARRY_BYTES: usize = 64 << 20;

#[derive(Default)]
struct Entries {
    by_stream: HashMap<StreamKey, StreamCheckpoint>,
    carry_bytes: usize,
}

/// Checkpoints in memory, bounded in number and bytes.
#[derive(Default)]
pub(super) struct Checkpoints(Mutex<Entries>);

impl Checkpoints {
    pub fn get(&self, stream: &StreamKey) -> Option<StreamCheckpoint> {
        self.with(|entries| entries.by_stream.get(stream).cloned())
    }

    pub fn put(&self, stream: StreamKey, checkpoint: StreamCheckpoint) {
        self.with(|entries| {
            entries.remove(&stream);
            let full = entries.by_stream.len() >= MAX_STREAMS
                || entries.carry_bytes + checkpoint.carry.len() > MAX_CARRY_BYTES;
            // Starting over is simple, rare, and costs one query.
            if full {
                *entries = Entries::default();
            }
            entries.carry_bytes += checkpoint.carry.len();
            entries.by_stream.insert(stream, checkpoint);
        });
    }

    pub fn remove(&self, stream: &StreamKey) {
        self.with(|entries| entries.remove(stream));
    }

    fn with<T>(&self, act: impl FnOnce(&mut Entries) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Entries {
    fn remove(&mut self, stream: &StreamKey) {
        if let Some(old) = self.by_stream.remove(stream) {
            self.carry_bytes -= old.carry.len();
        }
    }
}
