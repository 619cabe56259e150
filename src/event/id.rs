//! Event ids: UUIDs in text.
//!
//! What has no UUID of its own gets a UUIDv8 that is made of what it is, so that it is the same after
//! every restart. The hashes are fixed for ever, because consumers remember ids. Each one is SHA-256
//! over a list of byte strings, each string preceded by its length in bytes as a 64-bit big-endian
//! number; the UUID's version and variant take the place of six of its bits.
//!
//! - A key of an outbox row: `tailwater outbox key`, system id (decimal), database, schema, table,
//!   and the text of the key as PostgreSQL writes it. The first 16 bytes are the UUID.
//! - A change of a domain table: `tailwater change`, system id (decimal), the positions of its
//!   transaction's commit record and of itself, its ordinal among the changes with that position (of
//!   a truncate the table's OID), each a 64-bit big-endian number, the event's type, and the condition
//!   of the rule that made it, empty where none did. Time and hash as for a message.
//! - A row of a table that was there before: `tailwater snapshot`, system id (decimal), the request,
//!   the table (`schema.table`), the texts of its key's columns, each preceded by its length, as one
//!   string (without a key the row's ordinal number in the request, 64 bits), the position of the commit record that moved the row to this key, where it was looked
//!   for because of that, else empty, the event's type, and the condition of the rule that made it. The
//!   first 16 bytes are the UUID.
//! - A message without an id: `tailwater message`, system id (decimal), and the positions of its
//!   transaction's commit record and of itself, each a 64-bit big-endian number. The first 10 bytes
//!   follow 6 bytes that hold the commit time in milliseconds since 1970, so that ids sort by time.

use sha2::{Digest as _, Sha256};
use uuid::{Builder, Uuid};

use crate::{
    change::Transaction,
    event::{SnapshotRow, table::At},
    lsn::Lsn,
};

/// The database that rows and messages come from. A cluster's databases may have tables of the same
/// names, so the system id alone would not do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DatabaseIdentity {
    /// The cluster's system identifier, decimal.
    pub system_id: String,
    /// The database's name.
    pub database: String,
}

/// The length of a hyphenated UUID in bytes.
pub(super) const ID_BYTES: usize = 36;

/// The UUID of `text` in lower case with hyphens, where `text` is one in any usual form.
///
/// A uuid column's text is returned as it is; `scratch` is for what an application wrote otherwise.
pub(super) fn canonical<'a>(text: &'a str, scratch: &'a mut [u8; ID_BYTES]) -> Option<&'a str> {
    if is_canonical(text) {
        return Some(text);
    }
    Some(parse(text)?.hyphenated().encode_lower(scratch))
}

fn parse(text: &str) -> Option<Uuid> {
    // char(40) comes with trailing blanks, which mean nothing.
    Uuid::try_parse(text.trim_end_matches(' ')).ok()
}

/// A row's id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RowId<'a> {
    /// The UUID that its key is.
    Own(&'a str),
    /// A UUID that was made of its key.
    Made(&'a str),
}

impl<'a> RowId<'a> {
    pub(super) fn text(self) -> &'a str {
        match self {
            Self::Own(text) | Self::Made(text) => text,
        }
    }
}

/// Makes ids of the keys of one table.
#[derive(Clone, Debug)]
pub(super) struct KeyIds {
    /// All but the key is taken in already.
    begun: Sha256,
}

impl KeyIds {
    pub(super) fn new(identity: &DatabaseIdentity, schema: &str, table: &str) -> Self {
        let DatabaseIdentity { system_id, database } = identity;
        let mut begun = Sha256::new();
        for text in ["tailwater outbox key", system_id, database, schema, table] {
            take_in(&mut begun, text.as_bytes());
        }
        Self { begun }
    }

    /// The id of the row with that key, which is no UUID.
    pub(super) fn of_key<'a>(&self, key: &str, scratch: &'a mut [u8; ID_BYTES]) -> RowId<'a> {
        RowId::Made(self.uuid_of(key).hyphenated().encode_lower(scratch))
    }

    /// The UUID that the key is, or else the id of the row with that key.
    pub(super) fn of_text<'a>(&self, key: &'a str, scratch: &'a mut [u8; ID_BYTES]) -> RowId<'a> {
        if is_canonical(key) {
            return RowId::Own(key);
        }
        match parse(key) {
            Some(uuid) => RowId::Own(uuid.hyphenated().encode_lower(scratch)),
            None => self.of_key(key, scratch),
        }
    }

    fn uuid_of(&self, key: &str) -> Uuid {
        let mut hash = self.begun.clone();
        take_in(&mut hash, key.as_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let (bytes, _) = digest.split_first_chunk().expect("SHA-256 has 32 bytes");
        Builder::from_custom_bytes(*bytes).into_uuid()
    }
}

/// The id of a message that brings none. No two messages of a cluster have both positions.
pub(super) fn of_message<'a>(
    identity: &DatabaseIdentity,
    transaction: &Transaction,
    message_lsn: Option<Lsn>,
    scratch: &'a mut [u8; ID_BYTES],
) -> &'a str {
    let mut hash = Sha256::new();
    take_in(&mut hash, b"tailwater message");
    take_in(&mut hash, identity.system_id.as_bytes());
    for position in [Some(transaction.commit_lsn.lsn()), message_lsn] {
        take_in(&mut hash, &position.map_or(0, Lsn::to_wire).to_be_bytes());
    }
    sorted_by_time(transaction, hash, scratch)
}

/// What an event of a domain table is made of.
pub(super) struct Happened<'h> {
    pub(super) system_id: &'h str,
    pub(super) at: At<'h>,
    pub(super) is_truncate: bool,
    pub(super) event_type: &'h str,
    pub(super) condition: &'h str,
}

/// The id of an event of a domain table.
pub(super) fn of_change<'a>(happened: Happened<'_>, scratch: &'a mut [u8; ID_BYTES]) -> &'a str {
    let Happened { system_id, at, is_truncate, event_type, condition } = happened;
    let At { relation, transaction, place } = at;
    let ordinal = if is_truncate { u64::from(relation.0) } else { place.ordinal_at_lsn };
    let commit_lsn = transaction.commit_lsn.lsn().to_wire();
    let mut hash = Sha256::new();
    take_in(&mut hash, b"tailwater change");
    take_in(&mut hash, system_id.as_bytes());
    for number in [commit_lsn, place.lsn.map_or(0, Lsn::to_wire), ordinal] {
        take_in(&mut hash, &number.to_be_bytes());
    }
    take_in(&mut hash, event_type.as_bytes());
    take_in(&mut hash, condition.as_bytes());
    sorted_by_time(transaction, hash, scratch)
}

/// What an event of a row is made of that was there before.
pub(super) struct WasThere<'w> {
    pub(super) system_id: &'w str,
    /// `schema.table`.
    pub(super) table: &'w str,
    pub(super) row: SnapshotRow<'w>,
    pub(super) event_type: &'w str,
    pub(super) condition: &'w str,
}

/// The id of an event of a row that was there before.
pub(super) fn of_snapshot<'a>(was_there: WasThere<'_>, scratch: &'a mut [u8; ID_BYTES]) -> &'a str {
    let WasThere { system_id, table, row, event_type, condition } = was_there;
    let SnapshotRow { key, request, moved_at, .. } = row;
    let mut hash = Sha256::new();
    for text in ["tailwater snapshot", system_id, request, table] {
        take_in(&mut hash, text.as_bytes());
    }
    take_in(&mut hash, key);
    let moved_at = moved_at.map(|at| at.lsn().to_wire().to_be_bytes());
    take_in(&mut hash, moved_at.as_ref().map_or(&[], <[u8; 8]>::as_slice));
    take_in(&mut hash, event_type.as_bytes());
    take_in(&mut hash, condition.as_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    let (bytes, _) = digest.split_first_chunk().expect("SHA-256 has 32 bytes");
    Builder::from_custom_bytes(*bytes).into_uuid().hyphenated().encode_lower(scratch)
}

/// A UUID of the commit time and a hash.
fn sorted_by_time<'a>(
    transaction: &Transaction,
    hash: Sha256,
    scratch: &'a mut [u8; ID_BYTES],
) -> &'a str {
    let digest: [u8; 32] = hash.finalize().into();
    // Of the 64 bits the lower 48 are milliseconds up to the year 10889.
    let [_, _, time @ ..] = transaction.committed_at.unix_milliseconds().to_be_bytes();
    let mut bytes = [0; 16];
    let (before, behind) = bytes.split_at_mut(time.len());
    before.copy_from_slice(&time);
    behind.copy_from_slice(digest.get(..10).expect("SHA-256 has 32 bytes"));
    Builder::from_custom_bytes(bytes).into_uuid().hyphenated().encode_lower(scratch)
}

/// True for a UUID with hyphens, in capitals too.
pub(super) fn is_hyphenated(text: &str) -> bool {
    text.len() == ID_BYTES && Uuid::try_parse(text).is_ok()
}

fn take_in(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

/// True for 8-4-4-4-12 hexadecimal digits in lower case.
fn is_canonical(text: &str) -> bool {
    let Ok(mut bytes) = <[u8; ID_BYTES]>::try_from(text.as_bytes()) else { return false };
    let mut are_in_place = true;
    for index in [8, 13, 18, 23] {
        are_in_place &= bytes[index] == b'-';
        bytes[index] = b'0';
    }
    // Without a branch per byte, so that the loop is done in vectors.
    let is_digit = |byte: u8| byte.is_ascii_digit() | (b'a'..=b'f').contains(&byte);
    bytes.into_iter().fold(are_in_place, |all, byte| all & is_digit(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::fixture::transaction;

    const CANONICAL: &str = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";

    #[test]
    fn uuid_text_of_any_form_becomes_canonical() {
        for text in [
            CANONICAL,
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11    ",
        ] {
            assert_eq!(canonical(text, &mut [0; ID_BYTES]), Some(CANONICAL), "{text}");
        }
    }

    fn key_id(system_id: &str, database: &str, table: &str, key: &str) -> String {
        let (system_id, database) = (system_id.to_owned(), database.to_owned());
        let ids = KeyIds::new(&DatabaseIdentity { system_id, database }, "public", table);
        ids.of_key(key, &mut [0; ID_BYTES]).text().to_owned()
    }

    /// Python: hashlib.sha256(b"".join(len(s).to_bytes(8, "big") + s for s in [b"tailwater outbox
    /// key", b"7", b"shop", b"public", b"outbox", b"42"])), then version 8 and variant 1.
    #[test]
    fn the_id_of_a_key_never_changes() {
        assert_eq!(key_id("7", "shop", "outbox", "42"), "5116d9ec-fda8-8d3e-9009-e62f4d021b8c");
    }

    #[test]
    fn the_id_of_a_key_is_that_of_its_table_alone() {
        let id = key_id("7", "shop", "outbox", "42");
        assert_eq!((id.as_bytes()[14], id.parse::<Uuid>().is_ok()), (b'8', true));
        for other in [
            key_id("8", "shop", "outbox", "42"),
            key_id("7", "shop2", "outbox", "42"),
            key_id("7", "shop", "outbox4", "2"),
            key_id("7", "shop", "outbox", "43"),
        ] {
            assert_ne!(id, other);
        }
    }

    /// Made by Python as above; the time is 2026-03-01 12:00:00.123 UTC.
    #[test]
    fn the_id_of_a_message_never_changes() {
        let (system_id, database) = ("7".to_owned(), "shop".to_owned());
        let identity = DatabaseIdentity { system_id, database };
        let id = |message_lsn| {
            let mut scratch = [0; ID_BYTES];
            let message_lsn = Lsn::from_wire(message_lsn);
            of_message(&identity, &transaction(), message_lsn, &mut scratch).to_owned()
        };
        assert_eq!(id(0x16_B374_D000), "019ca945-0a7b-870d-a72d-7d6cedb91c20");
        assert_ne!(id(0x16_B374_D000), id(0x16_B374_D001));
        assert_eq!(id(1).get(..14), id(2).get(..14));
    }

    #[test]
    fn a_text_key_that_is_a_uuid_is_the_id() {
        let (system_id, database) = ("7".to_owned(), "shop".to_owned());
        let ids = KeyIds::new(&DatabaseIdentity { system_id, database }, "public", "outbox");
        let mut scratch = [0; ID_BYTES];
        assert_eq!(ids.of_text(CANONICAL, &mut scratch), RowId::Own(CANONICAL));
        let capitals = CANONICAL.to_uppercase();
        assert_eq!(ids.of_text(&capitals, &mut scratch), RowId::Own(CANONICAL));
        let hashed = key_id("7", "shop", "outbox", "42");
        assert_eq!(ids.of_text("42", &mut scratch), RowId::Made(&hashed));
    }

    #[test]
    fn other_text_is_no_uuid() {
        for text in
            ["", "42", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1", "g0eebc999c0b4ef8bb6d6bb9bd380a11"]
        {
            assert_eq!(canonical(text, &mut [0; ID_BYTES]), None, "{text}");
        }
    }
}
