//! How a command reaches a running daemon: HTTP over a unix socket that nobody but the daemon's user
//! and root can open.
//!
//! ```text
//! socket (where it is, 0600 from the beginning, whose it is) ─► server (bounds) ─► api (JSON) ─► Requests
//!    ▲
//! client (of the commands)
//! ```
//!
//! It knows nothing of the stream: it hands on what is asked, and what is said of it. A socket that
//! cannot be had is warned of and tried again, and never fatal.

mod api;
mod client;
mod server;
mod socket;

pub use api::{Problem, RequestBody, Snapshot, Snapshots};
pub use client::{Answer, Client, ClientError};
pub use server::Server;
pub use socket::{SOCKET_PATH_BYTES_MAX, Socket};
