//! What a download reads: the store as it is, out of snapshots as long as the reader keeps up.
//!
//! A snapshot reads log lines five times as fast as page by page, since what overlaps stays open. But the database keeps
//! for it what it would clear away, so it may not wait for somebody far away: one that is not asked for a moment is given
//! up, and the next page takes another.

use std::{
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time,
};

use crate::{
    model::{LogLine, RunDetail, ScriptKey},
    store::{
        DOWNLOAD_SNAPSHOTS, LogCursor, LogQuery, Page, RunCursor, RunParts, RunQuery, Store, StoreError,
        StoreSnapshot,
    },
};

use super::rows::Source;

/// How long a snapshot waits for its reader.
const PATIENCE: Duration = Duration::from_secs(1);
/// Downloads that have a snapshot at once; the others read page by page.
static PLACES: LazyLock<Arc<Semaphore>> =
    LazyLock::new(|| Arc::new(Semaphore::new(DOWNLOAD_SNAPSHOTS as usize)));

/// The store for one download. Never with payloads.
pub struct Live {
    store: Arc<dyn Store>,
    held: Arc<Mutex<Held>>,
    /// Whether a page was read. The first is read without a snapshot: it may be all there is, and it is under the time limit
    /// of the request.
    begun: bool,
}

#[derive(Default)]
struct Held {
    snapshot: Option<Snapshot>,
    /// Counts the pages, so that a timer knows whether it is still meant.
    turn: u64,
}

type Snapshot = (Box<dyn StoreSnapshot>, OwnedSemaphorePermit);

impl Live {
    /// Reads `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            held: Arc::default(),
            begun: false,
        }
    }

    /// The snapshot that is open, or a new one; none where the page is to be read by itself.
    async fn snapshot(&mut self, script: &ScriptKey) -> Result<Option<Snapshot>, StoreError> {
        if !std::mem::replace(&mut self.begun, true) {
            return Ok(None);
        }
        let open = {
            let mut held = lock(&self.held);
            held.turn += 1;
            held.snapshot.take()
        };
        if open.is_some() {
            return Ok(open);
        }
        let Ok(place) = Arc::clone(&PLACES).try_acquire_owned() else {
            return Ok(None);
        };
        // Where exports have all connections, it goes without.
        match time::timeout(PATIENCE / 10, self.store.snapshot(script)).await {
            Ok(snapshot) => Ok(Some((snapshot?, place))),
            Err(_) => Ok(None),
        }
    }

    /// Keeps it for the next page, if that comes soon.
    fn keep(&self, snapshot: Snapshot) {
        let turn = {
            let mut held = lock(&self.held);
            held.snapshot = Some(snapshot);
            held.turn
        };
        let held = Arc::downgrade(&self.held);
        tokio::spawn(async move {
            time::sleep(PATIENCE).await;
            let given_up = held.upgrade().and_then(|held| {
                let mut held = lock(&held);
                if held.turn == turn {
                    held.snapshot.take()
                } else {
                    None
                }
            });
            drop(given_up);
        });
    }
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Source for Live {
    async fn runs(
        &mut self,
        query: &RunQuery,
        parts: RunParts,
    ) -> Result<Page<RunDetail, RunCursor>, StoreError> {
        let Some(mut snapshot) = self.snapshot(&query.script).await? else {
            return Ok(self.store.runs(query).await?.map(RunDetail::from));
        };
        let page = snapshot.0.runs(query, parts.min(RunParts::All)).await?;
        self.keep(snapshot);
        Ok(page)
    }

    async fn lines(&mut self, query: &LogQuery) -> Result<Page<LogLine, LogCursor>, StoreError> {
        let Some(mut snapshot) = self.snapshot(&query.script).await? else {
            return self.store.logs(query).await;
        };
        let page = snapshot.0.logs(query).await?;
        self.keep(snapshot);
        Ok(page)
    }
}
