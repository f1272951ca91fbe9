//! What is known to be written already.

use std::collections::HashSet;
use std::hash::Hash;

use parking_lot::Mutex;

/// Keys that need not be written again. When it is full it forgets all of them, which costs that
/// they are written once more.
pub(super) struct Known<K> {
    keys: Mutex<HashSet<K>>,
    most: usize,
}

impl<K: Eq + Hash + Copy> Known<K> {
    /// Of at most so many.
    pub(super) fn new(most: usize) -> Self {
        Self { keys: Mutex::default(), most }
    }

    #[cfg(test)]
    pub(super) fn clear(&self) {
        self.keys.lock().clear();
    }

    /// Whether a key is known.
    pub(super) fn has(&self, key: &K) -> bool {
        self.keys.lock().contains(key)
    }

    /// A key was written.
    pub(super) fn add(&self, key: K) {
        let mut keys = self.keys.lock();
        if keys.len() >= self.most {
            keys.clear();
        }
        keys.insert(key);
    }
}
