//! An application with an outbox: each order is committed together with its events.

use std::time::{Duration, Instant};

use serde_json::json;
use uuid::Uuid;

use super::{
    ledger::{Fate, Ledger},
    server::Server,
};
use crate::postgres::{PostgresError, sql::Sql};

/// The application's database.
pub(super) const DATABASE: &str = "shop";

/// The application's name, in its sessions and in its events.
const NAME: &str = "order-service";

/// One order in so many is rolled back after its outbox rows were inserted.
const ROLLED_BACK: u32 = 10;

const CREATE_TABLES: &str = "
    CREATE TABLE orders (
        id bigint GENERATED ALWAYS AS IDENTITY (START WITH 1001) PRIMARY KEY,
        customer text NOT NULL,
        total numeric(10, 2) NOT NULL,
        status text NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE TABLE outbox_events (
        id uuid PRIMARY KEY,
        aggregate_id text,
        event_type text,
        payload jsonb,
        status text DEFAULT 'pending',
        created_at timestamptz,
        retry_count int DEFAULT 0,
        published_at timestamptz
    );";

const INSERT_ORDER: &str = "
    INSERT INTO orders (customer, total, status)
    VALUES ($1, $2::text::numeric, $3)
    RETURNING id";

const INSERT_EVENT: &str = "
    INSERT INTO outbox_events (id, aggregate_id, event_type, payload, created_at)
    VALUES ($1::text::uuid, $2, $3, $4::text::jsonb, now())";

/// From the moment on at which a pipeline publishes, and not before, it acknowledges a position:
/// orders that came earlier would wait for its start.
const COUNT_PUBLISHING: &str = "
    SELECT count(*)
    FROM pg_replication_slots AS slot
    JOIN pg_stat_replication AS walsender ON walsender.pid = slot.active_pid
    WHERE walsender.flush_lsn IS NOT NULL";

const CUSTOMERS: [&str; 8] =
    ["Ada", "Barbara", "Edsger", "Frances", "Grace", "Hedy", "Katherine", "Niklaus"];

/// An order's life: its status, and the event that says so.
const STEPS: [(&str, &str); 3] =
    [("placed", "order.placed"), ("paid", "order.paid"), ("shipped", "order.shipped")];

/// The application, connected to its database.
pub(super) struct OrderService {
    sql: Sql,
}

impl OrderService {
    /// Creates the database and its tables.
    pub(super) async fn start(server: &Server) -> Result<Self, PostgresError> {
        let first = Sql::connect(&server.settings("postgres", NAME)).await?;
        first.execute("create the database", &format!("CREATE DATABASE {DATABASE}")).await?;
        let sql = Sql::connect(&server.settings(DATABASE, NAME)).await?;
        sql.execute("create the tables", CREATE_TABLES).await?;
        Ok(Self { sql })
    }

    /// The server's version, as people write it.
    pub(super) async fn server_version(&self) -> Result<String, PostgresError> {
        let rows =
            self.sql.rows("ask for the server's version", "SHOW server_version", &[]).await?;
        let version: String = rows.first().map(|row| row.get(0)).unwrap_or_default();
        // Debian adds the name of its package.
        Ok(version.split(' ').next().unwrap_or_default().to_owned())
    }

    /// Whether a pipeline publishes what is committed.
    pub(super) async fn is_published(&self) -> Result<bool, PostgresError> {
        let rows = self.sql.rows("look at the slot", COUNT_PUBLISHING, &[]).await?;
        Ok(rows.first().is_some_and(|row| row.get::<_, i64>(0) > 0))
    }

    /// One transaction: an order and one to three events. Some are rolled back, which no consumer
    /// may ever see.
    pub(super) async fn take_order(&self, ledger: &Ledger) -> Result<(), PostgresError> {
        let order = Order::random();
        let ids: Vec<Uuid> = order.steps.iter().map(|_| random_id()).collect();
        ledger.open(&ids);
        self.sql.execute("begin", "BEGIN").await?;
        self.insert(&order, &ids).await?;
        if fastrand::u32(..ROLLED_BACK) == 0 {
            self.sql.execute("roll back", "ROLLBACK").await?;
            ledger.close(&ids, Fate::RolledBack);
        } else {
            self.sql.execute("commit", "COMMIT").await?;
            ledger.close(&ids, Fate::Committed(Instant::now()));
        }
        Ok(())
    }

    async fn insert(&self, order: &Order, ids: &[Uuid]) -> Result<(), PostgresError> {
        let Order { customer, cents, steps } = order;
        let total = format!("{}.{:02}", cents / 100, cents % 100);
        let status = steps.last().map_or("", |(status, _)| status);
        let inserted =
            self.sql.rows("insert an order", INSERT_ORDER, &[customer, &total, &status]).await?;
        let number: i64 = inserted.first().map(|row| row.get(0)).unwrap_or_default();
        let aggregate_id = number.to_string();
        for ((status, event_type), id) in steps.iter().zip(ids) {
            let id = id.to_string();
            let payload = json!({
                "id": id,
                "type": event_type,
                "version": "1.0",
                "source": NAME,
                "correlationId": id,
                "occurredAt": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
                "data": {
                    "orderId": number,
                    "customer": customer,
                    "total": f64::from(*cents) / 100.0,
                    "currency": "EUR",
                    "status": status,
                },
            });
            let payload = payload.to_string();
            let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
                [&id, &aggregate_id, event_type, &payload];
            self.sql.rows("insert an event", INSERT_EVENT, &parameters).await?;
        }
        Ok(())
    }
}

/// The pause before the next order: twenty a second on average, as uneven as people are.
pub(super) fn pause() -> Duration {
    Duration::from_millis(fastrand::u64(10..80))
}

struct Order {
    customer: &'static str,
    cents: u32,
    steps: &'static [(&'static str, &'static str)],
}

impl Order {
    fn random() -> Self {
        Self {
            customer: CUSTOMERS[fastrand::usize(..CUSTOMERS.len())],
            cents: fastrand::u32(500..50_000),
            steps: &STEPS[..fastrand::usize(1..=STEPS.len())],
        }
    }
}

fn random_id() -> Uuid {
    uuid::Builder::from_random_bytes(fastrand::u128(..).to_be_bytes()).into_uuid()
}
