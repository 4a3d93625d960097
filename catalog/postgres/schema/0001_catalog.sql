-- The CHECKs state what must always hold. The code never relies on one of them failing.
-- Every text sorts and compares by its bytes, whatever the locale of the server.
-- A seal is the digest of values that do not follow from the journal: the name, price and initial
-- volume of a stock, the epoch and leader of the fence, the cluster's id.

-- Who is active, and the fence. Every transaction writes the row, so its page has room for many
-- versions of it: then no index has to change with it.
CREATE TABLE office (
    only_row       integer NOT NULL PRIMARY KEY CHECK (only_row = 1),
    generation     bigint NOT NULL CHECK (generation >= 0),
    beat           bigint NOT NULL CHECK (beat >= 0),
    holder         text COLLATE "C" NOT NULL,
    released       boolean NOT NULL,
    epoch          bigint NOT NULL CHECK (epoch >= 0),
    leader_id      bigint NOT NULL CHECK (leader_id >= 0),
    fence_seal     bytea NOT NULL,
    schema_version integer NOT NULL,
    cluster_id     text COLLATE "C" NOT NULL CHECK (cluster_id <> ''),
    cluster_seal   bytea NOT NULL
) WITH (fillfactor = 10);

CREATE TABLE stocks (
    place          integer NOT NULL PRIMARY KEY, -- in the file they came from
    name           text COLLATE "C" NOT NULL UNIQUE,
    price_cents    bigint NOT NULL CHECK (price_cents > 0),
    volume         bigint NOT NULL CHECK (volume BETWEEN 0 AND 9007199254740991),
    version        bigint NOT NULL CHECK (version >= 0),
    initial_volume bigint NOT NULL CHECK (initial_volume BETWEEN 0 AND 9007199254740991),
    seal           bytea NOT NULL
) WITH (fillfactor = 50);

-- The columns are the fields of an order, in their order.
CREATE TABLE journal (
    number     bigint NOT NULL PRIMARY KEY CHECK (number >= 1),
    request_id text COLLATE "C" NOT NULL UNIQUE,
    name       text COLLATE "C" NOT NULL,
    type       text COLLATE "C" NOT NULL CHECK (type IN ('BUY', 'SELL')),
    quantity   bigint NOT NULL CHECK (quantity >= 1),
    version    bigint NOT NULL CHECK (version >= 1),
    epoch      bigint NOT NULL CHECK (epoch >= 1),
    digest     bytea NOT NULL CHECK (octet_length(digest) = 32)
);

CREATE TABLE refusals (
    request_id   text COLLATE "C" NOT NULL PRIMARY KEY,
    name         text COLLATE "C" NOT NULL,
    type         text COLLATE "C" NOT NULL CHECK (type IN ('BUY', 'SELL')),
    quantity     bigint NOT NULL CHECK (quantity >= 1),
    status       integer NOT NULL CHECK (status IN (0, -1)),
    refused_at_s double precision NOT NULL
);
CREATE INDEX refusals_by_age ON refusals (refused_at_s);
