//! The loop against a scripted walsender and a recording sink, in simulated time.
//!
//! ```text
//! History ─► Walsender ─socket pair─► StreamLoop ─► RecordingSink ─► Topic
//!                ▲                        │
//!                └──── status updates ────┘
//! ```
//!
//! Everything runs in one thread whose clock is paused: it moves on whenever nobody has anything to
//! do, so hours of silence cost nothing.

mod history;
mod idle_checkpoints;
mod messages;
mod other_history;
mod recording_sink;
mod rig;
mod simulation;
mod stalled_sink;
mod walsender;
