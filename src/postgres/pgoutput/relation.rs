//! The Relation message.
//!
//! ```text
//! u32 OID │ text schema │ text name │ u8 replica identity │ i16 columns │ columns × column
//! column: u8 flags │ text name │ u32 type OID │ i32 type modifier
//! ```

use super::reader::{DecodeError, Reader};
use crate::change::{Column, Oid, Relation, RelationId, ReplicaIdentity};

/// The column is part of the replica identity (C name `LOGICALREP_IS_REPLICA_IDENTITY`).
const IS_REPLICA_IDENTITY: u8 = 1;

/// The smallest column on the wire: flags, an empty name's zero, type and modifier.
const COLUMN_BYTES_MIN: usize = 10;

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Relation, DecodeError> {
    let id = RelationId(reader.u32("relation's OID")?);
    let schema = match reader.text("relation's schema")? {
        // The server leaves the schema out for its own catalog.
        "" => "pg_catalog",
        schema => schema,
    }
    .to_owned();
    let name = reader.text("relation's name")?.to_owned();
    let replica_identity = replica_identity(reader.u8("replica identity")?)?;
    let count = reader.count("relation's column count")?;
    let mut columns = Vec::with_capacity(count.min(reader.frame().len() / COLUMN_BYTES_MIN));
    for _ in 0..count {
        columns.push(column(reader)?);
    }
    Ok(Relation { id, schema, name, replica_identity, columns })
}

fn column(reader: &mut Reader<'_>) -> Result<Column, DecodeError> {
    let flags = reader.u8("column's flags")?;
    Ok(Column {
        is_replica_identity: flags & IS_REPLICA_IDENTITY != 0,
        name: reader.text("column's name")?.to_owned(),
        type_oid: Oid(reader.u32("column's type")?),
        type_modifier: reader.i32("column's type modifier")?,
    })
}

fn replica_identity(letter: u8) -> Result<ReplicaIdentity, DecodeError> {
    match letter {
        b'd' => Ok(ReplicaIdentity::Default),
        b'n' => Ok(ReplicaIdentity::Nothing),
        b'f' => Ok(ReplicaIdentity::Full),
        b'i' => Ok(ReplicaIdentity::Index),
        other => Err(DecodeError::Field { field: "replica identity", value: other.into() }),
    }
}
