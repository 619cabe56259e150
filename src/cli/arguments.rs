//! What can be written on the command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{config::parse_interval, pipeline::Reset};

/// Publishes PostgreSQL outbox rows to Kafka, exactly once.
#[derive(Parser, Debug)]
#[command(name = "tailwater", version, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
    /// The settings file.
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        env = "TAILWATER_CONFIG",
        default_value = "./tailwater.toml"
    )]
    pub(super) config: PathBuf,
}

/// How a command that asks is answered, and how it answers.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Answer {
    /// Do it without asking.
    #[arg(long)]
    pub(super) yes: bool,
    /// Say what was done as JSON, for programs.
    #[arg(long)]
    pub(super) json: bool,
}

/// Where the checkpoint is moved to.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub(super) struct ResetHow {
    /// To the slot's position: publishes everything that the slot still has.
    #[arg(long)]
    to_slot: bool,
    /// Checkpoint and slot to the end of the server's log: goes on with what is committed from now
    /// on.
    #[arg(long)]
    to_now: bool,
    /// Forget that a part of a transaction is published: publishes it from its first change.
    #[arg(long)]
    replay_transaction: bool,
    /// Publish all rows that a table has again, under other ids. The checkpoint stays where it is.
    #[arg(long, value_name = "TABLE")]
    pub(super) snapshot: Option<String>,
}

impl From<ResetHow> for Reset {
    fn from(how: ResetHow) -> Self {
        match how {
            ResetHow { to_now: true, .. } => Self::ToNow,
            ResetHow { replay_transaction: true, .. } => Self::ReplayTransaction,
            // The only one that is left: one of them is required, and that of a table is no move.
            ResetHow { .. } => Self::ToSlot,
        }
    }
}

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Publish until SIGTERM or Ctrl-C. On the very first start it does what `init` does.
    Run,
    /// Create publication, slot, topics and the first checkpoint. Can be run again at any time.
    Init {
        /// Only print the SQL; needs the database alone and changes nothing.
        #[arg(long)]
        print_sql: bool,
        /// Go on with a slot that has no checkpoint, or whose checkpoint is of the source's former
        /// name. Says what it adopts and asks.
        #[arg(long, conflicts_with = "print_sql")]
        adopt_slot: bool,
        /// Take a table over from its poller, which is stopped: publish the rows that wait, before
        /// everything that is inserted from now on. Can be run again after a crash: it goes on.
        #[arg(
            long,
            value_name = "TABLE",
            requires = "condition",
            conflicts_with_all = ["print_sql", "adopt_slot"]
        )]
        take_over: Option<String>,
        /// Which rows wait, as an SQL condition: --where "status = 'pending'".
        #[arg(long = "where", value_name = "SQL", requires = "take_over")]
        condition: Option<String>,
        #[command(flatten)]
        answer: Answer,
    },
    /// Move the checkpoint by hand, after a loss was explained and accepted, or begin with a table's
    /// rows anew. Says what is skipped or doubled and asks.
    ///
    /// The daemon must be stopped.
    Reset {
        #[command(flatten)]
        how: ResetHow,
        #[command(flatten)]
        answer: Answer,
    },
    /// Look for what `run` would refuse, and for what would hurt it later; print what mends it.
    ///
    /// Takes, makes, moves and fences nothing; can be asked beside a daemon. Ends with 1 where
    /// something is to be mended.
    Check {
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Say how the pipeline is: what holds the slot, how far it is, what the server keeps for it.
    ///
    /// Changes nothing; can be asked beside a daemon.
    Status {
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Publish the rows that a table has, beside the stream: asks the running daemon, and shows how far
    /// it is. Without a table: shows which back-fills there are.
    ///
    /// Ctrl-C ends the showing; the back-fill goes on. What is asked for again while it goes on, for
    /// the same rows, is followed.
    Snapshot {
        /// A domain table of the settings, as public.orders.
        #[arg(value_name = "TABLE")]
        table: Option<String>,
        /// Which rows, as an SQL condition: --where "status = 'open'". Unless said, all.
        #[arg(long = "where", value_name = "SQL", requires = "table")]
        condition: Option<String>,
        /// How far it is, as one JSON object a line on standard output.
        #[arg(long)]
        json: bool,
        /// Do not wait for its end.
        #[arg(long, requires = "table")]
        detach: bool,
    },
    /// Print a schema of the events that the settings produce.
    ///
    /// Needs no server, unless there are domain tables: the database is asked for their columns.
    Schema {
        /// Their values as JSON Schema, or topics, keys, headers and values as AsyncAPI.
        #[arg(long, value_enum, default_value_t = SchemaFormat::JsonSchema)]
        format: SchemaFormat,
    },
    /// Show events as they are committed, from now on. Ctrl-C ends it.
    ///
    /// Needs the database and its publication alone: it follows a temporary slot, beside any daemon,
    /// and touches nothing. An event is two lines: when it was committed (UTC), type, key, topic
    /// and id; then its data.
    Tail {
        /// One envelope a line, as JSON, and nothing else.
        #[arg(long)]
        json: bool,
        /// Data as long as it is, and not as wide as the terminal.
        #[arg(long, conflicts_with = "json")]
        full: bool,
    },
    /// See it work: a throwaway PostgreSQL, an embedded broker, an order service, its events.
    ///
    /// Needs no settings and leaves nothing behind.
    Demo {
        /// How long orders are taken. Ctrl-C ends it earlier.
        #[arg(long = "for", value_name = "TIME", default_value = "15s", value_parser = parse_interval)]
        duration: Duration,
        /// Publish to a real Kafka instead of the embedded broker.
        #[arg(long, value_name = "ADDRESSES")]
        brokers: Option<String>,
    },
}

/// The documents that `schema` prints.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum SchemaFormat {
    /// JSON Schema, 2020-12.
    JsonSchema,
    /// AsyncAPI, 3.0.
    #[value(name = "asyncapi")]
    AsyncApi,
}
