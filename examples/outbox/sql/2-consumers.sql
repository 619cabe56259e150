-- What the consumers keep. Each would have a database of its own; here it has a schema.
--
-- handled_events makes a consumer idempotent: it takes the event's id and the event's effect in one
-- transaction, so an event that comes again finds its id there and has no effect.
CREATE SCHEMA billing;
CREATE TABLE billing.handled_events (id uuid PRIMARY KEY);
CREATE TABLE billing.revenue (customer text PRIMARY KEY, total numeric(12,2) NOT NULL);

CREATE SCHEMA shipping;
CREATE TABLE shipping.handled_events (id uuid PRIMARY KEY);
CREATE TABLE shipping.shipments (order_id text PRIMARY KEY, parcels int NOT NULL);
