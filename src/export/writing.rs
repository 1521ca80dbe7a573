//! From the rows of a plan to bytes that go somewhere: a thread formats and hashes what is read meanwhile.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    sync::mpsc,
    task::{self, JoinHandle},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::store::Store;

use super::{
    ExportError, Plan,
    encode::{Encoder, Hashed, Written},
    format::Format,
    rows::{PageSize, RowPages, Rows, Source},
};

/// What is read at once. Three pages are in memory: one is read, one waits, one is written.
const PAGE: PageSize = PageSize {
    bytes: 1 << 20,
    rows: 8_192,
};
/// Pages read ahead of the writing.
const AHEAD: usize = 1;

/// How far a file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows written.
    pub rows: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// What the bytes of a file are written to, on a thread that may block.
pub trait Sink: Write + Send + 'static {
    /// Everything is written.
    fn close(self) -> io::Result<()>;
}

/// The rows of a plan as they are at this moment, whatever happens to them later.
pub struct Pouring {
    pages: RowPages<Box<dyn crate::store::StoreSnapshot>>,
    columns: super::columns::Columns,
    format: Format,
}

impl Pouring {
    /// Takes the moment.
    pub async fn new(store: &Arc<dyn Store>, plan: Plan, format: Format) -> Result<Self, ExportError> {
        let columns = plan.columns.clone();
        let snapshot = store.snapshot(&plan.script).await?;
        Ok(Self {
            pages: RowPages::new(snapshot, plan, PAGE)?,
            columns,
            format,
        })
    }

    /// Writes everything; says how many rows there were. `report` hears of every page, and ends it by failing.
    pub async fn into(
        self,
        out: impl Sink,
        report: &(dyn Fn(Progress) -> Result<(), ExportError> + Send + Sync),
    ) -> Result<(u64, Written), ExportError> {
        let bytes = Arc::new(AtomicU64::new(0));
        let out = Hashed::new(out, Arc::clone(&bytes));
        let writing = Writing::begin(Encoder::new(self.format, self.columns, out)?);
        let report_rows = |rows| {
            report(Progress {
                rows,
                bytes: bytes.load(Ordering::Relaxed),
            })
        };
        let (rows, written) = writing.all(self.pages, &report_rows).await?;
        report(Progress {
            rows,
            bytes: written.bytes,
        })?;
        Ok((rows, written))
    }
}

/// A thread that writes pages, while the next ones are read. It ends with whoever sends it pages, without those that wait.
struct Writing {
    pages: mpsc::Sender<Rows>,
    wanted: DropGuard,
    thread: JoinHandle<Result<Written, ExportError>>,
}

impl Writing {
    fn begin<W: Sink>(mut encoder: Encoder<W>) -> Self {
        let (pages, mut receiver) = mpsc::channel(AHEAD);
        let abandoned = CancellationToken::new();
        let wanted = abandoned.clone().drop_guard();
        let thread = task::spawn_blocking(move || {
            let go_on = || {
                if abandoned.is_cancelled() {
                    return Err(io::Error::other("nobody wants the file any more"));
                }
                Ok(())
            };
            while let Some(rows) = receiver.blocking_recv() {
                go_on()?;
                encoder.rows(&rows)?;
            }
            go_on()?;
            let (written, out) = encoder.finish()?;
            out.close()?;
            Ok(written)
        });
        Self {
            pages,
            wanted,
            thread,
        }
    }

    async fn all<S: Source>(
        self,
        mut pages: RowPages<S>,
        report: &(dyn Fn(u64) -> Result<(), ExportError> + Send + Sync),
    ) -> Result<(u64, Written), ExportError> {
        let mut rows = 0;
        while let Some(page) = pages.next_page().await? {
            let count = page.len() as u64;
            if self.pages.send(page).await.is_err() {
                // It has failed; why is what it ended with.
                break;
            }
            rows += count;
            report(rows)?;
        }
        // What the database keeps for this file is needed no longer.
        drop(pages);
        self.wanted.disarm();
        drop(self.pages);
        Ok((rows, self.thread.await??))
    }
}
