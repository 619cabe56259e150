-- The order service: its own table, and the outbox beside it.
CREATE TABLE orders (
    id       text          PRIMARY KEY,
    customer text          NOT NULL,
    total    numeric(10,2) NOT NULL
);

CREATE TABLE outbox_events (
    id           uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    aggregate_id text        NOT NULL,
    event_type   text        NOT NULL,
    payload      jsonb       NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);

-- Tailwater's role may replicate, and may not read a single table: rows come by the publication,
-- which the owner of the table makes. `tailwater init --print-sql` prints this statement.
CREATE ROLE tailwater LOGIN REPLICATION PASSWORD 'change-me';
CREATE PUBLICATION tailwater FOR TABLE outbox_events
    WITH (publish = 'insert', publish_via_partition_root = true);
