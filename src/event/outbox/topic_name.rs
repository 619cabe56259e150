//! The topic of a row: a template, its columns found.

use crate::{
    change::Tuple,
    event::{
        EventError, Reason, TopicTemplate,
        outbox::columns::{ColumnAt, Columns, Listing},
        topic::{self, Part},
    },
};

/// A template compiled for one table.
#[derive(Clone, Debug)]
pub(super) struct TopicName {
    template: TopicTemplate,
    parts: Vec<Piece>,
}

#[derive(Clone, Debug)]
enum Piece {
    Literal(String),
    Type,
    Domain,
    Column(ColumnAt),
}

impl TopicName {
    /// `aggregate_type` is the column of that purpose, should the template need it.
    pub(super) fn compile(
        template: &TopicTemplate,
        columns: &Columns,
        aggregate_type: &str,
        listing: Listing<'_>,
    ) -> Result<Self, EventError> {
        let piece = |part: &Part| {
            Ok(match part {
                Part::Literal(literal) => Piece::Literal(literal.clone()),
                Part::Type => Piece::Type,
                Part::Domain => Piece::Domain,
                Part::AggregateType => Piece::Column(match &columns.aggregate_type {
                    Some(column) => column.clone(),
                    None => listing.needed(aggregate_type, "columns.aggregate_type")?.0,
                }),
                Part::Column(name) => Piece::Column(listing.needed(name, "topic")?.0),
                Part::Schema | Part::Table => {
                    unreachable!("a table's own places are filled before")
                }
            })
        };
        let parts = template.parts().iter().map(piece).collect::<Result<_, EventError>>()?;
        Ok(Self { template: template.clone(), parts })
    }

    /// The one name that all rows have.
    pub(super) fn literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Piece::Literal(name)] => Some(name),
            _ => None,
        }
    }

    /// Writes the row's topic into `name`.
    pub(super) fn resolve<'a>(
        &self,
        event_type: &str,
        tuple: Tuple<'_>,
        name: &'a mut String,
    ) -> Result<&'a str, Reason> {
        name.clear();
        for piece in &self.parts {
            name.push_str(match piece {
                Piece::Literal(literal) => literal,
                Piece::Type => event_type,
                Piece::Domain => topic::domain(event_type),
                Piece::Column(column) => column.needed_text(tuple)?,
            });
        }
        match topic::check_name(name) {
            Ok(()) => Ok(name),
            Err(problem) => {
                Err(Reason::Topic { template: self.template.as_str().to_owned(), problem })
            }
        }
    }
}
