//! Columns that a table has and its publication does not deliver.

use tracing::warn;

use crate::event::{
    ColumnProblem, EventError,
    outbox::{ColumnName, Settings},
};

/// What no change of a table carries.
#[derive(Clone, Copy, Debug)]
pub struct Withheld<'w> {
    /// The publication's name.
    pub publication: &'w str,
    /// Name of a column, and why it is not delivered with the SQL that mends it.
    pub columns: &'w [(&'w str, &'w str)],
}

impl Withheld<'_> {
    fn mend(&self, name: &str) -> Option<&str> {
        let (_, mend) = self.columns.iter().find(|(column, _)| *column == name)?;
        Some(mend)
    }

    /// The error, saying of a column that is missing whether the table has it after all.
    pub(crate) fn explain(&self, error: EventError) -> EventError {
        match error {
            EventError::Column { table, column, problem: ColumnProblem::Missing { role } } => {
                let problem = match self.mend(&column) {
                    Some(mend) => ColumnProblem::NotPublished {
                        role,
                        publication: self.publication.to_owned(),
                        mend: mend.to_owned(),
                    },
                    None => ColumnProblem::Missing { role },
                };
                EventError::Column { table, column, problem }
            }
            EventError::Column { .. }
            | EventError::Unmappable { .. }
            | EventError::UnmappableMessage { .. } => error,
        }
    }

    /// Says which of the layout's optional columns the table has for nothing.
    pub(crate) fn warn_of_unused(&self, settings: &Settings) {
        for column in self.unused(settings) {
            let (schema, table) = &settings.table;
            warn!(
                table = format!("{schema}.{table}"),
                column,
                publication = self.publication,
                mend = self.mend(column),
                "the publication does not deliver a column: the events do without it"
            );
        }
    }

    fn unused<'s>(&self, settings: &'s Settings) -> Vec<&'s str> {
        let names = &settings.columns;
        let optional = [
            &names.created_at,
            &names.version,
            &names.correlation_id,
            &names.causation_id,
            &names.traceparent,
            &names.headers,
        ];
        let default_names = optional.into_iter().filter_map(|name| match name {
            ColumnName::Default(name) => Some(name.as_str()),
            // It must exist, so its absence is an error already.
            ColumnName::Configured(_) => None,
        });
        default_names.filter(|name| self.mend(name).is_some()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{
        Mapping, Settings as EventSettings,
        fixture::{JSONB, Outbox, TEXT, UUID, database},
        outbox::PayloadForm,
    };

    const WITHHELD: Withheld<'static> = Withheld {
        publication: "tailwater",
        columns: &[("payload", "Add it."), ("headers", "Add it."), ("note", "Add it.")],
    };

    fn settings() -> Settings {
        Outbox::of(PayloadForm::Data).settings()
    }

    fn check(columns: &[(&str, crate::change::Oid)]) -> Result<(), EventError> {
        let source = "order-service".to_owned();
        let settings = EventSettings {
            source,
            outboxes: vec![settings()],
            messages: Vec::new(),
            tables: Vec::new(),
            routes: Vec::new(),
        };
        let mapping = Mapping::new(settings, database());
        mapping.check_table("public", "outbox_events", columns, &WITHHELD)
    }

    #[test]
    fn a_needed_column_that_is_withheld_is_told_from_one_that_is_not_there() {
        let error = check(&[("id", UUID), ("aggregate_id", TEXT), ("event_type", TEXT)]);
        let text = error.expect_err("no payload").to_string();
        assert!(text.contains("\"payload\" is not delivered by publication"), "{text}");
        let error = check(&[("id", UUID), ("event_type", TEXT), ("payload", JSONB)]);
        let text = error.expect_err("no aggregate_id").to_string();
        assert!(text.contains("\"aggregate_id\" does not exist"), "{text}");
    }

    #[test]
    fn optional_columns_that_are_withheld_are_warned_of() {
        assert_eq!(WITHHELD.unused(&settings()), ["headers"]);
        let mut configured = settings();
        configured.columns.headers = ColumnName::Configured("note".to_owned());
        assert_eq!(WITHHELD.unused(&configured), [""; 0]);
    }
}
