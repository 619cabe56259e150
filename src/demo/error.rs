//! Why the demo could not go on.

use std::{path::PathBuf, time::Duration};

use crate::{
    failure::{Code, Failure, Recovery},
    pipeline,
    postgres::PostgresError,
};

/// Why the demo could not go on. Whatever it is, everything that was started is gone.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// There is no PostgreSQL on this machine.
    #[error("found no PostgreSQL server: no folder with initdb and postgres in {searched}")]
    NoPostgres {
        /// Where it was looked for.
        searched: String,
    },
    /// The named folder is not one of PostgreSQL's.
    #[error("TAILWATER_POSTGRES_BIN names \"{folder}\", which does not hold initdb and postgres")]
    NotPostgres {
        /// The folder as it was named.
        folder: PathBuf,
    },
    /// The throwaway PostgreSQL did not come up.
    #[error("could not {action}")]
    Server {
        /// A verb phrase.
        action: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// One of PostgreSQL's programs ended with an error.
    #[error("{program} ended with an error ({status}): {output}")]
    Program {
        /// Which one.
        program: &'static str,
        /// How it ended.
        status: String,
        /// The last lines it wrote.
        output: String,
    },
    /// The order service's database refused something.
    #[error("the order service could not go on")]
    OrderService {
        /// What the database said.
        #[source]
        source: PostgresError,
    },
    /// The broker could not be started, asked or read.
    #[error("could not {action}")]
    Broker {
        /// A verb phrase.
        action: String,
        /// What librdkafka said.
        #[source]
        source: rdkafka::error::KafkaError,
    },
    /// The pipeline does not come up.
    #[error("the pipeline did not begin to publish within {} s", limit.as_secs())]
    PipelineNotStarted {
        /// How long it was waited for.
        limit: Duration,
    },
    /// The pipeline ended by itself.
    #[error("the pipeline stopped: {reason}")]
    Pipeline {
        /// The failure's own word.
        code: Option<Code>,
        /// The failure and what caused it.
        reason: String,
        /// The failure's own hint.
        hint: Option<String>,
    },
    /// The pipeline was asked to stop and did not.
    #[error("the pipeline did not stop within {} s", limit.as_secs())]
    PipelineNotStopped {
        /// How long it was waited for.
        limit: Duration,
    },
}

impl DemoError {
    pub(super) fn of_pipeline(failure: &dyn Failure) -> Self {
        let (code, hint) = (failure.code(), failure.hint());
        Self::Pipeline { code, reason: pipeline::chain(failure), hint }
    }
}

impl From<PostgresError> for DemoError {
    fn from(source: PostgresError) -> Self {
        Self::OrderService { source }
    }
}

impl Failure for DemoError {
    fn code(&self) -> Option<Code> {
        match self {
            Self::Pipeline { code, .. } => *code,
            Self::NoPostgres { .. }
            | Self::NotPostgres { .. }
            | Self::Server { .. }
            | Self::Program { .. }
            | Self::OrderService { .. }
            | Self::Broker { .. }
            | Self::PipelineNotStarted { .. }
            | Self::PipelineNotStopped { .. } => None,
        }
    }

    /// A demo is not repeated by itself: somebody sits before it.
    fn recovery(&self) -> Recovery {
        Recovery::Stop
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoPostgres { .. } => {
                "Install it: `apt-get install postgresql` on Debian and Ubuntu, `brew install \
                 postgresql` on macOS; or run `make demo`, which fetches it. One that lies \
                 elsewhere is named by TAILWATER_POSTGRES_BIN=<its bin folder>."
            }
            Self::NotPostgres { .. } => {
                "Name the folder that `pg_config --bindir` prints, or unset TAILWATER_POSTGRES_BIN."
            }
            Self::Server { source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                "As root the demo runs PostgreSQL as user postgres, else as nobody, who must be \
                 able to reach its programs and the folder for temporary files. Name others by \
                 TAILWATER_POSTGRES_BIN and TMPDIR, or run the demo as an ordinary user."
            }
            Self::Broker { .. } => {
                "Check the address given as --brokers; without it the demo brings its own broker."
            }
            Self::PipelineNotStarted { .. } => {
                "With --brokers, check that every address the brokers advertise can be reached \
                 from here; without it, this machine is too busy: try again."
            }
            Self::Pipeline { hint, .. } => return hint.clone(),
            Self::OrderService { source } => return source.hint(),
            Self::Server { .. } | Self::Program { .. } | Self::PipelineNotStopped { .. } => {
                return None;
            }
        };
        Some(hint.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Refusal;

    #[test]
    fn missing_postgres_names_the_command_that_installs_it() {
        let error = DemoError::NoPostgres { searched: "PATH".to_owned() };
        let hint = error.hint().expect("there is a hint");
        assert!(hint.contains("`apt-get install postgresql`"), "{hint}");
        assert!(hint.contains("`make demo`"), "{hint}");
    }

    #[test]
    fn pipeline_failure_keeps_its_code_and_hint() {
        let failure = Refusal::WalLevel { wal_level: "replica".to_owned() };
        let error = DemoError::of_pipeline(&failure);
        assert_eq!(error.code(), Some(Code::WalLevel));
        assert_eq!(error.hint(), failure.hint());
        assert!(error.to_string().starts_with("the pipeline stopped: "), "{error}");
    }
}
