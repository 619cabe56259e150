//! `reset`: what is skipped, what is doubled, who is asked, and what a crash in the middle leaves.

use serde_json::Value as Json;

use crate::{
    refusals::{Shop, insert, kill_inside_a_transaction, published},
    support::{
        PATIENCE,
        daemon::{self, Daemon, Ended},
        let_pass,
        scene::{init, publishing, stop, wait_until_published},
        wait_until,
    },
};

use std::{io::Write as _, time::Duration};

fn reset(shop: &Shop, option: &str) -> Ended {
    daemon::run(&["reset", option, "--yes", "--json"], &shop.settings)
}

fn done(shop: &Shop, option: &str) -> Json {
    let ended = reset(shop, option);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).expect("one line of JSON")
}

fn slot_position(shop: &Shop) -> String {
    shop.session.value("SELECT confirmed_flush_lsn FROM pg_replication_slots").expect("a slot")
}

#[test]
fn a_reset_to_now_skips_what_waits_and_publishes_what_comes() {
    let shop = Shop::initialised();
    shop.publish(3);
    insert(&shop.session, 20);
    let said = done(&shop, "--to-now");
    assert_eq!((&said["act"], &said["changed"]), (&"to-now".into(), &true.into()));
    assert!(said["skipped_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{said}");
    assert_eq!(said["repeated_bytes"], 0, "{said}");
    assert_eq!(slot_position(&shop), said["to_lsn"].as_str().expect("a position"));
    shop.assert_publishes();
    assert_eq!(published(&shop), 4);
}

/// The checkpoint is written and the slot is still where it was: what lies between is skipped, and
/// nothing of it makes the start suspicious.
#[test]
fn a_reset_to_now_that_is_killed_at_any_moment_is_whole_or_not_there() {
    let shop = Shop::initialised();
    shop.publish(1);
    let (mut on_kafka, mut waiting, mut skipped, mut kept) = (1, 0, 0, 0);
    for round in 0..14 {
        insert(&shop.session, 5);
        waiting += 5;
        let reset = Daemon::start_with(&["reset", "--to-now", "--yes"], &shop.settings);
        let_pass(Duration::from_millis(70 * round));
        reset.kill_command();
        let_go(&shop);
        let before = published(&shop);
        assert_eq!(before, on_kafka, "a reset publishes nothing");
        let daemon = publishing(&shop.settings);
        insert(&shop.session, 1);
        wait_until_published(&shop.session, "tailwater");
        stop(daemon);
        let came = published(&shop) - before;
        // Its record was not there, or all that waited is skipped: never a part of it.
        assert!(came == waiting + 1 || came == 1, "round {round}: {came} of {waiting} + 1");
        if came == 1 {
            skipped += 1
        } else {
            kept += 1
        }
        (on_kafka, waiting) = (before + came, 0);
    }
    eprintln!("{skipped} were done, {kept} were not");
    assert!(kept > 0, "none was killed in time");
}

/// The server frees the slot of a killed process when it notices.
fn let_go(shop: &Shop) {
    wait_until("the slot to be free", PATIENCE, || {
        let sql = "SELECT active FROM pg_replication_slots WHERE slot_name = 'tailwater'";
        shop.session.value(sql).as_deref() == Some("f")
    });
}

/// The checkpoint alone, as a crash behind it leaves things: the slot is put back by hand.
fn to_now_but_for_the_slot(shop: &Shop) -> Json {
    shop.session.run("SELECT pg_copy_logical_replication_slot('tailwater', 'aside')");
    let said = done(shop, "--to-now");
    shop.session.run(
        "SELECT pg_drop_replication_slot('tailwater'); \
         SELECT pg_copy_logical_replication_slot('aside', 'tailwater'); \
         SELECT pg_drop_replication_slot('aside')",
    );
    said
}

/// The moment between its two steps, held open: somebody else has the slot when it is to be moved.
#[test]
fn a_slot_that_a_reset_to_now_could_not_move_is_moved_by_the_next_start() {
    let shop = Shop::initialised();
    shop.publish(3);
    let position = slot_position(&shop);
    insert(&shop.session, 20);
    let said = to_now_but_for_the_slot(&shop);
    assert_eq!(slot_position(&shop), position);
    assert!(said["to_lsn"].as_str().is_some_and(|to| to != position), "{said}");
    // Killed at once and again: the slot may not have heard of it yet.
    for _ in 0..3 {
        publishing(&shop.settings).kill();
        let_go(&shop);
    }
    shop.assert_publishes();
    assert_eq!(published(&shop), 4);
}

/// Nothing is committed in between, so the checkpoint is where it belongs; the slot is not.
#[test]
fn a_reset_to_now_that_is_repeated_moves_a_slot_that_was_left_behind() {
    let shop = Shop::initialised();
    shop.publish(3);
    let mut repeated = Json::Null;
    // The server writes to its log by itself now and then: then it is no repetition.
    wait_until("a repetition on an idle server", PATIENCE, || {
        insert(&shop.session, 20);
        let said = to_now_but_for_the_slot(&shop);
        assert!(said["to_lsn"].as_str().is_some_and(|to| to != slot_position(&shop)), "{said}");
        repeated = done(&shop, "--to-now");
        repeated["changed"] == false
    });
    assert_eq!(slot_position(&shop), repeated["to_lsn"].as_str().expect("a position"));
    shop.assert_publishes();
    assert_eq!(published(&shop), 4);
}

/// Who is told that nothing was changed would not look for what the next start skips.
#[test]
fn a_reset_that_is_stopped_behind_its_write_does_not_say_that_nothing_was_changed() {
    let shop = Shop::initialised();
    shop.publish(1);
    insert(&shop.session, 5);
    let (reset, mut keyboard) = Daemon::start_on_terminal(&["reset", "--to-now"], &shop.settings);
    reset.wait_for("Go on? [yes/no]");
    // Nobody else sees any slot, nor logs in, from here on: the slot cannot be moved.
    shop.session.run("BEGIN; LOCK TABLE pg_catalog.pg_replication_slots IN ACCESS EXCLUSIVE MODE");
    keyboard.write_all(b"yes\n").expect("typed");
    let_go(&shop);
    reset.signal(libc::SIGINT);
    let ended = reset.wait(Duration::from_secs(5));
    shop.session.run("ROLLBACK");
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("stopped after the checkpoint was written"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("nothing was changed"), "{}", ended.stderr);
    shop.assert_publishes();
    assert_eq!(published(&shop), 2);
}

#[test]
fn a_reset_that_is_stopped_while_it_asks_changes_nothing() {
    let shop = Shop::initialised();
    shop.publish(1);
    insert(&shop.session, 5);
    let (reset, _keyboard) = Daemon::start_on_terminal(&["reset", "--to-now"], &shop.settings);
    reset.wait_for("Go on? [yes/no]");
    reset.signal(libc::SIGINT);
    let ended = reset.wait(Duration::from_secs(5));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("nothing was changed"), "{}", ended.stderr);
    shop.assert_publishes();
    assert_eq!(published(&shop), 7);
}

#[test]
fn a_reset_to_slot_of_a_pipeline_in_order_has_nothing_to_do() {
    let shop = Shop::initialised();
    shop.publish(3);
    let said = done(&shop, "--to-slot");
    assert_eq!(said["changed"], false, "{said}");
    assert_eq!(done(&shop, "--replay-transaction")["changed"], false);
    shop.assert_publishes();
    assert_eq!(published(&shop), 4);
}

#[test]
fn a_reset_beside_a_daemon_says_who_holds_the_slot_and_leaves_it_alone() {
    let shop = Shop::initialised();
    let daemon = publishing(&shop.settings);
    let pid = shop.session.value("SELECT active_pid FROM pg_replication_slots").expect("a pid");
    for arguments in [["reset", "--to-now", "--yes"], ["reset", "--to-slot", "--yes"]] {
        let ended = daemon::run(&arguments, &shop.settings);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(ended.is_code("not_connected"), "{}", ended.stderr);
        let holder = format!("in use by process {pid} (tailwater");
        assert!(ended.stderr.contains(&holder), "{}", ended.stderr);
    }
    insert(&shop.session, 2);
    wait_until_published(&shop.session, "tailwater");
    stop(daemon);
    assert_eq!(published(&shop), 2);
}

#[test]
fn a_reset_that_nobody_agrees_to_changes_nothing_and_says_what_it_would_do() {
    let shop = Shop::initialised();
    shop.publish(1);
    insert(&shop.session, 5);
    let position = slot_position(&shop);
    let ended = daemon::run(&["reset", "--to-now"], &shop.settings);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.is_code("settings"), "{}", ended.stderr);
    for words in ["skipped: ", " of WAL, from ", "was committed 20", "--yes was not given"] {
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
    }
    assert_eq!(slot_position(&shop), position);
    stop(publishing(&shop.settings));
    shop.assert_publishes();
    assert_eq!(published(&shop), 7);
}

/// Enough for a kill to come in time.
const TORN_ROWS: u32 = 250_000;

/// A daemon that was killed with a part of a transaction published.
fn torn(rows: u32) -> Shop {
    let shop = Shop::open()
        .with_settings(|settings| settings.with("[kafka]", "transaction_bytes = \"1MiB\""));
    init(&shop.settings);
    kill_inside_a_transaction(&shop, rows);
    let_go(&shop);
    shop
}

#[test]
fn a_transaction_that_is_replayed_doubles_what_was_out_and_no_more() {
    let shop = torn(TORN_ROWS);
    let asked = daemon::run(&["reset", "--replay-transaction"], &shop.settings);
    assert!(asked.stderr.contains("where the server still sends it"), "{}", asked.stderr);
    let said = done(&shop, "--replay-transaction");
    let out = published(&shop);
    assert_eq!(said["repeated_events"].as_u64(), Some(out as u64), "{said}");
    assert!((1..TORN_ROWS as usize).contains(&out), "{out}");
    let daemon = publishing(&shop.settings);
    wait_until_published(&shop.session, "tailwater");
    stop(daemon);
    assert_eq!(published(&shop), out + TORN_ROWS as usize);
}

#[test]
fn a_reset_to_now_inside_a_transaction_says_how_much_of_it_is_out() {
    let shop = torn(TORN_ROWS);
    let said = done(&shop, "--to-now");
    let out = published(&shop);
    assert_eq!((&said["torn_events"], &said["repeated_events"]), (&out.into(), &0.into()));
    shop.assert_publishes();
    assert_eq!(published(&shop), out + 1);
}

/// On a terminal it asks, and does what it is told.
#[test]
fn a_reset_on_a_terminal_asks_and_takes_no_for_an_answer() {
    let shop = Shop::initialised();
    shop.publish(1);
    insert(&shop.session, 5);
    let no = daemon::run_on_terminal(&["reset", "--to-now"], &shop.settings, "no\n");
    assert_eq!(no.code, Some(1), "{}", no.stderr);
    assert!(no.stderr.contains("Go on? [yes/no]"), "{}", no.stderr);
    assert!(no.stderr.contains("error: not confirmed: nothing was changed"), "{}", no.stderr);
    let daemon = publishing(&shop.settings);
    wait_until_published(&shop.session, "tailwater");
    stop(daemon);
    assert_eq!(published(&shop), 6);
    insert(&shop.session, 5);
    let yes = daemon::run_on_terminal(&["reset", "--to-now"], &shop.settings, "yes\n");
    assert_eq!(yes.code, Some(0), "{}", yes.stderr);
    shop.assert_publishes();
    assert_eq!(published(&shop), 7);
}

#[test]
fn a_reset_is_told_where_to() {
    let shop = Shop::open();
    for arguments in [&["reset"][..], &["reset", "--to-now", "--to-slot"]] {
        let ended = daemon::run(arguments, &shop.settings);
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    }
}

#[test]
fn there_must_be_something_to_reset() {
    let shop = Shop::open();
    let ended = reset(&shop, "--to-now");
    assert!(ended.is_code("slot_missing"), "{}", ended.stderr);
    shop.session.run("SELECT pg_create_logical_replication_slot('tailwater', 'pgoutput')");
    let ended = reset(&shop, "--to-now");
    assert!(ended.is_code("checkpoint_missing"), "{}", ended.stderr);
    assert!(ended.stderr.contains("--adopt-slot"), "{}", ended.stderr);
    let shop = Shop::initialised();
    let shop = shop.with_settings(|settings| settings.replaced("source = \"", "source = \"other-"));
    let ended = reset(&shop, "--to-slot");
    assert!(ended.is_code("foreign_slot"), "{}", ended.stderr);
}
