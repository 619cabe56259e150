-- The order service: an ordinary table, and nothing beside it. No outbox, no trigger.
CREATE TABLE orders (
    id        bigint        PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    customer  text          NOT NULL,
    address   text          NOT NULL,
    total     numeric(10,2) NOT NULL,
    status    text          NOT NULL DEFAULT 'placed',
    -- What the office writes to itself.
    note      text,
    placed_at timestamptz   NOT NULL DEFAULT now()
);

-- Updates and deletes carry the whole old row: the rules ask what the status was before.
ALTER TABLE orders REPLICA IDENTITY FULL;

-- Tailwater's role may replicate, which brings what happens, and read the orders that are there
-- already. The owner of the table makes the publication: `tailwater init --print-sql` prints it.
CREATE ROLE tailwater LOGIN REPLICATION PASSWORD 'change-me';
GRANT SELECT ON orders TO tailwater;
CREATE PUBLICATION tailwater FOR TABLE orders
    WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);
