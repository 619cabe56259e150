//! Relations as the stream describes them.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! identifier {
    ($(#[$documentation:meta])* $name:ident) => {
        $(#[$documentation])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

identifier! {
    /// The object identifier of a type, publication or publication member.
    Oid
}
identifier! {
    /// The object identifier of a table, as every row change names it.
    RelationId
}
identifier! {
    /// A transaction's 32-bit identifier; it wraps.
    Xid
}

/// Which old columns an update or delete carries (`pg_class.relreplident`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplicaIdentity {
    /// `d`: the primary key.
    Default,
    /// `n`: nothing.
    Nothing,
    /// `f`: the whole row.
    Full,
    /// `i`: the columns of a unique index.
    Index,
}

/// A column as the Relation message lists it: published columns only, in their order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Column {
    /// The column's name.
    pub name: String,
    /// The OID of its type; a domain's own OID.
    pub type_oid: Oid,
    /// `atttypmod`; -1 where the type has none.
    pub type_modifier: i32,
    /// Part of the replica identity (`LOGICALREP_IS_REPLICA_IDENTITY`); every column under FULL.
    pub is_replica_identity: bool,
}

/// A table as it stood when the changes that follow were made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relation {
    /// The table's OID.
    pub id: RelationId,
    /// Its schema; `pg_catalog` where the stream leaves it empty.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What updates and deletes carry of the old row.
    pub replica_identity: ReplicaIdentity,
    /// The published columns, in the order of each tuple's values.
    pub columns: Vec<Column>,
}

impl fmt::Display for Relation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.schema, self.name)
    }
}
