//! What the stream does not say of a table, asked of the catalog when the stream describes it: types
//! that are not built in, the primary key where the replica identity does not show it, and whether
//! the rows that a table had must come first.
//!
//! The catalog answers as of now, and the stream may be at an earlier place. A type that is gone, or
//! that was altered since, has its values as PostgreSQL's text.

use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::{
    change::{Relation, RelationId, ReplicaIdentity},
    event::table::{PrimaryKey, Questions},
    postgres::{
        self, PostgresError, PublicationName, TableName, catalog, column_types, publication,
        snapshot::Shape, sql::Sql,
    },
    value::Type,
};

/// What the catalog is asked of a table.
#[derive(Debug)]
pub(super) struct Inquiry {
    pub(super) questions: Questions,
    /// Whether its rows would have to come first.
    pub(super) rows: bool,
}

impl Inquiry {
    /// Whether there is nothing to ask.
    pub(super) fn is_empty(&self) -> bool {
        self.questions.is_empty() && !self.rows
    }
}

/// What the catalog answered.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) types: Vec<Arc<Type>>,
    pub(super) primary_key: PrimaryKey,
    /// It was asked, and the table is one whose rows a start would read: published at this moment, and
    /// without a key.
    pub(super) has_rows_first: bool,
    /// It has a partition whose old rows are not whole, whatever the table's own identity is.
    has_partial_old_rows: bool,
}

impl Answers {
    /// Where nothing was asked.
    pub(super) fn none() -> Self {
        let primary_key = PrimaryKey::Columns(Vec::new());
        let (has_rows_first, has_partial_old_rows) = (false, false);
        Self { types: Vec::new(), primary_key, has_rows_first, has_partial_old_rows }
    }

    /// The table as its changes are to be read: by its key, where not all of them carry whole old
    /// rows.
    fn applied_to(&self, mut relation: Relation) -> Relation {
        let PrimaryKey::Columns(key) = &self.primary_key else { return relation };
        let has = |name: &String| relation.columns.iter().any(|column| column.name == *name);
        if self.has_partial_old_rows && !key.is_empty() && key.iter().all(has) {
            relation.replica_identity = ReplicaIdentity::Default;
            for column in &mut relation.columns {
                column.is_replica_identity = key.contains(&column.name);
            }
        }
        relation
    }
}

/// Asks about one table at a time, by a connection that is made when it is needed.
#[derive(Debug)]
pub(super) struct Lookup {
    settings: postgres::Settings,
    /// Whose tables' rows are to come first; none where nobody wants rows.
    publication: Option<PublicationName>,
    sql: Option<Sql>,
    asked: Option<Asked>,
}

/// A question that is under way.
#[derive(Debug)]
struct Asked {
    relation: Relation,
    task: JoinHandle<Result<(Sql, Answers), PostgresError>>,
}

impl Lookup {
    pub(super) fn new(settings: postgres::Settings, publication: Option<PublicationName>) -> Self {
        Self { settings, publication, sql: None, asked: None }
    }

    /// Asks about a table. Must be called within a tokio runtime.
    pub(super) fn ask(&mut self, relation: Relation, inquiry: Inquiry) {
        let (settings, asked_of) = (self.settings.clone(), relation.clone());
        let publication = self.publication.clone().filter(|_| inquiry.rows);
        // One that broke is taken for closed, and another one is made.
        let sql = self.sql.take().filter(|sql| !sql.is_closed());
        let task = tokio::spawn(async move {
            let sql = match sql {
                Some(sql) => sql,
                None => Sql::connect(&settings).await?,
            };
            let mut answers = answer(&sql, asked_of.id, &inquiry.questions).await?;
            if let Some(publication) = publication {
                answers.has_rows_first = has_rows_first(&sql, &publication, &asked_of).await?;
            }
            Ok((sql, answers))
        });
        self.asked = Some(Asked { relation, task });
    }

    /// Whether nothing can be read until the catalog has answered.
    pub(super) fn is_under_way(&self) -> bool {
        self.asked.is_some()
    }

    /// The table and what the catalog says of it; never where nothing is asked.
    ///
    /// # Cancel safety
    /// An answer is returned once, or is still to come.
    ///
    /// # Errors
    /// Where the server does not answer.
    pub(super) async fn answered(&mut self) -> Result<(Relation, Answers), PostgresError> {
        let Some(asked) = &mut self.asked else { return std::future::pending().await };
        let outcome = (&mut asked.task).await.unwrap_or(Err(PostgresError::Ended));
        let Some(Asked { relation, .. }) = self.asked.take() else {
            unreachable!("it was there before the wait")
        };
        let (sql, answers) = outcome?;
        self.sql = Some(sql);
        Ok((answers.applied_to(relation), answers))
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        if let Some(Asked { task, .. }) = &self.asked {
            task.abort();
        }
    }
}

/// By what a start goes too, or it would be asked again after that.
async fn has_rows_first(
    sql: &Sql,
    publication: &PublicationName,
    relation: &Relation,
) -> Result<bool, PostgresError> {
    if !publication::holds(sql, publication, relation).await? {
        return Ok(false);
    }
    let table = TableName { schema: relation.schema.clone(), name: relation.name.clone() };
    let shape = Shape::look_up(sql, publication, &table).await?;
    Ok(shape.is_some_and(|shape| shape.oid == relation.id && shape.key.is_empty()))
}

async fn answer(
    sql: &Sql,
    relation: RelationId,
    questions: &Questions,
) -> Result<Answers, PostgresError> {
    let types = match questions.types.as_slice() {
        [] => Vec::new(),
        oids => column_types::look_up(sql, oids).await?,
    };
    let (primary_key, has_partial_old_rows) = match questions.primary_key {
        true => (
            catalog::primary_key(sql, relation).await?,
            !catalog::has_whole_old_rows(sql, relation).await?,
        ),
        false => (Some(Vec::new()), false),
    };
    let primary_key = primary_key.map_or(PrimaryKey::Unknown, PrimaryKey::Columns);
    Ok(Answers { types, primary_key, has_rows_first: false, has_partial_old_rows })
}
