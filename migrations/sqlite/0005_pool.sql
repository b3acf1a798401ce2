-- The pool: how accounts are chosen, what is known of them, and what was decided.

ALTER TABLE accounts ADD COLUMN weight REAL NOT NULL DEFAULT 1;
ALTER TABLE accounts ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
-- Names separated by spaces.
ALTER TABLE accounts ADD COLUMN tags TEXT NOT NULL DEFAULT '';

CREATE TABLE pools (
    id         TEXT    NOT NULL PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    strategy   TEXT    NOT NULL,
    -- Every account with one of these tags belongs to it.
    tags       TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- Accounts that belong to a pool by themselves.
CREATE TABLE pool_accounts (
    pool_id    TEXT NOT NULL REFERENCES pools (id) ON DELETE CASCADE,
    account_id TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    PRIMARY KEY (pool_id, account_id)
) STRICT;
CREATE INDEX pool_accounts_account ON pool_accounts (account_id);

-- A pool that a key is bound to cannot be removed.
ALTER TABLE gateway_keys ADD COLUMN pool_id TEXT REFERENCES pools (id);
CREATE INDEX gateway_keys_pool ON gateway_keys (pool_id);

-- What a process knows of an account besides its row, so that the next one need not learn it anew.
CREATE TABLE account_conditions (
    account_id TEXT    NOT NULL PRIMARY KEY REFERENCES accounts (id) ON DELETE CASCADE,
    content    TEXT    NOT NULL, -- JSON
    updated_at INTEGER NOT NULL
) STRICT;

-- What an account's state was, and what it became.
CREATE TABLE account_events (
    id         TEXT    NOT NULL PRIMARY KEY,
    account_id TEXT    NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    at         INTEGER NOT NULL,
    was        TEXT    NOT NULL,
    became     TEXT    NOT NULL,
    reason     TEXT,
    -- When it is to be over, if time alone ends it.
    until      INTEGER
) STRICT;
CREATE INDEX account_events_account ON account_events (account_id, at);
CREATE INDEX account_events_at ON account_events (at);

-- Where conversations live. The session is a digest.
CREATE TABLE sessions (
    session       TEXT    NOT NULL PRIMARY KEY,
    account_id    TEXT    NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    last_at       INTEGER NOT NULL,
    foreign_items INTEGER NOT NULL
) STRICT;
CREATE INDEX sessions_last_at ON sessions (last_at);
CREATE INDEX sessions_account ON sessions (account_id);

-- Why accounts were chosen, for a while.
CREATE TABLE decisions (
    id         TEXT    NOT NULL PRIMARY KEY,
    request_id TEXT    NOT NULL,
    key_id     TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    content    TEXT    NOT NULL -- JSON
) STRICT;
CREATE INDEX decisions_at ON decisions (at);
CREATE INDEX decisions_request ON decisions (request_id);

-- What operators' systems are told.
CREATE TABLE webhook_deliveries (
    id         TEXT    NOT NULL PRIMARY KEY,
    event      TEXT    NOT NULL,
    body       TEXT    NOT NULL, -- JSON
    created_at INTEGER NOT NULL,
    attempts   INTEGER NOT NULL,
    -- When it is tried next; null once it is over.
    next_at    INTEGER,
    -- When it was taken; null while it was not.
    taken_at   INTEGER,
    last_error TEXT
) STRICT;
CREATE INDEX webhook_deliveries_next ON webhook_deliveries (next_at);
