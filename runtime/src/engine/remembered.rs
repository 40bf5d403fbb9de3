//! Keys that this process saw complete: their replay needs no transaction. A hint, never an answer.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use crate::model::KeyHash;

/// A bounded memory in two generations: when the young one is full it becomes the old one, and the old one is forgotten.
#[derive(Debug)]
pub(super) struct Remembered {
    capacity: usize,
    generations: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashSet<KeyHash>,
    old: HashSet<KeyHash>,
}

impl Remembered {
    /// Remembers between `capacity` and twice as many keys; 0 remembers none.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            generations: Mutex::default(),
        }
    }

    pub(super) fn insert(&self, key: KeyHash) {
        if self.capacity == 0 {
            return;
        }
        let mut generations = self
            .generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if generations.young.len() >= self.capacity {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(key);
    }

    pub(super) fn contains(&self, key: KeyHash) -> bool {
        let generations = self
            .generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        generations.young.contains(&key) || generations.old.contains(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> KeyHash {
        KeyHash([n; 32])
    }

    #[test]
    fn it_keeps_the_newest_and_stays_bounded() {
        let memory = Remembered::new(2);
        (0..9).for_each(|n| memory.insert(key(n)));
        assert!(memory.contains(key(8)) && memory.contains(key(7)));
        assert!(!memory.contains(key(0)));
        let generations = memory.generations.lock().unwrap();
        assert!(generations.young.len() + generations.old.len() <= 4);
    }
}
