//! The workload does what the proofs rely on: what it does not do, they do not prove.

use crate::support::{
    postgres::Server,
    scene, truth,
    workload::{Payload, Workload},
};

const DELETED: &str = "SELECT count(*) FROM truth WHERE id NOT IN (SELECT id FROM outbox_events)";

const UPDATED: &str = "SELECT count(*) FROM outbox_events WHERE status = 'published'";

/// An untouched row's xmin is that of the transaction which inserted it, sub or not.
const IN_SUBTRANSACTIONS: &str = "SELECT count(*) FROM outbox_events JOIN truth USING (id) \
     WHERE status = 'pending' AND outbox_events.xmin::text <> xid::text";

/// They took a number of the sequence and left none.
const ROLLED_BACK: &str = "SELECT max(id) - count(*) FROM audit_log";

const SIZES: &str = "SELECT count(DISTINCT rows) FROM \
                     (SELECT count(*) AS rows FROM truth GROUP BY xid) transactions";

#[test]
fn the_workload_does_all_that_applications_do() {
    let server = Server::start();
    let session = scene::shop(&server);
    for payload in [Payload::Envelope, Payload::Data] {
        Workload { payload, ..Workload::default() }.run(&server.url("shop"), 4_000);
    }
    let counted = |what: &str, sql: &str| {
        let count = session.value(sql).and_then(|text| text.parse::<u64>().ok());
        count.unwrap_or_else(|| panic!("{what}: no count by {sql}"))
    };
    // Each is a count, and what it must be at least: far below what is likely.
    for (what, at_least, sql) in [
        ("rows", 8_000, "SELECT count(*) FROM truth"),
        ("rows deleted afterwards", 100, DELETED),
        ("rows updated afterwards", 100, UPDATED),
        ("rows inserted in subtransactions", 100, IN_SUBTRANSACTIONS),
        ("transactions rolled back", 20, ROLLED_BACK),
        ("sizes of transactions", 20, SIZES),
        ("digests", 6_000, "SELECT count(digest) FROM truth"),
        ("payloads to be completed", 100, "SELECT count(*) FROM truth WHERE digest IS NULL"),
        ("aggregates", 500, "SELECT count(DISTINCT aggregate_id) FROM truth"),
        ("types", 4, "SELECT count(DISTINCT event_type) FROM truth"),
        ("rows of another table", 500, "SELECT count(*) FROM audit_log"),
    ] {
        let count = counted(what, sql);
        assert!(count >= at_least, "{what}: {count}, not {at_least}");
    }
    let unknown = "SELECT count(*) FROM outbox_events WHERE id NOT IN (SELECT id FROM truth)";
    assert_eq!(counted("rows that are not written down", unknown), 0);
    let gaps = "SELECT count(*) FROM (SELECT FROM truth GROUP BY aggregate_id \
                HAVING max(version) <> count(*) OR count(DISTINCT version) <> count(*)) t";
    assert_eq!(counted("aggregates whose versions have gaps", gaps), 0);
    let committed = truth::read(&session);
    assert_eq!(committed.len() as u64, counted("rows", "SELECT count(*) FROM truth"));
}
