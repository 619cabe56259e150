-- An outbox table as Tailwater reads it without further settings. Columns may have other names
-- (`columns = { ... }`), and there may be more of them: they do not matter.
CREATE TABLE outbox_events (
    -- The event's id; names it for ever. A key of another kind, such as a bigserial, does as well:
    -- the event's id is then a UUID that is made of it (schemas/README.md).
    id             uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    -- The record's key: events of one aggregate keep their order.
    aggregate_id   text,
    -- order.placed goes to the topic order.events.
    event_type     text        NOT NULL,
    -- The event's data, or all of the event (payload = "envelope"), or the record's value as it is
    -- (payload = "bare"). json, and text and bytea that hold JSON, do as well.
    payload        jsonb,
    -- When it happened. Without the column it is the time of the commit.
    created_at     timestamptz NOT NULL DEFAULT now()

    -- Each of these may be added:
    -- , aggregate_type text   -- for topic = "{aggregate_type}.events"
    -- , version        text   -- the version of the data's shape; "1.0" without it
    -- , correlation_id text   -- what the event belongs to; else the transaction's context says it
    -- , causation_id   text   -- the event or command that caused it
    -- , traceparent    text   -- the W3C trace context, for the record's header
    -- , headers        jsonb  -- an object whose members become record headers
);

-- In the transaction of the business change:
--
--   BEGIN;
--   INSERT INTO orders ...;
--   INSERT INTO outbox_events (aggregate_id, event_type, payload)
--   VALUES ('order-7', 'order.placed', '{"total": 12.5}');
--   COMMIT;
--
-- Only the INSERT counts: a row may be deleted at once, in the same transaction too, so the table
-- can stay empty. `DELETE FROM outbox_events WHERE created_at < now() - interval '7 days'` now and
-- then does as well.
