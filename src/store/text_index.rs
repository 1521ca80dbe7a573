//! Writing down which texts the segments may have, after they were stored: whoever waits for a commit does not wait for it,
//! and a search meanwhile reads the segments that are not written down yet.

use std::{io, sync::Weak, thread, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::StoreError;
use crate::segment::{self, SegmentError};

/// Begins when nothing was stored for so long.
const PAUSE: Duration = Duration::from_millis(500);
/// Begins after so long where things are stored all the time.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a store does of it.
pub trait Indexing: Send + Sync + 'static {
    /// Writes down the texts of the segment that has waited longest; says whether there was one.
    fn index_once(&self, worker: &Worker) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Whether the store was closed.
    fn is_closed(&self) -> bool;
}

/// Indexes whenever something was stored, until the store is gone.
pub async fn run<S: Indexing>(store: Weak<S>, mut stored: watch::Receiver<u64>) {
    let worker = match Worker::start() {
        Ok(worker) => worker,
        Err(error) => {
            return tracing::warn!(%error, "Log segments will not be indexed; searches for text read all of them.");
        }
    };
    while stored.changed().await.is_ok() {
        let paused = async { while let Ok(Ok(())) = timeout(PAUSE, stored.changed()).await {} };
        // Late is as good as early.
        let _ = timeout(PATIENCE, paused).await;
        loop {
            let Some(store) = store.upgrade() else {
                return;
            };
            match store.index_once(&worker).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) if store.is_closed() => return,
                Err(error) => {
                    // Nothing is lost by it; the next commit brings the next attempt.
                    tracing::warn!(%error, "The texts of a log segment could not be indexed.");
                    break;
                }
            }
        }
    }
}

type Job = (Bytes, oneshot::Sender<Result<Vec<u8>, SegmentError>>);

/// A thread that works when no other wants the processor.
pub struct Worker(mpsc::UnboundedSender<Job>);

impl Worker {
    fn start() -> io::Result<Self> {
        let (jobs, mut queue) = mpsc::unbounded_channel::<Job>();
        thread::Builder::new()
            .name("text-index".to_owned())
            .spawn(move || {
                yield_to_others();
                while let Some((body, reply)) = queue.blocking_recv() {
                    // Who asked may have gone.
                    let _ = reply.send(segment::grams(&body));
                }
            })?;
        Ok(Self(jobs))
    }

    /// The texts that a segment may have, see [`segment::Grams`].
    pub async fn grams(&self, body: Bytes) -> Result<Vec<u8>, StoreError> {
        let gone = || StoreError::Corrupt("the texts of a segment can not be read".to_owned());
        let (reply, answer) = oneshot::channel();
        self.0.send((body, reply)).map_err(|_| gone())?;
        Ok(answer.await.map_err(|_| gone())??)
    }
}

/// Gives this thread the lowest priority.
fn yield_to_others() {
    #[cfg(target_os = "linux")] // where a thread has a priority of its own
    if let Err(error) = rustix::process::nice(19) {
        tracing::debug!(%error, "Indexing has the priority of everything else.");
    }
}
