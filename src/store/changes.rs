//! Which scripts have changed since when; what wakes those who show figures.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

use crate::model::ScriptKey;

/// A count of changes, and the last one of each script: as large as there are scripts, however much happens.
#[derive(Debug, Default)]
pub struct Changes(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    count: u64,
    last: HashMap<ScriptKey, u64>,
    by_count: BTreeMap<u64, ScriptKey>,
}

impl Changes {
    /// Notes that a script changed.
    pub fn note(&self, script: &ScriptKey) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.count += 1;
        let count = inner.count;
        if let Some(before) = inner.last.insert(script.clone(), count) {
            inner.by_count.remove(&before);
        }
        inner.by_count.insert(count, script.clone());
    }

    /// Scripts that changed after `since`, longest ago first, and what to ask for next.
    pub fn since(&self, since: u64) -> (Vec<ScriptKey>, u64) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = inner.by_count.range(since.saturating_add(1)..);
        (changed.map(|(_, script)| script.clone()).collect(), inner.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_script_is_named_once_and_only_if_it_changed() {
        let changes = Changes::default();
        let (a, b) = (ScriptKey::new("n", "a"), ScriptKey::new("n", "b"));
        assert_eq!(changes.since(0), (vec![], 0));
        for script in [&a, &b, &a] {
            changes.note(script);
        }
        let (scripts, next) = changes.since(0);
        assert_eq!(scripts, [b.clone(), a.clone()]);
        assert_eq!(changes.since(next), (vec![], next));
        changes.note(&b);
        assert_eq!(changes.since(next).0, [b]);
        assert_eq!(changes.since(u64::MAX).0, []);
    }
}
