//! Whether the stream's tables are those of the publication's fingerprint.
//!
//! A table that was renamed, or replaced by another one, and put back between two looks leaves no
//! trace in the catalog. The stream has one: it names each table, with its OID, before its rows. A
//! row that comes under another name of a configured table would be nobody's and lost; one of
//! another table under a configured name means that the publication held two in turn, and what came
//! before the second was added is lost. Of a pattern's tables neither is so: they come and go, by
//! whichever name.
//!
//! Changes are judged, not descriptions: those of transactions that are published already come again
//! under names of then.

use super::{continuity::undecodable_rows_hint, refusal::Refusal};
use crate::{
    change::{Relation, RelationId},
    checkpoint::Fingerprint,
    event,
    postgres::TableName,
};

/// What the stream calls tables, compared with what they are.
#[derive(Debug)]
pub(super) struct TableIdentities {
    publication: String,
    tables: Vec<(String, RelationId)>,
    /// Tables whose changes are refused. Nearly always empty.
    displaced: Vec<(RelationId, Refusal)>,
}

impl TableIdentities {
    /// The tables of a fingerprint that the settings name.
    pub(super) fn new(fingerprint: &Fingerprint, settings: &event::Settings) -> Self {
        let is_named = |name: &str| {
            TableName::try_from(name.to_owned())
                .is_ok_and(|table| settings.is_named(&table.schema, &table.name))
        };
        let tables = fingerprint.tables.iter().filter(|(name, _)| is_named(name));
        Self {
            publication: fingerprint.name.clone(),
            tables: tables.map(|(name, table)| (name.clone(), table.oid)).collect(),
            displaced: Vec::new(),
        }
    }

    /// Takes note of how the stream calls a table, in place of any earlier name.
    pub(super) fn observe(&mut self, relation: &Relation) {
        self.displaced.retain(|(id, _)| *id != relation.id);
        let streamed = relation.to_string();
        let is_displaced =
            |(name, oid): &&(String, RelationId)| (*name == streamed) != (*oid == relation.id);
        let Some((name, oid)) = self.tables.iter().find(is_displaced) else { return };
        let refusal = Refusal::PublicationGap {
            publication: self.publication.clone(),
            what: format!(
                "rows came of table {streamed} with OID {}, while {name} has OID {oid}: it was \
                 renamed or replaced for a while",
                relation.id
            ),
            mend: undecodable_rows_hint(name),
        };
        self.displaced.push((relation.id, refusal));
    }

    /// Judges a change by its table.
    ///
    /// # Errors
    /// [`Refusal::PublicationGap`] where name and OID do not belong together.
    pub(super) fn judge(&self, relation: RelationId) -> Result<(), Refusal> {
        match self.displaced.iter().find(|(id, _)| *id == relation) {
            Some((_, refusal)) => Err(refusal.clone()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        change::{Oid, ReplicaIdentity},
        checkpoint::TableFingerprint,
        event::{
            fixture::domain_table::DomainTable,
            table::{self, TablePattern},
        },
    };

    fn identities() -> TableIdentities {
        let oid = |oid| {
            let (oid, member, schema_member, since) = (RelationId(oid), None, None, None);
            TableFingerprint { oid, member, schema_member, since }
        };
        let mut orders = DomainTable::orders();
        orders.settings.name = TablePattern::parse("public.order*").expect("a pattern");
        let mut settings = orders.mapping().settings().clone();
        let name = TablePattern::parse("public.bills").expect("a name");
        settings.tables.push(table::Settings { name, ..DomainTable::orders().settings });
        let fingerprint = Fingerprint {
            name: "tailwater".to_owned(),
            oid: Oid(9),
            options: String::new(),
            altered_by: None,
            tables: BTreeMap::from([
                ("public.bills".to_owned(), oid(1)),
                ("public.orders".to_owned(), oid(3)),
            ]),
        };
        TableIdentities::new(&fingerprint, &settings)
    }

    fn relation(id: u32, name: &str) -> Relation {
        Relation {
            id: RelationId(id),
            schema: "public".to_owned(),
            name: name.to_owned(),
            replica_identity: ReplicaIdentity::Default,
            columns: Vec::new(),
        }
    }

    #[test]
    fn changes_are_refused_where_name_and_oid_do_not_belong_together() {
        for (id, name, is_refused) in [
            (1, "bills", false),
            (1, "parked", true),
            (1, "order_bills", true),
            (2, "bills", true),
            // Another table of the publication, a partition for one.
            (2, "lines", false),
            // Tables that a pattern has, or had, by whichever name.
            (3, "orders", false),
            (3, "order_archive", false),
            (3, "archive", false),
            (4, "orders", false),
        ] {
            let mut identities = identities();
            identities.observe(&relation(id, name));
            assert_eq!(identities.judge(RelationId(id)).is_err(), is_refused, "{id} {name}");
        }
    }

    #[test]
    fn a_later_description_replaces_an_earlier_one() {
        let mut identities = identities();
        identities.observe(&relation(1, "parked"));
        identities.observe(&relation(1, "bills"));
        assert!(identities.judge(RelationId(1)).is_ok());
    }
}
