//! The pure decoder of pgoutput's messages, protocol version 1, streaming off.
//!
//! Bytes in, a borrowed [`Message`] out: no I/O, no logging, no allocation for a row. Field tables
//! are those of the manual's page protocol-logicalrep-message-formats; all integers are big-endian,
//! all texts end with a zero byte. Not spoken, because not asked for: binary values, streamed and
//! prepared transactions.
//!
//! ```text
//! B Begin     u64 final LSN │ i64 commit time │ u32 xid
//! C Commit    u8 flags │ u64 commit LSN │ u64 end LSN │ i64 commit time
//! O Origin    u64 LSN │ text name
//! R Relation  relation.rs
//! Y Type      u32 OID │ text schema │ text name
//! I Insert    u32 relation │ 'N' tuple
//! U Update    u32 relation │ ['K' tuple | 'O' tuple] │ 'N' tuple
//! D Delete    u32 relation │ 'K' tuple | 'O' tuple
//! T Truncate  i32 relations │ u8 options │ relations × u32
//! M Message   u8 flags │ u64 LSN │ text prefix │ i32 length │ bytes
//! ```

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]
#![cfg_attr(test, allow(clippy::indexing_slicing))]

mod decoder;
mod reader;
mod relation;
mod tuple;

pub use decoder::{Decoder, Message};
pub use reader::DecodeError;
