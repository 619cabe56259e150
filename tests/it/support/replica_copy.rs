//! A copy of the tables of `replica_source`, kept by nothing but events: what a consumer has to do.

use std::collections::{HashMap, hash_map::Entry};

use serde::Deserialize;
use serde_json::value::RawValue;
use tailwater::lsn::Lsn;

use super::{
    kafka::Record,
    postgres::Session,
    replica_source::{CREATE, Table},
    table_shop::{place, position},
};

/// Events that are applied by one message to the server.
const BATCH: usize = 100;

/// Reads what the daemon may write as the text of JSON.
const READ_JSON: &str = "
    CREATE FUNCTION read_json(data jsonb, VARIADIC names text[]) RETURNS jsonb LANGUAGE sql AS $$
        SELECT data || coalesce((
            SELECT jsonb_object_agg(name, (data ->> name)::jsonb) FROM unnest(names) name
            WHERE jsonb_typeof(data -> name) = 'string'
        ), '{}')
    $$";

/// What is expected of an event that is there twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    ExactlyOnce,
    AtLeastOnce,
}

impl Delivery {
    /// As settings have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly-once",
            Self::AtLeastOnce => "at-least-once",
        }
    }
}

/// The envelope, its data as it was written.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    event_type: String,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(default)]
    unavailable: Vec<String>,
}

/// `data` of a table with `data = "change"`.
#[derive(Deserialize)]
struct Change<'a> {
    #[serde(borrow)]
    before: Option<&'a RawValue>,
    #[serde(borrow)]
    after: Option<&'a RawValue>,
    changed: Option<Vec<String>>,
}

/// What happened to a row, with the columns that are told of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Created,
    Updated,
    Deleted,
    Truncated,
    /// It is there.
    Snapshot,
}

/// What a copy begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beginning {
    /// All that there is.
    Whole,
    /// Nothing: rows that were there come beside the changes, and a change may be of one that did not
    /// come yet.
    WithoutRows,
}

/// One event, as far as a copy needs it.
struct Step {
    transaction: Lsn,
    table: Table,
    kind: Kind,
    /// JSON of the old row, as far as it is told.
    before: Option<String>,
    /// JSON of the new row.
    after: Option<String>,
    /// Columns of the new row that are not told.
    unavailable: Vec<String>,
}

/// Checks what each consumer may rely on, and returns the events in the order of the log, each once.
pub fn in_order(records: Vec<Record>, delivery: Delivery) -> Vec<Record> {
    let mut by_id: HashMap<String, Record> = HashMap::new();
    let mut partitions: HashMap<(String, Vec<u8>), i32> = HashMap::new();
    let mut newest: HashMap<(String, i32), (Lsn, u64)> = HashMap::new();
    let mut newest_of_key: HashMap<(String, Vec<u8>), (Lsn, Option<u64>)> = HashMap::new();
    let mut topics: HashMap<String, String> = HashMap::new();
    let mut doubled = 0;
    for record in records {
        let event = record.json();
        let id = record.header("event-id").expect("an id").to_owned();
        assert_eq!(event["id"], *id);
        let event_type = event["type"].as_str().expect("a type");
        let (table, _) = event_type.rsplit_once('.').expect("a table and what happened");
        let topic = topics.entry(table.to_owned()).or_insert_with(|| record.topic.clone());
        assert_eq!(*topic, record.topic, "a table in two topics: {event}");
        if let Some(key) = &record.key {
            let key = (record.topic.clone(), key.clone());
            let partition = *partitions.entry(key).or_insert(record.partition);
            assert_eq!(partition, record.partition, "a key in two partitions: {event}");
        }
        if delivery == Delivery::ExactlyOnce {
            if let Some(place) = position(&record) {
                let partition = (record.topic.clone(), record.partition);
                let before = newest.insert(partition, place);
                assert!(before.is_none_or(|before| before < place), "out of order: {event}");
            }
            // A row that was there too is never behind a change that came later.
            if let Some(key) = &record.key {
                let key = (record.topic.clone(), key.clone());
                let before = newest_of_key.insert(key, place(&record));
                let is_in_order = before.is_none_or(|before| before < place(&record));
                assert!(is_in_order, "out of order: {event}");
            }
        }
        match by_id.entry(id) {
            Entry::Vacant(entry) => _ = entry.insert(record),
            Entry::Occupied(first) => {
                assert_eq!(delivery, Delivery::AtLeastOnce, "doubled: {event}");
                // A row that is read again may have changed meanwhile, as the stream told.
                if position(&record).is_some() {
                    assert_eq!(told(first.get()), told(&record), "the same id, another event");
                }
                doubled += 1;
            }
        }
    }
    let mut records: Vec<Record> = by_id.into_values().collect();
    records.sort_by_key(place);
    let mut due = (None, 0);
    for record in &records {
        let Some((transaction, sequence)) = position(record) else { continue };
        due = match due {
            (Some(open), next) if open == transaction => (Some(open), next),
            (_, _) => (Some(transaction), 0),
        };
        assert_eq!(sequence, due.1, "a gap in {transaction}");
        due.1 += 1;
    }
    eprintln!("{} events, {doubled} doubled", records.len());
    records
}

/// All that a record is made of, but for its place in Kafka.
fn told(record: &Record) -> impl PartialEq + std::fmt::Debug {
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    let Record { topic, partition, key, value, headers, timestamp_ms, .. } = record;
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    let (key, value) = (key.as_ref().map(text), value.as_ref().map(text));
    (topic.clone(), *partition, key, value, headers, *timestamp_ms)
}

/// The tables that events are applied to.
pub struct Copy {
    session: Session,
    beginning: Beginning,
}

/// Marks a statement that need not find a row.
const ANY: &str = "/* if it is there */ ";

impl Copy {
    /// Empty tables in an empty database.
    pub fn create(session: Session) -> Self {
        session.run(&format!("{CREATE}; {READ_JSON}"));
        Self { session, beginning: Beginning::Whole }
    }

    /// Empty tables of the shape that the source has after these statements, rows of `ddl_log`.
    pub fn create_reshaped(session: Session, statements: &[Vec<Option<String>>]) -> Self {
        session.run(&format!("{CREATE}; {READ_JSON}"));
        for row in statements {
            let [Some(id), Some(statement)] = row.as_slice() else { panic!("{row:?}") };
            session.run(statement);
            session.run(&format!("INSERT INTO ddl_log VALUES ({id}, $ddl${statement}$ddl$)"));
        }
        Self { session, beginning: Beginning::WithoutRows }
    }

    /// Applies events, which come in the order of the log. Each must find its row.
    pub fn apply(&self, records: &[Record]) {
        let steps: Vec<Step> = records.iter().map(Step::of).collect();
        let mut steps = steps.iter().peekable();
        let mut batch = Vec::new();
        while let Some(step) = steps.next() {
            if step.table == Table::DdlLog {
                self.run(&mut batch);
                self.session.run(&self.statement(step));
            }
            // A key changed: what is not told of the new row is what the old one had.
            let moved = steps.peek().copied().filter(|next| step.is_moved_to(next));
            let statements = match (moved, step.kind) {
                (Some(created), _) => {
                    steps.next();
                    vec![created.update_sql(step.old_row())]
                }
                // Nothing tells whether one that is alike is this one; the rows come only once.
                (None, Kind::Snapshot) if step.table.key().is_empty() => vec![step.insert_sql()],
                (None, Kind::Snapshot) => {
                    vec![format!("{ANY}{}", step.delete_sql(step.new_row())), step.insert_sql()]
                }
                (None, _) => vec![step.sql()],
            };
            batch.extend(statements);
            if batch.len() >= BATCH {
                self.run(&mut batch);
            }
        }
        self.run(&mut batch);
    }

    /// The change of shape that a row of `ddl_log` is of.
    fn statement(&self, step: &Step) -> String {
        assert_eq!(step.kind, Kind::Created, "nobody changes ddl_log");
        let row: serde_json::Value = serde_json::from_str(step.new_row()).expect("JSON");
        row["statement"].as_str().expect("a statement").to_owned()
    }

    fn run(&self, batch: &mut Vec<String>) {
        if batch.is_empty() {
            return;
        }
        let sql = batch.join(";\n");
        let counts =
            self.session.try_counts(&sql).unwrap_or_else(|error| panic!("{error:?}: {sql}"));
        for (statement, count) in batch.iter().zip(&counts) {
            let is_whole = statement.starts_with("TRUNCATE");
            let is_insert = statement.starts_with("INSERT");
            let may_miss = statement.starts_with(ANY)
                || (self.beginning == Beginning::WithoutRows && !is_insert);
            let is_right = *count == 1 || (*count == 0 && may_miss);
            assert!(is_right || is_whole, "{count} rows: {statement}");
        }
        assert_eq!(counts.len(), batch.len());
        batch.clear();
    }

    /// Compares each table with the source, row for row.
    pub fn assert_equals(&self, source: &Session) {
        for table in Table::ALL {
            let sql = format!("SELECT t::text FROM {} t ORDER BY 1", table.quoted());
            let [expected, found] = [source, &self.session].map(|session| session.rows(&sql));
            let mut differing = expected.iter().zip(&found).filter(|(left, right)| left != right);
            if let Some((expected, found)) = differing.next() {
                panic!("{table:?}: the source has {expected:?}, and the copy {found:?}");
            }
            assert_eq!(expected.len(), found.len(), "{table:?}");
            eprintln!("{table:?}: {} rows", found.len());
        }
    }
}

impl Step {
    fn of(record: &Record) -> Self {
        let text = std::str::from_utf8(record.value.as_deref().expect("a value")).expect("UTF-8");
        let event: Event<'_> = serde_json::from_str(text).expect("an event");
        let (table, kind) = event.event_type.rsplit_once('.').expect("a table and what happened");
        let table = Table::ALL.into_iter().find(|known| known.name() == table).expect("a table");
        let kind = match kind {
            "created" => Kind::Created,
            "updated" => Kind::Updated,
            "deleted" => Kind::Deleted,
            "truncated" => Kind::Truncated,
            "snapshot" => Kind::Snapshot,
            other => panic!("{other}"),
        };
        let is_row = ["before", "after"].iter().all(|name| member(event.data, name).is_none());
        let raw = |json: &RawValue| json.get().to_owned();
        let (before, after) = match kind {
            Kind::Truncated => {
                assert_eq!(event.data.get(), "null");
                (None, None)
            }
            Kind::Created | Kind::Updated | Kind::Snapshot if is_row => {
                (None, Some(raw(event.data)))
            }
            Kind::Deleted if is_row => (Some(raw(event.data)), None),
            Kind::Created | Kind::Updated | Kind::Deleted | Kind::Snapshot => {
                let change: Change<'_> = serde_json::from_str(event.data.get()).expect("a change");
                change.check(kind);
                (change.before.map(raw), change.after.map(raw))
            }
        };
        for name in &event.unavailable {
            let after = after.as_deref().expect("what is unavailable is of a new row");
            let row: HashMap<String, &RawValue> = serde_json::from_str(after).expect("a row");
            assert!(!row.contains_key(name), "{name} is told, and said to be unavailable");
        }
        let (transaction, _) = place(record);
        Self { transaction, table, kind, before, after, unavailable: event.unavailable }
    }

    fn old_row(&self) -> &str {
        self.before.as_deref().expect("an old row")
    }

    fn new_row(&self) -> &str {
        self.after.as_deref().expect("a new row")
    }

    /// Whether this and the next one are a row whose key changed, and whose new values are not all
    /// told.
    fn is_moved_to(&self, next: &Self) -> bool {
        self.kind == Kind::Deleted
            && next.kind == Kind::Created
            && !next.unavailable.is_empty()
            && (self.transaction, self.table) == (next.transaction, next.table)
    }

    /// A row of JSON as one of the table.
    fn record(&self, json: &str) -> String {
        let names: String =
            self.table.json_columns().iter().map(|name| format!(", '{name}'")).collect();
        let data = match names.is_empty() {
            true => format!("$json${json}$json$"),
            false => format!("read_json($json${json}$json${names})"),
        };
        format!("jsonb_populate_record(NULL::{}, {data})", self.table.quoted())
    }

    fn sql(&self) -> String {
        let table = self.table.quoted();
        match self.kind {
            Kind::Created => {
                assert_eq!(self.unavailable, [""; 0], "nobody has what it lacks");
                self.insert_sql()
            }
            Kind::Snapshot => unreachable!("it has two statements"),
            // Where the old row is told, it is by that; else the key is the same.
            Kind::Updated => self.update_sql(self.before.as_deref().unwrap_or(self.new_row())),
            Kind::Deleted => self.delete_sql(self.old_row()),
            Kind::Truncated => format!("TRUNCATE {table}"),
        }
    }

    fn insert_sql(&self) -> String {
        let table = self.table.quoted();
        format!("INSERT INTO {table} SELECT * FROM {}", self.record(self.new_row()))
    }

    /// Takes away the row that `old` is of.
    fn delete_sql(&self, old: &str) -> String {
        let (table, is_row) = (self.table.quoted(), self.is_row());
        format!("DELETE FROM {table} t USING {} old WHERE {is_row}", self.record(old))
    }

    /// Sets what is told of the new row on the one that `old` is of.
    fn update_sql(&self, old: &str) -> String {
        let new: HashMap<String, &RawValue> = serde_json::from_str(self.new_row()).expect("a row");
        let assignments: Vec<String> = new
            .keys()
            .map(|name| {
                let name = format!("\"{}\"", name.replace('"', "\"\""));
                format!("{name} = new.{name}")
            })
            .collect();
        format!(
            "UPDATE {} t SET {} FROM {} old, {} new WHERE {}",
            self.table.quoted(),
            assignments.join(", "),
            self.record(old),
            self.record(self.new_row()),
            self.is_row()
        )
    }

    /// Whether `t` is the row that `old` is of: by its key, else any one of the rows that are alike.
    fn is_row(&self) -> String {
        match self.table.key() {
            [] => format!(
                "t.ctid = (SELECT like_it.ctid FROM {} like_it WHERE like_it::text = old::text LIMIT 1)",
                self.table.quoted()
            ),
            key => {
                let is_same = |column: &&str| format!("t.{column} = old.{column}");
                key.iter().map(is_same).collect::<Vec<_>>().join(" AND ")
            }
        }
    }
}

/// A member of a JSON object.
fn member<'a>(json: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    let members: Option<HashMap<String, &RawValue>> = serde_json::from_str(json.get()).ok();
    members?.remove(name)
}

impl Change<'_> {
    /// What is there at all, and that `changed` names what differs.
    fn check(&self, kind: Kind) {
        let Self { before, after, changed } = self;
        let is_right = match kind {
            Kind::Created | Kind::Snapshot => {
                before.is_none() && after.is_some() && changed.is_none()
            }
            Kind::Updated => after.is_some() && (changed.is_none() || before.is_some()),
            Kind::Deleted => before.is_some() && after.is_none() && changed.is_none(),
            Kind::Truncated => false,
        };
        assert!(is_right, "{kind:?}: {before:?} {after:?} {changed:?}");
        let (Some(before), Some(after), Some(changed)) = (before, after, changed) else { return };
        let row = |json: &RawValue| -> HashMap<String, String> {
            let row: HashMap<String, &RawValue> = serde_json::from_str(json.get()).expect("a row");
            row.into_iter().map(|(name, value)| (name, value.get().to_owned())).collect()
        };
        let (before, after) = (row(before), row(after));
        assert_eq!(before.len(), after.len(), "both rows are whole");
        for (name, value) in &after {
            assert_eq!(changed.contains(name), before[name] != *value, "{name} of {changed:?}");
        }
    }
}
