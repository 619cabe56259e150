//! Messages, one by one.

use super::{DecodeError, reader::Reader, relation, tuple};
use crate::{
    change::{
        Oid, OldTuple, PgTimestamp, Relation, RelationId, Transaction, Tuple, ValueSlot, Xid,
    },
    lsn::{CommitLsn, EndLsn, Lsn},
};

/// CASCADE was given (C name `TRUNCATE_CASCADE`).
const TRUNCATE_CASCADE: u8 = 1;
/// RESTART IDENTITY was given (C name `TRUNCATE_RESTART_SEQS`).
const TRUNCATE_RESTART_IDENTITY: u8 = 2;
/// The message is part of its transaction (C name `MESSAGE_TRANSACTIONAL`).
const MESSAGE_TRANSACTIONAL: u8 = 1;

/// A decoded message, borrowing from its frame and its decoder.
#[derive(Debug)]
pub enum Message<'a> {
    /// A transaction begins; all that follows up to Commit belongs to it.
    Begin(Transaction),
    /// A transaction ends.
    Commit {
        /// Where the commit record begins: Begin's.
        commit_lsn: CommitLsn,
        /// Where it ends.
        end_lsn: EndLsn,
        /// When it committed.
        committed_at: PgTimestamp,
    },
    /// The transaction was replicated from elsewhere.
    Origin,
    /// A table as the changes that follow know it.
    Relation(Relation),
    /// A type that is not built in, named before the relation that uses it.
    Type {
        /// Its OID.
        id: Oid,
    },
    /// A row was inserted.
    Insert {
        /// The table.
        relation: RelationId,
        /// The row.
        new: Tuple<'a>,
    },
    /// A row was updated.
    Update {
        /// The table.
        relation: RelationId,
        /// The old row or key; none where the key is unchanged and the identity is not FULL.
        old: Option<OldTuple<'a>>,
        /// The new row.
        new: Tuple<'a>,
    },
    /// A row was deleted.
    Delete {
        /// The table.
        relation: RelationId,
        /// The old row or key.
        old: OldTuple<'a>,
    },
    /// Tables were truncated.
    Truncate {
        /// The tables, at least one.
        relations: &'a [RelationId],
        /// With CASCADE.
        cascade: bool,
        /// With RESTART IDENTITY.
        restart_identity: bool,
    },
    /// `pg_logical_emit_message`.
    Message {
        /// Part of its transaction; otherwise it stands where it was written.
        transactional: bool,
        /// Where it was written.
        lsn: Option<Lsn>,
        /// The prefix.
        prefix: &'a str,
        /// The content.
        content: &'a [u8],
    },
}

/// Decodes messages one by one; its scratches are all the memory that rows need.
#[derive(Debug, Default)]
pub struct Decoder {
    new: Vec<ValueSlot>,
    old: Vec<ValueSlot>,
    truncated: Vec<RelationId>,
}

impl Decoder {
    /// A decoder. It keeps nothing from one message to the next.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes one message: the payload of one XLogData.
    ///
    /// # Errors
    /// Where the bytes are not a whole message of the version that was asked for.
    pub fn decode<'a>(&'a mut self, frame: &'a [u8]) -> Result<Message<'a>, DecodeError> {
        let mut reader = Reader::new(frame);
        match reader.u8("message's type")? {
            b'I' => self.insert(reader),
            b'B' => begin(reader),
            b'C' => commit(reader),
            b'U' => self.update(reader),
            b'D' => self.delete(reader),
            b'R' => {
                let relation = relation::read(&mut reader)?;
                reader.finish("Relation").map(|()| Message::Relation(relation))
            }
            b'Y' => type_name(reader),
            b'O' => {
                reader.u64("origin's LSN")?;
                reader.text("origin's name")?;
                reader.finish("Origin").map(|()| Message::Origin)
            }
            b'T' => self.truncate(reader),
            b'M' => message(reader),
            tag => Err(DecodeError::Tag { tag }),
        }
    }

    fn insert<'a>(&'a mut self, mut reader: Reader<'a>) -> Result<Message<'a>, DecodeError> {
        let relation = RelationId(reader.u32("insert's relation")?);
        expect_new(reader.u8("tuple's kind")?)?;
        tuple::read(&mut reader, &mut self.new)?;
        reader.finish("Insert")?;
        Ok(Message::Insert { relation, new: Tuple::new(reader.frame(), &self.new) })
    }

    fn update<'a>(&'a mut self, mut reader: Reader<'a>) -> Result<Message<'a>, DecodeError> {
        let relation = RelationId(reader.u32("update's relation")?);
        let frame = reader.frame();
        let mut kind = reader.u8("tuple's kind")?;
        let mut old_kind = None;
        if kind == b'K' || kind == b'O' {
            tuple::read(&mut reader, &mut self.old)?;
            old_kind = Some(kind);
            kind = reader.u8("tuple's kind")?;
        }
        expect_new(kind)?;
        tuple::read(&mut reader, &mut self.new)?;
        reader.finish("Update")?;
        let old = old_kind.map(|kind| old_tuple(kind, Tuple::new(frame, &self.old))).transpose()?;
        Ok(Message::Update { relation, old, new: Tuple::new(frame, &self.new) })
    }

    fn delete<'a>(&'a mut self, mut reader: Reader<'a>) -> Result<Message<'a>, DecodeError> {
        let relation = RelationId(reader.u32("delete's relation")?);
        let kind = reader.u8("tuple's kind")?;
        tuple::read(&mut reader, &mut self.old)?;
        reader.finish("Delete")?;
        let old = old_tuple(kind, Tuple::new(reader.frame(), &self.old))?;
        Ok(Message::Delete { relation, old })
    }

    fn truncate<'a>(&'a mut self, mut reader: Reader<'a>) -> Result<Message<'a>, DecodeError> {
        let count = reader.length("truncate's relation count")?;
        let options = reader.u8("truncate's options")?;
        if count == 0 {
            return Err(DecodeError::Field { field: "truncate's relation count", value: 0 });
        }
        self.truncated.clear();
        for _ in 0..count {
            self.truncated.push(RelationId(reader.u32("truncate's relation")?));
        }
        reader.finish("Truncate")?;
        let cascade = options & TRUNCATE_CASCADE != 0;
        let restart_identity = options & TRUNCATE_RESTART_IDENTITY != 0;
        Ok(Message::Truncate { relations: &self.truncated, cascade, restart_identity })
    }
}

fn expect_new(kind: u8) -> Result<(), DecodeError> {
    match kind {
        b'N' => Ok(()),
        _ => Err(DecodeError::Field { field: "tuple's kind", value: kind.into() }),
    }
}

fn old_tuple(kind: u8, tuple: Tuple<'_>) -> Result<OldTuple<'_>, DecodeError> {
    match kind {
        b'K' => Ok(OldTuple::Key(tuple)),
        b'O' => Ok(OldTuple::Full(tuple)),
        _ => Err(DecodeError::Field { field: "tuple's kind", value: kind.into() }),
    }
}

fn position(reader: &mut Reader<'_>, field: &'static str) -> Result<Lsn, DecodeError> {
    Lsn::from_wire(reader.u64(field)?).ok_or(DecodeError::Field { field, value: 0 })
}

fn begin(mut reader: Reader<'_>) -> Result<Message<'_>, DecodeError> {
    let commit_lsn = CommitLsn(position(&mut reader, "begin's final LSN")?);
    let committed_at = PgTimestamp(reader.i64("begin's commit time")?);
    let xid = Xid(reader.u32("begin's xid")?);
    reader.finish("Begin")?;
    Ok(Message::Begin(Transaction { commit_lsn, xid, committed_at }))
}

fn commit(mut reader: Reader<'_>) -> Result<Message<'_>, DecodeError> {
    let flags = reader.u8("commit's flags")?;
    if flags != 0 {
        return Err(DecodeError::Field { field: "commit's flags", value: flags.into() });
    }
    let commit_lsn = CommitLsn(position(&mut reader, "commit's LSN")?);
    let end_lsn = EndLsn(position(&mut reader, "commit's end LSN")?);
    let committed_at = PgTimestamp(reader.i64("commit's time")?);
    reader.finish("Commit")?;
    Ok(Message::Commit { commit_lsn, end_lsn, committed_at })
}

fn type_name(mut reader: Reader<'_>) -> Result<Message<'_>, DecodeError> {
    let id = Oid(reader.u32("type's OID")?);
    reader.text("type's schema")?;
    reader.text("type's name")?;
    reader.finish("Type").map(|()| Message::Type { id })
}

fn message(mut reader: Reader<'_>) -> Result<Message<'_>, DecodeError> {
    let transactional = reader.u8("message's flags")? & MESSAGE_TRANSACTIONAL != 0;
    let lsn = Lsn::from_wire(reader.u64("message's LSN")?);
    let prefix = reader.text("message's prefix")?;
    let length = reader.length("message's length")?;
    let content = reader.bytes(length, "message's content")?;
    reader.finish("Message")?;
    Ok(Message::Message { transactional, lsn, prefix, content })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::TupleValue;

    /// Inputs are hexadecimal digits, blanks between the fields.
    fn bytes(text: &str) -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        let pairs = digits.as_bytes().chunks(2);
        pairs
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16))
            .collect::<Result<_, _>>()
            .expect("hexadecimal digits")
    }

    fn error(text: &str) -> DecodeError {
        let frame = bytes(text);
        Decoder::new().decode(&frame).map(drop).expect_err(text)
    }

    /// 'I', relation 16384, 'N', two columns: text "7" and NULL.
    const INSERT: &str = "49 00004000 4e 0002 74 00000001 37 6e";
    const BEGIN: &str = "42 00000000015396a8 0000000000000007 000002e1";

    #[test]
    fn values_of_a_row_are_views_of_the_frame() {
        let frame = bytes(INSERT);
        let mut decoder = Decoder::new();
        let Ok(Message::Insert { relation, new }) = decoder.decode(&frame) else {
            panic!("{INSERT}")
        };
        assert_eq!(relation, RelationId(16384));
        assert_eq!(new.iter().collect::<Vec<_>>(), [TupleValue::Text(b"7"), TupleValue::Null]);
        assert_eq!(new.get(2), None);
    }

    #[test]
    fn null_unchanged_toast_and_text_are_three_things() {
        let frame = bytes("55 00004000 4e 0003 6e 75 74 00000000");
        let mut decoder = Decoder::new();
        let Ok(Message::Update { old: None, new, .. }) = decoder.decode(&frame) else {
            panic!("an update without an old row")
        };
        assert_eq!(
            new.iter().collect::<Vec<_>>(),
            [TupleValue::Null, TupleValue::UnchangedToast, TupleValue::Text(b"")]
        );
    }

    #[test]
    fn an_old_row_is_a_key_or_whole() {
        let mut decoder = Decoder::new();
        let frame = bytes("44 00004000 4b 0001 74 00000001 37");
        assert!(matches!(
            decoder.decode(&frame),
            Ok(Message::Delete { old: OldTuple::Key(_), .. })
        ));
        let frame = bytes("55 00004000 4f 0001 74 00000001 37 4e 0001 6e");
        assert!(matches!(
            decoder.decode(&frame),
            Ok(Message::Update { old: Some(OldTuple::Full(_)), .. })
        ));
    }

    #[test]
    fn a_message_cut_anywhere_is_refused() {
        for whole in [
            INSERT,
            BEGIN,
            "43 00 00000000015396a8 00000000015396d8 0000000000000007",
            "55 00004000 4f 0001 74 00000001 37 4e 0001 6e",
            "44 00004000 4b 0001 74 00000001 37",
            "52 00004000 7075626c696300 6f7200 64 0001 01 696400 00000017 ffffffff",
            "59 00004000 7075626c696300 6d6f6f6400",
            "4f 00000000015396a8 6e6f646500",
            "54 00000002 01 00004000 00004001",
            "4d 01 00000000015396a8 6f7574626f7800 00000002 7b7d",
        ] {
            let frame = bytes(whole);
            assert!(Decoder::new().decode(&frame).is_ok(), "{whole}");
            for length in 0..frame.len() {
                let cut = Decoder::new().decode(&frame[..length]).map(drop);
                assert!(matches!(cut, Err(DecodeError::Truncated { .. })), "{whole} at {length}");
            }
            let mut longer = frame.clone();
            longer.push(0);
            let remainder = Decoder::new().decode(&longer).map(drop);
            assert!(matches!(remainder, Err(DecodeError::Remainder { bytes: 1, .. })), "{whole}");
        }
    }

    #[test]
    fn what_no_field_may_hold_is_refused_by_its_name() {
        for (text, expected) in [
            ("58", "type 0x58"),
            ("42 0000000000000000 0000000000000007 000002e1", "begin's final LSN"),
            ("43 01 00000000015396a8 00000000015396d8 0000000000000007", "commit's flags"),
            ("49 00004000 4b 0001 6e", "tuple's kind"),
            ("49 00004000 4e ffff 6e", "column"),
            ("49 00004000 4e 0001 62 00000001 37", "value"),
            ("49 00004000 4e 0001 74 ffffffff", "length"),
            ("54 ffffffff 00", "truncate's relation count"),
            ("54 00000000 00", "truncate's relation count"),
            ("52 00004000 ff00 6f7200 64 0000", "UTF-8"),
            ("52 00004000 7000 6f7200 78 0000", "replica identity"),
        ] {
            let words = error(text).to_string();
            assert!(words.contains(expected), "{text}: {words}");
        }
    }

    #[test]
    fn a_large_count_takes_no_memory_before_its_bytes_came() {
        assert!(matches!(error("54 7fffffff 00"), DecodeError::Truncated { .. }));
        assert!(matches!(error("49 00004000 4e 7fff"), DecodeError::Truncated { .. }));
    }
}
