-- What the application does to one order, each statement a transaction of its own. It knows nothing
-- of events.
INSERT INTO orders (customer, address, total) VALUES ('Zoë', '1 Harbour Street', 19.90);

-- The office looks at it. Nobody else wants to know.
UPDATE orders SET note = 'regular customer' WHERE id = 1;

UPDATE orders SET status = 'paid' WHERE id = 1;

-- A typing mistake in the name: no event either.
UPDATE orders SET customer = 'Zoe' WHERE id = 1;

-- The parcel must go elsewhere, which whoever packs it must know.
UPDATE orders SET address = '7 Harbour Street' WHERE id = 1;

UPDATE orders SET status = 'shipped' WHERE id = 1;

-- Too late to change where it goes.
UPDATE orders SET address = 'see note', note = 'call before delivery' WHERE id = 1;

UPDATE orders SET status = 'cancelled', note = 'refused at the door' WHERE id = 1;
