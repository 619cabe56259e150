//! What `tailwater check` finds of domain tables: each defect alone, and what it prints mends it.

use crate::{
    check::{assert_healthy, check, diagnose, note_of},
    support::{
        daemon,
        kafka::Record,
        postgres::Server,
        prescription::run_sql,
        scene::{init, publishing, stop},
        table_shop::TableShop,
    },
};

const NAMED: &str = "[[table]]\nname = \"public.orders\"\ntopic = \"{source}.{table}\"\n";

const PATTERN: &str = "[[table]]\nname = \"public.*\"\ntopic = \"{source}.{table}\"\n";

const ORDERS: &str = "CREATE TABLE orders (id text PRIMARY KEY, status text)";

const KEYLESS: &str = "CREATE TABLE orders (id text, status text)";

/// Whether a finding of that name says that.
fn says(settings: &crate::support::settings::SettingsFile, name: &str, words: &str) -> bool {
    let (_, findings) = check(settings);
    let is_it = |finding: &serde_json::Value| {
        finding["name"] == name && finding["detail"].as_str().is_some_and(|it| it.contains(words))
    };
    findings.iter().any(is_it)
}

#[test]
fn nothing_is_wrong_with_tables_before_init_and_after_it() {
    for section in [NAMED, PATTERN] {
        let shop = TableShop::open(ORDERS, section);
        assert_healthy(&shop.settings);
        init(&shop.settings);
        let findings = assert_healthy(&shop.settings);
        assert!(note_of(&findings, "columns").contains("public.orders has what events need"));
        let publication = note_of(&findings, "publication");
        assert!(publication.contains("insert, update, delete, truncate"), "{publication}");
    }
}

#[test]
fn a_table_that_does_not_exist_is_named_otherwise() {
    let shop = TableShop::open(ORDERS, &NAMED.replace("public.orders", "public.order"));
    let fix = diagnose(&shop.settings, "table", "settings");
    assert_eq!(fix, "write name = \"public.orders\" under [[table]] in the settings file");
}

/// Found before anything is made, as well as where the application suffers already.
#[test]
fn a_table_without_identity_is_given_one() {
    let shop = TableShop::open(KEYLESS, NAMED);
    let fix = diagnose(&shop.settings, "replica_identity", "replica_identity");
    let ended = daemon::run(&["init"], &shop.settings);
    assert!(ended.is_code("replica_identity"), "{}", ended.stderr);
    run_sql(&shop.session, &fix);
    assert_healthy(&shop.settings);
    init(&shop.settings);
    assert_healthy(&shop.settings);

    shop.session.run("ALTER TABLE orders REPLICA IDENTITY DEFAULT");
    let fix = diagnose(&shop.settings, "replica_identity", "");
    assert!(shop.session.try_run("INSERT INTO orders VALUES ('a'); DELETE FROM orders").is_err());
    run_sql(&shop.session, &fix);
    assert_healthy(&shop.settings);
    shop.session.run("INSERT INTO orders VALUES ('a'); DELETE FROM orders");
}

/// What a partitioned table says of itself its partitions need not say.
#[test]
fn partitions_have_identities_of_their_own() {
    let table = "CREATE TABLE orders (id text, status text) PARTITION BY LIST (id); \
                 CREATE TABLE orders_a PARTITION OF orders FOR VALUES IN ('a'); \
                 CREATE TABLE orders_rest PARTITION OF orders DEFAULT PARTITION BY LIST (id); \
                 CREATE TABLE \"orders rest\" PARTITION OF orders_rest DEFAULT; \
                 ALTER TABLE orders REPLICA IDENTITY FULL";
    let shop = TableShop::open(table, NAMED);
    let (_, findings) = check(&shop.settings);
    let fixes: Vec<&str> = findings.iter().filter_map(|finding| finding["fix"].as_str()).collect();
    assert!(!fixes.is_empty(), "{findings:#?}");
    let ended = daemon::run(&["init"], &shop.settings);
    assert!(ended.is_code("replica_identity"), "{}", ended.stderr);
    fixes.iter().for_each(|fix| run_sql(&shop.session, fix));
    assert_healthy(&shop.settings);
    init(&shop.settings);
    shop.session.run("INSERT INTO orders VALUES ('a'), ('b'); DELETE FROM orders");

    // With a key, updates do not fail; but what is not carried comes as NULL.
    shop.session.run(
        "ALTER TABLE orders ADD PRIMARY KEY (id); \
         ALTER TABLE \"orders rest\" REPLICA IDENTITY DEFAULT",
    );
    let fix = diagnose(&shop.settings, "replica_identity", "replica_identity");
    assert_eq!(fix, "ALTER TABLE \"public\".\"orders rest\" REPLICA IDENTITY FULL;");
    run_sql(&shop.session, &fix);
    assert_healthy(&shop.settings);

    shop.session.run(
        "ALTER TABLE orders REPLICA IDENTITY DEFAULT; ALTER TABLE orders_a ALTER status SET NOT NULL; \
         CREATE UNIQUE INDEX status ON orders_a (status); \
         ALTER TABLE orders_a REPLICA IDENTITY USING INDEX status",
    );
    run_sql(&shop.session, &diagnose(&shop.settings, "replica_identity", "replica_identity"));
    assert_healthy(&shop.settings);
}

#[test]
fn tables_of_a_pattern_are_looked_at_too() {
    let sql = format!("{ORDERS}; CREATE TABLE keyless (id text)");
    let shop = TableShop::open(&sql, PATTERN);
    let findings = assert_healthy(&shop.settings);
    assert!(note_of(&findings, "replica_identity").contains("public.keyless"));
    init(&shop.settings);
    shop.session.run("CREATE TABLE bills (id text PRIMARY KEY)");
    let findings = assert_healthy(&shop.settings);
    let is_told = findings.iter().any(|finding| {
        finding["detail"]
            .as_str()
            .is_some_and(|it| it.contains("public.bills") && it.contains("init adds it"))
    });
    assert!(is_told, "{findings:#?}");
    init(&shop.settings);
    assert!(!says(&shop.settings, "publication", "public.bills"));
    assert!(says(&shop.settings, "columns", "public.bills has what events need"));
    // A table that loses its key is the application's trouble at once.
    shop.session.run("ALTER TABLE bills DROP CONSTRAINT bills_pkey");
    run_sql(&shop.session, &diagnose(&shop.settings, "replica_identity", ""));
    assert_healthy(&shop.settings);
}

#[test]
fn columns_that_the_settings_name_and_the_table_lacks_are_found() {
    let wrong = [
        ("key = [\"statuss\"]", "key"),
        ("columns = { exclude = [\"statuss\"] }", "columns.exclude"),
        ("columns = { mask = { statuss = \"redact\" } }", "columns.mask"),
        ("types.columns = { statuss = \"number\" }", "types.columns"),
    ];
    for (line, role) in wrong {
        let shop = TableShop::open(
            "CREATE TABLE orders (id text PRIMARY KEY, status numeric); \
             ALTER TABLE orders REPLICA IDENTITY FULL",
            &format!("{NAMED}{line}\n"),
        );
        let fix = diagnose(&shop.settings, "columns", "column_missing");
        let (written, nearest) = ("\"statuss\"", "\"status\"");
        let said = format!("write {nearest} in the place of {written} in {role} of the [[table]]");
        assert!(fix.starts_with(&said), "{fix}");
        let shop = shop.with_settings(|settings| settings.replaced("statuss", "status"));
        assert_healthy(&shop.settings);
        let ended = daemon::run(&["init"], &shop.settings);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
}

/// A delete must say whose it is, and where it goes.
#[test]
fn columns_that_deletes_do_not_carry_are_found() {
    for line in ["key = [\"status\"]", "topic = \"{source}.{column:status}\""] {
        let section = match line.starts_with("topic") {
            true => format!("[[table]]\nname = \"public.orders\"\n{line}\n"),
            false => format!("{NAMED}{line}\n"),
        };
        let shop = TableShop::open(ORDERS, &section);
        let fix = diagnose(&shop.settings, "replica_identity", "replica_identity");
        let ended = daemon::run(&["init"], &shop.settings);
        assert!(ended.is_code("replica_identity"), "{}", ended.stderr);
        run_sql(&shop.session, &fix);
        assert_healthy(&shop.settings);
        init(&shop.settings);
    }
}

#[test]
fn a_publication_without_updates_is_altered() {
    let sql = format!(
        "{ORDERS}; CREATE PUBLICATION tailwater FOR TABLE orders \
         WITH (publish = 'insert', publish_via_partition_root = true)"
    );
    let shop = TableShop::open(&sql, NAMED);
    run_sql(&shop.session, &diagnose(&shop.settings, "publication", "publication_gap"));
    assert_healthy(&shop.settings);
}

#[test]
fn rows_and_columns_that_a_publication_leaves_out_are_told() {
    let sql = "CREATE TABLE orders (id text PRIMARY KEY, secret text); \
               CREATE PUBLICATION tailwater FOR TABLE orders (id) WHERE (id <> 'x') \
               WITH (publish_via_partition_root = true)";
    let shop = TableShop::open_on(Server::start_version(17), sql, NAMED);
    let findings = assert_healthy(&shop.settings);
    let filter = note_of(&findings, "row_filter");
    assert!(filter.contains("id <> 'x'"), "{filter}");
    assert!(note_of(&findings, "columns").contains("\"secret\""));
}

/// The stream asks for no right on a table, and reading its rows does.
#[test]
fn rows_that_the_role_may_not_read_are_told_of_and_come_once_it_may() {
    let rows = format!("{ORDERS}; INSERT INTO orders VALUES ('1', 'placed')");
    let shop = TableShop::open_with_rows(Server::start(), &rows, NAMED);
    let shop = shop
        .with_settings(|settings| settings.replaced("postgres://postgres@", "postgres://reader@"));
    shop.session
        .run("CREATE ROLE reader LOGIN REPLICATION; CREATE PUBLICATION tailwater FOR TABLE orders");
    let fix = diagnose(&shop.settings, "table", "");
    assert!(fix.contains("GRANT SELECT ON \"public\".\"orders\" TO \"reader\""), "{fix}");
    // The stream goes on meanwhile.
    let mut daemon = publishing(&shop.settings);
    daemon.wait_for(r#"GRANT SELECT ON \"public\".\"orders\" TO \"reader\""#);
    shop.session.run("INSERT INTO orders VALUES ('2', 'placed')");
    shop.await_published(&mut daemon);
    let types = |records: &[Record]| -> Vec<String> {
        records
            .iter()
            .map(|record| record.header("event-type").expect("a type").to_owned())
            .collect()
    };
    assert_eq!(types(&shop.records()), ["orders.created"]);
    diagnose(&shop.settings, "table", "");
    run_sql(&shop.session, &fix);
    shop.await_rows(&mut daemon, "public.orders");
    stop(daemon);
    let mut found = types(&shop.records());
    found.sort();
    assert_eq!(found, ["orders.created", "orders.snapshot", "orders.snapshot"]);
    assert_healthy(&shop.settings);
}

#[test]
fn rows_that_a_policy_hides_are_told_of() {
    let shop = TableShop::open_with_rows(Server::start(), ORDERS, NAMED);
    let shop = shop
        .with_settings(|settings| settings.replaced("postgres://postgres@", "postgres://reader@"));
    shop.session.run(
        "CREATE ROLE reader LOGIN REPLICATION; GRANT SELECT ON orders TO reader; \
         CREATE PUBLICATION tailwater FOR TABLE orders; ALTER TABLE orders ENABLE ROW LEVEL SECURITY",
    );
    let fix = diagnose(&shop.settings, "table", "");
    run_sql(&shop.session, &fix);
    assert_healthy(&shop.settings);
}
