//! The tables as the publication delivers them, looked up together: a start has the same few questions
//! for one table and for a thousand.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    settings::Settings,
    start::Failed,
    tables::{Kind, kind_of},
};
use crate::{
    change::ReplicaIdentity,
    event::{
        Mapping,
        outbox::Withheld,
        table::{DescribedColumn, Description, PrimaryKey},
    },
    postgres::{
        PostgresError, TableName,
        catalog::{self, Table, WithheldColumn},
        column_types::look_up,
        identity::{self, RowIdentity},
        publication::Publication,
        sql::Sql,
    },
    value::{Type, Types},
};

/// What the publication delivers of some tables.
pub(super) struct PublishedTables {
    tables: BTreeMap<TableName, Table>,
    identities: BTreeMap<TableName, RowIdentity>,
    types: Types,
}

impl PublishedTables {
    /// Looks the tables up.
    ///
    /// # Errors
    /// Where the server does not answer.
    pub(super) async fn look_up(
        settings: &Settings,
        sql: &Sql,
        names: &[TableName],
    ) -> Result<Self, PostgresError> {
        let tables = catalog::published_tables(sql, &settings.publication, names).await?;
        let identities = identity::row_identities(sql, names).await?;
        let types = types_of(sql, tables.values()).await?;
        Ok(Self { tables, identities, types })
    }

    /// Whether what is delivered of a table is what its events need. Returns the columns that are not
    /// delivered.
    ///
    /// # Errors
    /// [`EventError`](crate::event::EventError) for the first thing that is missing.
    pub(super) fn check(
        &self,
        settings: &Settings,
        mapping: &Mapping,
        name: &TableName,
    ) -> Result<&[WithheldColumn], Failed> {
        // One that is dropped at this moment is missed by the next look at the publication.
        let Some(table) = self.tables.get(name) else { return Ok(&[]) };
        if settings.event.table(&name.schema, &name.name).is_some()
            && let Some(identity) = self.identities.get(name)
        {
            mapping.check_table(&describe(name, table, identity, &self.types))?;
            return Ok(&table.withheld);
        }
        let columns: Vec<_> =
            table.columns.iter().map(|column| (column.name.as_str(), column.type_oid)).collect();
        let withheld = table.withheld.iter();
        let withheld: Vec<_> =
            withheld.map(|column| (column.name.as_str(), column.mend.as_str())).collect();
        let withheld = Withheld { publication: settings.publication.as_str(), columns: &withheld };
        mapping.check_outbox(&name.schema, &name.name, &columns, &withheld)?;
        Ok(&table.withheld)
    }

    /// The conditions under which a publication delivers rows of those tables that it holds.
    pub(super) fn row_filters<'a>(
        &'a self,
        found: &'a Publication,
    ) -> impl Iterator<Item = (&'a TableName, &'a str)> {
        let held = found.tables.keys().filter_map(|name| self.tables.get_key_value(name));
        held.filter_map(|(name, table)| Some((name, table.row_filter.as_deref()?)))
    }

    /// The domain tables among them, as they are delivered or would be.
    pub(super) fn descriptions(&self, settings: &Settings) -> Vec<Description> {
        let is_domain = |name: &TableName| kind_of(settings, name) == Kind::Domain;
        let domain = self.tables.iter().filter(|(name, _)| is_domain(name));
        let described = domain.filter_map(|(name, table)| {
            Some(describe(name, table, self.identities.get(name)?, &self.types))
        });
        described.collect()
    }
}

/// A domain table as the publication delivers it.
///
/// # Errors
/// Where the server does not answer.
pub(super) async fn description(
    sql: &Sql,
    name: &TableName,
    table: &Table,
    identity: &RowIdentity,
) -> Result<Description, PostgresError> {
    Ok(describe(name, table, identity, &types_of(sql, [table]).await?))
}

async fn types_of(
    sql: &Sql,
    tables: impl IntoIterator<Item = &Table>,
) -> Result<Types, PostgresError> {
    let mut types = Types::new();
    let columns = tables.into_iter().flat_map(|table| &table.columns);
    let missing = types.missing(columns.map(|column| column.own_type_oid));
    for learnt in look_up(sql, &missing).await? {
        types.insert(learnt);
    }
    Ok(types)
}

fn describe(name: &TableName, table: &Table, identity: &RowIdentity, types: &Types) -> Description {
    let is_full = identity.replica_identity == ReplicaIdentity::Full;
    let column = |column: &catalog::TableColumn| DescribedColumn {
        name: column.name.clone(),
        column_type: types
            .get(column.own_type_oid)
            .map_or_else(|| Type::unknown(column.own_type_oid), Arc::clone),
        is_replica_identity: is_full || identity.columns.contains(&column.name),
    };
    Description {
        schema: name.schema.clone(),
        name: name.name.clone(),
        replica_identity: identity.replica_identity,
        columns: table.columns.iter().map(column).collect(),
        primary_key: PrimaryKey::Columns(identity.primary_key.clone()),
    }
}
