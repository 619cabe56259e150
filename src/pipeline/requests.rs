//! Back-fills that somebody outside the loop asks for, and how far all of them are.
//!
//! ```text
//! Requests::ask ─► Inbox ─► the loop judges ─► a task asks the server ─► record due ─► cut
//!        ▲                                                                             │
//!        └─ accepted ◄──── Board ◄──── what a cut's records say, once it is delivered ◄┘
//! ```
//!
//! A request is accepted once its record is on Kafka: from then on no crash forgets it. In the same way
//! nothing is told of a back-fill that a crash could take back, because a cut's records are told of
//! when the sink reports the cut. Only for whom a back-fill waits comes from the loop right away: it is of
//! no record.
//!
//! [`Requests`] is made once for the life of the process. Loops come and go: each has an [`Inbox`], and
//! what was asked of one that ended is answered with that.

mod board;
mod inbox;
mod refused;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use self::board::Board;
pub(super) use self::inbox::{Asked, Inbox};
pub use self::refused::{RefusalKind, RequestRefused};
use crate::{
    checkpoint::{SnapshotRecord, SnapshotState},
    postgres::{Blocker, PublicationName, Settings},
};

/// So long it is waited for a loop that is being started.
const START_MAX: Duration = Duration::from_secs(5);

/// So long it is waited for an answer: PostgreSQL is asked, then something is written to Kafka, behind
/// the transaction that is open.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// So many may ask at once.
const ASKS_MAX: usize = 8;

/// How far the rows of a table are, as a record on Kafka says. Field names are part of the interface.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SnapshotProgress {
    /// The request; another one where all rows come again from the first one on.
    pub request: String,
    /// `schema.table`.
    pub table: String,
    /// Which rows, as an SQL condition; all of them where there is none.
    #[serde(rename = "where")]
    pub condition: Option<String>,
    /// How far it is.
    pub state: SnapshotState,
    /// Why it failed.
    pub failure: Option<String>,
    /// How many rows are out.
    pub rows: u64,
    /// About how many there are, as far as the server knows.
    pub estimate: Option<u64>,
    /// How many rows are looked for by themselves, because somebody changed them meanwhile.
    pub outstanding: usize,
    /// Some of the transactions whose end is waited for before its rows are read; of now, unlike the
    /// rest, and of no record.
    #[serde(default)]
    pub waits_for: Vec<Blocker>,
    /// When it was asked for, RFC 3339 in UTC.
    pub requested_at: String,
    /// When this was so, RFC 3339 in UTC.
    pub written_at: String,
}

impl SnapshotProgress {
    /// As a record says.
    pub(super) fn of(record: &SnapshotRecord) -> Self {
        Self {
            request: record.request.clone(),
            table: record.table.clone(),
            condition: record.condition.clone(),
            state: record.state,
            failure: record.failure.clone(),
            rows: record.rows,
            estimate: record.estimate,
            outstanding: record.outstanding.len(),
            waits_for: Vec::new(),
            requested_at: record.requested_at.clone(),
            written_at: record.written_at.clone(),
        }
    }

    /// Whether both are of what was asked for once: a name it may have several.
    fn is_of(&self, table: &str, requested_at: &str) -> bool {
        self.table == table && self.requested_at == requested_at
    }
}

/// A back-fill that goes on whatever happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// How far it is.
    pub progress: SnapshotProgress,
    /// It was under way before.
    pub is_known: bool,
}

/// What the daemon is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It takes the slot and compares positions.
    #[default]
    Starting,
    /// Another instance has the slot.
    Standby,
    /// It begins anew: something failed that may pass, or must come first.
    Retrying,
    /// It publishes.
    Publishing,
    /// It publishes what comes before an event that cannot be published, and then stops.
    Halting,
}

impl Phase {
    /// In words, behind "the daemon".
    pub fn words(self) -> &'static str {
        match self {
            Self::Starting => "is starting",
            Self::Standby => "stands by: another instance has the slot",
            Self::Retrying => "is starting over: its log says why",
            Self::Publishing => "publishes",
            Self::Halting => "is about to stop, before an event that cannot be published",
        }
    }

    /// Whether it may publish in a moment.
    fn is_brief(self) -> bool {
        match self {
            Self::Starting | Self::Retrying | Self::Publishing => true,
            Self::Standby | Self::Halting => false,
        }
    }
}

/// What somebody asks for.
#[derive(Debug)]
pub(super) struct Ask {
    /// `schema.table`, as it was written.
    pub(super) table: String,
    pub(super) condition: Option<String>,
    answer: oneshot::Sender<Answer>,
}

type Answer = Result<Accepted, RequestRefused>;

impl Ask {
    pub(super) fn refuse(self, refused: RequestRefused) {
        // Whoever asked may be gone.
        let _ = self.answer.send(Err(refused));
    }
}

/// The loop that can be asked.
#[derive(Debug, Default)]
struct Open {
    phase: Phase,
    asks: Option<mpsc::Sender<Ask>>,
}

#[derive(Debug, Default)]
struct Shared {
    open: watch::Sender<Open>,
    board: Mutex<Board>,
}

/// By which somebody asks for back-fills, and for how far they are.
#[derive(Clone, Debug, Default)]
pub struct Requests(Arc<Shared>);

/// For whoever asks.
impl Requests {
    /// Asks for the rows of a table, and waits until it is sure that they come. Where it is given up
    /// meanwhile, they may come all the same.
    ///
    /// # Errors
    /// Why they do not, or why it is not known.
    pub async fn ask(&self, table: String, condition: Option<String>) -> Answer {
        let asks = self.await_loop().await?;
        let (answer, answered) = oneshot::channel();
        asks.try_send(Ask { table, condition, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => RequestRefused::Busy,
            mpsc::error::TrySendError::Closed(_) => RequestRefused::Interrupted,
        })?;
        match timeout(ANSWER_MAX, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(RequestRefused::Interrupted),
            Err(_) => Err(RequestRefused::Unanswered { seconds: ANSWER_MAX.as_secs() }),
        }
    }

    /// All that are not over, and the last ones that are, as far as this process knows.
    pub fn all(&self) -> Vec<SnapshotProgress> {
        self.board().all()
    }

    /// The one that has, or had, this name.
    pub fn find(&self, request: &str) -> Option<SnapshotProgress> {
        self.board().find(request)
    }

    /// What the daemon is doing.
    pub fn phase(&self) -> Phase {
        self.0.open.borrow().phase
    }

    async fn await_loop(&self) -> Result<mpsc::Sender<Ask>, RequestRefused> {
        let mut open = self.0.open.subscribe();
        let is_over = |open: &Open| open.asks.is_some() || !open.phase.is_brief();
        // Where the time is up it is told what there is.
        let _ = timeout(START_MAX, open.wait_for(is_over)).await;
        let open = open.borrow();
        open.asks.clone().ok_or(RequestRefused::NotRunning { phase: open.phase })
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.0.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For the pipeline.
impl Requests {
    /// Says what the daemon is doing while no loop can be asked.
    pub(super) fn enter(&self, phase: Phase) {
        self.0.open.send_modify(|open| open.phase = phase);
    }

    /// The end of a loop that goes on with these records, which are on Kafka. It can be asked until it
    /// is dropped.
    pub(super) fn open<'r>(
        &self,
        postgres: Settings,
        publication: PublicationName,
        records: impl Iterator<Item = &'r SnapshotRecord>,
    ) -> Inbox {
        self.board().begin(records.map(SnapshotProgress::of).collect());
        let (sender, asks) = mpsc::channel(ASKS_MAX);
        self.0
            .open
            .send_modify(|open| *open = Open { phase: Phase::Publishing, asks: Some(sender) });
        Inbox::new(self.clone(), asks, postgres, publication)
    }

    /// Nobody can be asked any more.
    fn close(&self) {
        self.0.open.send_modify(|open| *open = Open { phase: Phase::Starting, asks: None });
        self.board().observe_waiting(None);
    }

    fn tell(&self, progress: SnapshotProgress) {
        self.board().tell(progress);
    }

    fn observe_waiting(&self, waiting: Option<(&SnapshotRecord, &[Blocker])>) {
        self.board().observe_waiting(waiting.map(|(record, waits_for)| {
            let SnapshotRecord { table, requested_at, .. } = record;
            (table.as_str(), requested_at.as_str(), waits_for)
        }));
    }
}
