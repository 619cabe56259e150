//! Tuples: borrowed views of the frame that a change came in.

/// One column's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TupleValue<'a> {
    /// SQL NULL; in the old row of a `Key` tuple: not sent.
    Null,
    /// A TOAST value that the update did not touch; the stream does not carry it.
    UnchangedToast,
    /// The value's text form, in the client encoding (UTF-8).
    Text(&'a [u8]),
}

/// Where a value lies in its frame. Made by the decoder, which has checked the bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ValueSlot {
    /// SQL NULL.
    Null,
    /// An unchanged TOAST value.
    UnchangedToast,
    /// Text at `start .. start + length` of the frame, in bytes.
    Text {
        /// The first byte's place in the frame.
        start: u32,
        /// Bytes.
        length: u32,
    },
}

/// The values of a row, in the order of the relation's columns.
#[derive(Clone, Copy, Debug)]
pub struct Tuple<'a> {
    frame: &'a [u8],
    slots: &'a [ValueSlot],
}

impl<'a> Tuple<'a> {
    /// A view of `frame` with one slot per column.
    pub fn new(frame: &'a [u8], slots: &'a [ValueSlot]) -> Self {
        Self { frame, slots }
    }

    /// The number of columns.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True for a table without published columns.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The value of the column at `index`; `None` past the last column.
    pub fn get(&self, index: usize) -> Option<TupleValue<'a>> {
        self.slots.get(index).map(|slot| self.value(*slot))
    }

    /// The values, one per column.
    pub fn iter(&self) -> impl Iterator<Item = TupleValue<'a>> + use<'a> {
        let view = *self;
        view.slots.iter().map(move |slot| view.value(*slot))
    }

    fn value(&self, slot: ValueSlot) -> TupleValue<'a> {
        match slot {
            ValueSlot::Null => TupleValue::Null,
            ValueSlot::UnchangedToast => TupleValue::UnchangedToast,
            ValueSlot::Text { start, length } => {
                let (start, length) = (start as usize, length as usize);
                let text = self.frame.get(start..).and_then(|rest| rest.get(..length));
                TupleValue::Text(text.expect("the decoder makes slots within the frame"))
            }
        }
    }
}

/// The old row of an update or delete.
#[derive(Clone, Copy, Debug)]
pub enum OldTuple<'a> {
    /// `K`: only the replica identity's columns are known; the others read as NULL.
    Key(Tuple<'a>),
    /// `O`: the whole row (REPLICA IDENTITY FULL).
    Full(Tuple<'a>),
}
