//! What the stream did to the keys of a table since remembering began.
//!
//! Of each transaction the keys that it touched are kept, as hashes, until a snapshot shows it: then
//! every later one does. One that such a snapshot shows before the stream tells it, because the stream
//! lags, is not remembered at all. A false hit only has a row read again; a key that is missed would
//! have a row published that is older than what the stream said of it.

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher as _, Hasher as _, RandomState},
};

use crate::{change::Xid, postgres::snapshot::Snapshot};

/// How much is remembered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// So many keys of one transaction are told apart; above it all of them count as touched.
    pub(super) keys_of_one_max: usize,
    /// So many keys are remembered, 8 bytes each, and so many transactions.
    pub(super) remembered_max: usize,
}

impl Default for Memory {
    fn default() -> Self {
        Self { keys_of_one_max: 1 << 16, remembered_max: 1 << 18 }
    }
}

/// The hash of a key, the same for the life of the process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct KeyHash(u64);

/// Makes hashes. Nobody outside can choose keys that share one.
#[derive(Clone, Default, Debug)]
pub(super) struct KeyHasher(RandomState);

impl KeyHasher {
    /// The hash of the texts of a key's columns.
    pub(super) fn hash<'a>(&self, texts: impl IntoIterator<Item = &'a [u8]>) -> KeyHash {
        let mut hasher = self.0.build_hasher();
        for text in texts {
            hasher.write_usize(text.len());
            hasher.write(text);
        }
        KeyHash(hasher.finish())
    }
}

/// What one transaction touched.
#[derive(Debug)]
struct Touched {
    xid: Xid,
    /// How many of the keys are its; none where it touched all.
    keys: Option<usize>,
}

/// What the transactions touched that some snapshot may not show, in the order of the stream.
#[derive(Debug, Default)]
pub(super) struct Touches {
    memory: Memory,
    transactions: VecDeque<Touched>,
    keys: VecDeque<KeyHash>,
    /// What it shows, every snapshot shows that is asked about from here on.
    shown: Option<Snapshot>,
    is_overflown: bool,
}

impl Touches {
    pub(super) fn new(memory: Memory) -> Self {
        Self { memory, ..Self::default() }
    }

    /// The transaction touched that key.
    pub(super) fn touch(&mut self, xid: Xid, key: KeyHash) {
        if self.is_shown(xid) {
            return;
        }
        let keys_of_one_max = self.memory.keys_of_one_max;
        let touched = self.of(xid);
        match touched.keys {
            None => return,
            Some(count) if count >= keys_of_one_max => return self.touch_all(xid),
            Some(count) => touched.keys = Some(count + 1),
        }
        self.keys.push_back(key);
        self.check_room();
    }

    /// The transaction touched every key.
    pub(super) fn touch_all(&mut self, xid: Xid) {
        if self.is_shown(xid) {
            return;
        }
        let keys = self.of(xid).keys.take();
        self.keys.truncate(self.keys.len() - keys.unwrap_or(0));
        self.check_room();
    }

    fn is_shown(&self, xid: Xid) -> bool {
        self.shown.as_ref().is_some_and(|snapshot| snapshot.shows(xid))
    }

    /// That transaction's: the last one, or a new one behind it.
    fn of(&mut self, xid: Xid) -> &mut Touched {
        if self.transactions.back().is_none_or(|last| last.xid != xid) {
            self.transactions.push_back(Touched { xid, keys: Some(0) });
        }
        self.transactions.back_mut().expect("it was just pushed")
    }

    fn check_room(&mut self) {
        let most = self.memory.remembered_max;
        let is_full = self.keys.len() > most || self.transactions.len() > most;
        self.is_overflown |= is_full;
        if is_full {
            self.clear();
        }
    }

    fn clear(&mut self) {
        // Their memory too.
        (self.transactions, self.keys) = Default::default();
    }

    /// Whether there was more than can be remembered since this was asked last. Then remembering
    /// begins anew with nothing.
    pub(super) fn take_overflow(&mut self) -> bool {
        std::mem::take(&mut self.is_overflown)
    }

    /// What those transactions touched that the snapshot does not show.
    pub(super) fn hidden_from(&self, snapshot: &Snapshot) -> Hidden {
        let (mut keys, mut is_all) = (HashSet::new(), false);
        let mut from = 0;
        for Touched { xid, keys: count } in &self.transactions {
            let until = from + count.unwrap_or(0);
            if !snapshot.shows(*xid) {
                is_all |= count.is_none();
                keys.extend(self.keys.range(from..until));
            }
            from = until;
        }
        Hidden { keys, is_all }
    }

    /// What is still to come is remembered, whoever shows it: no snapshot came for long, and
    /// identifiers are told apart only while they are near those of one.
    pub(super) fn remember_all(&mut self) {
        self.shown = None;
    }

    /// Forgets what the snapshot shows, and remembers nothing of it that is still to come: every one
    /// that is asked about from here on is the same or a later one.
    pub(super) fn forget_shown_by(&mut self, snapshot: &Snapshot) {
        let mut kept = Self { is_overflown: self.is_overflown, ..Self::new(self.memory) };
        kept.shown = Some(snapshot.clone());
        for Touched { xid, keys: count } in self.transactions.drain(..) {
            let keys = self.keys.drain(..count.unwrap_or(0));
            if !snapshot.shows(xid) {
                kept.keys.extend(keys);
                kept.transactions.push_back(Touched { xid, keys: count });
            }
        }
        *self = kept;
    }
}

/// What a snapshot does not show, though the stream told it.
#[derive(Debug)]
pub(super) struct Hidden {
    keys: HashSet<KeyHash>,
    is_all: bool,
}

impl Hidden {
    /// Whether it may have changed every row.
    pub(super) fn is_all(&self) -> bool {
        self.is_all
    }

    /// Whether it may have changed the row of that key.
    pub(super) fn contains(&self, key: KeyHash) -> bool {
        self.is_all || self.keys.contains(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(key: &str) -> KeyHash {
        KeyHash(key.bytes().fold(7, |hash, byte| hash * 31 + u64::from(byte)))
    }

    fn snapshot(text: &str) -> Snapshot {
        Snapshot::parse(text).expect(text)
    }

    fn hidden<const N: usize>(touches: &Touches, text: &str, keys: [&str; N]) -> [bool; N] {
        let hidden = touches.hidden_from(&snapshot(text));
        keys.map(|key| hidden.contains(hash(key)))
    }

    #[test]
    fn a_key_is_hidden_while_a_snapshot_does_not_show_who_touched_it() {
        let mut touches = Touches::default();
        touches.touch(Xid(5), hash("a"));
        touches.touch(Xid(5), hash("b"));
        touches.touch(Xid(3), hash("c"));
        touches.touch(Xid(5), hash("never mind"));
        assert_eq!(hidden(&touches, "3:6:3,5", ["a", "b", "c", "d"]), [true, true, true, false]);
        assert_eq!(hidden(&touches, "3:6:3", ["a", "b", "c", "d"]), [false, false, true, false]);
        touches.forget_shown_by(&snapshot("3:6:3"));
        assert_eq!(hidden(&touches, "3:6:3,5", ["a", "b", "c"]), [false, false, true]);
        touches.forget_shown_by(&snapshot("6:6:"));
        assert_eq!((touches.keys.len(), touches.transactions.len()), (0, 0));
    }

    #[test]
    fn who_touched_every_key_hides_each_one_until_a_snapshot_shows_it() {
        let mut touches = Touches::default();
        touches.touch(Xid(5), hash("a"));
        touches.touch(Xid(6), hash("b"));
        touches.touch_all(Xid(6));
        touches.touch(Xid(6), hash("c"));
        touches.touch(Xid(7), hash("d"));
        assert!(touches.hidden_from(&snapshot("6:7:6")).is_all());
        assert!(!touches.hidden_from(&snapshot("5:7:5")).is_all());
        assert_eq!(hidden(&touches, "5:7:5", ["a", "b", "d"]), [true, false, true]);
        assert_eq!(hidden(&touches, "7:8:7", ["a", "b", "d"]), [false, false, true]);
    }

    #[test]
    fn many_keys_of_one_transaction_are_all_keys() {
        let mut touches = Touches::default();
        touches.touch(Xid(4), hash("a"));
        for key in 0..=Memory::default().keys_of_one_max as u64 {
            touches.touch(Xid(5), KeyHash(key));
        }
        assert!(touches.hidden_from(&snapshot("5:6:5")).is_all());
        assert_eq!(touches.keys.len(), 1);
        assert!(!touches.take_overflow());
    }

    #[test]
    fn more_than_can_be_remembered_is_said_once_and_nothing_is_kept() {
        let mut touches = Touches::default();
        for xid in 0..=Memory::default().remembered_max as u32 {
            touches.touch(Xid(xid), KeyHash(xid.into()));
        }
        assert_eq!((touches.keys.len(), touches.take_overflow()), (0, true));
        assert!(!touches.take_overflow());
        for xid in 0..=Memory::default().remembered_max as u32 {
            touches.touch_all(Xid(xid));
        }
        assert!(touches.take_overflow());
    }

    #[test]
    fn what_every_snapshot_shows_is_not_remembered() {
        let memory = Memory { remembered_max: 3, ..Memory::default() };
        let mut touches = Touches::new(memory);
        touches.forget_shown_by(&snapshot("5:20:5"));
        for xid in 6..20 {
            touches.touch(Xid(xid), hash("a"));
            touches.touch_all(Xid(xid));
        }
        touches.touch(Xid(5), hash("b"));
        touches.touch(Xid(20), hash("c"));
        assert!(!touches.take_overflow());
        assert_eq!(hidden(&touches, "5:20:5", ["a", "b", "c"]), [false, true, true]);
        assert!(!touches.hidden_from(&snapshot("5:20:5")).is_all());
        touches.remember_all();
        touches.touch_all(Xid(6));
        assert!(touches.hidden_from(&snapshot("5:6:5")).is_all());
    }

    #[test]
    fn keys_of_several_columns_are_told_apart() {
        let hasher = KeyHasher::default();
        let hash = |texts: &[&str]| hasher.hash(texts.iter().map(|text| text.as_bytes()));
        assert_eq!(hash(&["a", "b"]), hash(&["a", "b"]));
        assert_ne!(hash(&["ab", ""]), hash(&["a", "b"]));
        assert_ne!(hash(&["a", "b"]), hash(&["b", "a"]));
    }
}
