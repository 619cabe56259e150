//! Every setting there is: name, kind, default and what it is for.

use super::{
    by_name::ByName,
    column_list::ColumnList,
    database_url::DatabaseUrl,
    names::{Names, Properties},
    quantity::{OutageGrace, RetentionAge, TransactionBytes, TransactionInterval, WalSize},
    scalar::{
        AdminSocket, Count, DeadLetterTopic, Expression, Located, LogFilter, OnError, SecretFile,
        TableTopic, TopicName,
    },
    section::section,
    words::MaskForm,
};
use crate::{
    event::{
        TopicTemplate, TypeGlob, TypeTemplate,
        outbox::{Layout, PayloadForm},
        table::{DataForm, Otherwise, Salt, SnapshotMode, TablePattern},
    },
    pipeline::LargeTransactions,
    postgres::{PublicationName, SlotName, TableName},
    sink::kafka::{Delivery, Partitioner},
    telemetry::LogFormat,
    value::{ByteaForm, ColumnForm, Int8Form, NumericForm},
};

section! {
    /// The file.
    File {
        /// The envelope's `source`: the name of the service whose events these are.
        source: String,
        /// What becomes of an event that cannot be published, because it cannot be made or is too
        /// large: `halt` stops before its transaction (a row that `tailwater snapshot` asked for
        /// ends that request alone), `dead-letter` puts it into a topic of its own,
        /// with the reason, in its place among the others.
        on_error: OnError = "halt",
        /// Where dead letters go. {topic} is the event's topic, or `source` where none could be made.
        dead_letter_topic: Located<DeadLetterTopic> = "{topic}.dlq",
        /// What `sha256` masks values with, a secret of at least 16 characters. Another one gives
        /// other masks.
        mask_salt: Option<Located<Salt>>,
        /// How values of some types are written, in events of domain tables.
        types: TypesSection,
        /// Where the rows come from.
        postgres: PostgresSection,
        /// Where the events go.
        kafka: KafkaSection,
        /// The outbox tables.
        outbox: Vec<OutboxSection>,
        /// The outboxes without a table.
        message: Vec<MessageSection>,
        /// The domain tables.
        table: Vec<TableSection>,
        /// Topics by types.
        route: Vec<RouteSection>,
        /// How commands reach the daemon.
        admin: AdminSection,
        /// The log, on standard error.
        log: LogSection,
    }
}

section! {
    /// `[postgres]`
    PostgresSection {
        /// The replication user, the primary and the database, as libpq has it. A unix socket is
        /// `?host=/var/run/postgresql`.
        url: DatabaseUrl,
        /// The replication slot. One daemon, one slot.
        slot: SlotName = "tailwater",
        /// The publication.
        publication: PublicationName = "tailwater",
        /// A file that holds the password: a mounted secret.
        password_file: Option<SecretFile>,
        /// How much WAL the slot may make the server keep before the log, `tailwater status` and
        /// `tailwater check` tell of it.
        retained_wal_max: Option<WalSize>,
        /// Whether the slot survives a failover to a standby. Has its effect on PostgreSQL 17 and
        /// later.
        failover: bool = true,
    }
}

section! {
    /// `[kafka]`
    KafkaSection {
        /// Addresses to begin with: host:port, separated by commas.
        brokers: String,
        /// The guarantee: `exactly-once`, or `at-least-once`, whose events are visible without
        /// waiting for a transaction, and come again after a crash.
        delivery: Delivery = "exactly-once",
        /// The compacted topic of the checkpoints. Many pipelines share it.
        checkpoint_topic: TopicName = "__tailwater_checkpoints",
        /// How long a Kafka transaction gathers under load. Longer costs latency under load and
        /// saves the brokers work; when idle, a commit is published at once in any case. 10s at
        /// most.
        transaction_interval: Located<TransactionInterval> = "50ms",
        /// How large a Kafka transaction becomes under load; a PostgreSQL transaction up to this
        /// size is never split. At least 1MiB.
        transaction_bytes: TransactionBytes = "8MiB",
        /// What becomes of a PostgreSQL transaction larger than `transaction_bytes`: `split`, still
        /// exactly once and in order, or `atomic`, one Kafka transaction, as far as
        /// `transaction.timeout.ms` reaches.
        large_transactions: Located<LargeTransactions> = "split",
        /// How long Kafka may take nothing while something waits for it, until the replication
        /// connection is closed, so that PostgreSQL can shut down. It is taken again when Kafka
        /// answers.
        outage_grace: OutageGrace = "60s",
        /// Whether missing topics are made. If not, they are refused: at the start where the
        /// settings name them, else at the first event.
        create_topics: bool = true,
        /// How topics are made; the brokers' defaults where not said.
        topic: TopicSection,
        /// Which partition a key goes to, as the clients before did it: `murmur2` the Java clients
        /// and kafkajs, `kafkajs-legacy` kafkajs' LegacyPartitioner, `crc32` librdkafka, `fnv1a`
        /// Sarama.
        partitioner: Partitioner = "murmur2",
        /// A file that holds the password of `sasl.username`: a mounted secret, in the place of
        /// `sasl.password`.
        password_file: Option<Located<SecretFile>>,
        /// Any librdkafka property, but those that the guarantee rests on.
        properties: Properties,
    }
}

section! {
    /// `[kafka.topic]`
    TopicSection {
        /// Partitions of a topic that is made.
        partitions: Option<Count>,
        /// Replicas of a topic that is made.
        replication_factor: Option<Count>,
        /// The configuration of a topic that is made, as "max.message.bytes".
        config: Names,
    }
}

section! {
    /// `[[outbox]]`
    OutboxSection {
        /// The table with its schema, both as the catalog has them: without quotes.
        table: Located<TableName>,
        /// Whose table it is: `tailwater`, where each column has the name of its purpose, or
        /// `debezium`, the table of Debezium's EventRouter: the columns id, aggregatetype,
        /// aggregateid, type and payload, the topic outbox.event.{aggregate_type}, the payload
        /// `bare`, and the id in the header `id` too. Each of these can be set apart from it.
        layout: Layout = "tailwater",
        /// Which topic an event goes to. A template: {type}, {domain} (the type up to its first
        /// dot), {aggregate_type}, {column:NAME}, {schema}, {table}. The layout may have another
        /// default.
        topic: Located<TopicTemplate> = "{domain}.events",
        /// What the payload column holds: the event's `data`, the whole `envelope`, or the `bare`
        /// value of the record. The layout may have another default.
        payload: Located<PayloadForm> = "data",
        /// Names of columns that are not called as their purpose.
        columns: ColumnsSection,
        /// More record headers: the header's name, and the column whose text it gets.
        headers: Names,
        /// Rows whose `created_at` is older than this are deleted once they are published. None
        /// that was there before the pipeline began. As "7d".
        retention: Option<RetentionAge>,
    }
}

section! {
    /// `columns` of an outbox
    ColumnsSection {
        /// The event's id: a uuid, or text that holds one. A key of another kind, such as a
        /// bigserial, gives a UUID that is made of it.
        id: Option<String>,
        /// The record's key.
        aggregate_id: Option<String>,
        /// For {aggregate_type} in the topic. May be absent.
        aggregate_type: Option<String>,
        /// The event's type.
        event_type: Option<String>,
        /// The event's data, or all of the event.
        payload: Option<String>,
        /// When it occurred. May be absent: then it is the time of the commit.
        created_at: Option<String>,
        /// The envelope's version. May be absent: then it is 1.0.
        version: Option<String>,
        /// May be absent: then it is that of the transaction's context, else the event's id.
        correlation_id: Option<String>,
        /// May be absent.
        causation_id: Option<String>,
        /// The W3C trace context. May be absent.
        traceparent: Option<String>,
        /// A jsonb or json object, or a domain over one, whose members become record headers.
        /// May be absent.
        headers: Option<String>,
    }
}

section! {
    /// `[[message]]`
    MessageSection {
        /// The prefix of messages that are events: pg_logical_emit_message(true, prefix, content).
        prefix: Located<String>,
        /// Which topic an event goes to. A template: {type}, {domain} (the type up to its first
        /// dot).
        topic: Located<TypeTemplate> = "{domain}.events",
    }
}

section! {
    /// `[types]`
    TypesSection {
        /// An int8: a `number`, which JavaScript rounds beyond 2^53, or a `string`. Either keeps
        /// every digit.
        int8: Located<Int8Form> = "number",
        /// A numeric: a `string` or a `number`, either with every digit. NaN and infinity are
        /// strings in any case.
        numeric: Located<NumericForm> = "string",
        /// A bytea: `base64` or `hex`, in lower case.
        bytea: Located<ByteaForm> = "base64",
    }
}

section! {
    /// `[[table]]`
    TableSection {
        /// The table with its schema, both as the catalog has them: without quotes; or, with * for
        /// any characters of its name, all tables of the publication that match, outboxes apart.
        /// Of the sections that match a table, the one that names it counts, else the first.
        name: Located<TablePattern>,
        /// Which topic an event goes to. A template: {type}, {domain} (the type up to its first
        /// dot), {column:NAME}, {schema}, {table}.
        topic: Located<TableTopic> = "{table}.events",
        /// The columns of the record's key. Unless said, the table's own key. None that events
        /// hide.
        key: Option<ColumnList>,
        /// What an event's `data` is: the `row`, or the `change`: `before`, `after` and the names
        /// of what `changed`.
        data: Located<DataForm> = "row",
        /// Whether a null record follows what a delete becomes, under the same key and in the same
        /// topic, for topics that are compacted. Nothing follows a delete of which rules make no
        /// event; to rules, a change of the key is an update.
        tombstone: bool = false,
        /// Whether the rows that the table has are published too, each as `<table>.snapshot`, beside
        /// the stream, or, of a table without a key, before it: from the first start on, or from when
        /// the table is configured (`initial`), or only when somebody asks for them (`never`).
        snapshot: SnapshotMode = "initial",
        /// How values of some types and columns are written.
        types: TableTypesSection,
        /// What events show of the columns.
        columns: TableColumnsSection,
        /// What a change becomes that no `[[table.event]]` matches: nothing (`skip`), or the event
        /// that it is without them (`default`). Unless said, `skip` where there are any.
        otherwise: Option<Located<Otherwise>>,
        /// The rules.
        event: Vec<EventSection>,
    }
}

section! {
    /// `types` of a `[[table]]`
    TableTypesSection {
        /// In the place of the file's `types.int8`.
        int8: Option<Int8Form>,
        /// In the place of the file's `types.numeric`.
        numeric: Option<NumericForm>,
        /// In the place of the file's `types.bytea`.
        bytea: Option<ByteaForm>,
        /// Single columns: `number` or `string` for an int8 or numeric, `base64` or `hex` for a
        /// bytea.
        columns: ByName<Located<ColumnForm>>,
    }
}

section! {
    /// `columns` of a `[[table]]`
    TableColumnsSection {
        /// Columns that no event shows.
        exclude: Option<ColumnList>,
        /// Columns whose values are replaced: by `redact` with "***", by `sha256` with the hash of
        /// `mask_salt` and the value, the same for equal values. NULL stays null.
        mask: ByName<Located<MaskForm>>,
    }
}

section! {
    /// `[[table.event]]`
    EventSection {
        /// The type of the event that this rule makes of a change. Each rule that matches makes
        /// one, in the order of the file.
        r#type: Located<String>,
        /// Which changes: an expression in CEL over `op` ("insert", "update", "delete", "truncate",
        /// or "snapshot" for a row that was there before), `old` and `new`, as
        /// "old.status != new.status". Unless said, each.
        when: Option<Expression>,
        /// The envelope's `version`. Unless said, 1.0.
        version: Option<String>,
        /// The event's `data`: its members in their order, each an expression in CEL. Unless said,
        /// what `data` of the table says.
        data: Option<ByName<Expression>>,
        /// Which topic it goes to, in the place of the table's `topic`.
        topic: Option<Located<TableTopic>>,
    }
}

section! {
    /// `[[route]]`
    RouteSection {
        /// Which events: a pattern for their types, in which * stands for any characters and ? for
        /// one. Of the routes that match, the first in the file counts.
        r#type: Located<TypeGlob>,
        /// Where they go instead of where their own section says. A template: {type}, {domain}.
        topic: Located<TypeTemplate>,
    }
}

section! {
    /// `[admin]`
    AdminSection {
        /// The unix socket, mode 0600, by which `tailwater snapshot` reaches the running daemon: an
        /// absolute path, or `off`. Unless said, `tailwater-<slot>.sock` in $XDG_RUNTIME_DIR, else in
        /// /run/tailwater, else `tailwater-<uid>-<slot>.sock` in the folder for temporary files: the
        /// first of them in which the daemon may make it.
        socket: Option<AdminSocket>,
    }
}

section! {
    /// `[log]`
    LogSection {
        /// `text` or `json`. Unless said, text on a terminal and JSON elsewhere.
        format: Option<LogFormat>,
        /// What is logged, as in "info" or "info,tailwater::sink=debug".
        filter: LogFilter = "info",
    }
}
