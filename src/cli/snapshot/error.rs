//! Why rows are not all published, as far as the command knows.

use crate::{
    admin::{ClientError, Problem},
    failure::{Code, Failure, Recovery},
};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotError {
    /// The settings say that there is no socket.
    #[error("the daemon cannot be reached: admin.socket is \"off\"")]
    Off,
    /// Nobody is there.
    #[error("the daemon could not be asked")]
    NotConnected {
        #[source]
        source: ClientError,
    },
    /// It says no.
    #[error("{}", .0.message)]
    Refused(Problem),
    /// It was there when it was asked.
    #[error("the daemon was away for a minute; the back-fill of {table} goes on when it is back")]
    Away {
        #[source]
        source: ClientError,
        table: String,
    },
    /// It does not know how the request ended.
    #[error("{message}")]
    Lost { message: String, hint: String },
    /// The rest never comes.
    #[error("the back-fill of {table} failed after {rows} rows: {reason}")]
    Failed { table: String, rows: u64, reason: String },
}

impl Failure for SnapshotError {
    fn code(&self) -> Option<Code> {
        match self {
            Self::Off | Self::NotConnected { .. } | Self::Away { .. } => Some(Code::NotConnected),
            Self::Refused(_) | Self::Lost { .. } | Self::Failed { .. } => {
                Some(Code::SnapshotRefused)
            }
        }
    }

    fn recovery(&self) -> Recovery {
        Recovery::Stop
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Off => "Remove admin.socket from the settings, or name a place; then start the \
                daemon again."
                .to_owned(),
            Self::NotConnected { .. } => "Is `tailwater run` running, on this machine, with these \
                settings and as this user? Where it runs in another environment (a service, a \
                container), ask there, or name one place for both by admin.socket."
                .to_owned(),
            Self::Refused(problem) => problem.hint.clone(),
            Self::Away { .. } => {
                "Start it; the same command follows it again. What is accepted is on \
                Kafka, and nothing is lost."
                    .to_owned()
            }
            Self::Lost { hint, .. } => hint.clone(),
            Self::Failed { .. } => {
                "What is out stays. Mend what it says, and ask again: all rows come \
                then, under other ids."
                    .to_owned()
            }
        })
    }
}
