//! The topic of a row: a template, its columns found.

use crate::event::{
    ColumnAt, Reason, TopicTemplate,
    topic::{self, Part},
};

/// A template compiled for one table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct TopicName {
    template: TopicTemplate,
    parts: Vec<Piece>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Literal(String),
    Type,
    Domain,
    Column(ColumnAt),
}

/// A column that a template needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted<'t> {
    /// The one of that purpose.
    AggregateType,
    /// The one of that name.
    Named(&'t str),
}

impl TopicName {
    /// Compiles a template whose `{schema}` and `{table}` are filled.
    ///
    /// # Errors
    /// Where `find` finds no column.
    pub(super) fn compile<E>(
        template: &TopicTemplate,
        find: impl Fn(Wanted<'_>) -> Result<ColumnAt, E>,
    ) -> Result<Self, E> {
        let piece = |part: &Part| {
            Ok(match part {
                Part::Literal(literal) => Piece::Literal(literal.clone()),
                Part::Type => Piece::Type,
                Part::Domain => Piece::Domain,
                Part::AggregateType => Piece::Column(find(Wanted::AggregateType)?),
                Part::Column(name) => Piece::Column(find(Wanted::Named(name))?),
                Part::Schema | Part::Table => {
                    unreachable!("a table's own places are filled before")
                }
            })
        };
        let parts = template.parts().iter().map(piece).collect::<Result<_, E>>()?;
        Ok(Self { template: template.clone(), parts })
    }

    /// What it was compiled of.
    pub(super) fn template(&self) -> &TopicTemplate {
        &self.template
    }

    /// The one name that all rows have.
    pub(super) fn literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Piece::Literal(name)] => Some(name),
            _ => None,
        }
    }

    /// The columns that it needs.
    pub(super) fn columns(&self) -> impl Iterator<Item = &ColumnAt> {
        self.parts.iter().filter_map(|piece| match piece {
            Piece::Column(column) => Some(column),
            Piece::Literal(_) | Piece::Type | Piece::Domain => None,
        })
    }

    /// Writes the row's topic into `name`. `text` is a column's.
    pub(super) fn resolve<'n, 't>(
        &self,
        event_type: &str,
        text: impl Fn(&ColumnAt) -> Result<&'t str, Reason>,
        name: &'n mut String,
    ) -> Result<&'n str, Reason> {
        name.clear();
        for piece in &self.parts {
            name.push_str(match piece {
                Piece::Literal(literal) => literal,
                Piece::Type => event_type,
                Piece::Domain => topic::domain(event_type),
                Piece::Column(column) => text(column)?,
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
