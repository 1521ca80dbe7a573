//! Who writes when many exports want to: few at once, so that memory and processors are bounded, but never so that one
//! waits for all of another's.
//!
//! - Up to [`EXPORT_SNAPSHOTS`] exports have begun, no more than [`OPEN_OF_ONE_NAMESPACE`] of one namespace, and those take turns: an
//!   export that has worked for a [`TURN`] goes behind the others. So each gets on at the same pace.
//! - A first turn has places of its own, so a day's failed runs do not wait for twenty times ten million lines.
//! - Each namespace has its own queue, and only the first [`FIRST_OF_ONE_NAMESPACE`] of it wait for a first turn; so a
//!   thousand exports of one namespace keep another's waiting for two of them at most.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

use crate::store::EXPORT_SNAPSHOTS;

/// Exports that are in their first turn.
const FIRST_TURNS: usize = 2;
/// Exports that are in a later one.
const LATER_TURNS: usize = 4;
/// How long an export works before others do.
pub const TURN: Duration = Duration::from_secs(1);
/// Exports of one namespace that have begun.
const OPEN_OF_ONE_NAMESPACE: usize = 20;
/// How many of one namespace wait where others wait.
const FIRST_OF_ONE_NAMESPACE: usize = 2;

/// All places of this process. Clones share them.
#[derive(Clone)]
pub struct Places {
    open: Arc<Semaphore>,
    first: Arc<Semaphore>,
    later: Arc<Semaphore>,
    turn: Duration,
    namespaces: Arc<Mutex<HashMap<String, Weak<Namespace>>>>,
}

/// The queues of one namespace.
struct Namespace {
    open: Arc<Semaphore>,
    first: Arc<Semaphore>,
}

/// A place that is given back when this is dropped.
pub struct Place {
    turn: Permit,
    later: Arc<Semaphore>,
    length: Duration,
    _open: [Permit; 2],
    _namespace: Arc<Namespace>,
}

/// None only of a closed semaphore, and nobody closes one.
type Permit = Option<OwnedSemaphorePermit>;

impl Places {
    /// All of them free, with turns of that length.
    pub fn new(turn: Duration) -> Self {
        Self {
            open: Arc::new(Semaphore::new(EXPORT_SNAPSHOTS as usize)),
            first: Arc::new(Semaphore::new(FIRST_TURNS)),
            later: Arc::new(Semaphore::new(LATER_TURNS)),
            turn,
            namespaces: Arc::default(),
        }
    }

    /// Waits for a place for an export of this namespace, and its first turn.
    pub async fn enter(&self, namespace: &str) -> Place {
        let queues = self.queues(namespace);
        let of_namespace = acquire(&queues.open).await;
        let waiting = acquire(&queues.first).await;
        let open = acquire(&self.open).await;
        let turn = acquire(&self.first).await;
        drop(waiting);
        Place {
            turn,
            later: Arc::clone(&self.later),
            length: self.turn,
            _open: [of_namespace, open],
            _namespace: queues,
        }
    }

    fn queues(&self, namespace: &str) -> Arc<Namespace> {
        let mut namespaces = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        namespaces.retain(|_, queues| queues.strong_count() > 0);
        if let Some(queues) = namespaces.get(namespace).and_then(Weak::upgrade) {
            return queues;
        }
        let queues = Arc::new(Namespace {
            open: Arc::new(Semaphore::new(OPEN_OF_ONE_NAMESPACE)),
            first: Arc::new(Semaphore::new(FIRST_OF_ONE_NAMESPACE)),
        });
        namespaces.insert(namespace.to_owned(), Arc::downgrade(&queues));
        queues
    }
}

impl Place {
    /// Does the work, turn by turn: between two nothing of it happens, but what others do for it goes on.
    pub async fn work<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                result = &mut work => return result,
                () = sleep(self.length) => {}
            }
            self.turn = None;
            self.turn = acquire(&self.later).await;
        }
    }
}

async fn acquire(places: &Arc<Semaphore>) -> Permit {
    Arc::clone(places).acquire_owned().await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        task,
        time::{Instant, timeout},
    };

    const SOON: Duration = Duration::from_millis(100);

    /// Work that takes so many steps of a tenth of a second, each in a turn.
    async fn steps(count: u32) {
        for _ in 0..count {
            sleep(TURN / 10).await;
        }
    }

    /// Works for so many turns; says how long that took.
    async fn export(places: Places, namespace: &str, turns: u32) -> Duration {
        let began = Instant::now();
        let mut place = places.enter(namespace).await;
        place.work(steps(turns * 10)).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn twenty_equal_exports_get_on_at_one_pace() {
        let places = Places::new(TURN);
        let all = (0..20).map(|_| task::spawn(export(places.clone(), "shop", 10)));
        let took = futures::future::try_join_all(all).await.unwrap();
        let (fastest, slowest) = (took.iter().min().unwrap(), took.iter().max().unwrap());
        assert!(*slowest < *fastest * 2, "{fastest:?} to {slowest:?}");
        // Two hundred turns, of which at least four are at once.
        assert!(*slowest < TURN * 60, "{slowest:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_export_does_not_wait_for_large_ones() {
        let places = Places::new(TURN);
        for _ in 0..19 {
            task::spawn(export(places.clone(), "shop", 1_000));
        }
        sleep(TURN * 30).await;
        let small = timeout(SOON, export(places.clone(), "shop", 0));
        assert!(small.await.is_ok(), "a first turn at once");
        let small = timeout(TURN * 10, export(places.clone(), "shop", 1));
        assert!(small.await.is_ok(), "and a second soon");
        for _ in 0..10 {
            task::spawn(export(places.clone(), "shop", 1_000));
        }
        sleep(TURN * 30).await;
        let other = timeout(SOON, export(places.clone(), "other", 0));
        assert!(other.await.is_ok(), "no namespace takes all places");
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_exports_of_one_namespace_keep_no_other_waiting() {
        let places = Places::new(TURN);
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let work = |namespace: &'static str| {
            let (places, sender) = (places.clone(), sender.clone());
            task::spawn(async move {
                let mut place = places.enter(namespace).await;
                place.work(sleep(TURN / 2)).await;
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
            before <= FIRST_TURNS + FIRST_OF_ONE_NAMESPACE,
            "{before} of the others first"
        );
        for task in tasks {
            task.await.unwrap();
        }
        let _ = places.enter("third").await;
        let namespaces = places.namespaces.lock().unwrap();
        assert!(namespaces.len() <= 1, "nobody waits in the others any more");
    }
}
