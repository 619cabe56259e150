//! Events for people and for programs, on standard output.
//!
//! ```text
//! StdoutSink ─batches─► a thread that writes ─► standard output
//!     ▲                        │
//!     └──────── reports ───────┘
//! ```
//!
//! Writing may wait for long, on a pager that nobody scrolls, so a thread of its own does it: the
//! caller's bounded batches are the back-pressure, and signals and servers are answered meanwhile.
//! What is written is delivered; nothing is kept, so a cut's checkpoint has no meaning here.

mod error;
mod sink;
mod text;

pub use error::StdoutError;
pub use sink::StdoutSink;
pub use text::Style;
