//! The order of an examination: both sides are reached for at once, and each is looked at whatever
//! became of the other one.

use super::{
    brokers, checkpoint,
    finding::Finding,
    server, slot,
    tables::{self, Known},
};
use crate::{
    checkpoint::store::Look,
    failure::Code,
    pipeline::{
        former_primary::has_next_host,
        init::{patiently, reach},
        settings::Settings,
        shutdown::Shutdown,
        start::{Failed, Ground, blocking, mapping},
    },
    postgres::{diagnosis, sql::Sql},
    sink::kafka::{self, Kafka},
};

/// Looks at the server, at Kafka, and at what they hold of the pipeline. None where the end was asked
/// for before it was done.
///
/// What only the stream can tell (`history_diverged`, `transaction_changed`) is not found, because the
/// slot is not taken.
pub async fn check(settings: &Settings, shutdown: &Shutdown) -> Option<Vec<Finding>> {
    let mut settings = settings.clone();
    let hosts = settings.postgres.hosts();
    let mut passed_over = Vec::new();
    for _ in 0..settings.postgres.other_hosts.len() {
        let Looked { findings, former_primary } = look(&settings, shutdown).await?;
        let Some(refusal) = former_primary else {
            passed_over.extend(findings);
            return Some(passed_over);
        };
        // As run does. What it is otherwise matters to nobody.
        let detail = format!("a former primary among {hosts} is passed over: {refusal}");
        let note = Finding::note("primary", detail);
        if !passed_over.contains(&note) {
            passed_over.push(note);
        }
        settings.postgres.rotate_hosts();
    }
    let Looked { mut findings, former_primary } = look(&settings, shutdown).await?;
    findings.extend(former_primary.map(|refusal| Finding::of("checkpoint", &*refusal)));
    passed_over.extend(findings);
    Some(passed_over)
}

/// What was found with one host tried first.
struct Looked {
    findings: Vec<Finding>,
    /// That the server is one, where there are other hosts: then its findings are of no use.
    former_primary: Option<Failed>,
}

/// Looks with one host tried first. None where the end was asked for before it was done.
async fn look(settings: &Settings, shutdown: &Shutdown) -> Option<Looked> {
    let (sql, kafka) = tokio::join!(
        reach(settings, shutdown),
        // Whose id it will be is known by the server alone.
        patiently(shutdown, async || connect(settings.kafka_for_trial("0"), shutdown).await),
    );
    let mut findings = Vec::new();
    let sql = reached(sql, |failure| findings.push(server::unreached(settings, failure)))?;
    let mut of_kafka = Vec::new();
    let mut kafka = reached(kafka, |failure| of_kafka.push(Finding::of("kafka", &**failure)))?;

    let (pipeline, mut former_primary) = (Pipeline { settings, shutdown }, None);
    if let Some(sql) = sql {
        match pipeline.examine(sql, &mut kafka, &mut findings, &mut of_kafka).await {
            Ok(()) => {}
            Err(failure) if has_next_host(settings, &*failure) => former_primary = Some(failure),
            Err(failure) => findings.push(Finding::of("postgres", &*failure)),
        }
    }
    // The server did not say whose checkpoint to look for.
    if let Some(kafka) = kafka {
        pipeline.examine_kafka(kafka, None, &mut of_kafka).await;
    }
    findings.append(&mut of_kafka);
    Some(Looked { findings, former_primary })
}

/// What came of a connection; none of it where the end was asked for.
fn reached<T>(
    outcome: Result<Option<T>, Failed>,
    report: impl FnOnce(&Failed),
) -> Option<Option<T>> {
    match outcome {
        Ok(None) => None,
        Ok(reached) => Some(reached),
        Err(failure) => {
            report(&failure);
            Some(None)
        }
    }
}

async fn connect(by: kafka::Settings, shutdown: &Shutdown) -> Result<Kafka, Failed> {
    let cancel = shutdown.cancel().child();
    blocking(move || Ok(Kafka::connect(by, cancel)?)).await
}

struct Pipeline<'a> {
    settings: &'a Settings,
    shutdown: &'a Shutdown,
}

impl Pipeline<'_> {
    /// Looks at the server, and at Kafka in between: a slot that was looked up after its checkpoint
    /// could have moved above it.
    async fn examine(
        &self,
        sql: Sql,
        kafka: &mut Option<Kafka>,
        findings: &mut Vec<Finding>,
        of_kafka: &mut Vec<Finding>,
    ) -> Result<(), Failed> {
        let settings = self.settings;
        let found = server::examine(settings, &sql, findings).await?;
        let slot = slot::examine(settings, &sql, &found.diagnosis, findings).await?;
        let system_id = match &found.server {
            Some(server) => server.identity.system_id.clone(),
            None => diagnosis::system_id(&sql).await?,
        };
        let look = match kafka.take() {
            Some(kafka) => self.examine_kafka(kafka, Some(&system_id), of_kafka).await,
            None => None,
        };
        let before = look.as_ref().filter(|look| look.complete);
        let checkpoint = before.and_then(|look| look.checkpoint.as_ref());
        // A slot that is nobody's has to go first, and then everything is made.
        let is_nobodys = look.as_ref().is_some_and(|look| {
            look.complete && look.checkpoint.is_none() && look.intent.is_none()
        });
        let has_slot = !matches!(slot, slot::Examined::Absent) && !is_nobodys;
        let mapping = mapping(settings, &system_id);
        let known = Known {
            has_slot,
            sees_checkpoint: before.is_some(),
            before: checkpoint.map(|it| &it.publication),
            unfinished: checkpoint.map_or(&[], |it| &it.snapshots),
        };
        tables::examine(settings, &sql, &mapping, known, findings).await?;

        // A slot that cannot be read was reported; a standby cannot be judged.
        let (slot, margin) = match slot {
            slot::Examined::Unreadable => return Ok(()),
            slot::Examined::Absent => (None, None),
            slot::Examined::Readable(slot, margin) => (Some(slot), margin),
        };
        let is_known = look.as_ref().is_some_and(|look| look.checkpoint.is_some());
        if slot.is_none() && !is_known {
            let is_asked = look.is_some();
            slot::examine_absence(settings, &sql, &found.diagnosis, is_asked, findings).await?;
        }
        let mut is_ours = !is_nobodys;
        if let (Some(server), Some(look), false) = (found.server, look, found.is_in_recovery) {
            let ground = Ground::on(settings, server, sql, self.shutdown);
            let finding = checkpoint::examine(&ground, slot.as_ref(), &look).await?;
            is_ours &= finding.is_ok();
            findings.push(finding);
        }
        if let (Some(margin), true) = (margin, is_ours) {
            findings.extend(slot::failover(settings, margin, &found.diagnosis));
        }
        Ok(())
    }

    /// Looks at Kafka, and at the checkpoint where the server is known.
    async fn examine_kafka(
        &self,
        kafka: Kafka,
        system_id: Option<&str>,
        findings: &mut Vec<Finding>,
    ) -> Option<Look> {
        let settings = self.settings.clone();
        let key = system_id.map(|system_id| settings.checkpoint_key(system_id));
        findings.push(Finding::fine("kafka", format!("brokers {} answer", settings.kafka.brokers)));
        findings.push(match system_id {
            Some(system_id) => self.try_transactional_id(system_id).await,
            None => Finding::note(
                "transactional_id",
                "not tried: the server did not say its system id, which is a part of it",
            ),
        });
        let surveyed = blocking(move || {
            let mut found = Vec::new();
            let look = brokers::examine(&kafka, &settings, key.as_ref(), &mut found);
            Ok((found, look))
        });
        match surveyed.await {
            Ok((found, look)) => {
                findings.extend(found);
                look
            }
            Err(failure) => {
                findings.push(Finding::of("kafka", &*failure));
                None
            }
        }
    }

    async fn try_transactional_id(&self, system_id: &str) -> Finding {
        let settings = self.settings.clone();
        let id = settings.kafka_for(system_id).transactional_id;
        let connected = connect(settings.kafka_for_trial(system_id), self.shutdown).await;
        let tried = match connected {
            Ok(kafka) => {
                blocking(move || Ok(brokers::try_transactional_id(kafka, &settings, &id))).await
            }
            Err(failure) => Err(failure),
        };
        tried.unwrap_or_else(|failure| Finding::of("transactional_id", &*failure))
    }
}

/// Whether a server could not be reached at all: then the examination itself was not done.
pub fn unreached(findings: &[Finding]) -> Option<&Finding> {
    findings
        .iter()
        .find(|finding| finding.verdict == super::Verdict::Wrong(Some(Code::NotConnected)))
}
