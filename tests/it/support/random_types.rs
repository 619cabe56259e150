//! Columns of every type that a server has, and types made of them at random.
//!
//! What `pg_type` holds is taken from there, so that a type of a version to come is missed. On top
//! of it come an enum, composites, domains, arrays and a range over whatever can be ordered.

use std::sync::Arc;

use fastrand::Rng;
use tailwater::value::{ByteaForm, Int8Form, NumericForm, Options};

use super::{
    literals::{self, Nullable},
    postgres::Session,
    random_values::{Server, chosen, text},
};

/// Types that no text becomes a value of: columns of them can only be NULL.
const WITHOUT_INPUT: [&str; 7] = [
    "gtsvector",
    "pg_brin_bloom_summary",
    "pg_brin_minmax_multi_summary",
    "pg_dependencies",
    "pg_mcv_list",
    "pg_ndistinct",
    "pg_node_tree",
];

/// Columns whose type has modifiers: as SQL, and as values are made for them.
const MODIFIED: [(&str, &str); 8] = [
    ("character(5)", "bpchar(5)"),
    ("character varying(7)", "varchar(7)"),
    ("bit(5)", "bit(5)"),
    ("bit varying(9)", "varbit(9)"),
    ("numeric(12,3)", "numeric(12,3)"),
    ("time(2)", "time(2)"),
    ("timestamp(3)", "timestamp(3)"),
    ("interval(2)", "interval(2)"),
];

const LABELS: [&str; 6] = ["sad", "it's \"ok\", {x}", "naïve 😀", "NULL", "(a\\b)", " "];

/// Extensions with types of their own, where the server's programs have them.
const EXTENSIONS: [(&str, &[&str]); 5] = [
    ("citext", &["citext"]),
    ("ltree", &["ltree", "lquery", "ltxtquery"]),
    ("cube", &["cube"]),
    ("hstore", &["hstore"]),
    ("vector", &["vector"]),
];

/// What values of these types speak of by name. The roles belong to the whole server.
const OBJECTS: &str = "CREATE SCHEMA \"Odd schema\"; CREATE TABLE \"Odd schema\".t (id int); \
    CREATE TABLE \"Odd \"\"name\"\"\" (id int); CREATE ROLE \"Odd role\"";

/// How many types of each sort are made of others at random.
const MADE: usize = 12;

/// How deep they are made of one another.
const DEPTH_MAX: usize = 3;

/// Values that the bounds of a range are chosen from.
const BOUNDS: usize = 60;

/// A type of a column.
#[derive(Debug)]
pub struct SqlType {
    /// As SQL names it.
    pub sql: String,
    /// What it is made of.
    pub shape: Shape,
    depth: usize,
}

/// What a type is made of.
#[derive(Debug)]
pub enum Shape {
    /// By its name in `pg_type`, or with its modifiers.
    Scalar(String),
    /// Of [`LABELS`].
    Enum,
    /// Keys and values.
    Hstore,
    /// An array.
    Array { element: Arc<SqlType>, delimiter: char },
    /// Fields by name.
    Composite { fields: Vec<(String, Arc<SqlType>)> },
    /// A domain.
    Domain { base: Arc<SqlType> },
    /// Its bounds in their order; whether the server brings them into one form.
    Range { bounds: Vec<String>, is_discrete: bool },
    /// Of ranges.
    Multirange { range: Arc<SqlType> },
}

/// Of a run whose seed is printed; `TAILWATER_SEED` repeats one.
pub fn seeded(version: u32) -> Rng {
    let seed = std::env::var("TAILWATER_SEED")
        .map_or_else(|_| fastrand::u64(..), |seed| seed.parse().expect("a seed is a number"));
    eprintln!("PostgreSQL {version}, seed {seed}");
    Rng::with_seed(seed)
}

/// Forms of values, any of them.
pub fn random_options(random: &mut Rng) -> Options {
    Options {
        int8: if random.bool() { Int8Form::String } else { Int8Form::Number },
        numeric: if random.bool() { NumericForm::String } else { NumericForm::Number },
        bytea: if random.bool() { ByteaForm::Base64 } else { ByteaForm::Hex },
    }
}

/// The types of a database.
pub struct RandomTypes {
    /// What a column can be of.
    pub all: Vec<Arc<SqlType>>,
    /// Extensions that the server has.
    pub extensions: Vec<&'static str>,
    server: Server,
}

impl RandomTypes {
    /// Reads the types that a database has, and creates more.
    pub fn create(session: &Session, random: &mut Rng) -> Self {
        let version = session.value("SHOW server_version_num").expect("a version");
        let version = version.parse::<u32>().expect("a number") / 10_000;
        let mut types =
            Self { all: Vec::new(), extensions: Vec::new(), server: Server { version } };
        let labels = LABELS.map(|label| literals::sql(&Some(label.to_owned()))).join(", ");
        session.run(&format!("{OBJECTS}; CREATE TYPE mood AS ENUM ({labels})"));
        types.add_base_types(session, random);
        types.add("mood", Shape::Enum);
        for (sql, name) in MODIFIED {
            types.add(sql, Shape::Scalar(name.to_owned()));
        }
        types.add_extensions(session);
        types.add_built_in_ranges(session, random);
        let can_be_bounds = types.all.clone();
        types.add_ranges(session, &can_be_bounds, random);
        let made = types.make(session, random);
        types.add_ranges(session, &made, random);
        types.add_arrays();
        types
    }

    /// A value of a type as its input function takes it; sometimes none.
    pub fn value(&self, of: &SqlType, random: &mut Rng) -> Nullable {
        (random.u8(..) > 25).then(|| self.text(of, random))
    }

    fn text(&self, of: &SqlType, random: &mut Rng) -> String {
        match &of.shape {
            Shape::Scalar(name) => {
                let value = self.server.value(name, random);
                value.unwrap_or_else(|| panic!("no values of type {name} are made here"))
            }
            Shape::Enum => chosen(random, &LABELS),
            Shape::Hstore => {
                let pair = |_| (text(random), random.bool().then(|| text(random)));
                let pairs: Vec<_> = (0..3).map(pair).collect();
                literals::hstore(pairs.iter().map(|(key, value)| (key.as_str(), value.as_deref())))
            }
            Shape::Array { element, delimiter } => self.array(element, *delimiter, random),
            Shape::Composite { fields } => {
                let fields: Vec<_> = fields.iter().map(|(_, of)| self.value(of, random)).collect();
                literals::composite(&fields)
            }
            Shape::Domain { base } => self.text(base, random),
            Shape::Range { bounds, is_discrete } => range(bounds, *is_discrete, random),
            Shape::Multirange { range } => {
                let ranges: Vec<_> =
                    (0..random.usize(0..4)).map(|_| self.text(range, random)).collect();
                literals::array_of_arrays(&ranges, ',')
            }
        }
    }

    /// Of one dimension or several, sometimes with lower bounds of its own. Where elements
    /// can be arrays in JSON themselves, its dimensions could not be told from theirs.
    fn array(&self, element: &SqlType, delimiter: char, random: &mut Rng) -> String {
        let dimensions = match random.u8(..) {
            0..150 => 1,
            _ if element.can_be_array() => 1,
            150..220 => 2,
            _ => 3,
        };
        if random.u8(..) < 20 {
            return "{}".to_owned();
        }
        let most = if element.depth > 1 { 2 } else { 3 };
        let lengths: Vec<_> = (0..dimensions).map(|_| random.usize(1..=most)).collect();
        let text = self.rows(element, delimiter, &lengths, random);
        if random.u8(..) > 15 {
            return text;
        }
        let bounds = lengths.iter().map(|length| {
            let lower = random.i32(-3..3);
            format!("[{lower}:{}]", lower + i32::try_from(*length).expect("a small number") - 1)
        });
        format!("{}={text}", bounds.collect::<String>())
    }

    fn rows(
        &self,
        element: &SqlType,
        delimiter: char,
        lengths: &[usize],
        random: &mut Rng,
    ) -> String {
        let [length, inner @ ..] = lengths else { unreachable!("an array has a dimension") };
        if inner.is_empty() {
            let elements: Vec<_> = (0..*length).map(|_| self.value(element, random)).collect();
            return literals::array(&elements, delimiter);
        }
        let rows: Vec<_> =
            (0..*length).map(|_| self.rows(element, delimiter, inner, random)).collect();
        literals::array_of_arrays(&rows, delimiter)
    }

    fn add(&mut self, sql: &str, shape: Shape) -> Arc<SqlType> {
        let depth = shape.depth();
        let added = Arc::new(SqlType { sql: sql.to_owned(), shape, depth });
        self.all.push(Arc::clone(&added));
        added
    }

    /// Those that the server has, arrays and the rows of its own tables left out.
    fn add_base_types(&mut self, session: &Session, random: &mut Rng) {
        let rows = session.rows(
            "SELECT typname, 'pg_catalog.' || quote_ident(typname) FROM pg_type \
             WHERE typtype = 'b' AND typnamespace = 'pg_catalog'::regnamespace \
             AND typoutput <> 'array_out'::regproc ORDER BY oid",
        );
        for row in rows {
            let [Some(name), Some(sql)] = row.as_slice() else { panic!("{row:?}") };
            if WITHOUT_INPUT.contains(&name.as_str()) {
                let refused = session.try_rows(&format!("SELECT ''::{sql}"));
                assert!(refused.is_err(), "{name} takes a value");
                continue;
            }
            assert!(self.server.value(name, random).is_some(), "no values of type {name}");
            // A server may be built without libxml.
            if name == "xml" && session.try_rows("SELECT '<a/>'::xml").is_err() {
                continue;
            }
            self.add(sql, Shape::Scalar(name.clone()));
        }
        assert!(self.all.len() > 60, "{} base types", self.all.len());
    }

    fn add_extensions(&mut self, session: &Session) {
        for (extension, names) in EXTENSIONS {
            if session.try_run(&format!("CREATE EXTENSION {extension}")).is_err() {
                continue;
            }
            self.extensions.push(extension);
            for name in names {
                let shape = match *name {
                    "hstore" => Shape::Hstore,
                    name => Shape::Scalar(name.to_owned()),
                };
                self.add(name, shape);
            }
        }
    }

    fn add_built_in_ranges(&mut self, session: &Session, random: &mut Rng) {
        let rows = session.rows(
            "SELECT r.rngtypid::regtype, r.rngmultitypid::regtype, t.typname, r.rngcanonical <> 0 \
             FROM pg_range r JOIN pg_type t ON t.oid = r.rngsubtype",
        );
        assert!(rows.len() >= 6, "{rows:?}");
        for row in rows {
            let [Some(range), Some(multirange), Some(subtype), Some(is_discrete)] = row.as_slice()
            else {
                panic!("{row:?}")
            };
            let values = (0..BOUNDS).filter_map(|_| self.server.value(subtype, random));
            let bounds = in_order(session, &format!("pg_catalog.{subtype}"), values.collect());
            let bounds = bounds.expect("what the server has a range of can be ordered");
            let shape = Shape::Range { bounds, is_discrete: is_discrete == "t" };
            let range = self.add(range, shape);
            self.add(multirange, Shape::Multirange { range });
        }
    }

    /// A range over each of these that the server can order.
    fn add_ranges(&mut self, session: &Session, subtypes: &[Arc<SqlType>], random: &mut Rng) {
        for subtype in subtypes {
            let number = self.all.len();
            let values = (0..BOUNDS).map(|_| self.text(subtype, random)).collect();
            let Some(bounds) = in_order(session, &subtype.sql, values) else { continue };
            let name = format!("range_{number}");
            let sql = format!("CREATE TYPE {name} AS RANGE (SUBTYPE = {})", subtype.sql);
            if session.try_run(&sql).is_err() {
                continue;
            }
            let range = self.add(&name, Shape::Range { bounds, is_discrete: false });
            self.add(&format!("multirange_{number}"), Shape::Multirange { range });
        }
    }

    /// Composites, arrays and domains over what is there, one over the other.
    fn make(&mut self, session: &Session, random: &mut Rng) -> Vec<Arc<SqlType>> {
        let before = self.all.len();
        let every: Vec<_> = self.all.iter().take(80).cloned().collect();
        self.add_composite(session, "every_type", &every);
        self.add_composite(session, "nothing", &[]);
        for number in 0..MADE {
            let fields: Vec<_> = (0..random.usize(1..8)).map(|_| self.shallow(random)).collect();
            let composite = self.add_composite(session, &format!("composite_{number}"), &fields);
            let array = self.add_array(&composite);
            for (kind, base) in
                [("composite", composite), ("array", array), ("any", self.shallow(random))]
            {
                let name = format!("domain_over_{kind}_{number}");
                session.run(&format!("CREATE DOMAIN {name} AS {} CHECK (true)", base.sql));
                let domain = self.add(&name, Shape::Domain { base });
                let name = format!("domain_over_{name}");
                session.run(&format!("CREATE DOMAIN {name} AS {}", domain.sql));
                self.add(&name, Shape::Domain { base: domain });
            }
        }
        self.all[before..].to_vec()
    }

    fn shallow(&self, random: &mut Rng) -> Arc<SqlType> {
        let shallow = self.all.iter().filter(|of| of.depth < DEPTH_MAX).collect::<Vec<_>>();
        let found = random.choice(shallow).expect("there are some");
        match found.shape {
            Shape::Array { .. } => Arc::clone(found),
            _ if random.bool() => Arc::clone(found),
            _ => Arc::new(array_of(found)),
        }
    }

    fn add_composite(
        &mut self,
        session: &Session,
        name: &str,
        fields: &[Arc<SqlType>],
    ) -> Arc<SqlType> {
        let field = |(index, of): (usize, &Arc<SqlType>)| {
            let name =
                if index % 3 == 1 { format!("Field \"{index}\"") } else { format!("f{index}") };
            (name, Arc::clone(of))
        };
        let fields: Vec<_> = fields.iter().enumerate().map(field).collect();
        let sql = |(name, of): &(String, Arc<SqlType>)| {
            format!("\"{}\" {}", name.replace('"', "\"\""), of.sql)
        };
        let columns = fields.iter().map(sql).collect::<Vec<_>>().join(", ");
        session.run(&format!("CREATE TYPE {name} AS ({columns})"));
        self.add(name, Shape::Composite { fields })
    }

    fn add_array(&mut self, element: &Arc<SqlType>) -> Arc<SqlType> {
        let added = Arc::new(array_of(element));
        self.all.push(Arc::clone(&added));
        added
    }

    /// Of everything that is no array by itself.
    fn add_arrays(&mut self) {
        for element in self.all.clone() {
            if !matches!(element.shape, Shape::Array { .. }) {
                self.add_array(&element);
            }
        }
    }
}

impl SqlType {
    /// Whether the JSON form of a value can be an array.
    pub fn can_be_array(&self) -> bool {
        match &self.shape {
            Shape::Array { .. } => true,
            Shape::Scalar(name) => name == "json" || name == "jsonb",
            Shape::Domain { base } => base.can_be_array(),
            _ => false,
        }
    }

    /// Of an array of it.
    fn delimiter(&self) -> char {
        match &self.shape {
            Shape::Scalar(name) if name == "box" => ';',
            Shape::Domain { base } => base.delimiter(),
            Shape::Array { delimiter, .. } => *delimiter,
            _ => ',',
        }
    }
}

fn array_of(element: &Arc<SqlType>) -> SqlType {
    let shape = Shape::Array { element: Arc::clone(element), delimiter: element.delimiter() };
    let depth = shape.depth();
    SqlType { sql: format!("{}[]", element.sql), shape, depth }
}

impl Shape {
    fn depth(&self) -> usize {
        match self {
            Self::Scalar(_) | Self::Enum | Self::Hstore | Self::Range { .. } => 0,
            Self::Multirange { .. } => 0,
            Self::Array { element: inner, .. } | Self::Domain { base: inner } => inner.depth + 1,
            Self::Composite { fields } => {
                fields.iter().map(|(_, of)| of.depth + 1).max().unwrap_or(0)
            }
        }
    }
}

/// Values as the server orders them; none where it cannot.
fn in_order(session: &Session, sql: &str, values: Vec<String>) -> Option<Vec<String>> {
    let value = |value| format!("({}::{sql})", literals::sql(&Some(value)));
    let values = values.into_iter().map(value).collect::<Vec<_>>().join(", ");
    let rows =
        session.try_rows(&format!("SELECT v FROM (VALUES {values}) t (v) ORDER BY v")).ok()?;
    Some(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}

/// Between two of these bounds or without one of them. A discrete type's last value has none behind
/// it, which other brackets than these would ask for.
fn range(bounds: &[String], is_discrete: bool, random: &mut Rng) -> String {
    if random.u8(..) < 15 {
        return "empty".to_owned();
    }
    let (one, other) = (random.usize(0..bounds.len()), random.usize(0..bounds.len()));
    let bound =
        |random: &mut Rng, index: usize| (random.u8(..) > 40).then(|| bounds[index].clone());
    let (lower, upper) = (bound(random, one.min(other)), bound(random, one.max(other)));
    let (opening, closing) = match is_discrete {
        true => ('[', ')'),
        false => (if random.bool() { '[' } else { '(' }, if random.bool() { ']' } else { ')' }),
    };
    literals::range(opening, &lower, &upper, closing)
}
