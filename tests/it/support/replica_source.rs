//! Six tables of all sorts, and applications that change everything about them: rows, keys, columns,
//! types. What is done to their shape is a row of `ddl_log`, so that who follows the log can do it too.

use std::{
    fmt::Write as _,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use fastrand::Rng;

use super::{let_pass, postgres::Session};

/// How many rows a table of small keys may have.
const ROWS: u32 = 1_500;

/// Between two changes of a table's shape, in milliseconds.
const SHAPE_PAUSE: std::ops::Range<u64> = 20..250;

/// What the tables are made by, at the source and for the copy.
pub const CREATE: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'very happy');
    CREATE DOMAIN amount AS numeric(12, 2) CHECK (VALUE >= 0);
    CREATE TYPE address AS (street text, zip int, tags text[]);
    CREATE TABLE ddl_log (id bigserial PRIMARY KEY, statement text NOT NULL);
    CREATE TABLE plain (id int PRIMARY KEY, name text, price numeric, flag bool, at timestamptz,
        day date, doc jsonb, token uuid, numbers int[], words text[], feeling mood, amount amount,
        home address);
    CREATE TABLE composite (a int, b text, total bigint, doc jsonb, flag bool, PRIMARY KEY (b, a));
    CREATE TABLE keyless (n int, word text, doc jsonb, at timestamptz, home address);
    ALTER TABLE keyless REPLICA IDENTITY FULL;
    CREATE TABLE parted (id bigint, region text, amount amount, feeling mood, note text,
        PRIMARY KEY (id, region)) PARTITION BY LIST (region);
    CREATE TABLE parted_eu PARTITION OF parted FOR VALUES IN ('eu') PARTITION BY RANGE (id);
    CREATE TABLE parted_eu_low PARTITION OF parted_eu FOR VALUES FROM (MINVALUE) TO (700);
    CREATE TABLE parted_eu_high PARTITION OF parted_eu FOR VALUES FROM (700) TO (MAXVALUE);
    CREATE TABLE parted_us PARTITION OF parted FOR VALUES IN ('us');
    CREATE TABLE parted_rest PARTITION OF parted DEFAULT;
    CREATE TABLE wide (id uuid PRIMARY KEY, n int, a text NOT NULL, b text NOT NULL,
        doc jsonb NOT NULL, words text[] NOT NULL);
    ALTER TABLE wide ALTER a SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL,
        ALTER doc SET STORAGE EXTERNAL, ALTER words SET STORAGE EXTERNAL;
    CREATE TABLE \"Bestellung für Ümläute\" (\"Schlüssel\" text PRIMARY KEY, \"Größe\" numeric,
        \"camelCase\" int, \"mit Leer zeichen\" date, \"quote \"\"d\" text);
";

/// A table of [`CREATE`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    DdlLog,
    Plain,
    Composite,
    Keyless,
    Parted,
    Wide,
    Quoted,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::DdlLog,
        Self::Plain,
        Self::Composite,
        Self::Keyless,
        Self::Parted,
        Self::Wide,
        Self::Quoted,
    ];

    /// Those whose rows applications change.
    const CHANGED: [Self; 6] =
        [Self::Plain, Self::Composite, Self::Keyless, Self::Parted, Self::Wide, Self::Quoted];

    /// As the catalog has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::DdlLog => "ddl_log",
            Self::Plain => "plain",
            Self::Composite => "composite",
            Self::Keyless => "keyless",
            Self::Parted => "parted",
            Self::Wide => "wide",
            Self::Quoted => "Bestellung für Ümläute",
        }
    }

    /// As SQL has it.
    pub fn quoted(self) -> String {
        format!("\"{}\"", self.name())
    }

    /// Its key's columns, as SQL has them.
    pub fn key(self) -> &'static [&'static str] {
        match self {
            Self::DdlLog | Self::Plain | Self::Wide => &["id"],
            Self::Composite => &["a", "b"],
            Self::Keyless => &[],
            Self::Parted => &["id", "region"],
            Self::Quoted => &["\"Schlüssel\""],
        }
    }

    /// Its columns of type jsonb.
    pub fn json_columns(self) -> &'static [&'static str] {
        match self {
            Self::Plain | Self::Composite | Self::Keyless | Self::Wide => &["doc"],
            Self::DdlLog | Self::Parted | Self::Quoted => &[],
        }
    }

    /// A column that begins as an int.
    fn int_column(self) -> Option<&'static str> {
        match self {
            Self::Plain => Some("id"),
            Self::Composite => Some("a"),
            Self::Keyless | Self::Wide => Some("n"),
            Self::Quoted => Some("\"camelCase\""),
            Self::DdlLog | Self::Parted => None,
        }
    }
}

/// A column that was added meanwhile.
#[derive(Clone, Debug)]
struct Extra {
    table: Table,
    name: String,
    kind: Kind,
}

/// What an added column is of.
#[derive(Clone, Debug)]
enum Kind {
    Int,
    Bigint,
    Text,
    Numeric,
    IntArray,
    /// A type that was made for it.
    Enum(String),
    Composite(String),
    Domain(String),
}

/// The labels of each enum that is made.
const LABELS: [&str; 3] = ["low", "mid \"q\"", "hôch"];

impl Kind {
    fn sql_type(&self) -> String {
        match self {
            Self::Int => "int".to_owned(),
            Self::Bigint => "bigint".to_owned(),
            Self::Text => "text".to_owned(),
            Self::Numeric => "numeric".to_owned(),
            Self::IntArray => "int[]".to_owned(),
            Self::Enum(name) | Self::Composite(name) | Self::Domain(name) => name.clone(),
        }
    }

    /// The SQL that makes the type first.
    fn create_sql(&self) -> String {
        match self {
            Self::Enum(name) => {
                let [low, mid, high] = LABELS;
                format!("CREATE TYPE {name} AS ENUM ('{low}', '{mid}', '{high}'); ")
            }
            Self::Composite(name) => format!("CREATE TYPE {name} AS (x int, \"y Y\" text[]); "),
            Self::Domain(name) => {
                format!("CREATE DOMAIN {name} AS text CHECK (VALUE <> 'never'); ")
            }
            Self::Int | Self::Bigint | Self::Text | Self::Numeric | Self::IntArray => String::new(),
        }
    }

    fn value(&self, values: &mut Values) -> String {
        match self {
            Self::Int => values.int(),
            Self::Bigint => values.bigint(),
            Self::Text | Self::Domain(_) => values.text(),
            Self::Numeric => values.numeric(),
            Self::IntArray => values.ints(),
            Self::Enum(name) => format!("'{}'::{name}", LABELS[values.random.usize(0..3)]),
            Self::Composite(name) => {
                let (x, y) = (values.int(), values.texts());
                format!("ROW({x}, {y})::{name}")
            }
        }
    }
}

/// What all who change something know of the tables' shape. It may have changed a moment ago: then a
/// statement fails, and its transaction is one that was rolled back.
#[derive(Default, Debug)]
struct Shape {
    extras: Vec<Extra>,
    /// Labels of `mood` that were added.
    moods: Vec<String>,
}

/// SQL of values, the awkward ones among them.
struct Values {
    random: Rng,
    moods: Vec<String>,
}

impl Values {
    fn pick<'t>(&mut self, all: &[&'t str]) -> &'t str {
        all[self.random.usize(0..all.len())]
    }

    fn int(&mut self) -> String {
        self.random.i32(..).to_string()
    }

    fn bigint(&mut self) -> String {
        match self.random.u8(0..4) {
            0 => "9007199254740993".to_owned(),
            _ => self.random.i64(i64::MIN + 1..).to_string(),
        }
    }

    fn text(&mut self) -> String {
        match self.random.u8(0..3) {
            0 => format!("'text {}'", self.random.u32(..)),
            _ => self
                .pick(&[
                    "NULL",
                    "''",
                    "'NULL'",
                    "'Zoë \"Müller\"'",
                    "E'tab\\tand\\nline \\\\ end'",
                    "'山田太郎 🚚'",
                    "'{not, an, array}'",
                    "E'\\u0001\\u001f'",
                    "'d''Artagnan'",
                ])
                .to_owned(),
        }
    }

    fn numeric(&mut self) -> String {
        match self.random.u8(0..3) {
            0 => format!("{}.{:03}", self.random.i32(..), self.random.u16(0..1000)),
            _ => self
                .pick(&[
                    "NULL",
                    "0",
                    "1.50",
                    "1.5000",
                    "'NaN'",
                    "123456789012345678901234567890.123456789012345678901234567890",
                    "-0.000000000000000000001",
                    "1e40",
                ])
                .to_owned(),
        }
    }

    fn amount(&mut self) -> String {
        format!("{}.{:02}", self.random.u32(0..100_000), self.random.u8(0..100))
    }

    fn instant(&mut self) -> String {
        match self.random.u8(0..4) {
            0 => self
                .pick(&["NULL", "'infinity'", "'0044-03-15 01:02:03+00 BC'", "'20000-01-01'"])
                .to_owned(),
            _ => format!(
                "to_timestamp({}.{:06})",
                self.random.u32(..),
                self.random.u32(0..1_000_000)
            ),
        }
    }

    fn date(&mut self) -> String {
        match self.random.u8(0..4) {
            0 => self.pick(&["NULL", "'-infinity'", "'0044-03-15 BC'"]).to_owned(),
            _ => format!("'2000-01-01'::date + {}", self.random.i32(-90_000..90_000)),
        }
    }

    /// Always an object, so that its text is that of no other value.
    fn json(&mut self) -> String {
        let number = self.pick(&["1.50", "12345678901234567890.10", "-0", "1e300", "null", "true"]);
        let text = self.pick(&["a", "Zoë", "山田 🚚", "q\\\"uote", "l\\nine", "sl\\\\ash", ""]);
        let id = self.random.u32(..);
        format!("'{{\"id\": {id}, \"n\": {number}, \"t\": \"{text}\", \"l\": [{number}, {{}}]}}'")
    }

    fn uuid(&mut self) -> String {
        let bytes = self.random.u128(..).to_be_bytes();
        format!("'{}'", uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    fn ints(&mut self) -> String {
        match self.random.u8(0..2) {
            0 => format!("ARRAY[{}, NULL, {}]", self.int(), self.int()),
            _ => self
                .pick(&["NULL", "'{}'", "'{{1,2},{3,4}}'", "'[0:1]={5,6}'", "'{NULL}'"])
                .to_owned(),
        }
    }

    fn texts(&mut self) -> String {
        match self.random.u8(0..2) {
            0 => format!("ARRAY[{}, {}]::text[]", self.text(), self.text()),
            _ => self
                .pick(&[
                    "NULL",
                    "'{}'",
                    "'{\"NULL\",NULL,\"\"}'",
                    "'{\"a,b\",\"{c}\",\"d\\\\\\\"e\"}'",
                ])
                .to_owned(),
        }
    }

    fn mood(&mut self) -> String {
        if !self.moods.is_empty() && self.random.bool() {
            return format!("'{}'", self.moods[self.random.usize(0..self.moods.len())]);
        }
        self.pick(&["'sad'", "'ok'", "'very happy'", "NULL"]).to_owned()
    }

    /// Made by name, for the type may have more attributes by now.
    fn address(&mut self) -> String {
        let street = self.pick(&["Main St", "\\\"Q\\\" (a, b)", "", "Straße 🚚", "NULL"]);
        let zip = self.random.u32(0..100_000);
        match self.random.u8(0..5) {
            0 => "NULL".to_owned(),
            _ => format!(
                "jsonb_populate_record(NULL::address, '{{\"street\": \"{street}\", \"zip\": {zip}, \
                 \"tags\": [\"x y\", null]}}')"
            ),
        }
    }

    /// 4 to 5 KB that do not compress.
    fn large(&mut self) -> String {
        let salt = self.random.u32(..);
        let parts = self.random.u8(128..160);
        format!(
            "(SELECT string_agg(md5({salt}::text || n), '') FROM generate_series(1, {parts}) n)"
        )
    }

    fn large_json(&mut self) -> String {
        let salt = self.random.u32(..);
        format!(
            "(SELECT jsonb_object_agg('k' || n, md5({salt}::text || n)) FROM generate_series(1, 90) n)"
        )
    }

    fn large_texts(&mut self) -> String {
        let salt = self.random.u32(..);
        format!("(SELECT array_agg(md5({salt}::text || n)) FROM generate_series(1, 90) n)")
    }

    fn region(&mut self) -> &'static str {
        self.pick(&["'eu'", "'us'", "'mars'", "'moon'"])
    }

    fn small(&mut self) -> u32 {
        self.random.u32(0..ROWS)
    }
}

/// The applications.
pub struct Source<'u> {
    url: &'u str,
    seed: u64,
    /// Composites get attributes: what is made of their values again may have another form then.
    alters_composites: bool,
    shape: Mutex<Shape>,
    changes: AtomicU64,
    /// Names that were given to columns and types.
    names: AtomicU32,
}

impl<'u> Source<'u> {
    pub fn new(url: &'u str, seed: u64) -> Self {
        let (shape, changes, names) = Default::default();
        Self { url, seed, alters_composites: true, shape, changes, names }
    }

    /// With composites that stay as they are.
    pub fn without_altered_composites(self) -> Self {
        Self { alters_composites: false, ..self }
    }

    fn shape(&self) -> MutexGuard<'_, Shape> {
        self.shape.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Four writers until they have made so many changes in all, and one who changes shapes
    /// meanwhile. Can be called again with more.
    pub fn run(&self, changes: u64) {
        let goes_on = AtomicBool::new(true);
        thread::scope(|scope| {
            let writers: Vec<_> =
                (1..=4).map(|number| scope.spawn(move || self.write(number, changes))).collect();
            let goes_on = &goes_on;
            scope.spawn(move || Reshaper::new(self).run(goes_on));
            let ended: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
            goes_on.store(false, Ordering::Relaxed);
            ended.into_iter().for_each(|ended| ended.expect("a writer ends"));
        });
    }

    fn write(&self, number: u64, changes: u64) {
        let session = Session::open(self.url).expect("a connection");
        let seed = self.seed.wrapping_add(number).wrapping_add(changes << 8);
        let random = Rng::with_seed(seed);
        let mut writer = Writer { source: self, values: Values { random, moods: Vec::new() } };
        while self.changes.load(Ordering::Relaxed) < changes {
            let (sql, count) = writer.transaction();
            if run(&session, &sql) {
                self.changes.fetch_add(count, Ordering::Relaxed);
            }
        }
    }
}

/// Runs a transaction; false where it was rolled back for what others did.
fn run(session: &Session, sql: &str) -> bool {
    /// Deadlock, a row that went into another partition, lock time-out, a key that is taken, a column
    /// that is gone.
    const EXPECTED: [&str; 5] = ["40P01", "40001", "55P03", "23505", "42703"];
    let Err(error) = session.try_run(sql) else { return true };
    let code = error.as_db_error().map(|error| error.code().code().to_owned());
    let is_expected = code.is_some_and(|code| EXPECTED.contains(&code.as_str()));
    assert!(is_expected, "{error:?}: {sql}");
    session.run("ROLLBACK");
    false
}

struct Writer<'s> {
    source: &'s Source<'s>,
    values: Values,
}

impl Writer<'_> {
    /// A transaction, and how many changes it tries to commit.
    fn transaction(&mut self) -> (String, u64) {
        let (mut sql, mut count) = ("BEGIN; ".to_owned(), 0);
        self.values.moods = self.source.shape().moods.clone();
        let most = self.values.pick(&["1", "3", "12", "40"]).parse().expect("a number");
        for _ in 0..self.values.random.u64(1..=most) {
            match self.values.random.u8(..) {
                0..=15 => {
                    let undone = [self.statement(), self.statement()].concat();
                    let _ = write!(sql, "SAVEPOINT undone; {undone}ROLLBACK TO SAVEPOINT undone; ");
                }
                16..=31 => {
                    let kept = self.statement();
                    let _ = write!(sql, "SAVEPOINT kept; {kept}RELEASE SAVEPOINT kept; ");
                    count += 1;
                }
                _ => {
                    sql.push_str(&self.statement());
                    count += 1;
                }
            }
        }
        match self.values.random.u8(0..10) {
            0 => (sql + "ROLLBACK", 0),
            _ => (sql + "COMMIT", count),
        }
    }

    fn statement(&mut self) -> String {
        let table = Table::CHANGED[self.values.random.usize(0..Table::CHANGED.len())];
        match self.values.random.u16(0..2_000) {
            0 => truncate(table, &mut self.values),
            1..=700 => self.insert(table),
            701..=1_400 => self.update(table),
            1_401..=1_500 => self.update_of_key(table),
            _ => format!("DELETE FROM {} WHERE {}; ", table.quoted(), self.one_row(table)),
        }
    }

    /// Some row: the first one from a random place on. Of the table without a key each one with the
    /// same number.
    fn one_row(&mut self, table: Table) -> String {
        let values = &mut self.values;
        match table {
            Table::Plain => {
                let from = values.small();
                format!("id = (SELECT id FROM plain WHERE id >= {from} ORDER BY id LIMIT 1)")
            }
            Table::Composite => format!(
                "(b, a) = (SELECT b, a FROM composite WHERE (b, a) >= ('{}', {}) ORDER BY b, a \
                 LIMIT 1)",
                values.random.alphabetic().to_ascii_lowercase(),
                values.small()
            ),
            Table::Keyless => format!("n = {}", values.random.u8(0..100)),
            Table::Parted => {
                let from = values.small();
                format!(
                    "(id, region) = (SELECT id, region FROM parted WHERE id >= {from} \
                     ORDER BY id, region LIMIT 1)"
                )
            }
            Table::Wide => {
                let from = values.uuid();
                format!("id = (SELECT id FROM wide WHERE id >= {from} ORDER BY id LIMIT 1)")
            }
            Table::Quoted => format!(
                "\"Schlüssel\" = (SELECT \"Schlüssel\" FROM \"Bestellung für Ümläute\" \
                 WHERE \"Schlüssel\" >= 'ä{}' ORDER BY 1 LIMIT 1)",
                values.small()
            ),
            Table::DdlLog => unreachable!("only shapes are written there"),
        }
    }

    fn insert(&mut self, table: Table) -> String {
        let v = &mut self.values;
        let (columns, row) = match table {
            Table::Plain => (
                "id, name, price, flag, at, day, doc, token, numbers, words, feeling, amount, home",
                [
                    v.small().to_string(),
                    v.text(),
                    v.numeric(),
                    v.random.bool().to_string(),
                    v.instant(),
                    v.date(),
                    v.json(),
                    v.uuid(),
                    v.ints(),
                    v.texts(),
                    v.mood(),
                    v.amount(),
                    v.address(),
                ]
                .join(", "),
            ),
            Table::Composite => {
                let b = v.random.alphabetic().to_ascii_lowercase();
                let (a, total, doc) = (v.small(), v.bigint(), v.json());
                ("a, b, total, doc, flag", format!("{a}, '{b}', {total}, {doc}, NULL"))
            }
            Table::Keyless => {
                let n = v.random.u8(0..100);
                let (word, doc, at, home) = (v.text(), v.json(), v.instant(), v.address());
                ("n, word, doc, at, home", format!("{n}, {word}, {doc}, {at}, {home}"))
            }
            Table::Parted => {
                let (id, region, amount, mood) = (v.small(), v.region(), v.amount(), v.mood());
                ("id, region, amount, feeling", format!("{id}, {region}, {amount}, {mood}"))
            }
            Table::Wide => {
                let (id, n, a, b) = (v.uuid(), v.int(), v.large(), v.large());
                let (doc, words) = (v.large_json(), v.large_texts());
                ("id, n, a, b, doc, words", format!("{id}, {n}, {a}, {b}, {doc}, {words}"))
            }
            Table::Quoted => {
                let (key, size, day) = (v.small(), v.numeric(), v.date());
                let (number, quote) = (v.int(), v.text());
                (
                    "\"Schlüssel\", \"Größe\", \"camelCase\", \"mit Leer zeichen\", \"quote \"\"d\"",
                    format!("'ä{key}', {size}, {number}, {day}, {quote}"),
                )
            }
            Table::DdlLog => unreachable!("only shapes are written there"),
        };
        let table = table.quoted();
        format!("INSERT INTO {table} ({columns}) VALUES ({row}) ON CONFLICT DO NOTHING; ")
    }

    fn update(&mut self, table: Table) -> String {
        let row = self.one_row(table);
        let extra = self.extra(table);
        let v = &mut self.values;
        let assignment = match table {
            Table::Plain => match v.random.u8(0..8) {
                0 => format!("name = {}", v.text()),
                1 => format!("price = {}, flag = NOT flag", v.numeric()),
                2 => format!("at = {}, day = {}", v.instant(), v.date()),
                3 => format!("doc = {}", v.json()),
                4 => format!("numbers = {}, words = {}", v.ints(), v.texts()),
                5 => format!("feeling = {}", v.mood()),
                6 => format!("home = {}", v.address()),
                _ => "name = name".to_owned(),
            },
            Table::Composite => format!("total = {}, flag = {}", v.bigint(), v.random.bool()),
            Table::Keyless => match v.random.bool() {
                true => format!("word = {}, at = {}", v.text(), v.instant()),
                false => format!("doc = {}, home = {}", v.json(), v.address()),
            },
            Table::Parted => format!("amount = {}, note = {}", v.amount(), v.text()),
            // Most updates leave most of what is large as it is.
            Table::Wide => match v.random.u8(0..8) {
                0 => format!("a = {}", v.large()),
                1 => format!("doc = {}", v.large_json()),
                2 => format!("words = {}, b = 'small'", v.large_texts()),
                _ => format!("n = {}", v.int()),
            },
            Table::Quoted => format!("\"Größe\" = {}, \"camelCase\" = {}", v.numeric(), v.int()),
            Table::DdlLog => unreachable!("only shapes are written there"),
        };
        let extra = extra.map_or(String::new(), |extra| format!(", {extra}"));
        format!("UPDATE {} SET {assignment}{extra} WHERE {row}; ", table.quoted())
    }

    /// An assignment to a column that was added, now and then.
    fn extra(&mut self, table: Table) -> Option<String> {
        let extras: Vec<Extra> = self
            .source
            .shape()
            .extras
            .iter()
            .filter(|extra| extra.table == table)
            .cloned()
            .collect();
        if extras.is_empty() || self.values.random.u8(0..3) == 0 {
            return None;
        }
        let Extra { name, kind, .. } = &extras[self.values.random.usize(0..extras.len())];
        Some(format!("{name} = {}", kind.value(&mut self.values)))
    }

    /// A key changes, or the partition that a row is in.
    fn update_of_key(&mut self, table: Table) -> String {
        let row = self.one_row(table);
        let v = &mut self.values;
        let assignment = match table {
            Table::Plain => format!("id = {}", v.small()),
            Table::Composite => format!("a = {}", v.small()),
            Table::Keyless => format!("n = {}", v.random.u8(0..100)),
            Table::Parted => match v.random.bool() {
                true => format!("region = {}", v.region()),
                false => format!("id = {}, note = 'moved'", v.small()),
            },
            Table::Wide => format!("id = {}", v.uuid()),
            Table::Quoted => format!("\"Schlüssel\" = 'ä{}'", v.small()),
            Table::DdlLog => unreachable!("only shapes are written there"),
        };
        format!("UPDATE {} SET {assignment} WHERE {row}; ", table.quoted())
    }
}

fn truncate(table: Table, values: &mut Values) -> String {
    match values.random.u8(0..3) {
        0 => "TRUNCATE keyless, composite RESTART IDENTITY; ".to_owned(),
        _ => format!("TRUNCATE {} CASCADE; ", table.quoted()),
    }
}

/// Who changes the tables' shape.
struct Reshaper<'s> {
    source: &'s Source<'s>,
    values: Values,
    widened: Vec<Table>,
}

/// What becomes true once a change of shape is committed.
enum Known {
    Nothing,
    Added(Extra),
    Dropped(String),
    Renamed(String, String),
    Widened(Table),
    WidenedExtra(String),
    Mood(String),
}

impl<'s> Reshaper<'s> {
    fn new(source: &'s Source<'s>) -> Self {
        let random = Rng::with_seed(source.seed);
        let values = Values { random, moods: Vec::new() };
        Self { source, values, widened: Vec::new() }
    }

    fn run(mut self, goes_on: &AtomicBool) {
        let session = Session::open(self.source.url).expect("a connection");
        session.run("SET lock_timeout = '3s'");
        let (mut committed, mut tried) = (0, 0);
        while goes_on.load(Ordering::Relaxed) {
            let_pass(Duration::from_millis(self.values.random.u64(SHAPE_PAUSE)));
            let (statement, table, known) = self.change();
            let (before, behind) = (self.phantom(table), self.rows(table, &known));
            // A type is altered beside who uses it: what they have written then has its former shape,
            // though they commit later.
            let lock = match statement.starts_with("ALTER TYPE address") {
                true => "LOCK TABLE plain, keyless IN ACCESS EXCLUSIVE MODE; ",
                false => "",
            };
            let is_kept = self.values.random.u8(0..5) > 0;
            let end = if is_kept { "COMMIT" } else { "ROLLBACK" };
            let sql = format!(
                "BEGIN; {lock}{before}INSERT INTO ddl_log (statement) VALUES ($ddl${statement}$ddl$); \
                 {statement}; {behind}{end}"
            );
            tried += 1;
            if run(&session, &sql) && is_kept {
                committed += 1;
                self.learn(known);
            }
        }
        eprintln!("{committed} of {tried} changes of shape committed");
    }

    fn change(&mut self) -> (String, Table, Known) {
        let random = &mut self.values.random;
        let table = Table::CHANGED[random.usize(0..Table::CHANGED.len())];
        let extras = self.source.shape().extras.clone();
        let extra = (!extras.is_empty()).then(|| extras[random.usize(0..extras.len())].clone());
        match (random.u8(0..16), extra) {
            (0..=4, _) => self.add_column(table),
            (5..=6, Some(Extra { table, name, .. })) => (
                format!("ALTER TABLE {} DROP COLUMN {name}", table.quoted()),
                table,
                Known::Dropped(name),
            ),
            (7, Some(Extra { table, name, .. })) => {
                let new = self.new_name("renamed");
                let sql = format!("ALTER TABLE {} RENAME COLUMN {name} TO {new}", table.quoted());
                (sql, table, Known::Renamed(name, new))
            }
            (8..=9, Some(Extra { table, name, kind: Kind::Int })) => (
                format!("ALTER TABLE {} ALTER COLUMN {name} TYPE bigint", table.quoted()),
                table,
                Known::WidenedExtra(name),
            ),
            (10..=11, _) if table.int_column().is_some() && !self.widened.contains(&table) => {
                let column = table.int_column().expect("just looked at");
                let sql =
                    format!("ALTER TABLE {} ALTER COLUMN {column} TYPE bigint", table.quoted());
                (sql, table, Known::Widened(table))
            }
            (12, _) => {
                let label = self.new_name("mood ");
                let sql = format!("ALTER TYPE mood ADD VALUE '{label}' BEFORE 'ok'");
                (sql, table, Known::Mood(label))
            }
            (13, _) if self.source.alters_composites => {
                let name = self.new_name("attribute");
                let sql = format!("ALTER TYPE address ADD ATTRIBUTE {name} text");
                (sql, table, Known::Nothing)
            }
            _ => (self.identity(table), table, Known::Nothing),
        }
    }

    fn new_name(&self, what: &str) -> String {
        format!("{what}{}", self.source.names.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn add_column(&mut self, table: Table) -> (String, Table, Known) {
        let name = self.new_name("extra_");
        let kind = match self.values.random.u8(0..10) {
            0..=2 => Kind::Int,
            3 => Kind::Text,
            4 => Kind::Numeric,
            5 => Kind::IntArray,
            6 => Kind::Enum(self.new_name("enum_")),
            7 => Kind::Domain(self.new_name("domain_")),
            _ => Kind::Composite(self.new_name("composite_")),
        };
        let (create, sql_type) = (kind.create_sql(), kind.sql_type());
        let sql = format!("{create}ALTER TABLE {} ADD COLUMN {name} {sql_type}", table.quoted());
        (sql, table, Known::Added(Extra { table, name, kind }))
    }

    /// The table without a key keeps its FULL, without which applications could not update it.
    /// Partitions have identities of their own.
    fn identity(&mut self, table: Table) -> String {
        let identity = match self.values.random.bool() || table == Table::Keyless {
            true => "FULL",
            false => "DEFAULT",
        };
        let tables = match table {
            Table::Parted => vec![
                "parted",
                "parted_eu",
                "parted_eu_low",
                "parted_eu_high",
                "parted_us",
                "parted_rest",
            ],
            other => vec![other.name()],
        };
        let statements: Vec<String> = tables
            .into_iter()
            .map(|table| format!("ALTER TABLE \"{table}\" REPLICA IDENTITY {identity}"))
            .collect();
        statements.join("; ")
    }

    /// A column that is there for a moment, and rows that had it: none of it ever was.
    fn phantom(&mut self, table: Table) -> String {
        if self.values.random.u8(0..4) > 0 {
            return String::new();
        }
        let quoted = table.quoted();
        format!(
            "SAVEPOINT phantom; ALTER TABLE {quoted} ADD COLUMN phantom int; \
             UPDATE {quoted} SET phantom = 1 WHERE {}; ROLLBACK TO SAVEPOINT phantom; ",
            some_rows(table)
        )
    }

    /// Rows that are changed in the same transaction, under the shape of then.
    fn rows(&mut self, table: Table, known: &Known) -> String {
        let quoted = table.quoted();
        match known {
            Known::Added(Extra { name, kind, .. }) if self.values.random.bool() => {
                let value = kind.value(&mut self.values);
                format!("UPDATE {quoted} SET {name} = {value} WHERE {}; ", some_rows(table))
            }
            _ if self.values.random.bool() => {
                format!("DELETE FROM {quoted} WHERE {}; ", some_rows(table))
            }
            _ => String::new(),
        }
    }

    fn learn(&mut self, known: Known) {
        let mut shape = self.source.shape();
        match known {
            Known::Nothing => {}
            Known::Added(extra) => shape.extras.push(extra),
            Known::Dropped(name) => shape.extras.retain(|extra| extra.name != name),
            Known::Renamed(former, name) => {
                let extra = shape.extras.iter_mut().find(|extra| extra.name == former);
                extra.expect("it is there").name = name;
            }
            Known::WidenedExtra(name) => {
                let extra = shape.extras.iter_mut().find(|extra| extra.name == name);
                extra.expect("it is there").kind = Kind::Bigint;
            }
            Known::Widened(table) => self.widened.push(table),
            Known::Mood(label) => shape.moods.push(label),
        }
    }
}

/// A handful of rows.
fn some_rows(table: Table) -> String {
    let quoted = table.quoted();
    match table.key() {
        [] => "n < 2".to_owned(),
        key => {
            let key = key.join(", ");
            format!("({key}) IN (SELECT {key} FROM {quoted} ORDER BY {key} LIMIT 5)")
        }
    }
}

/// A transaction of so many rows of 4 KB each, one that changes them, and one that deletes them.
pub fn run_large_transactions(session: &Session, rows: u32) {
    for sql in [
        format!(
            "INSERT INTO composite (a, b, total, doc) SELECT n, 'large', n, \
             jsonb_build_object('filler', repeat(md5(n::text), 120)) \
             FROM generate_series(100000, 99999 + {rows}) n"
        ),
        "UPDATE composite SET total = total + 1 WHERE b = 'large'".to_owned(),
        "DELETE FROM composite WHERE b = 'large'".to_owned(),
    ] {
        session.run(&sql);
    }
}
