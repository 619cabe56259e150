//! From a value's text form, as PostgreSQL writes it, to its JSON form, type by type.
//!
//! Knows neither rows nor where they come from: `event` and `encode` use it for what the stream
//! brings, and `postgres` describes types in its words. `docs/types.md` has a row for each form.

mod array;
mod built_in;
mod bytea;
mod cache;
mod composite;
mod form;
mod hstore;
mod literal;
mod number;
mod options;
mod schema;
pub(crate) mod string;
mod timestamp;
mod types;

pub use built_in::{built_in, built_in_types};
pub use cache::Types;
pub use form::{Form, Malformed, UnfitForm, Written};
pub use options::{ByteaForm, ColumnForm, Int8Form, NumericForm, Options};
pub use schema::or_null;
pub use types::{Field, Kind, Type};
