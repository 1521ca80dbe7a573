//! Memory that batches are read into. Bytes go from the file into it and from there to the network, with no copy between,
//! and it is used again and again.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Buffers of one size, as many as were ever needed at once.
#[derive(Clone, Debug)]
pub(super) struct Buffers {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
    size: usize,
}

impl Buffers {
    pub fn new(size: usize) -> Self {
        Self {
            free: Arc::default(),
            size,
        }
    }

    /// An empty buffer.
    pub fn take(&self) -> Buffer {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Buffer {
            // Zeroed memory is not resident before it is written to.
            bytes: free.unwrap_or_else(|| vec![0; self.size]),
            used: 0,
            home: Arc::clone(&self.free),
        }
    }
}

/// A buffer being filled; goes back where it came from when nobody needs its bytes any more.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    used: usize,
    home: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Buffer {
    /// What is not filled yet.
    pub fn rest(&mut self) -> &mut [u8] {
        &mut self.bytes[self.used..]
    }

    /// The next `count` bytes of the rest are filled.
    pub fn fill(&mut self, count: usize) {
        self.used = (self.used + count).min(self.bytes.len());
    }

    /// How many bytes are filled.
    pub fn len(&self) -> usize {
        self.used
    }

    /// The bytes filled, without copying them.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut free = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_when_its_bytes_are_gone() {
        let buffers = Buffers::new(8);
        let mut first = buffers.take();
        first.rest()[..3].copy_from_slice(b"one");
        first.fill(3);
        let bytes = first.freeze();
        let part = bytes.slice(1..);
        drop(bytes);
        let second = buffers.take();
        assert_eq!((&*part, second.len()), (&b"ne"[..], 0));
        drop((part, second));
        let _both = (buffers.take(), buffers.take());
        assert_eq!(buffers.free.lock().unwrap().len(), 0);
    }
}
