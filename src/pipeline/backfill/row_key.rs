//! The key of a row: by what its changes are told from those of other rows.

use super::touches::{KeyHash, KeyHasher};
use crate::change::{OldTuple, RowChange, Tuple, TupleValue};

/// What a key takes in memory beside its texts, about, in bytes.
const OVERHEAD_BYTES: usize = 64;

/// The texts of its columns, in the order of the key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(in crate::pipeline) struct RowKey(pub(super) Vec<String>);

impl RowKey {
    pub(super) fn hash(&self, hasher: &KeyHasher) -> KeyHash {
        hasher.hash(self.0.iter().map(|text| text.as_bytes()))
    }

    /// The memory that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        OVERHEAD_BYTES + self.0.iter().map(String::len).sum::<usize>()
    }
}

/// Where the columns of the key are in a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct KeyPlaces(pub(super) Vec<usize>);

/// The keys that a change is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Changed<'a> {
    /// The row has it, or had it, or both.
    Key(KeyTexts<'a>),
    /// The row had one and has another one.
    Moved { from: KeyTexts<'a>, to: KeyTexts<'a> },
    /// The stream does not say which.
    Unknown,
}

/// A key's texts, in a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyTexts<'a> {
    row: Tuple<'a>,
    /// Has what `row` leaves out because it is large and unchanged.
    older: Option<Tuple<'a>>,
    places: &'a KeyPlaces,
}

impl PartialEq for KeyTexts<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.texts().eq(other.texts())
    }
}

impl Eq for KeyTexts<'_> {}

impl<'a> KeyTexts<'a> {
    /// The texts; none for a value that is not known.
    fn texts(&self) -> impl Iterator<Item = Option<&'a [u8]>> + use<'a> {
        let Self { row, older, places } = *self;
        places.0.iter().map(move |place| match row.get(*place) {
            Some(TupleValue::Text(text)) => Some(text),
            Some(TupleValue::UnchangedToast) => match older.and_then(|older| older.get(*place)) {
                Some(TupleValue::Text(text)) => Some(text),
                Some(TupleValue::UnchangedToast | TupleValue::Null) | None => None,
            },
            Some(TupleValue::Null) | None => None,
        })
    }

    fn is_known(&self) -> bool {
        self.texts().all(|text| text.is_some())
    }

    pub(super) fn hash(&self, hasher: &KeyHasher) -> KeyHash {
        hasher.hash(self.texts().flatten())
    }

    /// The key itself; none where it is no UTF-8.
    pub(super) fn to_key(self) -> Option<RowKey> {
        let text = |text: Option<&[u8]>| String::from_utf8(text?.to_vec()).ok();
        self.texts().map(text).collect::<Option<_>>().map(RowKey)
    }
}

impl KeyPlaces {
    /// The key of a row that is whole; none where it has NULL there.
    pub(super) fn of_row<'a>(&'a self, row: Tuple<'a>) -> Option<KeyTexts<'a>> {
        let texts = KeyTexts { row, older: None, places: self };
        texts.is_known().then_some(texts)
    }

    /// The keys that a change of the stream is of.
    pub(super) fn of_change<'a>(&'a self, change: RowChange<'a>) -> Changed<'a> {
        let texts = |row, older| {
            let texts = KeyTexts { row, older, places: self };
            texts.is_known().then_some(texts)
        };
        let of_old = |old| match old {
            OldTuple::Key(row) | OldTuple::Full(row) => row,
        };
        let (from, to) = match change {
            RowChange::Insert { new } => {
                let key = texts(new, None);
                // An update that brought the row behind a row filter: it lacks what is large.
                let is_partial = new.iter().any(|value| value == TupleValue::UnchangedToast);
                return match key {
                    Some(key) if is_partial => Changed::Moved { from: key, to: key },
                    Some(key) => Changed::Key(key),
                    None => Changed::Unknown,
                };
            }
            RowChange::Delete { old } => (None, texts(of_old(old), None)),
            RowChange::Update { old: None, new } => (None, texts(new, None)),
            RowChange::Update { old: Some(old), new } => {
                let old = of_old(old);
                let Some(from) = texts(old, None) else { return Changed::Unknown };
                (Some(from), texts(new, Some(old)))
            }
        };
        match (from, to) {
            (_, None) => Changed::Unknown,
            (Some(from), Some(to)) if from != to => Changed::Moved { from, to },
            (_, Some(to)) => Changed::Key(to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::ValueSlot;

    const FRAME: &[u8] = b"abc";

    fn text(start: u32) -> ValueSlot {
        ValueSlot::Text { start, length: 1 }
    }

    fn key(changed: Changed<'_>) -> (Option<RowKey>, Option<RowKey>) {
        match changed {
            Changed::Key(key) => (None, key.to_key()),
            Changed::Moved { from, to } => (from.to_key(), to.to_key()),
            Changed::Unknown => (None, None),
        }
    }

    fn of(texts: &[&str]) -> Option<RowKey> {
        Some(RowKey(texts.iter().map(|text| (*text).to_owned()).collect()))
    }

    /// A key of the third and the first of three columns.
    #[test]
    fn a_change_is_of_the_key_that_the_row_has_and_of_the_one_that_it_had() {
        let places = KeyPlaces(vec![2, 0]);
        let (a, b, c) = (text(0), text(1), text(2));
        let [abc, cbc, bba] = [[a, b, c], [c, b, c], [b, b, a]];
        let tuple = |slots| Tuple::new(FRAME, slots);
        let changed = |old: Option<OldTuple<'static>>, new: &'static [ValueSlot]| {
            key(places.of_change(RowChange::Update { old, new: Tuple::new(FRAME, new) }))
        };
        let leak = |slots: [ValueSlot; 3]| -> &'static [ValueSlot] { Box::leak(Box::new(slots)) };
        assert_eq!(
            key(places.of_change(RowChange::Insert { new: tuple(&abc) })),
            (None, of(&["c", "a"]))
        );
        let old = OldTuple::Key(tuple(&bba));
        assert_eq!(key(places.of_change(RowChange::Delete { old })), (None, of(&["a", "b"])));
        assert_eq!(changed(None, leak(abc)), (None, of(&["c", "a"])));
        let old = Some(OldTuple::Full(Tuple::new(FRAME, leak(abc))));
        assert_eq!(changed(old, leak(abc)), (None, of(&["c", "a"])));
        assert_eq!(changed(old, leak(cbc)), (of(&["c", "a"]), of(&["c", "c"])));
        // What is large and unchanged is taken from the old row, where there is one.
        let unchanged = leak([c, b, ValueSlot::UnchangedToast]);
        assert_eq!(changed(old, unchanged), (of(&["c", "a"]), of(&["c", "c"])));
        assert_eq!(changed(None, unchanged), (None, None));
        assert_eq!(places.of_row(tuple(&[a, b, ValueSlot::Null])), None);
    }
}
