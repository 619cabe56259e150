//! What is asked beside the stream: of the server, and of us.

use super::{
    backfill::{Outcome, ReadError, Reading},
    lookup::{Answers, Lookup},
    publication_watch::{Change, PublicationWatch},
    requests::{Asked, Inbox},
};
use crate::{change::Relation, postgres::PostgresError};

/// Everything that asks.
#[derive(Debug)]
pub(super) struct Beside {
    /// Whether the publication is what it was.
    pub(super) watch: PublicationWatch,
    /// What the stream does not say of a table.
    pub(super) lookup: Lookup,
    /// The rows that tables had before; none where nobody wants them.
    pub(super) reading: Option<Reading>,
    /// What somebody asks for; none where nobody may.
    pub(super) inbox: Option<Inbox>,
}

/// What one of them found.
#[derive(Debug)]
pub(super) enum News {
    Publication(Change),
    Table(Result<(Relation, Answers), PostgresError>),
    Rows(Result<Outcome, ReadError>),
    Request(Asked),
}

impl Beside {
    /// The next thing that one of them found.
    ///
    /// # Cancel safety
    /// That of each: what is found is returned once or is still to come.
    pub(super) async fn next(&mut self) -> News {
        let Self { watch, lookup, reading, inbox } = self;
        let rows = async {
            match reading {
                Some(reading) => reading.outcome().await,
                None => std::future::pending().await,
            }
        };
        let request = async {
            match inbox {
                Some(inbox) => inbox.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            change = watch.changed() => News::Publication(change),
            answer = lookup.answered() => News::Table(answer),
            outcome = rows => News::Rows(outcome),
            asked = request => News::Request(asked),
        }
    }
}
