//! Every type on Kafka: a row that was there and a row of the stream are the same bytes, and
//! PostgreSQL reads the stored value from them.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use fastrand::Rng;
use serde::Deserialize;
use serde_json::value::RawValue;
use tailwater::value::{ByteaForm, Int8Form, NumericForm, Options};

use crate::support::{
    PATIENCE, json_values,
    kafka::Broker,
    literals::{self, Nullable},
    odd_forms,
    postgres::{Server, Session},
    random_types::{RandomTypes, Shape, SqlType, random_options, seeded},
    random_values::chosen,
    scaled,
    scene::{init, publishing},
    table_shop::TableShop,
};

/// Values that are published and read back on each version, at full size.
const VALUES: u64 = 100_000;

/// Wide tables, and therefore few: each one's rows are read by themselves.
const COLUMNS: usize = 80;

/// About as many of a hundred values are not NULL.
const VALUES_OF_HUNDRED: u64 = 85;

/// What is on the search path is written without its schema.
const SEARCH_PATHS: [&str; 2] = ["\"Odd schema\", public", "pg_catalog"];

/// A table of the schema `stored`; `kept` and `back` have it too.
struct Table {
    name: String,
    columns: Vec<Column>,
}

struct Column {
    of: Arc<SqlType>,
    options: Options,
}

impl Table {
    /// A table that the settings may say something about by itself, and what they say.
    fn random(index: usize, columns: &[Arc<SqlType>], of_file: Options, random: &mut Rng) -> Said {
        let name = format!("t{index}");
        if random.bool() {
            let columns = columns.iter().map(|of| Column { of: Arc::clone(of), options: of_file });
            return Said { table: Self { name, columns: columns.collect() }, section: None };
        }
        let (said, of_table) = match random.bool() {
            true => (None, of_file),
            false => {
                let options = random_options(random);
                (Some(words(options)), options)
            }
        };
        let mut of_columns = Vec::new();
        let column = |(index, of): (usize, &Arc<SqlType>)| {
            let mut options = of_table;
            if random.bool()
                && let Some(word) = random_word(of, &mut options, random)
            {
                of_columns.push(format!("c{index} = \"{word}\""));
            }
            Column { of: Arc::clone(of), options }
        };
        let columns = columns.iter().enumerate().map(column).collect();
        let of_columns = format!("columns = {{ {} }}", of_columns.join(", "));
        let types = said.into_iter().chain([of_columns]).collect::<Vec<_>>().join(", ");
        let section = format!("{}types = {{ {types} }}\n\n", section(&name));
        Said { table: Self { name, columns }, section: Some(section) }
    }

    fn create(&self, session: &Session) {
        let mut definitions = "id int PRIMARY KEY".to_owned();
        for (index, column) in self.columns.iter().enumerate() {
            let _ = write!(definitions, ", c{index} {}", column.of.sql);
        }
        let name = &self.name;
        session.run(&format!(
            "CREATE TABLE stored.{name} ({definitions}); \
             ALTER TABLE stored.{name} REPLICA IDENTITY FULL; \
             CREATE TABLE back.{name} (LIKE stored.{name})"
        ));
    }

    fn insert(&self, session: &Session, schema: &str, id: u64, row: &[Nullable]) {
        let values: Vec<String> = row.iter().map(literals::sql).collect();
        let sql =
            format!("INSERT INTO {schema}.{} VALUES ({id}, {})", self.name, values.join(", "));
        session.run(&sql);
    }

    fn insert_random(
        &self,
        session: &Session,
        types: &RandomTypes,
        ids: std::ops::Range<u64>,
        random: &mut Rng,
    ) {
        for id in ids {
            let row: Vec<Nullable> =
                self.columns.iter().map(|column| types.value(&column.of, random)).collect();
            self.insert(session, "stored", id, &row);
        }
    }

    /// Reads a row back from its JSON. Says how many of its values are not NULL.
    fn read_back(&self, session: &Session, id: u64, data: &str) -> u64 {
        let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(data).expect("a row");
        assert_eq!(members.len(), self.columns.len() + 1, "{data}");
        let row: Vec<Nullable> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, Column { of, options })| {
                json_values::literal(of, members[&format!("c{index}")].get(), *options)
            })
            .collect();
        self.insert(session, "back", id, &row);
        row.iter().flatten().count() as u64
    }

    /// What was read back is what was stored, by the texts that their types write.
    fn assert_came_back(&self, session: &Session, rows: u64) {
        let name = &self.name;
        let joined = format!("FROM kept.{name} k JOIN back.{name} b USING (id)");
        let count = session.value(&format!("SELECT count(*) {joined}"));
        assert_eq!(count, Some(rows.to_string()), "rows of {name}");
        for (index, column) in self.columns.iter().enumerate() {
            let [kept, back] = ["k", "b"].map(|of| format!("ROW({of}.c{index})::text"));
            let other =
                session.rows(&format!("SELECT id, {kept}, {back} {joined} WHERE {kept} <> {back}"));
            assert!(other.is_empty(), "{}: {other:?}", column.of.sql);
        }
    }
}

/// A table, and its section of the settings where it has one.
struct Said {
    table: Table,
    section: Option<String>,
}

fn section(table: &str) -> String {
    format!("[[table]]\nname = \"stored.{table}\"\ntopic = \"{{source}}.rows\"\n")
}

/// Options as `types` has them.
fn words(Options { int8, numeric, bytea }: Options) -> String {
    let int8 = if int8 == Int8Form::String { "string" } else { "number" };
    let numeric = if numeric == NumericForm::String { "string" } else { "number" };
    let bytea = if bytea == ByteaForm::Hex { "hex" } else { "base64" };
    format!("int8 = \"{int8}\", numeric = \"{numeric}\", bytea = \"{bytea}\"")
}

/// What `types.columns` says of a column, where its type has several forms.
fn random_word(of: &SqlType, options: &mut Options, random: &mut Rng) -> Option<&'static str> {
    let is_first = random.bool();
    match &of.shape {
        Shape::Array { element: inner, .. } | Shape::Domain { base: inner } => {
            random_word(inner, options, random)
        }
        Shape::Scalar(name) => match name.as_str() {
            "int8" => {
                options.int8 = if is_first { Int8Form::Number } else { Int8Form::String };
                Some(if is_first { "number" } else { "string" })
            }
            "numeric" | "numeric(12,3)" => {
                options.numeric = if is_first { NumericForm::Number } else { NumericForm::String };
                Some(if is_first { "number" } else { "string" })
            }
            "bytea" => {
                options.bytea = if is_first { ByteaForm::Base64 } else { ByteaForm::Hex };
                Some(if is_first { "base64" } else { "hex" })
            }
            _ => None,
        },
        Shape::Enum
        | Shape::Hstore
        | Shape::Composite { .. }
        | Shape::Range { .. }
        | Shape::Multirange { .. } => None,
    }
}

/// The envelope, its data as it was written.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    event_type: String,
    #[serde(borrow)]
    data: &'a RawValue,
    unavailable: Option<Vec<String>>,
}

/// What was said of each row, in the order in which it was: what happened, and `data`.
fn events(topic: &str) -> BTreeMap<(String, u64), Vec<(String, String)>> {
    let mut rows: BTreeMap<_, Vec<_>> = BTreeMap::new();
    Broker::shared().for_each_committed(topic, |record| {
        let text = std::str::from_utf8(record.value.as_deref().expect("a value")).expect("UTF-8");
        let event: Event<'_> = serde_json::from_str(text).expect("an event");
        assert_eq!(event.unavailable, None, "{text}");
        let (table, happened) = event.event_type.split_once('.').expect("a table");
        let key = std::str::from_utf8(record.key.as_deref().expect("a key")).expect("UTF-8");
        let row = (table.to_owned(), key.parse().expect("an id"));
        rows.entry(row).or_default().push((happened.to_owned(), event.data.get().to_owned()));
    });
    rows
}

/// The members in which two rows differ.
fn differing<'a>(one: &'a str, other: &'a str) -> Vec<(String, &'a str, &'a str)> {
    let [one, other]: [BTreeMap<String, &RawValue>; 2] =
        [one, other].map(|text| serde_json::from_str(text).expect("a row"));
    let pairs = one.into_iter().map(|(name, value)| {
        let other = other.get(&name).map_or("", |other| other.get());
        (name, value.get(), other)
    });
    pairs.filter(|(_, one, other)| one != other).collect()
}

/// Types, values and their forms are random; `TAILWATER_SEED` repeats a run.
fn every_row_has_one_form(version: u32) {
    let mut random = seeded(version);
    let shop = TableShop::open_with_rows(Server::start_version(version), "", "");
    let session = &shop.session;
    let types = RandomTypes::create(session, &mut random);
    eprintln!("{} types, with the extensions {:?}", types.all.len(), types.extensions);
    session.run("CREATE SCHEMA stored; CREATE SCHEMA kept; CREATE SCHEMA back");
    let of_file = random_options(&mut random);
    let mut all = types.all.clone();
    random.shuffle(&mut all);
    let said = all.chunks(COLUMNS).enumerate();
    let said = said.map(|(index, columns)| Table::random(index, columns, of_file, &mut random));
    let (mut tables, mut sections) = (Vec::new(), String::new());
    for Said { table, section } in said {
        table.create(session);
        sections.extend(section);
        tables.push(table);
    }
    sections.push_str(&section("*"));
    let values_of_rows = types.all.len() as u64 * VALUES_OF_HUNDRED / 100;
    // Half of them are there before.
    let rows = (scaled(VALUES) / values_of_rows + 1).next_multiple_of(2);
    for table in &tables {
        table.insert_random(session, &types, 0..rows / 2, &mut random);
    }
    odd_forms::say(session);
    let search_path = chosen(&mut random, &SEARCH_PATHS);
    session.run(&format!(
        "ALTER DATABASE shop SET search_path = {search_path}; SET search_path = {}",
        SEARCH_PATHS[0]
    ));

    let sections = sections.replace("{source}", &shop.source);
    let shop = shop.with_head(&format!("types = {{ {} }}", words(of_file))).with_settings(|file| {
        // A row of all types is large.
        let kafka = "[kafka]\ntopic = { config = { \"max.message.bytes\" = 16000000 } }";
        file.replaced("[kafka]", kafka).replaced("[postgres]", &format!("{sections}\n[postgres]"))
    });
    let session = &shop.session;
    init(&shop.settings);
    let mut daemon = publishing(&shop.settings);
    for table in &tables {
        shop.await_rows(&mut daemon, &format!("stored.{}", table.name));
    }
    for table in &tables {
        let name = &table.name;
        table.insert_random(session, &types, rows / 2..rows, &mut random);
        session.run(&format!(
            "UPDATE stored.{name} SET id = id; CREATE TABLE kept.{name} AS TABLE stored.{name}; \
             DELETE FROM stored.{name}"
        ));
    }
    shop.await_published(&mut daemon);
    // Not asked for its memory: it holds rows of all types as a whole.
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.wait(PATIENCE).code, Some(0));

    let told = events(&format!("{}.rows", shop.source));
    let mut values = 0;
    for table in &tables {
        for id in 0..rows {
            let events = &told[&(table.name.clone(), id)];
            let happened: Vec<&str> = events.iter().map(|(happened, _)| &**happened).collect();
            let first = if id < rows / 2 { "snapshot" } else { "created" };
            assert_eq!(happened, [first, "updated", "deleted"], "{} {id}", table.name);
            let (_, data) = &events[0];
            for (happened, other) in events {
                assert!(data == other, "{first}, {happened}: {:?}", differing(data, other));
            }
            values += table.read_back(session, id, data);
        }
        table.assert_came_back(session, rows);
    }
    assert!(values >= scaled(VALUES), "{values}");
    eprintln!("{values} values of PostgreSQL {version}, {rows} rows of {} tables", tables.len());
}

#[test]
fn every_row_of_postgres_14_is_the_same_by_snapshot_and_stream() {
    every_row_has_one_form(14);
}

#[test]
fn every_row_of_postgres_15_is_the_same_by_snapshot_and_stream() {
    every_row_has_one_form(15);
}

#[test]
fn every_row_of_postgres_16_is_the_same_by_snapshot_and_stream() {
    every_row_has_one_form(16);
}

#[test]
fn every_row_of_postgres_17_is_the_same_by_snapshot_and_stream() {
    every_row_has_one_form(17);
}

#[test]
fn every_row_of_postgres_18_is_the_same_by_snapshot_and_stream() {
    every_row_has_one_form(18);
}
