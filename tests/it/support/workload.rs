//! Applications as they are: four writers, transactions of all sizes, rollbacks, savepoints, rows
//! changed after the insert, other tables busy. What was committed is written down beside.

use std::{
    fmt::Write,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    postgres::Session,
    truth::{self, DIGEST_SQL},
    wait_until,
};

/// How many aggregates there are: few enough to be hit by several writers at once.
const AGGREGATES: u32 = 2_000;

/// How long a writer looks for its database after it lost the connection.
const RECONNECT_MAX: Duration = Duration::from_secs(120);

const TYPES: [&str; 4] = ["order.placed", "order.paid", "order.shipped", "invoice.issued"];

/// Whether a payload becomes part of the record as it is: it is no envelope that lacks a field.
const IS_KEPT_SQL: &str = "payload->'data' IS NULL OR payload ? 'correlationId'";

/// What the application puts into `payload`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payload {
    /// The event's data.
    Data,
    /// The whole envelope.
    Envelope,
}

/// The application's tables, and `truth`, which is in no publication.
pub fn create_tables(session: &Session) {
    session.run(&format!(
        "CREATE TABLE outbox_events (id uuid PRIMARY KEY, aggregate_id text, event_type text, \
         payload jsonb, status text DEFAULT 'pending', created_at timestamptz, \
         retry_count int DEFAULT 0, published_at timestamptz);
         CREATE TABLE orders (id text PRIMARY KEY, version int NOT NULL, total numeric);
         CREATE TABLE audit_log (id bigserial PRIMARY KEY, at timestamptz, what text);
         {create_truth};
         INSERT INTO orders SELECT 'order-' || n, 0, n FROM generate_series(1, {AGGREGATES}) n;",
        create_truth = truth::CREATE_TABLE,
    ));
}

/// Writers at work.
pub struct Workload {
    pub writers: u64,
    pub payload: Payload,
    /// Replays the same work, up to what the writers do to each other.
    pub seed: u64,
}

impl Default for Workload {
    fn default() -> Self {
        let seed = fastrand::u64(..);
        eprintln!("workload seed {seed}");
        Self { writers: 4, payload: Payload::Envelope, seed }
    }
}

impl Workload {
    /// Commits `rows` outbox rows, more or less a transaction.
    pub fn run(&self, url: &str, rows: u64) {
        self.run_while(url, rows, &AtomicBool::new(true));
    }

    /// As [`Workload::run`], but ends early when `goes_on` is false.
    pub fn run_while(&self, url: &str, rows: u64, goes_on: &AtomicBool) {
        let (committed, started) = (AtomicU64::new(0), Instant::now());
        thread::scope(|scope| {
            for writer in 0..self.writers {
                let committed = &committed;
                scope.spawn(move || {
                    let random = fastrand::Rng::with_seed(self.seed.wrapping_add(writer));
                    let mut writer =
                        Writer { url, payload: self.payload, random, older: Vec::new() };
                    let mut session = writer.connect();
                    while committed.load(Ordering::Relaxed) < rows
                        && goes_on.load(Ordering::Relaxed)
                    {
                        match writer.transaction(&session) {
                            Ok(rows) => _ = committed.fetch_add(rows, Ordering::Relaxed),
                            // Whether it was committed is what `truth` says, not this writer.
                            Err(error) if is_lost(&error) => session = writer.connect(),
                            Err(error) => panic!("the application's SQL: {error:?}"),
                        }
                    }
                });
            }
        });
        eprintln!("{} rows committed in {:?}", committed.into_inner(), started.elapsed());
    }
}

/// Whether the server went away, rather than refused a statement.
fn is_lost(error: &tokio_postgres::Error) -> bool {
    // Class 57 is operator intervention: a server that shuts down, crashed or recovers.
    error.as_db_error().is_none_or(|error| error.code().code().starts_with("57"))
}

struct Writer<'a> {
    url: &'a str,
    payload: Payload,
    random: fastrand::Rng,
    /// Rows of earlier transactions, to be changed by later ones.
    older: Vec<String>,
}

impl Writer<'_> {
    fn connect(&self) -> Session {
        let mut session = None;
        wait_until("the database to come back", RECONNECT_MAX, || {
            session = Session::open(self.url).ok();
            session.is_some()
        });
        session.expect("waited for")
    }

    /// One transaction; how many rows it committed.
    fn transaction(&mut self, session: &Session) -> Result<u64, tokio_postgres::Error> {
        let mut aggregates: Vec<String> = (0..self.random.u32(1..=3))
            .map(|_| format!("'order-{}'", self.random.u32(1..=AGGREGATES)))
            .collect();
        aggregates.sort_unstable();
        aggregates.dedup();
        // Whoever holds these rows is alone with the aggregates until the commit: versions follow
        // the order of commits.
        let list = aggregates.join(", ");
        let locked = session.try_rows(&format!(
            "BEGIN; SELECT id, version FROM orders WHERE id IN ({list}) ORDER BY id FOR UPDATE"
        ))?;
        let mut versions: Vec<(String, u32)> = locked
            .into_iter()
            .filter_map(|row| match row.as_slice() {
                [Some(id), Some(version)] => Some((id.clone(), version.parse().ok()?)),
                _ => None,
            })
            .collect();
        let is_committed = !self.random.u32(..).is_multiple_of(10);
        let (sql, ids) = self.statements(&mut versions);
        session.try_run(&format!("{sql}{}", if is_committed { "COMMIT" } else { "ROLLBACK" }))?;
        if !is_committed {
            return Ok(0);
        }
        let rows = ids.len() as u64;
        self.older.extend(ids);
        let excess = self.older.len().saturating_sub(100);
        self.older.drain(..excess);
        Ok(rows)
    }

    /// What a transaction does between lock and commit, and the ids of its rows.
    fn statements(&mut self, versions: &mut [(String, u32)]) -> (String, Vec<String>) {
        let (mut sql, mut outbox) = (String::new(), String::new());
        let mut ids = Vec::new();
        for _ in 0..self.random.u32(1..=20) {
            if self.random.u8(..) < 20 {
                self.rolled_back_savepoint(&mut sql, versions);
            }
            let index = self.random.usize(0..versions.len());
            let Some((aggregate, version)) = versions.get_mut(index) else { continue };
            *version += 1;
            let id = uuid(&mut self.random);
            let event_type = TYPES[self.random.usize(0..TYPES.len())];
            let payload = self.payload.text(&id, event_type, aggregate, *version, &mut self.random);
            let comma = if outbox.is_empty() { "" } else { ", " };
            let _ = write!(
                outbox,
                "{comma}('{id}'::uuid, '{aggregate}', '{event_type}', '{payload}'::jsonb, \
                 clock_timestamp())"
            );
            ids.push(id);
            // Some applications insert row by row, some many at once.
            if self.random.bool() {
                self.insert(&mut sql, &mut outbox);
            }
        }
        self.insert(&mut sql, &mut outbox);
        for (aggregate, version) in versions {
            let _ = write!(
                sql,
                "UPDATE orders SET version = {version}, total = total + 1 WHERE id = '{aggregate}';"
            );
        }
        let _ = write!(sql, "INSERT INTO audit_log (at, what) VALUES (now(), 'order changed');");
        self.change_rows(&mut sql, &ids);
        (sql, ids)
    }

    fn rolled_back_savepoint(&mut self, sql: &mut String, versions: &[(String, u32)]) {
        let Some((aggregate, version)) = versions.first() else { return };
        let id = uuid(&mut self.random);
        let payload =
            self.payload.text(&id, "order.placed", aggregate, version + 1, &mut self.random);
        let _ = write!(
            sql,
            "SAVEPOINT undone; INSERT INTO outbox_events (id, aggregate_id, event_type, payload, \
             created_at) VALUES ('{id}', '{aggregate}', 'order.placed', '{payload}', now()); \
             ROLLBACK TO SAVEPOINT undone;"
        );
    }

    /// What a former poller and a clean-up do, in this transaction and to older rows.
    fn change_rows(&mut self, sql: &mut String, ids: &[String]) {
        let older = (!self.older.is_empty())
            .then(|| self.older.swap_remove(self.random.usize(0..self.older.len())));
        for id in ids.iter().chain(&older) {
            if ids.contains(id) && self.random.u8(0..10) > 0 {
                continue;
            }
            let change = if self.random.bool() {
                format!("DELETE FROM outbox_events WHERE id = '{id}';")
            } else {
                format!(
                    "UPDATE outbox_events SET status = 'published', published_at = now(), \
                     retry_count = 1 WHERE id = '{id}';"
                )
            };
            sql.push_str(&change);
        }
    }

    /// The rows gathered in `outbox` and what is written down of them, at times in a savepoint of
    /// its own that is kept.
    fn insert(&mut self, sql: &mut String, outbox: &mut String) {
        if outbox.is_empty() {
            return;
        }
        let is_nested = self.random.u8(0..10) == 0;
        sql.push_str(if is_nested { "SAVEPOINT kept;" } else { "" });
        let _ = write!(
            sql,
            "WITH rows AS (\
                 INSERT INTO outbox_events (id, aggregate_id, event_type, payload, created_at) \
                 VALUES {outbox} RETURNING id, aggregate_id, event_type, payload\
             ) INSERT INTO truth SELECT id, aggregate_id, event_type, \
             (coalesce(payload->'data', payload)->>'version')::int, txid_current(), \
             CASE WHEN {IS_KEPT_SQL} THEN {DIGEST_SQL} END FROM rows;"
        );
        sql.push_str(if is_nested { "RELEASE SAVEPOINT kept;" } else { "" });
        outbox.clear();
    }
}

fn uuid(random: &mut fastrand::Rng) -> String {
    let number = random.u128(..);
    uuid::Builder::from_random_bytes(number.to_le_bytes()).into_uuid().to_string()
}

impl Payload {
    /// JSON text, ready to stand in an SQL literal.
    fn text(
        self,
        id: &str,
        event_type: &str,
        aggregate: &str,
        version: u32,
        random: &mut fastrand::Rng,
    ) -> String {
        let names = [
            "Zoë Müller",
            "O\\\"Brien \\\\ Söhne",
            "山田太郎 🚚",
            "tab\\tand\\nline",
            "d''Artagnan \\u00e9\\u2028",
        ];
        let name = names[random.usize(0..names.len())];
        let note = ["null", "\"gift {not} [a] brace\"", "12345678901234567890.10", "true"];
        let note = note[random.usize(0..note.len())];
        let data = format!(
            "{{\"orderId\": \"{aggregate}\", \"version\": {version}, \"total\": {}.{:02}, \
             \"customer\": {{\"name\": \"{name}\", \"email\": \"someone@example.com\"}}, \
             \"items\": [{{\"sku\": \"A-{}\", \"quantity\": 1}}, {{\"sku\": \"B-{}\", \
             \"quantity\": 2}}], \"note\": {note}}}",
            random.u32(1..1_000),
            random.u8(0..100),
            random.u32(..),
            random.u32(..),
        );
        match self {
            Self::Data => data,
            Self::Envelope => {
                // Some leave to others what they do not know.
                let correlation = match random.u32(..) {
                    few if few.is_multiple_of(10) => "\"causationId\": null".to_owned(),
                    request => format!("\"correlationId\": \"request-{request}\""),
                };
                format!(
                    "{{\"id\": \"{id}\", \"type\": \"{event_type}\", \"version\": \"1.0\", \
                     \"source\": \"order-service\", {correlation}, \
                     \"occurredAt\": \"2026-03-01T12:00:00.000Z\", \"data\": {data}}}"
                )
            }
        }
    }
}
