//! Who writes when many exports want to: few at once, so that memory and the store's connections are bounded, but never so
//! that one waits for all of another's.
//!
//! - Each namespace has its own queue, and only the first [`OF_ONE_NAMESPACE`] of it wait for a place; so a thousand exports of
//!   one namespace keep another's waiting for two of them at most.
//! - There are places for the short and for the long. An export begins in a short place, and gives it back when it has
//!   worked for [`SHORT`] and a long place is free; so a day's failed runs do not wait for somebody's ten million lines.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task,
    time::sleep,
};
use tokio_util::task::AbortOnDropHandle;

use crate::store::EXPORT_SNAPSHOTS;

/// Exports that have begun a short while ago.
const SHORT_PLACES: usize = 2;
/// Exports that take longer.
const LONG_PLACES: usize = EXPORT_SNAPSHOTS as usize - SHORT_PLACES;
/// Until then an export is short.
const SHORT: Duration = Duration::from_secs(5);
/// How many of one namespace wait where others wait.
const OF_ONE_NAMESPACE: usize = 2;

/// All places of this process. Clones share them.
#[derive(Clone)]
pub struct Places {
    short: Arc<Semaphore>,
    long: Arc<Semaphore>,
    namespaces: Arc<Mutex<HashMap<String, Weak<Semaphore>>>>,
}

/// A place that is given back when this is dropped.
pub struct Place(#[expect(dead_code, reason = "held until it is dropped")] AbortOnDropHandle<()>);

impl Places {
    /// All of them free.
    pub fn new() -> Self {
        Self {
            short: Arc::new(Semaphore::new(SHORT_PLACES)),
            long: Arc::new(Semaphore::new(LONG_PLACES)),
            namespaces: Arc::default(),
        }
    }

    /// Waits for a place for an export of this namespace.
    pub async fn enter(&self, namespace: &str) -> Place {
        let queue = self.queue(namespace);
        let turn = acquire(&queue).await;
        let short = acquire(&self.short).await;
        drop(turn);
        let long = Arc::clone(&self.long);
        Place(AbortOnDropHandle::new(task::spawn(async move {
            sleep(SHORT).await;
            let _long = acquire(&long).await;
            drop(short);
            std::future::pending::<()>().await;
        })))
    }

    fn queue(&self, namespace: &str) -> Arc<Semaphore> {
        let mut queues = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|_, queue| queue.strong_count() > 0);
        if let Some(queue) = queues.get(namespace).and_then(Weak::upgrade) {
            return queue;
        }
        let queue = Arc::new(Semaphore::new(OF_ONE_NAMESPACE));
        queues.insert(namespace.to_owned(), Arc::downgrade(&queue));
        queue
    }
}

/// None only of a closed semaphore, and nobody closes one.
async fn acquire(places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(places).acquire_owned().await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_millis(100);

    #[tokio::test(start_paused = true)]
    async fn an_export_that_takes_long_keeps_no_short_one_waiting() {
        let places = Places::new();
        let mut long = Vec::new();
        for _ in 0..LONG_PLACES + SHORT_PLACES {
            long.push(
                timeout(SHORT * 2, places.enter("shop"))
                    .await
                    .expect("a place, once those before it have become long ones"),
            );
            if long.len() == LONG_PLACES {
                sleep(SHORT * 2).await;
                let short = timeout(SOON, places.enter("shop")).await;
                assert!(short.is_ok(), "the long ones leave both short places");
            }
        }
        sleep(SHORT * 2).await;
        let mut next = std::pin::pin!(places.enter("shop"));
        assert!(timeout(SOON, next.as_mut()).await.is_err(), "all are taken");
        long.pop();
        assert!(timeout(SOON, next).await.is_ok(), "one was given back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_exports_of_one_namespace_keep_no_other_waiting() {
        let places = Places::new();
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let work = |namespace: &'static str| {
            let (places, sender) = (places.clone(), sender.clone());
            task::spawn(async move {
                let _place = places.enter(namespace).await;
                sleep(Duration::from_secs(1)).await;
                sender.send(namespace).unwrap();
            })
        };
        let mut tasks: Vec<_> = (0..1_000).map(|_| work("many")).collect();
        sleep(SOON).await;
        tasks.push(work("one"));
        let mut before = 0;
        while receiver.recv().await.unwrap() != "one" {
            before += 1;
        }
        assert!(
            before <= SHORT_PLACES + OF_ONE_NAMESPACE,
            "{before} of the others first"
        );
        for task in tasks {
            task.await.unwrap();
        }
        let _ = places.enter("third").await;
        let queues = places.namespaces.lock().unwrap();
        assert!(queues.len() <= 1, "nobody waits in the others any more");
    }
}
