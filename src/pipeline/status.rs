//! What can be told of a pipeline from outside: by its slot on the server and its checkpoint on
//! Kafka. Nothing is taken, made or moved, so it may be asked at any time, beside any daemon.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{
    chain,
    former_primary::pass_over,
    judgement::{judge_history, judge_source, taken_over},
    settings::Settings,
    shutdown::Shutdown,
    start::{Failed, Ground, Server, peek},
};
use crate::{
    change::PgTimestamp,
    checkpoint::store::Look,
    lsn::Lsn,
    postgres::{
        catalog,
        slot::{self, Holder, Slot},
    },
};

/// A daemon that keeps up has acknowledged by then what was in the log when it was asked for: an
/// idle one does so every second.
const CATCH_UP_MAX: Duration = Duration::from_secs(3);

/// How often the slot is looked at meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Behind by more than this a pipeline counts as lagging.
const LAG_SECONDS_MAX: f64 = 10.;

/// After this long without a transaction it counts as idle.
const IDLE_AFTER_SECONDS: f64 = 60.;

/// How a pipeline is, in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A daemon was at its first start when it ended, or is there now.
    Starting,
    /// It publishes, and keeps up.
    Running,
    /// It keeps up, and there was nothing to publish for a while.
    Idle,
    /// It is behind.
    Lagging,
    /// It is behind, and Kafka does not answer us either; or nobody holds the slot and Kafka does not
    /// answer, of which a daemon that let go of it (`kafka.outage_grace`) and none at all look the same.
    StuckOnKafka,
    /// The slot is gone, or the server gave its WAL up.
    SlotLost,
    /// Kafka answers, and nobody holds the slot, or there is none yet.
    NotRunning,
}

/// The answer. Field names are part of the interface.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Status {
    /// In one word.
    pub state: State,
    /// The setting `source`.
    pub source: String,
    /// The database.
    pub database: String,
    /// The slot's name.
    pub slot: String,
    /// The process that holds the slot, and whose it is.
    pub holder: Option<Holder>,
    /// What the log holds behind what is acknowledged.
    pub lag_bytes: Option<u64>,
    /// Since the last published transaction was committed; 0 for who keeps up. None where that is
    /// not known.
    pub lag_seconds: Option<f64>,
    /// What the server keeps for the slot.
    pub retained_wal_bytes: Option<u64>,
    /// What it should keep at most, by the settings.
    pub retained_wal_bytes_max: Option<u64>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Why the slot was invalidated.
    pub invalidation: Option<String>,
    /// The slot's position.
    pub confirmed_flush_lsn: Option<Lsn>,
    /// The checkpoint's position: everything below is published.
    pub commit_end_lsn: Option<Lsn>,
    /// When the checkpoint was written.
    pub checkpoint_written_at: Option<String>,
    /// The table whose take-over from a poller is not finished: until then nothing else starts.
    pub unfinished_take_over: Option<String>,
    /// Why Kafka could not be asked.
    pub kafka_error: Option<String>,
}

/// Asks the server and Kafka. Takes up to three seconds where the daemon is behind, and longer
/// where Kafka does not answer.
///
/// # Errors
/// Where the server cannot be asked, the slot belongs to another source, or a former primary alone
/// answers, whose slot says nothing of the pipeline.
pub async fn status(settings: &Settings, shutdown: &Shutdown) -> Result<Status, Failed> {
    pass_over(settings, async |settings| ask(settings, shutdown).await).await
}

async fn ask(settings: &Settings, shutdown: &Shutdown) -> Result<Status, Failed> {
    let (ground, _) = Ground::enter(settings, shutdown).await?;
    let looked = peek(&ground).await;
    if let Ok(look) = &looked {
        judge_source(settings, look)?;
        if let Some(checkpoint) = &look.checkpoint {
            let Server { identity, history } = &ground.server;
            let judged = judge_history(checkpoint, identity.timeline, history.as_ref());
            // What another failover lost is told by `run` and `check`.
            judged.or_else(|refusal| match refusal.is_of_former_primary() {
                true => Err(refusal),
                false => Ok(()),
            })?;
        }
    }
    let (slot, end) = await_caught_up(&ground).await?;
    let holder = slot::holder(&ground.sql, &settings.slot).await?;
    Ok(judge(settings, Findings { slot, holder, end, looked }, PgTimestamp::now()))
}

/// The slot as soon as it has passed the present end of the log, or after a while; and the end.
async fn await_caught_up(ground: &Ground<'_>) -> Result<(Option<Slot>, Lsn), Failed> {
    let end = catalog::wal_end(&ground.sql).await?;
    let until = Instant::now() + CATCH_UP_MAX;
    loop {
        let slot = slot::describe(&ground.sql, &ground.settings.slot).await?;
        let is_behind = slot.as_ref().is_some_and(|slot| {
            slot.active_pid.is_some() && slot.confirmed_flush.is_some_and(|flush| flush < end)
        });
        if !is_behind || Instant::now() > until {
            return Ok((slot, end));
        }
        sleep(LOOK_INTERVAL).await;
    }
}

struct Findings {
    slot: Option<Slot>,
    holder: Option<Holder>,
    end: Lsn,
    looked: Result<Look, Failed>,
}

fn judge(settings: &Settings, findings: Findings, now: PgTimestamp) -> Status {
    let Findings { slot, holder, end, looked } = findings;
    let (look, kafka_error) = match looked {
        Ok(look) => (look, None),
        Err(failure) => (Look::default(), Some(chain(&*failure))),
    };
    let behind = |position: Option<Lsn>| position.map(|position| end.bytes_since(position));
    let confirmed_flush_lsn = slot.as_ref().and_then(|slot| slot.confirmed_flush);
    let lag_bytes = behind(confirmed_flush_lsn);
    let last = look.checkpoint.as_ref().and_then(|record| record.last);
    let age = last.map(|last| last.age_seconds(now));
    let lag_seconds = if lag_bytes == Some(0) { Some(0.) } else { age };
    let due = look.intent.as_ref().and_then(|intent| taken_over(settings, intent).cloned());
    let unfinished_take_over = due.filter(|_| look.checkpoint.is_none());
    let invalidation = slot.as_ref().and_then(Slot::invalidation);
    // One that is being made now is another one than the checkpoint's.
    let is_whole = slot.as_ref().is_some_and(|slot| slot.confirmed_flush.is_some());
    let state = match (&slot, &holder) {
        _ if look.checkpoint.is_some() && !is_whole => State::SlotLost,
        (Some(_), _) if invalidation.is_some() => State::SlotLost,
        (_, None) if kafka_error.is_some() => State::StuckOnKafka,
        (_, None) => State::NotRunning,
        (_, Some(_)) if lag_bytes == Some(0) => match age {
            Some(seconds) if seconds < IDLE_AFTER_SECONDS => State::Running,
            Some(_) | None => State::Idle,
        },
        (_, Some(_)) if kafka_error.is_some() => State::StuckOnKafka,
        (_, Some(_)) if look.checkpoint.is_none() => State::Starting,
        (_, Some(_)) if lag_seconds.is_some_and(|seconds| seconds < LAG_SECONDS_MAX) => {
            State::Running
        }
        (_, Some(_)) => State::Lagging,
    };
    Status {
        state,
        source: settings.source.clone(),
        database: settings.postgres.database.clone(),
        slot: settings.slot.to_string(),
        holder,
        lag_bytes,
        lag_seconds,
        retained_wal_bytes: behind(slot.as_ref().and_then(|slot| slot.restart)),
        retained_wal_bytes_max: settings.retained_wal_bytes_max,
        wal_status: slot.and_then(|slot| slot.wal_status),
        invalidation,
        confirmed_flush_lsn,
        commit_end_lsn: look.checkpoint.as_ref().map(|record| record.commit_end_lsn.lsn()),
        checkpoint_written_at: look.checkpoint.map(|record| record.written_at),
        unfinished_take_over,
        kafka_error,
    }
}
