//! Kafka: whether it lets us in, and whether we may do there what publishing needs. Nothing is
//! written: rights on topics are asked for, the one on the transactional id is tried with an id that
//! is nobody else's.

use std::time::Duration;

use super::{commands::Commands, finding::Finding, topics};
use crate::{
    checkpoint::{
        CheckpointKey,
        store::{self, Look, Store},
    },
    failure::Failure as _,
    pipeline::settings::Settings,
    sink::kafka::{Kafka, KafkaError, Right, TopicReport, TopicSettings, TopicState},
};

/// How long another pipeline's open transaction is waited for, which may hide the checkpoint. One at
/// work ends its own within milliseconds; that of one that was killed stays open for its
/// `transaction.timeout.ms`, a minute unless somebody said otherwise.
const LOOK_PATIENCE: Duration = Duration::from_secs(3);

/// Looks at all topics, and at the checkpoint where the key is known and it can be read.
pub(super) fn examine(
    kafka: &Kafka,
    settings: &Settings,
    key: Option<&CheckpointKey>,
    findings: &mut Vec<Finding>,
) -> Option<Look> {
    let look = match checkpoints(kafka, settings, key, findings) {
        Ok(look) => look,
        Err(error) => {
            findings.push(of_error(settings, "checkpoint_topic", &error));
            None
        }
    };
    if let Err(error) = topics::examine(kafka, settings, findings) {
        findings.push(of_error(settings, "topic", &error));
    }
    look
}

fn of_error(settings: &Settings, name: &'static str, error: &KafkaError) -> Finding {
    let hint = error.hint().unwrap_or_else(|| "run tailwater check again".to_owned());
    Finding::refused(name, error, Commands::new(&settings.kafka).of_error(&hint))
}

/// The right to our transactional ids. It leaves an id that nobody uses, which Kafka forgets after a
/// week.
pub(super) fn try_transactional_id(mut kafka: Kafka, settings: &Settings, id: &str) -> Finding {
    const NAME: &str = "transactional_id";
    match kafka.fence() {
        Ok(()) => Finding::fine(NAME, format!("transactional ids {id}… may be used")),
        Err(error @ KafkaError::Denied { .. }) => {
            let fix = Commands::new(&settings.kafka).allow_transactional_ids(id);
            Finding::refused(NAME, &error, fix)
        }
        Err(error @ KafkaError::Settings { .. }) => {
            let fix = "set \"transaction.timeout.ms\" under kafka.properties in the settings file \
                       to the brokers' bound, or less";
            Finding::refused(NAME, &error, fix)
        }
        Err(error) => of_error(settings, NAME, &error),
    }
}

/// The checkpoint topic, and what it holds for us.
fn checkpoints(
    kafka: &Kafka,
    settings: &Settings,
    key: Option<&CheckpointKey>,
    findings: &mut Vec<Finding>,
) -> Result<Option<Look>, KafkaError> {
    const NAME: &str = "checkpoint_topic";
    let name = &settings.kafka.checkpoint_topic;
    let commands = Commands::new(&settings.kafka);
    let report = match kafka.survey_topic(name)? {
        TopicState::There(report) => report,
        TopicState::Hidden => {
            findings.push(denied(&commands, name, "look up", &ALL));
            return Ok(None);
        }
        TopicState::Missing => {
            let wanted = TopicSettings {
                partitions: Some(1),
                replication_factor: settings.kafka.topic.replication_factor,
                config: store::topic_config(),
            };
            let creation = kafka.try_creation(name, &wanted)?;
            let refused = topics::refused_creation(&commands, settings, &creation);
            findings.push(refused.unwrap_or_else(|| {
                let detail = format!("topic \"{name}\" is not there yet; run and init make it");
                Finding::note(NAME, detail)
            }));
            return Ok(Some(Look { complete: true, ..Look::default() }));
        }
    };
    let lacking: Vec<Right> =
        [Right::Read, Right::Write].into_iter().filter(|it| !topics::may(&report, *it)).collect();
    if !lacking.is_empty() {
        let words: Vec<&str> = lacking.iter().map(|right| right.operation()).collect();
        findings.push(denied(&commands, name, &words.join(" and ").to_lowercase(), &lacking));
    }
    if !topics::may(&report, Right::Read) {
        return Ok(None);
    }
    let store = Store::open(kafka)?;
    match store.check_policy() {
        Ok(()) if lacking.is_empty() => findings.push(kept(&commands, name, &report)),
        Ok(()) => {}
        Err(error) => findings.push(of_error(settings, NAME, &error)),
    }
    key.map(|key| store.look_within(LOOK_PATIENCE, key, &settings.source)).transpose()
}

/// What the checkpoint topic needs.
const ALL: [Right; 3] = [Right::Read, Right::Write, Right::DescribeConfigs];

fn denied(commands: &Commands<'_>, name: &str, verb: &str, rights: &[Right]) -> Finding {
    let denied = KafkaError::Denied {
        action: format!("{verb} topic \"{name}\""),
        reason: "the right is missing".to_owned(),
    };
    Finding::refused("checkpoint_topic", &denied, commands.allow_on_topic(rights, name))
}

fn kept(commands: &Commands<'_>, name: &str, report: &TopicReport) -> Finding {
    const NAME: &str = "checkpoint_topic";
    if let Some(wrong) = topics::judge(commands, name, report) {
        return wrong;
    }
    let words = topics::in_words(name, report);
    match topics::may(report, Right::DescribeConfigs) {
        true => Finding::fine(NAME, format!("{words}, compacted")),
        false => Finding::note(
            NAME,
            format!(
                "{words}; whether it is compacted cannot be seen, nor by run: {}",
                commands.allow_on_topic(&[Right::DescribeConfigs], name)
            ),
        ),
    }
}
