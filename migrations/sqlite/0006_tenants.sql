-- Tenants: teams, users, and what they and their keys may use. The ledger: what was used.

-- `limits` is JSON everywhere; `version` goes up with each change, for those who edit side by side.
CREATE TABLE teams (
    id         TEXT    NOT NULL PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    limits     TEXT    NOT NULL,
    suspended  INTEGER NOT NULL CHECK (suspended IN (0, 1)),
    version    INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE users (
    id         TEXT    NOT NULL PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    email      TEXT,
    team_id    TEXT REFERENCES teams (id),
    limits     TEXT    NOT NULL,
    suspended  INTEGER NOT NULL CHECK (suspended IN (0, 1)),
    version    INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX users_team ON users (team_id);

-- A key belongs to a user, and by it to the user's team; or to a team alone; or to nobody.
ALTER TABLE gateway_keys ADD COLUMN team_id TEXT REFERENCES teams (id);
ALTER TABLE gateway_keys ADD COLUMN user_id TEXT REFERENCES users (id);
ALTER TABLE gateway_keys ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';
ALTER TABLE gateway_keys ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
CREATE INDEX gateway_keys_team ON gateway_keys (team_id);
CREATE INDEX gateway_keys_user ON gateway_keys (user_id);

-- One row a request. No foreign keys: what was used stays on the books when its key is gone.
-- Ids that there are none of are empty.
CREATE TABLE usage_requests (
    id              TEXT    NOT NULL PRIMARY KEY,
    at              INTEGER NOT NULL,
    team_id         TEXT    NOT NULL,
    user_id         TEXT    NOT NULL,
    key_id          TEXT    NOT NULL,
    account_id      TEXT    NOT NULL,
    dialect         TEXT    NOT NULL,
    endpoint        TEXT    NOT NULL,
    model_asked     TEXT    NOT NULL,
    model           TEXT    NOT NULL,
    effort          TEXT,
    tier            TEXT,
    status          INTEGER NOT NULL,
    outcome         TEXT    NOT NULL,
    cause           TEXT,
    input           INTEGER NOT NULL,
    cached          INTEGER NOT NULL,
    cache_write     INTEGER NOT NULL,
    output          INTEGER NOT NULL,
    reasoning       INTEGER NOT NULL,
    -- 1: the backend did not count, or not all of it.
    estimated       INTEGER NOT NULL CHECK (estimated IN (0, 1)),
    -- Millionths of the price table's currency; null for a model without a price.
    cost            INTEGER,
    attempts        INTEGER NOT NULL,
    first_byte_ms   INTEGER,
    duration_ms     INTEGER NOT NULL
) STRICT;
CREATE INDEX usage_requests_at ON usage_requests (at);
CREATE INDEX usage_requests_key ON usage_requests (key_id, at);

-- One row a call of the backend.
CREATE TABLE usage_attempts (
    request_id  TEXT    NOT NULL REFERENCES usage_requests (id) ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    account_id  TEXT    NOT NULL,
    at          INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    outcome     TEXT    NOT NULL,
    status      INTEGER,
    upstream_id TEXT,
    input       INTEGER NOT NULL,
    cached      INTEGER NOT NULL,
    output      INTEGER NOT NULL,
    PRIMARY KEY (request_id, number)
) STRICT;

-- Sums by the hour and by the day (Unix hours and days), written together with the rows.
CREATE TABLE usage_hourly (
    hour        INTEGER NOT NULL,
    team_id     TEXT    NOT NULL,
    user_id     TEXT    NOT NULL,
    key_id      TEXT    NOT NULL,
    account_id  TEXT    NOT NULL,
    model       TEXT    NOT NULL,
    dialect     TEXT    NOT NULL,
    requests    INTEGER NOT NULL,
    failed      INTEGER NOT NULL,
    input       INTEGER NOT NULL,
    cached      INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    output      INTEGER NOT NULL,
    reasoning   INTEGER NOT NULL,
    estimated   INTEGER NOT NULL,
    cost        INTEGER NOT NULL,
    PRIMARY KEY (hour, team_id, user_id, key_id, account_id, model, dialect)
) STRICT;
CREATE INDEX usage_hourly_key ON usage_hourly (key_id, hour);
CREATE INDEX usage_hourly_user ON usage_hourly (user_id, hour);
CREATE INDEX usage_hourly_team ON usage_hourly (team_id, hour);

CREATE TABLE usage_daily (
    day         INTEGER NOT NULL,
    team_id     TEXT    NOT NULL,
    user_id     TEXT    NOT NULL,
    key_id      TEXT    NOT NULL,
    account_id  TEXT    NOT NULL,
    model       TEXT    NOT NULL,
    dialect     TEXT    NOT NULL,
    requests    INTEGER NOT NULL,
    failed      INTEGER NOT NULL,
    input       INTEGER NOT NULL,
    cached      INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    output      INTEGER NOT NULL,
    reasoning   INTEGER NOT NULL,
    estimated   INTEGER NOT NULL,
    cost        INTEGER NOT NULL,
    PRIMARY KEY (day, team_id, user_id, key_id, account_id, model, dialect)
) STRICT;
