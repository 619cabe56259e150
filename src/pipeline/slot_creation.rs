//! The wait for a slot. The server creates one only when every transaction that is open, in any
//! database of the cluster, has ended; where that takes time it is said whom it waits for.

use std::time::Duration;

use tokio::time::{Instant, interval_at};
use tracing::info;

use super::start::Failed;
use crate::postgres::{Blocker, PostgresError, SlotName, blocker, sql::Sql};

/// After this long a slot is not just slow: so soon that who waits is told within a second.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often it is said again.
const WORD_INTERVAL: Duration = Duration::from_secs(5);

/// Waits for `creating`, and says meanwhile for whom.
///
/// # Errors
/// That of `creating`; and where the server cannot be asked whom it waits for.
pub(super) async fn await_slot<T>(
    slot: &SlotName,
    sql: &Sql,
    creating: impl Future<Output = Result<T, PostgresError>>,
) -> Result<T, Failed> {
    tokio::pin!(creating);
    let mut ticks = interval_at(Instant::now() + PATIENCE, WORD_INTERVAL);
    loop {
        tokio::select! {
            biased;
            created = &mut creating => return Ok(created?),
            _ = ticks.tick() => {
                for blocker in blocker::of_slot_creation(sql).await? {
                    let pid = match &blocker {
                        Blocker::Open { pid, .. } => Some(*pid),
                        Blocker::Prepared { .. } => None,
                    };
                    info!(%slot, pid, "creating the slot waits for the end of {blocker}");
                }
            }
        }
    }
}
