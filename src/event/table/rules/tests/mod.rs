//! Rules against rows, as they stand in the stream.

mod against_cel;
mod checks;
mod conditions;
mod data;
mod document;
mod fixture;
