//! How far what a pod printed has been delivered. Pure.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use crate::store::StreamProgress;

/// Restarts of a pod whose end is missing, of which a gap is recorded; the latest.
const MAX_UNREAD: usize = 20;

/// The streams of a pod, and since when they stand still.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// In the order of their restarts.
    pub streams: &'a [StreamProgress],
    /// Since when nothing of them arrives.
    pub still_since: Timestamp,
}

impl Delivery<'_> {
    /// Whether all of a restart has arrived.
    pub fn is_complete(&self, restart: u32) -> bool {
        let stream = self.streams.iter().find(|stream| stream.restart == restart);
        stream.is_some_and(|stream| stream.last_word.is_some())
    }

    /// The restarts whose end has not arrived, of a pod whose container had begun `instances` times, as far as known.
    pub fn unread(&self, instances: Option<u32>) -> Vec<u32> {
        let seen = self.streams.last().map_or(0, |stream| stream.restart + 1);
        // A pod that nobody saw end, and of which no log was seen: something may be missing.
        let expected = instances.unwrap_or(1).max(seen);
        let mut unread: Vec<u32> = (0..expected)
            .rev()
            .filter(|restart| !self.is_complete(*restart))
            .take(MAX_UNREAD)
            .collect();
        unread.reverse();
        unread
    }
}

/// Notices when streams stand still.
#[derive(Debug, Default)]
pub struct Deliveries(HashMap<String, (Vec<u64>, Timestamp)>);

impl Deliveries {
    /// Looks at the streams of a pod; says since when they are as they are now.
    pub fn look(&mut self, uid: &str, streams: &[StreamProgress], now: Timestamp) -> Timestamp {
        let offsets: Vec<u64> = streams.iter().map(|stream| stream.offset).collect();
        let (before, since) = self
            .0
            .entry(uid.to_owned())
            .or_insert_with(|| (offsets.clone(), now));
        if *before != offsets {
            (*before, *since) = (offsets, now);
        }
        *since
    }

    /// Forgets all other pods.
    pub fn retain(&mut self, uids: &HashSet<String>) {
        self.0.retain(|uid, _| uids.contains(uid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::LastWord;

    fn stream(restart: u32, offset: u64, is_complete: bool) -> StreamProgress {
        StreamProgress {
            restart,
            offset,
            last_word: is_complete.then_some(LastWord::EndOfFiles),
        }
    }

    fn unread(streams: &[StreamProgress], instances: Option<u32>) -> Vec<u32> {
        let still_since = Timestamp::UNIX_EPOCH;
        Delivery { streams, still_since }.unread(instances)
    }

    #[test]
    fn what_ran_and_did_not_say_its_last_word_is_unread() {
        assert_eq!(unread(&[stream(0, 9, true)], Some(1)), [0_u32; 0]);
        assert_eq!(unread(&[stream(0, 9, false)], Some(1)), [0]);
        assert_eq!(unread(&[stream(0, 9, true), stream(3, 0, true)], Some(4)), [1, 2]);
        assert_eq!(
            unread(&[stream(0, 9, true)], Some(2)),
            [1],
            "the agent never saw it"
        );
        assert_eq!(unread(&[], Some(0)), [0_u32; 0], "it never ran");
        assert_eq!(unread(&[], None), [0], "nobody knows whether it ran");
        assert_eq!(unread(&[stream(0, 9, true)], None), [0_u32; 0]);
        assert_eq!(unread(&[], Some(500)).len(), MAX_UNREAD);
    }

    #[test]
    fn streams_stand_still_from_the_moment_they_were_last_seen_to_move() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut deliveries = Deliveries::default();
        let one = [stream(0, 5, false)];
        assert_eq!(deliveries.look("a", &one, at(1)), at(1));
        assert_eq!(deliveries.look("a", &one, at(9)), at(1));
        assert_eq!(deliveries.look("a", &[stream(0, 6, false)], at(10)), at(10));
        let two = [stream(0, 6, true), stream(1, 0, false)];
        assert_eq!(deliveries.look("a", &two, at(12)), at(12));
        deliveries.retain(&HashSet::new());
        assert_eq!(deliveries.look("a", &two, at(20)), at(20));
    }
}
