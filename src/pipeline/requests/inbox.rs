//! The loop's end: what is asked, whether the server could do it, and who waits for a record.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use super::{Accepted, Ask, RequestRefused, Requests, SnapshotProgress};
use crate::{
    checkpoint::SnapshotRecord,
    failure::Failure as _,
    pipeline::{backfill::is_of_condition, chain},
    postgres::{
        Blocker, PostgresError, PublicationName, Settings, TableName,
        diagnosis::ReadRights,
        snapshot::{Bound, ChunkQuery, ConditionError, Part, Shape},
        sql::Sql,
    },
};

/// How long the server may take to say whether it can be done: longer than a lock is waited for.
const CHECK_MAX: Duration = Duration::from_secs(20);

/// What the inbox has for the loop.
#[derive(Debug)]
pub(in crate::pipeline) enum Asked {
    /// Somebody asks.
    New(Ask),
    /// The server could do it, or not.
    Checked(Ask, Result<(), RequestRefused>),
}

/// Somebody waits for the record of what was asked for.
#[derive(Debug)]
struct Waiting {
    ask: Ask,
    table: String,
    requested_at: String,
    is_known: bool,
}

/// What is asked of a loop. Others see that it can be asked for as long as this is there.
#[derive(Debug)]
pub(in crate::pipeline) struct Inbox {
    requests: Requests,
    asks: mpsc::Receiver<Ask>,
    where_from: Arc<(Settings, PublicationName)>,
    checking: Option<(Ask, JoinHandle<Result<(), RequestRefused>>)>,
    /// At most one for each that asks at once, and those who gave up.
    waiting: Vec<Waiting>,
    /// It was told for whom a back-fill waits.
    is_waiting_told: bool,
}

impl Inbox {
    pub(super) fn new(
        requests: Requests,
        asks: mpsc::Receiver<Ask>,
        postgres: Settings,
        publication: PublicationName,
    ) -> Self {
        let where_from = Arc::new((postgres, publication));
        Self {
            requests,
            asks,
            where_from,
            checking: None,
            waiting: Vec::new(),
            is_waiting_told: false,
        }
    }

    /// The next thing for the loop. While the server is asked for one, others wait.
    ///
    /// # Cancel safety
    /// It is returned once, or is still to come.
    pub(in crate::pipeline) async fn next(&mut self) -> Asked {
        if let Some((_, task)) = &mut self.checking {
            let checked = task.await;
            if let Some((ask, _)) = self.checking.take() {
                let checked = checked.unwrap_or(Err(RequestRefused::Interrupted));
                return Asked::Checked(ask, checked);
            }
        }
        match self.asks.recv().await {
            Some(ask) => Asked::New(ask),
            // This end holds the other one.
            None => std::future::pending().await,
        }
    }

    /// Has the server asked whether it can do that. Must be called within a tokio runtime, and once
    /// for each that [`Inbox::next`] returned.
    pub(in crate::pipeline) fn check(&mut self, ask: Ask, table: TableName) {
        let (where_from, condition) = (Arc::clone(&self.where_from), ask.condition.clone());
        let task = tokio::spawn(async move {
            let (postgres, publication) = &*where_from;
            let checked = check(postgres, publication, &table, condition.as_deref());
            match timeout(CHECK_MAX, checked).await {
                Ok(checked) => checked,
                Err(_) => {
                    let reason = format!("no answer for {} s", CHECK_MAX.as_secs());
                    Err(RequestRefused::NotAsked { table, reason, hint: None })
                }
            }
        });
        self.checking = Some((ask, task));
    }

    /// Answers once that is on Kafka which was asked for then.
    pub(in crate::pipeline) fn await_written(
        &mut self,
        ask: Ask,
        (table, requested_at): (String, String),
        is_known: bool,
    ) {
        let all = self.requests.all();
        match all.into_iter().find(|progress| progress.is_of(&table, &requested_at)) {
            Some(progress) => accept(ask, progress, is_known),
            None => {
                self.waiting.retain(|waiting| !waiting.ask.answer.is_closed());
                self.waiting.push(Waiting { ask, table, requested_at, is_known });
            }
        }
    }

    /// Before rows of that table are read, the end of these is waited for; of no table where there is
    /// none.
    pub(in crate::pipeline) fn observe_waiting(
        &mut self,
        waiting: Option<(&SnapshotRecord, &[Blocker])>,
    ) {
        if waiting.is_some() || self.is_waiting_told {
            self.is_waiting_told = waiting.is_some();
            self.requests.observe_waiting(waiting);
        }
    }

    /// That is on Kafka.
    pub(in crate::pipeline) fn tell(&mut self, progress: SnapshotProgress) {
        self.requests.tell(progress.clone());
        let is_of = |waiting: &mut Waiting| progress.is_of(&waiting.table, &waiting.requested_at);
        for Waiting { ask, is_known, .. } in self.waiting.extract_if(.., is_of) {
            accept(ask, progress.clone(), is_known);
        }
    }
}

fn accept(ask: Ask, progress: SnapshotProgress, is_known: bool) {
    // Whoever asked may be gone.
    let _ = ask.answer.send(Ok(Accepted { progress, is_known }));
}

impl Drop for Inbox {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.checking {
            task.abort();
        }
        self.requests.close();
    }
}

async fn check(
    postgres: &Settings,
    publication: &PublicationName,
    table: &TableName,
    condition: Option<&str>,
) -> Result<(), RequestRefused> {
    let not_asked = |error: PostgresError| RequestRefused::NotAsked {
        table: table.clone(),
        reason: chain(&error),
        hint: match error.sqlstate() {
            Some("42501") => Some(format!(
                "{} The same for what the condition names.",
                ReadRights::of(table, &postgres.user).hint()
            )),
            _ => error.hint(),
        },
    };
    let refused = |ConditionError { source, position }| {
        let message = source.server_message();
        match message.filter(|message| condition.is_some() && is_of_condition(&message.sqlstate)) {
            Some(message) => {
                let reason = message.to_string();
                RequestRefused::Condition { reason, position }
            }
            None => not_asked(source),
        }
    };
    let sql = Sql::connect(postgres).await.map_err(not_asked)?;
    let mut former = None;
    loop {
        let shape = Shape::look_up(&sql, publication, table).await.map_err(not_asked)?;
        let shape = shape.ok_or_else(|| RequestRefused::NotPublished {
            table: table.clone(),
            publication: publication.to_string(),
        })?;
        if shape.key.is_empty() {
            return Err(RequestRefused::NoKey { table: table.clone() });
        }
        let part = Part::Behind { bound: Bound::Nothing, rows_max: 1 };
        let query =
            ChunkQuery { table, shape: &shape, condition, part, bytes_max: 1, meant_rows_max: 1 };
        match query.check_condition(&sql).await {
            Ok(()) => return Ok(()),
            Err(error) if former.as_ref() == Some(&shape) => return Err(refused(error)),
            // Not the condition, perhaps, but the table is at fault: altered since it was looked up.
            Err(_) => former = Some(shape),
        }
    }
}
