//! Outboxes: each inserted row of a table, or each message of a prefix, is an event.

mod columns;
mod envelope;
mod header_object;
mod message;
mod payload;
mod row;
mod settings;
mod table;
mod withheld;

pub use message::MessageSettings;
pub(super) use message::map as map_message;
pub(super) use payload::read_json;
pub(super) use row::{Scratch, Shared};
pub use settings::{ColumnName, ColumnNames, Layout, PayloadForm, Settings};
pub(super) use table::Table;
pub use withheld::Withheld;
