//! Bytes ↔ messages of the frontend/backend protocol, version 3.0. Knows nothing of replication.
//!
//! Manual pages: protocol-flow, protocol-message-formats. Not spoken: the extended query
//! protocol (a walsender refuses it), protocol 3.2.

#![deny(clippy::indexing_slicing, clippy::unwrap_used)]
#![cfg_attr(test, allow(clippy::indexing_slicing))]

mod authentication;
#[cfg(feature = "tls")]
mod certificate;
mod channel;
mod dial;
mod fields;
pub mod frame;
mod socket;
#[cfg(test)]
pub(in crate::postgres) mod tests;
#[cfg_attr(not(feature = "tls"), path = "tls_absent.rs")]
mod tls;

pub use authentication::{Authentication, Binding};
pub use channel::{Channel, Row, Session};
pub(in crate::postgres) use channel::{lost, refused};
pub(in crate::postgres) use dial::dial;
pub use fields::{read_error, read_parameter};
pub use socket::Socket;
pub(in crate::postgres) use tls::alert;

/// Message types that the server sends (C: `protocol.h`, `PqMsg_*`).
pub mod tag {
    /// `AuthenticationRequest`.
    pub const AUTHENTICATION: u8 = b'R';
    /// `BackendKeyData`.
    pub const BACKEND_KEY_DATA: u8 = b'K';
    /// `CommandComplete`.
    pub const COMMAND_COMPLETE: u8 = b'C';
    /// `CopyBothResponse`.
    pub const COPY_BOTH_RESPONSE: u8 = b'W';
    /// `CopyData`.
    pub const COPY_DATA: u8 = b'd';
    /// `CopyDone`.
    pub const COPY_DONE: u8 = b'c';
    /// `DataRow`.
    pub const DATA_ROW: u8 = b'D';
    /// `EmptyQueryResponse`.
    pub const EMPTY_QUERY: u8 = b'I';
    /// `ErrorResponse`.
    pub const ERROR: u8 = b'E';
    /// `NoticeResponse`.
    pub const NOTICE: u8 = b'N';
    /// `NotificationResponse`.
    pub const NOTIFICATION: u8 = b'A';
    /// `ParameterStatus`.
    pub const PARAMETER_STATUS: u8 = b'S';
    /// `ReadyForQuery`.
    pub const READY_FOR_QUERY: u8 = b'Z';
    /// `RowDescription`.
    pub const ROW_DESCRIPTION: u8 = b'T';
}
