//! Who follows the events of domain tables has the tables: whatever was done to rows, keys, columns and
//! types, by several at once, and however often the daemon was killed meanwhile.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    PATIENCE,
    daemon::{self, Daemon, Ended},
    kafka::Record,
    let_pass,
    postgres::Server,
    proof_scale,
    replica_copy::{Copy, Delivery, in_order},
    replica_source::{CREATE, Source, run_large_transactions},
    scaled,
    scene::{init, publishing},
    settings::SettingsFile,
    table_shop::{TableShop, goes_on_inside, position},
    wait_until,
};

/// Deadlocks among the applications are part of it, and need not take long. The processes die, the
/// machine does not.
const SERVER: [(&str, &str); 1] = [("deadlock_timeout", "50ms")];

/// How often a daemon is killed, at full size; and at least.
const KILLS: f64 = 20.;
const KILLS_MIN: f64 = 3.;

/// Of a transaction that is published in some ten parts.
const LARGE_ROWS: u32 = 2_500;

/// Which tables tell rows, and which changes. The one without a key must tell what was before.
#[derive(Clone, Copy)]
struct Forms {
    plain: &'static str,
    composite: &'static str,
    parted: &'static str,
    wide: &'static str,
    quoted: &'static str,
}

fn sections(forms: Forms) -> String {
    let Forms { plain, composite, parted, wide, quoted } = forms;
    let section = |name: &str, topic: &str, form: &str| {
        format!(
            "[[table]]\nname = \"public.{name}\"\ntopic = \"{{source}}.{topic}\"\n\
             data = \"{form}\"\n\n"
        )
    };
    [
        section("ddl_log", "ddl", "row"),
        section("plain", "{table}", plain),
        section("composite", "{table}", composite),
        section("keyless", "{table}", "change"),
        section("parted", "{table}", parted),
        section("wide", "{table}", wide),
        section("Bestellung für Ümläute", "orders", quoted),
    ]
    .concat()
}

fn seed() -> u64 {
    match std::env::var("TAILWATER_SEED") {
        Ok(seed) => seed.parse().expect("TAILWATER_SEED is a number"),
        Err(_) => fastrand::u64(..),
    }
}

/// What comes twice is compared byte for byte, which altered composites do not allow.
fn source_for(delivery: Delivery, url: &str, seed: u64) -> Source<'_> {
    let source = Source::new(url, seed);
    match delivery {
        Delivery::ExactlyOnce => source,
        Delivery::AtLeastOnce => source.without_altered_composites(),
    }
}

/// Has so many changes published by daemons that are killed, and their copy compared.
fn replicate(server: Server, delivery: Delivery, forms: Forms, changes: u64) {
    let kills = match delivery {
        Delivery::ExactlyOnce => (KILLS * proof_scale()).max(KILLS_MIN) as usize,
        Delivery::AtLeastOnce => KILLS_MIN as usize,
    };
    let seed = seed();
    eprintln!("TAILWATER_SEED={seed}");
    let word = delivery.word();
    let shop = TableShop::open_on(server, CREATE, &sections(forms)).with_settings(|settings| {
        let lines = format!("transaction_bytes = \"1MiB\"\ndelivery = \"{word}\"");
        settings.with("[kafka]", &lines)
    });
    init(&shop.settings);
    let mut random = fastrand::Rng::with_seed(seed.rotate_left(7));
    let (mut daemon, began) = (publishing(&shop.settings), Instant::now());
    let url = shop.server.url("shop");
    let source = source_for(delivery, &url, seed);
    thread::scope(|scope| {
        let writers = scope.spawn(|| source.run(changes));
        for kill in 0..kills {
            match kill % 3 {
                1 if delivery == Delivery::ExactlyOnce => {
                    kill_inside_a_transaction(&shop, &mut daemon);
                }
                // Checkpoints come once a second then, and a large transaction is out by that time.
                1 => thread::scope(|scope| {
                    let session = shop.server.session("shop");
                    scope.spawn(move || run_large_transactions(&session, LARGE_ROWS));
                    let_pass(Duration::from_millis(random.u64(100..1_000)));
                    daemon.kill_and_restart(&shop.settings);
                }),
                _ => {
                    let_pass(Duration::from_millis(random.u64(50..2_000)));
                    daemon.kill_and_restart(&shop.settings);
                }
            }
        }
        writers.join().expect("the writers end");
    });
    shop.finish(daemon);
    eprintln!("published in {:?}", began.elapsed());
    let records = in_order(shop.records(), delivery);
    let copy = Copy::create(shop.server.create_database("copy"));
    copy.apply(&records);
    copy.assert_equals(&shop.session);
    eprintln!("compared after {:?}", began.elapsed());
}

/// The same where the tables have rows before anybody publishes: these come beside the changes, and
/// again whenever somebody asks for them, while daemons are killed.
fn replicate_with_rows(delivery: Delivery, rows: u32, changes: u64, kills: usize) {
    let seed = seed();
    eprintln!("TAILWATER_SEED={seed}");
    let word = delivery.word();
    let forms =
        Forms { plain: "row", composite: "change", parted: "row", wide: "change", quoted: "row" };
    let ddl_log = "name = \"public.ddl_log\"\n";
    let sections = sections(forms).replace(ddl_log, &format!("{ddl_log}snapshot = \"never\"\n"));
    let shop = TableShop::open_with_rows(Server::start_with(&SERVER), CREATE, &sections);
    let shop = shop.with_settings(|settings| {
        settings.with("[kafka]", &format!("transaction_bytes = \"1MiB\"\ndelivery = \"{word}\""))
    });
    let url = shop.server.url("shop");
    // Shapes and rows of before.
    let (source, before) = (source_for(delivery, &url, seed), changes / 10 + 200);
    source.run(before);
    shop.session.run(&many_rows(rows));
    let statements = shop.session.rows("SELECT id, statement FROM ddl_log ORDER BY id");
    init(&shop.settings);
    // What the rows without a key contain, and the stream brings all the same.
    let waiting = before + changes / 10;
    source.run(waiting);
    let mut random = fastrand::Rng::with_seed(seed.rotate_left(9));
    let (mut daemon, began) = (publishing(&shop.settings), Instant::now());
    let ended = AtomicBool::new(false);
    let back_fills = thread::scope(|scope| {
        let writers = scope.spawn(|| source.run(waiting + changes));
        let asking = scope.spawn(|| ask_for_rows(&shop.settings, &ended));
        for _ in 0..kills {
            let_pass(Duration::from_millis(random.u64(20..900)));
            daemon.kill_and_restart(&shop.settings);
        }
        writers.join().expect("the writers end");
        ended.store(true, Ordering::Relaxed);
        asking.join().expect("who asks for rows ends")
    });
    for table in KEYED {
        shop.await_rows(&mut daemon, &format!("public.{table}"));
    }
    for back_fill in &BACK_FILLS {
        let done = back_fill.ask(&shop.settings);
        assert_eq!(done.code, Some(0), "{back_fill:?}: {}", done.stderr);
    }
    shop.finish(daemon);
    eprintln!("{back_fills} back-fills beside the changes");
    assert!(back_fills > 0, "none came to its end beside the changes");
    eprintln!("published in {:?}", began.elapsed());
    let records = in_order(shop.records(), delivery);
    // Those of two tables came once more when nobody wrote any longer.
    let least = shop.session.value("SELECT (SELECT count(*) FROM wide) + count(*) FROM composite");
    let least: usize = least.and_then(|text| text.parse().ok()).expect("a number");
    let is_row = |record: &&Record| position(record).is_none();
    assert!(records.iter().filter(is_row).count() >= least, "rows are missing");
    let copy = Copy::create_reshaped(shop.server.create_database("copy"), &statements);
    copy.apply(&records);
    copy.assert_equals(&shop.session);
    eprintln!("compared after {:?}", began.elapsed());
}

/// The tables whose rows come beside the stream.
const KEYED: [&str; 5] = ["plain", "composite", "parted", "wide", "Bestellung für Ümläute"];

/// Rows that somebody asks for.
#[derive(Debug)]
struct BackFill {
    table: &'static str,
    condition: Option<&'static str>,
}

const BACK_FILLS: [BackFill; 4] = [
    BackFill { table: "public.plain", condition: Some("id % 3 = 1 -- some") },
    BackFill { table: "public.wide", condition: None },
    BackFill { table: "public.parted", condition: Some("region <> 'us' AND id > 100") },
    BackFill { table: "public.composite", condition: None },
];

impl BackFill {
    /// By the command, which follows it to its end.
    fn ask(&self, settings: &SettingsFile) -> Ended {
        let mut arguments = vec!["snapshot", self.table];
        if let Some(condition) = self.condition {
            arguments.extend(["--where", condition]);
        }
        daemon::run(&arguments, settings)
    }
}

/// One after the other, over and over, until the writers have ended. Returns how many were followed to
/// their end: a daemon that was just killed takes no request, and of a table whose own rows are still
/// to come nobody may ask for others.
fn ask_for_rows(settings: &SettingsFile, ended: &AtomicBool) -> usize {
    let mut count = 0;
    for back_fill in BACK_FILLS.iter().cycle() {
        if ended.load(Ordering::Relaxed) {
            break;
        }
        let asked = back_fill.ask(settings);
        let words = ["could not be asked", "under way", "the daemon is", "the daemon began anew"];
        match asked.code {
            Some(0) => count += 1,
            _ => assert!(
                words.iter().any(|words| asked.stderr.contains(words)),
                "{back_fill:?}: {}",
                asked.stderr
            ),
        }
    }
    count
}

/// Rows that nobody changes, some of them large.
fn many_rows(count: u32) -> String {
    format!(
        "INSERT INTO plain (id, name, price) \
             SELECT 100000 + n, 'row ' || n, n / 7.0 FROM generate_series(1, {count}) n; \
         INSERT INTO composite (a, b, total) \
             SELECT n % 9, 'b' || n, n FROM generate_series(1, {count}) n ON CONFLICT DO NOTHING; \
         INSERT INTO wide (id, n, a, b, doc, words) \
             SELECT md5('w' || n)::uuid, n, repeat(md5(n::text), 90), 'b', '{{}}', '{{}}' \
             FROM generate_series(1, {count} / 10) n; \
         INSERT INTO keyless (n, word) SELECT n % 500, 'w' || n % 9 FROM generate_series(1, {count}) n"
    )
}

/// Kills the daemon when a part of a transaction is out, and starts it again.
fn kill_inside_a_transaction(shop: &TableShop, daemon: &mut Daemon) {
    let mut checkpoints = shop.watch_checkpoints();
    let session = shop.server.session("shop");
    // The rest may be out before the signal comes.
    wait_until("a kill inside a transaction", PATIENCE * 2, || {
        thread::scope(|scope| {
            scope.spawn(|| run_large_transactions(&session, LARGE_ROWS));
            checkpoints.await_part(daemon);
            daemon.kill_and_restart(&shop.settings);
        });
        goes_on_inside(daemon)
    });
}

#[test]
fn a_copy_that_follows_the_events_is_the_source() {
    let forms =
        Forms { plain: "row", composite: "change", parted: "row", wide: "change", quoted: "row" };
    let server = Server::start_with(&SERVER);
    replicate(server, Delivery::ExactlyOnce, forms, scaled(200_000));
}

#[test]
fn a_copy_that_drops_what_comes_twice_is_the_source() {
    let forms = Forms {
        plain: "change",
        composite: "row",
        parted: "change",
        wide: "row",
        quoted: "change",
    };
    let server = Server::start_version_with(18, &SERVER);
    replicate(server, Delivery::AtLeastOnce, forms, scaled(50_000));
}

#[test]
fn a_copy_of_tables_with_rows_is_the_source() {
    let kills = (KILLS * proof_scale()).max(2. * KILLS_MIN) as usize;
    replicate_with_rows(Delivery::ExactlyOnce, scaled(80_000) as u32, scaled(200_000), kills);
}

#[test]
fn a_copy_of_tables_with_rows_that_drops_what_comes_twice_is_the_source() {
    let kills = 2 * KILLS_MIN as usize;
    replicate_with_rows(Delivery::AtLeastOnce, scaled(60_000) as u32, scaled(50_000), kills);
}
