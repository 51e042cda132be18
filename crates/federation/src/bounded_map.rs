//! A map that never outgrows its limit: what was not used for longest makes room.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// When full, one in this many entries goes at once, so that making room costs little per entry.
const EVICTED_SHARE: usize = 8;

/// Holds at most so many entries.
pub struct BoundedMap<K, V> {
    entries: HashMap<K, Entry<V>>,
    uses: u64,
    max: usize,
}

struct Entry<V> {
    value: V,
    used: u64,
}

impl<K: Hash + Eq, V> BoundedMap<K, V> {
    /// An empty map for `max` entries; at least one.
    pub fn new(max: usize) -> Self {
        Self { entries: HashMap::new(), uses: 0, max: max.max(1) }
    }

    /// The value of `key`, which counts as used.
    pub fn get<Q>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.uses += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used = self.uses;
        Some(&entry.value)
    }

    /// Puts `value` in, which counts as a use. A full map makes room first.
    pub fn insert(&mut self, key: K, value: V) {
        if self.entries.len() >= self.max && !self.entries.contains_key(&key) {
            self.make_room();
        }
        self.uses += 1;
        self.entries.insert(key, Entry { value, used: self.uses });
    }

    /// Takes the entry out.
    pub fn remove<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.entries.remove(key);
    }

    fn make_room(&mut self) {
        let mut uses: Vec<u64> = self.entries.values().map(|entry| entry.used).collect();
        let last_to_go = (uses.len() / EVICTED_SHARE).min(uses.len() - 1);
        let (_, &mut threshold, _) = uses.select_nth_unstable(last_to_go);
        self.entries.retain(|_, entry| entry.used > threshold);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_map_drops_what_was_not_used_for_longest() {
        let mut map = BoundedMap::new(16);
        for key in 0..16 {
            map.insert(key, key);
        }
        assert_eq!(map.get(&0), Some(&0));
        map.insert(16, 16);
        assert_eq!(map.get(&0), Some(&0));
        assert_eq!(map.get(&1), None);
        assert_eq!(map.get(&16), Some(&16));
        for key in 100..10_000 {
            map.insert(key, key);
            assert!(map.entries.len() <= 16);
        }
    }

    #[test]
    fn a_map_for_one_holds_one() {
        let mut map = BoundedMap::new(1);
        map.insert("a", 1);
        map.insert("b", 2);
        assert_eq!(map.get("a"), None);
        assert_eq!(map.get("b"), Some(&2));
    }
}
