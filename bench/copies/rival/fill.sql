-- The tables of the rival, and what is in them before the first trade: STOCKS stocks of VOLUME
-- shares each, and ORDERS orders. psql takes the three from the environment.
\set ON_ERROR_STOP on
\getenv stocks STOCKS
\getenv volume VOLUME
\getenv orders ORDERS

BEGIN;

CREATE TABLE stocks (
  name text PRIMARY KEY,
  price numeric(12, 2) NOT NULL,
  quantity bigint NOT NULL CHECK (quantity >= 0)
);

CREATE TABLE orders (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  key text NOT NULL UNIQUE,
  name text NOT NULL,
  type text NOT NULL CHECK (type IN ('BUY', 'SELL')),
  quantity bigint NOT NULL CHECK (quantity > 0)
);

INSERT INTO stocks
SELECT 'stock' || number, 25.78, :volume FROM generate_series(1, :stocks) AS number;

INSERT INTO orders (key, name, type, quantity)
SELECT gen_random_uuid(), 'stock' || 1 + number % :stocks,
       CASE number % 2 WHEN 0 THEN 'BUY' ELSE 'SELL' END, 1 + number % 100
FROM generate_series(1, :orders) AS number;

COMMIT;

VACUUM ANALYZE;
