//! Why nothing more can be shown.

use std::io;

use crate::failure::{Code, Failure, Recovery};

/// Standard output takes nothing more.
#[derive(Debug, thiserror::Error)]
pub enum StdoutError {
    /// Nobody reads it any more, as after `| head`.
    #[error("standard output is closed")]
    Closed,
    /// It cannot be written.
    #[error("could not write to standard output")]
    Write {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No thread could be started to write to it.
    #[error("could not start the thread that writes to standard output")]
    Thread {
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl From<io::Error> for StdoutError {
    fn from(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Write { source },
        }
    }
}

impl Failure for StdoutError {
    fn code(&self) -> Option<Code> {
        None
    }

    fn recovery(&self) -> Recovery {
        Recovery::Stop
    }

    fn hint(&self) -> Option<String> {
        Some(
            match self {
                Self::Closed => "Let something read standard output.",
                Self::Write { .. } => "Look at where standard output leads: is the disk full?",
                Self::Thread { .. } => "Let the process have one thread more (ulimit -u).",
            }
            .to_owned(),
        )
    }
}
