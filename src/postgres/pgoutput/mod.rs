//! The pure decoder of pgoutput's messages, protocol version 1, streaming off.
//!
//! Bytes in, a borrowed [`Message`] out: no I/O, no logging, no allocation for a row. Field tables
//! are those of the manual's page protocol-logicalrep-message-formats; all integers are big-endian,
//! all texts end with a zero byte. Not spoken, because not asked for: binary values, streamed and
//! prepared transactions.
//!
//! ```text
//! B Begin     u64 final LSN │ i64 commit time │ u32 xid
//! C Commit    u8 flags │ u64 commit LSN │ u64 end LSN │ i64 commit time
//! O Origin    u64 LSN │ text name
//! R Relation  relation.rs
//! Y Type      u32 OID │ text schema │ text name
//! I Insert    u32 relation │ 'N' tuple
//! U Update    u32 relation │ ['K' tuple | 'O' tuple] │ 'N' tuple
//! D Delete    u32 relation │ 'K' tuple | 'O' tuple
//! T Truncate  i32 relations │ u8 options │ relations × u32
//! M Message   u8 flags │ u64 LSN │ text prefix │ i32 length │ bytes
//! ```

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

mod reader;
mod relation;
mod tuple;

use reader::Reader;

pub use reader::DecodeError;

use crate::{
    change::{
        Oid, OldTuple, PgTimestamp, Relation, RelationId, Transaction, Tuple, ValueSlot, Xid,
    },
    failure::{Code, Failure, Recovery},
    lsn::{CommitLsn, EndLsn, Lsn},
};

/// CASCADE was given (C name `TRUNCATE_CASCADE`).
const TRUNCATE_CASCADE: u8 = 1;
/// RESTART IDENTITY was given (C name `TRUNCATE_RESTART_SEQS`).
const TRUNCATE_RESTART_IDENTITY: u8 = 2;
/// The message is part of its transaction (C name `MESSAGE_TRANSACTIONAL`).
const MESSAGE_TRANSACTIONAL: u8 = 1;

impl Failure for DecodeError {
    fn code(&self) -> Option<Code> {
        None
    }

    fn recovery(&self) -> Recovery {
        Recovery::Stop
    }

    fn hint(&self) -> Option<String> {
        Some(
            "Nothing was skipped. Look for a proxy between the daemon and PostgreSQL; without one \
             this is a defect of Tailwater: report it with the server's version."
                .to_owned(),
        )
    }
}

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
        /// The first table named; more may follow in one message.
        relation: RelationId,
        /// How many.
        relations: usize,
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

/// Decodes messages one by one; its two scratches are all the memory that rows need.
#[derive(Debug, Default)]
pub struct Decoder {
    new: Vec<ValueSlot>,
    old: Vec<ValueSlot>,
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
            b'T' => truncate(reader),
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

fn truncate(mut reader: Reader<'_>) -> Result<Message<'_>, DecodeError> {
    let relations = reader.length("truncate's relation count")?;
    let options = reader.u8("truncate's options")?;
    if relations == 0 {
        return Err(DecodeError::Field { field: "truncate's relation count", value: 0 });
    }
    let relation = RelationId(reader.u32("truncate's relation")?);
    for _ in 1..relations {
        reader.u32("truncate's relation")?;
    }
    reader.finish("Truncate")?;
    let cascade = options & TRUNCATE_CASCADE != 0;
    let restart_identity = options & TRUNCATE_RESTART_IDENTITY != 0;
    Ok(Message::Truncate { relation, relations, cascade, restart_identity })
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
