//! Types as the catalog describes them.

use std::sync::Arc;

use crate::change::Oid;

/// A type. Shared, because many columns, and other types, have it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Type {
    /// Its OID: one of a built-in type is the same everywhere, any other one belongs to its database.
    pub oid: Oid,
    /// As `format_type` names it, behind its schema where that is not `pg_catalog`.
    pub name: String,
    /// What it is made of.
    pub kind: Kind,
}

impl Type {
    /// One that was not looked up, or that is gone.
    pub fn unknown(oid: Oid) -> Arc<Self> {
        Arc::new(Self { oid, name: format!("OID {oid}"), kind: Kind::Unknown })
    }
}

/// What a type is made of (`pg_type.typtype`, `typcategory`, `typelem`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A base type; which one its OID says, where it is built in.
    Base,
    /// `hstore`, of the extension of that name.
    Hstore,
    /// An array.
    Array {
        /// What it holds.
        element: Arc<Type>,
        /// What stands between two elements (`pg_type.typdelim`): `;` for box, else `,`.
        delimiter: u8,
    },
    /// A composite, also the row type of a table.
    Composite {
        /// Its attributes, those that were dropped left out, in their order.
        fields: Vec<Field>,
    },
    /// A domain.
    Domain {
        /// What it is over; may be a domain too.
        base: Arc<Type>,
    },
    /// An enum.
    Enum,
    /// A range or multirange.
    Range,
    /// One that the catalog does not hold (any more), or of a kind that is not known here.
    Unknown,
}

/// An attribute of a composite.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its type.
    pub field_type: Arc<Type>,
}
