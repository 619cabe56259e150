//! From the file to the settings of each part.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    database_url::DatabaseUrl,
    document::{self, Node, Value, join},
    file::{File, KafkaSection, MessageSection, OutboxSection, RouteSection, TableSection},
    mistake::{Mistakes, Origin, SettingsError},
    outboxes::{outboxes, retentions},
    quantity::{TransactionInterval, WalSize},
    scalar::{AdminSocket, Count, DeadLetterTopic, Located, OnError, SecretFile, TopicName},
    section::Read,
    table_topics,
    tables::{Surroundings, tables},
};
use crate::{
    admin, event,
    failure::{Code, Failure, Recovery},
    pipeline::{self, LargeTransactions},
    postgres::{self, TableName},
    sink::{
        DeadLetterTopics,
        kafka::{Administration, Delivery, TopicSettings},
    },
    telemetry,
};

/// The process's environment variables.
pub type Environment = BTreeMap<String, String>;

/// What a command needs the file to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Need {
    /// All of it.
    Everything,
    /// Where the rows come from. What the file says of Kafka must be right, but it need not say
    /// anything: a command that asks for no more never goes there.
    Database,
}

/// Stands for the brokers of a file that names none, where none are needed.
const NO_BROKERS: &str = "none";

/// All settings, checked: what can be known without a server is right.
#[derive(Debug)]
pub struct Config {
    /// The pipeline's.
    pub pipeline: pipeline::Settings,
    /// Where commands reach the daemon.
    pub admin: admin::Socket,
    /// The log's.
    pub log: telemetry::Settings,
}

/// There are no settings to go by.
#[derive(Debug)]
pub enum LoadError {
    /// The file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It was read, and has mistakes.
    Mistaken(SettingsError),
}

impl Config {
    /// Reads a file, with what the environment puts into it and over it.
    ///
    /// # Errors
    /// Where it cannot be read, or with every mistake that it has.
    pub fn load(path: &Path, environment: &Environment) -> Result<Self, LoadError> {
        Self::load_as(Need::Everything, path, environment)
    }

    /// Reads a file that need not say anything of Kafka: for a command that never goes there.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_for_database(path: &Path, environment: &Environment) -> Result<Self, LoadError> {
        Self::load_as(Need::Database, path, environment)
    }

    fn load_as(need: Need, path: &Path, environment: &Environment) -> Result<Self, LoadError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| LoadError::Unreadable { path: path.to_owned(), source })?;
        let name = path.display().to_string();
        Self::read_as(need, &text, &name, environment).map_err(LoadError::Mistaken)
    }

    /// Reads a file's text; `path` is what it is called in errors.
    ///
    /// # Errors
    /// With every mistake that it has.
    pub fn read(text: &str, path: &str, environment: &Environment) -> Result<Self, SettingsError> {
        Self::read_as(Need::Everything, text, path, environment)
    }

    pub(super) fn read_as(
        need: Need,
        text: &str,
        path: &str,
        environment: &Environment,
    ) -> Result<Self, SettingsError> {
        let mut mistakes = Mistakes::default();
        let mut root: Node = document::read(text, environment, &mut mistakes);
        match need {
            Need::Everything => {}
            Need::Database => root.supply(&["kafka", "brokers"], NO_BROKERS),
        }
        let file = File::read(&root, "", &mut mistakes);
        check_origins(&root, &mut mistakes);
        let config = file.map(|file| Self::assemble(file, &mut mistakes));
        match config {
            Some(config) if mistakes.is_empty() => Ok(config),
            _ => Err(SettingsError { path: path.to_owned(), mistakes: mistakes.into_sorted() }),
        }
    }

    fn assemble(file: File, mistakes: &mut Mistakes) -> Self {
        let File {
            source,
            on_error,
            dead_letter_topic,
            mask_salt,
            types,
            postgres,
            kafka,
            outbox,
            message,
            table,
            route,
            admin,
            log,
        } = file;
        let outboxes = outboxes(&outbox, &kafka.checkpoint_topic, mistakes);
        let messages = messages(message, &kafka.checkpoint_topic, mistakes);
        let routes = routes(route, &kafka.checkpoint_topic, mistakes);
        let file = Surroundings {
            types: &types,
            mask_salt: mask_salt.as_ref(),
            outboxes: &outbox,
            routes: &routes,
            checkpoint_topic: &kafka.checkpoint_topic,
        };
        let tables = tables(&table, &file, mistakes);
        let event = event::Settings { source, outboxes, messages, tables, routes };
        let dead_letters = match on_error {
            OnError::Halt => no_dead_letters(&dead_letter_topic, mistakes),
            OnError::DeadLetter => {
                dead_letters(&dead_letter_topic, &event, &kafka.checkpoint_topic, mistakes)
            }
        };
        check_interval(&kafka, mistakes);
        check_atomicity(&kafka, mistakes);
        check_password(&kafka, mistakes);
        check_tokens(&kafka, mistakes);
        let of_slot = || admin::Socket::OfSlot(postgres.slot.to_string());
        let admin = admin.socket.map_or_else(of_slot, |AdminSocket(socket)| socket);
        Self {
            admin,
            pipeline: pipeline::Settings {
                source: event.source.clone(),
                postgres: connection(postgres.url, postgres.password_file),
                slot: postgres.slot,
                publication: postgres.publication,
                failover: postgres.failover,
                retained_wal_bytes_max: postgres.retained_wal_max.map(|WalSize(bytes)| bytes),
                retentions: retentions(&outbox),
                tables: named_tables(outbox, &event),
                event,
                dead_letters,
                kafka: kafka_settings(kafka),
            },
            log: telemetry::Settings { format: log.format, filter: log.filter.0 },
        }
    }
}

/// The tables that are called by their names.
fn named_tables(outbox: Vec<OutboxSection>, event: &event::Settings) -> Vec<TableName> {
    let outboxes = outbox.into_iter().map(|outbox| outbox.table.value);
    let tables = event.tables.iter().filter_map(|table| {
        let (schema, name) = table.name.exact()?;
        Some(TableName { schema: schema.to_owned(), name: name.to_owned() })
    });
    outboxes.chain(tables).collect()
}

/// A file without anything to publish.
fn check_origins(root: &Node, mistakes: &mut Mistakes) {
    let Value::Table(table) = &root.value else { return };
    if ["outbox", "message", "table"].into_iter().any(|origin| table.contains_key(origin)) {
        return;
    }
    let outbox = <Vec<OutboxSection>>::expected("outbox");
    let message = <Vec<MessageSection>>::expected("message");
    let of_tables = <Vec<TableSection>>::expected("table");
    let problem = format!("is missing: {outbox}, {message}, or {of_tables}");
    mistakes.add(&Origin::Nowhere, "outbox", problem);
}

fn connection(url: DatabaseUrl, password_file: Option<SecretFile>) -> postgres::Settings {
    postgres::Settings {
        host: url.host,
        other_hosts: url.other_hosts,
        user: url.user,
        password: password_file.map(|SecretFile(secret)| secret).or(url.password),
        database: url.database,
        application_name: url.application_name.unwrap_or_else(|| "tailwater".to_owned()),
        encryption: url.encryption,
    }
}

fn kafka_settings(section: KafkaSection) -> pipeline::KafkaSettings {
    let number = |count: Option<Count>| count.map(|Count(number)| number);
    let mut properties = section.properties.0.texts();
    if let Some(Located { value: SecretFile(password), .. }) = section.password_file {
        properties.insert("sasl.password".to_owned(), password.reveal().to_owned());
    }
    pipeline::KafkaSettings {
        brokers: section.brokers,
        properties,
        checkpoint_topic: section.checkpoint_topic.0,
        delivery: section.delivery,
        partitioner: section.partitioner,
        transaction_interval: section.transaction_interval.value.0,
        transaction_bytes: section.transaction_bytes.0,
        large_transactions: section.large_transactions.value,
        outage_grace: section.outage_grace.0,
        create_topics: section.create_topics,
        topic: TopicSettings {
            partitions: number(section.topic.partitions),
            replication_factor: number(section.topic.replication_factor),
            config: section.topic.config.texts(),
        },
        administration: Administration::Full,
    }
}

/// A transaction that gathers for longer than the brokers leave it open could never be committed.
fn check_interval(section: &KafkaSection, mistakes: &mut Mistakes) {
    let Located { value: TransactionInterval(interval), origin } = &section.transaction_interval;
    let properties = section.properties.0.texts();
    let timeout = properties.get("transaction.timeout.ms").and_then(|text| text.parse().ok());
    let Some(timeout) = timeout.map(Duration::from_millis) else { return };
    if *interval > timeout / 2 {
        let problem = format!(
            "must be at most half of kafka.properties.transaction.timeout.ms, which is {} ms",
            timeout.as_millis()
        );
        mistakes.add(origin, "kafka.transaction_interval", problem);
    }
}

/// Without transactions nothing becomes visible together.
fn check_atomicity(section: &KafkaSection, mistakes: &mut Mistakes) {
    let Located { value, origin } = &section.large_transactions;
    if *value == LargeTransactions::Atomic && section.delivery == Delivery::AtLeastOnce {
        let problem = "cannot be \"atomic\" with kafka.delivery = \"at-least-once\", which has no \
                       transactions";
        mistakes.add(origin, "kafka.large_transactions", problem);
    }
}

/// A password that nobody asks for was meant for something.
fn check_password(section: &KafkaSection, mistakes: &mut Mistakes) {
    const KEY: &str = "kafka.password_file";
    let Some(Located { origin, .. }) = &section.password_file else { return };
    let properties = section.properties.0.texts();
    if properties.contains_key("sasl.password") {
        let problem = "cannot be beside kafka.properties.sasl.password, whose place it takes";
        mistakes.add(origin, KEY, problem);
    }
    let protocol = properties.get("security.protocol").map(|text| text.to_ascii_lowercase());
    if !protocol.is_some_and(|protocol| protocol.starts_with("sasl")) {
        let problem = "has no effect without kafka.properties.security.protocol = \"SASL_SSL\" or \
                       \"SASL_PLAINTEXT\"";
        mistakes.add(origin, KEY, problem);
    }
}

const DEAD_LETTER_TOPIC: &str = "dead_letter_topic";

fn no_dead_letters(
    Located { origin, .. }: &Located<DeadLetterTopic>,
    mistakes: &mut Mistakes,
) -> Option<DeadLetterTopics> {
    if *origin != Origin::Nowhere {
        let problem = "has no effect without on_error = \"dead-letter\"";
        mistakes.add(origin, DEAD_LETTER_TOPIC, problem);
    }
    None
}

/// What it takes to write dead letters must be right before the first of them.
fn dead_letters(
    Located { value: DeadLetterTopic(template), origin }: &Located<DeadLetterTopic>,
    event: &event::Settings,
    TopicName(checkpoint_topic): &TopicName,
    mistakes: &mut Mistakes,
) -> Option<DeadLetterTopics> {
    let topics = DeadLetterTopics::new(template.clone(), event.source.clone());
    let of_source = topics.of(None);
    if let Err(error) = event::check_topic_name(&of_source) {
        let problem = format!(
            "\"{template}\" makes \"{of_source}\" of the source, for events of which no topic can be \
             made: it {error}. Name one topic for all"
        );
        mistakes.add(origin, DEAD_LETTER_TOPIC, problem);
    }
    check_topic((topics.literal(), origin), DEAD_LETTER_TOPIC, checkpoint_topic, mistakes);
    let literals = event.outboxes.iter().map(|outbox| outbox.topic.literal());
    let literals = literals.chain(event.messages.iter().map(|message| message.topic.literal()));
    let literals = literals.chain(event.routes.iter().map(|route| route.topic.literal()));
    let of_tables = event.tables.iter().flat_map(table_topics::topics);
    let mut of_events = literals.flatten().map(str::to_owned).chain(of_tables);
    if topics.literal().is_some_and(|topic| of_events.any(|other| other == topic)) {
        let problem = format!("must not be \"{template}\", a topic of the events themselves");
        mistakes.add(origin, DEAD_LETTER_TOPIC, problem);
    }
    Some(topics)
}

/// Without a token of OAUTHBEARER librdkafka waits for one for ever, and says nothing.
fn check_tokens(section: &KafkaSection, mistakes: &mut Mistakes) {
    let properties = section.properties.0.texts();
    let is = |name: &str, value: &str| {
        properties.get(name).is_some_and(|text| text.eq_ignore_ascii_case(value))
    };
    let has_tokens =
        is("sasl.oauthbearer.method", "oidc") || is("enable.sasl.oauthbearer.unsecure.jwt", "true");
    for (name, origin) in section.properties.0.places() {
        let asks = matches!(name, "sasl.mechanism" | "sasl.mechanisms") && is(name, "OAUTHBEARER");
        if asks && !has_tokens {
            let problem = "cannot be OAUTHBEARER where nothing fetches its tokens: set \
                           sasl.oauthbearer.method to \"oidc\" (in a build with the feature oidc), \
                           with sasl.oauthbearer.client.id, sasl.oauthbearer.client.secret and \
                           sasl.oauthbearer.token.endpoint.url";
            mistakes.add(origin, &join("kafka.properties", name), problem);
        }
    }
}

fn messages(
    sections: Vec<MessageSection>,
    TopicName(checkpoint_topic): &TopicName,
    mistakes: &mut Mistakes,
) -> Vec<event::outbox::MessageSettings> {
    let mut settings: Vec<event::outbox::MessageSettings> = Vec::new();
    for MessageSection { prefix, topic } in sections {
        let Located { value: prefix, origin } = prefix;
        if prefix == event::CONTEXT_PREFIX {
            let problem = format!("cannot be \"{prefix}\", which gives a transaction its context");
            mistakes.add(&origin, "message.prefix", problem);
        }
        if settings.iter().any(|other| other.prefix == prefix) {
            let problem = format!("is named by two [[message]] sections: \"{prefix}\"");
            mistakes.add(&origin, "message.prefix", problem);
        }
        let Located { value: topic, origin } = topic;
        check_topic((topic.literal(), &origin), "message.topic", checkpoint_topic, mistakes);
        settings.push(event::outbox::MessageSettings { prefix, topic });
    }
    settings
}

fn routes(
    sections: Vec<RouteSection>,
    TopicName(checkpoint_topic): &TopicName,
    mistakes: &mut Mistakes,
) -> Vec<event::Route> {
    let mut routes: Vec<event::Route> = Vec::new();
    for RouteSection { r#type, topic: Located { value: topic, origin } } in sections {
        let Located { value: event_type, origin: type_origin } = r#type;
        // Of other patterns it cannot be said so simply.
        let is_covered = |earlier: &event::Route| {
            earlier.event_type == event_type || earlier.event_type.is_any()
        };
        if routes.iter().any(is_covered) {
            let problem = "never counts: a [[route]] before it matches all that it matches";
            mistakes.add(&type_origin, "route.type", problem);
        }
        check_topic((topic.literal(), &origin), "route.topic", checkpoint_topic, mistakes);
        routes.push(event::Route { event_type, topic });
    }
    routes
}

/// Events must not go where checkpoints are.
pub(super) fn check_topic(
    (topic, origin): (Option<&str>, &Origin),
    key: &str,
    checkpoint_topic: &str,
    mistakes: &mut Mistakes,
) {
    if topic == Some(checkpoint_topic) {
        let problem = format!(
            "must be another topic than kafka.checkpoint_topic, \"{checkpoint_topic}\": that \
             holds checkpoints alone, and forgets"
        );
        mistakes.add(origin, key, problem);
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, .. } => {
                write!(formatter, "cannot read the settings file \"{}\"", path.display())
            }
            Self::Mistaken(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::Mistaken(_) => None,
        }
    }
}

impl Failure for LoadError {
    fn code(&self) -> Option<Code> {
        Some(Code::Settings)
    }

    fn recovery(&self) -> Recovery {
        Recovery::Stop
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unreadable { .. } => Some(
                "Name the file by -c or TAILWATER_CONFIG; without them it is ./tailwater.toml. \
                 README.md has a first one of eight lines."
                    .to_owned(),
            ),
            Self::Mistaken(error) => error.hint(),
        }
    }
}
