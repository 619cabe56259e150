//! Keys up to the cursor whose rows are still to be looked for, each by itself: rows that were left
//! out of their chunk because somebody changed them, and rows that a change of their key moved to
//! where the cursor has been, or may have been.

use std::collections::{BTreeMap, HashMap};

use super::{
    row_key::RowKey,
    touches::{KeyHash, KeyHasher},
};
use crate::{checkpoint::OutstandingKey, lsn::CommitLsn};

/// What one of them is known of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    moved_at: Option<CommitLsn>,
    /// How often it was looked for in vain.
    tries: u32,
}

/// The keys of one table.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    entries: BTreeMap<RowKey, Entry>,
    /// How many keys have each.
    hashes: HashMap<KeyHash, usize>,
    bytes: usize,
}

impl Outstanding {
    /// As a record has them.
    pub(super) fn of(keys: &[OutstandingKey], hasher: &KeyHasher) -> Self {
        let mut outstanding = Self::default();
        for OutstandingKey { key, moved_at } in keys {
            outstanding.insert(RowKey(key.clone()), *moved_at, hasher);
        }
        outstanding
    }

    /// As the record is to have them.
    pub(super) fn to_record(&self) -> Vec<OutstandingKey> {
        let key = |(key, entry): (&RowKey, &Entry)| OutstandingKey {
            key: key.0.clone(),
            moved_at: entry.moved_at,
        };
        self.entries.iter().map(key).collect()
    }

    /// Adds a key. Where it is there already its row is not out, and comes only once.
    pub(super) fn insert(&mut self, key: RowKey, moved_at: Option<CommitLsn>, hasher: &KeyHasher) {
        if self.entries.contains_key(&key) {
            return;
        }
        *self.hashes.entry(key.hash(hasher)).or_default() += 1;
        self.bytes += key.bytes();
        self.entries.insert(key, Entry { moved_at, tries: 0 });
    }

    /// Whether there is such a key; most often decided without looking at its texts.
    pub(super) fn contains(&self, hash: KeyHash, key: impl FnOnce() -> RowKey) -> bool {
        self.hashes.contains_key(&hash) && self.entries.contains_key(&key())
    }

    /// Where its row was moved, where it is one of these keys.
    pub(super) fn get(&self, key: &RowKey) -> Option<Option<CommitLsn>> {
        self.entries.get(key).map(|entry| entry.moved_at)
    }

    /// Its row is out, or gone, or ahead.
    pub(super) fn remove(&mut self, key: &RowKey, hasher: &KeyHasher) {
        if self.entries.remove(key).is_none() {
            return;
        }
        self.bytes -= key.bytes();
        let hash = key.hash(hasher);
        match self.hashes.get_mut(&hash) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => _ = self.hashes.remove(&hash),
        }
    }

    /// It was looked for in vain.
    pub(super) fn try_again(&mut self, key: &RowKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.tries += 1;
        }
    }

    /// Those to look for next, those before the others that were tried least often, and how often the
    /// most stubborn one of them was.
    pub(super) fn next(&self, count: usize) -> (Vec<RowKey>, u32) {
        let mut keys: Vec<(u32, &RowKey)> =
            self.entries.iter().map(|(key, entry)| (entry.tries, key)).collect();
        keys.sort_by_key(|(tries, _)| *tries);
        keys.truncate(count);
        let tries = keys.iter().map(|(tries, _)| *tries).max().unwrap_or(0);
        (keys.into_iter().map(|(_, key)| key.clone()).collect(), tries)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes of all texts.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;

    fn key(text: &str) -> RowKey {
        RowKey(vec![text.to_owned()])
    }

    fn lsn(position: u64) -> Option<CommitLsn> {
        Lsn::from_wire(position).map(CommitLsn)
    }

    #[test]
    fn a_key_comes_once_with_what_was_known_of_it_first() {
        let hasher = KeyHasher::default();
        let mut outstanding = Outstanding::default();
        outstanding.insert(key("a"), None, &hasher);
        outstanding.insert(key("a"), lsn(5), &hasher);
        outstanding.insert(key("b"), lsn(6), &hasher);
        assert_eq!((outstanding.get(&key("a")), outstanding.get(&key("c"))), (Some(None), None));
        assert!(outstanding.contains(key("b").hash(&hasher), || key("b")));
        assert!(!outstanding.contains(key("c").hash(&hasher), || key("c")));
        let again = Outstanding::of(&outstanding.to_record(), &hasher);
        assert_eq!(again.to_record(), outstanding.to_record());
        assert_eq!((again.len(), again.bytes()), (2, outstanding.bytes()));
        outstanding.remove(&key("a"), &hasher);
        outstanding.remove(&key("a"), &hasher);
        outstanding.remove(&key("b"), &hasher);
        assert!(outstanding.hashes.is_empty());
        assert!(outstanding.is_empty() && outstanding.bytes() == 0);
        outstanding.insert(key("a"), lsn(7), &hasher);
        assert_eq!(outstanding.get(&key("a")), Some(lsn(7)));
    }

    #[test]
    fn what_was_tried_least_often_is_looked_for_first() {
        let hasher = KeyHasher::default();
        let mut outstanding = Outstanding::default();
        for text in ["a", "b", "c"] {
            outstanding.insert(key(text), None, &hasher);
        }
        outstanding.try_again(&key("a"));
        outstanding.try_again(&key("a"));
        outstanding.try_again(&key("c"));
        assert_eq!(outstanding.next(2), (vec![key("b"), key("c")], 1));
        assert_eq!(outstanding.next(9), (vec![key("b"), key("c"), key("a")], 2));
    }
}
