-- Five orders and their events: the application writes both in one transaction, so there is never
-- one without the other.
WITH placed AS (
    INSERT INTO orders (id, customer, total)
    SELECT 'order-' || gen_random_uuid(), customer, total
    FROM (VALUES
        ('Zoë', 19.90), ('山田', 120.00), ('Zoë', 0.10), ('O''Brien', 7.25), ('Zoë', 30.00)
    ) AS new (customer, total)
    RETURNING id, customer, total
)
INSERT INTO outbox_events (aggregate_id, event_type, payload)
SELECT id, 'order.placed',
    -- An amount as text: no consumer's floating point can change it.
    jsonb_build_object('customer', customer, 'total', total::text)
FROM placed;
