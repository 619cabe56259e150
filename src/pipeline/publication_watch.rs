//! Looks at the publication every few seconds: a table that leaves it, or that is dropped and made
//! anew, has a gap that no position in the log shows.

use std::time::Duration;

use tokio::{sync::mpsc, task::JoinHandle, time::sleep};
use tracing::{debug, info};

use super::{continuity, continuity::Judged, refusal::Refusal, settings::Settings};
use crate::{checkpoint::Fingerprint, postgres::sql::Sql};

/// How often the publication is compared.
const INTERVAL: Duration = Duration::from_secs(10);

/// What the watch found: the publication as it is, or why publishing must stop.
pub(super) type Change = Result<Fingerprint, Refusal>;

/// Watches the publication until it is dropped.
#[derive(Debug)]
pub(super) struct PublicationWatch {
    changes: mpsc::Receiver<Change>,
    task: JoinHandle<()>,
}

impl PublicationWatch {
    /// Starts from the fingerprint that was just compared.
    pub(super) fn start(settings: Settings, sql: Sql, fingerprint: Fingerprint) -> Self {
        let (sender, changes) = mpsc::channel(1);
        let task = tokio::spawn(watch(settings, sql, fingerprint, sender));
        Self { changes, task }
    }

    /// A watch over a publication that never changes.
    #[cfg(test)]
    pub(super) fn unchanging() -> Self {
        let (sender, changes) = mpsc::channel(1);
        let task = tokio::spawn(async move { sender.closed().await });
        Self { changes, task }
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

async fn watch(
    settings: Settings,
    mut sql: Sql,
    mut known: Fingerprint,
    changes: mpsc::Sender<Change>,
) {
    loop {
        sleep(INTERVAL).await;
        let change = match look(&settings, &mut sql, &known).await {
            Ok(Ok(fingerprint)) if fingerprint == known => continue,
            Ok(Ok(fingerprint)) => {
                info!(publication = fingerprint.name, "the publication changed");
                continuity::warn_if_altered(&known, &fingerprint);
                known = fingerprint.clone();
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

async fn look(settings: &Settings, sql: &mut Sql, known: &Fingerprint) -> Judged<Fingerprint> {
    if sql.is_closed() {
        *sql = Sql::connect(&settings.postgres).await?;
    }
    let now = match continuity::describe(settings, sql, &settings.tables).await? {
        Ok(now) => now,
        Err(refusal) => return Ok(Err(refusal)),
    };
    Ok(continuity::judge(settings, sql, known, &now).await?.map(|()| now))
}
