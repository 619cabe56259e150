//! Who follows the events of domain tables has the tables: whatever was done to rows, keys, columns and
//! types, by several at once, and however often the daemon was killed meanwhile.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    daemon::Daemon,
    let_pass,
    postgres::Server,
    proof_scale,
    replica_copy::{Copy, Delivery, in_order},
    replica_source::{CREATE, Source, run_large_transactions},
    scaled,
    scene::{Ends, init, publishing},
    table_shop::TableShop,
};

/// Deadlocks among the applications are part of it, and need not take long. The processes die, the
/// machine does not.
const SERVER: [(&str, &str); 2] = [("fsync", "off"), ("deadlock_timeout", "50ms")];

/// How often a daemon is killed, at full size; and at least.
const KILLS: f64 = 20.;
const KILLS_MIN: f64 = 3.;

/// Of a transaction that is published in several parts.
const LARGE_ROWS: u32 = 3_000;

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

/// Has so many changes published by daemons that are killed, and their copy compared.
fn replicate(delivery: Delivery, forms: Forms, changes: u64, kills: usize) {
    let seed = seed();
    eprintln!("TAILWATER_SEED={seed}");
    let word = match delivery {
        Delivery::ExactlyOnce => "exactly-once",
        Delivery::AtLeastOnce => "at-least-once",
    };
    let shop = TableShop::open_on(Server::start_with(&SERVER), CREATE, &sections(forms))
        .with_settings(|settings| {
            let lines = format!("transaction_bytes = \"1MiB\"\ndelivery = \"{word}\"");
            settings.with("[kafka]", &lines)
        });
    init(&shop.settings);
    let mut random = fastrand::Rng::with_seed(seed.rotate_left(7));
    let (mut daemon, began) = (publishing(&shop.settings), Instant::now());
    let url = shop.server.url("shop");
    let source = Source::new(&url, seed);
    thread::scope(|scope| {
        let writers = scope.spawn(|| source.run(changes));
        for kill in 0..kills {
            match kill % 3 {
                1 => run_into_a_transaction(&shop, &mut daemon),
                _ => let_pass(Duration::from_millis(random.u64(50..2_000))),
            }
            daemon.kill_and_restart(&shop.settings);
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

/// Waits until a part of a large transaction is out.
fn run_into_a_transaction(shop: &TableShop, daemon: &mut Daemon) {
    let mut checkpoints = shop.watch_checkpoints();
    let (session, goes_on) = (shop.server.session("shop"), AtomicBool::new(true));
    thread::scope(|scope| {
        let _ends = Ends(&goes_on);
        scope.spawn(|| {
            while goes_on.load(Ordering::Relaxed) {
                run_large_transactions(&session, LARGE_ROWS);
            }
        });
        checkpoints.await_part(daemon);
    });
}

#[test]
fn a_copy_that_follows_the_events_is_the_source() {
    let forms =
        Forms { plain: "row", composite: "change", parted: "row", wide: "change", quoted: "row" };
    let kills = (KILLS * proof_scale()).max(KILLS_MIN) as usize;
    replicate(Delivery::ExactlyOnce, forms, scaled(200_000), kills);
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
    replicate(Delivery::AtLeastOnce, forms, scaled(50_000), KILLS_MIN as usize);
}
