//! The topics that events go to: those that the settings name, and those that a template may make.

use super::{commands::Commands, finding::Finding};
use crate::{
    event::{Piece, TypeGlob},
    failure::Failure as _,
    pipeline::settings::Settings,
    sink::{
        DeadLetterTopics, TopicUse,
        kafka::{Creation, Kafka, KafkaError, Right, TopicReport, TopicState},
    },
};

/// How many topics of one template are looked at: each costs two requests.
const MATCHES_MAX: usize = 50;

/// What stands in a template's places where its creation is tried.
const SAMPLE: &str = "tailwater-check";

/// A template with at least one place to fill.
struct Open {
    text: String,
    /// What it begins with, whatever the event.
    prefix: String,
    /// None where it could be any topic.
    pattern: Option<TypeGlob>,
    sample: String,
    topic_use: TopicUse,
}

/// Topics that are there and that a template may make.
#[derive(Clone, Copy)]
struct Candidates<'a> {
    /// What we may write to; anybody's, as far as one can tell.
    ours: &'a [(String, TopicReport)],
    /// Names of the others.
    denied: &'a [String],
}

/// Looks at all topics that events may go to.
pub(super) fn examine(
    kafka: &Kafka,
    settings: &Settings,
    findings: &mut Vec<Finding>,
) -> Result<(), KafkaError> {
    let of_events = settings.known_topics();
    for name in &of_events {
        findings.push(known(kafka, settings, name, TopicUse::Events)?);
    }
    for name in settings.known_dead_letter_topics().difference(&of_events) {
        findings.push(known(kafka, settings, name, TopicUse::DeadLetters)?);
    }
    let templates = open_templates(settings);
    if templates.is_empty() {
        return Ok(());
    }
    let names = kafka.topic_names()?;
    for template in templates {
        let matches = |name: &&String| {
            let is_match = template.pattern.as_ref().is_some_and(|pattern| pattern.matches(name));
            is_match && **name != settings.kafka.checkpoint_topic
        };
        let (mut ours, mut denied) = (Vec::new(), Vec::new());
        for name in names.iter().filter(matches).take(MATCHES_MAX) {
            match kafka.survey_topic(name)? {
                TopicState::There(report) if may(&report, Right::Write) => {
                    ours.push((name.clone(), report));
                }
                TopicState::There(_) | TopicState::Hidden => denied.push(name.clone()),
                // Deleted at this moment.
                TopicState::Missing => {}
            }
        }
        findings.extend(unseen(&template.text, names.iter().filter(matches).count()));
        let candidates = Candidates { ours: &ours, denied: &denied };
        of_template(kafka, settings, &template, candidates, findings)?;
    }
    Ok(())
}

/// What is left out of a look at a template's topics.
fn unseen(template: &str, matches: usize) -> Option<Finding> {
    (matches > MATCHES_MAX).then(|| {
        Finding::note(
            "topic",
            format!(
                "{matches} topics are like {template}; the first {MATCHES_MAX} of them were looked \
                 at, the others were not"
            ),
        )
    })
}

fn open_templates(settings: &Settings) -> Vec<Open> {
    let event = &settings.event;
    let mut templates: Vec<Vec<Piece<'_>>> = Vec::new();
    let mut filled = Vec::new();
    for outbox in &event.outboxes {
        let (schema, table) = &outbox.table;
        filled.extend(outbox.topic.for_table(schema, table));
    }
    for table in &event.tables {
        let own = std::iter::once(&table.topic);
        let of_rules = table.rules.iter().filter_map(|rule| rule.topic.as_ref());
        filled.extend(own.chain(of_rules).filter_map(|topic| match table.name.exact() {
            Some((schema, name)) => topic.for_table(schema, name).ok(),
            None => topic.for_schema(&table.name.schema).ok(),
        }));
    }
    templates.extend(filled.iter().map(|template| template.pieces().collect()));
    templates.extend(event.messages.iter().map(|message| message.topic.pieces().collect()));
    templates.extend(event.routes.iter().map(|route| route.topic.pieces().collect()));
    let mut open: Vec<Open> = templates.iter().filter_map(|pieces| Open::of(pieces)).collect();
    let dead_letters: Vec<Open> = match &settings.dead_letters {
        Some(topics) => open.iter().filter_map(|template| template.dead_letters(topics)).collect(),
        None => Vec::new(),
    };
    open.extend(dead_letters);
    open.sort_by(|left, right| left.text.cmp(&right.text));
    open.dedup_by(|left, right| left.text == right.text);
    open
}

impl Open {
    fn of(pieces: &[Piece<'_>]) -> Option<Self> {
        let (mut text, mut pattern, mut sample) = (String::new(), String::new(), String::new());
        let mut prefix = None;
        for piece in pieces {
            match piece {
                Piece::Text(literal) => {
                    text.push_str(literal);
                    pattern.push_str(literal);
                    sample.push_str(literal);
                    continue;
                }
                Piece::Place(word) => {
                    prefix.get_or_insert_with(|| text.clone());
                    text.push_str(&format!("{{{word}}}"));
                }
                Piece::Column(name) => {
                    prefix.get_or_insert_with(|| text.clone());
                    text.push_str(&format!("{{column:{name}}}"));
                }
            }
            pattern.push('*');
            sample.push_str(SAMPLE);
        }
        let topic_use = TopicUse::Events;
        // Without a place it is a topic that the settings name.
        prefix.map(|prefix| Self { text, prefix, pattern: glob(&pattern), sample, topic_use })
    }

    /// The template of the dead letters of its topics; none where all have one topic.
    fn dead_letters(&self, topics: &DeadLetterTopics) -> Option<Self> {
        if topics.literal().is_some() {
            return None;
        }
        let text = topics.of(Some(&self.text));
        let prefix = text.split('{').next().unwrap_or_default().to_owned();
        let pattern = self.pattern.as_ref().map(|pattern| topics.of(Some(pattern.as_str())));
        let pattern = pattern.and_then(|pattern| glob(&pattern));
        let sample = topics.of(Some(&self.sample));
        Some(Self { text, prefix, pattern, sample, topic_use: TopicUse::DeadLetters })
    }
}

/// A pattern of topics; none where it has no text of its own.
fn glob(pattern: &str) -> Option<TypeGlob> {
    let is_any = pattern.chars().all(|letter| !letter.is_ascii_alphanumeric());
    TypeGlob::parse(pattern).ok().filter(|_| !is_any)
}

/// A topic that the settings name.
fn known(
    kafka: &Kafka,
    settings: &Settings,
    name: &str,
    topic_use: TopicUse,
) -> Result<Finding, KafkaError> {
    const NAME: &str = "topic";
    let commands = Commands::new(&settings.kafka);
    Ok(match kafka.survey_topic(name)? {
        TopicState::There(report) => {
            match judge_for(kafka, &commands, topic_use, (name, &report)) {
                Some(wrong) => wrong,
                None => Finding::fine(NAME, in_words(name, &report)),
            }
        }
        TopicState::Hidden => hidden(&commands, name),
        TopicState::Missing => {
            let creation = kafka.try_creation(name, &kafka.topic_settings(topic_use))?;
            refused_creation(&commands, settings, &creation).unwrap_or_else(|| {
                Finding::note(NAME, format!("topic \"{name}\" is not there yet; it is made"))
            })
        }
    })
}

/// A template whose topics come with the events.
fn of_template(
    kafka: &Kafka,
    settings: &Settings,
    template: &Open,
    candidates: Candidates<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), KafkaError> {
    let commands = Commands::new(&settings.kafka);
    let (text, topic_use) = (&template.text, template.topic_use);
    for (name, report) in candidates.ours {
        let wrong = judge_for(kafka, &commands, topic_use, (name, report));
        findings.push(wrong.unwrap_or_else(|| {
            Finding::fine("topic", format!("{} (by {text})", in_words(name, report)))
        }));
    }
    let creation = kafka.try_creation(&template.sample, &kafka.topic_settings(topic_use))?;
    findings.push(match &creation {
        Creation::NotAllowed(error) => {
            not_to_be_made(&commands, settings, template, candidates, error)
        }
        creation => refused_creation(&commands, settings, creation).unwrap_or_else(|| {
            let first = match topic_use {
                TopicUse::Events => "event",
                TopicUse::DeadLetters => "dead letter",
            };
            let detail = format!("topics that {text} makes are made with their first {first}");
            Finding::fine("topic_creation", detail)
        }),
    });
    Ok(())
}

/// Topics of the template may not be made. That is wrong only where none is there either that may be
/// written to: those may be all that are needed. Who may make topics may do so for single names only,
/// which nobody tells us.
fn not_to_be_made(
    commands: &Commands<'_>,
    settings: &Settings,
    template: &Open,
    Candidates { ours, denied }: Candidates<'_>,
    error: &KafkaError,
) -> Finding {
    const NAME: &str = "topic_creation";
    let text = &template.text;
    if let ([first, ..], []) = (denied, ours) {
        let error = KafkaError::Denied {
            action: format!("write to topic \"{first}\", or any other one that {text} makes"),
            reason: "no right to Write".to_owned(),
        };
        let all: Vec<String> = denied.iter().map(|name| commands.allow_writing(name)).collect();
        return Finding::refused("topic", &error, all.join("; "));
    }
    if settings.kafka.create_topics {
        return Finding::note(
            NAME,
            format!(
                "not every topic that {text} makes may be made ({error}): one that is missing \
                 stops run, unless this user may Create it by its name, or any: {}",
                commands.allow_creation(&template.prefix)
            ),
        );
    }
    if template.pattern.is_none() || !ours.is_empty() {
        return Finding::note(
            NAME,
            format!(
                "kafka.create_topics is false: a topic that {text} makes and that is not there \
                 stops run"
            ),
        );
    }
    Finding::wrong(
        NAME,
        error.code(),
        format!("no topic that {text} makes is there, and kafka.create_topics is false"),
        "set create_topics = true under [kafka] in the settings file, or make the topics of all \
         types that the application writes",
    )
}

/// A topic that is missing and would not be made; none where it would.
pub(super) fn refused_creation(
    commands: &Commands<'_>,
    settings: &Settings,
    creation: &Creation,
) -> Option<Finding> {
    const NAME: &str = "topic_creation";
    Some(match creation {
        Creation::Possible => return None,
        // Which `run` tries again, because a cluster that starts says so too.
        Creation::TooFewBrokers(error) => {
            let wanted = match settings.kafka.topic.replication_factor {
                Some(factor) => format!("it is {factor}"),
                None => "the brokers' own default is more".to_owned(),
            };
            let fix = format!(
                "set topic.replication_factor under [kafka] in the settings file to the number of \
                 brokers, or less; {wanted}"
            );
            Finding::wrong(NAME, None, error.to_string(), fix)
        }
        Creation::NotAllowed(error) | Creation::Refused(error) => {
            let hint = error.hint().unwrap_or_default();
            Finding::refused(NAME, error, commands.of_error(&hint))
        }
    })
}

/// A topic that we may not even see.
pub(super) fn hidden(commands: &Commands<'_>, name: &str) -> Finding {
    let denied = KafkaError::Denied {
        action: format!("look up topic \"{name}\""),
        reason: "no right to Describe".to_owned(),
    };
    Finding::refused("topic", &denied, commands.allow_writing(name))
}

/// What is wrong with a topic of that use.
fn judge_for(
    kafka: &Kafka,
    commands: &Commands<'_>,
    topic_use: TopicUse,
    (name, report): (&str, &TopicReport),
) -> Option<Finding> {
    judge(commands, name, report).or_else(|| match topic_use {
        TopicUse::Events => None,
        TopicUse::DeadLetters => {
            judge_dead_letters(commands, name, report, kafka.dead_letter_bytes_max())
        }
    })
}

/// Whether a topic takes and keeps every dead letter, as one does that we make. What its
/// configuration is may not be told.
fn judge_dead_letters(
    commands: &Commands<'_>,
    name: &str,
    report: &TopicReport,
    bytes_min: usize,
) -> Option<Finding> {
    let (mut reasons, mut entries) = (Vec::new(), Vec::new());
    if report.is_compacted == Some(true) {
        reasons.push("it is compacted, so that a key's second one removes its first".to_owned());
        entries.push("cleanup.policy=delete".to_owned());
    }
    if let Some(bytes_max) = report.bytes_max.filter(|bytes_max| *bytes_max < bytes_min) {
        reasons.push(format!(
            "its max.message.bytes is {bytes_max}, so that a record which is too large for its own \
             topic may be too large for this one too, and stop run"
        ));
        entries.push(format!("max.message.bytes={bytes_min}"));
    }
    if reasons.is_empty() {
        return None;
    }
    let detail = format!("topic \"{name}\" is for dead letters, and {}", reasons.join("; "));
    Some(Finding::wrong("topic", None, detail, commands.configure(name, &entries.join(","))))
}

/// What is wrong with a topic that we write to.
pub(super) fn judge(commands: &Commands<'_>, name: &str, report: &TopicReport) -> Option<Finding> {
    const NAME: &str = "topic";
    if !may(report, Right::Write) {
        let denied = KafkaError::Denied {
            action: format!("write to topic \"{name}\""),
            reason: "no right to Write".to_owned(),
        };
        return Some(Finding::refused(NAME, &denied, commands.allow_writing(name)));
    }
    let TopicReport { replicas, in_sync, .. } = *report;
    let minimum = report.in_sync_min?;
    if in_sync >= minimum {
        return None;
    }
    let detail = format!(
        "topic \"{name}\" takes no records: min.insync.replicas is {minimum}, and {in_sync} of \
         its {replicas} replicas are in sync"
    );
    let fix = match minimum > replicas {
        true => commands.configure(name, &format!("min.insync.replicas={replicas}")),
        false => format!(
            "start the brokers of the other replicas: kafka-topics.sh --bootstrap-server {} \
             --describe --topic {name}",
            commands.brokers
        ),
    };
    Some(Finding::wrong("min_insync_replicas", None, detail, fix))
}

/// A right that the brokers do not tell of is taken to be there.
pub(super) fn may(report: &TopicReport, right: Right) -> bool {
    report.rights.as_ref().is_none_or(|rights| rights.contains(&right))
}

/// How a topic is kept.
pub(super) fn in_words(name: &str, report: &TopicReport) -> String {
    let TopicReport { partitions, replicas, .. } = report;
    let minimum = match report.in_sync_min {
        Some(1) if *replicas > 1 => {
            ", min.insync.replicas 1: a record may be lost with one broker".to_owned()
        }
        Some(minimum) => format!(", min.insync.replicas {minimum}"),
        None => ", min.insync.replicas not told (no right to DescribeConfigs)".to_owned(),
    };
    format!("topic \"{name}\": {partitions} partitions, {replicas} replicas{minimum}")
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn report(replicas: usize, in_sync: usize, minimum: usize) -> TopicReport {
        TopicReport {
            partitions: 3,
            replicas,
            in_sync,
            rights: Some(BTreeSet::from([Right::Write])),
            in_sync_min: Some(minimum),
            bytes_max: Some(1_048_588),
            is_compacted: Some(false),
        }
    }

    #[test]
    fn a_topic_of_dead_letters_must_take_and_keep_each_of_them() {
        let properties = BTreeMap::new();
        let commands = Commands { brokers: "kafka:9092", properties: &properties };
        let judge = |report| judge_dead_letters(&commands, "dead", &report, 1_048_588);
        assert_eq!(judge(report(1, 1, 1)), None);
        let small = TopicReport { bytes_max: Some(1_048_587), ..report(1, 1, 1) };
        let fix = judge(small).and_then(|it| it.fix).expect("a fix");
        assert!(fix.ends_with("--add-config max.message.bytes=1048588"), "{fix}");
        let both = TopicReport { bytes_max: Some(1), is_compacted: Some(true), ..report(1, 1, 1) };
        let fix = judge(both).and_then(|it| it.fix).expect("a fix");
        assert!(fix.ends_with("cleanup.policy=delete,max.message.bytes=1048588"), "{fix}");
        let unseen = TopicReport { bytes_max: None, is_compacted: None, ..report(1, 1, 1) };
        assert_eq!(judge(unseen), None);
    }

    #[test]
    fn dead_letters_of_a_template_are_a_template() {
        let topics = |template: &str| DeadLetterTopics::new(template.to_owned(), "shop".to_owned());
        let events = Open::of(&[Piece::Place("domain"), Piece::Text(".events")]).expect("open");
        let found = events.dead_letters(&topics("dead.{topic}")).expect("a template");
        assert_eq!((found.text.as_str(), found.prefix.as_str()), ("dead.{domain}.events", "dead."));
        assert_eq!(found.sample, "dead.tailwater-check.events");
        let pattern = found.pattern.expect("a pattern");
        assert!(pattern.matches("dead.order.events") && !pattern.matches("order.events"));
        assert!(events.dead_letters(&topics("dead")).is_none());
    }

    #[test]
    fn topics_that_are_not_looked_at_are_told_of() {
        assert_eq!(unseen("{domain}.events", MATCHES_MAX), None);
        let note = unseen("{domain}.events", MATCHES_MAX + 1).expect("a note");
        assert!(note.is_ok() && note.detail.starts_with("51 topics are like"), "{note:?}");
    }

    #[test]
    fn too_few_replicas_are_mended_by_the_setting_or_by_the_brokers() {
        let properties = BTreeMap::new();
        let commands = Commands { brokers: "kafka:9092", properties: &properties };
        assert_eq!(judge(&commands, "orders", &report(3, 2, 2)), None);
        let fix = |report| judge(&commands, "orders", &report).expect("a finding").fix;
        let never = fix(report(1, 1, 2)).expect("a fix");
        assert!(never.ends_with("--add-config min.insync.replicas=1"), "{never}");
        let at_this_moment = fix(report(3, 1, 2)).expect("a fix");
        assert!(at_this_moment.starts_with("start the brokers of the other replicas"));
        assert!(in_words("orders", &report(3, 3, 1)).contains("may be lost with one broker"));
    }

    #[test]
    fn a_template_without_text_of_its_own_is_matched_with_no_topic() {
        let open = |pieces: &[Piece<'_>]| Open::of(pieces).expect("a place to fill");
        let any = open(&[Piece::Place("type"), Piece::Text("."), Piece::Column("tenant")]);
        assert!(any.pattern.is_none() && any.text == "{type}.{column:tenant}", "{}", any.text);
        let some = open(&[Piece::Text("shop."), Piece::Place("domain")]);
        let pattern = some.pattern.expect("a pattern");
        assert!(pattern.matches("shop.order") && !pattern.matches("order"));
        assert_eq!((some.prefix.as_str(), some.sample.as_str()), ("shop.", "shop.tailwater-check"));
        assert!(Open::of(&[Piece::Text("orders")]).is_none());
    }
}
