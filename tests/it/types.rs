//! Every type: its JSON holds the value, and PostgreSQL says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
};

use fastrand::Rng;
use tailwater::{
    change::Oid,
    postgres::{
        self, Encryption, Host, TableName, column_types,
        replication::Connection,
        snapshot::{RowsQuery, SnapshotReader},
        sql::Sql,
    },
    value::{
        ByteaForm, Field, Form, Int8Form, Kind, NumericForm, Options, Type, Written, built_in_types,
    },
};

use crate::support::{
    json_values,
    literals::{self, Nullable},
    odd_forms::{self, FORMS},
    postgres::{Server, Session},
    random_types::{RandomTypes, SqlType, random_options, seeded},
    scaled,
};

/// Values that are read back on each version, at full size.
const VALUES: u64 = 100_000;

/// A table of the test.
const COLUMNS: usize = 12;
const ROWS: usize = 25;

/// How we reach the database `shop`.
fn connection(server: &Server, user: &str) -> postgres::Settings {
    postgres::Settings {
        host: Host::Tcp { host: "127.0.0.1".to_owned(), port: server.port() },
        other_hosts: Vec::new(),
        user: user.to_owned(),
        password: None,
        database: "shop".to_owned(),
        application_name: "tailwater".to_owned(),
        encryption: Encryption::NONE,
    }
}

/// Runs what is asynchronous.
fn wait_for<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

/// A server of that version with an empty database.
fn shop(version: u32) -> (Server, Session) {
    let server = Server::start_version(version);
    let session = server.create_database("shop");
    (server, session)
}

/// The rows of a table, by its `id`, as a session of ours reads them.
fn read(settings: &postgres::Settings, table: &str, columns: &[String]) -> Vec<Vec<Nullable>> {
    let table = TableName { schema: "public".to_owned(), name: table.to_owned() };
    wait_for(async {
        let reader = SnapshotReader::begin(settings, &table).await.expect("a snapshot");
        let query = RowsQuery {
            table,
            is_partitioned: false,
            columns: columns.to_vec(),
            condition: "true".to_owned(),
            row_filter: None,
            created_at: None,
            id: "id".to_owned(),
        };
        let mut rows = reader.rows(&query, None).await.expect("rows");
        let mut all = Vec::new();
        while let Some(row) = rows.next().await.expect("a row") {
            let value = |index| row.value(index).expect("UTF-8").map(str::to_owned);
            all.push((0..columns.len()).map(value).collect());
        }
        all
    })
}

/// What the types of a table's columns are.
fn described(settings: &postgres::Settings, session: &Session, table: &str) -> Vec<Arc<Type>> {
    let rows = session.rows(&format!(
        "SELECT atttypid FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 \
         AND attname <> 'id' AND NOT attisdropped ORDER BY attnum"
    ));
    let oid = |row: &Vec<Nullable>| Oid(row[0].as_ref().expect("an OID").parse().expect("digits"));
    let oids: Vec<Oid> = rows.iter().map(oid).collect();
    look_up(settings, &oids)
}

fn look_up(settings: &postgres::Settings, oids: &[Oid]) -> Vec<Arc<Type>> {
    wait_for(async {
        let sql = Sql::connect(settings).await.expect("connected");
        column_types::look_up(&sql, oids).await.expect("the types")
    })
}

fn json_of(form: &Form, text: &str) -> String {
    let mut json = Vec::new();
    let written = form.write(text.as_bytes(), &mut json);
    assert_eq!(written, Ok(Written::AsDescribed), "{text}");
    String::from_utf8(json).expect("UTF-8")
}

/// One table: its values become JSON, that becomes literals of another table, and both read alike.
/// Says how many values there were.
fn read_back(
    settings: &postgres::Settings,
    session: &Session,
    types: &RandomTypes,
    columns: &[&SqlType],
    random: &mut Rng,
) -> u64 {
    let names: Vec<String> = (0..columns.len()).map(|index| format!("c{index}")).collect();
    let definitions: Vec<String> =
        names.iter().zip(columns).map(|(name, of)| format!("{name} {}", of.sql)).collect();
    let definitions = definitions.join(", ");
    session.run(&format!(
        "DROP TABLE IF EXISTS stored, back; CREATE TABLE stored (id int, {definitions}); \
         CREATE TABLE back (LIKE stored)"
    ));
    let insert = |table: &str, rows: &[Vec<Nullable>]| {
        for (id, row) in rows.iter().enumerate() {
            let values: Vec<String> = row.iter().map(literals::sql).collect();
            session.run(&format!("INSERT INTO {table} VALUES ({id}, {})", values.join(", ")));
        }
    };
    let row = |_| columns.iter().map(|of| types.value(of, random)).collect();
    insert("stored", &(0..ROWS).map(row).collect::<Vec<_>>());
    let stored = read(settings, "stored", &names);

    let options = random_options(random);
    let forms = described(settings, session, "stored");
    let forms: Vec<Form> = forms.iter().map(|of| Form::of(of, options)).collect();
    let json: Vec<Vec<Nullable>> = stored
        .iter()
        .map(|row| {
            let values = row.iter().zip(&forms);
            values.map(|(text, form)| text.as_ref().map(|text| json_of(form, text))).collect()
        })
        .collect();
    let literal = |row: &Vec<Nullable>| -> Vec<Nullable> {
        let values = row.iter().zip(columns);
        values.map(|(json, of)| json_values::literal(of, json.as_ref()?, options)).collect()
    };
    insert("back", &json.iter().map(literal).collect::<Vec<_>>());
    let back = read(settings, "back", &names);
    assert_eq!(stored.len(), ROWS);
    for (row, stored) in stored.iter().enumerate() {
        for (column, stored) in stored.iter().enumerate() {
            let (of, json) = (columns[column], &json[row][column]);
            assert_eq!(stored, &back[row][column], "{}: {json:?} with {options:?}", of.sql);
        }
    }
    stored.iter().flatten().flatten().count() as u64
}

/// Types and values are random; `TAILWATER_SEED` repeats a run.
fn every_value_comes_back(version: u32) {
    let mut random = seeded(version);
    let (server, session) = shop(version);
    let settings = connection(&server, "postgres");
    let types = RandomTypes::create(&session, &mut random);
    let names: Vec<&str> = types.all.iter().map(|of| of.sql.as_str()).collect();
    eprintln!("{} types, with the extensions {:?}: {names:?}", names.len(), types.extensions);
    let mut values = 0;
    // Every type has its turn before one has another.
    while values < scaled(VALUES) {
        let mut columns: Vec<&SqlType> = types.all.iter().map(AsRef::as_ref).collect();
        random.shuffle(&mut columns);
        for columns in columns.chunks(COLUMNS) {
            values += read_back(&settings, &session, &types, columns, &mut random);
        }
    }
    eprintln!("{values} values of PostgreSQL {version} came back");
}

#[test]
fn every_value_of_postgres_14_comes_back_from_its_json() {
    every_value_comes_back(14);
}

#[test]
fn every_value_of_postgres_15_comes_back_from_its_json() {
    every_value_comes_back(15);
}

#[test]
fn every_value_of_postgres_16_comes_back_from_its_json() {
    every_value_comes_back(16);
}

#[test]
fn every_value_of_postgres_17_comes_back_from_its_json() {
    every_value_comes_back(17);
}

#[test]
fn every_value_of_postgres_18_comes_back_from_its_json() {
    every_value_comes_back(18);
}

fn oid_of(session: &Session, name: &str) -> Oid {
    let oid =
        session.value(&format!("SELECT {}::regtype::oid", literals::sql(&Some(name.to_owned()))));
    Oid(oid.expect("a type").parse().expect("digits"))
}

/// A type with all that it is made of.
fn shown(of: &Type) -> String {
    let name = &of.name;
    match &of.kind {
        Kind::Base => name.clone(),
        Kind::Hstore => format!("{name} hstore"),
        Kind::Enum => format!("{name} enum"),
        Kind::Range => format!("{name} range"),
        Kind::Unknown => format!("{name} unknown"),
        Kind::Domain { base } => format!("{name} over {}", shown(base)),
        Kind::Array { element, delimiter } => {
            format!("{name} of {} by {}", shown(element), char::from(*delimiter))
        }
        Kind::Composite { fields } => {
            let field = |field: &Field| format!("{} {}", field.name, shown(&field.field_type));
            format!("{name} ({})", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
    }
}

/// A type of `pg_catalog` that a column can have, other than rows of system tables.
const BUILT_IN: &str = "SELECT t.oid, format_type(t.oid, NULL), CASE \
        WHEN t.typoutput = 'array_out'::regproc THEN 'array of ' || t.typelem || ' by ' || t.typdelim::text \
        WHEN t.typtype IN ('r', 'm') THEN 'range' ELSE 'base' END \
    FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typoutput = 'array_out'::regproc \
    WHERE t.oid < 10000 AND t.typtype IN ('b', 'r', 'm') \
        AND (e.typtype IS NULL OR e.typtype NOT IN ('c', 'p'))";

#[test]
fn the_built_in_types_are_those_of_every_version() {
    let kind = |of: &Type| match &of.kind {
        Kind::Base => "base".to_owned(),
        Kind::Range => "range".to_owned(),
        Kind::Array { element, delimiter } => {
            format!("array of {} by {}", element.oid, char::from(*delimiter))
        }
        other => panic!("{other:?}"),
    };
    let ours: BTreeMap<String, (String, String)> =
        built_in_types().map(|of| (of.oid.to_string(), (of.name.clone(), kind(of)))).collect();
    for version in 14..=18 {
        let server = Server::start_version(version);
        let rows = server.session("postgres").rows(BUILT_IN);
        let text = |value: &Nullable| value.clone().expect("a value");
        let theirs =
            rows.iter().map(|row| (text(&row[0]), (text(&row[1]), text(&row[2])))).collect();
        assert_eq!(ours, theirs, "PostgreSQL {version}");
    }
}

/// The last of these has a name that only an extension's type has a form by.
const MADE_OF_OTHERS: &str = "
    CREATE SCHEMA \"Odd schema\"; CREATE SCHEMA extensions;
    CREATE EXTENSION hstore SCHEMA extensions;
    CREATE TYPE \"Odd schema\".\"Mood\" AS ENUM ('sad');
    CREATE DOMAIN amount AS int8; CREATE DOMAIN cent AS amount; CREATE DOMAIN cents AS cent[];
    CREATE DOMAIN boxes AS box[];
    CREATE TABLE orders (id int, gone text, \"Total \"\"x\"\"\" cents, boxes boxes[]);
    ALTER TABLE orders DROP gone;
    CREATE TYPE delivery AS (
        \"order\" orders, orders orders[], mood \"Odd schema\".\"Mood\", notes extensions.hstore
    );
    CREATE TYPE floats AS RANGE (SUBTYPE = float8);
    CREATE TYPE hstore AS (a int);
    CREATE TYPE dropped AS ENUM (); CREATE ROLE reader LOGIN;
    REVOKE ALL ON SCHEMA public FROM PUBLIC; REVOKE ALL ON DATABASE shop FROM PUBLIC;
    GRANT CONNECT ON DATABASE shop TO reader";

#[test]
fn types_are_described_with_all_that_they_are_made_of() {
    let orders = "public.orders (id integer, Total \"x\" public.cents over public.cent[] of \
                  public.cent over public.amount over bigint by ,, boxes public.boxes[] of \
                  public.boxes over box[] of box by ; by ;)";
    let expected = [
        ("bigint[]", "bigint[] of bigint by ,".to_owned()),
        (
            "delivery[]",
            format!(
                "public.delivery[] of public.delivery (order {orders}, orders public.orders[] of \
             {orders} by ,, mood \"Odd schema\".\"Mood\" enum, notes extensions.hstore hstore) by ,"
            ),
        ),
        ("floats", "public.floats range".to_owned()),
        ("floats_multirange", "public.floats_multirange range".to_owned()),
        ("public.hstore", "public.hstore (a integer)".to_owned()),
        ("extensions.ghstore", "extensions.ghstore".to_owned()),
        ("record", "record unknown".to_owned()),
        (
            "pg_catalog.pg_am",
            "pg_am (oid oid, amname name, amhandler regproc, amtype \"char\")".to_owned(),
        ),
    ];
    for version in 14..=18 {
        let (server, session) = shop(version);
        session.run(MADE_OF_OTHERS);
        let mut oids: Vec<Oid> = expected.iter().map(|(name, _)| oid_of(&session, name)).collect();
        let dropped = oid_of(&session, "dropped");
        oids.push(dropped);
        session.run("DROP TYPE dropped");
        let types = look_up(&connection(&server, "reader"), &oids);
        let (last, types) = types.split_last().expect("a type for each OID");
        assert_eq!((last.oid, &last.kind), (dropped, &Kind::Unknown), "PostgreSQL {version}");
        for ((_, expected), found) in expected.iter().zip(types) {
            assert_eq!(&shown(found), expected, "PostgreSQL {version}");
        }
    }
}

#[test]
fn our_sessions_write_values_alike_whatever_database_and_role_say() {
    let server = Server::start();
    let session = server.create_database("shop");
    odd_forms::say(&session);
    session.run(
        "CREATE TABLE stored (id int, span interval, at timestamptz, ratio float8, bytes bytea, \
         total money, name regclass); INSERT INTO stored VALUES (1, 'P1DT2H', \
         '2026-02-03T04:05:06Z', 1.0::float8 / 3, '\\x00', 1.5::numeric::money, 'stored')",
    );
    let settings = connection(&server, "postgres");
    wait_for(async {
        let mut walsender = Connection::connect(&settings).await.expect("connected");
        let sql = Sql::connect(&settings).await.expect("connected");
        for (name, _, expected) in FORMS {
            assert_eq!(walsender.setting(name).await.expect("a setting"), expected);
            let rows = sql.rows("ask", "SELECT current_setting($1)", &[&name]).await;
            assert_eq!(rows.expect("a setting")[0].get::<_, &str>(0), expected);
        }
    });
    let columns = ["span", "at", "ratio", "bytes", "total", "name"].map(str::to_owned);
    let expected =
        ["P1DT2H", "2026-02-03 04:05:06+00", "0.3333333333333333", "\\x00", "$1.50", "stored"];
    let expected: Vec<Nullable> = expected.map(|text| Some(text.to_owned())).to_vec();
    assert_eq!(read(&settings, "stored", &columns), [expected]);
}

#[test]
fn a_value_of_before_an_alter_type_is_its_text() {
    let server = Server::start();
    let session = server.create_database("shop");
    let settings = connection(&server, "postgres");
    session.run(
        "CREATE TYPE item AS (sku text, price numeric); CREATE TABLE stored (id int, item item, \
         items item[]); INSERT INTO stored VALUES (1, '(a b,1.50)', '{\"(c,2)\",NULL}')",
    );
    let columns = ["item", "items"].map(str::to_owned);
    let before = read(&settings, "stored", &columns).remove(0);
    let written = |form: &Form, text: &Nullable| {
        let mut json = Vec::new();
        let written = form.write(text.as_ref().expect("a value").as_bytes(), &mut json);
        (String::from_utf8(json).expect("UTF-8"), written.expect("a value's text"))
    };
    let forms = || {
        let types = described(&settings, &session, "stored");
        types.iter().map(|of| Form::of(of, Options::default())).collect::<Vec<_>>()
    };
    assert_eq!(
        written(&forms()[0], &before[0]),
        ("{\"sku\":\"a b\",\"price\":\"1.50\"}".to_owned(), Written::AsDescribed)
    );
    for (alter, item, items) in [
        ("ADD ATTRIBUTE note text", "\"(\\\"a b\\\",1.50)\"", "[\"(c,2)\",null]"),
        ("DROP ATTRIBUTE sku, DROP ATTRIBUTE note", "\"(\\\"a b\\\",1.50)\"", "[\"(c,2)\",null]"),
        ("ADD ATTRIBUTE at timestamptz", "\"(\\\"a b\\\",1.50)\"", "[\"(c,2)\",null]"),
    ] {
        session.run(&format!("ALTER TYPE item {alter}"));
        let forms = forms();
        let expected = (item.to_owned(), Written::OtherFields);
        assert_eq!(written(&forms[0], &before[0]), expected, "{alter}");
        let expected = (items.to_owned(), Written::OtherFields);
        assert_eq!(written(&forms[1], &before[1]), expected, "{alter}");
    }
}

/// A row of the table in docs/types.md.
struct Example {
    sql: String,
    literal: String,
    json: String,
    options: Options,
}

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/types.md");
    fs::read_to_string(path).expect("docs/types.md")
}

fn code(cell: &str) -> String {
    cell.trim().trim_matches('`').to_owned()
}

fn examples(document: &str) -> Vec<Example> {
    let rows = document.lines().filter(|line| line.starts_with("| `"));
    let example = |row: &str| {
        let cells: Vec<&str> = row.split('|').collect();
        let [_, sql, _, literal, json, option, _] = cells.as_slice() else { panic!("{row}") };
        let mut options = Options::default();
        match code(option).as_str() {
            "" => {}
            "int8 = \"string\"" => options.int8 = Int8Form::String,
            "numeric = \"number\"" => options.numeric = NumericForm::Number,
            "bytea = \"hex\"" => options.bytea = ByteaForm::Hex,
            other => panic!("{other}"),
        }
        Example { sql: code(sql), literal: code(literal), json: code(json), options }
    };
    rows.map(example).collect()
}

#[test]
fn the_examples_of_the_document_are_what_is_written() {
    let document = document();
    let (_, types) = document.split_once("```sql\n").expect("the types of the examples");
    let server = Server::start();
    let session = server.create_database("shop");
    session.run(types.split("```").next().expect("SQL"));
    let settings = connection(&server, "postgres");
    for Example { sql, literal, json, options } in examples(&document) {
        session.run(&format!(
            "DROP TABLE IF EXISTS stored; CREATE TABLE stored (id int, value {sql}); \
             INSERT INTO stored VALUES (1, {})",
            literals::sql(&Some(literal))
        ));
        let form = Form::of(&described(&settings, &session, "stored")[0], options);
        let text = read(&settings, "stored", &["value".to_owned()]).remove(0).remove(0);
        assert_eq!(json_of(&form, &text.expect("a value")), json, "{sql}");
    }
}

#[test]
fn every_type_that_is_built_in_is_in_the_document() {
    let document = document();
    let server = Server::start();
    let session = server.session("postgres");
    let without_input = document.lines().find(|line| line.contains("takes no values"));
    let without_input = without_input.expect("types without values").split('`').skip(1).step_by(2);
    let shown: BTreeSet<Oid> = examples(&document)
        .iter()
        .map(|example| example.sql.as_str())
        .chain(without_input)
        .filter_map(|sql| {
            session.value(&format!("SELECT to_regtype({})", literals::sql(&Some(sql.to_owned()))))
        })
        .map(|name| oid_of(&session, &name))
        .collect();
    let lost: Vec<&str> = built_in_types()
        .filter(|of| !matches!(of.kind, Kind::Array { .. }) && !shown.contains(&of.oid))
        .map(|of| of.name.as_str())
        .collect();
    assert_eq!(lost, Vec::<&str>::new());
}
