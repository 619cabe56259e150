//! Looks at the publication every few seconds: a table that leaves it, or that is dropped and made
//! anew, has a gap that no position in the log shows. On the same connection it looks at how much of
//! its log the server keeps for the slot, and asks for the log's end, or who holds the slot, when
//! somebody wants to know.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tracing::{debug, info, warn};

use super::{continuity, continuity::Judged, descendants, refusal::Refusal, settings::Settings};
use crate::{
    checkpoint::Fingerprint,
    lsn::Lsn,
    postgres::{PostgresError, TableName, catalog, slot, sql::Sql},
    telemetry::Seldom,
};

/// How often the publication is compared.
const INTERVAL: Duration = Duration::from_secs(10);

/// How often it is said that the slot holds too much.
const RETAINED_SAID_EVERY: Duration = Duration::from_secs(600);

/// What the watch found: the publication as it is, or why publishing must stop.
pub(super) type Change = Result<Fingerprint, Refusal>;

/// Watches the publication until it is dropped.
#[derive(Debug)]
pub(super) struct PublicationWatch {
    changes: mpsc::Receiver<Change>,
    wal_end: WalEnd,
    holder: mpsc::Sender<HolderAnswer>,
    task: JoinHandle<()>,
}

/// Where the process that holds the slot is told.
type HolderAnswer = oneshot::Sender<Result<Option<i32>, PostgresError>>;

/// The end of the server's log, for who asks.
#[derive(Clone, Debug)]
pub(super) struct WalEnd {
    asked: Arc<Notify>,
    told: watch::Receiver<Option<Lsn>>,
}

impl WalEnd {
    /// Asks for it. Whatever was told before counts as unknown until the answer is there.
    pub(super) fn ask(&mut self) {
        self.told.mark_unchanged();
        self.asked.notify_one();
    }

    /// The answer, once it is there.
    pub(super) fn told(&self) -> Option<Lsn> {
        let is_answered = self.told.has_changed().unwrap_or(false);
        if is_answered { *self.told.borrow() } else { None }
    }
}

impl PublicationWatch {
    /// Starts from the fingerprint that was just compared.
    pub(super) fn start(settings: Settings, sql: Sql, fingerprint: Fingerprint) -> Self {
        let (changes_sender, changes) = mpsc::channel(1);
        let (told_sender, told) = watch::channel(None);
        let (holder, holder_asked) = mpsc::channel(1);
        let wal_end = WalEnd { asked: Arc::default(), told };
        let asked = Arc::clone(&wal_end.asked);
        let (known, told, said) = (fingerprint, told_sender, Seldom::every(RETAINED_SAID_EVERY));
        let watching = Watching { settings, sql, known, asked, told, holder_asked, said };
        let task = tokio::spawn(watching.run(changes_sender));
        Self { changes, wal_end, holder, task }
    }

    /// Where the server's log ends.
    pub(super) fn wal_end(&self) -> WalEnd {
        self.wal_end.clone()
    }

    /// The server's process that holds the slot; none where nobody does.
    ///
    /// # Errors
    /// Where the server does not say.
    pub(super) async fn slot_holder(&self) -> Result<Option<i32>, PostgresError> {
        let (answer, told) = oneshot::channel();
        // Where the task is gone it cannot be asked either.
        let _ = self.holder.send(answer).await;
        told.await.unwrap_or(Err(PostgresError::Ended))
    }

    /// A watch over a publication that never changes.
    #[cfg(test)]
    pub(super) fn unchanging() -> Self {
        let (sender, changes) = mpsc::channel(1);
        let wal_end = WalEnd { asked: Arc::default(), told: watch::channel(None).1 };
        let task = tokio::spawn(async move { sender.closed().await });
        Self { changes, wal_end, holder: mpsc::channel(1).0, task }
    }

    /// The next change.
    ///
    /// # Cancel safety
    /// A change is returned once or stays queued.
    pub(super) async fn changed(&mut self) -> Change {
        match self.changes.recv().await {
            Some(change) => change,
            None => std::future::pending().await,
        }
    }
}

impl Drop for PublicationWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task.
struct Watching {
    settings: Settings,
    sql: Sql,
    known: Fingerprint,
    asked: Arc<Notify>,
    told: watch::Sender<Option<Lsn>>,
    holder_asked: mpsc::Receiver<HolderAnswer>,
    /// Of WAL that is kept.
    said: Seldom,
}

impl Watching {
    async fn run(mut self, changes: mpsc::Sender<Change>) {
        let mut look_at = Instant::now() + INTERVAL;
        loop {
            tokio::select! {
                () = self.asked.notified() => {
                    match self.ask_wal_end().await {
                        Ok(end) => _ = self.told.send_replace(Some(end)),
                        Err(error) => debug!(%error, "could not ask for the end of the log"),
                    }
                    continue;
                }
                Some(answer) = self.holder_asked.recv() => {
                    // Who asked may have been told to stop meanwhile.
                    let _ = answer.send(self.find_holder().await);
                    continue;
                }
                () = sleep_until(look_at) => look_at = Instant::now() + INTERVAL,
            }
            if let Err(error) = self.warn_of_retained_wal().await {
                debug!(%error, "could not look at the slot; trying again");
            }
            let change = match self.look().await {
                Ok(Ok(fingerprint)) if fingerprint == self.known => continue,
                Ok(Ok(fingerprint)) => {
                    info!(publication = fingerprint.name, "the publication changed");
                    continuity::warn_if_altered(&self.known, &fingerprint);
                    self.known = fingerprint.clone();
                    Ok(fingerprint)
                }
                Ok(Err(refusal)) => Err(refusal),
                Err(error) => {
                    debug!(%error, "could not look at the publication; trying again");
                    continue;
                }
            };
            if changes.send(change).await.is_err() {
                return;
            }
        }
    }

    /// Where the slot makes the server keep more than the settings let it.
    async fn warn_of_retained_wal(&mut self) -> Result<(), PostgresError> {
        let Some(bytes_max) = self.settings.retained_wal_bytes_max else { return Ok(()) };
        self.reconnect().await?;
        let slot = slot::describe(&self.sql, &self.settings.slot).await?;
        let Some(restart) = slot.and_then(|slot| slot.restart) else { return Ok(()) };
        let end = catalog::wal_end(&self.sql).await?;
        let retained_wal_bytes = if end > restart { end.bytes_since(restart) } else { 0 };
        if retained_wal_bytes > bytes_max && self.said.is_due().is_some() {
            warn!(
                slot = %self.settings.slot,
                retained_wal_bytes,
                retained_wal_bytes_max = bytes_max,
                "the slot makes the server keep more WAL than postgres.retained_wal_max: Kafka may \
                 be slow or away, or a transaction may be open for long; tailwater status says how \
                 far behind it is"
            );
        }
        Ok(())
    }

    async fn find_holder(&mut self) -> Result<Option<i32>, PostgresError> {
        self.reconnect().await?;
        let slot = slot::describe(&self.sql, &self.settings.slot).await?;
        Ok(slot.and_then(|slot| slot.active_pid))
    }

    async fn ask_wal_end(&mut self) -> Result<Lsn, PostgresError> {
        self.reconnect().await?;
        catalog::wal_end(&self.sql).await
    }

    async fn look(&mut self) -> Judged<Fingerprint> {
        self.reconnect().await?;
        let Self { settings, sql, known, .. } = self;
        let now = match continuity::describe(settings, sql).await? {
            Ok(now) => now,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if let Err(refusal) = continuity::judge(settings, sql, known, &now).await? {
            return Ok(Err(refusal));
        }
        let names = now.tables.keys().cloned();
        let tables: Vec<_> = names.filter_map(|name| TableName::try_from(name).ok()).collect();
        match descendants::judge(settings, sql, &tables).await? {
            Ok(()) => Ok(Ok(continuity::date(sql, known, now).await?)),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    async fn reconnect(&mut self) -> Result<(), PostgresError> {
        if self.sql.is_closed() {
            self.sql = Sql::connect(&self.settings.postgres).await?;
        }
        Ok(())
    }
}
