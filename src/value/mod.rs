//! From a value's text form, as PostgreSQL writes it, to its JSON form, type by type.
//!
//! Knows neither rows nor where they come from: `event` and `encode` use it for what the stream
//! brings, and `postgres` describes types in its words. `docs/types.md` has a row for each form.

mod catalog_cache;
mod form;
mod options;
pub(crate) mod string;
mod types;

pub use catalog_cache::Types;
pub use form::{Form, Malformed, Unfit};
pub use options::{ByteaForm, ColumnForm, Int8Form, NumericForm, Options};
pub use types::{Field, Kind, Type};
