//! Domain tables: what happens to a row is an event, or several, or none.
//!
//! ```text
//! Description ─► Table::compile ─► columns, forms, key, kinds of events; once per shape
//! TableChange ─► Table::plan ────► which events ─► Table::event ─► DomainEvent, one after the other
//! Table ───────► Table::shapes ──► which kinds of events there are, for whoever reads them
//! ```

mod description;
mod error;
mod key;
mod kind;
mod row_view;
pub mod rules;
mod scratch;
mod settings;
mod shape;
mod steps;
#[expect(clippy::module_inception, reason = "the file is named after what it holds")]
mod table;

pub use description::{DescribedColumn, Description, PrimaryKey, Questions};
pub use error::TableProblem;
pub use row_view::{ColumnView, Held, RowView};
pub(super) use scratch::Scratch;
pub use settings::{
    DataForm, Mask, Otherwise, PatternError, RuleSettings, Salt, Settings, SnapshotMode,
    TablePattern,
};
pub use shape::{EventShape, Occasion, ValueShape};
pub(super) use steps::{Step, TableChange};
pub(super) use table::{At, Table};
