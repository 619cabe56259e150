//! A database with domain tables, its settings, and what the daemon makes of what is done there.

use std::time::Duration;

use serde_json::{Value, json};
use tailwater::lsn::Lsn;

use super::{
    PATIENCE,
    daemon::Daemon,
    kafka::{Broker, Record},
    oracle::event_schema,
    postgres::{Server, Session},
    reader::CommittedReader,
    scene::{publishing, stop},
    settings::SettingsFile,
    wait_until,
};

/// How long everything that waits may take to be published.
const DRAIN_MAX: Duration = Duration::from_secs(900);

/// A database `shop`, its settings and a connection.
pub struct TableShop {
    pub server: Server,
    pub session: Session,
    pub settings: SettingsFile,
    /// The setting `source`, which no other test has. Topics begin with it.
    pub source: String,
}

impl TableShop {
    /// Tables made by `sql`, and the sections that name them; `{source}` in topics keeps tests apart.
    /// Rows that are there at the start are not told of, so that a test need not wait for them.
    pub fn open(sql: &str, sections: &str) -> Self {
        Self::open_on(Server::start(), sql, sections)
    }

    /// The same on a server of some other kind.
    pub fn open_on(server: Server, sql: &str, sections: &str) -> Self {
        let sections = sections.replace("[[table]]\n", "[[table]]\nsnapshot = \"never\"\n");
        Self::open_with_rows(server, sql, &sections)
    }

    /// The same with the rows that are there at the start.
    pub fn open_with_rows(server: Server, sql: &str, sections: &str) -> Self {
        let session = server.create_database("shop");
        session.run(sql);
        let source = format!("source-{:08x}", fastrand::u32(..));
        let (url, brokers) = (server.url("shop"), Broker::shared().brokers());
        let settings = SettingsFile::of_text(format!(
            "source = \"{source}\"\n\n[postgres]\nurl = \"{url}\"\n\n[kafka]\nbrokers = \
             \"{brokers}\"\ncheckpoint_topic = \"{source}.checkpoints\"\n\n{}",
            sections.replace("{source}", &source)
        ));
        Self { server, session, settings, source }
    }

    /// With other settings.
    pub fn with_settings(mut self, change: impl FnOnce(SettingsFile) -> SettingsFile) -> Self {
        self.settings = change(self.settings);
        self
    }

    /// With one line more at the head of the file.
    pub fn with_head(self, line: &str) -> Self {
        self.with_settings(|settings| settings.replaced("source = ", &format!("{line}\nsource = ")))
    }

    /// Runs `sql` while a daemon publishes, until all of it is published.
    pub fn publish(&self, sql: &[&str]) {
        let daemon = publishing(&self.settings);
        for statement in sql {
            self.session.run(statement);
        }
        self.finish(daemon);
    }

    /// Waits until all is published, and stops the daemon.
    pub fn finish(&self, mut daemon: Daemon) {
        // One that was just started may have nothing left to do, and not listen yet.
        daemon.wait_for("publishing");
        self.await_published(&mut daemon);
        stop(daemon);
    }

    /// Waits until the slot has passed all that is in the log at this moment. A daemon that ends
    /// meanwhile never gets there.
    pub fn await_published(&self, daemon: &mut Daemon) {
        let end = self.session.value("SELECT pg_current_wal_lsn()").expect("a position");
        let sql = format!(
            "SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots \
             WHERE slot_name = 'tailwater'"
        );
        wait_until("the slot to pass what was committed", DRAIN_MAX, || {
            assert!(daemon.is_running(), "the daemon ended: {}", daemon.stderr());
            self.session.value(&sql).as_deref() == Some("t")
        });
    }

    /// Runs `sql` while a daemon publishes, and returns all that there is by then, in the order of the
    /// log.
    pub fn events(&self, sql: &[&str]) -> Vec<Record> {
        self.publish(sql);
        self.records()
    }

    /// All records of its topics, in the order of the log, dead letters left out.
    pub fn records(&self) -> Vec<Record> {
        let records = self.records_of(|topic| !topic.ends_with(".dlq"));
        let schema = event_schema();
        for record in records.iter().filter(|record| record.value.is_some()) {
            let event = record.json();
            assert!(schema.is_valid(&event), "{event}");
        }
        records
    }

    /// The dead letters, in the order of the log.
    pub fn dead_letters(&self) -> Vec<Record> {
        self.records_of(|topic| topic.ends_with(".dlq"))
    }

    fn records_of(&self, is_asked: impl Fn(&str) -> bool) -> Vec<Record> {
        let broker = Broker::shared();
        let prefix = format!("{}.", self.source);
        let is_ours = |topic: &String| {
            topic.starts_with(&prefix) && !topic.ends_with(".checkpoints") && is_asked(topic)
        };
        let topics = broker.topics().into_iter().filter(is_ours);
        let mut records: Vec<Record> =
            topics.flat_map(|topic| broker.read_committed(&topic)).collect();
        records.sort_by_key(place);
        records
    }

    /// Waits until all rows are published that the table had.
    pub fn await_rows(&self, daemon: &mut Daemon, table: &str) {
        self.await_row_record(daemon, table, "all rows of", |record| record["state"] == "done");
    }

    /// Waits until the record of a table's rows is as it should be.
    pub fn await_row_record(
        &self,
        daemon: &mut Daemon,
        table: &str,
        what: &str,
        is_met: impl Fn(&Value) -> bool,
    ) {
        let mut records = self.row_records(table);
        wait_until(&format!("{what} {table}"), DRAIN_MAX, || {
            assert!(daemon.is_running(), "the daemon ended: {}", daemon.stderr());
            records.newest().is_some_and(&is_met)
        });
    }

    /// Looks how far a table's rows are.
    pub fn row_records(&self, table: &str) -> RowRecords {
        RowRecords::open(Broker::shared(), &format!("{}.checkpoints", self.source), table)
    }

    /// Looks at checkpoints from here on.
    pub fn watch_checkpoints(&self) -> Checkpoints {
        let topic = format!("{}.checkpoints", self.source);
        let mut checkpoints = Checkpoints(CommittedReader::open(Broker::shared(), &topic));
        checkpoints.is_inside();
        checkpoints
    }
}

/// How far a table's rows are.
pub struct RowRecords {
    reader: CommittedReader,
    key: String,
    newest: Option<Value>,
}

impl RowRecords {
    /// Looks at a checkpoint topic, which must be there.
    pub fn open(broker: &Broker, topic: &str, table: &str) -> Self {
        let reader = CommittedReader::open(broker, topic);
        Self { reader, key: format!("/snapshot/{table}"), newest: None }
    }

    /// As it is committed at this moment.
    pub fn newest(&mut self) -> Option<&Value> {
        let Self { reader, key, newest } = self;
        reader.read_stable(|record| {
            if record.key.as_deref().is_some_and(|found| found.ends_with(key.as_bytes())) {
                *newest = Some(record.json());
            }
        });
        newest.as_ref()
    }
}

/// The checkpoints of a pipeline.
pub struct Checkpoints(CommittedReader);

impl Checkpoints {
    /// Waits for one that lies inside a transaction: a part of that is out.
    pub fn await_part(&mut self, daemon: &mut Daemon) {
        wait_until("a part of a transaction", PATIENCE, || {
            assert!(daemon.is_running(), "the daemon ended: {}", daemon.stderr());
            self.is_inside()
        });
    }

    /// Whether one of those since the last look lies inside a transaction.
    fn is_inside(&mut self) -> bool {
        let mut is_inside = false;
        let read = self.0.try_read(PATIENCE, |record| {
            if record.key.as_deref().is_some_and(|key| key.ends_with(b"/tailwater")) {
                is_inside |= !record.json()["in_progress"].is_null();
            }
        });
        read.expect("the topic can be read");
        is_inside
    }
}

/// Whether a daemon that begins goes on within a transaction, a part of which is out.
pub fn goes_on_inside(daemon: &Daemon) -> bool {
    daemon.wait_for("publishing");
    daemon.stderr().contains("\"in_progress\":true")
}

/// Where a record stands in the log: its transaction's commit, and its place among the events of that.
/// None for a row that was there.
pub fn position(record: &Record) -> Option<(Lsn, u64)> {
    let (commit_lsn, sequence) = place(record);
    Some((commit_lsn, sequence?))
}

/// The same for rows that were there: each stands before what was committed at its position.
pub fn place(record: &Record) -> (Lsn, Option<u64>) {
    let commit_lsn = record.header("pg-lsn").expect("a position").parse().expect("a position");
    let sequence = record.header("pg-seq");
    (commit_lsn, sequence.map(|sequence| sequence.parse().expect("a number")))
}

/// Type, key and data of an event.
pub type Told = (String, Option<String>, Value);

/// What each record tells.
pub fn told(records: &[Record]) -> Vec<Told> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let tell = |record: &Record| {
        let event_type = record.header("event-type").expect("a type").to_owned();
        let data =
            record.value.as_ref().map_or(json!("tombstone"), |_| record.json()["data"].clone());
        (event_type, record.key.as_deref().map(text), data)
    };
    records.iter().map(tell).collect()
}

/// What an event should tell.
pub fn event(event_type: &str, key: Option<&str>, data: Value) -> Told {
    (event_type.to_owned(), key.map(str::to_owned), data)
}
