//! A small map that forgets: bounded in size and in time.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

/// Key of an entry: a SHA-256, so that no secret is kept and every key is of one size.
pub type CacheKey = [u8; 32];

/// The key of some bytes.
pub fn key_of(bytes: &[u8]) -> CacheKey {
    Sha256::digest(bytes).into()
}

/// The map. At its capacity the oldest entry makes place.
pub struct Cache<V> {
    capacity: usize,
    inner: Mutex<Inner<V>>,
}

struct Inner<V> {
    entries: HashMap<CacheKey, (Instant, V)>,
    /// Keys and the expiry they were put in with, oldest first.
    order: VecDeque<(CacheKey, Instant)>,
}

impl<V: Clone> Cache<V> {
    /// A map of at most `capacity` entries.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            inner: Mutex::new(Inner {
                entries: HashMap::new(),
                order: VecDeque::new(),
            }),
        }
    }

    /// The value, unless its time is over.
    pub fn get(&self, key: &CacheKey) -> Option<V> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (expiry, value) = inner.entries.get(key)?;
        (Instant::now() < *expiry).then(|| value.clone())
    }

    /// Keeps a value for a while.
    pub fn insert(&self, key: CacheKey, value: V, time_to_live: Duration) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        while let Some(&(oldest, expiry)) = inner.order.front() {
            if now < expiry && inner.order.len() < self.capacity {
                break;
            }
            inner.order.pop_front();
            // A later value under the same key stays.
            if inner.entries.get(&oldest).is_some_and(|(e, _)| *e == expiry) {
                inner.entries.remove(&oldest);
            }
        }
        let expiry = now + time_to_live;
        inner.entries.insert(key, (expiry, value));
        inner.order.push_back((key, expiry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(10);

    #[test]
    fn entries_end_with_their_time() {
        let cache = Cache::new(4);
        cache.insert(key_of(b"a"), 1, Duration::ZERO);
        cache.insert(key_of(b"b"), 2, LONG);
        assert_eq!(cache.get(&key_of(b"a")), None);
        assert_eq!(cache.get(&key_of(b"b")), Some(2));
    }

    #[test]
    fn the_oldest_makes_place() {
        let cache = Cache::new(3);
        for i in 0..100_u8 {
            cache.insert(key_of(&[i]), i, LONG);
            cache.insert(key_of(b"same"), i, LONG);
        }
        assert_eq!(cache.get(&key_of(b"same")), Some(99));
        assert_eq!(cache.get(&key_of(&[99])), Some(99));
        assert_eq!(cache.get(&key_of(&[90])), None);
        let inner = cache.inner.lock().unwrap();
        assert!(inner.entries.len() <= 3 && inner.order.len() <= 3);
    }
}
