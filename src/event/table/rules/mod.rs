//! Rules: which changes of a row become which events, in CEL.
//!
//! An expression is parsed by the crate `cel`, then checked and carried out here: what NULL, an
//! unchanged TOAST value and a numeric mean is PostgreSQL's business and not CEL's, and a row must
//! not cost what a general evaluator does (`docs/decisions/0026`).
//!
//! ```text
//! text ─► Expression::parse ─► check, against the columns ─► Rule         once per shape of a table
//! Row ──► Rules::matching ───► each rule that matches ─────► write_data   once per change
//! ```
//!
//! Knows the columns by name and type, and rows by their tuples; how a column that is shown alone
//! looks in JSON is the caller's to say. `docs/rules.md` is what people are told.

mod array;
mod cel_type;
mod check;
mod coding;
mod columns;
mod data;
mod data_schema;
mod error;
mod evaluation;
mod expression;
mod functions;
mod instant;
mod json;
mod loops;
mod node;
mod operator;
mod place;
mod problem;
mod row;
#[expect(clippy::module_inception, reason = "the file is named after what it holds")]
mod rules;
mod value;
mod write;

#[cfg(test)]
mod tests;

pub use columns::{Column, Columns, OldValue, Shown};
pub use data::NamedColumn;
pub use error::{Mistake, NoAnswer, Part, RuleError, RuleFailure};
pub use expression::{Expression, ExpressionError, SyntaxProblem};
pub use place::Place;
pub use problem::Problem;
pub use row::{Operation, Row, Side};
pub use rules::{Matching, Rule, Rules};
