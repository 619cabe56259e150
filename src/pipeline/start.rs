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
//! From step 1 to step 5 status updates say flush 0/0, which the server takes for no news.

use std::{collections::BTreeMap, future::Future, time::Duration};

use tokio::{task::spawn_blocking, time::interval};
use tracing::{debug, info};

use super::{
    assembler::{Assembler, Bounds},
    first_start,
    publication_watch::PublicationWatch,
    refusal::{self, Refusal},
    resume::Resume,
    settings::Settings,
    shutdown::Shutdown,
    stream_loop::StreamLoop,
};
use crate::{
    checkpoint::{
        CheckpointKey, CheckpointRecord, Fingerprint, TableFingerprint, Tracker,
        store::{Look, Store},
    },
    event::{Mapping, outbox::Withheld},
    failure::{Code, Failure},
    lsn::{CommitLsn, Lsn},
    postgres::{
        PostgresError, catalog, publication,
        replication::{Connection, ReplicationStream, StartAt, SystemIdentity, TimelineHistory},
        slot::{self, Slot},
        sql::Sql,
    },
    sink::kafka::{Kafka, KafkaSink},
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
    pub(super) resume: Resume,
    pub(super) mapping: Mapping,
}

/// What the server is.
pub(super) struct Server {
    pub(super) identity: SystemIdentity,
    pub(super) history: Option<TimelineHistory>,
}

/// Runs the start order and returns the loop that publishes. `halt_before` is the transaction that
/// must not be published.
pub(super) async fn start(
    settings: &Settings,
    shutdown: &Shutdown,
    halt_before: Option<CommitLsn>,
) -> Result<StreamLoop<KafkaSink>, Failed> {
    let TakenOver { stream, kafka, sql, checkpoint, resume, mapping } =
        take_over(settings, shutdown, Purpose::Run).await?;
    info!(
        slot = %settings.slot,
        commit_end_lsn = %checkpoint.commit_end_lsn,
        in_progress = checkpoint.in_progress.is_some(),
        "publishing"
    );
    let watch = PublicationWatch::start(settings.clone(), sql, checkpoint.publication.clone());
    let tracker = Tracker::new(checkpoint.commit_end_lsn);
    let bounds = Bounds {
        transaction_bytes: settings.kafka.transaction_bytes,
        record_bytes: kafka.record_bytes_max(),
    };
    let assembler = Assembler::new(mapping, resume, checkpoint, bounds);
    Ok(StreamLoop::new(stream, assembler, tracker, kafka.into_sink()?, watch, halt_before))
}

/// Steps 0 to 4, and the first checkpoint where there is none.
pub(super) async fn take_over(
    settings: &Settings,
    shutdown: &Shutdown,
    purpose: Purpose,
) -> Result<TakenOver, Failed> {
    let mut replication = connect_replication(settings).await?;
    let server = identify(&mut replication).await?;
    let sql = Sql::connect(&settings.postgres).await?;
    check_server(settings, &sql).await?;
    let slot = slot::describe(&sql, &settings.slot).await?;
    if let Some(slot) = &slot {
        check_slot(settings, slot)?;
    }
    let key = checkpoint_key(settings, &server.identity);

    let kafka = connect_kafka(settings, &server.identity, shutdown).await?;
    let (kafka, look) = look(kafka, &key, settings, slot.is_some()).await?;
    judge_look(settings, &server, slot.as_ref(), &look, purpose)?;
    let kafka = match slot {
        Some(_) => kafka,
        None => {
            // The intent needs a producer that is initialised, and step 2 one that is not.
            first_start::prepare(settings, kafka, &key, &sql).await?;
            connect_kafka(settings, &server.identity, shutdown).await?
        }
    };
    let fingerprint = describe_publication(settings, &sql).await??;
    let mapping = check_tables(settings, &sql).await?;

    let mut stream = take_slot(settings, replication).await?;
    let fencing = fence_and_read(kafka, key.clone(), settings.source.clone());
    let (mut kafka, look) = stay_alive(&mut stream, fencing).await?;
    judge_source(settings, &look)?;
    let slot = slot::describe(&sql, &settings.slot).await?;
    let confirmed_flush = slot.and_then(|slot| slot.confirmed_flush);
    let (checkpoint, resume) = match look.checkpoint {
        Some(mut checkpoint) => {
            judge_checkpoint(settings, &server, confirmed_flush, &checkpoint)?;
            refusal::judge_publication(&checkpoint.publication, &fingerprint)?;
            // Another publication may lack what the last transaction was sent for.
            let is_same = checkpoint.publication.oid == fingerprint.oid;
            let resume = Resume::new(&checkpoint, confirmed_flush.filter(|_| is_same));
            checkpoint.publication = fingerprint;
            checkpoint.timeline = server.identity.timeline;
            (checkpoint, resume)
        }
        None => {
            let Some(position) = confirmed_flush.filter(|_| look.intent.is_some()) else {
                return Err(Refusal::CheckpointMissing { slot: settings.slot.clone() }.into());
            };
            let first = first_start::checkpoint(settings, &server.identity, position, fingerprint);
            kafka = write_checkpoint(kafka, &key, &first, &mut stream).await?;
            let resume = Resume::new(&first, confirmed_flush);
            (first, resume)
        }
    };
    Ok(TakenOver { stream, kafka, sql, checkpoint, resume, mapping })
}

async fn connect_replication(settings: &Settings) -> Result<Connection, Failed> {
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
    let server = identify(&mut connect_replication(settings).await?).await?;
    let key = checkpoint_key(settings, &server.identity);
    let kafka = connect_kafka(settings, &server.identity, shutdown).await?;
    let (_, look) = look(kafka, &key, settings, true).await?;
    judge_source(settings, &look)?;
    Ok(look.checkpoint)
}

/// Step 0 on the server's side: what needs no Kafka to be refused.
async fn check_server(settings: &Settings, sql: &Sql) -> Result<(), Failed> {
    let server = catalog::server(sql).await?;
    if server.is_in_recovery {
        return Err(Refusal::InRecovery { host: settings.postgres.host.to_string() }.into());
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

fn check_slot(settings: &Settings, slot: &Slot) -> Result<(), Refusal> {
    let name = settings.slot.clone();
    let wrong = |what: String| Err(Refusal::SlotWrongPlugin { slot: settings.slot.clone(), what });
    match (slot.plugin.as_deref(), slot.database.as_deref()) {
        (None, _) => wrong("is a physical slot".to_owned()),
        (Some("pgoutput"), Some(database)) if database == settings.postgres.database => {
            match slot.invalidation() {
                Some(reason) => Err(Refusal::SlotInvalidated { slot: name, reason }),
                None => Ok(()),
            }
        }
        (Some("pgoutput"), database) => {
            wrong(format!("is of database \"{}\"", database.unwrap_or_default()))
        }
        (Some(plugin), _) => wrong(format!("decodes with \"{plugin}\", not with pgoutput")),
    }
}

fn checkpoint_key(settings: &Settings, identity: &SystemIdentity) -> CheckpointKey {
    CheckpointKey {
        system_id: identity.system_id.clone(),
        database: settings.postgres.database.clone(),
        slot: settings.slot.to_string(),
    }
}

/// Step 0 on Kafka's side. Where there is no slot yet, a checkpoint that hides behind another
/// pipeline's open transaction decides whether this is a first start, so it is waited for.
async fn look(
    kafka: Kafka,
    key: &CheckpointKey,
    settings: &Settings,
    has_slot: bool,
) -> Result<(Kafka, Look), Failed> {
    let (key, source) = (key.clone(), settings.source.clone());
    blocking(move || {
        let store = Store::open(&kafka)?;
        store.ensure_topic()?;
        let look = store.look(&key, &source)?;
        let must_be_sure = !has_slot && !look.complete;
        let look = if must_be_sure { store.read(&key, &source)? } else { look };
        Ok((kafka, look))
    })
    .await
}

/// Step 4 as far as step 0 can judge.
fn judge_look(
    settings: &Settings,
    server: &Server,
    slot: Option<&Slot>,
    look: &Look,
    purpose: Purpose,
) -> Result<(), Failed> {
    let key = checkpoint_key(settings, &server.identity);
    judge_source(settings, look)?;
    match (slot, &look.checkpoint) {
        (None, Some(checkpoint)) => {
            let slot = settings.slot.clone();
            let checkpoint = checkpoint.commit_end_lsn;
            Err(Refusal::SlotMissing { slot, checkpoint }.into())
        }
        (None, None) if look.intent.is_none() => {
            match refusal::judge_identity(&settings.source, &key, &look.others_of_source) {
                Err(refusal) if purpose == Purpose::Init => {
                    info!("{refusal}; going on with a new pipeline, as asked");
                    Ok(())
                }
                judged => Ok(judged?),
            }
        }
        // Where something hides above the last stable offset, only step 3 can judge the position.
        (Some(_), _) if !look.complete => Ok(()),
        (Some(slot), Some(checkpoint)) => {
            judge_checkpoint(settings, server, slot.confirmed_flush, checkpoint)
        }
        (Some(_), None) if look.intent.is_none() => {
            Err(Refusal::CheckpointMissing { slot: settings.slot.clone() }.into())
        }
        (None | Some(_), None) => Ok(()),
    }
}

fn judge_source(settings: &Settings, look: &Look) -> Result<(), Refusal> {
    let Some(theirs) = look.foreign_source(&settings.source) else { return Ok(()) };
    Err(Refusal::ForeignSlot {
        slot: settings.slot.clone(),
        theirs: theirs.to_owned(),
        ours: settings.source.clone(),
    })
}

fn judge_checkpoint(
    settings: &Settings,
    server: &Server,
    confirmed_flush: Option<Lsn>,
    checkpoint: &CheckpointRecord,
) -> Result<(), Failed> {
    let Some(confirmed_flush) = confirmed_flush else {
        let checkpoint = checkpoint.commit_end_lsn;
        return Err(Refusal::SlotMissing { slot: settings.slot.clone(), checkpoint }.into());
    };
    let history = server.history.as_ref();
    Ok(refusal::judge_position(
        checkpoint,
        &settings.slot,
        confirmed_flush,
        &server.identity,
        history,
    )?)
}

/// The publication as it is, judged by what is configured: the outer error is the connection's.
pub(super) async fn describe_publication(
    settings: &Settings,
    sql: &Sql,
) -> Result<Result<Fingerprint, Refusal>, PostgresError> {
    let name = &settings.publication;
    let Some(found) = publication::describe(sql, name, &settings.tables).await? else {
        let create_sql = publication::create_sql(name, &settings.tables);
        return Ok(Err(Refusal::PublicationMissing { publication: name.clone(), create_sql }));
    };
    let mut tables = BTreeMap::new();
    for table in &settings.tables {
        let Some(member) = found.tables.get(table) else {
            return Ok(Err(Refusal::PublicationGap {
                publication: name.to_string(),
                what: format!("table {table} is not in it"),
                mend: format!(
                    "Run {}; or tailwater init, which does it.",
                    publication::add_table_sql(name, table)
                ),
            }));
        };
        let fingerprint = TableFingerprint { oid: member.oid, member: member.member };
        tables.insert(table.to_string(), fingerprint);
    }
    let (oid, options) = (found.oid, found.options);
    Ok(Ok(Fingerprint { name: name.to_string(), oid, options, tables }))
}

/// Whether what the publication delivers of the tables is what the mapping needs, before a row
/// finds out.
async fn check_tables(settings: &Settings, sql: &Sql) -> Result<Mapping, Failed> {
    let mapping = Mapping::new(settings.event.clone());
    for name in &settings.tables {
        let publication = &settings.publication;
        if let Some(table) = catalog::published_table(sql, publication, name).await? {
            let columns =
                table.columns.iter().map(|column| (column.name.as_str(), column.type_oid));
            let columns: Vec<_> = columns.collect();
            let withheld =
                table.withheld.iter().map(|column| (column.name.as_str(), column.mend.as_str()));
            let withheld: Vec<_> = withheld.collect();
            let withheld = Withheld { publication: publication.as_str(), columns: &withheld };
            mapping.check_table(&name.schema, &name.name, &columns, &withheld)?;
        }
    }
    Ok(mapping)
}

/// Step 1.
async fn take_slot(
    settings: &Settings,
    replication: Connection,
) -> Result<ReplicationStream, Failed> {
    let started =
        replication.start_replication(&settings.slot, &settings.publication, StartAt::Slot).await;
    let stream = started.map_err(|error| match error.slot_holder() {
        Some(pid) => Refusal::SlotBusy { slot: settings.slot.clone(), pid }.into(),
        None => Failed::from(error),
    })?;
    debug!(slot = %settings.slot, "took the slot");
    Ok(stream)
}

async fn connect_kafka(
    settings: &Settings,
    identity: &SystemIdentity,
    shutdown: &Shutdown,
) -> Result<Kafka, Failed> {
    let kafka_settings = settings.kafka_for(&identity.system_id);
    let cancel = shutdown.cancel();
    blocking(move || Ok(Kafka::connect(kafka_settings, cancel)?)).await
}

/// Steps 2 and 3.
async fn fence_and_read(
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

/// The first checkpoint, in a Kafka transaction of its own.
async fn write_checkpoint(
    mut kafka: Kafka,
    key: &CheckpointKey,
    checkpoint: &CheckpointRecord,
    stream: &mut ReplicationStream,
) -> Result<Kafka, Failed> {
    let key = key.to_string();
    let value = serde_json::to_vec(checkpoint).expect("text keys and numbers always encode");
    let writing = blocking(move || {
        kafka.write(&[(key.as_str(), value.as_slice())])?;
        Ok(kafka)
    });
    stay_alive(stream, writing).await
}

/// Waits for `work` while the server hears from us. Nothing is read meanwhile, and flush 0/0 moves
/// nothing.
async fn stay_alive<T>(
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
