//! Chunks of tables, read from each supported PostgreSQL as the pipeline reads them.

use tailwater::{
    change::{Tuple, TupleValue, Xid},
    lsn::Lsn,
    postgres::{
        Encryption, Host, PublicationName, Settings, TableName,
        snapshot::{Bound, ChunkQuery, ChunkReader, Moment, Part, RowBlock, Shape},
        sql::Sql,
    },
};
use tokio::runtime::{Builder, Runtime};

use crate::support::{
    PATIENCE, odd_forms,
    postgres::{Server, Session},
    wait_until,
};

const VERSIONS: [u32; 5] = [14, 15, 16, 17, 18];

type Row = Vec<Option<String>>;

fn settings(server: &Server) -> Settings {
    Settings {
        host: Host::Tcp { host: "127.0.0.1".to_owned(), port: server.port() },
        other_hosts: Vec::new(),
        user: "postgres".to_owned(),
        password: None,
        database: "shop".to_owned(),
        application_name: "tailwater".to_owned(),
        encryption: Encryption::NONE,
    }
}

/// Reads one table.
struct Reading {
    runtime: Runtime,
    reader: ChunkReader,
    table: TableName,
    publication: PublicationName,
    condition: Option<&'static str>,
}

impl Reading {
    fn of(server: &Server, schema: &str, name: &str) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let reader = runtime.block_on(ChunkReader::connect(&settings(server)));
        Self {
            runtime,
            reader: reader.expect("connected"),
            table: TableName { schema: schema.to_owned(), name: name.to_owned() },
            publication: PublicationName::try_from("tailwater".to_owned()).expect("a name"),
            condition: None,
        }
    }

    fn begin(&mut self) -> Moment {
        let begun = self.runtime.block_on(self.reader.begin(&self.table, &self.publication));
        begun.expect("begun")
    }

    fn shape(&self) -> Shape {
        let found = Shape::look_up(self.reader.sql(), &self.publication, &self.table);
        self.runtime.block_on(found).expect("looked up").expect("a table")
    }

    /// Also ends the transaction.
    fn read(&mut self, moment: &Moment, shape: &Shape, part: Part<'_>) -> RowBlock {
        let bytes_max = 1 << 20;
        let (table, condition) = (&self.table, self.condition);
        let query = ChunkQuery { table, shape, condition, part, bytes_max, meant_rows_max: 50_000 };
        let reading = self.reader.read(&query, None, moment.position);
        self.runtime.block_on(reading).expect("read")
    }

    /// The same by a statement that the server knew before, which is returned.
    fn read_prepared(&mut self, shape: &Shape, part: Part<'_>) -> (String, RowBlock) {
        let (table, condition) = (&self.table, self.condition);
        let query = ChunkQuery {
            table,
            shape,
            condition,
            part,
            bytes_max: 1 << 20,
            meant_rows_max: 50_000,
        };
        let begun = self.runtime.block_on(self.reader.begin_with(&query, &self.publication));
        let (moment, prepared) = begun.expect("begun");
        assert!(prepared.is_some(), "the server takes it");
        let known = "SELECT statement FROM pg_prepared_statements WHERE statement LIKE 'COPY (%'";
        let known = self.reader.sql().rows("ask for the statement", known, &[]);
        let known = self.runtime.block_on(known).expect("an answer");
        let [statement] = known.as_slice() else { panic!("{} statements", known.len()) };
        let block = self.reader.read(&query, prepared, moment.position);
        (statement.get(0), self.runtime.block_on(block).expect("read"))
    }

    fn end(&mut self, moment: &Moment) {
        self.runtime.block_on(self.reader.end(moment.position)).expect("ended");
    }

    /// A transaction without a row.
    fn moment(&mut self) -> Moment {
        let moment = self.begin();
        self.end(&moment);
        moment
    }

    /// All rows, each chunk in a transaction of its own.
    fn all(&mut self, rows_max: usize) -> (Shape, Vec<Row>) {
        let (mut all, mut cursor): (Vec<Row>, Option<Vec<String>>) = (Vec::new(), None);
        loop {
            let moment = self.begin();
            let shape = self.shape();
            let part = Part::Behind { bound: bound(&cursor), rows_max };
            let block = self.read(&moment, &shape, part);
            let of_table = |tuple| {
                let mut values = row(tuple);
                values.truncate(shape.table.columns.len());
                values
            };
            all.extend(block.rows().map(of_table));
            if block.scanned() < rows_max {
                return (shape, all);
            }
            let last = row(block.last_scanned().expect("a row"));
            let key = shape.key.iter().map(|column| last[column.index].clone().expect("no NULL"));
            cursor = Some(key.collect());
        }
    }
}

fn bound(cursor: &Option<Vec<String>>) -> Bound<'_> {
    cursor.as_deref().map_or(Bound::Nothing, Bound::UpTo)
}

fn row(tuple: Tuple<'_>) -> Row {
    let text = |value| match value {
        TupleValue::Text(text) => Some(String::from_utf8(text.to_vec()).expect("UTF-8")),
        TupleValue::Null | TupleValue::UnchangedToast => None,
    };
    tuple.iter().map(text).collect()
}

/// A database with these tables, all of them published.
fn shop(version: u32, sql: &str) -> (Server, Session) {
    let server = Server::start_version(version);
    let session = server.create_database("shop");
    session.run(sql);
    session.run(
        "CREATE PUBLICATION tailwater FOR ALL TABLES WITH (publish_via_partition_root = true)",
    );
    (server, session)
}

/// A session whose values have the forms that are pinned.
fn plain(server: &Server) -> Session {
    let session = server.session("shop");
    session.run(
        "SET datestyle = ISO; SET intervalstyle = postgres; SET extra_float_digits = 3; \
         SET timezone = UTC; SET bytea_output = hex; SET lc_monetary = 'C'",
    );
    session
}

const TABLES: &str = r#"
    CREATE TABLE composite (b text NOT NULL, a int NOT NULL, c bytea, PRIMARY KEY (a, b));
    INSERT INTO composite SELECT chr(96 + n % 7), n / 7, decode(lpad(to_hex(n), 4, '0'), 'hex')
        FROM generate_series(0, 200) n;
    CREATE SCHEMA "Odd ""one";
    CREATE TABLE "Odd ""one"."Täble" ("the key" text COLLATE "und-x-icu" PRIMARY KEY, "v\" text);
    INSERT INTO "Odd ""one"."Täble"
        SELECT (ARRAY['a','B','ä','Z','é','x','''','\','_','10','9',' ','A'])[n % 13 + 1] || n / 13,
            E'tab\t new\nline \\N ' || n FROM generate_series(0, 90) n;
    CREATE TABLE events (at timestamptz NOT NULL, id uuid NOT NULL, v float8, PRIMARY KEY (id, at))
        PARTITION BY RANGE (at);
    CREATE TABLE events_old PARTITION OF events FOR VALUES FROM (MINVALUE) TO ('2026-01-01');
    CREATE TABLE events_new PARTITION OF events FOR VALUES FROM ('2026-01-01') TO (MAXVALUE);
    INSERT INTO events SELECT '2025-12-20'::timestamptz + n * interval '7 hours 0.1 seconds',
        md5(n::text)::uuid, 1.0 / n FROM generate_series(1, 100) n;
    CREATE TABLE children (id numeric PRIMARY KEY);
    CREATE TABLE grandchildren () INHERITS (children);
    INSERT INTO children SELECT n / 4.0 FROM generate_series(-20, 20) n;
    INSERT INTO grandchildren VALUES (1000);
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
    CREATE DOMAIN small AS int CHECK (VALUE < 100);
    CREATE TABLE moods (mood mood, tags text[], at date, n small, span int4range,
        PRIMARY KEY (mood, tags, at, n, span));
    INSERT INTO moods SELECT (enum_range(NULL::mood))[n % 3 + 1], ARRAY[NULL, 'x"' || n % 2],
        CASE n % 4 WHEN 0 THEN 'infinity' ELSE '2026-01-01'::date - n END, n, int4range(n, n + 5)
        FROM generate_series(0, 60) n;
    CREATE TABLE labels (label char(6) NOT NULL, n bigint NOT NULL, other int UNIQUE);
    CREATE UNIQUE INDEX labels_key ON labels (n DESC, label COLLATE "C");
    ALTER TABLE labels REPLICA IDENTITY USING INDEX labels_key;
    INSERT INTO labels SELECT chr(96 + n % 5), n % 9, n FROM generate_series(0, 40) n;
"#;

#[test]
fn chunks_in_the_order_of_the_key_are_the_whole_table() {
    for version in VERSIONS {
        let (server, _) = shop(version, TABLES);
        let plain = plain(&server);
        for (schema, name, order, from) in [
            ("public", "composite", "a, b", "composite"),
            ("Odd \"one", "Täble", "\"the key\"", "\"Odd \"\"one\".\"Täble\""),
            ("public", "events", "id, at", "events"),
            ("public", "children", "id", "ONLY children"),
            ("public", "moods", "mood, tags, at, n, span", "moods"),
            ("public", "labels", "n, label", "labels"),
        ] {
            let mut reading = Reading::of(&server, schema, name);
            let expected = server_rows(&plain, from, order);
            for rows_max in [1, 7, 1_000] {
                let (_, rows) = reading.all(rows_max);
                assert_eq!(rows, expected, "{name} by {rows_max} on {version}");
            }
            assert!(expected.len() > 20, "{name}");
        }
    }
}

/// Cursors are literals, and these are read as the session says.
#[test]
fn a_key_is_read_alike_whatever_database_and_role_say() {
    let (server, session) = shop(
        17,
        r#"CREATE TABLE paths (path text, parts text[], at date, PRIMARY KEY (path, parts, at));
           INSERT INTO paths SELECT 'C:\new\' || n % 3 || '''\', ARRAY[NULL, 'x"\' || n % 2],
               '2026-02-03'::date + n FROM generate_series(0, 60) n"#,
    );
    let expected = server_rows(&session, "paths", "path, parts, at");
    odd_forms::say(&session);
    let mut reading = Reading::of(&server, "public", "paths");
    for rows_max in [1, 7, 1_000] {
        let (_, rows) = reading.all(rows_max);
        assert_eq!(rows, expected, "by {rows_max}");
    }
}

fn server_rows(session: &Session, from: &str, order: &str) -> Vec<Row> {
    session.rows(&format!("SELECT * FROM {from} ORDER BY {order}"))
}

/// citext lies in a schema that no search path holds; its order is not that of text.
#[test]
fn a_key_is_compared_by_the_operators_of_its_own_type() {
    let (server, session) = shop(
        17,
        "CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; CREATE DOMAIN code AS ext.citext; \
         CREATE DOMAIN narrow AS code; \
         CREATE TABLE codes (n int, code narrow, PRIMARY KEY (code, n)); \
         INSERT INTO codes SELECT n, (ARRAY['a','B','c','D'])[n % 4 + 1] || n / 4 \
             FROM generate_series(0, 60) n",
    );
    let mut reading = Reading::of(&server, "public", "codes");
    let expected = server_rows(&session, "codes", "lower(code::text), n");
    let (_, rows) = reading.all(3);
    assert_eq!(rows, expected);
    let moment = reading.begin();
    let shape = reading.shape();
    let keys = [["b0", "1"], ["D3", "15"]].map(|key| key.map(str::to_owned).to_vec());
    let last = ["C9".to_owned(), "0".to_owned()];
    let block = reading.read(&moment, &shape, Part::Of { keys: &keys, bound: Bound::UpTo(&last) });
    let found: Vec<_> =
        block.rows().map(|one| (row(one)[1].clone(), RowBlock::is_within_bound(one))).collect();
    assert_eq!(found, [(Some("B0".to_owned()), true), (Some("D3".to_owned()), false)]);
}

/// The index of a replica identity may tell keys apart that are equal for the column.
#[test]
fn a_key_is_ordered_and_compared_as_its_index_does() {
    for version in VERSIONS {
        let (server, session) = shop(
            version,
            r#"CREATE SCHEMA "my ones";
               CREATE COLLATION "my ones".ci
                   (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
               CREATE TABLE names (name text COLLATE "my ones".ci NOT NULL, n int NOT NULL);
               CREATE UNIQUE INDEX names_key ON names (name COLLATE "C", n);
               ALTER TABLE names REPLICA IDENTITY USING INDEX names_key;
               INSERT INTO names SELECT (ARRAY['a', 'A', 'b', 'B'])[n % 4 + 1], n / 20
                   FROM generate_series(0, 99) n GROUP BY 1, 2;
               CREATE TABLE ci_names (name text COLLATE "my ones".ci PRIMARY KEY);
               INSERT INTO ci_names SELECT (ARRAY['x', 'Y'])[n % 2 + 1] || n
                   FROM generate_series(0, 30) n;
               CREATE TYPE "my ones"."Pair" AS (a int, b text);
               CREATE DOMAIN even AS "my ones"."Pair" CHECK ((VALUE).a % 2 = 0);
               CREATE TABLE pairs (pair "my ones"."Pair", even even, n int,
                   PRIMARY KEY (pair, even, n));
               INSERT INTO pairs SELECT ROW(n % 7, 'it''s ' || n)::"my ones"."Pair",
                   ROW(n * 2, 'x')::"my ones"."Pair", n FROM generate_series(0, 30) n;
               CREATE TABLE varying (name varchar(9) PRIMARY KEY, other varchar(9) NOT NULL);
               CREATE UNIQUE INDEX varying_key ON varying (other varchar_ops);
               ALTER TABLE varying REPLICA IDENTITY USING INDEX varying_key;
               INSERT INTO varying SELECT n, n * 7 FROM generate_series(0, 30) n;
               CREATE TABLE patterns (name text NOT NULL);
               CREATE UNIQUE INDEX patterns_key ON patterns (name text_pattern_ops);
               ALTER TABLE patterns REPLICA IDENTITY USING INDEX patterns_key"#,
        );
        for (name, order) in [
            ("names", "name COLLATE \"C\", n"),
            ("ci_names", "name"),
            ("pairs", "pair, even, n"),
            ("varying", "other"),
        ] {
            let mut reading = Reading::of(&server, "public", name);
            let expected = server_rows(&session, name, order);
            assert!(expected.len() >= 20, "{name}");
            for rows_max in [1, 3, 1_000] {
                let (_, rows) = reading.all(rows_max);
                assert_eq!(rows, expected, "{name} by {rows_max} on {version}");
            }
            let moment = reading.begin();
            let shape = reading.shape();
            let one = &expected[5];
            let key = shape.key.iter().map(|column| one[column.index].clone().expect("no NULL"));
            let key: Vec<String> = key.collect();
            let part = Part::Of { keys: std::slice::from_ref(&key), bound: Bound::UpTo(&key) };
            let block = reading.read(&moment, &shape, part);
            let found: Vec<(Row, bool)> =
                block.rows().map(|one| (row(one), RowBlock::is_within_bound(one))).collect();
            let with_bound: Row = one.iter().cloned().chain([Some("t".to_owned())]).collect();
            assert_eq!(found, [(with_bound, true)], "{name} on {version}");
        }
        let mut reading = Reading::of(&server, "public", "patterns");
        let moment = reading.begin();
        assert!(reading.shape().key.is_empty(), "{version}");
        reading.end(&moment);
    }
}

#[test]
fn rows_and_columns_are_those_that_the_publication_delivers() {
    for version in VERSIONS {
        let server = Server::start_version(version);
        let session = server.create_database("shop");
        session.run(
            "CREATE TABLE orders (id int PRIMARY KEY, secret text, total int, \
                 twice int GENERATED ALWAYS AS (total * 2) STORED); \
             INSERT INTO orders (id, secret, total) SELECT n, 's', n * 10 \
                 FROM generate_series(1, 9) n",
        );
        let (list, filter) = match version {
            14 => ("", ""),
            18 => (" (id, total, twice)", " WHERE (total > 50)"),
            _ => (" (id, total)", " WHERE (total > 50)"),
        };
        session.run(&format!("CREATE PUBLICATION tailwater FOR TABLE orders{list}{filter}"));
        let mut reading = Reading::of(&server, "public", "orders");
        let (shape, rows) = reading.all(2);
        let names: Vec<&str> = shape.table.columns.iter().map(|column| &*column.name).collect();
        let (columns, count) = match version {
            14 => (vec!["id", "secret", "total"], 9),
            18 => (vec!["id", "total", "twice"], 4),
            _ => (vec!["id", "total"], 4),
        };
        assert_eq!((names, rows.len()), (columns, count), "{version}");
        let last = rows.last().expect("a row");
        let expected = if version == 18 { "180" } else { "90" };
        assert_eq!(last.last().expect("a column").as_deref(), Some(expected), "{version}");
    }
}

/// However few of them match, a read looks at so many rows and no more, in the order of the index.
#[test]
fn rows_that_a_condition_leaves_out_are_looked_at_and_count() {
    for version in VERSIONS {
        let (server, session) = shop(
            version,
            r#"CREATE SCHEMA "my shop"; CREATE TABLE "my shop".orders
                   (b int, a int, "is_meant" text, number int, PRIMARY KEY (a, b));
               INSERT INTO "my shop".orders SELECT n % 10, n / 10, 'v' || n, n
                   FROM generate_series(0, 19999) n;
               CREATE TABLE wanted (n int); INSERT INTO wanted VALUES (3), (12345), (12346);
               ANALYZE"#,
        );
        let mut reading = Reading::of(&server, "my shop", "orders");
        for condition in [
            "number IN (3, 12345, 12346) -- these",
            "orders.number IN (SELECT n FROM public.wanted)",
            r#"EXISTS (SELECT FROM public.wanted number WHERE number.n = "my shop".orders.number)"#,
            "CASE WHEN number IN (3, 12345, 12346) THEN true END",
        ] {
            reading.condition = Some(condition);
            for rows_max in [4_000, 3_999, 30_000] {
                let (_, rows) = reading.all(rows_max);
                let numbers: Vec<_> = rows.iter().map(|row| row[3].as_deref()).collect();
                assert_eq!(numbers, ["3", "12345", "12346"].map(Some), "{condition} on {version}");
            }
            reading.moment();
            let shape = reading.shape();
            let cursor = ["40", "7"].map(str::to_owned);
            let part = Part::Behind { bound: Bound::UpTo(&cursor), rows_max: 500 };
            let (asked, block) = reading.read_prepared(&shape, part);
            assert_eq!((block.len(), block.scanned()), (0, 500), "{condition} on {version}");
            let last = row(block.last_scanned().expect("a row"));
            assert_eq!(last[3].as_deref(), Some("907"), "{condition} on {version}");
            let asked =
                asked.strip_prefix("COPY (").and_then(|rest| rest.strip_suffix(") TO STDOUT"));
            let plan = session.rows(&format!("EXPLAIN {}", asked.expect("all of it")));
            let plan: Vec<String> = plan.into_iter().flatten().flatten().collect();
            let plan = plan.join("\n");
            assert!(plan.contains("Index Scan using orders_pkey"), "{plan}");
            assert!(!plan.contains("Sort"), "{plan}");
        }
    }
}

#[test]
fn what_names_a_row_in_the_stream_is_the_key() {
    let (server, session) = shop(
        18,
        "CREATE TABLE plain (a int, b int, c int, PRIMARY KEY (b, a) INCLUDE (c)); \
         CREATE TABLE full_one (LIKE plain INCLUDING ALL); \
         ALTER TABLE full_one REPLICA IDENTITY FULL; \
         CREATE TABLE none_full (a int); ALTER TABLE none_full REPLICA IDENTITY FULL; \
         CREATE TABLE by_index (a int PRIMARY KEY, b int NOT NULL UNIQUE); \
         ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_b_key; \
         INSERT INTO plain SELECT n, n, n FROM generate_series(1, 500) n; ANALYZE plain",
    );
    for (name, expected) in [
        ("plain", vec!["b", "a"]),
        ("full_one", vec!["b", "a"]),
        ("none_full", vec![]),
        ("by_index", vec!["b"]),
    ] {
        let mut reading = Reading::of(&server, "public", name);
        let moment = reading.begin();
        let shape = reading.shape();
        reading.end(&moment);
        let key: Vec<&str> = shape.key.iter().map(|column| &*column.name).collect();
        assert_eq!(key, expected, "{name}");
        assert_eq!(shape.estimate, (name == "plain").then_some(500), "{name}");
        // Whatever is altered shows in the next stamp.
        for sql in [
            "ALTER TABLE t ALTER COLUMN a TYPE bigint",
            "ALTER TABLE t RENAME COLUMN a TO z",
            "ALTER TABLE t REPLICA IDENTITY NOTHING",
            "ALTER PUBLICATION tailwater SET (publish_via_partition_root = false)",
        ] {
            let before = reading.moment();
            let again = reading.moment();
            assert_eq!(again.stamp, before.stamp, "nothing was altered");
            session.run(&sql.replace("TABLE t ", &format!("TABLE {name} ")));
            let after = reading.moment();
            assert_ne!(after.stamp, before.stamp, "{sql} of {name}");
        }
    }
}

/// The rewrite is under way when the chunk begins. A snapshot taken before it waits for the lock
/// would show an empty table.
#[test]
fn a_table_that_is_being_rewritten_is_waited_for_before_the_snapshot() {
    for version in VERSIONS {
        let (server, session) = shop(
            version,
            "CREATE TABLE t (id int PRIMARY KEY, v int); \
             INSERT INTO t SELECT n, n FROM generate_series(1, 50) n",
        );
        let mut reading = Reading::of(&server, "public", "t");
        session.run("BEGIN; ALTER TABLE t ALTER COLUMN v TYPE bigint");
        let watching = server.session("shop");
        let rewriting = std::thread::spawn(move || {
            wait_until("the chunk to wait for the table", PATIENCE, || {
                let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
                watching.value(waiting).as_deref() == Some("1")
            });
            session.run("COMMIT");
        });
        let (shape, rows) = reading.all(1_000);
        rewriting.join().expect("rewritten");
        assert_eq!(rows.len(), 50, "{version}");
        assert_eq!(shape.table.columns[1].type_oid.0, 20, "{version}");
    }
}

/// A commit that did not wait for the disk is visible, and its record not yet written: the position
/// is behind it, and the log gets there although nobody else writes.
#[test]
fn the_log_is_written_up_to_what_a_snapshot_shows() {
    for version in VERSIONS {
        let (server, session) = shop(version, "CREATE TABLE t (id int PRIMARY KEY)");
        session.run("SET synchronous_commit = off");
        let mut reading = Reading::of(&server, "public", "t");
        for id in 0..20 {
            session.run(&format!("INSERT INTO t VALUES ({id})"));
            let inserted = position(&session, "SELECT pg_current_wal_insert_lsn()");
            let moment = reading.begin();
            let shape = reading.shape();
            let part = Part::Behind { bound: Bound::Nothing, rows_max: 100 };
            let rows = reading.read(&moment, &shape, part).len();
            assert_eq!(rows, id + 1, "{version}");
            assert!(moment.position >= inserted, "{version}");
            assert_eq!(moment.timeline, 1);
            wait_until("the log to be written", PATIENCE, || {
                position(&session, "SELECT pg_current_wal_flush_lsn()") >= moment.position
            });
        }
    }
}

/// Reading writes into the log itself: hint bits of pages that nobody has read, where there are
/// checksums. On an idle server that would not be written to the disk for many seconds.
#[test]
fn what_reading_writes_into_the_log_is_not_waited_for() {
    let (server, session) = shop(18, "CREATE TABLE t (id int PRIMARY KEY, v text)");
    assert_eq!(session.value("SHOW data_checksums").as_deref(), Some("on"));
    session.run(
        "INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series(1, 4000) n; CHECKPOINT",
    );
    let mut reading = Reading::of(&server, "public", "t");
    let before = position(&session, "SELECT pg_current_wal_insert_lsn()");
    let next = || {
        let text = session.value("SELECT pg_snapshot_xmax(pg_current_snapshot())");
        text.expect("a value").parse::<u64>().expect("a number")
    };
    let next_xid = next();
    let (mut positions, mut cursor): (Vec<Lsn>, Option<Vec<String>>) = (Vec::new(), None);
    while positions.len() < 40 {
        let moment = reading.begin();
        let shape = reading.shape();
        let part = Part::Behind { bound: bound(&cursor), rows_max: 100 };
        let block = reading.read(&moment, &shape, part);
        cursor = block.rows().last().map(|last| vec![row(last)[0].clone().expect("an id")]);
        positions.push(moment.position);
    }
    let after = position(&session, "SELECT pg_current_wal_insert_lsn()");
    assert!(after.bytes_since(before) > 1 << 20, "nothing was written");
    assert!(positions.last() <= Some(&before), "{before} {positions:?}");
    assert!(next() <= next_xid + 5, "one of ours, and perhaps the vacuum's");
    // Whoever commits moves it on.
    session.run("DELETE FROM t WHERE id = 1");
    let deleted = position(&session, "SELECT pg_current_wal_insert_lsn()");
    assert!(reading.moment().position >= deleted);
}

fn position(session: &Session, sql: &str) -> Lsn {
    session.value(sql).expect("a value").parse().expect("a position")
}

#[test]
fn a_snapshot_shows_what_has_ended_and_not_what_is_open() {
    let (server, session) = shop(16, "CREATE TABLE t (id int PRIMARY KEY)");
    let xid = |session: &Session| {
        let text = session.value("SELECT pg_current_xact_id()::xid").expect("an identifier");
        Xid(text.parse().expect("a number"))
    };
    let (open, other) = (server.session("shop"), server.session("shop"));
    open.run("BEGIN; INSERT INTO t VALUES (1); SAVEPOINT s; INSERT INTO t VALUES (2)");
    let open_xid = xid(&open);
    let ended_xid = xid(&other);
    let mut reading = Reading::of(&server, "public", "t");
    let before = reading.moment();
    open.run("COMMIT");
    let after = reading.moment();
    let later_xid = xid(&session);
    let shown =
        |moment: &Moment| [open_xid, ended_xid, later_xid].map(|xid| moment.snapshot.shows(xid));
    assert_eq!((shown(&before), shown(&after)), ([false, true, false], [true, true, false]));
}

#[test]
fn rows_that_are_too_many_for_the_memory_are_cut_off() {
    let (server, _) = shop(
        17,
        "CREATE TABLE t (id int PRIMARY KEY, v text); \
         INSERT INTO t SELECT n, repeat('x', 300000) FROM generate_series(1, 100) n",
    );
    let mut reading = Reading::of(&server, "public", "t");
    let moment = reading.begin();
    let shape = reading.shape();
    let block =
        reading.read(&moment, &shape, Part::Behind { bound: Bound::Nothing, rows_max: 100 });
    assert!(block.is_cut_off());
    // The first one that takes it above the bound is kept.
    assert_eq!(block.len(), 4);
    assert!(block.bytes() < 4 << 20, "{}", block.bytes());
    // One row is never too much.
    let mut reading = Reading::of(&server, "public", "t");
    let moment = reading.begin();
    let query = ChunkQuery {
        table: &reading.table,
        shape: &shape,
        condition: Some("id > 98 -- the last ones"),
        part: Part::Behind { bound: Bound::Nothing, rows_max: 100 },
        bytes_max: 1,
        meant_rows_max: 50_000,
    };
    let block =
        reading.runtime.block_on(reading.reader.read(&query, None, moment.position)).expect("read");
    assert_eq!((block.len(), block.is_cut_off()), (1, true));
}

#[test]
fn a_condition_is_checked_before_a_row_is_read() {
    let (server, session) = shop(15, "CREATE TABLE t (id int PRIMARY KEY, v text)");
    session.run("CREATE ROLE reader LOGIN; CREATE ROLE blind LOGIN; GRANT SELECT ON t TO reader");
    let mut reading = Reading::of(&server, "public", "t");
    let moment = reading.begin();
    let shape = reading.shape();
    reading.end(&moment);
    for (role, condition, state) in [
        ("reader", Some("v = 'x'"), None),
        ("reader", Some("nothing = 'x'"), Some("42703")),
        ("reader", Some("true) x; DROP TABLE t; SELECT FROM (SELECT 1 AS a"), Some("42601")),
        ("blind", None, Some("42501")),
    ] {
        let settings = Settings { user: role.to_owned(), ..settings(&server) };
        let sql = reading.runtime.block_on(Sql::connect(&settings)).expect("connected");
        let query = ChunkQuery {
            table: &reading.table,
            shape: &shape,
            condition,
            part: Part::Behind { bound: Bound::Nothing, rows_max: 1 },
            bytes_max: 1,
            meant_rows_max: 1,
        };
        let found = reading.runtime.block_on(query.check(&sql)).err();
        let found = found.as_ref().and_then(|error| error.sqlstate().map(str::to_owned));
        assert_eq!(found.as_deref(), state, "{role} {condition:?}");
    }
}

#[test]
fn what_is_wrong_with_a_condition_is_told_with_its_place() {
    let (server, _) = shop(17, "CREATE TABLE t (id int PRIMARY KEY, v text)");
    let mut reading = Reading::of(&server, "public", "t");
    let moment = reading.begin();
    let shape = reading.shape();
    reading.end(&moment);
    let sql = reading.runtime.block_on(Sql::connect(&settings(&server))).expect("connected");
    let (nothing, syntax, missing) = (None, Some("42601"), Some("42703"));
    for (condition, state, position) in [
        ("v = 'x' -- only", nothing, None),
        ("v IN (SELECT 'x') OR id > 3", nothing, None),
        ("v = 'ä' AND nothing = 1", missing, Some(13)),
        ("v === 'x'", Some("42883"), Some(3)),
        ("v = = 'x'", Some("42601"), Some(5)),
        ("id >  ", syntax, Some(5)),
        // Among the other conditions it would let rows through that these leave out.
        ("true) OR (true", syntax, Some(5)),
        ("true LIMIT 5 --", syntax, Some(16)),
        // In brackets alone it is none.
        ("true ORDER BY id", syntax, None),
        ("true; DROP TABLE t", syntax, Some(19)),
        ("count(*) > 1", Some("42803"), Some(1)),
        ("id", Some("42804"), Some(1)),
        ("1 / 0 > 0", Some("22012"), None),
    ] {
        let query = ChunkQuery {
            table: &reading.table,
            shape: &shape,
            condition: Some(condition),
            part: Part::Behind { bound: Bound::Nothing, rows_max: 1 },
            bytes_max: 1,
            meant_rows_max: 1,
        };
        let found = reading.runtime.block_on(query.check_condition(&sql)).err();
        let (found, at) = found.map_or((None, None), |error| {
            (error.source.sqlstate().map(str::to_owned), error.position)
        });
        assert_eq!((found.as_deref(), at), (state, position), "{condition}");
    }
}
