//! Whether the server can carry out a condition, found out before any row is read.

use super::ChunkQuery;
use crate::postgres::{PostgresError, sql::Sql};

/// The server does not take the query.
#[derive(Debug, thiserror::Error)]
#[error("the server does not take it")]
pub struct ConditionError {
    /// Its words.
    #[source]
    pub source: PostgresError,
    /// Where in the condition they point to, in characters from 1 on. One behind its last character
    /// where it ends too early.
    pub position: Option<usize>,
}

impl ConditionError {
    /// By a statement in which the condition begins behind so many characters.
    fn new(source: PostgresError, condition: &str, before: usize) -> Self {
        let position = source.server_message().and_then(|message| message.position);
        let position = position.and_then(|position| usize::try_from(position).ok());
        let within = position.and_then(|position| position.checked_sub(before));
        let end = condition.trim_end().chars().count() + 1;
        Self { source, position: within.filter(|position| *position > 0).map(|at| at.min(end)) }
    }
}

impl ChunkQuery<'_> {
    /// Asks the server whether it can read these rows, without reading any, and whether the condition
    /// is one by itself: what closes a bracket that it did not open would have another meaning among
    /// the other conditions.
    ///
    /// # Errors
    /// Where it does not take them, or the connection breaks.
    pub async fn check_condition(&self, sql: &Sql) -> Result<(), ConditionError> {
        let condition = self.condition.unwrap_or("true");
        // On lines of its own: it may end with a comment.
        let before = format!("SELECT FROM {} WHERE\n", self.from());
        let alone = format!("{before}{condition}\nLIMIT 0");
        // Prepared, so that it is one statement and no more.
        let action = format!("try the condition on table {}", self.table);
        sql.rows(&action, alone.as_str(), &[])
            .await
            .map_err(|error| ConditionError::new(error, condition, before.chars().count()))?;
        // What is wrong with it in brackets alone has its place nowhere else.
        self.check(sql).await.map_err(|source| ConditionError { source, position: None })
    }
}
