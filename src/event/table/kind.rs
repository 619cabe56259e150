//! The kinds of events that a table has: each a type, and where events of it go.

use crate::event::{
    ColumnAt, Reason, Route, TopicTemplate, route,
    table::TableProblem,
    topic_name::{TopicName, Wanted},
};

/// One kind.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) event_type: String,
    topic: Topic,
}

#[derive(PartialEq, Eq, Debug)]
enum Topic {
    /// The same for all rows.
    Literal(String),
    /// Columns decide it.
    OfRow(TopicName),
}

impl Kind {
    /// Compiles a template whose `{schema}` and `{table}` are filled.
    ///
    /// # Errors
    /// Where it needs a column that `find` does not find, or makes no topic of this type.
    pub(super) fn compile(
        event_type: String,
        template: &TopicTemplate,
        routes: &[Route],
        find: impl Fn(&str) -> Result<ColumnAt, TableProblem>,
    ) -> Result<Self, TableProblem> {
        let mut name = String::new();
        let topic = match route::find(routes, &event_type) {
            Some(route) => literal(route.topic.resolve(&event_type, &mut name))?,
            None => {
                let topic = TopicName::compile(template, |wanted| match wanted {
                    Wanted::Named(column) => find(column),
                    Wanted::AggregateType => unreachable!("the settings have no such place"),
                })?;
                let needs_row = topic.columns().next().is_some();
                match needs_row {
                    true => Topic::OfRow(topic),
                    false => {
                        let text = |_: &ColumnAt| unreachable!("it needs no column");
                        literal(topic.resolve(&event_type, text, &mut name))?
                    }
                }
            }
        };
        Ok(Self { event_type, topic })
    }

    /// Its topic, with places for what columns decide; none where nothing makes it a name that Kafka
    /// allows.
    pub(super) fn template(&self) -> Option<TopicTemplate> {
        match &self.topic {
            Topic::Literal(name) => TopicTemplate::parse(name).ok(),
            Topic::OfRow(name) => name.template().for_type(&self.event_type).ok(),
        }
    }

    /// Whether its events go where those of another kind go.
    pub(super) fn shares_topic(&self, other: &Self) -> bool {
        self.topic == other.topic
    }

    /// The columns that its topic needs.
    pub(super) fn topic_columns(&self) -> impl Iterator<Item = &ColumnAt> {
        let name = match &self.topic {
            Topic::Literal(_) => None,
            Topic::OfRow(name) => Some(name),
        };
        name.into_iter().flat_map(TopicName::columns)
    }

    /// The topic of a row. `text` is a column's.
    pub(super) fn topic<'n, 't>(
        &'n self,
        text: impl Fn(&ColumnAt) -> Result<&'t str, Reason>,
        name: &'n mut String,
    ) -> Result<&'n str, Reason> {
        match &self.topic {
            Topic::Literal(topic) => Ok(topic),
            Topic::OfRow(topic) => topic.resolve(&self.event_type, text, name),
        }
    }
}

/// A topic that is known before any row.
fn literal(resolved: Result<&str, Reason>) -> Result<Topic, TableProblem> {
    resolved.map(|topic| Topic::Literal(topic.to_owned())).map_err(TableProblem::Topic)
}
