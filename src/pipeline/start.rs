//! The start order. Each step stands for a run that loses or doubles events where it is left out or
//! comes in another place:
//!
//! 0. A provisional look at the checkpoint: who would be refused fences nobody.
//! 1. Take the slot: the lock on the source. Who does not hold it writes nothing to Kafka, the
//!    intent of a first start excepted.
//! 2. Fence the predecessor, which ends its transaction.
//! 3. Read the checkpoint up to the high watermark: only after step 2 can it not move any more.
//! 4. Refuse what does not fit together.
//! 5. Publish.
//!
//! From step 1 on status updates say flush 0/0, which the server takes for no news; in step 5 too,
//! until the stream has passed the checkpoint, because what it repeats is the rest of step 4.

use std::{collections::BTreeSet, future::Future, time::Duration};

use tokio::{
    task::spawn_blocking,
    time::{interval, sleep},
};
use tracing::{debug, info, warn};

use super::{
    assembler::{Assembler, Beginning, Bounds, PART_BYTES_AT_LEAST_ONCE},
    backfill::{
        Backfills, Reading, RefusedRows,
        due::{self, Snapshots},
    },
    beside::Beside,
    continuity, descendants, first_start,
    judgement::{
        judge_checkpoint, judge_look, judge_rows, judge_slot, judge_source, judge_take_over,
    },
    keyless::Keyless,
    lookup::Lookup,
    on_error::OnError,
    outage::Outage,
    publication_watch::PublicationWatch,
    published_tables::PublishedTables,
    refusal::Refusal,
    requests::{Phase, Requests},
    resume::Resume,
    retention::{self, RetentionTask},
    settings::{LargeTransactions, Settings},
    shutdown::Shutdown,
    stream_loop::{Limits, StreamLoop},
    tables,
};
use crate::{
    checkpoint::{
        CheckpointKey, CheckpointRecord, Fingerprint, SnapshotRecord, Tracker,
        store::{Look, Store},
    },
    event::{DatabaseIdentity, Mapping},
    failure::{Code, Failure},
    lsn::{CommitLsn, Lsn},
    postgres::{
        catalog,
        replication::{Connection, ReplicationStream, SystemIdentity, TimelineHistory},
        slot::{self, Slot},
        sql::Sql,
    },
    sink::{
        TopicUse,
        kafka::{self, Cancel, Delivery, Kafka, KafkaSink},
    },
};

/// How often the server hears from us while the start is under way: well below any sensible
/// `wal_sender_timeout`.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// A failure of any part.
pub(super) type Failed = Box<dyn Failure>;

/// What the start is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// `run`: a source that is known elsewhere is refused.
    Run,
    /// `init`: the user asked for a new pipeline; what is known elsewhere is only said.
    Init,
}

/// Everything that publishing needs, with the slot in hand and the predecessor fenced.
pub(super) struct TakenOver {
    pub(super) stream: ReplicationStream,
    pub(super) kafka: Kafka,
    pub(super) sql: Sql,
    pub(super) checkpoint: CheckpointRecord,
    /// The checkpoint as the topic has it.
    pub(super) on_file: CheckpointRecord,
    pub(super) resume: Resume,
    pub(super) snapshots: Snapshots,
    pub(super) mapping: Mapping,
}

/// What the server is.
pub(super) struct Server {
    pub(super) identity: SystemIdentity,
    pub(super) history: Option<TimelineHistory>,
}

/// What one attempt stands on.
pub(super) struct Ground<'a> {
    pub(super) settings: &'a Settings,
    pub(super) server: Server,
    pub(super) sql: Sql,
    pub(super) key: CheckpointKey,
    calls: CalledOff,
}

/// Calls off, when dropped, what still runs on other threads for an attempt: a start that was given
/// up must fence nobody any more.
struct CalledOff(Cancel);

impl Drop for CalledOff {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl<'a> Ground<'a> {
    /// Connects to the server and asks what it is.
    pub(super) async fn enter(
        settings: &'a Settings,
        shutdown: &Shutdown,
    ) -> Result<(Self, Connection), Failed> {
        let mut replication = connect_replication(settings).await?;
        let server = identify(&mut replication).await?;
        let sql = Sql::connect(&settings.postgres).await?;
        Ok((Self::on(settings, server, sql, shutdown), replication))
    }

    /// On a server that is known already.
    pub(super) fn on(
        settings: &'a Settings,
        server: Server,
        sql: Sql,
        shutdown: &Shutdown,
    ) -> Self {
        let key = settings.checkpoint_key(&server.identity.system_id);
        let calls = CalledOff(shutdown.cancel().child());
        Self { settings, server, sql, key, calls }
    }

    async fn connect_kafka(&self) -> Result<Kafka, Failed> {
        self.connect_kafka_by(self.settings.kafka_for(&self.server.identity.system_id)).await
    }

    /// Connects by settings that [`Settings`] made.
    pub(super) async fn connect_kafka_by(&self, by: kafka::Settings) -> Result<Kafka, Failed> {
        let cancel = self.calls.0.clone();
        blocking(move || Ok(Kafka::connect(by, cancel)?)).await
    }

    pub(super) async fn find_slot(&self) -> Result<Option<Slot>, Failed> {
        let slot = slot::describe(&self.sql, &self.settings.slot).await?;
        if let Some(slot) = &slot {
            judge_slot(&self.settings.slot, &self.settings.postgres.database, slot)?;
        }
        Ok(slot)
    }
}

/// Runs the start order and returns the loop that publishes, and what deletes old rows beside it.
/// `halt_before` is the transaction that must not be published; `refused_rows` are not read again.
pub(super) async fn start(
    settings: &Settings,
    requests: &Requests,
    shutdown: &Shutdown,
    halt_before: Option<CommitLsn>,
    refused_rows: &[RefusedRows],
) -> Result<(StreamLoop<KafkaSink>, Option<RetentionTask>), Failed> {
    let TakenOver {
        mut stream,
        kafka,
        sql,
        checkpoint,
        on_file,
        resume,
        mut snapshots,
        mut mapping,
    } = take_over(settings, shutdown, Purpose::Run).await?;
    let tables = tables::published(settings, &sql).await?;
    descendants::warn_of_absent_heirs(settings, &sql, &tables).await?;
    let record_bytes = kafka.record_bytes_max();
    let timeline = checkpoint.timeline;
    let keyless =
        Keyless { settings, sql: &sql, record_bytes_max: record_bytes, timeline, on_file };
    let sink = kafka.into_sink()?;
    let sink = keyless.publish(&mut stream, sink, &mut mapping, &mut snapshots).await?;
    info!(
        slot = %settings.slot,
        commit_end_lsn = %checkpoint.commit_end_lsn,
        in_progress = checkpoint.in_progress.is_some(),
        "publishing"
    );
    let watch = PublicationWatch::start(settings.clone(), sql, checkpoint.publication.clone());
    let retention = RetentionTask::start(settings, &checkpoint, stream.process_id());
    let tracker = Tracker::new(&checkpoint);
    let bounds = Bounds {
        transaction_bytes: match (settings.kafka.delivery, settings.kafka.large_transactions) {
            (Delivery::AtLeastOnce, _) => PART_BYTES_AT_LEAST_ONCE,
            (Delivery::ExactlyOnce, LargeTransactions::Split) => settings.kafka.transaction_bytes,
            (Delivery::ExactlyOnce, LargeTransactions::Atomic) => usize::MAX,
        },
        record_bytes,
    };
    let on_error = OnError::of(settings.dead_letters.clone());
    // Before a halt only what the stream has is published.
    let inbox = match halt_before {
        None => {
            let (postgres, publication) = (settings.postgres.clone(), settings.publication.clone());
            Some(requests.open(postgres, publication, snapshots.written.iter()))
        }
        Some(_) => {
            requests.enter(Phase::Halting);
            None
        }
    };
    let mut backfills = Backfills::of(snapshots.written);
    snapshots.due.into_iter().for_each(|record| backfills.add_due(record));
    for record in snapshots.gone {
        warn!(
            table = record.table,
            rows = record.rows,
            "the table is not published any more: the rest of its rows will not come"
        );
        backfills.add_gone(record);
    }
    refused_rows.iter().for_each(|refused| backfills.give_up_request(refused));
    let reading = halt_before.is_none().then(|| Reading::new(settings, checkpoint.timeline));
    let beginning = Beginning { checkpoint, resume, backfills };
    let assembler = Assembler::new(mapping, beginning, bounds, on_error);
    let limits = Limits { halt_before, outage_grace: settings.kafka.outage_grace };
    let lookup = Lookup::new(settings.postgres.clone(), Some(settings.publication.clone()));
    let beside = Beside { watch, lookup, reading, inbox };
    let stream_loop = StreamLoop::new(stream, assembler, tracker, sink, beside, limits);
    Ok((stream_loop, retention))
}

/// Steps 0 to 4, and the first checkpoint where there is none.
pub(super) async fn take_over(
    settings: &Settings,
    shutdown: &Shutdown,
    purpose: Purpose,
) -> Result<TakenOver, Failed> {
    let (ground, replication) = Ground::enter(settings, shutdown).await?;
    check_server(&ground).await?;
    let slot = ground.find_slot().await?;
    let must_be_sure = slot.is_none() || purpose == Purpose::Init;
    let (kafka, look) = look(&ground, must_be_sure).await?;
    judge_look(&ground, slot.as_ref(), &look, purpose).await?;
    let known = look.checkpoint.filter(|_| look.complete).map(|checkpoint| checkpoint.publication);
    if let Some(before) = &known {
        continuity::judge_before_change(settings, &ground.sql, before).await??;
    }
    tables::check(settings, &ground.sql).await??;
    retention::check(settings, &ground.sql).await?;
    if slot.is_none() || purpose == Purpose::Init {
        check_tables(&ground).await?;
        first_start::ensure_publication(settings, &ground.sql).await?;
    }
    let fingerprint = continuity::describe(settings, &ground.sql).await??;
    // What a publication that was just made delivers is known only by now.
    let mapping = check_tables(&ground).await?;
    if slot.is_none() {
        first_start::prepare(&ground, &fingerprint).await?;
    }

    let mut stream = take_slot(settings, replication).await?;
    let fencing = fence_and_read(kafka, ground.key.clone(), settings.source.clone());
    let (kafka, look) = await_kafka(&mut stream, settings.kafka.outage_grace, fencing).await?;
    judge_source(settings, &look)?;
    judge_take_over(settings, &look)?;
    let slot = slot::describe(&ground.sql, &settings.slot).await?;
    let confirmed_flush = slot.and_then(|slot| slot.confirmed_flush);
    let (kafka, checkpoint, on_file, resume, snapshots) = match (look.checkpoint, confirmed_flush) {
        (Some(checkpoint), _) => {
            judge_checkpoint(&ground, confirmed_flush, &checkpoint).await?;
            let records = look.snapshots.values();
            let there = records.filter(|record| due::is_there(&fingerprint, record));
            judge_rows(&ground, there).await?;
            let (on_file, sql) = (checkpoint.clone(), &ground.sql);
            let before = &on_file.publication;
            continuity::judge(settings, sql, before, &fingerprint).await??;
            continuity::warn_if_altered(before, &fingerprint);
            let snapshots = Snapshots::go_on(&settings.event, look.snapshots, before, &fingerprint);
            let fingerprint = continuity::date(sql, before, fingerprint).await?;
            let (mut checkpoint, resume) = go_on(&ground, checkpoint, confirmed_flush, fingerprint);
            if checkpoint.begun_at.is_none() {
                checkpoint.begun_at = Some(catalog::now(&ground.sql).await?);
            }
            (kafka, checkpoint, on_file, resume, snapshots)
        }
        (None, Some(position)) if look.intent.is_some() => {
            let identity = &ground.server.identity;
            let now = catalog::now(&ground.sql).await?;
            let written = due::of_all_tables(&settings.event, &fingerprint);
            let mut first = first_start::checkpoint(settings, identity, position, fingerprint, now);
            first.snapshots = written.iter().map(|record| record.table.clone()).collect();
            let writing = write_checkpoint(kafka, &ground.key, &first, &written);
            let kafka = await_kafka(&mut stream, settings.kafka.outage_grace, writing).await?;
            let resume = Resume::new(&first, confirmed_flush, &first.publication);
            (
                kafka,
                first.clone(),
                first,
                resume,
                Snapshots { written, due: Vec::new(), gone: Vec::new() },
            )
        }
        (None, _) => {
            return Err(Refusal::CheckpointMissing { slot: settings.slot.clone() }.into());
        }
    };
    let Ground { sql, .. } = ground;
    Ok(TakenOver { stream, kafka, sql, checkpoint, on_file, resume, snapshots, mapping })
}

/// From a checkpoint that was not refused.
fn go_on(
    ground: &Ground<'_>,
    mut checkpoint: CheckpointRecord,
    confirmed_flush: Option<Lsn>,
    fingerprint: Fingerprint,
) -> (CheckpointRecord, Resume) {
    let resume = Resume::new(&checkpoint, confirmed_flush, &fingerprint);
    checkpoint.publication = fingerprint;
    checkpoint.timeline = ground.server.identity.timeline;
    (checkpoint, resume)
}

pub(super) async fn connect_replication(settings: &Settings) -> Result<Connection, Failed> {
    let connected = Connection::connect(&settings.postgres).await;
    connected.map_err(|error| {
        if error.code() == Some(Code::NoReplicationRole) {
            // The server's words do not say whose right is missing.
            Refusal::NoReplicationRole { role: settings.postgres.user.clone() }.into()
        } else {
            error.into()
        }
    })
}

/// The checkpoint as it can be read without taking anything: a daemon is at work with it.
pub(super) async fn find_checkpoint(
    settings: &Settings,
    shutdown: &Shutdown,
) -> Result<Option<CheckpointRecord>, Failed> {
    let (ground, _) = Ground::enter(settings, shutdown).await?;
    let (_, look) = look(&ground, false).await?;
    judge_source(settings, &look)?;
    Ok(look.checkpoint)
}

/// The checkpoint as it can be seen from outside, with nothing made and nobody fenced.
pub(super) async fn peek(ground: &Ground<'_>) -> Result<Look, Failed> {
    let kafka = ground.connect_kafka().await?;
    let (key, source) = (ground.key.clone(), ground.settings.source.clone());
    blocking(move || Ok(Store::open(&kafka)?.look(&key, &source)?)).await
}

/// Step 0 on the server's side: what needs no Kafka to be refused.
pub(super) async fn check_server(ground: &Ground<'_>) -> Result<(), Failed> {
    let server = catalog::server(&ground.sql).await?;
    if server.is_in_recovery {
        let host = ground.settings.postgres.hosts();
        return Err(Refusal::InRecovery { host }.into());
    }
    if server.wal_level != "logical" {
        return Err(Refusal::WalLevel { wal_level: server.wal_level }.into());
    }
    Ok(())
}

pub(super) async fn identify(replication: &mut Connection) -> Result<Server, Failed> {
    let identity = replication.identify_system().await?;
    let history = match identity.timeline {
        // The first timeline has no history file.
        1 => None,
        timeline => Some(replication.timeline_history(timeline).await?),
    };
    Ok(Server { identity, history })
}

/// Step 0 on Kafka's side. A checkpoint that hides behind another pipeline's open transaction is
/// waited for where something is to be made: it decides whether this is a first start, and what
/// `init` must not paper over.
pub(super) async fn look(ground: &Ground<'_>, must_be_sure: bool) -> Result<(Kafka, Look), Failed> {
    let kafka = ground.connect_kafka().await?;
    let (key, source) = (ground.key.clone(), ground.settings.source.clone());
    let topics = ground.settings.known_topics();
    // They are made when there is something for them; where they may not be made they must be there.
    let dead_letter_topics = match ground.settings.kafka.create_topics {
        true => BTreeSet::new(),
        false => ground.settings.known_dead_letter_topics(),
    };
    blocking(move || {
        let store = Store::open(&kafka)?;
        store.ensure_topic()?;
        kafka.ensure_topics(&topics, TopicUse::Events)?;
        kafka.ensure_topics(&dead_letter_topics, TopicUse::DeadLetters)?;
        let look = store.look(&key, &source)?;
        let is_short = must_be_sure && !look.complete;
        let look = if is_short { store.read(&key, &source)? } else { look };
        Ok((kafka, look))
    })
    .await
}

/// Whether what the publication delivers of the tables is what the mapping needs, before anything is
/// made for them and before a row finds out.
pub(super) async fn check_tables(ground: &Ground<'_>) -> Result<Mapping, Failed> {
    let settings = ground.settings;
    let mapping = mapping(settings, &ground.server.identity.system_id);
    let tables = tables::published(settings, &ground.sql).await?;
    let published = PublishedTables::look_up(settings, &ground.sql, &tables).await?;
    for name in &tables {
        published.check(settings, &mapping, name)?;
    }
    descendants::judge(settings, &ground.sql, &tables).await??;
    Ok(mapping)
}

/// From rows of this server to events.
pub(super) fn mapping(settings: &Settings, system_id: &str) -> Mapping {
    let (system_id, database) = (system_id.to_owned(), settings.postgres.database.clone());
    Mapping::new(settings.event.clone(), DatabaseIdentity { system_id, database })
}

/// Step 1.
pub(super) async fn take_slot(
    settings: &Settings,
    replication: Connection,
) -> Result<ReplicationStream, Failed> {
    let started = replication.start_replication(&settings.slot, &settings.publication).await;
    let stream = started.map_err(|error| match error.slot_holder() {
        Some(pid) => Refusal::SlotBusy { slot: settings.slot.clone(), pid }.into(),
        None => Failed::from(error),
    })?;
    debug!(slot = %settings.slot, "took the slot");
    Ok(stream)
}

/// Steps 2 and 3.
pub(super) async fn fence_and_read(
    mut kafka: Kafka,
    key: CheckpointKey,
    source: String,
) -> Result<(Kafka, Look), Failed> {
    blocking(move || {
        kafka.fence()?;
        let look = Store::open(&kafka)?.read(&key, &source)?;
        Ok((kafka, look))
    })
    .await
}

/// A checkpoint that is written by itself, in a Kafka transaction of its own, with the records of
/// tables whose rows are due.
pub(super) async fn write_checkpoint(
    mut kafka: Kafka,
    key: &CheckpointKey,
    checkpoint: &CheckpointRecord,
    due: &[SnapshotRecord],
) -> Result<Kafka, Failed> {
    let value = serde_json::to_vec(checkpoint).expect("text keys and numbers always encode");
    let mut records = vec![(key.to_string(), value)];
    records.extend(due.iter().map(|record| {
        let value = serde_json::to_vec(record).expect("texts and numbers always encode");
        (key.snapshot(&record.table), value)
    }));
    blocking(move || {
        let records: Vec<_> =
            records.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
        kafka.write(&records)?;
        Ok(kafka)
    })
    .await
}

/// Waits for what Kafka does while the server hears from us, for as long as an outage may hold the
/// slot. Nothing is read meanwhile, and flush 0/0 moves nothing.
pub(super) async fn await_kafka<T>(
    stream: &mut ReplicationStream,
    outage_grace: Duration,
    work: impl Future<Output = Result<T, Failed>>,
) -> Result<T, Failed> {
    tokio::select! {
        biased;
        done = stay_alive(stream, work) => done,
        () = sleep(outage_grace) => Err(Outage { grace: outage_grace }.into()),
    }
}

/// Waits for `work` while the server hears from us. Nothing is read meanwhile, and flush 0/0 moves
/// nothing.
pub(super) async fn stay_alive<T>(
    stream: &mut ReplicationStream,
    work: impl Future<Output = Result<T, Failed>>,
) -> Result<T, Failed> {
    let mut ticks = interval(STATUS_INTERVAL);
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = ticks.tick() => stream.send_status(None, None, false).await?,
        }
    }
}

/// Runs what blocks on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failed> + Send + 'static,
) -> Result<T, Failed> {
    match spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
