//! The wait of a second instance: the slot is the lock on the source, so whoever does not get it
//! stands by until it is free, and then goes through the whole start order.
//!
//! The slot's holder is looked at by SQL, once a second: an attempt to take the slot would look at
//! Kafka each time too. An instance that is killed frees the slot at once; one that is cut off, when
//! the server gives its connection up.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::info;

use super::{refusal::Refusal, settings::Settings, start::Failed};
use crate::{
    failure::Failure,
    postgres::{
        slot::{self, Holder},
        sql::Sql,
    },
};

/// How often the slot is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is said that nothing changed.
const WORD_INTERVAL: Duration = Duration::from_secs(60);

/// True where another process holds the slot, so that there is something to wait for.
pub(super) fn is_due(failure: &dyn Failure) -> bool {
    let failure: &dyn std::error::Error = failure;
    matches!(failure.downcast_ref(), Some(Refusal::SlotBusy { .. }))
}

/// Waits until nobody holds the slot, also where it is gone: the next start says so.
///
/// # Cancel safety
/// Nothing is held but a connection of its own.
///
/// # Errors
/// Where the server cannot be asked.
pub(super) async fn wait(settings: &Settings) -> Result<(), Failed> {
    let sql = Sql::connect(&settings.postgres).await?;
    let mut said: Option<(Holder, Instant)> = None;
    while let Some(holder) = slot::holder(&sql, &settings.slot).await? {
        let is_news = said
            .as_ref()
            .is_none_or(|(before, at)| before.pid != holder.pid || at.elapsed() >= WORD_INTERVAL);
        if is_news {
            info!(
                slot = %settings.slot,
                pid = holder.pid,
                application = holder.application,
                address = holder.address,
                since = holder.since,
                "standing by: the slot is in use by process {}; this instance takes over when it \
                 is free",
                holder.pid
            );
            said = Some((holder, Instant::now()));
        }
        sleep(LOOK_INTERVAL).await;
    }
    info!(slot = %settings.slot, "the slot is free; taking over");
    Ok(())
}
