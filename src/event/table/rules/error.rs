//! Why rules do not fit a table, and why one has no answer for a row.

use std::fmt;

use crate::{
    event::{
        Reason,
        table::rules::{Place, Problem, Rule, Side, SyntaxProblem},
    },
    failure::Code,
};

/// An expression of a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// `when`
    When,
    /// A member of `data`.
    Data {
        /// The member's name.
        member: String,
    },
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::When => formatter.write_str("when"),
            Self::Data { member } => write!(formatter, "data.{member}"),
        }
    }
}

/// An expression does not fit the table.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("rule \"{event_type}\", {part}, {place}: {mistake}")]
pub struct RuleError {
    /// The rule's type.
    pub event_type: String,
    /// Which of its expressions.
    pub part: Part,
    /// Where in it.
    pub place: Place,
    /// What is wrong there.
    pub mistake: Mistake,
}

/// What is wrong with an expression.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Mistake {
    /// It is no CEL.
    #[error("{problem}")]
    Syntax {
        /// What is wrong with it.
        problem: SyntaxProblem,
    },
    /// A name that nothing has.
    #[error("\"{name}\" is none of op, old and new")]
    Name {
        /// The name.
        name: String,
    },
    /// A function that there is not.
    #[error("there is no function {name}(){nearest}")]
    Function {
        /// Its name.
        name: String,
        /// The one whose name is most like it, as a half sentence; or nothing.
        nearest: String,
    },
    /// Arguments that a function or a macro does not take.
    #[error("it is called as {usage}")]
    Call {
        /// How it is called.
        usage: String,
    },
    /// Types that an operator or a function does not take.
    #[error("{operation} cannot be applied to {found}{advice}")]
    Operands {
        /// The operator or function.
        operation: &'static str,
        /// The types.
        found: String,
        /// What may help, behind `: `; or nothing.
        advice: &'static str,
    },
    /// Something else than a condition.
    #[error("a bool is needed, and this is a {found}")]
    NotBool {
        /// Its type.
        found: String,
    },
    /// Two types where one is needed.
    #[error("one branch is a {one} and the other a {other}")]
    Branches {
        /// The type of the first.
        one: String,
        /// The type of the second.
        other: String,
    },
    /// A member of what has none.
    #[error("a {found} has no members")]
    NoMembers {
        /// Its type.
        found: String,
    },
    /// A column that there is not.
    #[error("column \"{column}\" does not exist or is not published")]
    Column {
        /// The column.
        column: String,
        /// The one whose name is most like it.
        nearest: Option<String>,
    },
    /// An old value that is not sent.
    #[error("an UPDATE or DELETE does not carry the old value of column \"{column}\"")]
    NotDelivered {
        /// The column.
        column: String,
        /// Schema and name of the table, as SQL has them.
        quoted_table: String,
    },
    /// `old` or `new` without a column.
    #[error("{} is a row: name a column of it, as {}.id; op says what happened", side.word(), side.word())]
    WholeRow {
        /// Which one.
        side: Side,
    },
    /// A masked column of which a value is computed.
    #[error(
        "column \"{column}\" is masked, so that data shows it alone or not at all: what is computed of \
         it would tell of it"
    )]
    Masked {
        /// The column.
        column: String,
    },
    /// A column that no event shows.
    #[error("column \"{column}\" is excluded, so that data does not show it")]
    Excluded {
        /// The column.
        column: String,
    },
    /// A text of the settings that is not what it is used as.
    #[error("{problem}")]
    Literal {
        /// What is wrong with it.
        problem: Problem,
    },
    /// A pattern of the settings.
    #[error("the text is no regular expression: {detail}")]
    Pattern {
        /// What is wrong with it.
        detail: String,
    },
    /// A comparison of `op` that is never true.
    #[error("op is never \"{word}\": it is insert, update, delete, truncate or snapshot")]
    NeverOperation {
        /// What it is compared with.
        word: String,
    },
    /// A map that holds a key twice.
    #[error("two entries of the map have the same key")]
    DuplicateKey,
    /// What CEL has and rules have not.
    #[error("rules have no {what}")]
    Unsupported {
        /// What it is.
        what: &'static str,
    },
}

impl RuleError {
    /// The word that `docs/errors.md` explains.
    pub fn code(&self) -> Code {
        match &self.mistake {
            Mistake::Column { .. } => Code::ColumnMissing,
            Mistake::NotDelivered { .. } => Code::ReplicaIdentity,
            Mistake::Syntax { .. }
            | Mistake::Name { .. }
            | Mistake::Function { .. }
            | Mistake::Call { .. }
            | Mistake::Operands { .. }
            | Mistake::NotBool { .. }
            | Mistake::Branches { .. }
            | Mistake::NoMembers { .. }
            | Mistake::WholeRow { .. }
            | Mistake::Masked { .. }
            | Mistake::Excluded { .. }
            | Mistake::Literal { .. }
            | Mistake::Pattern { .. }
            | Mistake::NeverOperation { .. }
            | Mistake::DuplicateKey
            | Mistake::Unsupported { .. } => Code::Settings,
        }
    }

    /// What mends it. `table` is `schema.table`.
    pub fn hint(&self, table: &str) -> String {
        let Self { event_type, part, mistake, .. } = self;
        let rule = format!("{part} of the [[table.event]] \"{event_type}\" of \"{table}\"");
        match mistake {
            Mistake::Column { nearest, .. } => {
                let nearest = nearest.as_ref().map_or(String::new(), |nearest| {
                    format!(" The nearest name among the published ones is \"{nearest}\".")
                });
                format!(
                    "Correct {rule}, or add the column to the table. A publication with a column \
                     list must hold it too.{nearest}"
                )
            }
            Mistake::NotDelivered { quoted_table, .. } => format!(
                "Run: ALTER TABLE {quoted_table} REPLICA IDENTITY FULL; Updates and deletes carry \
                 the whole old row from then on; what was written before is decoded as it was. Or \
                 let {rule} do without old."
            ),
            _ => format!("Correct {rule}. docs/rules.md says what expressions can hold."),
        }
    }
}

/// An expression has no value for a row.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("rule \"{event_type}\", {part}, {place}: {problem}")]
pub struct NoAnswer {
    /// The rule's type.
    pub event_type: String,
    /// Which of its expressions.
    pub part: Part,
    /// Where in it.
    pub place: Place,
    /// Why.
    pub problem: Problem,
}

/// A rule has no answer for a row, which is an error of the event that it would be.
#[derive(Clone, Debug)]
pub struct RuleFailure<'r> {
    /// The rule.
    pub rule: &'r Rule,
    /// Why.
    pub reason: Reason,
}
