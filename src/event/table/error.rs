//! Why a domain table does not fit its settings.

use crate::{
    event::{
        Reason,
        table::rules::{Mistake, RuleError},
    },
    failure::Code,
    value::UnfitForm,
};

/// What is wrong with a domain table, or with what is configured for it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TableProblem {
    /// There is no such column among those that are published.
    #[error("column \"{column}\" does not exist or is not published, but is named under {role}")]
    Missing {
        /// The column.
        column: String,
        /// Which setting names it.
        role: String,
        /// The column whose name is most like it.
        nearest: Option<String>,
    },
    /// The primary key of now is not that of the row.
    #[error("column \"{column}\" of its primary key is not among the columns of the row")]
    KeyRenamed {
        /// The column.
        column: String,
    },
    /// The table was dropped.
    #[error("it was dropped since, and with REPLICA IDENTITY FULL nothing tells its key any more")]
    KeyUnknown,
    /// The type cannot be written so.
    #[error("column \"{column}\": {problem}")]
    Form {
        /// The column.
        column: String,
        /// Why.
        problem: UnfitForm,
    },
    /// A delete would not say whose it is.
    #[error(
        "column \"{column}\" is needed for {role}, and an UPDATE or DELETE does not carry its old \
         value"
    )]
    NotInIdentity {
        /// `schema.table`, quoted.
        quoted_table: String,
        /// The column.
        column: String,
        /// Which setting needs it.
        role: String,
    },
    /// The record's key shows what is to be hidden.
    #[error(
        "column \"{column}\" is masked or excluded, and part of the key, which every record shows"
    )]
    ShownByKey {
        /// The column.
        column: String,
    },
    /// Expressions of its rules, at least one.
    #[error("{}", all(.0))]
    Rules(Vec<RuleError>),
    /// The table's name makes it nothing that Kafka allows.
    #[error("{0}")]
    Topic(Reason),
}

impl TableProblem {
    pub(in crate::event) fn code(&self) -> Code {
        match self {
            Self::Missing { .. } | Self::KeyRenamed { .. } | Self::KeyUnknown => {
                Code::ColumnMissing
            }
            Self::NotInIdentity { .. } => Code::ReplicaIdentity,
            Self::Rules(errors) => errors.first().map_or(Code::Settings, RuleError::code),
            Self::Form { .. } | Self::ShownByKey { .. } | Self::Topic(_) => Code::Settings,
        }
    }

    /// The SQL that mends it, where SQL alone does.
    pub fn mend_sql(&self) -> Option<String> {
        let quoted_table = match self {
            Self::NotInIdentity { quoted_table, .. } => quoted_table,
            Self::Rules(errors) => match &errors.first()?.mistake {
                Mistake::NotDelivered { quoted_table, .. } => quoted_table,
                _ => return None,
            },
            Self::Missing { .. }
            | Self::KeyRenamed { .. }
            | Self::KeyUnknown
            | Self::Form { .. }
            | Self::ShownByKey { .. }
            | Self::Topic(_) => return None,
        };
        Some(format!("ALTER TABLE {quoted_table} REPLICA IDENTITY FULL"))
    }

    pub(in crate::event) fn hint(&self, table: &str) -> String {
        match self {
            Self::Missing { role, nearest, .. } => {
                let nearest = nearest.as_ref().map_or(String::new(), |nearest| {
                    format!(" The nearest name among the published ones is \"{nearest}\".")
                });
                format!(
                    "Correct {role} of the [[table]] of \"{table}\", or add the column to the \
                     table. A publication with a column list must hold it too.{nearest}"
                )
            }
            Self::KeyRenamed { .. } => format!(
                "The column was renamed, or the key changed, since the row was written. Name the \
                 key's columns as the row has them under key of a [[table]] of \"{table}\", and take \
                 that out again once the slot has passed the change (tailwater status). A \
                 publication with a column list must hold them."
            ),
            Self::KeyUnknown => format!(
                "Name the key's columns under key of a [[table]] of \"{table}\", and take that out \
                 again once the slot has passed its last rows (tailwater status)."
            ),
            Self::Form { column, .. } => {
                format!("Correct or remove types.columns.{column} of the [[table]] of \"{table}\".")
            }
            Self::NotInIdentity { quoted_table, role, .. } => format!(
                "Run ALTER TABLE {quoted_table} REPLICA IDENTITY FULL. Or name other columns under \
                 {role} of the [[table]] of \"{table}\"."
            ),
            Self::Rules(errors) => {
                errors.first().map_or_else(String::new, |error| error.hint(table))
            }
            Self::ShownByKey { .. } => format!(
                "Name other columns under key of the [[table]] of \"{table}\", or show the column."
            ),
            Self::Topic(_) => format!(
                "Set a topic for the [[table]] of \"{table}\" that is made of what Kafka allows: \
                 a-z, A-Z, 0-9, '.', '_' and '-', at most 249 of them."
            ),
        }
    }
}

/// All of them, so that one start finds them.
fn all(errors: &[RuleError]) -> String {
    errors.iter().map(RuleError::to_string).collect::<Vec<_>>().join("; ")
}
