//! From a domain event to the bytes of a record.
//!
//! Owns how an event looks on the wire: the envelope's JSON, the headers, the record's timestamp.
//! Decides nothing about what an event means. Each record is written at the end of a batch's
//! arena, its bytes behind those of the record before it, without an allocation of its own.

mod dead_letter;
mod encoder;
mod envelope;
mod error;
mod headers;
mod number;
mod row;

#[cfg(test)]
mod tests;

pub use dead_letter::DeadLetter;
pub use encoder::Encoder;
pub use error::EncodeError;
