//! The slot in hand for somebody who writes a checkpoint without publishing: steps 0 to 3 of the
//! start order, and what a person must agree to before anything is written.
//!
//! From the moment the slot is taken nobody else publishes, and from the fence on nobody else's
//! record comes behind the one that was read. So what a person is asked about is what will be done,
//! however long the answer takes; the server hears from us meanwhile.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    refusal::Refusal,
    settings::Settings,
    shutdown::Shutdown,
    standby,
    start::{
        Failed, Ground, await_kafka, check_server, connect_replication, fence_and_read, look,
        stay_alive, take_slot, write_checkpoint,
    },
    writing_by_hand::WritingByHand,
};
use crate::{
    checkpoint::{CheckpointRecord, SnapshotRecord, store::Look},
    lsn::Lsn,
    postgres::{
        replication::{Connection, ReplicationStream},
        slot,
    },
    sink::kafka::Kafka,
};

/// How long a slot that is in use is asked for again: a killed daemon's process on the server is
/// gone by then.
const LINGER_MAX: Duration = Duration::from_secs(3);

/// Between two of these questions.
const LINGER_PAUSE: Duration = Duration::from_millis(200);

/// The slot, and what is known of its pipeline.
pub(super) struct HeldSlot<'a> {
    pub(super) ground: Ground<'a>,
    pub(super) stream: ReplicationStream,
    pub(super) kafka: Kafka,
    /// The checkpoint topic up to its high watermark, as of after the fence.
    pub(super) look: Look,
    pub(super) confirmed_flush: Lsn,
}

impl<'a> HeldSlot<'a> {
    /// Takes the slot, fences the predecessor and reads the checkpoint. `judge` is asked before
    /// that, with what can be seen from outside: who would be refused fences nobody.
    ///
    /// # Errors
    /// Where `judge` refuses, the slot is no slot of ours or somebody holds it, or a server does
    /// not answer.
    pub(super) async fn take(
        settings: &'a Settings,
        shutdown: &Shutdown,
        judge: impl Fn(&Look) -> Result<(), Refusal>,
    ) -> Result<Self, Failed> {
        let (ground, replication) = Ground::enter(settings, shutdown).await?;
        check_server(&ground).await?;
        let slot = ground.find_slot().await?;
        let (kafka, before) = look(&ground, slot.is_none()).await?;
        if before.complete {
            judge(&before)?;
        }
        if slot.is_none() {
            return Err(missing(settings, &before).into());
        }
        let mut stream = take_free_slot(&ground, replication).await?;
        let fencing = fence_and_read(kafka, ground.key.clone(), settings.source.clone());
        let (kafka, look) = await_kafka(&mut stream, settings.kafka.outage_grace, fencing).await?;
        judge(&look)?;
        let slot = ground.find_slot().await?;
        let Some(confirmed_flush) = slot.and_then(|slot| slot.confirmed_flush) else {
            return Err(missing(settings, &look).into());
        };
        Ok(Self { ground, stream, kafka, look, confirmed_flush })
    }

    /// Waits for `work` with the slot in hand.
    pub(super) async fn keep<T>(
        &mut self,
        work: impl Future<Output = Result<T, Failed>>,
    ) -> Result<T, Failed> {
        stay_alive(&mut self.stream, work).await
    }

    /// Writes the checkpoint and lets go of the slot.
    pub(super) async fn write(
        self,
        record: &CheckpointRecord,
        writing_by_hand: &WritingByHand,
    ) -> Result<Ground<'a>, Failed> {
        self.write_with_rows(record, &[], writing_by_hand).await
    }

    /// The same with records of tables whose rows are due.
    pub(super) async fn write_with_rows(
        self,
        record: &CheckpointRecord,
        due: &[SnapshotRecord],
        writing_by_hand: &WritingByHand,
    ) -> Result<Ground<'a>, Failed> {
        let Self { ground, mut stream, kafka, .. } = self;
        writing_by_hand.begin();
        let writing = write_checkpoint(kafka, &ground.key, record, due);
        await_kafka(&mut stream, ground.settings.kafka.outage_grace, writing).await?;
        writing_by_hand.end(record.commit_end_lsn);
        stream.finish(None, None).await;
        Ok(ground)
    }

    /// Lets go of the slot, with everything as it was.
    pub(super) async fn release(self) -> Ground<'a> {
        self.stream.finish(None, None).await;
        self.ground
    }
}

/// The refusal where there is no slot.
fn missing(settings: &Settings, look: &Look) -> Refusal {
    let slot = settings.slot.clone();
    match &look.checkpoint {
        Some(checkpoint) => Refusal::SlotMissing { slot, checkpoint: checkpoint.commit_end_lsn },
        None => Refusal::NoSlot { slot },
    }
}

/// Step 1, with patience for what lingers only.
async fn take_free_slot(
    ground: &Ground<'_>,
    mut replication: Connection,
) -> Result<ReplicationStream, Failed> {
    let settings = ground.settings;
    let until = Instant::now() + LINGER_MAX;
    loop {
        match take_slot(settings, replication).await {
            Err(failure) if standby::is_due(&*failure) && Instant::now() < until => {
                sleep(LINGER_PAUSE).await;
                replication = connect_replication(settings).await?;
            }
            Err(failure) if standby::is_due(&*failure) => {
                let slot = settings.slot.clone();
                return match slot::holder(&ground.sql, &slot).await? {
                    Some(holder) => {
                        Err(Refusal::SlotHeld { slot, holder: Box::new(holder) }.into())
                    }
                    None => Err(failure),
                };
            }
            taken => return taken,
        }
    }
}
