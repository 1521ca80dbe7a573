//! A file in pieces, for a reader who takes them as they are made.

use std::{
    io::{self, Write},
    mem,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
};

use tokio::task;

use crate::store::Store;

use super::{
    ExportError, Plan,
    encode::{Encoder, Hashed},
    format::Format,
    live::Live,
    rows::{PageSize, RowPages},
};

/// How much a piece holds.
const SIZE: PageSize = PageSize {
    bytes: 2 << 20,
    rows: 8_192,
};

/// A piece of a file; it may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// What comes next in the file.
    pub bytes: Vec<u8>,
    /// Number of rows that were read for it.
    pub rows: u64,
}

/// The pieces of a file, in order.
pub struct FilePages {
    rows: RowPages<Live>,
    written: Buffer,
    /// None once the file is complete.
    encoder: Option<Encoder<Buffer>>,
}

impl FilePages {
    /// The file that `plan` describes. Its columns show no payloads: those are only for files of one moment.
    pub fn new(store: Arc<dyn Store>, plan: Plan, format: Format) -> Result<Self, ExportError> {
        let written = Buffer::default();
        let out = Hashed::new(written.clone(), Arc::new(AtomicU64::new(0)));
        let encoder = Encoder::new(format, plan.columns.clone(), out)?;
        Ok(Self {
            rows: RowPages::new(Live::new(store), plan, SIZE)?,
            written,
            encoder: Some(encoder),
        })
    }

    /// The next piece; none at the end. The first is there even without rows. None follows an error.
    pub async fn next_page(&mut self) -> Result<Option<Piece>, ExportError> {
        let Some(mut encoder) = self.encoder.take() else {
            return Ok(None);
        };
        let rows = self.rows.next_page().await?;
        let count = rows.as_ref().map_or(0, |rows| rows.len() as u64);
        let work = move || match rows {
            Some(rows) => encoder.rows(&rows).map(|()| Some(encoder)),
            None => encoder.finish().map(|_| None),
        };
        self.encoder = task::spawn_blocking(work).await??;
        Ok(Some(Piece {
            bytes: self.written.take(),
            rows: count,
        }))
    }
}

/// What was written and not yet taken.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn take(&self) -> Vec<u8> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
