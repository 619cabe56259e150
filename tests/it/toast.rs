//! Large values that an UPDATE leaves as they are: the server does not send them again. They are taken
//! from the old row where that is whole, else named in `unavailable`; never null.

use serde_json::{Value, json};

use crate::support::{
    kafka::Record,
    postgres::{Server, Session},
    table_shop::TableShop,
};

/// A type whose values may be large.
struct Large {
    name: &'static str,
    sql_type: &'static str,
    /// A value of several KB, made of 200 digests: nothing compresses it into the row.
    value: &'static str,
    read: Read,
}

/// How the JSON form of a value is compared with what is stored.
#[derive(Clone, Copy)]
enum Read {
    /// By what the type's input function makes of it.
    ByInput,
    /// It is the JSON that is stored.
    AsJson,
    /// It stands for bytes.
    AsBytes,
    /// It is an object of strings.
    AsHstore,
}

impl Read {
    /// Whether `data` holds the value of column `large`.
    fn sql(self, table: &str) -> String {
        match self {
            Self::ByInput => format!(
                "(jsonb_populate_record(NULL::public.{table}, data)).large::text = large::text"
            ),
            Self::AsJson => "(data ->> 'large')::jsonb = large::jsonb".to_owned(),
            Self::AsBytes => "data ->> 'large' IN \
                (large::text, translate(encode(large, 'base64'), E'\\n', ''))"
                .to_owned(),
            Self::AsHstore => "CASE jsonb_typeof(data -> 'large') \
                WHEN 'object' THEN hstore_to_jsonb(large) = data -> 'large' \
                ELSE (data ->> 'large')::hstore = large END"
                .to_owned(),
        }
    }
}

const fn large(name: &'static str, sql_type: &'static str, value: &'static str) -> Large {
    Large { name, sql_type, value, read: Read::ByInput }
}

const fn read(read: Read, large: Large) -> Large {
    Large { read, ..large }
}

const TEXT: &str = "string_agg(digest, '')";

const LARGE: [Large; 21] = [
    large("text", "text", TEXT),
    large("varchar", "varchar(7000)", TEXT),
    large("bpchar", "char(7000)", TEXT),
    read(Read::AsBytes, large("bytea", "bytea", "decode(string_agg(digest, ''), 'hex')")),
    read(Read::AsJson, large("jsonb", "jsonb", "jsonb_object_agg('n' || n, digest)")),
    read(Read::AsJson, large("json", "json", "json_agg(digest)")),
    large("xml", "xml", "xmlelement(name digests, string_agg(digest, ' & '))"),
    large("text_array", "text[]", "array_agg(digest || E' \",\\\\{}')"),
    large("varchar_array", "varchar(40)[]", "array_agg(digest)"),
    large("uuid_array", "uuid[]", "array_agg(digest::uuid)"),
    large(
        "int_array",
        "int[]",
        "array_agg(ARRAY[n, ('x' || left(digest, 8))::bit(32)::int, NULL, \
         ('x' || right(digest, 8))::bit(32)::int])",
    ),
    large(
        "numeric_array",
        "numeric[]",
        "array_agg(('x' || left(digest, 16))::bit(64)::bigint / 7.0)",
    ),
    large("jsonb_array", "jsonb[]", "array_agg(jsonb_build_object('a \"b\"', digest))"),
    read(
        Read::AsHstore,
        large("hstore", "hstore", "hstore(array_agg('n' || n), array_agg(nullif(digest, '')))"),
    ),
    large("domain", "remark", TEXT),
    large("composite", "postal", "ROW(7, string_agg(digest, ' \"'))::postal"),
    large("tsvector", "tsvector", "to_tsvector('simple', string_agg(digest, ' '))"),
    large(
        "numeric",
        "numeric",
        "('1' || translate(string_agg(digest, ''), 'abcdef', '123456'))::numeric",
    ),
    large("varbit", "bit varying", "string_agg(('x' || digest)::bit(128)::text, '')::bit varying"),
    large(
        "multirange",
        "int8multirange",
        "range_agg(int8range(n * 1000, n * 1000 + ('x' || left(digest, 2))::bit(8)::int + 1))",
    ),
    large(
        "polygon",
        "polygon",
        "('(' || string_agg(format('(%s,%s)', n, ascii(digest)), ',') || ')')::polygon",
    ),
];

const TYPES: &str = "CREATE EXTENSION hstore; CREATE DOMAIN remark AS text CHECK (VALUE <> ''); \
                     CREATE TYPE postal AS (number int, street text)";

/// `row_<type>_<identity>` and `change_<type>_<identity>`.
const SECTIONS: &str = "[[table]]\nname = \"public.row_*\"\ntopic = \"{source}.toast\"\n\n\
                        [[table]]\nname = \"public.change_*\"\ntopic = \"{source}.toast\"\n\
                        data = \"change\"\n";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Identity {
    Default,
    Full,
}

/// A table of one type.
struct Table<'t> {
    large: &'t Large,
    form: &'static str,
    identity: Identity,
}

impl Table<'_> {
    fn name(&self) -> String {
        let identity = match self.identity {
            Identity::Default => "default",
            Identity::Full => "full",
        };
        format!("{}_{}_{identity}", self.form, self.large.name)
    }

    /// Makes it, and has its values lie where they are large: outside of the row, not compressed.
    fn create_sql(&self) -> String {
        let (name, Large { sql_type, .. }) = (self.name(), self.large);
        let identity = match self.identity {
            Identity::Default => "DEFAULT",
            Identity::Full => "FULL",
        };
        format!(
            "CREATE TABLE {name} (id text PRIMARY KEY, note text, large {sql_type}); \
             ALTER TABLE {name} ALTER large SET STORAGE EXTERNAL; \
             ALTER TABLE {name} REPLICA IDENTITY {identity};"
        )
    }

    /// What is done to it. A copy of what was stored is kept.
    fn change_sql(&self) -> String {
        let (name, Large { value, .. }) = (self.name(), self.large);
        format!(
            "INSERT INTO {name} SELECT 'a', 'inserted', {value} FROM \
                 (SELECT n, md5(random()::text) AS digest FROM generate_series(1, 200) n) digests; \
             CREATE TABLE kept.{name} AS TABLE {name}; \
             UPDATE {name} SET note = 'updated'; \
             UPDATE {name} SET id = 'b'; \
             UPDATE {name} SET note = 'cleared', large = NULL; \
             UPDATE {name} SET note = 'empty';"
        )
    }

    /// Whether the column `large` of `data` is what was stored.
    fn is_stored(&self, session: &Session, data: &Value) -> bool {
        let (name, is_it) = (self.name(), self.large.read.sql(&self.name()));
        let sql = format!(
            "SELECT coalesce({is_it}, false) FROM kept.{name}, \
             (SELECT $json${data}$json$::jsonb AS data) event"
        );
        session.value(&sql).as_deref() == Some("t")
    }
}

/// Type, data and what is unavailable of an event.
type Told = (&'static str, Value, Value);

/// What becomes of a table's changes, where `stored` is the form of the large value.
fn expected(table: &Table<'_>, stored: &Value) -> Vec<Told> {
    let row = |id: &str, note: &str, large: &Value| json!({"id": id, "note": note, "large": large});
    let is_whole = table.identity == Identity::Full;
    // Of a row that an update left as it was.
    let unchanged = |id: &str, note: &str| match is_whole {
        true => row(id, note, stored),
        false => json!({"id": id, "note": note}),
    };
    let unavailable = if is_whole { Value::Null } else { json!(["large"]) };
    let gone = if is_whole { row("a", "updated", stored) } else { json!({"id": "a"}) };
    let (nothing, null) = (Value::Null, Value::Null);
    // Type, old row as far as it is sent, new row, and what is unavailable of that.
    let old = |row: Value| if is_whole { row } else { Value::Null };
    let changes = [
        ("created", null.clone(), row("a", "inserted", stored), nothing.clone()),
        (
            "updated",
            old(row("a", "inserted", stored)),
            unchanged("a", "updated"),
            unavailable.clone(),
        ),
        ("deleted", gone, null.clone(), nothing.clone()),
        ("created", null.clone(), unchanged("b", "updated"), unavailable),
        ("updated", old(row("b", "updated", stored)), row("b", "cleared", &null), nothing.clone()),
        ("updated", old(row("b", "cleared", &null)), row("b", "empty", &null), nothing),
    ];
    let changed = [json!(["note"]), json!(["note", "large"]), json!(["note"])];
    let mut changed = changed.into_iter();
    let tell = |(kind, before, after, unavailable): (_, Value, Value, _)| {
        let data = match (table.form, kind) {
            ("row", "deleted") => before,
            ("row", _) => after,
            (_, "updated") if is_whole => {
                let changed = changed.next().expect("three updates");
                json!({"before": before, "after": after, "changed": changed})
            }
            (_, _) => json!({"before": before, "after": after}),
        };
        (kind, data, unavailable)
    };
    changes.into_iter().map(tell).collect()
}

fn publish(server: Server) {
    let tables: Vec<Table<'_>> = LARGE
        .iter()
        .flat_map(|large| {
            let forms = ["row", "change"];
            forms.into_iter().flat_map(move |form| {
                let identities = [Identity::Default, Identity::Full];
                identities.map(|identity| Table { large, form, identity })
            })
        })
        .collect();
    let create: String = tables.iter().map(Table::create_sql).collect();
    let shop =
        TableShop::open_on(server, &format!("CREATE SCHEMA kept; {TYPES}; {create}"), SECTIONS);
    let changes: Vec<String> = tables.iter().map(Table::change_sql).collect();
    let changes: Vec<&str> = changes.iter().map(String::as_str).collect();
    let records = shop.events(&changes);
    for table in &tables {
        let prefix = format!("{}.", table.name());
        let events: Vec<Value> = records.iter().map(Record::json).collect();
        let told: Vec<(&str, &Value, &Value)> = events
            .iter()
            .filter_map(|event| {
                let kind = event["type"].as_str()?.strip_prefix(&prefix)?;
                Some((kind, &event["data"], &event["unavailable"]))
            })
            .collect();
        let created = told.first().expect("an event").1;
        let created = if table.form == "row" { created } else { &created["after"] };
        assert!(table.is_stored(&shop.session, created), "{prefix}: {created}");
        let expected = expected(table, &created["large"]);
        assert_eq!(told.len(), expected.len(), "{prefix}");
        for (told, (kind, data, unavailable)) in told.iter().zip(&expected) {
            assert_eq!(*told, (*kind, data, unavailable), "{prefix}");
        }
    }
}

#[test]
fn unchanged_large_values_come_from_the_old_row_or_are_named_15() {
    publish(Server::start_version(15));
}

#[test]
fn unchanged_large_values_come_from_the_old_row_or_are_named_18() {
    publish(Server::start_version(18));
}

/// The server sends such a key with each update, as the old one, and a value of it that changed.
#[test]
fn a_large_key_is_the_key_of_each_event() {
    for identity in ["DEFAULT", "FULL"] {
        let shop = TableShop::open(
            &format!(
                "CREATE TABLE files (path text PRIMARY KEY, size text); \
                 ALTER TABLE files ALTER path SET STORAGE EXTERNAL; \
                 ALTER TABLE files REPLICA IDENTITY {identity}"
            ),
            "[[table]]\nname = \"public.files\"\ntopic = \"{source}.{table}\"\n",
        );
        let path = |letter: &str| format!("lpad('', 2500, '{letter}')");
        let records = shop.events(&[
            &format!("INSERT INTO files VALUES ({}, '1')", path("a")),
            "UPDATE files SET size = '2'",
            &format!("UPDATE files SET path = {}", path("b")),
            "DELETE FROM files",
        ]);
        let keys: Vec<(&str, String)> = records
            .iter()
            .map(|record| {
                let key = String::from_utf8(record.key.clone().expect("a key")).expect("text");
                assert_eq!(record.json()["data"]["path"], key, "{identity}");
                assert!(record.json()["unavailable"].is_null(), "{identity}");
                (record.header("event-type").expect("a type"), key)
            })
            .collect();
        let [a, b] = ["a", "b"].map(|letter| letter.repeat(2500));
        let expected = [
            ("files.created", &a),
            ("files.updated", &a),
            ("files.deleted", &a),
            ("files.created", &b),
            ("files.deleted", &b),
        ];
        let keys: Vec<(&str, &String)> = keys.iter().map(|(kind, key)| (*kind, key)).collect();
        assert_eq!(keys, expected, "{identity}");
    }
}
