//! Servers that were the primary before a failover and run on: of several hosts they are passed over,
//! by whoever reads the checkpoint, because it shows that another server has gone on since.

use tracing::info;

use super::{refusal::Refusal, settings::Settings, start::Failed};
use crate::failure::Failure;

/// Whether a primary of before a failover answered, and the present one may be elsewhere.
pub(super) fn has_next_host(settings: &Settings, failure: &dyn Failure) -> bool {
    let error: &dyn std::error::Error = failure;
    let refusal = error.downcast_ref::<Refusal>();
    !settings.postgres.other_hosts.is_empty() && refusal.is_some_and(Refusal::is_of_former_primary)
}

/// Asks with each host as the first one, until none of before a failover answers.
///
/// # Errors
/// The last attempt's, where each host leads to a former primary.
pub(super) async fn pass_over<T>(
    settings: &Settings,
    mut attempt: impl AsyncFnMut(&Settings) -> Result<T, Failed>,
) -> Result<T, Failed> {
    let mut settings = settings.clone();
    for _ in 0..settings.postgres.other_hosts.len() {
        match attempt(&settings).await {
            Err(failure) if has_next_host(&settings, &*failure) => {
                info!(error = %failure, "a former primary; asking the next host");
                settings.postgres.rotate_hosts();
            }
            outcome => return outcome,
        }
    }
    attempt(&settings).await
}
