//! How many connections there are at once, and which goes when there are too many.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Room for so many connections.
pub struct Room {
    places: Arc<Semaphore>,
    idle: Arc<Idle>,
}

/// Connections on which nobody waits for an answer, the longest idle first.
#[derive(Default)]
struct Idle {
    connections: Mutex<Waiting>,
    /// How many wait for a place.
    wanted: AtomicUsize,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    since: BTreeMap<u64, CancellationToken>,
}

impl Idle {
    /// One more from now on; where somebody waits for a place, the longest idle gives up its own.
    fn enter(&self, closed: &CancellationToken) -> u64 {
        let mut waiting = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.next += 1;
        let number = waiting.next;
        waiting.since.insert(number, closed.clone());
        if self.wanted.load(Ordering::SeqCst) > 0 {
            close_longest(&mut waiting);
        }
        number
    }

    fn leave(&self, number: u64) {
        let mut waiting = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.since.remove(&number);
    }

    fn close_longest(&self) {
        close_longest(&mut self.connections.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn close_longest(waiting: &mut Waiting) {
    if let Some((_, closed)) = waiting.since.pop_first() {
        closed.cancel();
    }
}

/// One who waits for a place.
struct Wanted<'a>(&'a AtomicUsize);

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Room {
    /// Room for so many.
    pub fn new(connections: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(connections)),
            idle: Arc::default(),
        }
    }

    /// A place, made free if need be.
    pub async fn place(&self) -> Place {
        let permit = if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            Some(permit)
        } else {
            self.idle.wanted.fetch_add(1, Ordering::SeqCst);
            let _wanted = Wanted(&self.idle.wanted);
            self.idle.close_longest();
            // Closed never: nobody closes it.
            Arc::clone(&self.places).acquire_owned().await.ok()
        };
        let closed = CancellationToken::new();
        let state = State {
            requests: 0,
            // A connection is idle until its first request.
            number: self.idle.enter(&closed),
        };
        Place {
            idle: Arc::clone(&self.idle),
            closed,
            state: Mutex::new(state),
            _permit: permit,
        }
    }
}

/// A connection's place.
pub struct Place {
    idle: Arc<Idle>,
    closed: CancellationToken,
    state: Mutex<State>,
    _permit: Option<OwnedSemaphorePermit>,
}

struct State {
    requests: usize,
    number: u64,
}

impl Place {
    /// Cancelled when the place is needed for somebody else.
    pub fn closed(&self) -> CancellationToken {
        self.closed.clone()
    }

    /// A request has begun; it lasts as long as what is returned.
    pub fn busy(self: &Arc<Self>) -> Busy {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.requests == 0 {
            self.idle.leave(state.number);
        }
        state.requests += 1;
        Busy(Arc::clone(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.idle.leave(state.number);
    }
}

/// A request under way.
pub struct Busy(Arc<Place>);

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.requests -= 1;
        if state.requests == 0 {
            state.number = self.0.idle.enter(&self.0.closed);
        }
    }
}

/// The body of an answer, which is under way until its end.
pub struct Held {
    body: Body,
    busy: Option<Busy>,
}

impl Held {
    /// A body with the request that it answers.
    pub fn new(body: Body, busy: Busy) -> Self {
        Self {
            body,
            busy: Some(busy),
        }
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) {
            self.busy = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_longest_idle_goes_and_none_with_a_request() {
        let room = Room::new(3);
        let (first, second, third) = (
            Arc::new(room.place().await),
            Arc::new(room.place().await),
            Arc::new(room.place().await),
        );
        let busy = first.busy();
        // It was idle again later than the others.
        drop(third.busy());
        let mut fourth = Box::pin(room.place());
        assert!(futures::poll!(&mut fourth).is_pending());
        assert!(second.closed().is_cancelled());
        assert!(!first.closed().is_cancelled() && !third.closed().is_cancelled());
        drop(second);
        let fourth = fourth.await;
        // All have requests: whoever comes waits, until one is done.
        let (fourth, third_busy) = (Arc::new(fourth), third.busy());
        let fourth_busy = fourth.busy();
        let mut fifth = Box::pin(room.place());
        assert!(futures::poll!(&mut fifth).is_pending());
        drop(third_busy);
        assert!(third.closed().is_cancelled());
        drop(third);
        let fifth = tokio::time::timeout(Duration::from_secs(5), fifth).await.unwrap();
        assert!(!fifth.closed().is_cancelled());
        drop((busy, fourth_busy));
        assert!(!first.closed().is_cancelled() && !fourth.closed().is_cancelled());
    }
}
