//! A domain table as the stream or the catalog describes it.

use std::sync::Arc;

use crate::{
    change::{Relation, ReplicaIdentity},
    value::Type,
};

/// What a domain table is compiled against.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What updates and deletes carry of the old row.
    pub replica_identity: ReplicaIdentity,
    /// The columns that are published, in their order.
    pub columns: Vec<DescribedColumn>,
    /// The primary key, where the replica identity does not tell.
    pub primary_key: PrimaryKey,
}

/// The primary key, as the catalog has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PrimaryKey {
    /// The names of its columns, in the table's order; empty where there is none.
    Columns(Vec<String>),
    /// The table is gone.
    Unknown,
}

/// A column of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub column_type: Arc<Type>,
    /// Part of the replica identity; each column under FULL.
    pub is_replica_identity: bool,
}

impl Description {
    /// Schema and name as SQL has them.
    pub(super) fn quoted(&self) -> String {
        let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }

    /// The columns that name a row: those of the replica identity where deletes carry no others, else
    /// the primary key's; in the table's order. None where nothing tells.
    pub(super) fn key(&self) -> Option<Vec<&str>> {
        match (self.replica_identity, &self.primary_key) {
            (ReplicaIdentity::Default | ReplicaIdentity::Index, _) => {
                let columns = self.columns.iter().filter(|column| column.is_replica_identity);
                Some(columns.map(|column| column.name.as_str()).collect())
            }
            (ReplicaIdentity::Full | ReplicaIdentity::Nothing, PrimaryKey::Columns(names)) => {
                Some(names.iter().map(String::as_str).collect())
            }
            (ReplicaIdentity::Full | ReplicaIdentity::Nothing, PrimaryKey::Unknown) => None,
        }
    }
}

/// What the stream does not say of a table, and somebody must ask the catalog for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Questions {
    /// Types that were not heard of.
    pub types: Vec<crate::change::Oid>,
    /// Whether the primary key must be known.
    pub primary_key: bool,
}

impl Questions {
    /// Whether there is nothing to ask.
    pub fn is_empty(&self) -> bool {
        self.types.is_empty() && !self.primary_key
    }

    /// Whether the replica identity leaves open what the primary key is.
    pub fn needs_primary_key(relation: &Relation) -> bool {
        match relation.replica_identity {
            ReplicaIdentity::Full | ReplicaIdentity::Nothing => true,
            ReplicaIdentity::Default | ReplicaIdentity::Index => false,
        }
    }
}
